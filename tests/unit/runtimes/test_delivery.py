"""At-least-once: offsets are committed after what they cover is flushed, and no fault in between loses a record."""

from __future__ import annotations

import itertools
import json
import threading
from typing import TYPE_CHECKING

import pytest
from effort import examples
from hypothesis import given
from hypothesis import strategies as st

from gillnet.core.errors import SinkError, SourceError
from gillnet.runtimes.embedded.writer import HAND_OVER_RECORDS
from gillnet.testing.clock import SimulatedClock
from gillnet.testing.scripted import Abort, Aborted, End, Fail, Pause

from .driving import Drive, Journal, JournalSource, Outs, StubbornSink, drive, payment, payments

if TYPE_CHECKING:
    from gillnet.testing.scripted import Step

LARGE = HAND_OVER_RECORDS + 88  # Written by the thread.


def journalled(**faults: object) -> tuple[Outs, StubbornSink]:
    journal = Journal()
    sink = StubbornSink(journal=journal, **faults)  # type: ignore[arg-type]
    return Outs(decisions=sink), sink


def paced(count: int, every: int = 10) -> list[Step]:
    """Batches of ``every`` records, a second apart."""
    script: list[Step] = []
    for start in range(0, count, every):
        script += [*payments(every, start), Pause(1)]
    return script


def assert_commits_only_what_is_flushed(journal: Journal) -> None:
    polled = flushed = written = 0
    for what, records in journal:
        if what == "poll":
            polled += records
        elif what.startswith("write"):
            written += records
        elif what.startswith("flush"):
            flushed = records
        elif what == "commit":
            assert flushed == written == polled == records


def test_commits_follow_the_flush_of_everything_read_before() -> None:
    outs, _ = journalled()
    driven = drive(paced(200), outs=outs, commit_interval_s=3).run()
    assert driven.journal.whats().count("commit") >= 200 / 10 / 4
    assert_commits_only_what_is_flushed(driven.journal)
    assert driven.source.committed_records == 200


def test_the_interval_says_how_often() -> None:
    driven = drive(paced(300), commit_interval_s=10).run()
    assert driven.journal.whats().count("commit") == pytest.approx(30 / 10, abs=1)


def test_nothing_is_flushed_or_committed_while_nothing_comes() -> None:
    outs, sink = journalled()
    drive([payment(0), Pause(3_600), payment(1)], outs=outs).run()
    whats = [what for what in sink.journal.whats() if what in ("poll", "commit", "close source")]
    assert whats == ["poll", "commit", "poll", "commit", "commit", "close source"]


@pytest.mark.parametrize("batch", [50, LARGE])
def test_a_stop_scores_what_was_read_then_flushes_then_commits_then_closes(batch: int) -> None:
    outs, _ = journalled()
    stop, turns = threading.Event(), itertools.count(1)

    def after_turn() -> None:
        if next(turns) == 3:
            stop.set()

    script: list[Step] = []
    for start in range(0, 10 * batch, batch):
        script += [*payments(batch, start), Pause()]
    driven = drive(script, outs=outs, on_turn=after_turn, max_batch_records=batch).run(stop)
    read = driven.counts.read
    assert 0 < read < 10 * batch
    assert driven.outs.ids() == [f"p{n}" for n in range(read)]
    whats = driven.journal.whats()
    last_write = max(place for place, what in enumerate(whats) if what.startswith("write"))
    assert whats[last_write + 1 :][:3] == ["flush decisions", "commit", "close source"]
    assert driven.journal[last_write + 2] == ("commit", read)
    assert "poll" not in whats[last_write:]


# Sinks that fail


@pytest.mark.parametrize("batch", [50, LARGE])
@pytest.mark.parametrize("faults", [{"fail_flush": True}, {"fail_write_at": 3 * LARGE}], ids=["flush", "write"])
def test_a_sink_that_fails_ends_the_run_and_nothing_unwritten_is_committed(faults: dict[str, int], batch: int) -> None:
    outs, sink = journalled(**faults)
    driven = drive(payments(8 * LARGE), outs=outs, max_batch_records=batch, commit_interval_s=0)
    with pytest.raises(SinkError) as caught:
        driven.run()
    assert str(caught.value) == "the disk of decisions is full."
    assert driven.source.committed_records <= sink.flushed_records <= 3 * LARGE
    assert_commits_only_what_is_flushed(driven.journal)
    assert driven.source.closed
    # What was written before the failure is an unbroken beginning: nothing was written past the record that failed.
    assert driven.outs.ids() == [f"p{n}" for n in range(len(sink.records))]


def test_the_writer_s_failure_is_raised_even_if_the_input_has_ended() -> None:
    outs, _ = journalled(fail_write_at=10)
    driven = drive(payments(LARGE), outs=outs, max_batch_records=LARGE)
    with pytest.raises(SinkError, match=r"the disk of decisions is full"):
        driven.run()
    assert "commit" not in driven.journal.whats()
    assert not [thread for thread in threading.enumerate() if thread.name == "gillnet-writer"]


