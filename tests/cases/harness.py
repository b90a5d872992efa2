"""Runs cases: the modes in which every case must come to the same outcome, and what each of them cannot do yet.

A live run comes to what it emitted; batch comes to the final answer over the accepted events.

A runtime is one function from a case to its `Outcome`; another one (batch, Flink, Spark, crash and restore) is one more
entry in `MODES`, and no case changes for it.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from tests.cases.native import run_flow
from tests.cases.outcome import COUNTS, Outcome, final_join, final_matches, final_sessions, side_line
from tests.cases.script import Script, Step, read_script

from gillnet._kernel import Batch
from gillnet.api.pipeline import Pipeline
from gillnet.app import load_pipeline
from gillnet.connectors.memory import MemorySink
from gillnet.core.messages import RawBatch
from gillnet.operators.decide import DECISION, REASONS
from gillnet.operators.encode import ColumnField, EncodeOperator, GroupField, OutputField
from gillnet.operators.features import SESSION_START, FeatureOperator
from gillnet.operators.records import join_encoder, key_column, match_encoder, session_encoder
from gillnet.plan.joins import IntervalJoinNode
from gillnet.plan.nodes import PipelinePlan
from gillnet.plan.serde import dumps
from gillnet.runtimes.batch import BatchOptions, BatchPart, BatchRuntime, parquet_events
from gillnet.runtimes.embedded import EmbeddedRuntime, Outputs, RuntimeOptions
from gillnet.runtimes.embedded.revisions import REVISIONS
from gillnet.stores.history import History, HistoryWriter

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Case:
    """A folder: what a user writes, what arrives, and what must come of it."""

    name: str
    pipeline: Pipeline
    script: Script

    @property
    def golden(self) -> Path:
        return HERE / self.name / "expected.ndjson"

    @property
    def golden_final(self) -> Path:
        return HERE / self.name / "final.ndjson"


def case_names() -> list[str]:
    return sorted(path.parent.name for path in HERE.glob("*/pipeline.py"))


def load_case(name: str) -> Case:
    pipeline = load_pipeline(str(HERE / name / "pipeline.py"))
    return Case(name, pipeline, read_script(HERE / name / "input.ndjson", root=pipeline.plan.root))


class ScriptClock:
    """Processing time as the script says it."""

    def __init__(self, start_us: int) -> None:
        self.time_us = start_us

    def now_us(self) -> int:
        return self.time_us

    def monotonic_s(self) -> float:
        return self.time_us / 1_000_000

    def sleep(self, seconds: float) -> None:
        self.time_us += int(seconds * 1_000_000)


class Player:
    """Plays a script to the sources of all its streams, in its order, however they are polled."""

    def __init__(self, script: Script, *, root: str, batch_records: int | None) -> None:
        self.script = script
        self.clock = ScriptClock(script.steps[0].at_us)
        self.batch_records = batch_records
        self.ended: set[str] = set()
        self.place = 0
        self._root = root

    @property
    def over(self) -> bool:
        return self.place == len(self.script.steps)

    def take(self, stream: str, most: int) -> list[Step]:
        """Return the next records if they are of this stream: of one arrival, and as many as the mode allows."""
        taken: list[Step] = []
        for step in self.script.steps[self.place : self.place + min(most, self.batch_records or most)]:
            if step.value is None or step.stream != stream or (taken and step.at_us != taken[0].at_us):
                break
            taken.append(step)
        self.place += len(taken)
        if taken:
            self.clock.time_us = taken[0].at_us
        elif not self.over:
            self._event(stream, self.script.steps[self.place])
        return taken

    def _event(self, stream: str, step: Step) -> None:
        # The runtime polls the root last: when time passes there, no other stream had anything in this turn.
        if step.end == stream or (step.value is None and step.end is None and stream == self._root):
            self.place += 1
            self.clock.time_us = step.at_us
            self.ended |= {step.end} if step.end else set()


class ScriptSource:
    """A source of one stream of a script; it knows its partitions, as a broker's consumer does."""

    def __init__(self, player: Player, stream: str) -> None:
        self.stream = stream
        self._player = player
        heard = {step.partition for step in player.script.steps if step.stream == stream and step.value is not None}
        self.partitions = player.script.partitions.get(stream, frozenset(heard))

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:
        steps = self._player.take(self.stream, max_records)
        if not steps:
            return None
        return RawBatch(
            stream=self.stream,
            values=[step.value or b"" for step in steps],
            partitions=[step.partition for step in steps],
            arrival_time_us=steps[0].at_us,
        )

    def commit(self) -> None:
        """Do nothing: a script is played once."""

    def close(self) -> None:
        """Do nothing: there is nothing to release."""

    @property
    def finished(self) -> bool:
        return self._player.over or self.stream in self._player.ended

    @property
    def lag(self) -> int | None:
        return None


