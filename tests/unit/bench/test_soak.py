"""The soak's verdict: what grows is found through noise, and what stands still is not blamed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pytest
from bench.soak.ends import SHARES, Load
from bench.soak.verdict import LIMITS, judge, robust_slope
from bench.soak.watch import Log, disk

if TYPE_CHECKING:
    from pathlib import Path

TIMES = [180.0 + 10 * n for n in range(160)]
NOISE = np.random.default_rng(6)


def test_a_slope_is_found_through_a_quarter_of_outliers() -> None:
    values = np.asarray(TIMES) * 3.0 + NOISE.normal(0, 1, len(TIMES))
    values[::4] += 1e6
    assert robust_slope(TIMES, values.tolist()) == pytest.approx(3.0, rel=0.05)
    assert robust_slope([1.0, 1.0], [1.0, 2.0]) == 0.0


@pytest.mark.parametrize("figure", LIMITS)
def test_a_figure_that_stands_still_is_flat_whatever_its_noise(figure: str) -> None:
    values = np.full(len(TIMES), 200e6) + NOISE.normal(0, 1e6, len(TIMES))
    values[10:20] += 50e6  # A checkpoint's pages, for a while.
    still = [100.0] * len(TIMES) if LIMITS[figure].share == 0 else values.tolist()
    assert judge(figure, TIMES, still).flat


@pytest.mark.parametrize(
    ("figure", "a_second"),
    [
        ("rss_bytes", 10 * 1_000),  # Ten bytes a record.
        ("handles", 1 / 600),
        ("threads", 1 / 600),
        ("checkpoints_bytes", 10_000),
        ("lag_records", 1),
    ],
)
def test_a_leak_is_found(figure: str, a_second: float) -> None:
    start = {"rss_bytes": 200e6, "checkpoints_bytes": 20e6}.get(figure, 40.0)
    values = [start + a_second * at for at in TIMES]
    whole = values if LIMITS[figure].share else [float(int(value)) for value in values]
    verdict = judge(figure, TIMES, whole)
    assert not verdict.flat
    assert verdict.growth > verdict.allowed


def test_a_log_is_followed_as_it_grows_and_half_a_line_waits(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    first = json.dumps({"level": "info", "event": "progress", "lag": 7})
    path.write_text(f"no JSON\n{first}\n{first[:9]}")
    log = Log(path)
    log.follow()
    assert (log.counts["info: progress"], log.last["lag"]) == (1, 7)
    with path.open("a") as file:
        file.write(first[9:] + "\n")
    log.follow()
    assert log.counts["info: progress"] == 2


def test_disk_is_counted_and_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"12345")
    assert disk(tmp_path) == (5, 1)
    assert disk(tmp_path / "missing") == (0, 0)


def test_the_load_has_every_kind_of_record_and_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken:
        values: ClassVar[list[bytes]] = []

        def __init__(self, **_: object) -> None:
            pass

        def write(self, values: list[bytes], keys: list[bytes]) -> None:
            assert len(values) == len(keys)
            self.values += values

        def close(self) -> None:
            pass

    monkeypatch.setattr("bench.soak.ends.KafkaSink", Taken)
    load = Load("nowhere", "payments", rate=20_000, seed=6)
    load.start()
    while len(Taken.values) < 5_000:
        pass
    written = load.end()
    assert sum(written.values()) == len(Taken.values)
    assert set(written) == {"ordinary", *SHARES}
    broken = [value for value in Taken.values if not value.endswith(b"}")]
    assert len(broken) == written["malformed"]
    whole = [value for value in Taken.values if value.endswith(b"}")]
    assert len(whole) - len(set(whole)) == written["duplicate"]
