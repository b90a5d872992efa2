"""Report on scenario 3, by the simulator's labels: ``python -m gillnet.lifecycle.report_takeover``.

Days of payments and clicks go through the embedded runtime in the order in which they arrive: clicks minutes after the payments
of their time, and a share of both late by up to a day. Processing time is the simulation's (`ArrivalClock`), so a payment waits for its
clicks as long as it would live, and a revision comes when it would have come. What is told is how good the decisions were as they
first went out, how good they are after their last revision, and what revisions changed.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa
import structlog

from gillnet.connectors.memory import MemorySink
from gillnet.lifecycle.labels import Labels, read_labels
from gillnet.lifecycle.records import save_runs
from gillnet.lifecycle.report_payments import STATE_DAYS, ids_from, unseen
from gillnet.runtimes.embedded import EmbeddedRuntime, Outputs, RuntimeOptions
from gillnet.runtimes.embedded.revisions import REVISIONS
from gillnet.scenarios.takeover import pipeline
from gillnet.simulator import LABEL_SCHEMA, ArrivalClock, Simulation, interleaved_sources
from gillnet.simulator.schemas import SCENARIOS, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray
    from rich.table import Table

    from gillnet.observability.metrics import RunMetrics

LATE_SHARE = 0.02
CLICK_DELAY = "2m"
"""How much later than payments the clicks come, as of a log that is shipped every few minutes."""

FLAGS = ("block", "review")
TAKEOVER = SCENARIOS[Scenario.ACCOUNT_TAKEOVER]
RESULTS = Path("bench/results/scenario_takeover.json")


class FirstDecision(msgspec.Struct):
    """What the report reads of a row as it first went out."""

    tx_id: str
    decision: str


class Judgement(msgspec.Struct):
    """What the report reads of one side of a revision."""

    decision: str


class Revision(msgspec.Struct):
    """What the report reads of a revision."""

    tx_id: str
    revision: int
    new: Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class Caught:
    """How decisions stand against the labels; shares are from 0 to 1.

    Attributes
    ----------
    flagged
        Payments that are blocked or reviewed.
    precision, recall
        Take-over payments among the flagged, and flagged among the take-over payments.
    block_precision, block_recall
        The same of what is blocked.
    any_fraud
        Fraud of any kind among the flagged.
    """

    flagged: int
    precision: float
    recall: float
    block_precision: float
    block_recall: float
    any_fraud: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeoverReport:
    """The figures of one run.

    Attributes
    ----------
    payments, takeovers
        Scored payments of the measured days, and those of them by which an account was plundered.
    at_first, in_the_end
        Decisions as they first went out, and after their last revision.
    revised, flipped
        Measured payments that were revised, and those whose last decision is another than their first.
    caught_by_revision, lost_by_revision
        Take-over payments that were flagged by a revision only, and that a revision let go.
    cleared_by_revision
        Other payments that were flagged at first and are not in the end.
    late, too_late
        By stream, of the whole run.
    matches, matches_withdrawn
        Of both patterns, of the whole run.
    """

    seed: int
    late_share: float
    click_delay: str
    payments: int
    takeovers: int
    at_first: Caught
    in_the_end: Caught
    revised: int
    flipped: int
    caught_by_revision: int
    lost_by_revision: int
    cleared_by_revision: int
    late: dict[str, int]
    too_late: dict[str, int]
    matches: int
    matches_withdrawn: int

    def table(self) -> Table:
        """Return the report for a terminal."""
        from rich.table import Table

        title = f"Taken-over accounts, clicks {self.click_delay} behind, {self.late_share:.0%} late, seed {self.seed}"
        table = Table("figure", "at first", "after the last revision", title=title)
        table.add_row("payments", f"{self.payments:,}", f"{self.takeovers:,} of take-overs")
        for name in ("flagged", "precision", "recall", "block_precision", "block_recall", "any_fraud"):
            table.add_row(name.replace("_", " "), *(_cell(getattr(side, name)) for side in self._sides))
        for name in ("revised", "flipped", "caught_by_revision", "lost_by_revision", "cleared_by_revision"):
            table.add_row(name.replace("_", " "), "", f"{getattr(self, name):,}")
        for name, counts in (("late", self.late), ("too late", self.too_late)):
            table.add_row(name, "", ", ".join(f"{stream} {count:,}" for stream, count in counts.items()))
        table.add_row("matches, withdrawn", "", f"{self.matches:,}, {self.matches_withdrawn:,}")
        return table

    @property
    def _sides(self) -> tuple[Caught, Caught]:
        return self.at_first, self.in_the_end


def _cell(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What a run wrote of the measured payments, and its figures: decisions by id, as they first went out and in the end."""

    first: Mapping[str, str]
    last: Mapping[str, str]
    revised: int
    metrics: RunMetrics


