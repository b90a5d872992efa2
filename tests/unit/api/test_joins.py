"""Interval joins and as-of joins as they are written: what is refused, what the plan says, and that it comes back from JSON."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

import gillnet as gn
from gillnet import col
from gillnet._kernel import Batch
from gillnet.app import output_names
from gillnet.core.errors import DefinitionError, PlanError
from gillnet.operators.features import FeatureOperator, arrow_schema
from gillnet.plan.explain import explain
from gillnet.plan.joins import explain_join
from gillnet.plan.serde import dumps, loads

payments = gn.Stream(
    "payments",
    schema=gn.Schema(
        tx_id=gn.String(), ts=gn.Timestamp(), user_id=gn.String(nullable=True), shop=gn.Integer(), amount=gn.Decimal(2)
    ),
    id="tx_id",
    event_time="ts",
)
clicks = gn.Stream(
    "clicks",
    schema=gn.Schema(
        click_id=gn.Integer(),
        ts=gn.Timestamp(),
        visitor=gn.String(),
        url=gn.String(nullable=True),
        device=gn.String(nullable=True),
        pixels=gn.Integer(),
    ),
    id="click_id",
    event_time="ts",
)
other_clicks = gn.Stream("clicks", schema=payments.schema, id="tx_id", event_time="ts")
user, visitor = payments.by("user_id"), clicks.by("visitor")
features = gn.Features(payments, n=payments.by("user_id").count(over="1h"))


def join(**changed: Any) -> gn.IntervalJoin:
    arguments = {"name": "j", "left": user, "right": visitor, "lower": "-10m", "upper": "0s"} | changed
    return gn.IntervalJoin(arguments.pop("name"), arguments.pop("left"), arguments.pop("right"), **arguments)


REFUSED = {
    "bounds reversed": ({"lower": "0s", "upper": "-10m"}, r"join 'j': lower='0s' lies after upper='-10m'"),
    "no duration": ({"lower": "ten"}, r"join 'j': lower: 'ten' is not a duration; write one such as '5m'"),
    "two signs": ({"lower": "--5m"}, r"join 'j': lower: '-5m' is negative"),
    "unknown how": ({"how": "outer"}, r"join 'j': how='outer' is unknown.* there are full, inner, left, right"),
    "key types": (
        {"left": payments.by("shop")},
        r"the key 'shop' of 'payments' is int64, and the key 'visitor' of 'clicks' is string",
    ),
    "no key": ({"right": clicks.all()}, r"right=<clicks by nothing> has no key to join by; give an entity"),
    "a stream": ({"left": payments}, r"left=<stream payments: .* has no key to join by"),
    "itself": ({"right": payments.by("user_id")}, r"both sides are of stream 'payments'; .* use a window"),
    "unknown column": ({"where": col("payments.amuont") > 1}, r"join 'j': where: .*payments\.amuont.*payments\.amount"),
    "no side": ({"select": {"url": "url"}}, r"join 'j': select 'url': .*'url'.*clicks\.url"),
    "no condition": ({"where": col("clicks.pixels")}, r"where=col\(\"clicks\.pixels\"\) is int64, not bool"),
    "no expression": ({"where": "clicks.url"}, r"where='clicks\.url' is not an expression"),
    "select is a list": ({"select": ["clicks.url"]}, r"select=\['clicks\.url'\] is not a mapping"),
    "select is a text": ({"select": ""}, r"select='' is not a mapping"),
    "select's name": ({"select": {"a b": "clicks.url"}}, r"select has the name 'a b'; a name is of letters"),
    "select's value": ({"select": {"a": 5}}, r"select 'a': 5 is no column or expression"),
    "name": ({"name": "a.b"}, r"join 'a\.b': a join's name is of a-z"),
    "limit": ({"max_pairs_per_event": 0}, r"max_pairs_per_event=0 must be a whole number above 0"),
}


@pytest.mark.parametrize(("changed", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_join_is_refused_with_place_and_mend(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        join(**changed)


def test_a_pipeline_refuses_joins_that_do_not_fit_together() -> None:
    with pytest.raises(DefinitionError, match=r"joins: two are called 'j', the name of their output; rename one"):
        gn.Pipeline(features, joins=[join(), join(how="left")])
    with pytest.raises(DefinitionError, match=r"is not a list of joins; write \[gillnet\.IntervalJoin"):
        gn.Pipeline(features, joins=join())  # type: ignore[arg-type]
    twins = [join(), join(name="k", right=other_clicks.by("user_id"))]
    with pytest.raises(DefinitionError, match="join 'k': two different streams are called 'clicks'; rename one"):
        gn.Pipeline(features, joins=twins)


def test_a_stream_that_only_a_join_needs_is_part_of_the_plan() -> None:
    pipeline = gn.Pipeline(features, joins=[join()])
    assert [stream.name for stream in pipeline.plan.streams] == ["payments", "clicks"]
    names = output_names(pipeline.plan)
    assert "joins.j" in names
    assert "clicks.too_late" in names
    FeatureOperator(pipeline.plan)


@pytest.mark.parametrize("how", ["inner", "left", "right", "full"])
def test_a_plan_with_joins_comes_back_from_its_json(how: str) -> None:
    select = {"url": "clicks.url", "cents": col("payments.amount") * 100}
    joins = [
        join(how=how, where=col("clicks.pixels") > 5, select=select, max_events_per_key=7),
        join(name="later", lower=timedelta(seconds=-1), upper="1h"),
    ]
    plan = gn.Pipeline(features, joins=joins).plan
    assert loads(dumps(plan)) == plan
    broken = dumps(plan).replace('"lower_us"', '"lowest_us"')
    with pytest.raises(PlanError, match="the plan is not of version"):
        loads(broken)


def test_explain_says_what_a_join_does() -> None:
    full = join(
        how="full",
        where=col("payments.amount") > col("clicks.pixels"),
        select={"url": "clicks.url", "amount": "payments.amount"},
    )
    text = explain(gn.Pipeline(features, joins=[full]).plan)
    assert "stream payments: one row for each event, joined; id tx_id" in text
    assert "stream clicks: joined; id click_id" in text
    assert (
        "\n".join(
            [
                "join j: full, payments by user_id with clicks by visitor",
                "  clicks 0s to 10m before the time of payments",
                '  where col("payments.amount") > col("clicks.pixels")',
                "  payments and clicks without a partner: one row when the other watermark has passed, withdrawn by a late match",
                "  at most 100_000 events of a key, 1_000 pairs of an event",
                '  url     string      col("clicks.url")',
                '  amount  decimal(2)  col("payments.amount")',
            ]
        )
        in text
    )


@pytest.mark.parametrize(
    ("lower", "upper", "words"),
    [
        ("-10m", "-1m", "clicks 1m to 10m before the time of payments"),
        ("0s", "1h", "clicks 0s to 1h after the time of payments"),
        ("-5s", "5s", "clicks from 5s before the time to 5s after the time of payments"),
        ("0s", "0s", "clicks at the very time of payments"),
        ("3s", "3s", "clicks exactly 3s after the time of payments"),
    ],
)
def test_bounds_are_told_from_the_left_side(lower: str, upper: str, words: str) -> None:
    assert explain_join(join(lower=lower, upper=upper).node)[1] == f"  {words}"


def test_as_of_reads_one_event_that_has_all_columns() -> None:
    read = visitor.as_of(last_url="url", last_device="device", seen="ts", within="10m").at("user_id")
    assert list(read) == ["last_url", "last_device", "seen"]
    text = explain(gn.Pipeline(gn.Features(payments, **read)).plan)
    assert "clicks by visitor, looked up at user_id" in text
    condition = 'where col("url").is_not_null() & col("device").is_not_null()'
    assert f"  last_url     string      last of url over 10m {condition}" in text
    assert "where" not in repr(visitor.as_of(pixels="pixels", ts="ts", within="1h"))


AS_OF_REFUSED = {
    "nothing": ({}, r"as_of of clicks by visitor: name what to read, such as last_url='url'"),
    "unknown": ({"a": "urls", "b": "device"}, r"as_of of clicks by visitor: a: .*urls.*url"),
    "no column": ({"a": 5, "b": "device"}, r"as_of of clicks by visitor: a=5 is no column"),
}


@pytest.mark.parametrize(("columns", "message"), AS_OF_REFUSED.values(), ids=AS_OF_REFUSED)
def test_a_wrong_as_of_is_refused(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        visitor.as_of(within="10m", **columns)


SECOND = 1_000_000
START = 1_700_000_000 * SECOND
# Seconds, id, url, device.
CLICKS = [(10, 1, "/a", "x"), (20, 2, "/b", None), (20, 3, "/c", "y"), (20, 4, None, "z"), (40, 5, "/e", None)]
AS_OF = {
    "nothing before": (9.999999, "v", (None, None)),
    "the very time": (10, "v", ("/a", "x")),
    "equal times: the last id that has both": (20, "v", ("/c", "y")),
    "a newer one that lacks a column": (40, "v", ("/c", "y")),
    "just within": (79.999999, "v", ("/c", "y")),
    "no longer within": (80, "v", (None, None)),
    "of another key": (20, "w", (None, None)),
    "of no key": (20, None, (None, None)),
}


@pytest.mark.parametrize(("at_s", "key", "expected"), AS_OF.values(), ids=AS_OF)
def test_i6_as_of_is_the_latest_event_at_or_before(at_s: float, key: str | None, expected: tuple[Any, ...]) -> None:
    read = visitor.as_of(url="url", device="device", within="1m").at("user_id")
    operator = FeatureOperator(gn.Pipeline(gn.Features(payments, **read)).plan)
    events = [
        {"click_id": number, "ts": START + at * SECOND, "visitor": "v", "url": url, "device": device, "pixels": 0}
        for at, number, url, device in CLICKS
    ]
    operator.process("clicks", _batch(clicks, events), START)
    payment = {"tx_id": "t", "ts": START + round(at_s * SECOND), "user_id": key, "shop": 1, "amount": "1.00"}
    rows = operator.process("payments", _batch(payments, [payment]), START).rows
    assert rows is not None
    assert (rows.column("url").to_pylist(), rows.column("device").to_pylist()) == ([expected[0]], [expected[1]])


def _batch(stream: gn.Stream, events: list[dict[str, Any]]) -> Batch:
    schema = arrow_schema(stream.schema)
    arrays = [
        pa.array([event[field.name] for event in events]).cast(field.type)
        if pa.types.is_decimal(field.type)
        else pa.array([event[field.name] for event in events], field.type)
        for field in schema
    ]
    return Batch.from_pyarrow(pa.RecordBatch.from_arrays(arrays, schema=schema))
