"""Patterns in the plan: sequences of steps, as small frozen records, with their JSON and their words for people.

A condition may name columns of earlier events of the match: ``step.first.column`` and ``step.last.column`` of what a step
has taken, and ``previous.column`` of the event before, whatever its step. They are columns like others to everything that
types, prints or evaluates expressions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gillnet.core.time import format_duration
from gillnet.plan.expressions import Node, expression_from_json, expression_to_json
from gillnet.plan.format import format_expression

SkipStrategy = Literal["past_last_event", "to_next", "no_skip"]
SKIP_STRATEGIES: tuple[SkipStrategy, ...] = ("past_last_event", "to_next", "no_skip")
"""Where the search goes on after a match: behind it, at the event after its first, or everywhere."""

PREVIOUS = "previous"
"""In place of a step's name: the event before, whatever its step."""

MOST_STEPS = 64
"""Names of steps in one pattern."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlternativeNode:
    """One kind of event that a step takes; None: any event."""

    name: str
    where: Node | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepNode:
    """A step of a sequence.

    Attributes
    ----------
    alternatives
        An event is taken for the first that it fits.
    least, most
        How many events it takes; ``most`` None: any number.
    optional
        It may be left out.
    greedy
        An event that fits this step and the next one as well stays with this one.
    strict
        No event of the key lies between one that it takes and the one before that in the match.
    unless
        Conditions of which no event between this step and the one before may meet one.
    """

    alternatives: tuple[AlternativeNode, ...]
    least: int = 1
    most: int | None = 1
    optional: bool = False
    greedy: bool = False
    strict: bool = False
    unless: tuple[Node, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AbsentNode:
    """What no event may meet within ``for_us`` after the last of a match."""

    where: Node
    for_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceNode:
    """Steps in their order, from first to last event in less than ``within_us``."""

    steps: tuple[StepNode, ...]
    within_us: int
    absent: AbsentNode | None = None
    skip: SkipStrategy = "past_last_event"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all steps and alternatives, in order."""
        return tuple(alternative.name for step in self.steps for alternative in step.alternatives)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternNode:
    """Matches of a pattern that were completed in (t - over, t]: whether there are any (``bool``), or how many (``int64``).

    ``key`` is None where the whole stream is one key; ``at`` names the root's column that is looked up, where ``stream`` is
    another stream.
    """

    name: str
    type: Literal["bool", "int64"]
    stream: str
    key: str | None
    over_us: int
    pattern: SequenceNode
    at: str | None = None


def earlier_columns(names: tuple[str, ...], columns: Mapping[str, tuple[str, bool]]) -> dict[str, tuple[str, bool]]:
    """Return the columns of earlier events that a condition may name after steps ``names``: each may be null."""
    places = [PREVIOUS, *(f"{name}.{which}" for name in names for which in ("first", "last"))]
    return {f"{place}.{column}": (dtype, True) for place in places for column, (dtype, _) in columns.items()}


def sequence_to_json(node: SequenceNode) -> dict[str, Any]:
    """Write a pattern as JSON values; its version is that of the plan around it."""
    absent = node.absent and {"where": expression_to_json(node.absent.where), "for_us": node.absent.for_us}
    steps = [_step_to_json(step) for step in node.steps]
    return {"steps": steps, "within_us": node.within_us, "absent": absent, "skip": node.skip}


def _step_to_json(step: StepNode) -> dict[str, Any]:
    return {
        "alternatives": [
            {"name": one.name, "where": None if one.where is None else expression_to_json(one.where)}
            for one in step.alternatives
        ],
        "least": step.least,
        "most": step.most,
        "optional": step.optional,
        "greedy": step.greedy,
        "strict": step.strict,
        "unless": [expression_to_json(condition) for condition in step.unless],
    }


def sequence_from_json(values: Mapping[str, Any]) -> SequenceNode:
    """Read what `sequence_to_json` wrote; KeyError or TypeError where it is of another form."""
    absent = values["absent"]
    return SequenceNode(
        steps=tuple(_step_from_json(step) for step in values["steps"]),
        within_us=values["within_us"],
        absent=absent and AbsentNode(where=expression_from_json(absent["where"]), for_us=absent["for_us"]),
        skip=values["skip"],
    )


def _step_from_json(values: Mapping[str, Any]) -> StepNode:
    alternatives = tuple(
        AlternativeNode(name=one["name"], where=None if one["where"] is None else expression_from_json(one["where"]))
        for one in values["alternatives"]
    )
    unless = tuple(expression_from_json(condition) for condition in values["unless"])
    return StepNode(**(dict(values) | {"alternatives": alternatives, "unless": unless}))


def format_condition(node: Node) -> str:
    """Write a condition of a step as its user did.

    >>> from gillnet.plan.expressions import Call, Column
    >>> format_condition(Call("gt", (Column("amount"), Column("small.last.amount"))))
    'col("amount") > small.last("amount")'
    """
    text = re.sub(r'col\("(\w+)\.(first|last)\.([^"]+)"\)', r'\1.\2("\3")', format_expression(node))
    return re.sub(rf'col\("{PREVIOUS}\.([^"]+)"\)', rf'{PREVIOUS}("\1")', text)


def describe_sequence(node: SequenceNode) -> str:
    """Write a pattern in one line: its steps by name, and its times."""
    parts: list[str] = []
    for step in node.steps:
        parts += [f"not between: {format_condition(condition)}" for condition in step.unless]
        parts.append(step_words(step))
    if node.absent is not None:
        parts.append(f"not within {format_duration(node.absent.for_us)}: {format_condition(node.absent.where)}")
    return f"{', then '.join(parts)}; within {format_duration(node.within_us)}, skip {node.skip}"


def step_words(step: StepNode) -> str:
    """Write a step in words: its name, how many events it takes, and how."""
    name = " or ".join(alternative.name for alternative in step.alternatives)
    if step.most is None:
        name += f" {step.least} or more times"
    elif step.most > step.least:
        name += f" {step.least} to {step.most} times"
    elif step.least > 1:
        name += f" {step.least} times"
    flags = ", ".join(word for word in ("optional", "greedy", "strict") if getattr(step, word))
    return f"{name} ({flags})" if flags else name


def step_conditions(node: SequenceNode) -> list[tuple[str, str]]:
    """Return the name of each step and the condition of its events, as their user wrote it."""
    every = [alternative for step in node.steps for alternative in step.alternatives]
    return [(one.name, "any event" if one.where is None else format_condition(one.where)) for one in every]
