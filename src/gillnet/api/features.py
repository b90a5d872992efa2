"""Features of a stream's events: named aggregates, lookups and row expressions; and the sessions of an entity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from graphlib import CycleError, TopologicalSorter

from gillnet.api.aggregates import Aggregate, Aggregation, bind
from gillnet.api.aggregates.windows import session_spec
from gillnet.api.expressions import Expr
from gillnet.api.limits import is_count
from gillnet.api.patterns import Pattern
from gillnet.api.stream import Entity, Stream
from gillnet.core.errors import DefinitionError
from gillnet.core.naming import nearest
from gillnet.core.time import duration_us
from gillnet.plan.expressions import columns_of
from gillnet.plan.nodes import AggregateNode, BaselineNode, ExpressionNode, FeatureNode, SessionsNode, StreamNode
from gillnet.plan.patterns import PatternNode
from gillnet.plan.typing import infer

RESERVED = ("score", "decision", "reasons", "model", "revision", "replaced_by", "session_start", "session_end")
"""Names that rows carry anyway."""

DECIDED = ("decision", "reasons")
"""Columns that a row gets from the policy, and that a stream therefore cannot have."""

CLOSED_SESSION = ("session_start", "session_end", "revision")
"""What a closed session has beside its key and features."""

Columns = dict[str, tuple[str, bool]]


@dataclass(frozen=True, slots=True)
class Baseline:
    """A robust limit that the population itself sets: see `baseline`."""

    of: str
    quantile: float
    over: str | timedelta
    step: str | timedelta
    min_count: int


def baseline(
    of: str,
    *,
    quantile: float = 0.99,
    over: str | timedelta = "24h",
    step: str | timedelta = "10m",
    min_count: int = 100,
) -> Baseline:
    """Return the streaming ``quantile`` of feature ``of`` over the population's recently closed sessions.

    Parameters
    ----------
    of
        A numeric feature of the same sessions.
    quantile
        Between 0 and 1, both excluded; 0.5 is the median.
    over
        How far back sessions count, in whole steps before the step that the event lies in: nothing after the event
        (I6).
    step
        How often the limit moves, in event time.
    min_count
        Null until so many sessions are in it.

    Notes
    -----
    Counted in logarithmic bins with a relative error of at most 1 % (DDSketch, Masson, Rim and Lee, VLDB 2019),
    about 16 bytes for each bin in use and step.
    """
    return Baseline(of, quantile, over, step, min_count)


Feature = Aggregate | Expr | Baseline | Pattern


class Features:
    """The named features of each event of a stream.

    Parameters
    ----------
    stream
        The root stream: one row comes out for each of its events.
    **features
        Name to aggregate (of this stream, or of another with ``.at(column)``) or row expression over the stream's
        columns and other features, in any order.

    Raises
    ------
    DefinitionError
        For a name that is taken, an unknown column, a type that does not fit, another stream's aggregate without
        ``at``, or expressions that need each other.
    """

    def __init__(self, stream: Stream, **features: Feature) -> None:
        if not isinstance(stream, Stream):
            mend = f"; give its stream, {stream.stream.name}" if isinstance(stream, Entity) else ""
            raise DefinitionError(
                f"Features: {stream!r} is not a stream{mend or '; give one first, then the features'}."
            )
        self.stream = stream
        self.sessions: SessionsNode | None = None
        self.nodes, self.columns, self.others = _lower(stream, features)
        if not isinstance(self, Sessions):
            _refuse_baselines(self.nodes)

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names, in the order in which they are computed."""
        return tuple(node.name for node in self.nodes)

    def __repr__(self) -> str:
        return f"<features of {self.stream.name}: {', '.join(self.names)}>"


class Sessions(Features):
    """The sessions of an entity: a row for each event while a session runs, and one when it has ended.

    Parameters
    ----------
    entity
        Whose sessions, such as ``clicks.by("visitor_id")``.
    gap
        A session ends when the key is silent for longer than this.
    max_length
        A session is cut where it would last this long, so that its state is bounded.
    **features
        Name to aggregation (``gillnet.count()``, over the session), to an aggregate with a window of its own, to a
        `baseline`, or to a row expression.
    """

    def __init__(
        self,
        entity: Entity,
        *,
        gap: str | timedelta,
        max_length: str | timedelta = "24h",
        **features: Feature | Aggregation,
    ) -> None:
        if not isinstance(entity, Entity) or entity.key is None:
            raise DefinitionError(f"Sessions: {entity!r} has no key to have sessions of; start from stream.by(column).")
        node, key = entity.stream.node, entity.key
        place = f"sessions of {node.name} by {key}"
        if key in CLOSED_SESSION:
            raise DefinitionError(
                f"{place}: closed sessions have a column {key!r} of their own; key by another column."
            )
        over = session_spec(gap, max_length, what=place)
        bound: dict[str, Feature] = {
            name: bind(node, key, feature, over, "0s") if isinstance(feature, Aggregation) else feature
            for name, feature in features.items()
        }
        super().__init__(entity.stream, **bound)
        _check_baselines(self.nodes, node.name, key)
        self.sessions = SessionsNode(key=key, gap_us=over.size_us, max_length_us=over.max_length_us)


