"""Windows, as users write them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from gillnet.core.errors import DefinitionError
from gillnet.core.time import duration_us
from gillnet.plan.nodes import LatestWindow, SessionWindow, SlidingWindow, TumblingWindow, Window


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """A kind of window and its bounds in microseconds."""

    kind: Literal["sliding", "tumbling", "session"]
    size_us: int
    max_length_us: int = 0


def sliding(size: str | timedelta) -> WindowSpec:
    """Return the window (t - size, t] of the reading event's time t; what a plain duration means."""
    return WindowSpec("sliding", _positive(size, "sliding()"))


def tumbling(size: str | timedelta) -> WindowSpec:
    """Return the calendar-aligned window (UTC) that holds the event, up to the event."""
    return WindowSpec("tumbling", _positive(size, "tumbling()"))


def session(gap: str | timedelta, *, max_length: str | timedelta = "24h") -> WindowSpec:
    """Return the key's session: events with gaps of at most ``gap``, cut where it would last ``max_length``."""
    return session_spec(gap, max_length, what="session()")


def session_spec(gap: str | timedelta, max_length: str | timedelta, *, what: str) -> WindowSpec:
    """Return a session window; ``what`` is the place that messages name."""
    return WindowSpec("session", _positive(gap, f"{what}: gap"), _positive(max_length, f"{what}: max_length"))


def _positive(value: str | timedelta, what: str) -> int:
    size = duration_us(value, what=what)
    if size <= 0:
        raise DefinitionError(f"{what}: {str(value)!r} holds nothing; give a duration above 0, such as '5m'.")
    return size


def window_node(over: str | timedelta | WindowSpec, delay: str | timedelta, *, latest: bool, what: str) -> Window:
    """Lower a window; ``latest`` for look-backs, which take a plain duration only."""
    delay_us = duration_us(delay, what=f"{what}: delay")
    spec = over if isinstance(over, WindowSpec) else WindowSpec("sliding", _positive(over, f"{what}: over"))
    if latest:
        if spec.kind != "sliding":
            raise DefinitionError(f"{what}: it looks back for one event; give over= as a duration such as '30d'.")
        return LatestWindow(spec.size_us, delay_us)
    if spec.kind == "session":
        return SessionWindow(spec.size_us, spec.max_length_us, delay_us)
    return (SlidingWindow if spec.kind == "sliding" else TumblingWindow)(spec.size_us, delay_us)
