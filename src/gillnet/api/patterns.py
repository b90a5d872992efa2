"""Patterns: sequences of events of an entity, as users write them.

A `Step` says which events it takes and how many, `seq` puts steps in their order, and ``entity.pattern(…)`` makes a feature
of it. Steps are typed when they are bound to a stream, as all expressions are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from gillnet.api.expressions import Expr
from gillnet.core.errors import DefinitionError
from gillnet.core.naming import nearest
from gillnet.core.time import duration_us
from gillnet.plan.expressions import Column, Node, columns_of
from gillnet.plan.nodes import StreamNode
from gillnet.plan.patterns import (
    MOST_STEPS,
    PREVIOUS,
    SKIP_STRATEGIES,
    AbsentNode,
    AlternativeNode,
    SequenceNode,
    SkipStrategy,
    StepNode,
    describe_sequence,
    earlier_columns,
    format_condition,
    step_words,
)
from gillnet.plan.typing import infer

Duration = str | timedelta
Columns = Mapping[str, tuple[str, bool]]

MOST_REPEATS = 2**31 - 1
"""What a kernel's counter of a step's events holds."""


@dataclass(frozen=True, slots=True, repr=False)
class Step:
    """Events of one kind in a sequence. Make one with `step` or `any_of`; methods return a step that says more.

    Examples
    --------
    >>> import gillnet as gn
    >>> failed = gn.step("failed", where=gn.col("event") == "login_failed")
    >>> gn.seq(failed.times(3), gn.step("reset", where=gn.col("event") == "password_reset"))
    <sequence failed 3 times, reset>
    """

    alternatives: tuple[AlternativeNode, ...]
    least: int = 1
    most: int | None = 1
    is_optional: bool = False
    is_greedy: bool = False
    is_strict: bool = False

    def times(self, least: int, most: int | None = None) -> Step:
        """Take ``least`` events, or from ``least`` to ``most`` of them: no more than are needed, unless `greedy`."""
        most = least if most is None else most
        for number in (least, most):
            if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MOST_REPEATS:
                raise DefinitionError(
                    f"{self!r}: times({least!r}, {most!r}): give whole numbers above 0, such as times(3) or times(2, 5)."
                )
        if least > most:
            raise DefinitionError(f"{self!r}: times({least}, {most}): the first number is the lower one; swap them.")
        return replace(self, least=least, most=most)

    def one_or_more(self) -> Step:
        """Take one event or more: no more than are needed, unless `greedy`."""
        return replace(self, least=1, most=None)

    def optional(self) -> Step:
        """Let the step be left out."""
        return replace(self, is_optional=True)

    def greedy(self) -> Step:
        """Keep an event that fits this step and the next one as well; otherwise the match goes on to the next."""
        return replace(self, is_greedy=True)

    def strict(self) -> Step:
        """Let no other event of the key lie between one that this step takes and the one before that in the match."""
        return replace(self, is_strict=True)

    def first(self, column: str) -> Expr:
        """Return a column of the first event that this step took, in a condition of this or a later step; null of none."""
        return self._earlier("first", column)

    def last(self, column: str) -> Expr:
        """Return a column of the last event that this step took, in a condition of this or a later step; null of none."""
        return self._earlier("last", column)

    def node(self, unless: tuple[Node, ...] = ()) -> StepNode:
        """Return the plan's step; ``unless`` are the negations before it."""
        return StepNode(
            alternatives=self.alternatives,
            least=self.least,
            most=self.most,
            optional=self.is_optional,
            greedy=self.is_greedy,
            strict=self.is_strict,
            unless=unless,
        )

    def _earlier(self, which: str, column: str) -> Expr:
        if len(self.alternatives) != 1:
            names = ", ".join(one.name for one in self.alternatives)
            raise DefinitionError(
                f"{self!r}: {which}({column!r}): any_of takes one of {names}; ask the one that you mean, or `previous`."
            )
        return Expr(Column(f"{self.alternatives[0].name}.{which}.{_column_name(column, which)}"))

    def __repr__(self) -> str:
        return f"<step {step_words(self.node())}>"


@dataclass(frozen=True, slots=True)
class NotBetween:
    """None of these events between the step before and the step after: see `not_between`."""

    where: Expr


@dataclass(frozen=True, slots=True)
class NotWithin:
    """None of these events within a time after the last step: see `not_within`."""

    where: Expr
    time: Duration


@dataclass(frozen=True, slots=True, repr=False)
class Sequence:
    """Steps in their order: see `seq`."""

    parts: tuple[Step | NotBetween | NotWithin, ...]

    def __repr__(self) -> str:
        return f"<sequence {', '.join(step_words(part.node()) for part in self.parts if isinstance(part, Step))}>"


