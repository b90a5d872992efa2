"""A checkpoint's state, opened to be looked into: by operator, by feature and by key, and written out as Parquet.

Read-only in every sense: the place is not owned, nothing is forked, and a run that writes checkpoints there goes on undisturbed.
The plan comes from the checkpoint itself, or from the definition where an earlier version left none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from gillnet.core.errors import ConfigurationError, StateError
from gillnet.core.time import format_duration
from gillnet.operators.inspection import KEYED, KeyState, OperatorState, StateInspector, reading_us
from gillnet.operators.progress import StreamProgress
from gillnet.plan.expressions import Column, expression_from_json
from gillnet.plan.format import format_expression
from gillnet.plan.nodes import AggregateNode, BaselineNode, PipelinePlan, SessionWindow
from gillnet.plan.patterns import PatternNode
from gillnet.plan.serde import loads
from gillnet.state import Checkpoint, CheckpointStore, still_warming, stored_keys

WORD_BYTES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureCost:
    """What one feature costs in state.

    Attributes
    ----------
    operator
        The operator whose events it reads, which other features may share.
    window
        Its window in words.
    window_us
        How long it needs an event.
    events, bytes
        What it reads of the operator: what is inside its window, and what may still arrive late.
    alone_bytes
        What would go if it were taken out: the part that only its window keeps, and the column that only it reads.
    """

    feature: str
    operator: str
    window: str
    window_us: int
    events: int
    bytes: int
    alone_bytes: int


@dataclass(frozen=True, slots=True)
class StateView:
    """A checkpoint's state and what it is of."""

    place: str
    checkpoint: Checkpoint
    plan: PipelinePlan
    inspector: StateInspector

    def operators(self, *, top: int = 5) -> list[OperatorState]:
        """Return every operator's state. Walks over all keys once."""
        return self.inspector.operators(top=top)

    def progress(self) -> list[StreamProgress]:
        """Return how far each stream was at the cut."""
        return self.inspector.progress(self.checkpoint.taken_us)

    def warming(self) -> dict[str, int | None]:
        """Return the features that are warming since an upgrade; see `Checkpoint`."""
        watermarks = {progress.stream: progress.watermark_us for progress in self.progress()}
        return still_warming(self.checkpoint, self.plan.stream(self.plan.root), watermarks[self.plan.root])

    def late_us(self, operator: OperatorState) -> int | None:
        """Return how far behind the watermark an operator can still be read; None where there is no watermark, or it has ended."""
        watermarks = {progress.stream: progress.watermark_us for progress in self.progress()}
        watermark_us = watermarks[operator.stream]
        if watermark_us is None or operator.reach_us is None or operator.ended:
            return None
        return watermark_us - operator.reach_us

    def key(self, key: str, *, entity: str | None = None, at_us: int | None = None) -> list[KeyState]:
        """Return what operators hold of a key; ``entity``: those of that name or key column only.

        Raises
        ------
        ConfigurationError
            If there is no such entity.
        """
        found = self.inspector.key(key, at_us=at_us)
        if entity is None:
            return found
        names = {state.name for state in self.operators(top=0) if state.kind in KEYED}
        chosen = {name for name in names if _names(entity, name)}
        if not chosen:
            raise ConfigurationError(
                f"--entity {entity}: the pipeline has no such entity; there are {', '.join(sorted(names))}."
            )
        return [state for state in found if state.name in chosen]


def _names(entity: str, name: str) -> bool:
    """Whether ``card_id`` or ``payments.card_id`` means the operator ``payments.card_id``."""
    return entity in (
        name,
        name.partition(".")[2],
        name.partition(" at ")[0],
        name.partition(" at ")[0].partition(".")[2],
    )


def open_state(place: str, *, number: int | None = None, plan: PipelinePlan | None = None) -> StateView:
    """Open a checkpoint to look into it, by default the newest that is complete.

    Raises
    ------
    StateError
        If there is none, it is torn, or of another plan.
    """
    store = CheckpointStore(place)
    checkpoint = store.find(number)
    state = store.state(checkpoint)
    if plan is None:
        if not checkpoint.plan:
            raise StateError(
                f"Checkpoint {checkpoint.number} of {place} is of a version that kept no plan; name the definition with --app."
            )
        plan = loads(checkpoint.plan)
    with stored_keys(store, checkpoint) as keys:
        return StateView(place, checkpoint, plan, StateInspector(plan, state, keys=keys))


def feature_costs(plan: PipelinePlan, operators: Iterable[OperatorState]) -> list[FeatureCost]:
    """Return what each feature costs, in the plan's order; those over rows alone keep nothing and are left out."""
    by_feature = {name: operator for operator in operators for name in operator.features}
    features = {feature.name: feature for feature in plan.features}
    costs = []
    for name, feature in features.items():
        operator = by_feature.get(name)
        if operator is None or not isinstance(feature, AggregateNode | PatternNode):
            continue
        own_us = reading_us(feature)
        others = [features[other] for other in operator.features if other != name]
        reads = operator.kept.get(own_us)
        costs.append(
            FeatureCost(
                feature=name,
                operator=operator.name,
                window=window_words(feature),
                window_us=own_us,
                events=operator.events if reads is None else reads.events,
                bytes=operator.bytes if reads is None else reads.bytes,
                alone_bytes=_alone(operator, feature, others),
            )
        )
    return costs


