"""The plan as text for people: what `gillnet explain` prints, and what golden files hold."""

from __future__ import annotations

from collections.abc import Iterator

from gillnet.core.time import format_duration
from gillnet.plan.expressions import Column, Node
from gillnet.plan.format import format_expression
from gillnet.plan.joins import explain_join
from gillnet.plan.nodes import (
    AggregateNode,
    BaselineNode,
    ExpressionNode,
    FeatureNode,
    LatestWindow,
    PipelinePlan,
    SessionWindow,
    SlidingWindow,
    StreamNode,
    TumblingWindow,
    Window,
)
from gillnet.plan.patterns import PatternNode, describe_sequence, step_conditions


def format_window(window: Window) -> str:
    """Write a window as a user would."""
    match window:
        case SlidingWindow(size_us=size):
            text = format_duration(size)
        case TumblingWindow(size_us=size):
            text = f"tumbling {format_duration(size)}"
        case LatestWindow(size_us=size):
            text = f"at most {format_duration(size)}"
        case SessionWindow(gap_us=gap, max_length_us=longest):
            text = f"session (gap {format_duration(gap)}, at most {format_duration(longest)})"
    return f"{text}, delay {format_duration(window.delay_us)}" if window.delay_us else text


def describe_aggregate(function: str, value: Node | None, window: Window | None) -> str:
    """Write an aggregate in words: ``sum of amount over 5m``."""
    of = ""
    if value is not None:
        of = f" of {value.name if isinstance(value, Column) else format_expression(value)}"
    over = f" over {format_window(window)}" if window is not None else ""
    return f"{function}{of}{over}"


def explain(plan: PipelinePlan) -> str:
    """Return the whole plan as text, ending in a newline."""
    lines = [f"pipeline {plan.name} (plan version {plan.version})", ""]
    for stream in plan.streams:
        lines += _stream(stream, _role(plan, stream.name))
    for title, features in _groups(plan):
        lines += ["", title]
        width = max(len(feature.name) for feature in features)
        lines += [f"  {feature.name:<{width}}  {feature.type:<10}  {_feature(feature)}" for feature in features]
    lines += _patterns(plan)
    for join in plan.joins:
        lines += ["", *explain_join(join)]
    lines += ["", *_decisions(plan)]
    return "\n".join(lines).rstrip() + "\n"


def _patterns(plan: PipelinePlan) -> list[str]:
    """Say the conditions of the steps of each pattern, under the name of the first feature that is about it."""
    lines: list[str] = []
    told: list[object] = []
    for feature in plan.features:
        if isinstance(feature, PatternNode) and feature.pattern not in told:
            told.append(feature.pattern)
            conditions = step_conditions(feature.pattern)
            width = max(len(name) for name, _ in conditions)
            lines += ["", f"steps of {feature.name}"]
            lines += [f"  {name:<{width}}  {condition}" for name, condition in conditions]
    return lines


def _role(plan: PipelinePlan, name: str) -> str:
    looked_up = any(
        isinstance(feature, AggregateNode | PatternNode) and feature.stream == name for feature in plan.features
    )
    roles = ["one row for each event"] if name == plan.root else ["looked up"] if looked_up else []
    return ", ".join(roles + ["joined"] * any(name in join.streams for join in plan.joins))


def _stream(stream: StreamNode, role: str) -> list[str]:
    return [
        f"stream {stream.name}: {role}; id {stream.id}, event time {stream.event_time}",
        f"  watermark {format_duration(stream.watermark_delay_us)} behind the newest event of each partition, "
        f"idle after {format_duration(stream.idle_after_us)}",
        f"  late up to {format_duration(stream.allowed_lateness_us)}, then too late; "
        f"at most {format_duration(stream.max_ahead_us)} ahead of its arrival",
        *(f"  {name}: {dtype.name}{', nullable' if dtype.nullable else ''}" for name, dtype in stream.schema.items()),
    ]


def _groups(plan: PipelinePlan) -> Iterator[tuple[str, list[FeatureNode]]]:
    """Features by where they are computed: an entity each, then baselines, then row expressions."""
    groups: dict[str, list[FeatureNode]] = {}
    for feature in plan.features:
        groups.setdefault(_place(feature), []).append(feature)
    order = sorted(groups, key=lambda title: (title.startswith("row"), title.startswith("baselines")))
    yield from ((title, groups[title]) for title in order)


def _place(feature: FeatureNode) -> str:
    if isinstance(feature, ExpressionNode):
        return "row expressions"
    if isinstance(feature, BaselineNode):
        return "baselines of the population"
    entity = f"{feature.stream} by {feature.key or 'nothing'}"
    return f"{entity}, looked up at {feature.at}" if feature.at else entity


def _feature(feature: FeatureNode) -> str:
    if isinstance(feature, ExpressionNode):
        return format_expression(feature.expression)
    if isinstance(feature, BaselineNode):
        over, step = format_duration(feature.over_us), format_duration(feature.step_us)
        return f"quantile {feature.quantile} of {feature.of} over closed sessions of {over}, in steps of {step}"
    if isinstance(feature, PatternNode):
        what = "number of matches" if feature.type == "int64" else "a match"
        return f"{what} in {format_duration(feature.over_us)} of {describe_sequence(feature.pattern)}"
    return _aggregate(feature)


def _aggregate(feature: AggregateNode) -> str:
    where = f" where {format_expression(feature.where)}" if feature.where is not None else ""
    return describe_aggregate(feature.function, feature.input, feature.window) + where


def _decisions(plan: PipelinePlan) -> list[str]:
    lines = []
    if plan.sessions:
        gap, longest = format_duration(plan.sessions.gap_us), format_duration(plan.sessions.max_length_us)
        lines.append(f"sessions of {plan.sessions.key}: gap {gap}, at most {longest}; one more row when each closes")
    if plan.model:
        lines.append(f"model {plan.model.ref}: score from {len(plan.model.features)} features")
    if plan.policy:
        lines.append("policy (the first match decides; otherwise allow)")
        width = max(len(rule.action) for rule in plan.policy)
        lines += [
            f"  {rule.action:<{width}}  when {format_expression(rule.when)}  [{rule.reason}]" for rule in plan.policy
        ]
    if plan.emission.kind == "max_wait":
        wait = format_duration(plan.emission.max_wait_us)
        lines.append(f"a row waits at most {wait} for the streams that it looks up to catch up with it")
    elif plan.emission.kind == "on_watermark":
        lines.append("a row waits until the watermark of every stream has passed it")
    if not plan.revisions:
        lines.append("no revisions: a row stays as it went out, whatever arrives later")
    return lines
