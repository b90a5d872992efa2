"""I3: read = scored + duplicate + malformed + too late, and each side output holds exactly its records, as they came."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from effort import examples
from hypothesis import given
from hypothesis import strategies as st

from gillnet.operators.decode import rejection_reasons
from gillnet.testing.scripted import Pause, Record

from .driving import START_MS, Drive, drive, payment, payments_stream, pipeline

if TYPE_CHECKING:
    from gillnet.connectors.memory import MemorySink
    from gillnet.testing.scripted import Step

HOUR_S, YEAR_S = 3_600, 365 * 24 * 3_600


def changed(**fields: Any) -> bytes:
    return payment(0, **fields)


#: A record for each reason, as a producer's fault would make it; None of the ids is that of a good one.
MALFORMED: dict[str, bytes] = {
    "empty_record": b"",
    "too_large": changed(id="large", pad="x" * 1_100_000),
    "not_utf8": changed(id="m").replace(b'"m"', b'"\xff\xfe"'),
    "not_json": changed(id="m")[:-1],
    "not_an_object": b'["p0"]',
    "too_deep": changed(id="m")[:-1] + b',"x":' + b"[" * 100 + b"]" * 100 + b"}",
    "duplicate_field": changed(id="m")[:-1] + b',"id":"n"}',
    "missing_field": changed(id="m", amount=...),
    "null_value": changed(id="m", amount=None),
    "null_key": changed(id="m", card=None),
    "empty_key": changed(id="m", card=""),
    "null_id": changed(id=""),
    "wrong_type": changed(id="m", ts="yesterday"),
    "out_of_range": changed(id="m", amount=-0.01),
    "not_finite": changed(id="m", risk=0).replace(b'"risk": 0', b'"risk": 1e999'),
    "inexact_decimal": changed(id="m", amount="1.005"),
    "bad_timestamp": b'{"id":"m","ts":"2026-02-30T00:00:00Z","card":"c","amount":1}',
    "event_time_too_early": changed(id="early", ts=0),
    "event_time_ahead": changed(id="ahead", at_s=2 * HOUR_S),
}
#: Reasons that this schema can give: its timestamps are numbers, so that none is bad as text.
OF_THIS_SCHEMA = sorted(MALFORMED.keys() - {"bad_timestamp"})

FURTHER = {
    "NaN is no JSON": ("not_json", changed(id="m").replace(b'"1.00"', b"NaN")),
    "NaN as text": ("wrong_type", changed(id="m", amount="NaN")),
    "minus infinity": ("not_json", changed(id="m").replace(b'"1.00"', b"-Infinity")),
    "a negative float": ("out_of_range", changed(id="m", risk=-1e-9)),
    "a null id": ("null_id", changed(id=None)),
    "a tombstone with spaces": ("empty_record", b" \n"),
    "a time before every calendar": ("out_of_range", changed(id="m", ts=-(10**17))),
    "a time after every calendar": ("out_of_range", changed(id="m", ts=10**18)),
    "seconds where milliseconds are due": ("event_time_too_early", changed(id="m", ts=START_MS // 1_000)),
    "microseconds where milliseconds are due": ("out_of_range", changed(id="m", ts=START_MS * 1_000)),
    "the year 2200": ("event_time_ahead", changed(id="m", at_s=174 * YEAR_S)),
}


def record(value: bytes, number: int) -> Record:
    """With an envelope that no other has."""
    return Record(
        value, key=b"k%d" % number, headers=[("trace", b"t%d" % number), ("none", None)], partition=number % 3
    )


def side(driven: Drive, kind: str) -> list[Record]:
    """The records of a side output, without the headers that say why."""
    sink: MemorySink | None = driven.outs.get(f"payments.{kind}")
    return [
        Record(out.value, out.key, [h for h in out.headers if not h[0].startswith("gillnet.")], _partition(out.headers))
        for out in (sink.records if sink else [])
    ]


def _partition(headers: Any) -> int:
    return int(dict(headers)["gillnet.partition"])


def reasons(driven: Drive, kind: str = "malformed") -> list[str]:
    sink = driven.outs.get(f"payments.{kind}")
    return [dict(out.headers)["gillnet.reason"].decode() for out in (sink.records if sink else [])]


@pytest.mark.parametrize("reason", OF_THIS_SCHEMA)
def test_each_reason_sends_the_record_aside_as_it_came_and_the_stream_goes_on(reason: str) -> None:
    bad = record(MALFORMED[reason], 7)
    driven = drive([payment(1), bad, payment(2)]).run()
    assert driven.outs.ids() == ["p1", "p2"]
    assert side(driven, "malformed") == [bad]
    assert reasons(driven) == [reason]
    assert driven.counts.reasons == {reason: 1}
    assert (driven.counts.read, driven.counts.scored, driven.counts.malformed) == (3, 2, 1)


def test_every_reason_has_a_record_here() -> None:
    """But those of Avro and Protobuf, whose records are in tests/unit/formats/test_record_reasons.py."""
    binary = {"bad_framing", "unknown_schema", "bad_schema", "not_avro", "not_protobuf", "unknown_symbol"}
    assert MALFORMED.keys() - {"event_time_too_early", "event_time_ahead"} == set(rejection_reasons()) - binary


@pytest.mark.parametrize("name", FURTHER)
def test_absurd_values_are_malformed(name: str) -> None:
    reason, value = FURTHER[name]
    driven = drive([payment(1), record(value, 1), payment(2)]).run()
    assert reasons(driven) == [reason]
    assert driven.outs.ids() == ["p1", "p2"]


@pytest.mark.parametrize("value", [changed(id="m", ts=0), changed(id="m", at_s=2 * HOUR_S), changed(id="m", ts=2**62)])
def test_absurd_event_times_do_not_move_the_watermark(value: bytes) -> None:
    driven = drive([payment(1), payment(2), value, Pause(), payment(3)]).run()
    marks = [row.get("watermark") for row in driven.outs.rows()]
    clean = drive([payment(1), payment(2), Pause(), payment(3)]).run()
    assert marks == [row.get("watermark") for row in clean.outs.rows()]
    assert driven.counts.too_late == driven.counts.late == 0


def test_an_absurd_time_comes_before_the_id_so_that_the_mended_record_is_no_duplicate() -> None:
    driven = drive([payment(1, at_s=2 * HOUR_S), payment(1), payment(1)]).run()
    assert reasons(driven) == ["event_time_ahead"]
    assert driven.outs.ids() == ["p1"]
    assert reasons(driven, "duplicate") == ["duplicate"]


def test_late_records_are_scored_and_copied_and_too_late_ones_are_not_scored() -> None:
    stream = payments_stream(watermark_delay="1s", allowed_lateness="10s")
    script = [record(payment(n, at_s=at_s), n) for n, at_s in enumerate([0, 100, 95, 99, 80, 88.9, 89.0])]
    # One partition, so that the watermark is at 99 s after the second record.
    script = [Record(r.value, r.key, r.headers) for r in script]
    driven = drive(script, plan=pipeline(stream)).run()
    assert driven.outs.ids() == ["p0", "p1", "p2", "p3", "p6"]
    assert side(driven, "late") == [script[2], script[6]]
    assert side(driven, "too_late") == [script[4], script[5]]
    assert reasons(driven, "late") == ["late"] * 2
    assert reasons(driven, "too_late") == ["too_late"] * 2
    assert [row["late"] for row in driven.outs.rows()] == [False, False, True, False, True]
    counts = driven.counts
    assert (counts.read, counts.scored, counts.too_late, counts.late) == (7, 5, 2, 2)
    assert counts.balanced


def test_side_outputs_that_nobody_wants_are_counted_all_the_same() -> None:
    script: list[Step] = [
        payment(1, at_s=-HOUR_S),
        payment(2, at_s=0),
        payment(2, at_s=0),
        b"{",
        payment(3, at_s=30 - HOUR_S),
    ]
    script += [payment(4, at_s=-30 - HOUR_S)]
    driven = drive(script, open_sink=lambda name: None).run()
    counts = driven.counts
    assert (counts.read, counts.scored, counts.duplicate, counts.malformed, counts.too_late) == (6, 3, 1, 1, 1)
    assert counts.late == 1
    assert counts.reasons == {"duplicate": 1, "not_json": 1, "too_late": 1}
    assert counts.balanced


def test_a_side_output_is_opened_by_its_first_record() -> None:
    opened: list[str] = []

    def open_sink(name: str) -> None:
        opened.append(name)

    drive([payment(1), payment(2)], open_sink=open_sink).run()
    assert [name for name in opened if name.startswith("payments.")] == []


def test_figures_carry_the_stream_s_name_and_add_up() -> None:
    script = [payment(1), b"{", payment(1)]
    figures = drive(script).run().runtime.metrics.snapshot()
    kinds = ("scored", "duplicate", "malformed", "too_late")
    assert (
        figures["records_read{stream=payments}"] == sum(figures[f"records_{k}{{stream=payments}}"] for k in kinds) == 3
    )


# Any mix, cut into batches anywhere


@dataclass(frozen=True)
class Expected:
    """What becomes of a record, told by the slow and plain way: one record at a time."""

    kind: str
    late: bool = False


class Gate:
    """The rules of arrival, record by record: the naive version of the kernel's gate, for one watermark."""

    def __init__(self, *, delay_s: float, lateness_s: float, partitions: set[int]) -> None:
        self.delay_s, self.lateness_s = delay_s, lateness_s
        self.newest: dict[int, float | None] = dict.fromkeys(partitions)
        self.watermark_s: float | None = None
        self.seen: set[str] = set()

    def judge(self, number: int, at_s: float, partition: int) -> Expected:
        mark = self.watermark_s
        if mark is not None and at_s < mark - self.lateness_s:
            return Expected("too_late")
        if number in self.seen:
            return Expected("duplicate")
        self.seen.add(number)
        self.newest[partition] = max(at_s, self.newest[partition] if self.newest[partition] is not None else at_s)
        heard = list(self.newest.values())
        if None not in heard:
            told = min(heard) - self.delay_s
            self.watermark_s = told if mark is None else max(mark, told)
        return Expected("scored", late=mark is not None and at_s < mark)


