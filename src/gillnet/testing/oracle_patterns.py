"""The slow, obviously right answer to patterns, in plain Python.

Every event is tried as the start of a match, and from it each later event is looked at in order, with the whole history of the
match at hand. Which of the matches found count (skip strategy), and which of them a reading sees, is decided afterwards.
The kernel, which does all of this at once and never looks back, is held against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gillnet.plan.expressions import Node
from gillnet.plan.patterns import PREVIOUS, PatternNode, SequenceNode, StepNode
from gillnet.testing.oracle import Evaluate, Event


@dataclass(frozen=True, slots=True)
class Taken:
    """An event of a match: the number of its step, the name that it was taken under, and itself."""

    step: int
    name: str
    event: Event


@dataclass(frozen=True, slots=True)
class Match:
    """A complete match, and the time from which it is one."""

    events: tuple[Taken, ...]
    completed_us: int
    at_event: bool
    """Complete with its last event, and not when a time has passed."""

    @property
    def start(self) -> tuple[int, Any]:
        """Where its first event stands in the order of I1."""
        return self.events[0].event.order

    @property
    def last(self) -> tuple[int, Any]:
        """Where its last event stands in the order of I1."""
        return self.events[-1].event.order

    @property
    def completed(self) -> tuple[int, bool, Any]:
        """Where in the order it is complete: at its last event, or behind all events of a time."""
        return self.completed_us, not self.at_event, self.last[1] if self.at_event else ""


def find_matches(pattern: SequenceNode, events: Iterable[Event], now_us: int | None, evaluate: Evaluate) -> list[Match]:
    """Return the matches among a key's events, in the order in which they are complete.

    Parameters
    ----------
    pattern
        The pattern.
    events
        All events of the key that there are, in any order.
    now_us
        Event time: what waits for a time up to it (inclusive) has waited enough; None: for all time.
    evaluate
        Gives the value of a condition for a row, which has the columns of earlier events too.
    """
    ordered = sorted(events, key=lambda event: event.order)
    found: list[Match] = []
    for place in range(len(ordered)):
        found += _Walk(pattern, ordered[place:], now_us, evaluate).matches()
    found.sort(key=lambda match: (match.completed, match.start, match.last))
    return _apart(found) if pattern.skip == "past_last_event" else found


def _apart(found: Sequence[Match]) -> list[Match]:
    """Keep each match that begins after the one that was kept before has ended."""
    kept: list[Match] = []
    for match in found:
        if not kept or match.start > kept[-1].last:
            kept.append(match)
    return kept


def read_pattern(
    node: PatternNode, events: Iterable[Event], time: int, own: Event | None, evaluate: Evaluate
) -> bool | int:
    """Read a pattern feature as of ``time``, up to and including ``own`` where the reading event belongs to the key."""
    reach = [event for event in events if (event.time <= time if own is None else event.order <= own.order)]
    # Before its last event of a time has come, that time has not passed.
    found = find_matches(node.pattern, reach, time if own is None else time - 1, evaluate)
    count = sum(match.completed_us > time - node.over_us for match in found)
    return count if node.type == "int64" else count > 0


class _Walk:
    """One start, and what each later event is taken for."""

    def __init__(self, pattern: SequenceNode, events: Sequence[Event], now_us: int | None, evaluate: Evaluate) -> None:
        self.pattern, self.events, self.now_us, self.evaluate = pattern, events, now_us, evaluate
        self.taken: list[Taken] = []
        self.passed: list[Event] = []

    def matches(self) -> Iterator[Match]:
        for place, event in enumerate(self.events):
            if event.time - self.events[0].time >= self.pattern.within_us:
                return
            choice = next(self._choices(event), None)
            if choice is not None:
                self.taken.append(choice)
                self.passed = []
                if not self._is_complete():
                    continue
                match = self._match(self.events[place + 1 :])
                if match is not None:
                    yield match
                if self.pattern.skip != "no_skip":
                    return
            elif not self.taken:
                return
            else:
                self.passed.append(event)

    def _is_complete(self) -> bool:
        last = len(self.pattern.steps) - 1
        return self.taken[-1].step == last and self._count(last) >= self.pattern.steps[last].least

    def _match(self, later: Sequence[Event]) -> Match | None:
        """Return the match, unless what must be absent comes after it, or its time has not passed."""
        event, absent = self.taken[-1].event, self.pattern.absent
        if absent is None:
            return Match(tuple(self.taken), event.time, at_event=True)
        until = event.time + absent.for_us
        if self.now_us is not None and until > self.now_us:
            return None
        if any(self._holds(absent.where, other) for other in later if other.time <= until):
            return None
        return Match(tuple(self.taken), until, at_event=False)

    def _choices(self, event: Event) -> Iterator[Taken]:
        """Give what the event could be taken for, the preferred first."""
        if not self.taken:
            yield from self._forward(0, event, [])
            return
        at = self.taken[-1].step
        step = self.pattern.steps[at]
        stay = list(self._as_step(at, event)) if step.most is None or self._count(at) < step.most else []
        if self._count(at) < step.least:
            yield from stay
        elif step.greedy:
            yield from stay
            yield from self._forward(at + 1, event, [])
        else:
            yield from self._forward(at + 1, event, [])
            yield from stay

    def _forward(self, number: int, event: Event, unless: list[Node]) -> Iterator[Taken]:
        """Give the ways to step ``number`` and, while steps are optional, past it; ``unless`` was met on the way."""
        if number == len(self.pattern.steps):
            return
        step = self.pattern.steps[number]
        unless = [*unless, *step.unless]
        here = [] if self._broken(unless) else list(self._as_step(number, event))
        beyond = list(self._forward(number + 1, event, unless)) if step.optional else []
        yield from (*here, *beyond) if step.greedy else (*beyond, *here)

    def _broken(self, unless: list[Node]) -> bool:
        return any(self._holds(condition, event) for condition in unless for event in self.passed)

    def _as_step(self, number: int, event: Event) -> Iterator[Taken]:
        step: StepNode = self.pattern.steps[number]
        if step.strict and self.passed:
            return
        for one in step.alternatives:
            if one.where is None or self._holds(one.where, event):
                yield Taken(number, one.name, event)
                return

    def _count(self, number: int) -> int:
        return sum(taken.step == number for taken in self.taken)

    def _holds(self, condition: Node, event: Event) -> bool:
        return self.evaluate(condition, {**self._earlier(event), **event.row}) is True

    def _earlier(self, event: Event) -> dict[str, Any]:
        """Return the columns of the events that were taken, as conditions name them."""
        row: dict[str, Any] = {}
        for name in self.pattern.names:
            own = [taken.event for taken in self.taken if taken.name == name]
            for column in event.row:
                row[f"{name}.first.{column}"] = own[0].row[column] if own else None
                row[f"{name}.last.{column}"] = own[-1].row[column] if own else None
        for column in event.row:
            row[f"{PREVIOUS}.{column}"] = self.taken[-1].event.row[column] if self.taken else None
        return row
