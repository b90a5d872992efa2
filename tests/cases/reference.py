"""A whole pipeline in slow, plain Python, one record at a time: what the golden files are made of.

It shares the plan and its types with the product, and no line that computes. Records are decoded by
`gillnet.testing.oracle_json`, windows read by `gillnet.testing.oracle` over every event that has arrived, and
expressions and rules evaluated by `gillnet.testing.oracle_expressions`; the gate and the watermark are below.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

from tests.cases.harness import Case
from tests.cases.outcome import COUNTS, Outcome, side_line
from tests.cases.reference_joins import joined
from tests.cases.script import Step

from gillnet.plan.expressions import Column, columns_of
from gillnet.plan.nodes import AggregateNode, BaselineNode, ExpressionNode, PipelinePlan, SessionWindow, StreamNode
from gillnet.plan.patterns import PatternNode, SequenceNode, earlier_columns
from gillnet.testing.oracle import Event, Row, read
from gillnet.testing.oracle_expressions import evaluate_row
from gillnet.testing.oracle_json import decode_record
from gillnet.testing.oracle_patterns import Match, find_matches, read_pattern

Columns = Mapping[str, tuple[str, bool]]
END_OF_TIME = 2**63 - 1


class Watermark:
    """One stream's watermark: the slowest live partition's newest event, less the delay; it never goes back (I8)."""

    def __init__(self, stream: StreamNode) -> None:
        self.stream = stream
        self.newest: dict[int, int | None] = {}
        self.heard: dict[int, int] = {}
        self.idle: set[int] = set()
        self.time: int | None = None

    def register(self, partitions: Iterable[int], now: int) -> None:
        for partition in partitions:
            self.newest.setdefault(partition, None)
            self.heard.setdefault(partition, now)

    def observe(self, partition: int, time: int, now: int) -> None:
        time = min(time, now)  # A clock that is ahead must not push the watermark.
        self.newest[partition] = max(time, self.newest.get(partition) or time)
        self.heard[partition] = now
        self.idle.discard(partition)
        self._merge()

    def pass_time(self, now: int) -> None:
        self.idle |= {p for p, heard in self.heard.items() if now - heard > self.stream.idle_after_us}
        self._merge()

    def _merge(self) -> None:
        live = [newest for partition, newest in self.newest.items() if partition not in self.idle]
        known = [newest for newest in live if newest is not None]
        if live and len(known) == len(live):
            self.time = max(min(known) - self.stream.watermark_delay_us, self.time or 0)

    @property
    def everything_before(self) -> int:
        """The event time up to which everything is taken to have arrived; a wholly idle stream has no more to come."""
        if self.time is None:
            return -END_OF_TIME
        idle = self.idle >= set(self.newest)
        return END_OF_TIME if idle or self.time == END_OF_TIME else self.time + self.stream.watermark_delay_us


@dataclass(slots=True)
class StreamState:
    """What is known of a stream: its watermark, ids and accepted events."""

    node: StreamNode
    keys: set[str]
    watermark: Watermark
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))
    ids: set[Any] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)

    @property
    def columns(self) -> Columns:
        return {name: (dtype.name, dtype.nullable) for name, dtype in self.node.schema.items()}

    def of_key(self, key: str | None, value: Any) -> list[Event]:
        return [event for event in self.events if key is None or event.row[key] == value]

    def judge(self, record: bytes, at_us: int) -> tuple[str | None, Row]:
        """Return why a record is refused (None: it is accepted), and its row."""
        row = decode_record(record, self.node.schema, id=self.node.id, keys=sorted(self.keys))
        if isinstance(row, str):
            return row, {}
        time, mark = row[self.node.event_time], self.watermark.time
        assert isinstance(time, int)
        if time < self.node.earliest_us:
            return "event_time_too_early", row
        if time > at_us + self.node.max_ahead_us:
            return "event_time_ahead", row
        if mark is not None and time < mark - self.node.allowed_lateness_us:
            return "too_late", row
        return ("duplicate" if row[self.node.id] in self.ids else None), row


def expected(case: Case) -> Outcome:
    """Work out a case."""
    return _Run(case).outcome()


def expected_final(case: Case) -> Outcome:
    """Work out the final answer of a case: every row over all events that were ever accepted, in the order of I1."""
    return _Run(case).final()


class _Run:
    def __init__(self, case: Case) -> None:
        self.case, self.plan = case, case.pipeline.plan
        self.columns: Columns = case.pipeline.features.columns
        self.streams = {
            node.name: StreamState(node, _keys(self.plan, node), Watermark(node)) for node in self.plan.streams
        }
        self.root = self.streams[self.plan.root]
        self.closed: dict[tuple[int, str], dict[str, Any]] = {}
        self.result = Outcome()

    def outcome(self) -> Outcome:
        for step in self.case.script.steps:
            if step.end is not None:
                self.streams[step.end].watermark.time = END_OF_TIME
            elif step.value is not None:
                self._arrive(step, step.value)
            for stream in self.streams.values():
                stream.watermark.pass_time(step.at_us)
            self._close_sessions()
        if self.plan.sessions is not None:
            self.result.sessions = self._sessions()
        self.result.matches = self._matches()
        events = {name: (stream.node, stream.events) for name, stream in self.streams.items()}
        self.result.joins = joined(self.plan.joins, events, _text)
        self.result.counts = {name: stream.counts for name, stream in self.streams.items() if stream.counts["read"]}
        return self.result

    def final(self) -> Outcome:
        self.outcome()
        if self.plan.sessions is not None:
            # In the end a baseline counts every session as it is, where it closed before the row's own step.
            self.closed = {
                (start, str(key)): self._session_values(last, key) | {"end": last.time}
                for start, last, key in self._all_sessions()
            }
        events = sorted(self.root.events, key=lambda event: event.order)
        rows = [_object(self._row_fields(event, event.time)) for event in events]
        return Outcome(rows, self.result.sessions, self.result.matches, joins=self.result.joins)

    def _arrive(self, step: Step, value: bytes) -> None:
        stream = self.streams[step.stream]
        heard = {s.partition for s in self.case.script.steps if s.stream == step.stream and s.value is not None}
        stream.watermark.register(self.case.script.partitions.get(step.stream, heard), step.at_us)
        stream.counts["read"] += 1
        reason, row = stream.judge(value, step.at_us)
        if reason is not None:
            kind = reason if reason in ("duplicate", "too_late") else "malformed"
            stream.counts[kind] += 1
            self._side(kind, reason, step, value)
            return
        event = Event(row[stream.node.event_time], row[stream.node.id], row)
        mark, late = stream.watermark.time, event.time < (stream.watermark.time or 0)
        stream.counts["scored"] += 1
        stream.counts["late"] += late
        stream.ids.add(event.id)
        stream.events.append(event)
        stream.watermark.observe(step.partition, event.time, step.at_us)
        if late:
            self._side("late", "late", step, value)
        if stream is self.root:
            self.result.rows.append(self._row(event, step.at_us, mark, late=late))

    def _side(self, kind: str, reason: str, step: Step, value: bytes) -> None:
        output = f"{step.stream}.{kind}"
        line = side_line(output, reason=reason, partition=step.partition, value=value)
        self.result.sides.setdefault(output, []).append(line)

    def _row(self, event: Event, at_us: int, mark: int | None, *, late: bool) -> str:
        fields = [
            *self._row_fields(event, mark),
            f'"feature_states":"{states}"' if (states := self._states(event.time)) else None,
            f'"late":{json.dumps(late)}',
            f'"arrival_time":{_text(at_us, "timestamp")}',
            f'"watermark":{_text(mark, "timestamp")}' if mark is not None else None,
        ]
        return _object(fields)

    def _row_fields(self, event: Event, mark: int | None) -> list[str | None]:
        values = self._values(event, mark)
        matched = [rule for rule in self.plan.policy if evaluate_row(rule.when, values, self.columns) is True]
        key = _row_key(self.plan)
        return [
            _field(self.root.node.id, values, self.columns),
            f'"event_time":{_text(event.time, "timestamp")}',
            _field(key, values, self.columns) if key else None,
            f'"session_start":{_text(self._session_start(event), "timestamp")}' if self.plan.sessions else None,
            f'"decision":"{matched[0].action if matched else "allow"}"',
            f'"reasons":{json.dumps([rule.reason for rule in matched], ensure_ascii=False, separators=(",", ":"))}',
            f'"features":{_object(_field(f.name, values, self.columns) for f in self.plan.features)}',
        ]

    def _values(self, event: Event, mark: int | None) -> dict[str, Any]:
        values = dict(event.row)
        for feature in self.plan.features:
            if isinstance(feature, BaselineNode):
                values[feature.name] = self._baseline(feature, event.time, mark)
            elif isinstance(feature, ExpressionNode):
                values[feature.name] = evaluate_row(feature.expression, values, self.columns)
            elif isinstance(feature, PatternNode):
                values[feature.name] = self._pattern(feature, event)
            else:
                values[feature.name] = self._aggregate(feature, event)
        return values

    def _aggregate(self, node: AggregateNode, event: Event) -> Any:
        stream, own = self.streams[node.stream], event if node.at is None else None
        key = node.at or node.key
        value = event.row[key] if key is not None and node.key is not None else None
        if node.key is not None and value in (None, ""):
            return None
        return read(node, stream.of_key(node.key, value), event.time, own, _evaluator(stream.columns))

    def _pattern(self, node: PatternNode, event: Event) -> Any:
        stream, own = self.streams[node.stream], event if node.at is None else None
        value = event.row[node.at or node.key or ""] if node.key is not None else None
        if node.key is not None and value in (None, ""):
            return None
        evaluate = _pattern_evaluator(node.pattern, stream.columns)
        return read_pattern(node, stream.of_key(node.key, value), event.time, own, evaluate)

    def _matches(self) -> list[str]:
        """Return every match as the events that came in the end make it, each pattern under its first feature's name."""
        lines: list[str] = []
        told: list[tuple[Any, ...]] = []
        for node in self.plan.features:
            if isinstance(node, PatternNode) and (node.stream, node.key, node.at, node.pattern) not in told:
                told.append((node.stream, node.key, node.at, node.pattern))
                stream = self.streams[node.stream]
                evaluate = _pattern_evaluator(node.pattern, stream.columns)
                keys = {event.row[node.key] for event in stream.events} - {None, ""} if node.key else {""}
                for key in keys:
                    found = find_matches(node.pattern, stream.of_key(node.key, key), None, evaluate)
                    lines += [_match(node.name, str(key), match) for match in found]
        return sorted(lines)

    def _session_start(self, event: Event) -> int:
        sessions = self.plan.sessions
        assert sessions is not None
        node = AggregateNode(
            name="start",
            type="timestamp",
            stream=self.plan.root,
            key=sessions.key,
            function="first",
            input=Column(self.root.node.event_time),
            window=SessionWindow(sessions.gap_us, sessions.max_length_us),
        )
        return int(self._aggregate(node, event))

    def _states(self, time: int) -> str:
        keyed = [f for f in self.plan.features if isinstance(f, AggregateNode | PatternNode)]
        lookups = [f for f in keyed if f.at is not None]
        stale = [f.name for f in lookups if time > self.streams[f.stream].watermark.everything_before]
        return ",".join(f"{name}=stale" for name in stale)

    def _baseline(self, node: BaselineNode, time: int, mark: int | None) -> float | None:
        """Read the quantile over closed sessions, in whole steps before the event's own that the watermark has passed (I6)."""
        assert self.plan.sessions is not None
        if mark is None:
            return None
        step = min(time, mark) // node.step_us
        steps = range(step - max(node.over_us // node.step_us, 1), step)
        values = [
            float(session[node.of])
            for session in self.closed.values()
            if session[node.of] is not None and (session["end"] + self.plan.sessions.gap_us) // node.step_us in steps
        ]
        bins = sorted(math.floor(math.log(value) / math.log(1.02)) for value in values if value > 0)
        if len(bins) < max(node.min_count, 1):
            return None
        chosen = bins[max(math.ceil(node.quantile * len(bins)), 1) - 1]
        return float(Fraction(102, 100) ** chosen * Fraction(101, 100))

    def _close_sessions(self) -> None:
        """Note the sessions that no event can extend any more, as they are when they close for the first time."""
        mark = self.root.watermark.time
        if self.plan.sessions is None or mark is None:
            return
        for start, last, key in self._all_sessions():
            if last.time + self.plan.sessions.gap_us < mark and (start, str(key)) not in self.closed:
                self.closed[start, str(key)] = self._session_values(last, key) | {"end": last.time}

    def _sessions(self) -> list[str]:
        """Return every session as the events that came in the end make it."""
        found = sorted(self._all_sessions(), key=lambda session: (session[0], str(session[2])))
        return [self._session(last, start, key) for start, last, key in found]

    def _all_sessions(self) -> Iterator[tuple[int, Event, Any]]:
        """Give start, last event and key of each session: its last event is the one whose successor starts another."""
        assert self.plan.sessions is not None
        name = self.plan.sessions.key
        for key in {event.row[name] for event in self.root.events} - {None, ""}:
            events = sorted(self.root.of_key(name, key), key=lambda event: event.order)
            starts = [self._session_start(event) for event in events]
            for event, start, following in zip(events, starts, [*starts[1:], None], strict=True):
                if start != following:
                    yield start, event, key

    def _session_values(self, last: Event, key: Any) -> dict[str, Any]:
        """Return what follows from a session alone: its entity's aggregates, and expressions over nothing else."""
        assert self.plan.sessions is not None
        name = self.plan.sessions.key
        own = [f for f in self.plan.features if isinstance(f, AggregateNode) and f.key == name and f.at is None]
        values: dict[str, Any] = {f.name: self._aggregate(f, last) for f in own} | {name: key}
        for feature in self.plan.features:
            if isinstance(feature, ExpressionNode) and columns_of(feature.expression) <= set(values):
                values[feature.name] = evaluate_row(feature.expression, values, self.columns)
        return values

    def _session(self, last: Event, start: int, key: Any) -> str:
        assert self.plan.sessions is not None
        name, values = self.plan.sessions.key, self._session_values(last, key)
        head = [
            _field(name, values, self.columns),
            f'"session_start":{_text(start, "timestamp")}',
            f'"session_end":{_text(last.time, "timestamp")}',
        ]
        features = [_field(feature, values, self.columns) for feature in values if feature != name]
        return _object([*head, f'"features":{_object(features)}'])


def _keys(plan: PipelinePlan, stream: StreamNode) -> set[str]:
    """Return the columns of a stream that must hold a key."""
    keyed = [feature for feature in plan.features if isinstance(feature, AggregateNode | PatternNode)]
    keys = {feature.key for feature in keyed if feature.stream == stream.name and feature.key}
    if stream.name == plan.root:
        keys |= {feature.at for feature in keyed if feature.at}
        keys |= {plan.sessions.key} if plan.sessions else set()
    keys |= {side.key for join in plan.joins for side in (join.left, join.right) if side.stream == stream.name}
    return keys


def _row_key(plan: PipelinePlan) -> str | None:
    if plan.sessions:
        return plan.sessions.key
    keyed = [f for f in plan.features if isinstance(f, AggregateNode | PatternNode)]
    own = [f for f in keyed if f.stream == plan.root and f.key]
    return own[0].key if own else None


def _evaluator(columns: Columns) -> Any:
    return lambda node, row: evaluate_row(node, row, columns)


def _pattern_evaluator(pattern: SequenceNode, columns: Columns) -> Any:
    return _evaluator({**earlier_columns(pattern.names, columns), **columns})


def _match(pattern: str, key: str, match: Match) -> str:
    texts = {name: json.dumps(str(value)) for name, value in (("pattern", pattern), ("key", key))}
    texts |= {"first": json.dumps(str(match.start[1])), "last": json.dumps(str(match.last[1])), "withdrawn": "false"}
    texts |= {"start": _text(match.start[0], "timestamp") or "", "end": _text(match.last[0], "timestamp") or ""}
    events = (
        f'{{"step":"{taken.name}","id":"{taken.event.id}","event_time":{_text(taken.event.time, "timestamp")}}}'
        for taken in match.events
    )
    return _object([*(f'"{name}":{text}' for name, text in texts.items()), f'"events":[{",".join(events)}]'])


def _object(fields: Iterable[str | None]) -> str:
    return "{" + ",".join(text for text in fields if text is not None) + "}"


def _field(name: str, values: Mapping[str, Any], columns: Columns) -> str | None:
    text = _text(values[name], columns[name][0])
    return None if text is None else f"{json.dumps(name)}:{text}"


def _text(value: Any, kind: str) -> str | None:
    """Write a value as JSON; what JSON cannot hold is null, and left out."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    if kind == "timestamp":
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=value)
        return f'"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"'
    if kind.startswith("decimal("):
        return format(Decimal(value).quantize(Decimal(1).scaleb(-int(kind[8:-1]))), "f")
    if kind == "float64":
        digits, _, exponent = repr(float(value)).partition("e")
        return f"{digits}e{int(exponent):+d}" if exponent else digits
    return json.dumps(value, ensure_ascii=False)
