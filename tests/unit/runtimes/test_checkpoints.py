"""A run goes on from its checkpoint as if it had never ended (I5): state, offsets, counts, alerts and history."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import structlog
from effort import examples
from hypothesis import given
from hypothesis import strategies as st

import gillnet as gn
from gillnet.connectors.files import FileSource
from gillnet.connectors.memory import MemorySink, MemorySource
from gillnet.core.errors import ConfigurationError, FencedError, SourceError, StateError
from gillnet.operators.features import FeatureOperator
from gillnet.runtimes.embedded import Checkpoints
from gillnet.simulator import Simulation, SimulationConfig, SimulatorSource, interleaved_sources
from gillnet.state import CheckpointStore, FileJournal
from gillnet.stores.history import History, HistoryWriter, micro_batches
from gillnet.testing.clock import SimulatedClock
from gillnet.testing.faults import Faults, SimulatedLog, SimulatedTransactions
from gillnet.testing.scripted import Abort, Aborted, End, Pause, Record

from .driving import JournalSource, Outs, drive, payment, payments_stream, pipeline


def checkpoints(
    place: Any, clock: SimulatedClock, *, interval_s: float = 0.0, in_background: bool = False
) -> Checkpoints:
    return Checkpoints(CheckpointStore(place), interval_s=interval_s, in_background=in_background, clock=clock)


def run_through(
    script: list[Any], place: Any, outs: Outs, *, clock: SimulatedClock | None = None, **options: Any
) -> Any:
    """Run a script to its end, anew from the last checkpoint whenever it aborts."""
    clock = clock or SimulatedClock()
    source = JournalSource("payments", script, clock=clock, partitions=options.pop("partitions", None))
    interval_s, in_background = options.pop("interval_s", 0.0), options.pop("in_background", False)
    while True:
        kept = checkpoints(place, clock, interval_s=interval_s, in_background=in_background)
        driven = drive(source, outs=outs, checkpoints=kept, **options)
        try:
            driven.run()
        except Aborted:
            source = source.reopen()
        else:
            if driven.source._position >= len(script):
                return driven
            source = source.reopen()


def last_of_each(outs: Outs) -> dict[str, Any]:
    return {row["id"]: row for row in outs.rows()}


SCRIPT = [payment(number, at_s=number * 7 % 50) for number in range(40)]


@pytest.mark.parametrize("on", ["poll", "commit"])
@pytest.mark.parametrize("in_background", [True, False])
def test_i5_rows_after_a_crash_are_those_of_a_run_that_never_crashed(tmp_path, on, in_background):
    script = [*SCRIPT[:25], Pause(1.0), *SCRIPT[25:30], Pause(1.0), Abort(on), *SCRIPT[30:]]
    outs, plain = Outs(), Outs()
    run_through(script, tmp_path, outs, in_background=in_background)
    drive(SCRIPT, outs=plain).run()
    whole = {row["id"]: row["features"] for row in plain.rows()}
    assert {name: row["features"] for name, row in last_of_each(outs).items()} == whole
    # What the checkpoint has was not read again; a child that writes may not be done when the run dies.
    assert len(outs.rows()) <= (40 + 30 if in_background else 40 + 15)


def test_i3_counts_go_on_and_add_up(tmp_path):
    script = [*SCRIPT[:10], b"{", payment(3), Pause(1.0), *SCRIPT[10:20], Pause(1.0), Abort(), b"[]", *SCRIPT[20:]]
    driven = run_through(script, tmp_path, Outs())
    counts = driven.counts
    assert (counts.read, counts.scored, counts.malformed, counts.duplicate) == (43, 40, 2, 1)
    assert counts.balanced
    assert counts.reasons == {"not_json": 1, "not_an_object": 1, "duplicate": 1}
    figures = driven.runtime.metrics.snapshot()
    assert figures["decisions{action=allow}"] == 40
    assert figures["checkpoint_bytes"] > 0
    assert figures["checkpoints_failed"] == 0


def test_a_run_that_ends_leaves_its_state_to_the_next_one(tmp_path):
    outs = Outs()
    clock = SimulatedClock()
    script = [*SCRIPT[:20], End(), *SCRIPT[20:]]
    source = JournalSource("payments", script, clock=clock)
    first = drive(source, outs=outs, checkpoints=checkpoints(tmp_path, clock, interval_s=1e9))
    # As one that was told to stop: the stream is not at its end, so it is not finished.
    first.runtime.features.finish = lambda stream: None
    first.run()
    assert len(outs.rows()) == 20
    drive(source.reopen(), outs=outs, checkpoints=checkpoints(tmp_path, clock)).run()
    assert outs.ids() == [f"p{number}" for number in range(40)]
    plain = Outs()
    drive(SCRIPT, outs=plain).run()
    assert [row["features"] for row in outs.rows()] == [row["features"] for row in plain.rows()]


def test_an_input_that_had_ended_is_told_and_what_comes_then_is_too_late(tmp_path):
    clock = SimulatedClock()
    source = JournalSource("payments", [*SCRIPT[:20], End(), *SCRIPT[20:]], clock=clock)
    drive(source, checkpoints=checkpoints(tmp_path, clock)).run()
    with structlog.testing.capture_logs() as logs:
        again = drive(source.reopen(), checkpoints=checkpoints(tmp_path, clock)).run()
    assert [entry["streams"] for entry in logs if "had ended" in entry["event"]] == [["payments"]]
    assert again.counts.too_late == 20
    assert again.counts.balanced


def test_the_alert_of_a_session_is_not_given_twice(tmp_path):
    stream = payments_stream()
    sessions = gn.Sessions(stream.by("card"), gap="10m", n=gn.count())
    plan = gn.Pipeline(sessions, policy=[gn.block(gn.col("n") > 2, reason="busy")])
    # The first alert is before the checkpoint, the crash behind it.
    of_one_card = [payment(number * 7, at_s=number) for number in range(9)]
    script = [*of_one_card[:5], Pause(1.0), Pause(1.0), Abort(), *of_one_card[5:]]
    outs = Outs()
    run_through(script, tmp_path, outs, plan=plan)
    assert outs.ids("alerts") == ["p14"]


def test_the_history_has_every_event_once_and_as_one_run(tmp_path):
    clock, outs = SimulatedClock(), Outs()
    script = [*SCRIPT[:25], Pause(3.0), *SCRIPT[25:32], Pause(3.0), Abort(), *SCRIPT[32:]]
    source = JournalSource("payments", script, clock=clock)
    place, directory = tmp_path / "place", tmp_path / "history"
    for attempt in range(2):
        # A checkpoint is taken after the first part only, and commits close files behind it.
        kept = checkpoints(place, clock, interval_s=0.0 if attempt else 2.0)
        history = HistoryWriter(directory, run=kept.started_us)
        if kept.restored is not None:
            history.cut(kept.restored.counts["batches"])
        driven = drive(source, outs=outs, checkpoints=kept, history=history, commit_interval_s=0.0)
        try:
            driven.run()
        except Aborted:
            source = source.reopen()
    (run,) = History(directory).runs()
    ids = [name for _, events in micro_batches(run) for name in events.column("id").to_pylist()]
    assert ids == [f"p{number}" for number in range(40)]


def test_a_history_is_cut_inside_a_file_and_whole_files_go(tmp_path):
    import pyarrow as pa

    def events(*names: str) -> pa.RecordBatch:
        return pa.record_batch({"id": list(names)})

    def places(number: int) -> dict[str, Any]:
        return {"__arrival_time": 5, "__partition": 0, "__offset": None, "__batch": number}

    history = HistoryWriter(tmp_path, run=7)
    history.append("s", events("a"), places(0))
    history.append("s", events("b"), places(1))
    history.commit()
    history.append("s", events("c"), places(2))
    history.end("s", 3)
    history.commit()
    again = HistoryWriter(tmp_path, run=7)
    again.cut(1)
    (run,) = History(tmp_path).runs()
    assert [e.column("id").to_pylist() for _, e in micro_batches(run)] == [["a"]]
    assert run.ended == {}
    HistoryWriter(tmp_path, run=8).cut(0)  # Another run's files are none of its business.
    assert History(tmp_path).runs() == [run]


def test_a_history_that_first_says_how_far_a_stream_is_and_then_has_events_is_one(tmp_path):
    import pyarrow as pa

    def places(number: int) -> dict[str, Any]:
        return {"__arrival_time": 5, "__partition": 0, "__offset": None, "__batch": number}

    first = HistoryWriter(tmp_path, run=7)
    first.append("s", pa.record_batch({"id": ["a"]}), places(0))
    first.close()
    again = HistoryWriter(tmp_path, run=7)
    again.cut(1)
    again.passed("s", 3)
    again.commit()
    again.append("s", pa.record_batch({"id": ["b"]}), places(1))
    again.close()
    (run,) = History(tmp_path).runs()
    assert [e.column("id").to_pylist() for _, e in micro_batches(run)] == [["a"], ["b"]]
    assert run.watermarks == {"s": 3}


def on_a_full_disk(monkeypatch):
    """Let snapshots go where there is no room for a byte."""
    write = FeatureOperator.write_snapshot
    monkeypatch.setattr(FeatureOperator, "write_snapshot", lambda operator, _path: write(operator, Path("/dev/full")))


def test_a_failed_checkpoint_is_told_and_the_run_goes_on(tmp_path, monkeypatch):
    clock = SimulatedClock()
    kept = checkpoints(tmp_path, clock)
    on_a_full_disk(monkeypatch)
    with structlog.testing.capture_logs() as logs:
        driven = drive([*SCRIPT, Pause(1.0)], clock=clock, checkpoints=kept).run()
    assert driven.outs.ids() == [f"p{number}" for number in range(40)]
    assert driven.runtime.metrics.checkpoints_failed > 0
    (told, *_) = [entry for entry in logs if entry["event"] == "checkpoint failed, the one before it holds"]
    assert "No space left on device" in told["reason"]


def test_a_run_that_was_taken_over_stops(tmp_path):
    clock = SimulatedClock()
    kept = checkpoints(tmp_path, clock)
    CheckpointStore(tmp_path).own()
    with pytest.raises(FencedError, match="another run has taken over"):
        drive([*SCRIPT, Pause(1.0), payment(40)], clock=clock, checkpoints=kept).run()
    assert CheckpointStore(tmp_path).latest() is None


def test_another_pipeline_s_checkpoints_are_refused(tmp_path):
    clock = SimulatedClock()
    drive(SCRIPT, clock=clock, checkpoints=checkpoints(tmp_path, clock)).run()
    with pytest.raises(StateError, match=r"they are of the pipeline .*; name a place of its own for each pipeline"):
        drive(SCRIPT, clock=clock, plan=pipeline(name="other"), checkpoints=checkpoints(tmp_path, clock))


def test_a_source_that_cannot_be_read_again_is_refused(tmp_path):
    clock = SimulatedClock()

    class Live:
        stream = "payments"

    with pytest.raises(ConfigurationError, match="cannot be read again from a place in it"):
        checkpoints(tmp_path, clock).restore(pipeline().plan, {"payments": Live()}, None)


def test_a_partition_that_was_silent_while_the_run_was_away_makes_nothing_late(tmp_path):
    """What the first partition has to catch up with must not pass the second one's first record."""
    stream = payments_stream(watermark_delay="0s", idle_after="30s")
    first = [Record(payment(number, at_s=number), partition=number % 2) for number in range(10)]
    later = [Record(payment(n, at_s=n * 10), partition=0) for n in range(10, 30)]
    later += [Record(payment(n, at_s=n - 10), partition=1) for n in range(30, 40)]
    clock, outs = SimulatedClock(), Outs()
    source = JournalSource("payments", [*first, Pause(1.0), Abort(), *later], clock=clock, partitions=frozenset({0, 1}))
    with pytest.raises(Aborted):
        drive(source, plan=pipeline(stream), outs=outs, checkpoints=checkpoints(tmp_path, clock)).run()
    clock.sleep(600.0)
    driven = drive(source.reopen(), plan=pipeline(stream), outs=outs, checkpoints=checkpoints(tmp_path, clock)).run()
    assert driven.counts.late == 0


