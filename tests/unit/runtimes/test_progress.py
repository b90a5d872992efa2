"""What a run tells of its watermarks: how far each stream is, what holds it, and who is not waited for (I8)."""

from __future__ import annotations

import pytest

from gillnet.observability.metrics import CATALOGUE
from gillnet.operators.progress import StreamProgress
from gillnet.testing.scripted import Abort, Aborted, Pause, Record, Step

from .driving import START_MS, drive, payment, payments_stream, pipeline

START_US = START_MS * 1_000
SECOND_US = 1_000_000


def at(number: int, at_s: float, partition: int) -> Record:
    return Record(payment(number, at_s=at_s), partition=partition)


def figures_after(script: list[Step], partitions: set[int]) -> tuple[StreamProgress, dict[str, float | int]]:
    """What is known when the script is through, of partitions that were assigned."""
    plan = pipeline(payments_stream(idle_after="30s"))
    driven = drive([*script, Pause(1), Abort()], plan=plan, partitions=frozenset(partitions))
    with pytest.raises(Aborted):
        driven.run()
    metrics = driven.runtime.metrics
    return metrics.progress["payments"], metrics.snapshot()


def test_the_watermark_its_lag_and_the_partition_that_holds_it_are_figures_of_the_run() -> None:
    progress, figures = figures_after([at(1, 100, 0), at(2, 50, 1), at(3, 70, 2)], {0, 1, 2})
    assert progress.watermark_us == START_US + 45 * SECOND_US
    assert progress.newest_us == START_US + 100 * SECOND_US
    assert (progress.held_by, progress.idle) == (1, ())
    assert progress.lag_us == progress.now_us - progress.watermark_us > 0
    assert figures["watermark_us{stream=payments}"] == progress.watermark_us
    assert figures["watermark_lag_ms{stream=payments}"] == progress.lag_us / 1_000
    assert figures["watermark_held_by{stream=payments}"] == 1
    assert figures["newest_event_time_us{stream=payments,partition=2}"] == START_US + 70 * SECOND_US
    assert {name.partition("{")[0].removesuffix("_p50") for name in figures} >= {"idle", "heard_us", "latency_ms"}


def test_an_idle_partition_is_named_and_holds_nothing() -> None:
    progress, figures = figures_after([at(1, 100, 0), at(2, 50, 1), Pause(20), at(3, 120, 0), Pause(11)], {0, 1})
    assert (progress.held_by, progress.idle) == (0, (1,))
    assert (figures["partitions_idle{stream=payments}"], figures["idle{stream=payments,partition=1}"]) == (1, 1)
    heard = [part.heard_us for part in progress.partitions]
    assert 20 * SECOND_US <= heard[0] - heard[1] < 21 * SECOND_US


def test_an_assigned_partition_that_was_never_heard_is_what_is_waited_for() -> None:
    progress, figures = figures_after([at(1, 100, 0)], {0, 1})
    assert (progress.watermark_us, progress.lag_us, progress.held_by) == (None, None, 1)
    assert "watermark_us{stream=payments}" not in figures
    assert "newest_event_time_us{stream=payments,partition=1}" not in figures


def test_a_stream_that_has_ended_has_no_watermark_to_tell_of() -> None:
    driven = drive([payment(0)]).run()
    progress = driven.runtime.metrics.progress["payments"]
    assert (progress.ended, progress.watermark_us, progress.held_by) == (True, None, None)
    assert progress.newest_us == START_US


def test_a_clock_that_is_ahead_does_not_make_the_lag_negative() -> None:
    progress, _ = figures_after([at(1, 1_800, 0)], {0})  # Twenty minutes ahead of its arrival.
    assert progress.lag_us is not None
    assert progress.lag_us >= 5 * SECOND_US, "the watermark's delay"


def test_every_figure_is_in_the_catalogue() -> None:
    _, figures = figures_after([at(1, 100, 0), at(2, 50, 1)], {0, 1})
    names = {name.partition("{")[0] for name in figures}
    percentiles = {f"latency_ms_{share}" for share in ("p50", "p95", "p99")}
    assert names - percentiles <= set(CATALOGUE)
