"""The plan: small frozen records that say what a pipeline computes, and nothing of how.

A definition lowers to one `PipelinePlan`. Every runtime reads this and only this; it is typed, versioned and serialises
to JSON (`gillnet.plan.serde`), and `gillnet.plan.explain` prints it. Durations are microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gillnet.plan.patterns import PatternNode

if TYPE_CHECKING:
    from gillnet.core.schema import Schema
    from gillnet.plan.expressions import Node
    from gillnet.plan.joins import IntervalJoinNode

PLAN_VERSION = 1

Action = Literal["allow", "review", "step_up", "block"]
ACTIONS: tuple[Action, ...] = ("allow", "review", "step_up", "block")
"""Decisions from the mildest to the strictest."""

FunctionName = Literal[
    "count",
    "sum",
    "mean",
    "min",
    "max",
    "variance",
    "std",
    "n_unique",
    "first",
    "last",
    "seconds_since_last",
    "mean_gap_seconds",
    "std_gap_seconds",
    "modal_gap_share",
    "entropy",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamNode:
    """A stream of typed records with an id and an event time."""

    name: str
    schema: Schema
    id: str
    event_time: str
    watermark_delay_us: int
    allowed_lateness_us: int
    idle_after_us: int
    earliest_us: int
    max_ahead_us: int


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """The events with time in (t - delay - size, t - delay] for a reading at t."""

    size_us: int
    delay_us: int = 0


@dataclass(frozen=True, slots=True)
class TumblingWindow:
    """The events of the calendar-aligned pane of t - delay, up to t - delay."""

    size_us: int
    delay_us: int = 0


@dataclass(frozen=True, slots=True)
class SessionWindow:
    """The events of the session that is open at t - delay; it ends after a gap, or before it reaches its longest."""

    gap_us: int
    max_length_us: int
    delay_us: int = 0


@dataclass(frozen=True, slots=True)
class LatestWindow:
    """A look back for the latest event before the reading, at most ``size`` before it."""

    size_us: int
    delay_us: int = 0


Window = SlidingWindow | TumblingWindow | SessionWindow | LatestWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregateNode:
    """One windowed aggregate over the events of a key.

    ``key`` is None where the whole stream is one key. ``at`` names the root stream's column that is looked up, where
    ``stream`` is another stream.
    """

    name: str
    type: str
    stream: str
    key: str | None
    function: FunctionName
    window: Window
    input: Node | None = None
    where: Node | None = None
    at: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionNode:
    """A row expression over the root's columns and the features before it."""

    name: str
    type: str
    expression: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineNode:
    """A streaming quantile of a session feature over the population's sessions that closed before the row's step."""

    name: str
    of: str
    quantile: float
    over_us: int
    step_us: int
    min_count: int
    type: str = "float64"


FeatureNode = AggregateNode | ExpressionNode | BaselineNode | PatternNode


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsNode:
    """Sessions of the root stream's ``key``: rows while they run, one more row when the watermark closes them."""

    key: str
    gap_us: int
    max_length_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelNode:
    """A model by name and version or alias, and the features it takes, in order: (name, value type)."""

    ref: str
    features: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleNode:
    """An action, and when it applies; ``reason`` is the code that the decision carries."""

    action: Action
    when: Node
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmissionNode:
    """When a row leaves (I8).

    ``on_arrival``: at once. ``max_wait``: when the streams that it looks up have caught up with it, or after
    ``max_wait_us`` of processing time. ``on_watermark``: when the watermark of every stream has passed it.
    """

    kind: Literal["on_arrival", "max_wait", "on_watermark"] = "on_arrival"
    max_wait_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelinePlan:
    """A whole pipeline. ``revisions``: rows that went out are computed again when a later arrival changes them (I2)."""

    name: str
    root: str
    streams: tuple[StreamNode, ...]
    features: tuple[FeatureNode, ...]
    sessions: SessionsNode | None = None
    model: ModelNode | None = None
    policy: tuple[RuleNode, ...] = ()
    emission: EmissionNode = EmissionNode()
    joins: tuple[IntervalJoinNode, ...] = ()
    revisions: bool = True
    max_events_per_key: int = 4_000_000
    max_partial_matches: int = 1_000
    version: int = PLAN_VERSION

    @property
    def has_patterns(self) -> bool:
        """Whether a feature is about a sequence of events."""
        return any(isinstance(feature, PatternNode) for feature in self.features)

    def stream(self, name: str) -> StreamNode:
        """Return the stream of that name; KeyError if there is none."""
        return {stream.name: stream for stream in self.streams}[name]
