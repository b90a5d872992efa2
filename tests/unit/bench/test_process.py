"""The harness and a contender understand each other; a contender that breaks the contract is named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bench.payments import process
from bench.payments.contract import Job, parse_job
from bench.payments.process import Contender, run

JOB = Job(bootstrap="h:1", input="in", output="out", group="g", model=Path("m.ubj"), mode="latency", events=3)
METERED = """
from bench.payments.contract import Meter, announce_ready, parse_job
job, meter = parse_job(), Meter()
announce_ready()
meter.start()
meter.batches += 1
sum(range(3_000_000))
meter.finish(job.events{surplus})
"""


@pytest.fixture(autouse=True)
def _logs_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LOGS", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))


def program(source: str) -> Contender:
    return Contender(name="sample", command=(sys.executable, "-c", source))


def test_job_survives_the_command_line() -> None:
    assert parse_job(JOB.arguments()) == JOB


def test_contender_reports_what_it_took() -> None:
    measured = run(program(METERED.format(surplus="")), JOB, timeout_s=60)

    assert measured.events == 3
    assert measured.batches == 1
    assert 0 < measured.cpu_user_s + measured.cpu_system_s <= measured.wall_s * 1.5 + 0.05
    assert measured.rss_peak_bytes >= measured.rss_start_bytes > 1_000_000


def test_peak_memory_is_the_contenders_own_and_not_its_parents() -> None:
    ballast = bytearray(400_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])

    measured = run(program(METERED.format(surplus="")), JOB, timeout_s=60)

    assert measured.rss_peak_bytes < 200_000_000


def test_contender_that_scores_another_number_of_payments_is_refused() -> None:
    with pytest.raises(RuntimeError, match="scored 4 payments instead of 3"):
        run(program(METERED.format(surplus=" + 1")), JOB, timeout_s=60)


def test_contender_that_fails_is_named_with_the_end_of_its_log() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)sample ended.*no such broker"):
        run(program("raise SystemExit('no such broker')"), JOB, timeout_s=60)