GOOD = st.tuples(st.integers(0, 12), st.integers(0, 60), st.integers(0, 2))
MIX = st.lists(st.one_of(GOOD, st.sampled_from(sorted(set(OF_THIS_SCHEMA) - {"too_large"}))), min_size=1, max_size=40)
CUTS = st.sets(st.integers(1, 40))


def mixed(mix: list[Any]) -> tuple[list[Record], list[Expected]]:
    partitions = {item[2] if isinstance(item, tuple) else number % 3 for number, item in enumerate(mix)}
    gate = Gate(delay_s=2, lateness_s=20, partitions=partitions)
    records, expected = [], []
    for place, item in enumerate(mix):
        if isinstance(item, str):
            records.append(record(MALFORMED[item], place))
            expected.append(Expected("malformed"))
        else:
            number, at_s, partition = item
            plain = record(payment(number, at_s=at_s), place)
            records.append(Record(plain.value, plain.key, plain.headers, partition))
            expected.append(gate.judge(number, at_s, partition))
    return records, expected


def cut(records: list[Record], cuts: set[int]) -> list[Step]:
    script: list[Step] = []
    for place, one in enumerate(records):
        script += [Pause(), one] if place in cuts else [one]
    return script


def run_mix(records: list[Record], cuts: set[int]) -> Drive:
    stream = payments_stream(watermark_delay="2s", allowed_lateness="20s")
    return drive(cut(records, cuts), plan=pipeline(stream)).run()