def run_embedded(
    case: Case,
    *,
    batch_records: int | None = None,
    restore_every: int | None = None,
    upgrade: bool = False,
    history: HistoryWriter | None = None,
) -> Outcome:
    """Run a case on the embedded runtime, in batches of at most so many records of one arrival.

    ``restore_every`` so many turns of its loop the operator goes, and one that is restored from its snapshot takes its place.
    ``upgrade``: one that was moved to the same plan as if that were another, where no row waits.
    """
    plan = case.pipeline.plan
    player = Player(case.script, root=plan.root, batch_records=batch_records)
    sinks: dict[str, MemorySink] = {}
    turns = itertools.count(1)

    def restored(operator: FeatureOperator) -> FeatureOperator:
        if upgrade and not operator.stats()["pending_rows"]:
            return FeatureOperator.upgraded(plan, operator.snapshot(), old_plan=dumps(plan))[0]
        return FeatureOperator.restored(plan, operator.snapshot())

    def on_turn() -> None:
        if restore_every is not None and next(turns) % restore_every == 0:
            runtime.flow.features = restored(runtime.features)

    runtime = EmbeddedRuntime(
        plan,
        sources={stream.name: ScriptSource(player, stream.name) for stream in plan.streams},
        outputs=Outputs(lambda name: sinks.setdefault(name, MemorySink())),
        options=RuntimeOptions(emit="all"),
        clock=player.clock,
        on_turn=on_turn,
        history=history,
    )
    metrics = runtime.run()
    assert all(counts.balanced for counts in metrics.streams.values())
    rows, sessions = _texts(sinks, "decisions"), _texts(sinks, "sessions")
    matches = final_matches(_texts(sinks, "matches"))
    sides = {
        name: [_side(name, record.value, dict(record.headers)) for record in sink.records]
        for name, sink in sinks.items()
        if "." in name and name != REVISIONS and not name.startswith("joins.") and sink.records
    }
    counts = {name: {count: getattr(metrics.stream(name), count) for count in COUNTS} for name in metrics.streams}
    joins = [line for join in plan.joins for line in final_join(join.name, _texts(sinks, f"joins.{join.name}"))]
    return Outcome(rows, final_sessions(sessions), matches, sorted(joins), sides, counts)


def _texts(sinks: dict[str, MemorySink], name: str) -> list[str]:
    return [value.decode() for value in sinks[name].values] if name in sinks else []


def _side(output: str, value: bytes, headers: dict[str, bytes | None]) -> str:
    reason, partition = headers["gillnet.reason"] or b"", headers["gillnet.partition"] or b""
    return side_line(output, reason=reason.decode(), partition=int(partition), value=value)


