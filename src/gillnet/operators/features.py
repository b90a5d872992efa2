"""Records of all streams in, rows with features out: the kernel's engine, with its errors named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Self

import pyarrow as pa

from gillnet._kernel import Batch, Engine
from gillnet.core.errors import DefinitionChangedError, PlanError, StateError
from gillnet.core.ports import StateBackend
from gillnet.core.schema import Schema
from gillnet.operators.progress import StreamProgress, stream_progress
from gillnet.plan.nodes import EmissionNode, PipelinePlan
from gillnet.plan.serde import dumps

ARRIVAL_TIME = "__arrival_time"
WATERMARK = "__watermark"
LATE = "__late"
FEATURE_STATES = "__feature_states"
SESSION_START = "__session_start"
REVISION = "__revision"
CAUSE_STREAM = "__cause_stream"
CAUSE_ID = "__cause_id"
CHANGED = "__changed"
OLD = "__old."
"""Before a feature's name: its value as it last went out."""
WAS = "__was."
"""Before a feature's name: the same where it changed, null where it did not."""

MATCHES_AT_ONCE = 1_024
"""Matches of patterns that one call gives at the most."""

CLOSED_AT_ONCE = 1_024
"""Closed sessions that one call gives at the most, so that no batch grows without bound."""


class Outcome(IntEnum):
    """What became of a decoded record (I3)."""

    ACCEPTED = 0
    DUPLICATE = 1
    TOO_LATE = 2
    BEFORE_EARLIEST = 3
    AHEAD_OF_ARRIVAL = 4
    LATE = 5
    """Accepted, behind the watermark but inside the allowed lateness."""


@dataclass(frozen=True, slots=True)
class Processed:
    """The outcome of each record as a byte (`Outcome`), and the rows that leave: None where there are none."""

    outcomes: bytes
    rows: Batch | None


