"""Writes a demo's stories of event time as sentences, and draws them for the live page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from gillnet.cli import render
from gillnet.cli.demo_stories import EventTimeStories, LateStory, Matched, SequenceStory
from gillnet.cli.numbers import count, money, seconds
from gillnet.cli.words import ReasonWords
from gillnet.core.time import MILLISECOND, SECOND, Clock, SystemClock
from gillnet.plan.nodes import PipelinePlan

_CLICKS = {"login_failed": "failed login", "view": "page view"}
_SPELT_OUT = 3
"""So many events of one step are given one by one; of more, the first and the last."""

_FRAME_COLUMNS, _FRAME_ROWS = 4, 2
_ALERT_ROWS = 4
_TURN_S = 6

_measure = Console()


def late_text(story: LateStory, words: ReasonWords) -> Text:
    """Return what a late event has changed: the row as it went out, the event, the row as it is now."""
    before, after = _difference(story, words)
    text = Text.assemble("payment ", (story.id, "bold"), f" of {story.event_time:%H:%M:%S}: ")
    text.append_text(render.decision_text(story.decisions[0])).append(f", with {before}; ")
    text.append(f"{_event(story.cause_stream, story.cause)} at ")
    text.append(_time(story.cause["ts"] * MILLISECOND, beside=story.event_time))
    text.append(" came ").append(f"{seconds(story.behind_us // SECOND)} late", "bold yellow")
    text.append(f"; revised to {after}: ")
    old, new = story.decisions
    if story.flipped:
        return text.append_text(render.decision_text(old)).append(" → ").append_text(render.decision_text(new))
    was, now = (f"{score:.2f}" for score in story.scores)
    moved = f"score stays {now}" if was == now else f"score {was} → {now}"
    return text.append(moved, "bold").append(f", still {new.replace('_', ' ')}")


def sequence_text(story: SequenceStory) -> Text:
    """Return a match: whose it is, its events with their times, and the payment that followed."""
    text = Text.assemble("user ", (story.key, "bold"), ": ")
    steps = [list(events) for _, events in groupby(story.events, key=lambda event: event.step)]
    text.append(", ".join(_step(events) for events in steps))
    if story.payment is not None:
        alert = story.payment
        text.append("; then payment ").append(alert.id).append(" of ").append(money(alert.row["amount"]), "bold")
        text.append(f" at {alert.row['ts']:%H:%M:%S}: ").append_text(render.decision_text(alert.decision))
    return text


def counts_text(stories: EventTimeStories) -> str:
    """Return how much there was of both, as a title."""
    return (
        f"late data, while live: {count(stories.revised, 'revision')}, {count(stories.flipped, 'decision')} changed · "
        f"{count(stories.matched, 'sequence')}"
    )


class StoriesPanel:
    """The panel of the live page: a late event with its revision, and a sequence.

    Parameters
    ----------
    stories
        What it shows.
    plan
        The pipeline.
    """

    def __init__(self, stories: EventTimeStories, plan: PipelinePlan, *, clock: Clock | None = None) -> None:
        self._stories = stories
        self._words = ReasonWords(plan)
        self._clock = clock or SystemClock()

    def __call__(self, width: int, rows: int) -> tuple[Panel, int]:
        """Return the panel and its height; where ``rows`` are too few for alerts beside both stories, these take turns."""
        lines = [text.wrap(_measure, max(1, width - _FRAME_COLUMNS)) for text in self._texts()]
        room = max(1, rows - _FRAME_ROWS - _ALERT_ROWS)
        if sum(map(len, lines)) > room:
            lines = [lines[int(self._clock.monotonic_s() // _TURN_S) % len(lines)]]
        shown = [line for part in lines for line in part][:room]
        body = Text("\n", no_wrap=True, overflow="ellipsis").join(shown)
        panel = Panel(body, title=counts_text(self._stories), title_align="left", border_style="yellow")
        return panel, len(shown) + _FRAME_ROWS

    def _texts(self) -> list[Text]:
        late, sequence = self._stories.late(), self._stories.sequence()
        return [
            Text("no late event has changed a row so far", "dim") if late is None else late_text(late, self._words),
            Text("no sequence so far", "dim") if sequence is None else sequence_text(sequence),
        ]


def _difference(story: LateStory, words: ReasonWords) -> tuple[str, str]:
    """Return the first feature that reads another way now, as it was and as it is."""
    for name in story.changed:
        before, after = (words.phrase(name, side) for side in (story.old, story.new))
        if before != after:
            return before, after
    # Values so long that they read the same.
    return "its features", count(len(story.changed), "other value")


def _event(stream: str, record: Mapping[str, Any]) -> str:
    if "amount" in record:
        return f"a {stream.removesuffix('s')} of {money(record['amount'])}"
    kind = str(record["event"])
    name = _CLICKS.get(kind, kind.replace("_", " "))
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _time(event_time_us: int, *, beside: datetime) -> str:
    """Write the time of day, and the date as well where it is another day than ``beside``."""
    instant = datetime.fromtimestamp(event_time_us / SECOND, UTC)
    return f"{instant:%H:%M:%S}" if instant.date() == beside.date() else f"{instant:%Y-%m-%d %H:%M:%S}"


def _step(events: list[Matched]) -> str:
    name = events[0].step.replace("_", " ")
    times = [f"{event.event_time:%H:%M:%S}" for event in events]
    if len(events) > _SPELT_OUT:
        return f"{count(len(events), name)} {times[0]} to {times[-1]}"
    return f"{name} {', '.join(times)}"
