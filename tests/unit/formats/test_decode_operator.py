"""The decode operator: rows and malformed records add up, and a malformed record keeps what it came with."""

import json
import threading
from datetime import UTC, datetime
from decimal import Decimal as PyDecimal

import pyarrow as pa
import pytest

from gillnet.core.errors import DefinitionError
from gillnet.core.messages import RawBatch
from gillnet.core.schema import Boolean, Decimal, Float, Integer, Schema, String, Timestamp
from gillnet.operators.decode import DecodeOperator, Malformed, malformed_records, rejection_reasons

PAYMENT = Schema(
    tx_id=String(),
    ts=Timestamp("ms"),
    card_id=String(),
    device_id=String(nullable=True),
    amount=Decimal(2, minimum=0),
)


def payment(**changes):
    fields = {"tx_id": "t-1", "ts": 1_700_000_000_000, "card_id": "c-1", "device_id": "d-1", "amount": 12.5} | changes
    return json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()


def raw(*values, **options):
    return RawBatch(stream="payments", values=values, partitions=[3] * len(values), arrival_time_us=99, **options)


@pytest.fixture(scope="module")
def operator():
    return DecodeOperator(PAYMENT, id="tx_id", keys=["card_id", "device_id"])


def test_rows_have_the_arrow_types_of_the_schema():
    schema = Schema(
        s=String(), i=Integer(), f=Float(), b=Boolean(), t=Timestamp("rfc3339"), d=Decimal(3), n=Integer(nullable=True)
    )
    record = b'{"n":null,"s":"x","i":-7,"f":1e-3,"b":true,"t":"2026-01-02T03:04:05.000006+01:00","d":"1.5"}'
    batch = DecodeOperator(schema).decode(raw(record)).batch.to_pyarrow()
    expected = {
        "s": pa.string(),
        "i": pa.int64(),
        "f": pa.float64(),
        "b": pa.bool_(),
        "t": pa.timestamp("us", tz="UTC"),
        "d": pa.decimal128(38, 3),
        "n": pa.int64(),
    }
    assert {field.name: field.type for field in batch.schema} == expected
    assert [field.nullable for field in batch.schema] == [False] * 6 + [True]
    [row] = batch.to_pylist()
    assert row == {
        "s": "x",
        "i": -7,
        "f": 0.001,
        "b": True,
        "t": datetime(2026, 1, 2, 2, 4, 5, 6, tzinfo=UTC),
        "d": PyDecimal("1.500"),
        "n": None,
    }


def test_every_record_is_a_row_or_malformed_and_order_is_kept(operator):
    values = [payment(tx_id="a"), b"{", payment(tx_id="b", amount=-1), payment(tx_id="c"), b"", payment(card_id=...)]
    decoded = operator.decode(raw(*values))
    assert decoded.batch.to_pyarrow()["tx_id"].to_pylist() == ["a", "c"]
    assert decoded.rows.to_pylist() == [0, 3]
    assert [(record.index, record.reason) for record in decoded.malformed] == [
        (1, "not_json"),
        (2, "out_of_range"),
        (4, "empty_record"),
        (5, "missing_field"),
    ]


def test_rows_are_none_when_every_record_is_good(operator):
    decoded = operator.decode(raw(payment(), payment()))
    assert decoded.rows is None
    assert decoded.malformed == []


def test_a_batch_without_records_or_without_good_ones(operator):
    assert operator.decode(raw()).batch.num_rows == 0
    decoded = operator.decode(raw(b"[]"))
    assert decoded.batch.num_rows == 0
    assert decoded.rows.to_pylist() == []


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        ({"amount": "12,50"}, "wrong_type", ["amount", "decimal(2)", "12,50"]),
        ({"amount": 12.505}, "inexact_decimal", ["amount", "12.505"]),
        ({"amount": float("nan")}, "not_json", ["expected a JSON value"]),
        ({"ts": "yesterday"}, "wrong_type", ["ts", "milliseconds", "yesterday"]),
        ({"card_id": None}, "null_key", ["card_id"]),
        ({"card_id": ""}, "empty_key", ["card_id"]),
        ({"tx_id": ""}, "null_id", ["tx_id"]),
        ({"card_id": ...}, "missing_field", ["card_id"]),
        ({"tx_id": "x" * 70_000}, "too_large", ["tx_id", "70000", "65536"]),
        ({"extra": [[[[[[]]]]]]}, None, []),
    ],
)
def test_reasons_name_the_column_and_the_value(operator, changes, reason, words):
    malformed = operator.decode(raw(payment(**changes))).malformed
    assert [record.reason for record in malformed] == ([reason] if reason else [])
    for word in words:
        assert word in malformed[0].detail


