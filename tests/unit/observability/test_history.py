"""The history of a run's figures: bounded, private, torn lines passed over; and what the process tells of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from gillnet.observability.history import MetricsHistory, Sample, read_history
from gillnet.observability.metrics import Histogram
from gillnet.observability.process import cpus, memory_limit_bytes, process_figures


def sample(number: int, **figures: float) -> Sample:
    return Sample(number, 1, {"batches": number, **figures})


def test_what_is_written_is_read_back_in_order(tmp_path: Path) -> None:
    history = MetricsHistory(tmp_path / "new")
    for number in range(5):
        history.append(sample(number))
    history.append(Sample(5, 1, {"batches": 5}, {"pipeline": "p"}))
    found = read_history(tmp_path / "new")
    assert [one.at_us for one in found] == list(range(6))
    assert found[-1].settings == {"pipeline": "p"}
    assert [one.at_us for one in read_history(tmp_path / "new", since_us=4)] == [4, 5]
    assert read_history(tmp_path / "nowhere") == []


def test_it_takes_no_more_room_than_it_may_and_keeps_the_newest(tmp_path: Path) -> None:
    history = MetricsHistory(tmp_path, file_bytes=1_000, kept_files=3)
    for number in range(500):
        history.append(sample(number))
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["metrics.1.ndjson", "metrics.2.ndjson", "metrics.ndjson"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 3_000
    found = [one.at_us for one in read_history(tmp_path)]
    assert found == list(range(500 - len(found), 500))
    assert len(found) > 30
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


@pytest.mark.parametrize("torn", [b'{"at_us": 3, "fig', b'{"at_us": 3}\n', b"[]\n", b"\xff\xfe\n", b"\n"])
def test_a_line_that_a_crash_tore_is_passed_over_and_takes_no_other_with_it(tmp_path: Path, torn: bytes) -> None:
    MetricsHistory(tmp_path).append(sample(1))
    with (tmp_path / "metrics.ndjson").open("ab") as file:
        file.write(torn)
    MetricsHistory(tmp_path).append(sample(2))
    assert [one.at_us for one in read_history(tmp_path)] == [1, 2]


def test_a_histogram_tells_what_came_since() -> None:
    latency = Histogram()
    latency.add(100.0, 50)
    before = latency.bins()
    latency.add(1.0, 99)
    recent = latency.since(before)
    assert recent.count == 99
    assert recent.percentile(0.99) == pytest.approx(1.0, rel=0.02)
    assert latency.since(latency.bins()).percentile(0.5) is None


def test_the_process_tells_of_itself() -> None:
    before = process_figures()
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
    after = process_figures()
    if "process_rss_bytes" in after:
        assert after["process_rss_bytes"] - before["process_rss_bytes"] > 40e6
    assert after["process_cpu_s"] >= before["process_cpu_s"]
    assert cpus() > 0
    assert (memory_limit_bytes() or 1) > 0
