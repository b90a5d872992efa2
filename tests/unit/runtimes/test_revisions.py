"""What a run writes when late data changes rows that went out: both sides, the cause, and whether the decision flipped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gillnet.testing.scripted import Pause

from .driving import drive, payment, pipeline

if TYPE_CHECKING:
    from gillnet.testing.scripted import Step

LATE = [payment(1, card="c", amount="600.00"), payment(60, card="c", amount="300.00"), payment(600, card="d"), Pause(1)]


def revisions(script: list[Step], **options: Any) -> list[dict[str, Any]]:
    return drive(script, revision_interval_s=0.0, **options).run().outs.rows("decisions.revisions")


def test_a_late_event_is_scored_and_the_rows_that_it_changes_are_revised() -> None:
    driven = drive([*LATE, payment(30, card="c", amount="200.00")], revision_interval_s=0.0).run()
    rows = {row["id"]: row for row in driven.outs.rows()}
    assert (rows["p30"]["late"], rows["p30"]["features"]["spend_5m"]) == (True, 800)
    assert [record.value for record in driven.outs["payments.late"].records] == [payment(30, card="c", amount="200.00")]
    [revision] = driven.outs.rows("decisions.revisions")
    assert revision == {
        "id": "p60",
        "event_time": rows["p60"]["event_time"],
        "card": "c",
        "revision": 1,
        "cause": {"stream": "payments", "id": "p30"},
        "flipped": True,
        "changed": ["spend_5m", "payments_5m"],
        "old": {"decision": "allow", "reasons": [], "features": {"spend_5m": 900, "payments_5m": 2}},
        "new": {"decision": "block", "reasons": ["spends_fast"], "features": {"spend_5m": 1100, "payments_5m": 3}},
    }
    assert (driven.runtime.metrics.revisions, driven.runtime.metrics.revisions_flipped) == (1, 1)
    assert driven.runtime.metrics.decisions == {"allow": 4}


def test_revisions_are_keyed_as_the_rows_are() -> None:
    driven = drive([*LATE, payment(30, card="c")], revision_interval_s=0.0).run()
    assert [record.key for record in driven.outs["decisions.revisions"].records] == [b"c"]


def test_a_row_is_revised_again_and_its_number_counts_up() -> None:
    found = revisions([*LATE, payment(30, card="c"), Pause(1), payment(31, card="c"), Pause(1)])
    assert [(row["id"], row["revision"], row["cause"]["id"]) for row in found] == [("p60", 1, "p30"), ("p60", 2, "p31")]
    assert found[1]["old"]["features"] == found[0]["new"]["features"]


def test_many_changes_between_two_looks_are_one_revision() -> None:
    script = [*LATE, *(payment(number, card="c", at_s=number / 10) for number in range(100, 110)), Pause(1)]
    found = drive(script, revision_interval_s=60.0).run().outs.rows("decisions.revisions")
    assert [(row["id"], row["revision"]) for row in found] == [("p60", 1)]
    assert found[0]["new"]["features"]["payments_5m"] == 12


def test_an_event_out_of_order_revises_without_being_late() -> None:
    driven = drive([payment(3, card="c"), payment(1, card="c")], revision_interval_s=0.0).run()
    assert driven.counts.late == 0
    [revision] = driven.outs.rows("decisions.revisions")
    assert (revision["id"], revision["new"]["features"]["payments_5m"]) == ("p3", 2)


def test_a_late_event_that_changes_nothing_revises_nothing() -> None:
    assert revisions([*LATE, payment(30, card="x")]) == []


def test_flagged_runs_give_the_revisions_that_were_or_are_flagged() -> None:
    script = [*LATE, payment(30, card="c", amount="200.00"), payment(599, card="d", amount="1.00")]
    assert [row["id"] for row in revisions(script, emit="flagged")] == ["p60"]
    assert {row["id"] for row in revisions(script, emit="all")} == {"p60", "p600"}


@pytest.mark.parametrize("seconds", [0.0, 0.5, 60.0])
def test_revisions_are_written_before_their_offsets_are_committed(seconds: float) -> None:
    driven = drive([*LATE, payment(30, card="c")], revision_interval_s=seconds, commit_interval_s=0.0).run()
    whats = driven.journal.whats()
    assert [row["id"] for row in driven.outs.rows("decisions.revisions")] == ["p60"]
    assert whats[-2:] == ["commit", "close source"]


def test_only_what_changed_is_told_as_it_was() -> None:
    [revision] = revisions([*LATE, payment(30, card="c", amount="0.00"), Pause(1)])
    assert revision["changed"] == ["payments_5m"]
    assert (revision["old"]["features"], revision["new"]["features"]) == (
        {"payments_5m": 2},
        {"spend_5m": 900, "payments_5m": 3},
    )


def test_without_revisions_a_row_stays_as_it_went_out() -> None:
    script = [*LATE, payment(30, card="c", amount="200.00")]
    driven = drive(script, plan=pipeline(revisions=False), revision_interval_s=0.0).run()
    assert "decisions.revisions" not in driven.outs
    assert driven.runtime.features.stats()["revisable_rows"] == 0
