from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np
import pytest

from gillnet.simulator import CLICK_SCHEMA, PAYMENT_SCHEMA, Fault, Simulation, SimulationConfig
from gillnet.simulator.faults import DAMAGES

HOUR_US = 3_600_000_000
STREAMS = pytest.mark.parametrize("stream", ["payments", "clicks"])


def run(stream, **faults):
    config = SimulationConfig(
        duration="1d", cards=1_000, payments_per_day=8_000, sessions_per_day=500, bots_per_day=10, **faults
    )
    chunks = list(Simulation(config).stream(stream))
    values = [value for chunk in chunks for value in chunk.values]
    keys = [key for chunk in chunks for key in chunk.keys]
    event, arrival, fault = (
        np.concatenate([getattr(chunk, name) for chunk in chunks])
        for name in ("event_time_us", "arrival_time_us", "fault")
    )
    assert (np.diff(arrival) >= 0).all()
    return values, keys, event, arrival, fault


@STREAMS
def test_without_faults_records_arrive_at_their_event_time(stream):
    values, _, event, arrival, fault = run(stream)
    assert (event == arrival).all()
    assert not fault.any()
    assert len(set(values)) == len(values)


@STREAMS
def test_disorder_swaps_neighbours_within_its_bound(stream):
    values, _, event, arrival, _ = run(stream, disorder_s=30)
    assert (arrival >= event).all()
    assert (arrival - event).max() <= 30_000_000
    assert (np.diff(event) < 0).mean() > 0.1
    assert sorted(values) == sorted(run(stream)[0])


@STREAMS
def test_late_records_come_minutes_to_a_day_later(stream):
    values, _, event, arrival, fault = run(stream, late_share=0.1, disorder_s=2)
    late = (fault & Fault.LATE) > 0
    assert late.mean() == pytest.approx(0.1, abs=0.02)
    delay = (arrival - event)[late]
    assert delay.min() >= 60_000_000
    assert delay.max() <= 24 * HOUR_US
    assert delay.max() > 6 * HOUR_US
    assert (arrival - event)[~late].max() <= 2_000_000
    assert sorted(values) == sorted(run(stream)[0])


@STREAMS
def test_duplicates_have_the_same_bytes_and_come_after(stream):
    values, _, _, _, fault = run(stream, duplicate_share=0.1, late_share=0.05)
    assert set(values) == set(run(stream)[0])
    again = (fault & Fault.DUPLICATE) > 0
    assert again.mean() == pytest.approx(0.1 / 1.1, abs=0.02)
    seen = set()
    for value, duplicate in zip(values, again.tolist(), strict=True):
        assert (value in seen) == duplicate
        seen.add(value)


def misfit(field, dtype):
    """Whether a JSON value does not fit a column, straight from the schema."""
    kind = dtype.name.partition("(")[0]
    if field is None:
        return not dtype.nullable
    if kind == "string":
        return not isinstance(field, str) or len(field) > dtype.max_bytes
    if kind == "timestamp":
        return not isinstance(field, int) or not 1.7e12 < field < 1.9e12
    if kind == "int64":
        return not isinstance(field, int) or not dtype.minimum <= field <= dtype.maximum
    if kind == "bool":
        return not isinstance(field, bool)
    return not isinstance(field, int | float) or field < 0 or round(field * 100) / 100 != field


def reason(value, schema, key_field):
    """Say why a record is malformed, or None."""
    try:
        record = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "no JSON"
    if not isinstance(record, dict):
        return "no object"
    wrong = [name for name, dtype in schema.items() if misfit(record.get(name), dtype)]
    if wrong:
        return f"{wrong[0]} {'is missing' if record.get(wrong[0]) is None else 'does not fit'}"
    return None if record[key_field] else "empty key"


@pytest.mark.parametrize(
    ("stream", "schema", "key_field"), [("payments", PAYMENT_SCHEMA, "card_id"), ("clicks", CLICK_SCHEMA, "visitor_id")]
)
def test_malformed_records_are_additional_and_of_every_kind(stream, schema, key_field):
    values, keys, _, _, fault = run(stream, malformed_share=0.1, duplicate_share=0.02)
    malformed = (fault & Fault.MALFORMED) > 0
    assert malformed.sum() == pytest.approx(0.1 * (fault == 0).sum(), rel=0.1)
    reasons = Counter()
    for value, key, damaged in zip(values, keys, malformed.tolist(), strict=True):
        why = reason(value, schema, key_field)
        assert (why is not None) == damaged, value[:400]
        assert b"\n" not in value
        reasons[why] += 1
        if why == "empty key":
            assert key == b""
        if why == f"{key_field} is missing":
            assert key is None
    assert len(reasons) == 10
    good = {value for value, damaged in zip(values, malformed.tolist(), strict=True) if not damaged}
    assert good == set(run(stream)[0])


def test_every_damage_has_its_own_name():
    assert len({name for name, _ in DAMAGES}) == len(DAMAGES) >= 12


def test_all_faults_together_keep_every_good_record():
    faults = {"late_share": 0.05, "duplicate_share": 0.05, "malformed_share": 0.05, "disorder_s": 10.0}
    values, _, _, _, fault = run("payments", **faults)
    first = [
        value
        for value, kind in zip(values, fault.tolist(), strict=True)
        if not kind & (Fault.DUPLICATE | Fault.MALFORMED)
    ]
    assert sorted(first) == sorted(run("payments")[0])