class FeatureOperator:
    """Hosts a plan's keyed state and computes its features, in the order of arrival.

    Parameters
    ----------
    plan
        The pipeline's plan.
    backend
        Where keys are kept that are cold; None for all state in memory. Rows do not depend on it.

    Raises
    ------
    PlanError
        If the kernel cannot execute the plan.

    Notes
    -----
    A row sees exactly the records that arrived before it, so rows do not depend on where batches end. Memory is the
    events inside window + allowed lateness, about 8 bytes for each word of an event (4, and one for each input
    column), and comes back by TTL as the watermark moves.
    """

    def __init__(self, plan: PipelinePlan, *, backend: StateBackend | None = None) -> None:
        self.plan = plan
        self._backend = backend
        try:
            self._engine = Engine(dumps(plan))
        except ValueError as error:
            raise PlanError(f"pipeline {plan.name!r} cannot be executed: {error}.") from error
        self._spill()

    def _spill(self) -> None:
        if self._backend is not None:
            self._engine.spill_to(self._backend, self._backend.budget, self._backend.holds)

    @classmethod
    def restored(cls, plan: PipelinePlan, snapshot: bytes, *, backend: StateBackend | None = None) -> Self:
        """Return an operator that goes on where the one that wrote ``snapshot`` stood.

        Parameters
        ----------
        plan
            The pipeline's plan: that of the snapshot. Its name, model, limits and rules may be others, as long as the rules read
            the same columns.
        snapshot
            What `snapshot` returned.
        backend
            Where the keys are that the snapshot left out, and where cold ones are kept from now on.

        Raises
        ------
        PlanError
            If the kernel cannot execute the plan.
        DefinitionChangedError
            If the bytes are of another plan.
        StateError
            If they are of another version, torn or changed; restore an earlier snapshot, or read the sources again.
        """
        operator = cls(plan, backend=backend)
        try:
            operator._engine = Engine.restore(dumps(plan), snapshot)
        except ValueError as error:
            kind = DefinitionChangedError if str(error).startswith("definition: ") else StateError
            raise kind(f"pipeline {plan.name!r} cannot be restored: {error}.") from error
        operator._spill()
        return operator

    @classmethod
    def upgraded(
        cls, plan: PipelinePlan, snapshot: bytes, *, old_plan: str, keys: StateBackend | None = None
    ) -> tuple[Self, dict[str, int | None]]:
        """Return an operator of ``plan`` with the state that ``old_plan`` wrote, and which of its features are warming.

        Parameters
        ----------
        plan
            The plan that is to go on.
        snapshot
            What `snapshot` returned.
        old_plan
            The plan that wrote it, as JSON.
        keys
            A backend with the keys that the snapshot left out: all of them come into memory.

        Returns
        -------
        The operator; and by name of a feature that misses what was not kept, the event time (microseconds UTC) from which on it is
        what it would be had ``plan`` run from the start, None where that is for each key once it has paused. Until then it counts
        what was kept of its events, or where its column was not kept, those that come.

        Raises
        ------
        PlanError
            If the kernel cannot execute the plan.
        StateError
            If the snapshot cannot be read, or its state cannot become that of ``plan``.
        """
        operator = cls(plan)
        try:
            old = Engine.restore(old_plan, snapshot)
            if keys is not None:
                old.load_keys(keys)
            operator._engine, features = old.upgraded(old_plan, dumps(plan))
        except ValueError as error:
            raise StateError(f"pipeline {plan.name!r} cannot be upgraded: {error}.") from error
        return operator, {name: since_us for name, complete, since_us in features if not complete}

    def snapshot(self) -> bytes:
        """Return the whole state, as it is between two calls.

        Raises
        ------
        StateError
            If the plan has a part whose state cannot be written yet.

        Notes
        -----
        O(state), in the caller's thread, with the GIL released. Where the sources stood is not in it: whoever reads them keeps
        their offsets beside it. Scores and decisions are not either; they follow from the rows.
        """
        try:
            return self._engine.snapshot()
        except ValueError as error:
            raise StateError(f"pipeline {self.plan.name!r} cannot be written to a snapshot: {error}.") from error

    def write_snapshot(self, path: Path) -> None:
        """Write what `snapshot` returns to a private file, some at a time, and return when it is on the disk.

        Raises
        ------
        StateError
            If the plan has a part whose state cannot be written yet, or the file cannot be written.
        """
        try:
            self._engine.write_snapshot(path)
        except ValueError as error:
            raise StateError(f"pipeline {self.plan.name!r} cannot be written to a snapshot: {error}.") from error

    def write_behind(self) -> None:
        """Let the backend have what has changed since, a few keys with every batch, so that the next snapshot is small.

        To be called after each snapshot that will be part of a checkpoint. Without a backend it does nothing.
        """
        self._engine.begin_write_behind()

    def backend_figures(self) -> dict[str, int]:
        """Return the catalogue's figures of the state backend; none without one."""
        if self._backend is None:
            return {}
        resident_bytes, fetched, kept = self._engine.spill_stats()
        return {
            "resident_bytes": resident_bytes,
            "budget_bytes": self._backend.budget,
            "disk_bytes": self._backend.disk_bytes(),
            "keys_fetched": fetched,
            "keys_kept": kept,
        }

    def _named(self, error: ValueError) -> Exception:
        """Return the error by what failed."""
        kind, _, what = str(error).partition(": ")
        if kind != "state":
            return error
        return StateError(f"pipeline {self.plan.name!r}: {what}.")

    def set_replaying(self, replaying: bool) -> None:
        """Say whether the sources give again what a lost run had read since the snapshot; see the notes.

        Notes
        -----
        What that run sent of a row depends on when it looked for revisions. This one may look at other times, and find a row
        as it is in the snapshot that the lost run had sent with another value. So while this holds, `revisions` gives every
        row that an event disturbs, changed or not. End it after the first `revisions` that follows the last such record.
        """
        self._engine.set_replaying(replaying)

    def row_schema(self) -> pa.Schema:
        """Return the Arrow schema of the rows that `process` gives."""
        root = self.plan.stream(self.plan.root)
        empty = pa.RecordBatch.from_pylist([], schema=arrow_schema(root.schema))
        at_once = replace(self.plan, emission=EmissionNode())
        rows = Engine(dumps(at_once)).process(root.name, Batch.from_pyarrow(empty), 0)[1]
        assert rows is not None, "the root stream gives rows"
        return rows.to_pyarrow().schema

    def process(self, stream: str, batch: Batch, arrival_us: int, partitions: Sequence[int] | None = None) -> Processed:
        """Take decoded records of a stream; ``partitions`` says where each came from.

        Raises
        ------
        StateError
            If the backend cannot be read or written. The run must end then, and go on from a checkpoint.
        """
        try:
            return Processed(*self._engine.process(stream, batch, arrival_us, partitions))
        except ValueError as error:
            raise self._named(error) from error

    def closed_sessions(self) -> Batch | None:
        """Return sessions that the watermark has closed, at most `CLOSED_AT_ONCE`; None when there are no more."""
        return self._engine.closed_sessions(CLOSED_AT_ONCE)

    def release(self, now_us: int, *, everything: bool = False) -> Batch | None:
        """Return rows that waited and need not any longer at processing time ``now_us``; None if there are none.

        ``everything``: all that wait, for a run that ends.
        """
        try:
            return self._engine.release(now_us, everything)
        except ValueError as error:
            raise self._named(error) from error

    def waiting_since_us(self) -> int | None:
        """Return the arrival time of the row that has waited longest; None if none waits."""
        return self._engine.waiting_since()

    def revisions(self, most: int) -> Batch | None:
        """Return rows that went out and that later arrivals have changed, about ``most``; None when there are no more.

        Each has its features as they are now and, under `OLD` and their names, as they went out last; under `WAS` and their
        names those that changed, whose names are in `CHANGED`; `REVISION`, and the stream and id of an event that caused it.
        """
        try:
            return self._engine.revisions(most)
        except ValueError as error:
            raise self._named(error) from error

    def matches(self) -> Batch | None:
        """Return matches of patterns that were found, changed or withdrawn since, about `MATCHES_AT_ONCE`; None for no more."""
        return self._engine.matches(MATCHES_AT_ONCE)

    def joined(self, most: int) -> tuple[int, Batch] | None:
        """Return rows of a join, about ``most``, with its number in the plan; None when there are no more for now.

        To be called until then after everything that arrives: what has arrived waits for it.
        """
        return self._engine.joined(most)

    def join_counts(self) -> dict[str, dict[str, int]]:
        """Return what each join did so far, by its name."""
        return self._engine.join_counts()

    @property
    def disturbances(self) -> int:
        """Events that came before others of their key, and whose rows `revisions` has not looked at yet."""
        return self._engine.disturbances()

    def register_partition(self, stream: str, partition: int, now_us: int) -> None:
        """Let an assigned partition hold the watermark from the start, before its first record."""
        self._engine.register_partition(stream, partition, now_us)

    def pass_time(self, now_us: int) -> bool:
        """Let silent partitions fall idle; whether that changed anything."""
        return self._engine.pass_time(now_us)

    def resume(self, now_us: int) -> None:
        """Go on at processing time ``now_us`` after the run was away: every partition holds the watermark until it is heard, or idle."""
        self._engine.resume(now_us)

    def finish(self, stream: str) -> None:
        """Say that a bounded stream has ended: its watermark goes to the end of time."""
        self._engine.finish(stream)

    def watermark_us(self, stream: str) -> int | None:
        """Return a stream's watermark, None before its first event."""
        return self._engine.watermark(stream)[0]

    def progress(self, stream: str, now_us: int) -> StreamProgress:
        """Return how far a stream is at processing time ``now_us``: its watermark, and what holds it back."""
        return stream_progress(stream, now_us, *self._engine.progress(stream))

    def stats(self) -> dict[str, int]:
        """Return keys, events and bytes of the state, ids and their bytes. Walks over all keys."""
        return self._engine.stats()

    def sizes(self) -> list[tuple[str, str, int, int, int]]:
        """Return (kind of state, operator, keys, events, bytes) of everything that is held, without a walk over keys.

        Bytes are a lower bound: what is counted anyway, without what accumulators and spare room take.
        """
        return self._engine.sizes()

    def entity_stats(self) -> list[tuple[str, int, int, int]]:
        """Return (entity, keys, events, bytes) of each entity. Walks over all keys."""
        return self._engine.entity_stats()


def arrow_schema(schema: Schema) -> pa.Schema:
    """Return the Arrow schema that decoded records of a stream have."""
    return pa.schema(
        [pa.field(name, _arrow_type(dtype.name), nullable=dtype.nullable) for name, dtype in schema.items()]
    )


def _arrow_type(name: str) -> pa.DataType:
    if name.startswith("decimal("):
        return pa.decimal128(38, int(name[8:-1]))
    types = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
    return types.get(name) or pa.timestamp("us", tz="UTC")
