"""Shares, spans and sentences of a lateness report, as the table and the page write them."""

from __future__ import annotations

from gillnet.core.time import format_duration
from gillnet.lifecycle.lateness.report import Recommendation, ScoresLateness, StreamLateness


def percent(share: float | None) -> str:
    """Write a share, with three digits where it is small.

    >>> percent(0.18), percent(0.00032), percent(0.0)
    ('18.0%', '0.032%', '0')
    """
    if share is None:
        return "-"
    if share == 0:
        return "0"
    return f"{share:.1%}" if share >= 0.01 else f"{share * 100:.2g}%"


def span_ms(value: float | None) -> str:
    """Write a span in the unit that fits.

    >>> span_ms(0.0), span_ms(12.5), span_ms(6_260.0), span_ms(86_400_000.0)
    ('0', '12.5 ms', '6.3 s', '24.0 h')
    """
    if value is None:
        return "-"
    if value == 0:
        return "0"
    for size, unit in ((3_600_000.0, "h"), (60_000.0, "min"), (1_000.0, "s")):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.3g} ms"


def score_move(value: float | None) -> str:
    """Write how far scores moved."""
    return "-" if value is None else f"{value:.2g}"


def arrivals_text(stream: StreamLateness) -> str:
    """Say what the waits rest on."""
    if stream.recorded:
        return "Arrivals are those that were recorded with the records."
    return (
        "No arrivals are recorded: the stream's own progress in event time stands in for them, so waits are told in event time, "
        "and no partition is idle."
    )


def sample_text(scores: ScoresLateness) -> str:
    """Say what was scored."""
    model = "" if scores.model is None else f" with {scores.model}"
    return (
        f"Scores: pipeline {scores.pipeline}{model}, the first {scores.size:,} root events; {scores.warm_up:,} fill the windows, "
        f"{scores.counted:,} are compared ({scores.events:,} events of all streams for each delay). Stale: a feature is not that "
        "of the complete data. Moved: how far the scores of stale rows are from the complete ones."
    )


def on_arrival_text(scores: ScoresLateness) -> str:
    """Say what scoring on arrival costs, for which there is no point on a curve."""
    at = scores.on_arrival
    changed = "" if at.changed_share is None else f", the scores of {percent(at.changed_share)} change"
    return (
        f"Scored on arrival, without any wait, {percent(at.stale_share)} of the rows are stale{changed}, and "
        f"{percent(at.flipped_share)} of the decisions are others than on complete data."
    )


def advice_text(advice: Recommendation) -> str:
    """Say what is recommended, and why."""
    if advice.emission is None:
        return f"Nothing in the table keeps the budget: {advice.why}."
    late = "late events" if advice.stale_of == "events" else "stale scores"
    costs = f"{percent(advice.stale_share)} {late}"
    if advice.emission == "on_arrival":
        return f"Recommended: score on arrival, as is the default: {costs}, no wait; {advice.why}."
    assert advice.delay_us is not None
    wait = "" if advice.wait_ms_p99 is None else f", waits of {span_ms(advice.wait_ms_p99)} (p99)"
    return f'Recommended: watermark_delay="{format_duration(advice.delay_us)}": {costs}{wait}; {advice.why}.'
