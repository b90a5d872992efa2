"""Wrong schemas and streams are refused where they are defined, by a message that names the place and the mend."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest

import gillnet as gn
from gillnet.core.errors import DefinitionError

COLUMNS = {
    "tx_id": gn.String(),
    "ts": gn.Timestamp("ms"),
    "card_id": gn.String(),
    "user_id": gn.String(nullable=True),
    "amount": gn.Decimal(2),
}


def stream(name: object = "payments", **changed: object) -> gn.Stream:
    arguments = {"schema": gn.Schema(**COLUMNS), "id": "tx_id", "event_time": "ts", **changed}
    return gn.Stream(name, **arguments)  # type: ignore[arg-type]


def schema(**columns: object) -> Callable[[], object]:
    return lambda: gn.Schema(**columns)  # type: ignore[arg-type]


def defined(**changed: object) -> Callable[[], object]:
    return lambda: stream(**changed)


WRONG_SCHEMAS = {
    "no column": (schema(), "Schema()", "at least one column"),
    "a Python type": (schema(a=int), "Schema column 'a'", "gillnet.String()"),
    "a type that was not called": (schema(a=gn.String), "Schema column 'a'", "gillnet.String()"),
    "no name": (schema(**{"": gn.String()}), "Schema column ''", "give the field's"),
    "a reserved name": (schema(__a=gn.String()), "Schema column '__a'", "choose another"),
    "an unknown unit": (schema(a=gn.Timestamp("ns")), "'a': unit 'ns'", "'s', 'ms', 'us' or 'rfc3339'"),
    "a scale too large": (schema(a=gn.Decimal(19)), "'a': scale 19", "0 to 18"),
    "a negative scale": (schema(a=gn.Decimal(-1)), "'a': scale -1", "0 to 18"),
    "a scale as text": (schema(a=gn.Decimal("2")), "'a': scale '2'", "such as Decimal(2)"),
    "a bound with too many digits": (
        schema(a=gn.Decimal(2, minimum="0.001")),
        "Schema column 'a': minimum: '0.001'",
        "at most 2 digits after the point",
    ),
    "a bound that is no decimal": (schema(a=gn.Decimal(2, maximum="x")), "'a': maximum: 'x'", "such as '0.01'"),
    "bounds the wrong way round": (schema(a=gn.Integer(minimum=3, maximum=2)), "minimum 3 is above maximum 2", "swap"),
    "decimal bounds the wrong way round": (schema(a=gn.Decimal(2, minimum=3, maximum=2)), "minimum 3.00", "swap them"),
    "a bound that is NaN": (schema(a=gn.Float(minimum=float("nan"))), "'a': minimum=nan", "leave it out"),
    "an integer's bound as text": (schema(a=gn.Integer(minimum="3")), "'a': minimum='3'", "64-bit integer"),
    "an integer's bound as a float": (schema(a=gn.Integer(maximum=1.5)), "'a': maximum=1.5", "64-bit integer"),
    "an integer's bound beyond 64 bits": (schema(a=gn.Integer(minimum=2**70)), "'a': minimum=", "64-bit integer"),
    "a float's bound as text": (schema(a=gn.Float(maximum="x")), "'a': maximum='x'", "write one, or leave it out"),
    "text of no bytes": (schema(a=gn.String(max_bytes=0)), "'a': max_bytes=0", "above 0"),
    "nullable as text": (schema(a=gn.String(nullable="yes")), "'a': nullable='yes'", "True or False"),
}

WRONG_STREAMS = {
    "no name": (defined(name=""), "Stream ''", "choose another"),
    "a name with a space": (defined(name="pay ments"), "Stream 'pay ments'", "choose another"),
    "a name with a dot": (defined(name="pay.ments"), "Stream 'pay.ments'", "choose another"),
    "a name that no topic can have": (defined(name="été"), "Stream 'été'", "a-z, A-Z, 0-9"),
    "a reserved name": (defined(name="__payments"), "Stream '__payments'", "begins with a letter or digit"),
    "a name that is no text": (defined(name=None), "Stream None", "choose another"),
    "a schema that is a dictionary": (defined(schema=COLUMNS), "'payments': schema={", "gillnet.Schema("),
    "an id that is no column": (defined(id="txid"), "'payments': id='txid'", "did you mean 'tx_id'?"),
    "an id that is a decimal": (defined(id="amount"), "id='amount' is decimal(2)", "must be a String or Integer"),
    "an id that is nullable": (defined(id="user_id"), "id='user_id' is nullable", "without nullable=True"),
    "an id as a list": (defined(id=["tx_id"]), "'payments': id=['tx_id']", "there are amount, card_id"),
    "an id that is an expression": (defined(id=gn.col("tx_id")), 'id=<Expr col("tx_id")>', "there are amount, card_id"),
    "an event time as a list": (defined(event_time=["ts"]), "event_time=['ts'] is not a column", "there are amount"),
    "a delay as a list": (defined(watermark_delay=["5s"]), "watermark_delay: ['5s']", "such as '5m'"),
    "a delay that is None": (defined(watermark_delay=None), "watermark_delay: None", "such as '5m'"),
    "a name as a list": (defined(name=["payments"]), "Stream ['payments']", "choose another"),
    "no id": (defined(id=None), "'payments': id=None", "there are amount, card_id"),
    "an event time that is no column": (defined(event_time="time"), "event_time='time'", "there are amount, card_id"),
    "an event time that is text": (defined(event_time="tx_id"), "event_time='tx_id' is string", "must be a Timestamp"),
    "an event time that is nullable": (
        defined(schema=gn.Schema(tx_id=gn.String(), ts=gn.Timestamp("ms", nullable=True))),
        "event_time='ts' is nullable",
        "without nullable=True",
    ),
    "a delay without a unit": (defined(watermark_delay="5"), "watermark_delay: '5'", "such as '5m'"),
    "a delay as a number": (defined(watermark_delay=5), "watermark_delay: 5", "such as '5m'"),
    "a negative delay": (defined(watermark_delay="-5s"), "watermark_delay: '-5s' is negative", "0 or more"),
    "negative lateness": (
        defined(allowed_lateness=timedelta(seconds=-1)),
        "allowed_lateness: -1 day, 23:59:59 is negative",
        "0 or more",
    ),
    "lateness of a life": (defined(allowed_lateness="20000d"), "allowed_lateness: '20000d'", "shorter duration"),
    "an idle time in words": (defined(idle_after="soon"), "idle_after: 'soon'", "such as '5m'"),
    "an unknown unit": (defined(max_ahead="11y"), "max_ahead: '11y'", "such as '5m'"),
    "an earliest without a zone": (
        defined(earliest=datetime(2020, 1, 1)),
        "earliest=2020-01-01",
        "tzinfo=datetime.UTC",
    ),
    "an earliest as text": (defined(earliest="2020-01-01"), "earliest='2020-01-01'", "datetime(2020, 1, 1, tzinfo="),
}

WRONG_ENTITIES = {
    "an unknown key": ("card", "by('card')", "did you mean 'card_id'?"),
    "a key that is a decimal": ("amount", "by('amount')", "names the entity"),
    "a key that is a time": ("ts", "'ts' is timestamp", "a key is a String or an Integer"),
    "no key": (None, "by(None)", "there are amount, card_id"),
    "keys as a list": (["card_id"], "by(['card_id']): a key is the name of one column", "there are amount, card_id"),
    "keys as a mapping": ({"key": "card_id"}, "a key is the name of one column", "there are amount, card_id"),
    "an expression": (gn.col("card_id"), 'by(<Expr col("card_id")>)', "there are amount, card_id"),
}


@pytest.mark.parametrize(("define", "place", "mend"), WRONG_SCHEMAS.values(), ids=WRONG_SCHEMAS)
def test_a_wrong_schema_is_refused(define: Callable[[], object], place: str, mend: str) -> None:
    with pytest.raises(DefinitionError) as error:
        define()
    assert place in str(error.value)
    assert mend in str(error.value)


@pytest.mark.parametrize(("define", "place", "mend"), WRONG_STREAMS.values(), ids=WRONG_STREAMS)
def test_a_wrong_stream_is_refused(define: Callable[[], object], place: str, mend: str) -> None:
    with pytest.raises(DefinitionError) as error:
        define()
    assert place in str(error.value)
    assert mend in str(error.value)


@pytest.mark.parametrize(("key", "place", "mend"), WRONG_ENTITIES.values(), ids=WRONG_ENTITIES)
def test_a_wrong_entity_is_refused(key: str, place: str, mend: str) -> None:
    with pytest.raises(DefinitionError) as error:
        stream().by(key)
    assert str(error.value).startswith("Stream 'payments': ")
    assert place in str(error.value)
    assert mend in str(error.value)


@pytest.mark.parametrize("name", ["payments", "payments-eu", "payments_2", "2fa"])
def test_a_name_that_a_topic_can_have_is_taken(name: str) -> None:
    assert stream(name=name).node.name == name


def test_every_role_of_a_stream_may_be_what_it_says() -> None:
    """The mends above are mends: what the messages ask for is accepted."""
    taken = stream(watermark_delay="0s", allowed_lateness=timedelta(days=1), idle_after="1h30m", max_ahead="250ms")
    assert (taken.node.watermark_delay_us, taken.node.allowed_lateness_us) == (0, 86_400_000_000)
    assert (taken.node.idle_after_us, taken.node.max_ahead_us) == (5_400_000_000, 250_000)
