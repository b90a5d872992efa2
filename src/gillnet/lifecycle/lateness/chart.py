"""A line chart as SVG, over watermark delays: both axes logarithmic, with a place for zero at their beginning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from gillnet.core.time import format_duration

WIDTH, HEIGHT = 760, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 76, 150, 16, 52
_COLOURS = ("#0b6e99", "#c2410c", "#6d28d9", "#15803d")
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_X_TICKS_US = (10_000, 100_000, 1_000_000, 10_000_000, 60_000_000, 600_000_000, 3_600_000_000, 86_400_000_000)
_LABEL_GAP = 15


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its name, and a value for each delay; None where there is none."""

    name: str
    values: Sequence[float | None]


class Scale:
    """Places values along an axis by their logarithm; zero stands half a decade before the smallest of them.

    Parameters
    ----------
    values
        What is to be placed, 0 or more.
    first, last
        Where the axis begins and ends.
    least_decades
        The axis spans so many at least.
    """

    def __init__(self, values: Sequence[float], first: float, last: float, *, least_decades: float = 1.0) -> None:
        positive = [value for value in values if value > 0] or [1.0]
        self.smallest, self.largest = min(positive), max(positive)
        self._zero = math.log10(self.smallest) - (0.5 if 0 in values else 0.0)
        self._span = max(math.log10(self.largest) - self._zero, least_decades)
        self._first, self._length = first, last - first

    def place(self, value: float) -> float:
        """Return where a value lies."""
        part = 0.0 if value <= 0 else (math.log10(value) - self._zero) / self._span
        return self._first + part * self._length

    def ticks(self, wanted: Sequence[float] = ()) -> list[float]:
        """Return those of the wanted values that lie on the axis; powers of ten, if none are wanted."""
        bottom, top = math.log10(self.smallest) - 1e-9, self._zero + self._span + 1e-9
        wanted = wanted or [10.0**power for power in range(math.ceil(bottom), math.floor(top) + 1)]
        return [value for value in wanted if bottom <= math.log10(value) <= top]


def line_chart(
    delays_us: Sequence[int],
    series: Sequence[Series],
    *,
    title: str,
    y_label: str,
    show: Callable[[float], str],
    ticks: Sequence[float] = (),
    chosen_us: int | None = None,
) -> str:
    """Draw lines over watermark delays.

    Parameters
    ----------
    delays_us
        Ascending, microseconds.
    series
        The lines, four at the most.
    title, y_label
        Stand beside the axes; ``title`` is also what a screen reader says.
    show
        Writes a value, for the ticks and for what the pointer shows.
    ticks
        Where the vertical axis has its lines; by default at powers of ten.
    chosen_us
        A delay to mark.
    """
    values = [value for line in series for value in line.values if value is not None]
    x = Scale([float(delay) for delay in delays_us], _LEFT, WIDTH - _RIGHT)
    y = Scale(values, HEIGHT - _BOTTOM, _TOP)
    parts = [*_grid(x, y, values, delays_us, show, ticks), *_axis_labels(y_label)]
    if chosen_us is not None:
        place = x.place(chosen_us)
        parts.append(f'<line class="chosen" x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
    parts += [_line(number, line, delays_us, x, y, show) for number, line in enumerate(series)]
    parts += _line_labels(series, y)
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">\n{body}\n</svg>'


def _grid(
    x: Scale,
    y: Scale,
    values: Sequence[float],
    delays_us: Sequence[int],
    show: Callable[[float], str],
    ticks: Sequence[float],
) -> list[str]:
    parts = []
    for value in [*([0.0] if 0 in values else []), *y.ticks(ticks)]:
        place = y.place(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{place + 4:.1f}" text-anchor="end">{escape(show(value))}</text>')
    for delay_us in [*([0] if 0 in delays_us else []), *_X_TICKS_US]:
        if delay_us and not min(filter(None, delays_us), default=0) <= delay_us <= max(delays_us):
            continue
        place = x.place(delay_us)
        parts.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>')
        label = "0" if delay_us == 0 else format_duration(delay_us).replace("1d", "24h")
        parts.append(f'<text x="{place:.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{label}</text>')
    return parts


def _axis_labels(y_label: str) -> list[str]:
    middle_x, middle_y = (_LEFT + WIDTH - _RIGHT) / 2, (_TOP + HEIGHT - _BOTTOM) / 2
    return [
        f'<text class="axis" x="{middle_x:.0f}" y="{HEIGHT - 8}" text-anchor="middle">watermark delay</text>',
        f'<text class="axis" transform="translate(14 {middle_y:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_label)}</text>",
    ]


def _line(number: int, line: Series, delays_us: Sequence[int], x: Scale, y: Scale, show: Callable[[float], str]) -> str:
    known = [(delay, value) for delay, value in zip(delays_us, line.values, strict=True) if value is not None]
    colour, dash = _COLOURS[number], _DASHES[number]
    points = " ".join(f"{x.place(delay):.1f},{y.place(value):.1f}" for delay, value in known)
    dots = "".join(
        f'<circle cx="{x.place(delay):.1f}" cy="{y.place(value):.1f}" r="3" fill="{colour}">'
        f"<title>{escape(line.name)} at {format_duration(delay)}: {escape(show(value))}</title></circle>"
        for delay, value in known
    )
    return f'<polyline points="{points}" stroke="{colour}" stroke-dasharray="{dash}"/>{dots}'


def _line_labels(series: Sequence[Series], y: Scale) -> list[str]:
    """Name the lines where they end, apart from one another."""
    ends = [
        (y.place(next((v for v in reversed(line.values) if v is not None), 0.0)), number)
        for number, line in enumerate(series)
    ]
    parts, free = [], 0.0
    room = HEIGHT - _BOTTOM + 8 - _LABEL_GAP * (len(ends) - 1)
    for place, number in sorted(ends):
        free = max(min(place, room) + 4, free)
        room += _LABEL_GAP
        parts.append(
            f'<text x="{WIDTH - _RIGHT + 10}" y="{free:.1f}" fill="{_COLOURS[number]}" class="name">'
            f"{escape(series[number].name)}</text>"
        )
        free += _LABEL_GAP
    return parts
