"""What differs between the plan that wrote a state and the one that is to go on from it, and what cannot follow what.

The kernel moves the state and says how long a feature warms up; here is said, part by part, what becomes of it, and for what is
refused, why and how to mend it. It knows nothing of checkpoints.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from gillnet.core.time import format_duration
from gillnet.plan.nodes import AggregateNode, FeatureNode, PipelinePlan, SessionWindow, StreamNode, Window
from gillnet.plan.patterns import PatternNode
from gillnet.plan.serde import plan_to_json

Outcome = Literal["kept", "added", "changed", "dropped", "refused"]

_ANEW = "begin with an empty place of checkpoints"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What becomes of one part of a plan.

    Attributes
    ----------
    kind
        ``pipeline``, ``stream``, ``feature``, ``sessions``, ``join``, ``emission``, ``revisions``.
    what
        What differs; empty where nothing does.
    mend
        What can be done about a refusal.
    """

    kind: str
    name: str
    outcome: Outcome
    what: str = ""
    mend: str = ""

    def __str__(self) -> str:
        part = f"{self.kind} {self.name!r}" if self.name else self.kind
        reason = f" ({self.what})" if self.what else ""
        return f"{part} {self.outcome}{reason}"


def compare(old: PipelinePlan, new: PipelinePlan, *, drop: Collection[str] = ()) -> list[Difference]:
    """Return what becomes of every part of ``old`` and ``new``.

    Parameters
    ----------
    old
        The plan that wrote the state.
    new
        The plan that is to go on from it.
    drop
        Names of parts whose state may be forgotten where it cannot be carried over: they begin anew.
    """
    found = [*_pipeline(old, new), *_streams(old, new, drop), *_features(old, new, drop)]
    found += [*_sessions(old, new), *_joins(old, new, drop)]
    if old.emission != new.emission:
        found.append(Difference(kind="emission", name="", outcome="changed", what=_changed(old.emission, new.emission)))
    if old.revisions != new.revisions:
        what = "rows that went out before are not revised" if new.revisions else "rows are not revised any more"
        found.append(Difference(kind="revisions", name="", outcome="added" if new.revisions else "dropped", what=what))
    return found


def _pipeline(old: PipelinePlan, new: PipelinePlan) -> Iterator[Difference]:
    if old.name != new.name:
        yield _refused("pipeline", new.name, f"the state is of {old.name!r}", "name the place of its own checkpoints")
    if old.root != new.root:
        what = f"rows were those of {old.root!r}, and are those of {new.root!r}"
        yield _refused("pipeline", new.name, what, _ANEW)


def _streams(old: PipelinePlan, new: PipelinePlan, drop: Collection[str]) -> Iterator[Difference]:
    before = {stream.name: stream for stream in old.streams}
    common = _strings(old) & _strings(new)
    for stream in new.streams:
        known = before.pop(stream.name, None)
        yield (
            Difference(kind="stream", name=stream.name, outcome="added")
            if known is None
            else _stream(known, stream, common)
        )
    for name in before:
        if name in drop:
            yield Difference(kind="stream", name=name, outcome="dropped")
        else:
            what = "it is gone from the definition, and its ids and watermark are part of the state"
            yield _refused("stream", name, what, f"put it back, or let its state go: --drop {name}")


def _stream(old: StreamNode, new: StreamNode, common: set[str]) -> Difference:
    for name in ("id", "event_time"):
        if getattr(old, name) != getattr(new, name):
            what = f"{name} was the column {getattr(old, name)!r}, and is {getattr(new, name)!r}"
            return _refused("stream", new.name, what, f"keep the column, or {_ANEW}")
    types = {name: str(dtype.name) for name, dtype in old.schema.items()}
    for name, dtype in new.schema.items():
        if types.get(name, dtype.name) != dtype.name and name in common | {new.id, new.event_time}:
            what = f"column {name!r} was {types[name]}, and is {dtype.name}; its values are kept as they were"
            return _refused("stream", new.name, what, f"give the new column another name, or {_ANEW}")
    if new.allowed_lateness_us > old.allowed_lateness_us:
        kept, asked = format_duration(old.allowed_lateness_us), format_duration(new.allowed_lateness_us)
        what = f"allowed lateness {kept} to {asked}: ids and events that it needs were forgotten"
        return _refused("stream", new.name, what, f"allow at most {kept}, or {_ANEW}")
    what = _changed(old, new)
    return Difference(kind="stream", name=new.name, outcome="changed" if what else "kept", what=what)


