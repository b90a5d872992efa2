"""Drives the embedded runtime by a script: one small pipeline, sinks that fail or block, and one journal of what happened."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gillnet as gn
from gillnet.connectors.memory import MemorySink
from gillnet.core.errors import SinkError
from gillnet.runtimes.embedded import EmbeddedRuntime, Outputs, RuntimeOptions
from gillnet.testing.clock import SimulatedClock
from gillnet.testing.scripted import ScriptedSource

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gillnet.core.messages import OutputRecord
    from gillnet.core.ports import Sink, Source, StateBackend, Transactions
    from gillnet.runtimes.embedded import Checkpoints
    from gillnet.serving import Scorer
    from gillnet.stores.history import HistoryWriter
    from gillnet.testing.scripted import Step

START_MS = SimulatedClock().now_us() // 1_000 - 600_000
"""The event time of the first payment, ten minutes before the clock: as of a backlog. What is ahead of the clock pushes no watermark."""

PAYMENT = gn.Schema(
    id=gn.String(),
    ts=gn.Timestamp("ms"),
    card=gn.String(),
    amount=gn.Decimal(2, minimum=0),
    risk=gn.Float(minimum=0.0, nullable=True),
)


def payments_stream(**options: Any) -> gn.Stream:
    merged = {"watermark_delay": "5s", "allowed_lateness": "1h", **options}
    return gn.Stream("payments", schema=PAYMENT, id="id", event_time="ts", **merged)


def pipeline(stream: gn.Stream | None = None, **options: Any) -> gn.Pipeline:
    """Spending of a card over five minutes; beyond 1,000 a payment is blocked."""
    stream = stream or payments_stream()
    card = stream.by("card")
    features = gn.Features(stream, spend_5m=card.sum("amount", over="5m"), payments_5m=card.count(over="5m"))
    return gn.Pipeline(features, policy=[gn.block(gn.col("spend_5m") > 1_000, reason="spends_fast")], **options)


def payment(number: int, *, at_s: float | None = None, **fields: Any) -> bytes:
    """A good payment, a second after the one before it; ``...`` leaves a field out."""
    at_s = number if at_s is None else at_s
    record = {"id": f"p{number}", "ts": START_MS + round(at_s * 1_000), "card": f"c{number % 7}", "amount": "1.00"}
    return json.dumps({name: value for name, value in (record | fields).items() if value is not ...}).encode()


def payments(count: int, start: int = 0) -> list[bytes]:
    # All within a second, so that none is ahead of its arrival however many there are.
    return [payment(number, at_s=number / 100_000) for number in range(start, start + count)]


class Journal(list[tuple[str, int]]):
    """What sources and sinks did, in order: (what, how many records)."""

    def whats(self) -> list[str]:
        return [what for what, _ in self]


class JournalSource(ScriptedSource):
    """A scripted source that writes down polls, commits and its close."""

    journal: Journal

    def poll(self, max_records: int, timeout_s: float) -> Any:
        batch = super().poll(max_records, timeout_s)
        if batch is not None:
            self.journal.append(("poll", len(batch.values)))
        return batch

    def commit(self) -> None:
        super().commit()
        self.journal.append(("commit", self.committed_records))

    def close(self) -> None:
        super().close()
        self.journal.append(("close source", 0))


@dataclass
class StubbornSink(MemorySink):
    """A sink in memory that fails or blocks on demand.

    ``fail_write_at``: the record (counted over all writes) whose write fails; ``fail_flush``: every flush fails;
    ``gate``: a write takes one permit of it, and so blocks until the test gives one.
    """

    name: str = "decisions"
    journal: Journal = field(default_factory=Journal)
    fail_write_at: int | None = None
    fail_flush: bool = False
    gate: threading.Semaphore | None = None

    def __post_init__(self) -> None:
        super().__init__()

    def write(self, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:
        if self.gate is not None:
            self.gate.acquire()
        if self.fail_write_at is not None and len(self.records) + len(values) > self.fail_write_at:
            raise SinkError(f"the disk of {self.name} is full.")
        super().write(values, keys)
        self.journal.append((f"write {self.name}", len(values)))

    def write_records(self, records: Sequence[OutputRecord]) -> None:
        super().write_records(records)
        self.journal.append((f"write {self.name}", len(records)))

    def flush(self) -> None:
        if self.fail_flush:
            raise SinkError(f"the disk of {self.name} is full.")
        super().flush()
        self.journal.append((f"flush {self.name}", self.flushed_records))

    def close(self) -> None:
        self.journal.append((f"close {self.name}", 0))
        super().close()


class Outs(dict[str, MemorySink]):
    """A memory sink for every output that is asked for; given ones are used as they are."""

    def open(self, name: str) -> Sink:
        return self.setdefault(name, MemorySink())

    def rows(self, name: str = "decisions") -> list[dict[str, Any]]:
        return [json.loads(value) for value in self[name].values] if name in self else []

    def ids(self, name: str = "decisions") -> list[str]:
        return [row["id"] for row in self.rows(name)]


@dataclass
class Drive:
    """A runtime with everything that it touches."""

    runtime: EmbeddedRuntime
    source: JournalSource
    clock: Any
    outs: Outs
    journal: Journal

    def run(self, stop: threading.Event | None = None) -> Drive:
        self.runtime.run(stop)
        return self

    @property
    def counts(self) -> Any:
        return self.runtime.metrics.stream("payments")


def drive(
    script: Sequence[Step] | JournalSource,
    *,
    plan: gn.Pipeline | None = None,
    outs: Outs | None = None,
    others: dict[str, Source] | None = None,
    clock: SimulatedClock | None = None,
    scorer: Scorer | None = None,
    partitions: frozenset[int] | None = None,
    history: HistoryWriter | None = None,
    checkpoints: Checkpoints | None = None,
    transactions: Transactions | None = None,
    backend: StateBackend | None = None,
    open_sink: Callable[[str], Sink | None] | None = None,
    on_alerts: Callable[..., None] | None = None,
    on_turn: Callable[[], None] | None = None,
    **options: Any,
) -> Drive:
    """Build a runtime over a script; `Drive.run` runs it."""
    outs = Outs() if outs is None else outs
    journal = next((sink.journal for sink in outs.values() if isinstance(sink, StubbornSink)), Journal())
    if isinstance(script, JournalSource):
        source = script
    else:
        source = JournalSource("payments", script, clock=clock or SimulatedClock(), partitions=partitions)
    source.journal = journal
    runtime = EmbeddedRuntime(
        (plan or pipeline()).plan,
        sources={"payments": source, **(others or {})},
        outputs=Outputs(open_sink or outs.open),
        scorer=scorer,
        options=RuntimeOptions(**options),
        clock=source.clock,
        history=history,
        checkpoints=checkpoints,
        transactions=transactions,
        backend=backend,
        on_alerts=on_alerts,
        on_turn=on_turn,
    )
    return Drive(runtime, source, source.clock, outs, journal)