def _lower(
    stream: Stream, features: Mapping[str, Feature]
) -> tuple[tuple[FeatureNode, ...], Columns, dict[str, StreamNode]]:
    if not features:
        raise DefinitionError(
            f"Features of {stream.name!r}: there is none; give at least one, such as n=card.count(over='1h')."
        )
    columns: Columns = {name: (dtype.name, dtype.nullable) for name, dtype in stream.schema.items()}
    others: dict[str, StreamNode] = {}
    if taken := [name for name in DECIDED if name in columns]:
        raise DefinitionError(
            f"Features of {stream.name!r}: its column {taken[0]!r} has the name of what the policy decides; leave it out "
            "of the schema, or rename it at its source."
        )
    for name, feature in features.items():
        _check_name(name, stream)
        _check_kind(name, feature)
    nodes: list[FeatureNode] = []
    for name in _order(features, columns):
        feature = features[name]
        if isinstance(feature, Aggregate):
            node: FeatureNode = _aggregate(name, feature, stream, others)
            columns[name] = (feature.type, feature.nullable or feature.lookup is not None or _null_key(feature, stream))
        elif isinstance(feature, Pattern):
            node = _pattern(name, feature, stream, others)
            columns[name] = (feature.type, feature.lookup is not None or _null_key(feature, stream))
        elif isinstance(feature, Baseline):
            node = _baseline(name, feature, columns)
            columns[name] = ("float64", True)
        else:
            value_type, nullable = infer(feature.node, columns, what=f"feature {name!r}")
            node = ExpressionNode(name=name, type=value_type, expression=feature.node)
            columns[name] = (value_type, nullable)
        nodes.append(node)
    return tuple(nodes), columns, others


def _null_key(feature: Aggregate | Pattern, stream: Stream) -> bool:
    return feature.key is not None and feature.key in stream.schema and stream.schema[feature.key].nullable


def _check_name(name: str, stream: Stream) -> None:
    if name in stream.schema:
        raise DefinitionError(f"feature {name!r}: stream {stream.name!r} has a column of that name; choose another.")
    if name in RESERVED or name.startswith("__"):
        raise DefinitionError(f"feature {name!r}: that name is kept for Gillnet; choose another.")
    if not name.isidentifier():
        raise DefinitionError(f"feature {name!r}: a name is of letters, digits and '_'; choose another.")


def _check_kind(name: str, feature: object) -> None:
    if isinstance(feature, Aggregate | Expr | Baseline | Pattern):
        return
    what = f"the function {feature.__name__}" if callable(feature) and hasattr(feature, "__name__") else repr(feature)
    match feature:
        case Aggregation():
            mend = "it stands over no window; write it of an entity, such as card.count(over='1h')"
        case str():
            mend = f"for the column write col({feature!r}), for the text itself lit({feature!r})"
        case bool() | int() | float():
            mend = f"for a constant write lit({feature!r})"
        case _:
            mend = "give an aggregate such as card.count(over='1h'), or an expression such as col('amount') * 2"
    raise DefinitionError(f"feature {name!r}: {what} is not a feature; {mend}.")


