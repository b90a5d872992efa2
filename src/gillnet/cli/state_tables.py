"""The tables of ``gillnet state``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from gillnet.cli.numbers import number
from gillnet.cli.words import clock_time
from gillnet.core.time import MINUTE, SECOND, format_duration
from gillnet.lifecycle.state_view import FeatureCost, StateView, in_words
from gillnet.operators.inspection import EXPIRING_US, KeyState, OperatorState
from gillnet.operators.progress import StreamProgress
from gillnet.state import warming_words

_WRAPPED = ("why", "read_by")
_KINDS = {"ids": "ids seen"}


def size(value: float | None) -> str:
    """Write a number of bytes in the unit that fits."""
    if value is None:
        return "-"
    amount = float(value)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(amount) < 1_000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1_000
    return f"{amount:,.1f} TB"


def lasting(value_us: int) -> str:
    """Write a time as a person says it: whole seconds, and two units at the most."""
    if value_us < SECOND:
        return "0s" if value_us <= 0 else format_duration(value_us)
    text = format_duration(value_us // SECOND * SECOND)
    parts: list[str] = []
    for letter in text:
        if not parts or parts[-1][-1].isalpha():
            parts.append("")
        parts[-1] += letter
    return "".join(parts[:2])


def overview(view: StateView, operators: Sequence[OperatorState], costs: Sequence[FeatureCost]) -> Group:
    """Return everything that ``list`` prints."""
    total = sum(operator.bytes for operator in operators)
    parts: list[RenderableType] = [
        _head(view, f"{size(total)} in memory, {size(view.checkpoint.bytes)} written"),
        *_streams(view),
    ]
    parts += [
        Text(f"{name} is warming since an upgrade, complete from {words}")
        for name, words in warming_words(view.warming()).items()
    ]
    parts += [Text(""), _operators(view, operators)]
    parts.append(Text("kept: event time from an event until the watermark forgets it.", style="dim"))
    if any(operator.ended for operator in operators):
        parts.append(Text("The input has ended: nothing more is read, and all of it may go.", style="dim"))
    elif all(operator.reach_us is None for operator in operators):
        parts.append(Text("No watermark yet, so nothing can expire: a partition was not heard.", style="dim"))
    else:
        parts += [Text(""), _expiry(operators)]
        parts.append(Text("Bytes that go while the watermark moves on by so much.", style="dim"))
    if costs:
        parts += [Text(""), _features(costs)]
        parts.append(Text("alone: bytes that would go if the feature were taken out; the rest is shared.", style="dim"))
    if any(operator.largest for operator in operators):
        parts += [Text(""), _largest(operators)]
    return Group(*parts)


def _head(view: StateView, rest: str) -> Text:
    checkpoint = view.checkpoint
    taken = f"checkpoint {checkpoint.number} of {clock_time(checkpoint.taken_us)} UTC"
    return Text.assemble((view.plan.name, "bold"), f"  {taken}, {rest}")


def _streams(view: StateView) -> list[Text]:
    return [Text(f"{progress.stream}: {_how_far(progress)}", style="dim") for progress in view.progress()]


def _how_far(progress: StreamProgress) -> str:
    if progress.ended:
        return "ended"
    if progress.watermark_us is None:
        return "no watermark yet"
    behind = "" if progress.newest_us is None else lasting(progress.newest_us - progress.watermark_us)
    held = "" if progress.held_by is None else f", held by partition {progress.held_by}"
    return f"watermark {clock_time(progress.watermark_us)}, {behind or '?'} behind its newest event{held}"


def _table(*columns: str, right: Iterable[str] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", no_wrap=column not in _WRAPPED)
    return table


def _operators(view: StateView, operators: Sequence[OperatorState]) -> Table:
    figures = ("keys", "events", "bytes", "oldest", "kept")
    table = _table("operator", "state", *figures, "why", right=figures)
    for operator in _largest_first(operators):
        newest_us = operator.newest_us or 0
        age = "-" if operator.oldest_us is None else lasting(newest_us - operator.oldest_us)
        kept, why = _kept(view, operator)
        keys = number(operator.keys) if operator.keys else ""
        table.add_row(
            operator.name, _kind(operator), keys, number(operator.events), size(operator.bytes), age, kept, why
        )
    return table


def _expiry(operators: Sequence[OperatorState]) -> Table:
    spans = ("expired", *(f"in {lasting(span)}" for span in EXPIRING_US[1:]), "later")
    table = _table("expires", "state", *spans, right=spans)
    for operator in _largest_first(operators):
        table.add_row(operator.name, _kind(operator), *_expiring(operator))
    return table


def _largest_first(operators: Sequence[OperatorState]) -> list[OperatorState]:
    return sorted(operators, key=lambda operator: -operator.bytes)


def _kind(operator: OperatorState) -> str:
    if operator.kind == "windows" and not operator.features:
        return "index of rows"  # By it, an event of another stream finds the rows that it changes.
    return _KINDS.get(operator.kind, operator.kind)


def _kept(view: StateView, operator: OperatorState) -> tuple[str, str]:
    """Return how long an operator keeps an event, and what that is made of."""
    if operator.kind == "waiting rows":
        return "-", "until the watermark"
    late_us = view.late_us(operator)
    if late_us is None:
        return ("-", "the input has ended") if operator.ended else ("-", "no watermark")
    parts = [f"{lasting(operator.retention_us)} window"] if operator.retention_us else []
    lateness_us = view.plan.stream(operator.stream).allowed_lateness_us
    parts.append(f"{lasting(min(lateness_us, late_us))} lateness")
    if late_us > lateness_us + MINUTE:
        parts.append(f"{lasting(late_us - lateness_us)} for what reads it later")
    return lasting(operator.retention_us + late_us), " + ".join(parts)


def _expiring(operator: OperatorState) -> list[str]:
    if not operator.expiring or operator.ended:
        return [size(operator.bytes) if operator.ended else "-", *["-"] * len(EXPIRING_US)]
    passed = [operator.expiring[span].bytes for span in EXPIRING_US]
    steps = [passed[0], *(later - earlier for earlier, later in pairwise(passed))]
    return [size(step) if step else "-" for step in (*steps, max(operator.bytes - passed[-1], 0))]


def _features(costs: Sequence[FeatureCost]) -> Table:
    figures = ("events", "reads", "alone")
    table = _table("feature", "operator", "window", *figures, right=figures)
    for cost in sorted(costs, key=lambda cost: (-cost.alone_bytes, -cost.bytes)):
        alone = size(cost.alone_bytes) if cost.alone_bytes else "-"
        table.add_row(cost.feature, cost.operator, cost.window, number(cost.events), size(cost.bytes), alone)
    return table


def _largest(operators: Sequence[OperatorState]) -> Table:
    figures = ("events", "share", "bytes")
    table = _table("largest keys", "operator", *figures, "newest", right=figures)
    for operator in operators:
        for key in operator.largest:
            share = f"{key.events / max(operator.events, 1):.1%}"
            row = (number(key.events), share, size(key.bytes), clock_time(key.newest_us))
            table.add_row(Text(key.key or "(all)"), operator.name, *row)
    return table


def one_key(view: StateView, key: str, found: Sequence[KeyState], *, as_of_us: int | None, most: int) -> Group:
    """Return everything that ``get`` prints."""
    parts: list[RenderableType] = [_head(view, f"key {key}, features as of {clock_time(as_of_us)}")]
    for held in found:
        events = in_words(held.events)
        looked_up = f", looked up at {held.at}" if held.at else ""
        title = f"  {held.kind}{looked_up}: {number(events.num_rows)} events, {size(held.bytes)}"
        parts += [Text(""), Text.assemble((held.name, "bold"), title)]
        if held.saturated:
            parts.append(
                Text("It was over its limit, and older events are gone: readings are saturated.", style="yellow")
            )
        if held.values:
            parts.append(_values(view, held))
        parts.append(_events(events, most))
    return Group(*parts)


def _values(view: StateView, held: KeyState) -> Table:
    from gillnet.lifecycle.state_view import window_words

    features = {feature.name: feature for feature in view.plan.features}
    table = _table("feature", "window", "value", right=("value",))
    for name, value in held.values.items():
        table.add_row(name, window_words(features[name]), number(value))
    return table


def _events(events: pa.Table, most: int) -> RenderableType:
    """Return the newest events, oldest first."""
    shown = events.slice(max(events.num_rows - most, 0))
    if not shown.num_rows:
        return Text("no event is kept" if not events.num_rows else "", style="dim")
    if "read_by" in shown.column_names:
        # Last, since it is the one that needs room.
        shown = shown.select([*(name for name in shown.column_names if name != "read_by"), "read_by"])
    table = _table(*shown.column_names)
    for row in shown.to_pylist():
        table.add_row(*(Text(_value(value)) for value in row.values()))
    if (left_out := events.num_rows - shown.num_rows) > 0:
        return Group(Text(f"… {number(left_out)} older events; --events shows more.", style="dim"), table)
    return table


def _value(value: Any) -> str:
    if value is None:
        return "-"
    return value.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] if hasattr(value, "strftime") else str(value)


def plain(found: Sequence[KeyState]) -> list[dict[str, Any]]:
    """Return what is held of a key as JSON has it."""
    told = []
    for held in found:
        rows = in_words(held.events).to_pylist()
        events = [{name: _json(value) for name, value in row.items()} for row in rows]
        values = {name: _json(value) for name, value in held.values.items()}
        about = {"kind": held.kind, "operator": held.name, "bytes": held.bytes, "saturated": held.saturated}
        told.append(about | {"features": values, "events": events})
    return told


def _json(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