@examples(200)
@given(mix=MIX, cuts=CUTS)
def test_any_mix_adds_up_and_each_side_output_holds_exactly_its_records(mix: list[Any], cuts: set[int]) -> None:
    records, expected = mixed(mix)
    driven = run_mix(records, cuts)
    counts = driven.counts
    assert counts.balanced
    told = Counter(one.kind for one in expected)
    assert {kind: getattr(counts, kind) for kind in told} == told
    assert counts.read == len(records)
    for kind in ("malformed", "duplicate", "too_late"):
        wanted = [r for r, one in zip(records, expected, strict=True) if one.kind == kind]
        assert side(driven, kind) == wanted, kind
    assert side(driven, "late") == [r for r, one in zip(records, expected, strict=True) if one.late]
    assert reasons(driven) == [item for item in mix if isinstance(item, str)]
    scored = [json.loads(r.value)["id"] for r, one in zip(records, expected, strict=True) if one.kind == "scored"]
    assert driven.outs.ids() == scored


def without_arrival(driven: Drive) -> dict[str, list[Any]]:
    """What was written, but for the time of arrival: when a batch was read is the one thing that follows its boundaries."""
    written: dict[str, list[Any]] = {}
    for name, sink in driven.outs.items():
        for out in sink.records:
            headers = [header for header in out.headers if header[0] != "gillnet.arrival_time_us"]
            value = out.value if headers else {**json.loads(out.value), "arrival_time": None}
            written.setdefault(name, []).append((value, out.key, headers))
    return written


@examples(200)
@given(mix=MIX, cuts=CUTS)
def test_nothing_depends_on_where_batches_end(mix: list[Any], cuts: set[int]) -> None:
    records, _ = mixed(mix)
    assert without_arrival(run_mix(records, cuts)) == without_arrival(run_mix(records, set()))