# Places in sources

PLACES = {
    "memory": lambda path: MemorySource("payments", SCRIPT),
    "ndjson": lambda path: FileSource("payments", path),
    "packed": lambda path: FileSource("payments", f"{path}.gz"),
    "simulator": lambda path: SimulatorSource(Simulation(SimulationConfig(duration="1h")), "payments"),
    "interleaved": lambda path: interleaved_sources(Simulation(SimulationConfig(duration="1h")), "payments")[
        "payments"
    ],
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("given_before", [0, 1, 17])
def test_a_source_begins_behind_the_records_of_a_mark(tmp_path, name, given_before):
    import gzip

    path = tmp_path / "payments.ndjson"
    path.write_bytes(b"\n".join(SCRIPT) + b"\n")
    (tmp_path / "payments.ndjson.gz").write_bytes(gzip.compress(path.read_bytes()))
    first, again = PLACES[name](path), PLACES[name](path)
    for _ in range(given_before):
        first.poll(1, 0.0)
    assert first.mark() == {0: given_before}
    again.start_at(first.mark())
    assert again.mark() == first.mark()
    assert again.poll(5, 0.0).values == first.poll(5, 0.0).values
    first.close()
    again.close()


@pytest.mark.parametrize("name", PLACES)
def test_a_source_gives_the_very_batches_again(tmp_path, name):
    import gzip

    path = tmp_path / "payments.ndjson"
    path.write_bytes(b"\n".join(SCRIPT) + b"\n")
    (tmp_path / "payments.ndjson.gz").write_bytes(gzip.compress(path.read_bytes()))
    first, again = PLACES[name](path), PLACES[name](path)
    first.poll(3, 0.0)
    mark = first.mark()
    batches = [batch for size in (1, 7, 5, 2) if (batch := first.poll(size, 0.0)) is not None]
    again.start_at(mark)
    replayed = [again.replay(batch.stretch(), 17) for batch in batches]
    assert [batch.values for batch in replayed] == [batch.values for batch in batches]
    assert [batch.stretch() for batch in replayed] == [batch.stretch() for batch in batches]
    assert [batch.envelope(0) for batch in replayed] == [batch.envelope(0) for batch in batches]
    assert {batch.arrival_time_us for batch in replayed} == {17}
    assert again.mark() == first.mark()
    assert again.poll(5, 0.0).values == first.poll(5, 0.0).values
    first.close()
    again.close()


def test_a_file_that_is_another_one_cannot_give_a_batch_again(tmp_path):
    path = tmp_path / "payments.ndjson"
    path.write_bytes(b"\n".join(SCRIPT[:5]) + b"\n")
    source = FileSource("payments", path)
    with pytest.raises(SourceError, match="7 records of it were read before, and it has 5"):
        source.replay([(0, 0, 7)], 17)
    source.close()
    with pytest.raises(SourceError, match="has not the records 3 to 9"):
        MemorySource("payments", SCRIPT[:5]).replay([(0, 3, 9)], 17)


# The journal


def journalled(place: Any, clock: SimulatedClock, **options: Any) -> Checkpoints:
    journal = FileJournal(place / "journal")
    return Checkpoints(CheckpointStore(place), in_background=False, journal=journal, clock=clock, **options)


def test_i5_steps_behind_the_checkpoint_are_taken_again_and_say_the_same(tmp_path):
    """Micro-batches, arrival and looks at rows that changed are those of the lost run, though the sources would give others now."""
    late = [payment(number + 100, at_s=number * 3, card="c1") for number in range(10)]
    script = [
        *SCRIPT[:11],
        Pause(1.0),
        *late[:3],
        Pause(0.5),
        *SCRIPT[11:20],
        Pause(0.7),
        Abort(),
        *SCRIPT[20:],
        *late[3:],
    ]
    clock, outs = SimulatedClock(), Outs()
    source = JournalSource("payments", script, clock=clock)
    with pytest.raises(Aborted):
        drive(source, outs=outs, checkpoints=journalled(tmp_path, clock, interval_s=1e9)).run()
    rows, revisions = len(outs.rows()), len(outs.rows("decisions.revisions"))
    assert rows == 23
    assert revisions > 0
    clock.sleep(500.0)
    # Everything is there at once now.
    again = source.reopen()
    with structlog.testing.capture_logs() as logs:
        drive(again, outs=outs, checkpoints=journalled(tmp_path, clock)).run()
    assert [entry["steps"] > 3 for entry in logs if entry["event"] == "stands where the last run stood"] == [True]
    assert outs.rows()[rows : rows + rows] == outs.rows()[:rows]
    assert (
        outs.rows("decisions.revisions")[revisions : revisions + revisions]
        == outs.rows("decisions.revisions")[:revisions]
    )


def test_a_journal_with_a_gap_is_followed_up_to_it_and_told(tmp_path):
    clock, outs = SimulatedClock(), Outs()
    source = JournalSource("payments", [*SCRIPT[:20], Pause(1.0), *SCRIPT[20:30], Abort(), *SCRIPT[30:]], clock=clock)
    with pytest.raises(Aborted):
        drive(source, outs=outs, checkpoints=journalled(tmp_path, clock, interval_s=1e9)).run()
    file = max((tmp_path / "journal").glob("*.log"))
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) > 2
    file.write_bytes(b"".join([lines[0], *lines[2:]]))
    with structlog.testing.capture_logs() as logs:
        driven = drive(source.reopen(), outs=outs, checkpoints=journalled(tmp_path, clock)).run()
    assert "journal has a gap, what lies behind it is read again" in [entry["event"] for entry in logs]
    assert driven.counts.read == driven.counts.scored == 40