def _order(features: Mapping[str, Feature], columns: Columns) -> list[str]:
    """Features in an order in which each comes after those it needs: as written, where that is possible."""
    needs: dict[str, set[str]] = {}
    for name, feature in features.items():
        if isinstance(feature, Baseline) and not isinstance(feature.of, str):
            raise DefinitionError(f"feature {name!r}: baseline({feature.of!r}): name a feature, such as 'clicks'.")
        used: set[str] = {feature.of} if isinstance(feature, Baseline) else set()
        if isinstance(feature, Expr):
            used = set(columns_of(feature.node))
        unknown = used - set(features) - set(columns)
        if unknown:
            missing = min(unknown)
            known = [*columns, *features]
            raise DefinitionError(
                f"feature {name!r}: there is no column or feature {missing!r}{nearest(missing, set(known) - {name})}."
            )
        needs[name] = used & set(features)
    try:
        tuple(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = " needs ".join(reversed(error.args[1]))
        raise DefinitionError(
            f"features: {circle}; a feature cannot need itself. Break the circle at one of them."
        ) from None
    placed: list[str] = []
    waiting = list(features)
    while waiting:
        ready = next(name for name in waiting if needs[name] <= set(placed))
        placed.append(ready)
        waiting.remove(ready)
    return placed


def _pattern(name: str, feature: Pattern, root: Stream, others: dict[str, StreamNode]) -> PatternNode:
    _check_stream(name, feature, root, others)
    return PatternNode(
        name=name,
        type=feature.type,
        stream=feature.stream.name,
        key=feature.key,
        over_us=feature.over_us,
        pattern=feature.sequence,
        at=feature.lookup,
    )


def _check_stream(name: str, feature: Aggregate | Pattern, root: Stream, others: dict[str, StreamNode]) -> None:
    own = feature.stream.name == root.name
    if own and feature.stream != root.node:
        raise DefinitionError(f"feature {name!r}: two different streams are called {root.name!r}; rename one.")
    if own and feature.lookup is not None:
        raise DefinitionError(
            f"feature {name!r}: at({feature.lookup!r}) reads another stream; this one is {root.name!r} itself."
        )
    if not own:
        _check_lookup(name, feature, root)
        if others.setdefault(feature.stream.name, feature.stream) != feature.stream:
            raise DefinitionError(
                f"feature {name!r}: two different streams are called {feature.stream.name!r}; rename one."
            )


def _aggregate(name: str, feature: Aggregate, root: Stream, others: dict[str, StreamNode]) -> AggregateNode:
    _check_stream(name, feature, root, others)
    return AggregateNode(
        name=name,
        type=feature.type,
        stream=feature.stream.name,
        key=feature.key,
        function=feature.function,
        window=feature.window,
        input=feature.input,
        where=feature.where,
        at=feature.lookup,
    )


def _check_lookup(name: str, feature: Aggregate | Pattern, root: Stream) -> None:
    if feature.lookup is None:
        raise DefinitionError(
            f"feature {name!r}: it is of stream {feature.stream.name!r}, and the rows are of {root.name!r}; "
            f"say whose with .at(column): {_lookup_columns(feature, root)}."
        )
    if feature.lookup not in root.schema:
        raise DefinitionError(
            f"feature {name!r}: at({feature.lookup!r}) is not a column of "
            f"{root.name!r}{nearest(feature.lookup, root.schema)}."
        )
    if feature.key is None:
        return
    given, wanted = root.schema[feature.lookup].name, feature.stream.schema[feature.key].name
    if given != wanted:
        raise DefinitionError(
            f"feature {name!r}: at({feature.lookup!r}) is {given}, and the key {feature.key!r} of "
            f"{feature.stream.name!r} is {wanted}; give one of {_lookup_columns(feature, root)}."
        )


def _lookup_columns(feature: Aggregate | Pattern, root: Stream) -> str:
    """Say which columns of the root stream could hold the key that is looked up."""
    if feature.key is None:
        return f"any column does where there is no key, such as {root.node.id!r}"
    wanted = feature.stream.schema[feature.key].name
    fitting = [column for column, dtype in root.schema.items() if dtype.name == wanted]
    return f"the {wanted} columns of {root.name!r}, which are {', '.join(fitting)}"


def _baseline(name: str, feature: Baseline, columns: Columns) -> BaselineNode:
    place = f"feature {name!r}: baseline"
    value_type = columns[feature.of][0]
    if value_type.partition("(")[0] not in ("int64", "float64", "decimal"):
        raise DefinitionError(f"{place}: {feature.of!r} is {value_type}; choose a feature that is a number.")
    if not isinstance(feature.quantile, int | float) or not 0 < feature.quantile < 1:
        raise DefinitionError(f"{place}: quantile={feature.quantile!r} is not between 0 and 1; 0.99 is a usual one.")
    if not is_count(feature.min_count, least=0):
        raise DefinitionError(f"{place}: min_count={feature.min_count!r} must be a whole number, 0 or more.")
    over, step = duration_us(feature.over, what=f"{place}: over"), duration_us(feature.step, what=f"{place}: step")
    if not 0 < step <= over:
        raise DefinitionError(f"{place}: step={feature.step!r} must be above 0 and at most over={feature.over!r}.")
    return BaselineNode(
        name=name, of=feature.of, quantile=feature.quantile, over_us=over, step_us=step, min_count=feature.min_count
    )


def _refuse_baselines(nodes: Sequence[FeatureNode]) -> None:
    for node in nodes:
        if isinstance(node, BaselineNode):
            raise DefinitionError(
                f"feature {node.name!r}: a baseline is of closed sessions, and these features have none; "
                "define them with gillnet.Sessions."
            )


def _check_baselines(nodes: Sequence[FeatureNode], stream: str, key: str) -> None:
    """Hold baselines against what closed sessions have: their entity's aggregates, and what follows from those alone."""
    closed: set[str] = {key, *CLOSED_SESSION}
    features: list[str] = []
    for node in nodes:
        own = isinstance(node, AggregateNode) and (node.stream, node.key) == (stream, key)
        if own or (isinstance(node, ExpressionNode) and columns_of(node.expression) <= closed):
            closed.add(node.name)
            features.append(node.name)
        elif isinstance(node, BaselineNode) and node.of not in features:
            raise DefinitionError(
                f"feature {node.name!r}: baseline: closed sessions do not have {node.of!r}, since it needs more than the "
                f"session's own events; give one of {', '.join(features) or 'their aggregates, such as n=gillnet.count()'}."
            )