def test_a_side_output_that_fails_holds_the_commit_too() -> None:
    journal = Journal()
    outs = Outs(decisions=StubbornSink(journal=journal))
    outs["payments.malformed"] = StubbornSink(name="payments.malformed", journal=journal, fail_flush=True)
    driven = drive([payment(0), b"{", payment(1)], outs=outs)
    with pytest.raises(SinkError, match=r"disk of payments\.malformed"):
        driven.run()
    assert "commit" not in journal.whats()
    assert {"close source", "close decisions", "close payments.malformed"} <= set(journal.whats())


def test_one_sink_that_cannot_be_closed_does_not_keep_the_others_open() -> None:
    journal = Journal()
    outs = Outs({name: StubbornSink(name=name, journal=journal) for name in ("decisions", "alerts")})
    outs["payments.malformed"] = StubbornSink(name="payments.malformed", journal=journal)
    driven = drive([payment(0, amount="2000"), b"{", Abort()], outs=outs)
    for sink in outs.values():
        assert isinstance(sink, StubbornSink)
        sink.fail_flush = True
    with pytest.raises(Aborted):  # The first error, not the flush that fails after it.
        driven.run()
    closed = {what for what in journal.whats() if what.startswith("close")}
    assert closed == {"close source", "close decisions", "close alerts", "close payments.malformed"}


# Sources that fail


def test_a_source_that_fails_is_the_error_that_surfaces() -> None:
    outs, sink = journalled()
    script = [*payments(20), Fail(SourceError("payments: the topic is gone.")), *payments(5, 20)]
    driven = drive(script, outs=outs)
    with pytest.raises(SourceError, match="the topic is gone"):
        driven.run()
    assert driven.counts.read == driven.counts.scored == len(sink.records) == sink.flushed_records == 20
    assert driven.source.committed_records == 0  # They come again, and were not lost.
    again = drive(driven.source.reopen()).run()
    assert again.outs.ids() == [f"p{n}" for n in range(25)]


# Crashes


def run_until_done(script: list[Step], **options: object) -> tuple[list[Drive], list[str]]:
    """Run, and start again after each crash or end, as a supervisor does; the outputs are one log."""
    source: JournalSource = JournalSource("payments", script, clock=SimulatedClock())
    outs, runs = Outs(), []
    while True:
        driven = drive(source, outs=outs, **options)
        runs.append(driven)
        try:
            driven.run()
        except Aborted:
            pass
        else:
            if source.lag == 0:
                return runs, outs.ids()
        source = source.reopen()  # type: ignore[assignment]


def test_a_crash_between_flush_and_commit_repeats_at_the_sink_and_loses_nothing() -> None:
    script: list[Step] = [*payments(10), Abort(on="commit"), *payments(5, 10)]
    runs, ids = run_until_done(script)
    assert len(runs) == 2
    assert ids[: runs[0].counts.read] == ids[runs[0].counts.read :][: runs[0].counts.read]  # The same again, in order.
    assert sorted(set(ids)) == sorted(f"p{n}" for n in range(15))


def test_a_crash_before_the_first_commit_reads_all_again() -> None:
    runs, ids = run_until_done([*payments(10), Abort(), *payments(5, 10)])
    assert [run.counts.read for run in runs] == [10, 15]
    assert ids == [f"p{n}" for n in (*range(10), *range(15))]


def test_a_run_that_ends_goes_on_behind_its_end() -> None:
    runs, ids = run_until_done([*payments(10), End(), *payments(5, 10)])
    assert [run.counts.read for run in runs] == [10, 5]
    assert ids == [f"p{n}" for n in range(15)]


@examples(100)
@given(
    parts=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    faults=st.lists(st.sampled_from([Abort(), Abort(on="commit"), Pause(3), End()]), min_size=6, max_size=6),
    interval_s=st.sampled_from([0.0, 2.0, 1e9]),
)
def test_whatever_the_crashes_every_record_is_scored_and_each_run_s_rows_are_in_order(
    parts: list[int], faults: list[Step], interval_s: float
) -> None:
    script: list[Step] = []
    start = 0
    for part, fault in zip(parts, faults, strict=False):
        script += [*payments(part, start), fault]
        start += part
    runs, ids = run_until_done(script, commit_interval_s=interval_s)
    assert set(ids) == {f"p{n}" for n in range(start)}
    assert len(ids) == sum(run.counts.scored for run in runs)
    for run in runs:
        assert run.counts.balanced
        assert run.counts.duplicate == 0  # Within a run nothing is read twice.


def test_the_state_is_built_anew_after_a_crash_and_rows_say_what_was_read_since() -> None:
    script: list[Step] = [*(payment(n, card="c") for n in range(4)), Pause(5), Abort(), payment(4, card="c")]
    source = JournalSource("payments", script, clock=SimulatedClock())
    first = drive(source, commit_interval_s=1)
    with pytest.raises(Aborted):
        first.run()
    assert source.committed_records == 4
    second = drive(source.reopen()).run()  # type: ignore[arg-type]
    counts = [json.loads(value)["features"]["payments_5m"] for value in second.outs["decisions"].values]
    assert counts == [1]  # State is in memory and starts empty: what `EmbeddedRuntime` says of itself.