def test_a_run_whose_first_checkpoint_cannot_be_written_does_not_begin(tmp_path, monkeypatch):
    clock = SimulatedClock()
    on_a_full_disk(monkeypatch)
    driven = drive(SCRIPT, clock=clock, checkpoints=journalled(tmp_path, clock))
    with pytest.raises(
        StateError, match="the first checkpoint was not written, so the run could not go on after a crash"
    ):
        driven.run()
    assert driven.counts.read == 0


def test_exactly_once_is_refused_without_checkpoints_of_its_journal(tmp_path):
    clock = SimulatedClock()
    transactions = SimulatedTransactions(SimulatedLog({}), Faults(random.Random(0), crashes=0))
    for kept in (None, checkpoints(tmp_path / "a", clock), journalled(tmp_path / "b", clock)):
        with pytest.raises(
            ConfigurationError, match="exactly-once needs checkpoints whose journal is that of the transactions"
        ):
            drive(SCRIPT, clock=clock, checkpoints=kept, transactions=transactions)


def test_a_run_tells_of_its_transactions(tmp_path):
    clock = SimulatedClock()
    transactions = SimulatedTransactions(SimulatedLog({}), Faults(random.Random(0), crashes=0))
    kept = Checkpoints(CheckpointStore(tmp_path), in_background=False, journal=transactions.journal, clock=clock)
    driven = drive(SCRIPT, clock=clock, checkpoints=kept, transactions=transactions, open_sink=transactions.sink)
    driven.run()
    told = {name: value for name, value in driven.runtime.metrics.snapshot().items() if name.startswith("transaction")}
    assert set(told) == {"transactions", *(f"transaction_commit_ms_{label}" for label in ("p50", "p95", "p99"))}
    assert told["transactions"] > 0


