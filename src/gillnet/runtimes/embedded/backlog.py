"""How much waits at a run's sources and sinks, and what they could not keep: figures that only they know (I7)."""

from __future__ import annotations

from collections.abc import Mapping

from gillnet.core.ports import MeasuredSink, MeasuredSource, Sink, Source

Figures = dict[str, dict[str, int]]


def source_figures(sources: Mapping[str, Source]) -> Figures:
    """Return what each source tells, by stream: its lag, where it knows it, and figures of its own."""
    figures: Figures = {}
    for stream, source in sources.items():
        own = source.figures() if isinstance(source, MeasuredSource) else {}
        lag = source.lag
        figures[stream] = {**({} if lag is None else {"lag_records": lag}), **own}
    return figures


def most_waiting(figures: Figures) -> int:
    """Return how many records wait at the source where most do, of what `source_figures` returned."""
    return max((told.get("lag_records", 0) for told in figures.values()), default=0)


def sink_figures(sinks: Mapping[str, Sink | None]) -> Figures:
    """Return what each open sink tells, by output."""
    told: dict[str, object] = dict(sinks)
    return {output: dict(sink.figures()) for output, sink in told.items() if isinstance(sink, MeasuredSink)}