def test_ten_megabytes_are_refused_unread_and_details_stay_short(operator):
    [record] = operator.decode(raw(payment(extra="x" * 10_000_000))).malformed
    assert record.reason == "too_large"
    [record] = operator.decode(raw(payment(amount="y" * 900_000))).malformed
    assert record.reason == "wrong_type"
    assert len(record.detail) < 200


def test_nesting_is_bounded_without_a_stack_overflow():
    operator = DecodeOperator(PAYMENT, max_record_bytes=10_000_000)
    deep = payment()[:-1] + b',"x":' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"}"
    [record] = operator.decode(raw(deep, payment())).malformed
    assert (record.index, record.reason) == (0, "too_deep")


def test_an_empty_nullable_key_becomes_null(operator):
    batch = operator.decode(raw(payment(device_id=""), payment(device_id=...))).batch.to_pyarrow()
    assert batch["device_id"].to_pylist() == [None, None]


def test_malformed_records_keep_value_key_and_headers_and_say_why():
    batch = raw(b"{}", b"nope", envelope=lambda index: (f"k{index}".encode(), [("trace", b"7"), ("none", None)]))
    [record] = malformed_records(batch, [Malformed(1, "not_json", "byte 1: …")])
    assert (record.value, record.key) == (b"nope", b"k1")
    assert record.headers == [
        ("trace", b"7"),
        ("none", None),
        ("gillnet.reason", b"not_json"),
        ("gillnet.detail", "byte 1: …".encode()),
        ("gillnet.stream", b"payments"),
        ("gillnet.partition", b"3"),
        ("gillnet.arrival_time_us", b"99"),
    ]


def test_wrong_options_fail_at_definition_time():
    with pytest.raises(DefinitionError, match="merchant"):
        DecodeOperator(PAYMENT, keys=["merchant"])
    with pytest.raises(DefinitionError, match="max_depth"):
        DecodeOperator(PAYMENT, max_depth=0)
    with pytest.raises(DefinitionError):
        DecodeOperator(PAYMENT, max_record_bytes=-1)


def test_values_must_be_bytes(operator):
    with pytest.raises(TypeError):
        operator.decode(raw("text"))


def test_the_reason_codes_are_a_stable_list():
    assert sorted(rejection_reasons()) == [
        "bad_framing",
        "bad_schema",
        "bad_timestamp",
        "duplicate_field",
        "empty_key",
        "empty_record",
        "inexact_decimal",
        "missing_field",
        "not_an_object",
        "not_avro",
        "not_finite",
        "not_json",
        "not_protobuf",
        "not_utf8",
        "null_id",
        "null_key",
        "null_value",
        "out_of_range",
        "too_deep",
        "too_large",
        "unknown_schema",
        "unknown_symbol",
        "wrong_type",
    ]


def test_one_operator_decodes_in_several_threads_alike(operator):
    orders = [list(PAYMENT), list(reversed(list(PAYMENT)))]
    values = [
        json.dumps({n: json.loads(payment(tx_id=f"t-{i}"))[n] for n in orders[i % 2]}).encode() for i in range(2_000)
    ]
    results = [None] * 4

    def work(slot):
        for _ in range(20):
            results[slot] = operator.decode(raw(*values)).batch.to_pyarrow()["tx_id"].to_pylist()

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[f"t-{i}" for i in range(2_000)]] * 4
