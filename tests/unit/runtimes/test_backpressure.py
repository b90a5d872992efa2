"""A slow or blocked sink holds the source back: what is read and not yet written is bounded, in order and complete."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from gillnet.runtimes.embedded.writer import HAND_OVER_RECORDS, WAITING_BATCHES

from .driving import Outs, StubbornSink, drive, payments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH = 600
assert BATCH >= HAND_OVER_RECORDS
# Those that wait for the writer, the one that it is writing and the one that the loop holds.
BOUND_RECORDS = (WAITING_BATCHES + 1) * BATCH


def wait_until(holds: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, "it has not come to hold"
        time.sleep(0.005)


def settled(read: Callable[[], int]) -> int:
    """The figure once it has stood still for a while."""
    before, value = -1, read()
    while value != before:
        time.sleep(0.1)
        before, value = value, read()
    return value


class Running:
    def __init__(self, count: int, **options: int) -> None:
        self.gate = threading.Semaphore(0)
        self.sink = StubbornSink(gate=self.gate)
        self.driven = drive(payments(count), outs=Outs(decisions=self.sink), **options)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.driven.run, args=(self.stop,))
        self.thread.start()

    def finish(self) -> None:
        self.gate.release(1_000_000)
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture
def running() -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(count: int, **options: int) -> Running:
        started.append(Running(count, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop.set()
        one.finish()


@pytest.mark.parametrize("batch", [100, BATCH])
def test_a_blocked_sink_bounds_what_is_polled(running: Callable[..., Running], batch: int) -> None:
    run = running(15_000, max_batch_records=batch)
    polled = settled(lambda: run.driven.source.polled_records)
    assert 0 < polled <= max(BOUND_RECORDS, batch)
    assert run.sink.records == []
    assert run.driven.source.committed_records == 0
    run.finish()
    assert run.driven.outs.ids() == [f"p{n}" for n in range(15_000)]  # Nothing lost, order kept.
    assert run.driven.source.committed_records == 15_000


def test_a_slow_sink_sets_the_pace_and_the_backlog_stays_bounded(running: Callable[..., Running]) -> None:
    run = running(10_000, max_batch_records=BATCH, latency_budget_ms=1_000)
    backlog: list[int] = []
    for turn in range(1, 15):
        run.gate.release()
        wait_until(lambda turn=turn: len([what for what in run.driven.journal.whats() if "write" in what]) >= turn)
        backlog.append(settled(lambda: run.driven.source.polled_records) - len(run.sink.records))
    assert max(backlog) <= BOUND_RECORDS
    run.finish()
    assert run.driven.outs.ids() == [f"p{n}" for n in range(10_000)]


def test_a_stop_while_the_sink_is_blocked_still_writes_and_commits_what_was_read(
    running: Callable[..., Running],
) -> None:
    run = running(15_000, max_batch_records=BATCH)
    settled(lambda: run.driven.source.polled_records)
    run.stop.set()
    run.finish()
    read = run.driven.counts.read
    assert 0 < read <= BOUND_RECORDS + BATCH
    assert len(run.sink.records) == run.sink.flushed_records == run.driven.source.committed_records == read