def _features(old: PipelinePlan, new: PipelinePlan, drop: Collection[str]) -> Iterator[Difference]:
    before = {feature.name: feature for feature in old.features}
    for feature in new.features:
        known = before.pop(feature.name, None)
        if known is None:
            yield Difference(kind="feature", name=feature.name, outcome="added")
        else:
            yield _feature(known, feature, drop)
    for name in before:
        yield Difference(kind="feature", name=name, outcome="dropped")


def _feature(old: FeatureNode, new: FeatureNode, drop: Collection[str]) -> Difference:
    if old == new:
        return Difference(kind="feature", name=new.name, outcome="kept")
    what = _changed(old, new) if type(old) is type(new) else "it is of another kind"
    reason = _not_carried(old, new)
    if reason and new.name not in drop:
        mend = f"give it another name, so that it begins beside the old one, or let its state go: --drop {new.name}"
        return _refused("feature", new.name, f"{what}: {reason}", mend)
    return Difference(kind="feature", name=new.name, outcome="changed", what=what)


def _not_carried(old: FeatureNode, new: FeatureNode) -> str:
    """Return why what was kept for a feature is of no use to its new definition; nothing where it may be."""
    if not isinstance(old, AggregateNode | PatternNode) or type(old) is not type(new):
        return ""
    if (old.stream, old.key, old.at) != (new.stream, new.key, new.at):
        return f"its state is of {old.stream}.{old.key or '*'}" + (f" at {old.at}" if old.at else "")
    if isinstance(old, PatternNode) and isinstance(new, PatternNode) and old.pattern != new.pattern:
        return "partial matches are of the old pattern"
    if isinstance(old, AggregateNode) and isinstance(new, AggregateNode) and isinstance(old.window, SessionWindow):
        was = old.window
        if isinstance(new.window, SessionWindow) and replace(new.window, delay_us=was.delay_us) != was:
            return "sessions that are under way were cut by the old gap and length"
    return ""


def _sessions(old: PipelinePlan, new: PipelinePlan) -> Iterator[Difference]:
    if old.sessions == new.sessions:
        return
    if new.sessions is None:
        yield Difference(kind="sessions", name="", outcome="dropped")
    elif old.sessions is None:
        what = "the pipeline had none, and those that are under way would be cut wrongly"
        yield _refused("sessions", "", what, f"take a session window for a feature, or {_ANEW}")
    else:
        yield _refused("sessions", "", _changed(old.sessions, new.sessions), f"keep key, gap and length, or {_ANEW}")


def _joins(old: PipelinePlan, new: PipelinePlan, drop: Collection[str]) -> Iterator[Difference]:
    before = {join.name: join for join in old.joins}
    for join in new.joins:
        known = before.pop(join.name, None)
        if known == join:
            yield Difference(kind="join", name=join.name, outcome="kept")
        elif known is None or join.name in drop:
            outcome: Outcome = "added" if known is None else "changed"
            yield Difference(kind="join", name=join.name, outcome=outcome, what="pairs events that come from now on")
        else:
            mend = f"give it another name, or let its state go: --drop {join.name}"
            what = f"{_changed(known, join)}: events are kept as the old definition needs them"
            yield _refused("join", join.name, what, mend)
    for name in before:
        yield Difference(kind="join", name=name, outcome="dropped")


def _refused(kind: str, name: str, what: str, mend: str) -> Difference:
    return Difference(kind=kind, name=name, outcome="refused", what=what, mend=mend)


def _changed(old: Any, new: Any) -> str:
    """Name the fields that differ, with their values where these are short."""
    parts = []
    for field in fields(new):
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        if field.name.endswith("_us"):
            name = field.name.removesuffix("_us").replace("_", " ")
            parts.append(f"{name} {format_duration(before)} to {format_duration(after)}")
        elif isinstance(after, str) and isinstance(before, str):
            parts.append(f"{field.name} {before} to {after}")
        elif type(before) is type(after) and isinstance(after, Window):
            parts.append(f"{field.name} {_changed(before, after)}")
        else:
            parts.append(field.name.replace("_", " "))
    return ", ".join(parts)


def _strings(plan: PipelinePlan) -> set[str]:
    """Return every text in what a plan computes: whatever column it reads is among them."""
    values = plan_to_json(plan)
    return set(_texts([values[name] for name in ("features", "sessions", "policy", "joins")]))


def _texts(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
            yield value.rpartition(".")[2]
        case dict():
            for inner in value.values():
                yield from _texts(inner)
        case list() | tuple():
            for inner in value:
                yield from _texts(inner)