def test_a_file_with_fewer_records_than_were_read_is_another_one(tmp_path):
    path = tmp_path / "payments.ndjson"
    path.write_bytes(b"\n".join(SCRIPT[:5]) + b"\n")
    source = FileSource("payments", path)
    with pytest.raises(SourceError, match="it has 5 records, and 7 of them are in the checkpoint"):
        source.start_at({0: 7})
    source.close()


def test_a_pipe_cannot_be_read_again(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    source = FileSource("payments", path, format="ndjson")
    with pytest.raises(SourceError, match="cannot be read again from its beginning"):
        source.start_at({0: 1})
    source.close()
    os.close(writer)


# Any crashes

STEPS = st.lists(
    st.one_of(st.integers(0, 300), st.sampled_from(["pause", "abort", "abort in commit"])), min_size=1, max_size=40
)


@examples(60)
@given(steps=STEPS, interval_s=st.sampled_from([0.0, 0.5, 2.5]), seed=st.integers(0, 2**16))
def test_i2_i5_whatever_crashes_the_last_word_of_each_row_is_the_complete_answer(
    tmp_path_factory, steps, interval_s, seed
):
    place = tmp_path_factory.mktemp("place")
    dice = random.Random(seed)
    words = {"pause": Pause(1.0), "abort": Abort("poll"), "abort in commit": Abort("commit")}
    script = [
        words[step] if isinstance(step, str) else Record(payment(number, at_s=step), partition=dice.randrange(2))
        for number, step in enumerate(steps)
    ]
    records = [step for step in script if isinstance(step, Record)]
    stream = payments_stream(watermark_delay="5s", allowed_lateness="10m")
    outs = Words()
    run_through(
        script, place, outs, plan=pipeline(stream), interval_s=interval_s, emit="all", partitions=frozenset({0, 1})
    )
    plain = Words()
    in_order = sorted(records, key=lambda record: (json.loads(record.value)["ts"], json.loads(record.value)["id"]))
    drive(in_order, outs=plain, plan=pipeline(stream), emit="all").run()
    assert outs.last == plain.last


class Words(Outs):
    """Remembers what was said last of each row, whether in a row or in a revision."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[str, Any] = {}

    def open(self, name: str) -> Any:
        if name not in self:
            self[name] = sink = MemorySink()
            write = sink.write

            def note(values: Any, keys: Any = None) -> None:
                write(values, keys)
                if name.startswith("decisions"):
                    rows = [json.loads(value) for value in values]
                    self.last |= {
                        row["id"]: row["new"]["features"] if "new" in row else row["features"] for row in rows
                    }

            sink.write = note  # type: ignore[method-assign]
        return self[name]
