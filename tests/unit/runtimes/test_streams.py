"""Several streams, idle partitions, and what a run tells while it goes; all on a simulated clock."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import gillnet as gn
from gillnet.core.errors import ConfigurationError
from gillnet.testing.scripted import Abort, Aborted, Pause, Record, ScriptedSource

from .driving import START_MS, JournalSource, SimulatedClock, drive, payment, payments, payments_stream, pipeline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gillnet.runtimes.embedded import Alert
    from gillnet.testing.scripted import Step

CLICK = gn.Schema(click=gn.String(), ts=gn.Timestamp("ms"), card=gn.String())


def click(number: int, *, at_s: float, card: str = "c") -> bytes:
    return json.dumps({"click": f"k{number}", "ts": START_MS + round(at_s * 1_000), "card": card}).encode()


def with_clicks() -> gn.Pipeline:
    stream = payments_stream()
    clicks = gn.Stream("clicks", schema=CLICK, id="click", event_time="ts", allowed_lateness="1m", watermark_delay="1s")
    looked_up = clicks.by("card").count(over="10m").at("card")
    return gn.Pipeline(gn.Features(stream, clicks_10m=looked_up, payments_5m=stream.by("card").count(over="5m")))


# Several streams


def drive_both(script: Sequence[Step], clicks: Sequence[Step], **options: object):
    clock = SimulatedClock()
    other = JournalSource("clicks", clicks, clock=clock)
    driven = drive(script, plan=with_clicks(), clock=clock, others={"clicks": other}, **options)
    other.journal = driven.journal
    return driven, other


def test_what_came_with_a_payment_is_seen_by_it() -> None:
    driven, _ = drive_both([payment(9, card="c")], [click(n, at_s=n) for n in range(5)])
    [row] = driven.run().outs.rows()
    assert row["features"] == {"clicks_10m": 5, "payments_5m": 1}


def test_every_stream_has_its_accounts_and_side_outputs() -> None:
    clicks: list[Step] = [click(0, at_s=0), click(0, at_s=0), b"{", click(1, at_s=100), click(2, at_s=10)]
    driven, other = drive_both([payment(1), b"[]", payment(1)], clicks)
    driven.run()
    metrics = driven.runtime.metrics
    assert (driven.counts.scored, driven.counts.malformed, driven.counts.duplicate) == (1, 1, 1)
    counts = metrics.stream("clicks")
    assert (counts.read, counts.scored, counts.duplicate, counts.malformed, counts.too_late) == (5, 2, 1, 1, 1)
    assert counts.balanced
    assert driven.outs["clicks.malformed"].values == [b"{"]
    assert driven.outs["clicks.too_late"].values == [clicks[4]]
    assert driven.outs["payments.malformed"].values == [b"[]"]
    assert other.committed_records == 5


def test_a_run_goes_on_while_one_of_its_streams_has_ended() -> None:
    driven, _ = drive_both([payment(0), Pause(60), payment(1), Pause(60), payment(2)], [click(0, at_s=0)])
    assert driven.run().outs.ids() == ["p0", "p1", "p2"]
    driven, other = drive_both([payment(0)], [Pause(60), click(0, at_s=0), Pause(60), click(1, at_s=1)])
    driven.run()
    assert other.polled_records == 2


def test_a_silent_stream_does_not_hold_the_other_up() -> None:
    driven, other = drive_both([*payments(20), Pause(5), payment(30)], [Pause(3_600), click(0, at_s=0)])
    arrived_us = {row["id"]: row["arrival_time"] for row in driven.run().outs.rows()}
    assert len(arrived_us) == 21
    assert max(arrived_us.values()) < min(arrived_us.values()).replace("00:00:00", "00:00:06")
    assert other.polled_records == 1


def test_a_crash_in_one_stream_commits_none() -> None:
    driven, other = drive_both([*payments(5), Abort()], [click(n, at_s=n) for n in range(5)])
    with pytest.raises(Aborted):
        driven.run()
    assert (driven.source.committed_records, other.committed_records) == (0, 0)
    assert driven.source.closed
    assert other.closed


def test_streams_and_sources_must_match() -> None:
    with pytest.raises(ConfigurationError, match=r"stream 'clicks' has no source; give one, such as --source clicks="):
        drive([], plan=with_clicks())
    clock = SimulatedClock()
    with pytest.raises(ConfigurationError, match=r"there is a source for 'clicks', and its streams are payments"):
        drive([], clock=clock, others={"clicks": ScriptedSource("clicks", [], clock=clock)})


# Partitions and time


def sessions() -> gn.Pipeline:
    stream = payments_stream(watermark_delay="0s", idle_after="30s")
    return gn.Pipeline(gn.Sessions(stream.by("card"), gap="5s", n=gn.count()))


def watermark_after(script: list[Step], partitions: set[int]) -> float | None:
    """The watermark when the script is through, in seconds after the start."""
    driven = drive(
        [*script, Abort()], plan=pipeline(payments_stream(idle_after="30s")), partitions=frozenset(partitions)
    )
    with pytest.raises(Aborted):
        driven.run()
    mark = driven.runtime.features.watermark_us("payments")
    return None if mark is None else mark / 1e6 - START_MS / 1e3


def at(number: int, at_s: float, partition: int) -> Record:
    return Record(payment(number, at_s=at_s), partition=partition)


@pytest.mark.parametrize(
    ("script", "mark_s"),
    [
        ([at(1, 100, 0)], None),
        ([at(1, 100, 0), at(2, 50, 1)], 45),
        ([at(1, 100, 0), Pause(29)], None),
        ([at(1, 100, 0), Pause(31)], None),  # All are idle: there is nothing to run ahead of.
        ([at(1, 100, 0), Pause(20), at(2, 110, 0), Pause(11)], 105),
        ([at(1, 100, 0), at(2, 50, 1), Pause(20), at(3, 120, 0), Pause(11)], 115),
        ([at(1, 100, 0), at(2, 50, 1), Pause(20), at(3, 120, 0), Pause(11), at(4, 60, 1)], 115),
        ([at(1, 100, 0), at(2, 50, 1), Pause(20), at(3, 52, 1), Pause(11), at(4, 53, 1)], 48),
    ],
)
def test_the_slowest_partition_holds_the_watermark_until_it_is_idle(script: list[Step], mark_s: float | None) -> None:
    assert watermark_after(script, {0, 1}) == mark_s


def test_time_passes_for_a_silent_stream_too_so_that_its_sessions_close() -> None:
    # Partition 1 never says a word. Nothing comes after the two payments, and yet the first session closes.
    script = [at(1, 0, 0), at(2, 60, 0), Pause(20), at(3, 100, 0), Pause(25), Abort()]
    driven = drive(script, plan=sessions(), partitions=frozenset({0, 1}))
    with pytest.raises(Aborted):
        driven.run()
    closed = [row["card"] for row in driven.outs.rows("sessions")]
    assert closed == ["c1", "c2"]


def test_the_end_of_the_input_closes_every_session_and_a_stop_leaves_them_open() -> None:
    assert len(drive(payments(3), plan=sessions()).run().outs.rows("sessions")) == 3
    stopped = drive(payments(4), plan=sessions(), max_records=3).run()
    assert stopped.outs.rows("sessions") == []
    assert stopped.runtime.metrics.sessions_closed == 0


# What a run tells


def test_on_alerts_gets_the_rows_that_are_not_simply_allowed() -> None:
    told: list[Alert] = []
    script = [payment(0, card="c", amount=400), payment(1, card="c", amount=700), payment(2, card="d", amount=1)]
    driven = drive(script, on_alerts=told.extend).run()
    assert [(a.id, a.key, a.decision, a.reasons, a.score) for a in told] == [
        ("p1", "c", "block", ("spends_fast",), None)
    ]
    assert driven.outs.ids("alerts") == ["p1"]
    assert driven.runtime.metrics.alerts == 1
    assert driven.runtime.metrics.decisions == {"allow": 2, "block": 1}


def test_on_alerts_is_not_called_without_alerts_and_needs_no_sink() -> None:
    told: list[list[Alert]] = []
    drive([payment(0)], on_alerts=told.append, open_sink=lambda _: None).run()
    assert told == []
    drive([payment(0, amount=5_000)], on_alerts=told.append, open_sink=lambda _: None).run()
    assert [len(alerts) for alerts in told] == [1]


def test_on_turn_sees_a_state_that_is_consistent_after_each_turn() -> None:
    seen: list[tuple[int, int]] = []
    script: list[Step] = [payment(0), Pause(), b"{", Pause(0.2), payment(1)]
    clock = SimulatedClock()
    driven = drive(script, clock=clock, on_turn=lambda: seen.append((driven.counts.read, driven.counts.scored)))
    driven.run()
    assert seen[:2] == [(1, 1), (2, 1)]
    assert seen[-1] == (3, 2)
    assert (2, 1) in seen[2:-1]  # It is called while nothing comes, too: a display must not stand still.


def test_lag_is_what_waits_at_all_sources() -> None:
    lags: list[int | None] = []
    driven, _ = drive_both([payment(0), Pause(), payment(1)], [click(0, at_s=0)])
    driven.runtime._on_turn = lambda: lags.append(driven.runtime.lag)
    driven.run()
    assert lags[0] == 1
    assert lags[-1] == 0
