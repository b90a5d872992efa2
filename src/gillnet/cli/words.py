"""Features, reasons and figures in words, for people who watch a stream."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gillnet.cli.numbers import number, share
from gillnet.cli.phrases import SUMMARIES, phrase, place
from gillnet.core.time import format_duration
from gillnet.plan.format import format_expression
from gillnet.plan.nodes import AggregateNode, ExpressionNode, FeatureNode, LatestWindow, PipelinePlan, SessionWindow
from gillnet.plan.patterns import PatternNode
from gillnet.runtimes.embedded import Alert

_SUFFIX = re.compile(r"_(high|low|missing|true|false)$")


class ReasonWords:
    """Writes the reasons of an alert as short phrases with the row's own values.

    Parameters
    ----------
    plan
        The pipeline, whose features the reasons name.
    """

    def __init__(self, plan: PipelinePlan) -> None:
        self._features: dict[str, FeatureNode] = {feature.name: feature for feature in plan.features}
        self._conditions = {rule.reason: format_expression(rule.when) for rule in plan.policy}

    def of(self, alert: Alert, most: int = 4) -> list[str]:
        """Return up to ``most`` phrases: rules, then what the score rests on."""
        telling = [code for code in alert.reasons if code not in SUMMARIES] or list(alert.reasons)
        phrases = [self.phrase(code, alert.row) for code in sorted(telling, key=place)]
        return list(dict.fromkeys(phrases))[:most]

    def phrase(self, code: str, row: Mapping[str, Any]) -> str:
        """Write one reason code: ``spend_5m_high`` becomes ``amount 2,340 in 5m on this card (high)``."""
        name, note = code, ""
        if name not in self._features and (match := _SUFFIX.search(code)):
            name, note = code[: match.start()], match[1]
        if (known := phrase(code, name, row)) is not None:
            return known
        feature = self._features.get(name)
        if feature is None or code in self._conditions:
            # A rule's own reason; one that the user gave no name is its condition, which reads well as it is.
            return code.replace("_", " ") if code.isidentifier() else code
        if note == "missing":
            return f"no {name.replace('_', ' ')}"
        text = _feature(feature, row.get(name))
        return f"{text} ({note})" if note in ("high", "low") else text


def _feature(feature: FeatureNode, value: Any) -> str:
    if isinstance(feature, AggregateNode):
        return _aggregate(feature, value)
    words = feature.name.replace("_", " ")
    if isinstance(feature, ExpressionNode | PatternNode) and isinstance(value, bool):
        return words if value else f"not {words}"
    return f"{words} {number(value)}"


def _aggregate(feature: AggregateNode, value: Any) -> str:
    entity = feature.key.removesuffix("_id") if feature.key else "stream"
    of = format_expression(feature.input).replace("_id", "") if feature.input is not None else ""
    shown = number(value)
    match feature.function:
        case "count":
            text = f"{shown} {feature.stream}"
        case "n_unique":
            text = f"{shown} different {of}s"
        case "seconds_since_last":
            return f"{shown} s after the {entity}'s last"
        case "mean_gap_seconds":
            text = f"a click every {shown} s" if feature.stream == "clicks" else f"every {shown} s"
        case "std_gap_seconds":
            text = f"gaps vary by {shown} s"
        case "modal_gap_share":
            text = f"{share(value)} of the gaps alike"
        case "sum":
            text = f"{of} {shown}"
        case function:
            text = f"{function} {of} {shown}"
    where = f" with {format_expression(feature.where)}" if feature.where is not None else ""
    if isinstance(feature.window, SessionWindow):
        return f"{text}{where}"
    within = "" if isinstance(feature.window, LatestWindow) else f" in {format_duration(feature.window.size_us)}"
    return f"{text}{where}{within} on this {entity}"


def milliseconds(value: float | None) -> str:
    """Write a latency."""
    if value is None:
        return "-"
    return f"{value:.1f} ms" if value < 100 else (f"{value:,.0f} ms" if value < 10_000 else f"{value / 1_000:,.1f} s")


def clock_time(event_time_us: int | None) -> str:
    """Write an instant as date and time, UTC."""
    if event_time_us is None:
        return "-"
    if not 0 <= event_time_us < 253_402_300_800_000_000:
        return "the end"  # After a bounded stream's last record the watermark is at the end of time.
    return datetime.fromtimestamp(event_time_us / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def instant(event_time_us: int) -> str:
    """Write an instant as rows do, RFC 3339; what lies outside the calendar as its nearest end."""
    inside_us = min(max(event_time_us, 0), 253_402_300_799_000_000)
    return datetime.fromtimestamp(inside_us / 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def elapsed(seconds: float) -> str:
    """Write a running time."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