def run_batch(case: Case, *, options: BatchOptions | None = None) -> Outcome:
    """Run a case live with a history, and work out the final answer from that."""
    plan = case.pipeline.plan
    with tempfile.TemporaryDirectory() as directory:
        run_embedded(case, history=HistoryWriter(Path(directory), run=0))
        history = History(Path(directory))
        runtime = BatchRuntime(plan, decide=True, options=options)
        parts = list(runtime.run({stream.name: parquet_events(history.files(stream.name)) for stream in plan.streams}))
    rows = EncodeOperator(_final_fields(plan), omit_nulls=True)
    closed = [part.sessions for part in parts if part.sessions is not None]
    sessions = [
        text.decode()
        for batch in closed
        for text in session_encoder(plan, batch.schema.names).encode(Batch.from_pyarrow(batch))
    ]
    return Outcome(
        [text.decode() for part in parts for text in rows.encode(Batch.from_pyarrow(part.rows))],
        final_sessions(sessions),
        final_matches(_matches(parts)),
        joins=sorted(line for join in plan.joins for line in final_join(join.name, _joined(join, parts))),
    )


def _matches(parts: Sequence[BatchPart]) -> list[str]:
    found = [part.matches for part in parts if part.matches is not None]
    return [text.decode() for rows in found for text in match_encoder().encode(Batch.from_pyarrow(rows))]


def _joined(join: IntervalJoinNode, parts: Sequence[BatchPart]) -> list[str]:
    batches = [part.joined[join.name] for part in parts if join.name in part.joined]
    return [text.decode() for rows in batches for text in join_encoder(join).encode(Batch.from_pyarrow(rows))]


def _final_fields(plan: PipelinePlan) -> list[OutputField]:
    """What a row has in the end: nothing of when it arrived."""
    root, key = plan.stream(plan.root), key_column(plan)
    fields: list[OutputField] = [ColumnField(root.id), ColumnField("event_time", root.event_time)]
    if key and key != root.id:
        fields.append(ColumnField(key))
    if plan.sessions:
        fields.append(ColumnField("session_start", SESSION_START))
    features = GroupField("features", tuple(ColumnField(feature.name) for feature in plan.features))
    return [*fields, ColumnField(DECISION), ColumnField(REASONS), features]


FINAL_MODES: dict[str, Callable[[Case], Outcome]] = {
    "batch": run_batch,
    "batch-one-by-one": partial(run_batch, options=BatchOptions(part_rows=1, threads=1)),
    "batch-out-of-core": partial(run_batch, options=BatchOptions(part_rows=3, memory_bytes=1, threads=3)),
}
"""Every case runs in each, to its ``final.ndjson``."""

MODES: dict[str, Callable[[Case], Outcome]] = {
    "embedded": run_embedded,
    "embedded-batches-of-1": partial(run_embedded, batch_records=1),
    "embedded-batches-of-3": partial(run_embedded, batch_records=3),
    "embedded-restored": partial(run_embedded, batch_records=2, restore_every=1),
    "embedded-upgraded": partial(run_embedded, batch_records=2, restore_every=1, upgrade=True),
    "embedded-restored-every-5": partial(run_embedded, restore_every=5),
    "flow": run_flow,
    "flow-batches-of-3": partial(run_flow, batch_records=3),
    "flow-restored": partial(run_flow, batch_records=2, restore_every=1),
    "flow-shards": partial(run_flow, batch_records=1, shards=5),
}
"""Every case runs in each. ``embedded`` takes everything that arrives at one time as one batch."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a mode does not do: ``notimpl`` (nobody has written it), ``notyet`` (it is wrong so far), ``never``."""

    kind: Literal["notimpl", "notyet", "never"]
    mode: str
    case: str
    reason: str


def _limits(kind: Literal["notimpl", "notyet", "never"], case: str, modes: str, reason: str) -> list[Limit]:
    return [Limit(kind, mode, case, reason) for mode in MODES if mode.startswith(modes)]


LIMITS: tuple[Limit, ...] = (
    Limit(
        "never",
        "flow-shards",
        "duplicates",
        "ids are told apart within a shard: one that comes again under another key is new there",
    ),
)
"""Held strictly: a case that starts to pass must leave this list."""