def _alone(operator: OperatorState, feature: Any, others: Sequence[Any]) -> int:
    if not others:
        return operator.bytes
    own_us, next_us = reading_us(feature), max(reading_us(other) for other in others)
    tail = 0
    if own_us > next_us and own_us in operator.kept and next_us in operator.kept:
        tail = operator.kept[own_us].bytes - operator.kept[next_us].bytes
    inputs = {getattr(other, "input", None) for other in others}
    own_input = getattr(feature, "input", None)
    column = operator.events * WORD_BYTES if own_input is not None and own_input not in inputs else 0
    return min(tail + column, operator.bytes)


def window_words(feature: Any) -> str:
    """Write a feature's window: ``30d``, ``30d, 1h ago``, ``session, gap 30m``."""
    if isinstance(feature, PatternNode):
        return f"pattern within {format_duration(feature.pattern.within_us)}"
    if isinstance(feature, BaselineNode):
        return f"baseline over {format_duration(feature.over_us)}"
    window = feature.window
    delay = f", {format_duration(window.delay_us)} ago" if window.delay_us else ""
    if isinstance(window, SessionWindow):
        return f"session, gap {format_duration(window.gap_us)}, up to {format_duration(window.max_length_us)}{delay}"
    kind = {"SlidingWindow": "", "TumblingWindow": "tumbling ", "LatestWindow": "look back "}[type(window).__name__]
    return f"{kind}{format_duration(window.size_us)}{delay}"


def in_words(table: pa.Table) -> pa.Table:
    """Name the columns of an operator's events as their user would write them, in place of the plan's JSON."""
    return table.rename_columns([_in_words(name) for name in table.column_names])


def _in_words(name: str) -> str:
    if not name.startswith(("{", "[")):
        return name
    node = expression_from_json(json.loads(name))
    return node.name if isinstance(node, Column) else format_expression(node)


def export_keys(view: StateView, path: Path) -> int:
    """Write one row for each key of each operator to a Parquet file; return their number.

    Columns: kind, operator, key, events, bytes, oldest, newest (event times), and expires: the watermark that forgets its
    events; null before there is a watermark, and after the input's end.
    """
    import pyarrow.parquet as pq

    rows = 0
    with ExitStack() as closing:
        writer: pq.ParquetWriter | None = None
        for number, operator in _keyed(view):
            for keys, _ in view.inspector.tables(number):
                table = _labelled(view, keys, operator)
                if writer is None:
                    file = closing.enter_context(_private(path))
                    writer = closing.enter_context(pq.ParquetWriter(file, table.schema))
                writer.write_table(table)
                rows += table.num_rows
        if writer is None:
            raise StateError(
                f"Checkpoint {view.checkpoint.number} of {view.place} has no state by key; there is nothing to write."
            )
    return rows


def export_all(view: StateView, directory: Path) -> dict[str, int]:
    """Write ``keys.parquet`` and one file of events for each operator; return the rows of each file."""
    import pyarrow.parquet as pq

    written = {"keys.parquet": export_keys(view, directory / "keys.parquet")}
    for number, operator in _keyed(view):
        name = f"events.{operator.kind}.{operator.name.replace(' ', '_').replace('/', '_')}.parquet"
        rows = 0
        with ExitStack() as closing:
            writer: pq.ParquetWriter | None = None
            for _, events in view.inspector.tables(number):
                table = pa.Table.from_batches([events])
                if "__mask" in table.column_names:
                    table = table.drop_columns(["__mask"])
                table = in_words(table)
                if writer is None:
                    file = closing.enter_context(_private(directory / name))
                    writer = closing.enter_context(pq.ParquetWriter(file, table.schema))
                writer.write_table(table)
                rows += table.num_rows
        written[name] = rows
    return written


def _keyed(view: StateView) -> list[tuple[int, OperatorState]]:
    return [(place, state) for place, state in enumerate(view.operators(top=0)) if state.kind in KEYED]


def _labelled(view: StateView, keys: pa.RecordBatch, operator: OperatorState) -> pa.Table:
    import pyarrow.compute as pc

    table = pa.Table.from_batches([keys])
    late_us = view.late_us(operator)
    kept_us = None if late_us is None else operator.retention_us + late_us
    newest = table["newest"].cast(pa.int64())
    expires = pc.add(newest, pa.scalar(kept_us, pa.int64())).cast(pa.timestamp("us", tz="UTC"))
    table = table.append_column("expires", expires)
    for place, (name, value) in enumerate((("kind", operator.kind), ("operator", operator.name))):
        table = table.add_column(place, name, pa.array([value] * keys.num_rows, pa.string()))
    return table


def _private(path: Path) -> IO[bytes]:
    """Open a file to write that only its user may read: keys and events may be personal data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}.") from error