def step(name: str, *, where: Expr | None = None) -> Step:
    """Return a step that takes one event for which ``where`` is true; any event without it.

    Parameters
    ----------
    name
        What the event is called in matches, and in `Step.first` and `Step.last`: letters, digits and ``_``.
    where
        A condition over the event's columns and, by ``earlier.last("column")`` and `previous`, over events that the match
        has taken before.
    """
    if not isinstance(name, str) or not name.isidentifier() or name == PREVIOUS:
        raise DefinitionError(
            f"step({name!r}): a step's name is of letters, digits and '_', such as step('failed', …)."
        )
    if where is not None and not isinstance(where, Expr):
        raise DefinitionError(
            f"step {name!r}: where={where!r} is not an expression; write one such as col('event') == 'login'."
        )
    return Step((AlternativeNode(name=name, where=None if where is None else where.node),))


def any_of(*steps: Step) -> Step:
    """Return a step that takes an event of any of ``steps``: the first of them that it fits."""
    for one in steps:
        if not isinstance(one, Step):
            raise DefinitionError(f"any_of: {one!r} is not a step; write gillnet.step('name', where=…).")
        if one != Step(one.alternatives):
            raise DefinitionError(
                f"any_of: {one!r} says how many by itself; say it of the whole, such as any_of(a, b).times(2)."
            )
    if len(steps) < 2:
        raise DefinitionError("any_of: it chooses between steps; give at least two, such as any_of(login, reset).")
    return Step(tuple(alternative for one in steps for alternative in one.alternatives))


def not_between(where: Expr) -> NotBetween:
    """Say, between two steps of `seq`, that no event for which ``where`` is true lies between them."""
    return NotBetween(_condition("not_between", where))


def not_within(where: Expr, time: Duration) -> NotWithin:
    """Say, at the end of `seq`, that no event for which ``where`` is true comes within ``time`` after the last one.

    The match is complete when the time has passed, not before.
    """
    return NotWithin(_condition("not_within", where), time)


def previous(column: str) -> Expr:
    """Return a column of the event that the match took before this one, whatever its step; null for the first.

    >>> import gillnet as gn
    >>> gap_ms = gn.col("ts").dt.epoch("ms") - gn.previous("ts").dt.epoch("ms")
    >>> click, quick = gn.step("click"), gn.step("quick", where=gap_ms < 300)
    >>> gn.seq(click, quick.times(2).strict())
    <sequence click, quick 2 times (strict)>
    """
    return Expr(Column(f"{PREVIOUS}.{_column_name(column, 'previous')}"))


def seq(*parts: Step | NotBetween | NotWithin) -> Sequence:
    """Return a sequence: events of the steps in their order, others between them unless a step is `Step.strict`.

    Raises
    ------
    DefinitionError
        If it has no step, a name is there twice, a negation stands where it says nothing, or the last step has no end.
    """
    for part in parts:
        if not isinstance(part, Step | NotBetween | NotWithin):
            raise DefinitionError(f"seq: {part!r} is not a step; write gillnet.step('name', where=…).")
    steps = [part for part in parts if isinstance(part, Step)]
    if not steps:
        raise DefinitionError("seq: it has no step; give at least one, such as gillnet.step('login', where=…).")
    _check_names([alternative.name for one in steps for alternative in one.alternatives])
    _check_negations(parts)
    if steps[-1].is_optional or steps[-1].is_greedy:
        word = "optional" if steps[-1].is_optional else "greedy"
        raise DefinitionError(
            f"seq: the last step, {steps[-1]!r}, is {word}: a match would never be complete. Leave out .{word}(); a match is "
            "complete with the event that gives the last step its least number."
        )
    if all(one.is_optional for one in steps):
        raise DefinitionError("seq: every step is optional; leave out .optional() at one of them.")
    return Sequence(parts)


