"""A demo's stage as lines of text, for pipes, logs and terminals that show no page."""

from __future__ import annotations

from gillnet.cli.demo_report import alert_text
from gillnet.cli.demo_run import StageRun
from gillnet.cli.demo_stories import LateStory, SequenceStory
from gillnet.cli.demo_story_text import late_text, sequence_text
from gillnet.cli.words import ReasonWords, clock_time, elapsed, milliseconds
from gillnet.core.time import Clock, SystemClock

PROGRESS_EVERY_S = 5.0
ALERT_EVERY_S = 2.5
"""Of many alerts one is shown so often; the others are counted."""
STORY_EVERY_S = 4.0
"""So often it is asked for a better story of late data, and of a sequence."""


class DemoLines:
    """Prints what a stage does: its title, figures every few seconds, now and then an alert.

    Parameters
    ----------
    run
        A prepared stage.
    number, scenarios
        Which one of how many.
    """

    def __init__(self, run: StageRun, *, number: int, scenarios: int, clock: Clock | None = None) -> None:
        self._run = run
        self._clock = clock or SystemClock()
        self._words = ReasonWords(run.stage.plan)
        self._progress_s = self._alert_s = self._clock.monotonic_s()
        self._was_live = False
        self._told_s = self._progress_s
        self._late: LateStory | None = None
        self._sequence: SequenceStory | None = None
        print(f"\nscenario {number} of {scenarios}: {run.stage.title}", flush=True)

    def write_due(self) -> None:
        """Print what is due; called several times a second, from one thread at a time."""
        now_s = self._clock.monotonic_s()
        if self._run.feed.live and not self._was_live:
            self._was_live = True
            self._say(f"windows filled with {self._run.warm_records:,} records in {self._run.warm_s:.1f} s; now live")
            self._progress_s = now_s
        if now_s - self._progress_s >= PROGRESS_EVERY_S:
            self._progress_s = now_s
            self._say(self._figures() if self._was_live else self._run.state)
        alerts = self._run.monitor.drain_alerts()
        if alerts and now_s - self._alert_s >= ALERT_EVERY_S:
            self._alert_s = now_s
            self._say(alert_text(alerts[-1], self._words).plain)
        if now_s - self._told_s >= STORY_EVERY_S:
            self._told_s = now_s
            self._tell()

    def _tell(self) -> None:
        """Print the stories that are new."""
        stories = self._run.stories
        if stories is None:
            return
        late, sequence = stories.late(), stories.sequence()
        if late is not None and late != self._late:
            self._late = late
            self._say(f"late data: {late_text(late, self._words).plain}")
        if sequence is not None and sequence != self._sequence:
            self._sequence = sequence
            self._say(f"sequence: {sequence_text(sequence).plain}")

    def _figures(self) -> str:
        view = self._run.monitor.view()
        p50, p95, p99 = (milliseconds(value) for value in view.latency_ms)
        lag = "" if view.lag is None else f", lag {view.lag:,}"
        return (
            f"{view.rate:,.0f} records/s{lag}, latency p50 {p50}, p95 {p95}, p99 {p99}, "
            f"watermark {clock_time(view.watermark_us)}, {view.alerts:,} alerts"
        )

    def _say(self, text: str) -> None:
        print(f"{elapsed(self._run.monitor.view().elapsed_s):>6}  {text}", flush=True)