def report(
    *, seed: int = 99, days: int = 4, late_share: float = LATE_SHARE, click_delay: str = CLICK_DELAY
) -> TakeoverReport:
    """Run the scenario and judge its decisions by the simulator's labels, all of them as known in the end.

    Parameters
    ----------
    seed
        Of the simulation.
    days
        Measured days, after `STATE_DAYS` in which habits are learnt.
    late_share
        Records of both streams that come late, by minutes up to a day.
    click_delay
        How much later than the payments of their time all clicks come.
    """
    simulation = Simulation(replace(unseen(seed, STATE_DAYS + days), late_share=late_share))
    observed = run_in_memory(simulation, state_days=STATE_DAYS, click_delay=click_delay)
    labels = read_labels((chunk.values for chunk in simulation.labels()), LABEL_SCHEMA)
    return judge(observed, labels, seed=seed, late_share=late_share, click_delay=click_delay)


def run_in_memory(simulation: Simulation, *, state_days: int, click_delay: str) -> Observed:
    """Run a simulation in the order of arrival, in its own time; keep the decisions of the days after ``state_days``."""
    sources = interleaved_sources(
        simulation, "payments", "clicks", ahead="1s", simulated_arrival=True, delays={"clicks": click_delay}
    )
    kept = {name: MemorySink() for name in ("decisions", REVISIONS)}
    runtime = EmbeddedRuntime(
        pipeline.plan,
        sources=sources,
        outputs=Outputs(kept.get),
        # Seconds of the simulation: a day of it passes in seconds, so live intervals would come with every batch.
        options=RuntimeOptions(
            detail="decision", revision_interval_s=60, commit_interval_s=3_600, turn_ms=0, overlap=False
        ),
        clock=ArrivalClock(sources),
    )
    metrics = runtime.run()
    measured = ids_from(simulation, state_days)
    decode = msgspec.json.Decoder(FirstDecision).decode
    first = {row.tx_id: row.decision for row in map(decode, kept["decisions"].values) if row.tx_id in measured}
    revisions = [row for row in _revisions(kept[REVISIONS].values) if row.tx_id in first]
    last = first | {row.tx_id: row.new.decision for row in sorted(revisions, key=lambda row: row.revision)}
    return Observed(first=first, last=last, revised=len({row.tx_id for row in revisions}), metrics=metrics)


def _revisions(values: Iterable[bytes]) -> Iterable[Revision]:
    return map(msgspec.json.Decoder(Revision).decode, values)


def judge(observed: Observed, labels: Labels, *, seed: int, late_share: float, click_delay: str) -> TakeoverReport:
    """Hold decisions against labels."""
    ids = list(observed.first)
    kinds = labels.kinds[labels.places(pa.array(ids, pa.string()))]
    taken = kinds == TAKEOVER
    first = np.array([observed.first[tx_id] for tx_id in ids])
    last = np.array([observed.last[tx_id] for tx_id in ids])
    before, after = np.isin(first, FLAGS), np.isin(last, FLAGS)
    streams = observed.metrics.streams
    return TakeoverReport(
        seed=seed,
        late_share=late_share,
        click_delay=click_delay,
        payments=len(ids),
        takeovers=int(taken.sum()),
        at_first=_caught(first, kinds),
        in_the_end=_caught(last, kinds),
        revised=observed.revised,
        flipped=int((first != last).sum()),
        caught_by_revision=int((taken & ~before & after).sum()),
        lost_by_revision=int((taken & before & ~after).sum()),
        cleared_by_revision=int((~taken & before & ~after).sum()),
        late={name: counts.late for name, counts in sorted(streams.items())},
        too_late={name: counts.too_late for name, counts in sorted(streams.items())},
        matches=observed.metrics.matches,
        matches_withdrawn=observed.metrics.matches_withdrawn,
    )


def _caught(decisions: NDArray[np.str_], kinds: NDArray[np.object_]) -> Caught:
    taken, flagged, blocked = kinds == TAKEOVER, np.isin(decisions, FLAGS), decisions == "block"
    return Caught(
        flagged=int(flagged.sum()),
        precision=_share(taken, flagged),
        recall=_share(flagged, taken),
        block_precision=_share(taken, blocked),
        block_recall=_share(blocked, taken),
        any_fraud=_share(kinds != SCENARIOS[Scenario.LEGITIMATE], flagged),
    )


def _share(of: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    return round(float(of[among].mean()), 4) if among.any() else 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print the table, and write the figures with the machine's description."""
    from rich.console import Console

    parser = argparse.ArgumentParser(prog="python -m gillnet.lifecycle.report_takeover", description=__doc__)
    parser.add_argument("--seed", type=int, default=99)
    parser.add_argument("--days", type=int, default=4, help="measured days")
    parser.add_argument("--late-share", type=float, default=LATE_SHARE, help="records that come late")
    parser.add_argument("--click-delay", default=CLICK_DELAY, help="how much later than payments clicks come")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("info"))
    found = report(seed=options.seed, days=options.days, late_share=options.late_share, click_delay=options.click_delay)
    Console().print(found.table())
    save_runs(options.out, [asdict(found)])


if __name__ == "__main__":
    main()
