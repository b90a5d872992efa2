"""What becomes of each part of a plan when another is to go on from its state; what cannot says why and how to mend it."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gillnet as gn
from gillnet.plan.upgrade import compare

COLUMNS = {"id": gn.String(), "ts": gn.Timestamp("ms"), "card": gn.String(), "user": gn.String(), "amount": gn.Float()}


def stream(name="payments", **changes):
    settings = {"id": "id", "event_time": "ts", "allowed_lateness": "1h"}
    columns = COLUMNS | changes.pop("columns", {})
    return gn.Stream(name, schema=gn.Schema(**columns), **{**settings, **changes})


payments, clicks = stream(), stream("clicks")
card = payments.by("card")
small, large = gn.step("small", where=gn.col("amount") < 5), gn.step("large", where=gn.col("amount") > 100)


def session(gap):
    return card.count(over=gn.session(gap))


def plan(root=payments, *, sessions=None, joins=(), **features):
    named = features or {"n": root.by("card").count(over="1h")}
    built = gn.Sessions(root.by("user"), gap=sessions, **named) if sessions else gn.Features(root, **named)
    return gn.Pipeline(built, name="p", joins=joins).plan


def join(upper="1s"):
    return gn.IntervalJoin("near", payments.by("card"), clicks.by("card"), lower="-1s", upper=upper)


def count(**options):
    return card.count(over="1h", **options)


REFUSED = {
    "root": (plan(), plan(clicks, n=clicks.by("card").count(over="1h")), "rows were those of 'payments'", ()),
    "id column": (plan(), plan(stream(id="user")), "id was the column 'id', and is 'user'", ()),
    "event time column": (
        plan(stream(columns={"at": gn.Timestamp("ms")})),
        plan(stream(columns={"at": gn.Timestamp("ms")}, event_time="at")),
        "event_time was the column 'ts', and is 'at'",
        (),
    ),
    "type of a column that is used": (
        plan(n=card.sum("amount", over="1h")),
        plan(whole := stream(columns={"amount": gn.Integer()}), n=whole.by("card").sum("amount", over="1h")),
        "column 'amount' was float64, and is int64",
        (),
    ),
    "allowed lateness": (plan(), plan(stream(allowed_lateness="2h")), "allowed lateness 1h to 2h", ()),
    "stream that is gone": (
        plan(n=count(), seen=clicks.by("card").count(over="1h").at("card")),
        plan(n=count()),
        "its ids and watermark are part of the state",
        ("clicks",),
    ),
    "key of an entity": (plan(n=count()), plan(n=payments.by("user").count(over="1h")), "is of payments.card", ("n",)),
    "session gap": (
        plan(n=session("5m")),
        plan(n=session("10m")),
        "gap 5m to 10m: sessions that are under way",
        ("n",),
    ),
    "pattern": (
        plan(n=card.pattern(gn.seq(small, large), within="1m")),
        plan(n=card.pattern(gn.seq(large, small), within="1m")),
        "partial matches are of the old pattern",
        ("n",),
    ),
    "join": (plan(joins=[join()]), plan(joins=[join("2s")]), "upper 1s to 2s: events are kept", ("near",)),
    "sessions": (plan(sessions="5m", n=gn.count()), plan(sessions="10m", n=gn.count()), "gap 5m to 10m", ()),
    "sessions that begin": (plan(), plan(sessions="10m", n=gn.count()), "the pipeline had none", ()),
    "another pipeline": (plan(), replace(plan(), name="q"), "the state is of 'p'", ()),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_carried_over_says_why_and_the_mend(name):
    old, new, why, droppable = REFUSED[name]
    refused = [part for part in compare(old, new) if part.outcome == "refused"]
    assert any(why in part.what and part.mend for part in refused), compare(old, new)
    assert all(f"--drop {part.name}" in part.mend for part in refused if part.name in droppable)
    left = [part for part in compare(old, new, drop=droppable) if part.outcome == "refused"]
    assert bool(left) == (not droppable), left


GOES_ON = {
    "nothing differs": (plan(), plan(), {("stream", "payments"): "kept", ("feature", "n"): "kept"}),
    "a feature more": (
        plan(n=count()),
        plan(n=count(), m=count()),
        {("feature", "n"): "kept", ("feature", "m"): "added"},
    ),
    "a feature less": (plan(n=count(), m=count()), plan(m=count()), {("feature", "n"): "dropped"}),
    "another window": (plan(n=count()), plan(n=card.count(over="2h")), {("feature", "n"): "changed"}),
    "another condition": (
        plan(n=count()),
        plan(n=count(where=gn.col("amount") > 1)),
        {("feature", "n"): "changed", ("stream", "payments"): "kept"},
    ),
    "less lateness": (plan(), plan(stream(allowed_lateness="1m")), {("stream", "payments"): "changed"}),
    "type of a column that nobody reads": (
        plan(),
        plan(stream(columns={"user": gn.Integer()})),
        {("stream", "payments"): "changed"},
    ),
    "a stream more": (
        plan(n=count()),
        plan(n=count(), seen=clicks.by("card").count(over="1h").at("card")),
        {("stream", "clicks"): "added", ("feature", "seen"): "added"},
    ),
    "a join more": (plan(), plan(joins=[join()]), {("join", "near"): "added"}),
    "a join less": (plan(joins=[join()]), replace(plan(joins=[join()]), joins=()), {("join", "near"): "dropped"}),
    "sessions less": (plan(sessions="5m", m=gn.count()), plan(n=count()), {("sessions", ""): "dropped"}),
    "no revisions": (plan(), replace(plan(), revisions=False), {("revisions", ""): "dropped"}),
}


@pytest.mark.parametrize("name", GOES_ON)
def test_what_goes_on(name):
    old, new, expected = GOES_ON[name]
    told = {(part.kind, part.name): part.outcome for part in compare(old, new)}
    assert expected.items() <= told.items(), told
    assert "refused" not in told.values()


def test_a_change_names_what_differs():
    (changed,) = (part for part in compare(plan(n=count()), plan(n=card.count(over="2h"))) if part.kind == "feature")
    assert str(changed) == "feature 'n' changed (window size 1h to 2h)"
