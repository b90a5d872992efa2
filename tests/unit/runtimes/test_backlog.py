"""I7: what waits at a source and at a sink, and what they could not keep, are figures of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gillnet.cli.monitor import RowTap
from gillnet.connectors.memory import MemorySink
from gillnet.core.errors import StateError
from gillnet.observability.metrics import CATALOGUE, RunMetrics
from gillnet.testing.clock import SimulatedClock
from gillnet.testing.scripted import Abort, Aborted, Pause

from .driving import JournalSource, Outs, drive, payment, payments

if TYPE_CHECKING:
    from collections.abc import Mapping


class LaggingSource(JournalSource):
    """Knows how many records wait for it, and that some are gone for ever."""

    lag_records: int | None = 7

    @property
    def lag(self) -> int | None:
        return self.lag_records

    def figures(self) -> Mapping[str, int]:
        return {"expired_records": 3}


class QueueingSink(MemorySink):
    """Says how many of its records wait for their acknowledgement."""

    def figures(self) -> Mapping[str, int]:
        return {"queued_records": len(self.records), "cut_records": 1}


def figures(source: LaggingSource, outs: Outs, **options: object) -> dict[str, float | int]:
    driven = drive(source, outs=outs, **options)
    with pytest.raises(Aborted):
        driven.run()
    return driven.runtime.metrics.snapshot()


def lagging(lag_records: int | None = 7) -> LaggingSource:
    source = LaggingSource("payments", [*payments(5), Pause(1), Abort()], clock=SimulatedClock())
    source.lag_records = lag_records
    return source


def test_what_sources_and_sinks_tell_is_sampled_under_names_of_the_catalogue() -> None:
    told = figures(lagging(), Outs(decisions=QueueingSink()))
    assert told["source_lag_records{stream=payments}"] == 7
    assert told["source_expired_records{stream=payments}"] == 3
    assert told["sink_queued_records{output=decisions}"] == 5
    assert told["sink_cut_records{output=decisions}"] == 1
    names = {name.partition("{")[0] for name in told if name.startswith(("source_", "sink_"))}
    assert names <= set(CATALOGUE)


def test_who_cannot_tell_has_no_figure() -> None:
    told = figures(lagging(None), Outs(decisions=MemorySink()))
    assert "source_lag_records{stream=payments}" not in told
    assert not [name for name in told if name.startswith("sink_")]


def test_a_sink_behind_a_display_tells_all_the_same() -> None:
    sink = QueueingSink()
    sink.write([payment(1)])
    assert RowTap(sink).figures() == {"queued_records": 1, "cut_records": 1}
    assert RowTap(MemorySink()).figures() == RowTap(None).figures() == {}


@pytest.mark.parametrize("change", [{"batches": "7"}, {"decisions": {"allow": 1.5}}, {"streams": 7}, {"alerts": None}])
def test_counts_of_a_checkpoint_that_are_none_are_refused(change: dict[str, object]) -> None:
    counts = RunMetrics().counts()
    RunMetrics().restore(counts)
    with pytest.raises(StateError, match="of another form"):
        RunMetrics().restore(counts | change)
    with pytest.raises(StateError, match="of another form"):
        RunMetrics().restore({name: value for name, value in counts.items() if name not in change})