def _check_names(names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DefinitionError(
            f"seq: two steps are called {twice[0]!r}; name each differently, or write step.times(2) for two in a row."
        )
    if len(names) > MOST_STEPS:
        raise DefinitionError(f"seq: it has {len(names)} steps; {MOST_STEPS} is the most. Split it in two patterns.")


def _check_negations(parts: tuple[Step | NotBetween | NotWithin, ...]) -> None:
    last = len(parts) - 1
    for place, part in enumerate(parts):
        if isinstance(part, NotBetween) and (place in (0, last) or not _step_on_both_sides(parts, place)):
            raise DefinitionError(
                "seq: not_between stands between two steps, such as seq(a, not_between(…), b); at the end write "
                "not_within(…, '10m')."
            )
        if isinstance(part, NotWithin) and (place != last or place == 0):
            raise DefinitionError(
                "seq: not_within stands at the end, behind the last step; between steps write not_between(…)."
            )


def _step_on_both_sides(parts: tuple[Step | NotBetween | NotWithin, ...], place: int) -> bool:
    sides = (parts[:place], parts[place + 1 :])
    return all(any(isinstance(part, Step) for part in side) for side in sides)


@dataclass(frozen=True, slots=True, repr=False)
class Pattern:
    """A pattern of an entity, typed: a feature, once it has a name. Make one with ``entity.pattern(…)``.

    As a feature it is true where a match was completed in (t - over, t], up to and including the row's event; `count` gives
    the number of such matches. The matches themselves go to the output ``matches``.
    """

    stream: StreamNode
    key: str | None
    sequence: SequenceNode
    over_us: int
    type: Literal["bool", "int64"] = "bool"
    lookup: str | None = None

    def at(self, column: str) -> Pattern:
        """Read this pattern of another stream as of the event's time, for the key in the event's ``column``."""
        if not isinstance(column, str):
            raise DefinitionError(
                f"{self!r}: at({column!r}): name a column of the rows' stream, such as .at('user_id')."
            )
        return replace(self, lookup=column)

    def count(self) -> Pattern:
        """Return the number of matches instead."""
        return replace(self, type="int64")

    def __repr__(self) -> str:
        at = f", at {self.lookup}" if self.lookup else ""
        what = "count of matches" if self.type == "int64" else "pattern"
        return f"<{what} {describe_sequence(self.sequence)} of {self.stream.name} by {self.key or 'nothing'}{at}>"


def bind_pattern(
    stream: StreamNode,
    key: str | None,
    sequence: Sequence,
    *,
    within: Duration,
    over: Duration | None,
    skip: SkipStrategy,
) -> Pattern:
    """Put a sequence on the entity ``key`` of ``stream``, and check that it fits.

    Raises
    ------
    DefinitionError
        If a condition does not fit the stream or names an event that is not before it, or a time is not above 0.
    """
    place = f"pattern of {stream.name} by {key or 'nothing'}"
    if isinstance(sequence, Step):
        raise DefinitionError(f"{place}: {sequence!r} is one step; write gillnet.seq({sequence.alternatives[0].name}).")
    if not isinstance(sequence, Sequence):
        raise DefinitionError(f"{place}: {sequence!r} is not a sequence; write gillnet.seq(first, second, …).")
    if skip not in SKIP_STRATEGIES:
        raise DefinitionError(f"{place}: skip={skip!r} is unknown{nearest(skip, SKIP_STRATEGIES)}.")
    within_us = _positive(within, f"{place}: within")
    bound = _Binding(place, stream).sequence(sequence, within_us, skip)
    return Pattern(stream, key, bound, within_us if over is None else _positive(over, f"{place}: over"))


class _Binding:
    """Types the conditions of a sequence: each may read what the steps up to its own have taken."""

    def __init__(self, place: str, stream: StreamNode) -> None:
        self.place = place
        self.columns: Columns = {name: (dtype.name, dtype.nullable) for name, dtype in stream.schema.items()}

    def sequence(self, sequence: Sequence, within_us: int, skip: SkipStrategy) -> SequenceNode:
        steps: list[StepNode] = []
        unless: list[Node] = []
        names: tuple[str, ...] = ()
        absent = None
        for part in sequence.parts:
            if isinstance(part, NotBetween):
                unless.append(self.typed("not_between", part.where.node, names))
            elif isinstance(part, NotWithin):
                time = _positive(part.time, f"{self.place}: not_within")
                absent = AbsentNode(where=self.typed("not_within", part.where.node, names), for_us=time)
            else:
                names += tuple(alternative.name for alternative in part.alternatives)
                steps.append(self.step(part, names, tuple(unless)))
                unless.clear()
        return SequenceNode(steps=tuple(steps), within_us=within_us, absent=absent, skip=skip)

    def step(self, part: Step, names: tuple[str, ...], unless: tuple[Node, ...]) -> StepNode:
        for alternative in part.alternatives:
            if alternative.where is not None:
                self.typed(f"step {alternative.name!r}", alternative.where, names)
        return part.node(unless)

    def typed(self, what: str, condition: Node, names: tuple[str, ...]) -> Node:
        place = f"{self.place}: {what}"
        known = {**earlier_columns(names, self.columns), **self.columns}
        for column in sorted(columns_of(condition) - set(known)):
            self._check_earlier(place, column, names)
        value_type, _ = infer(condition, known, what=place)
        if value_type != "bool":
            raise DefinitionError(
                f"{place}: {format_condition(condition)} is {value_type}, not bool; compare it with something."
            )
        return condition

    def _check_earlier(self, place: str, column: str, names: tuple[str, ...]) -> None:
        """Say what is wrong with the name of an earlier event's column; a plain column is the typing's to refuse."""
        step_name, _, rest = column.partition(".")
        wanted = rest if step_name == PREVIOUS else rest.partition(".")[2]
        if not wanted:
            return
        asked = format_condition(Column(column))
        if step_name != PREVIOUS and step_name not in names:
            before = ", ".join(names) or "none"
            raise DefinitionError(
                f"{place}: {asked} reads step {step_name!r}, which does not come before it; the steps up to here are {before}."
            )
        raise DefinitionError(f"{place}: {asked}: there is no column {wanted!r}{nearest(wanted, self.columns)}.")


def _positive(value: Duration, what: str) -> int:
    time = duration_us(value, what=what)
    if time <= 0:
        raise DefinitionError(f"{what}: {str(value)!r} holds nothing; give a duration above 0, such as '15m'.")
    return time


def _condition(function: str, where: object) -> Expr:
    if not isinstance(where, Expr):
        raise DefinitionError(f"{function}({where!r}): give a condition, such as col('event') == 'logout'.")
    return where


def _column_name(column: object, function: str) -> str:
    if not isinstance(column, str) or not column:
        raise DefinitionError(f"{function}({column!r}): name a column of the stream, such as {function}('amount').")
    return column
