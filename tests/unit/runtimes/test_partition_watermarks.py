"""Watermarks over partitions, as the embedded runtime keeps them (I8)."""

from __future__ import annotations

import gillnet as gn
from gillnet.connectors.memory import MemorySink, MemorySource
from gillnet.core.messages import RawBatch
from gillnet.runtimes.embedded import EmbeddedRuntime, Outputs

MINUTE_MS = 60_000
START_MS = 1_767_571_200_000

SCHEMA = gn.Schema(id=gn.String(), ts=gn.Timestamp("ms"), card=gn.String())


class AssignedSource(MemorySource):
    """A memory source that knows its partitions, one record a poll, and one poll a second."""

    @property
    def partitions(self) -> frozenset[int]:
        return frozenset({0, 1})

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:
        batch = super().poll(1, timeout_s)
        return batch and RawBatch(
            stream=batch.stream,
            values=batch.values,
            partitions=batch.partitions,
            arrival_time_us=(START_MS + 600 * MINUTE_MS) * 1_000 + self._position * 1_000_000,
            envelope=batch.envelope,
        )


def run(minutes: list[int], partitions: list[int]) -> tuple[EmbeddedRuntime, list[bytes]]:
    stream = gn.Stream("payments", schema=SCHEMA, id="id", event_time="ts", allowed_lateness="10m", idle_after="30s")
    sessions = gn.Sessions(stream.by("card"), gap="5m", n=gn.count())
    values = [
        b'{"id":"%d","ts":%d,"card":"c%d"}' % (number, START_MS + minute * MINUTE_MS, number)
        for number, minute in enumerate(minutes)
    ]
    closed = MemorySink()
    runtime = EmbeddedRuntime(
        gn.Pipeline(sessions).plan,
        sources={"payments": AssignedSource("payments", values, partitions=partitions)},
        outputs=Outputs(lambda name: closed if name == "sessions" else None),
    )
    before_end: list[bytes] = []
    finish = runtime.features.finish

    def note_and_finish(name: str) -> None:
        before_end.extend(closed.values)
        finish(name)

    runtime.features.finish = note_and_finish  # type: ignore[method-assign]
    runtime.run()
    return runtime, before_end


def test_an_assigned_partition_holds_the_watermark_before_its_first_record() -> None:
    # Partition 0 is an hour ahead before anything of partition 1 is read: a backlog, not late data.
    runtime, _ = run([0, 20, 40, 60, 0, 20, 40, 60], [0, 0, 0, 0, 1, 1, 1, 1])
    counts = runtime.metrics.stream("payments")
    assert (counts.scored, counts.too_late) == (8, 0)


def test_a_silent_partition_does_not_hold_the_watermark_of_a_busy_stream() -> None:
    # A record a second from partition 0 only: after 30 s partition 1 is idle, and the first sessions close.
    _, closed_while_running = run(list(range(45)), [0] * 45)
    assert len(closed_while_running) > 30
