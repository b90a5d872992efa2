"""Source and sink against a real broker: what the guarantees say, and what happens when the broker goes away."""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from typing import TYPE_CHECKING

import pytest
import structlog
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from gillnet.connectors.kafka import KafkaSink, KafkaSource, ensure_topics
from gillnet.connectors.local_kafka import LocalKafka
from gillnet.connectors.uri import open_sink, open_source
from gillnet.core.errors import ConfigurationError, SinkError, SourceError
from gillnet.core.messages import OutputRecord
from gillnet.testing.conformance import check_sink, check_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gillnet.core.ports import Source

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def fragile_kafka() -> Iterator[LocalKafka]:
    """A broker of this module's own, to be paused, killed and restarted."""
    with LocalKafka() as broker:
        yield broker


def source_on(kafka: LocalKafka, topic: str, **options: object) -> KafkaSource:
    merged = {"stream": "payments", "group": f"{topic}-group", **options}
    return KafkaSource(topic=topic, bootstrap_servers=kafka.bootstrap_servers, **merged)  # type: ignore[arg-type]


def sink_on(kafka: LocalKafka, topic: str, **options: object) -> KafkaSink:
    return KafkaSink(topic=topic, bootstrap_servers=kafka.bootstrap_servers, **options)  # type: ignore[arg-type]


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [b'{"n":%d}' % n for n in range(start, start + count)]


def keys(count: int) -> list[bytes]:
    return [b"card-%d" % (n % 50) for n in range(count)]


def read_all(source: Source, *, max_records: int = 1_000) -> list[bytes]:
    got: list[bytes] = []
    while not source.finished:
        batch = source.poll(max_records, 0.2)
        if batch is not None:
            got += batch.values
    return got


def read_some(source: Source, at_least: int, *, timeout_s: float = 60.0, max_records: int = 1_000) -> list[bytes]:
    got: list[bytes] = []
    deadline_s = time.monotonic() + timeout_s
    while len(got) < at_least:
        assert time.monotonic() < deadline_s, f"only {len(got)} of {at_least} records came"
        batch = source.poll(max_records, 0.1)
        if batch is not None:
            got += batch.values
    return got


def fill(kafka: LocalKafka, topic: str, values: Sequence[bytes]) -> None:
    sink = sink_on(kafka, topic)
    sink.write(values, keys(len(values)))
    sink.close()


# The contract


def test_source_conforms(kafka: LocalKafka) -> None:
    count = itertools.count()

    def open_on(values: Sequence[bytes]) -> Source:
        topic = f"conform-{next(count)}"
        ensure_topics([topic], bootstrap_servers=kafka.bootstrap_servers)
        fill(kafka, topic, values)
        return source_on(kafka, topic, until_end=True)

    def reopen(closed: Source) -> Source:
        assert isinstance(closed, KafkaSource)
        return source_on(kafka, closed.topic, until_end=True)

    check_source(open_on, reopen=reopen)


def test_sink_conforms(kafka: LocalKafka, topic: str) -> None:
    group = itertools.count()

    def read_back() -> list[OutputRecord]:
        source = source_on(kafka, topic, group=f"reader-{next(group)}", until_end=True)
        records: list[OutputRecord] = []
        while not source.finished:
            if batch := source.poll(1_000, 0.2):
                envelopes = [batch.envelope(i) for i in range(len(batch.values))]
                records += [
                    OutputRecord(value=value, key=key, headers=headers)
                    for value, (key, headers) in zip(batch.values, envelopes, strict=True)
                ]
        source.close()
        return records

    check_sink(lambda: sink_on(kafka, topic), read_back)


# What a record carries


def test_key_headers_partition_and_tombstone_come_through(kafka: LocalKafka, topic: str) -> None:
    sink = sink_on(kafka, topic)
    headers = [("reason", b"not-json"), ("source-offset", b"\x00\xff"), ("empty", None)]
    sink.write_records([OutputRecord(value=b"\xff\x00 not json", key=b"k", headers=headers)])
    sink.write([b""], [b"gone"])
    sink.write_records([OutputRecord(value=b"plain")])
    sink.close()
    source = source_on(kafka, topic, until_end=True)
    seen = {}
    while not source.finished:
        if batch := source.poll(10, 0.2):
            seen.update({value: batch.envelope(i) for i, value in enumerate(batch.values)})
    source.close()
    assert seen == {b"\xff\x00 not json": (b"k", headers), b"": (b"gone", []), b"plain": (None, [])}


def test_records_of_a_key_stay_in_order_in_one_partition(kafka: LocalKafka, topic: str) -> None:
    fill(kafka, topic, numbers(2_000))
    source = source_on(kafka, topic, until_end=True)
    place: dict[bytes, set[int]] = {}
    order: dict[bytes, list[int]] = {}
    while not source.finished:
        if batch := source.poll(300, 0.2):
            for i, (value, partition) in enumerate(zip(batch.values, batch.partitions, strict=True)):
                key = batch.envelope(i)[0] or b""
                place.setdefault(key, set()).add(partition)
                order.setdefault(key, []).append(int(value[5:-1]))
    source.close()
    assert all(len(partitions) == 1 for partitions in place.values())
    assert len({p for partitions in place.values() for p in partitions}) == 4
    assert all(ns == sorted(ns) for ns in order.values())


def test_a_record_of_ten_megabytes_comes_through_whole(kafka: LocalKafka, topic: str) -> None:
    huge = b'{"pad":"' + b"x" * 10_000_000 + b'"}'
    sink = sink_on(kafka, topic)
    sink.write([b"before", huge, b"after"], [b"k", b"k", b"k"])
    sink.close()
    source = source_on(kafka, topic, until_end=True)
    assert read_all(source) == [b"before", huge, b"after"]
    source.close()


def test_a_record_that_the_topic_refuses_is_an_error_with_the_mend(kafka: LocalKafka) -> None:
    ensure_topics(["narrow"], bootstrap_servers=kafka.bootstrap_servers, config={"max.message.bytes": "2000"})
    sink = sink_on(kafka, "narrow")
    with pytest.raises(SinkError, match=r"1 records could not be written.*raise the topic's max\.message\.bytes"):
        _write_and_flush(sink, [b"x" * 10_000])
    with pytest.raises(SinkError):  # It stays failed: nothing may be committed past a lost record.
        _write_and_flush(sink, [b"small"])
    with pytest.raises(SinkError):
        sink.close()


def _write_and_flush(sink: KafkaSink, values: list[bytes]) -> None:
    sink.write(values)
    sink.flush()


# At-least-once


def test_records_read_and_not_committed_come_again(kafka: LocalKafka, topic: str) -> None:
    """I5: recovery is the last commit, then replay from there."""
    fill(kafka, topic, numbers(1_000))
    first = source_on(kafka, topic)
    committed = read_some(first, 300, max_records=100)
    first.commit()
    lost = read_some(first, 200, max_records=100)
    first.close()
    second = source_on(kafka, topic, until_end=True)
    rest = read_all(second)
    second.close()
    assert set(lost) <= set(rest)
    assert sorted(committed + rest) == sorted(numbers(1_000))


def test_a_partition_that_moves_to_another_member_loses_nothing(kafka: LocalKafka, topic: str) -> None:
    """A commit after the revoke must not cover what the old owner read and did not process."""
    fill(kafka, topic, numbers(4_000))
    first = source_on(kafka, topic)
    got = read_some(first, 500, max_records=500)
    first.commit()
    unprocessed = read_some(first, 500, max_records=500)
    second = source_on(kafka, topic)
    from_second: list[bytes] = []
    deadline_s = time.monotonic() + 60
    while not from_second:
        assert time.monotonic() < deadline_s
        first.poll(1, 0.05)  # Serves the rebalance; what it returns is not processed either.
        if batch := second.poll(1_000, 0.05):
            from_second += batch.values
    first.close()
    second.close()
    third = source_on(kafka, topic, until_end=True)
    rest = read_all(third)
    third.close()
    assert set(unprocessed) <= set(rest)
    assert set(got) | set(rest) == set(numbers(4_000))


ASSIGNORS = {
    "range": {},
    "cooperative-sticky": {"partition.assignment.strategy": "cooperative-sticky"},
    "consumer": {"group.protocol": "consumer"},
}


@pytest.mark.parametrize("assignor", ASSIGNORS)
def test_a_source_whose_records_are_in_a_state_does_not_go_on_without_one_of_its_partitions(
    kafka: LocalKafka, topic: str, assignor: str
) -> None:
    fill(kafka, topic, numbers(4_000))
    first = source_on(kafka, topic, settings=ASSIGNORS[assignor])
    first.start_at({})
    got = read_some(first, 3_500)  # Some of each partition: what was never read is in no state.
    second = source_on(kafka, topic, settings=ASSIGNORS[assignor])

    def read_both() -> None:
        deadline_s = time.monotonic() + 60
        while time.monotonic() < deadline_s:
            second.poll(1_000, 0.05)
            if batch := first.poll(1, 0.05):
                got.extend(batch.values)

    with pytest.raises(SourceError, match=r"gave partition \d(, \d)* to another member, and the state of its keys"):
        read_both()
    assert len(set(got)) == len(got)
    first.close()
    second.close()


@pytest.mark.parametrize("assignor", ASSIGNORS)
def test_partitions_that_come_back_go_on_behind_what_is_in_the_state(
    kafka: LocalKafka, topic: str, assignor: str
) -> None:
    """Another member that reads another topic has the group rebalanced, and takes none of them."""
    other = f"{topic}-other"
    ensure_topics([other], bootstrap_servers=kafka.bootstrap_servers)
    fill(kafka, topic, numbers(4_000))
    group = f"group-{topic}"
    first = source_on(kafka, topic, group=group, settings=ASSIGNORS[assignor])
    first.start_at({})
    got = read_some(first, 500, max_records=500)
    second = source_on(kafka, other, group=group, settings=ASSIGNORS[assignor])
    for _ in range(40):
        second.poll(1, 0.05)
        if batch := first.poll(20, 0.05):
            got += batch.values
    second.close()
    got += read_some(first, 4_000 - len(got))
    assert sorted(got) == sorted(numbers(4_000))
    first.close()


@pytest.mark.parametrize("assignor", ["cooperative-sticky", "group.protocol=consumer"])
def test_other_group_protocols_work_by_settings(kafka: LocalKafka, topic: str, assignor: str) -> None:
    fill(kafka, topic, numbers(500))
    name, _, value = assignor.partition("=")
    settings = {name: value} if value else {"partition.assignment.strategy": assignor}
    first = source_on(kafka, topic, until_end=True, settings=settings)
    assert sorted(read_all(first)) == sorted(numbers(500))
    first.commit()
    first.close()
    again = source_on(kafka, topic, until_end=True, settings=settings)
    assert read_all(again) == []
    again.close()


def test_start_positions(kafka: LocalKafka, topic: str) -> None:
    fill(kafka, topic, numbers(100))
    first = source_on(kafka, topic, until_end=True)
    assert len(read_all(first)) == 100
    first.commit()
    first.close()
    again = source_on(kafka, topic, until_end=True, start="earliest")
    assert len(read_all(again)) == 100
    again.close()
    latest = source_on(kafka, topic, start="latest", group="newcomers")
    while latest.lag is None:
        assert latest.poll(10, 0.1) is None
    fill(kafka, topic, numbers(50, start=100))
    assert sorted(read_some(latest, 50)) == sorted(numbers(50, start=100))
    latest.close()


def test_until_end_stops_at_the_ends_seen_at_start(kafka: LocalKafka, topic: str) -> None:
    fill(kafka, topic, numbers(1_000))
    source = source_on(kafka, topic, until_end=True)
    got = read_some(source, 1, max_records=1)
    fill(kafka, topic, numbers(1_000, start=1_000))
    got += read_all(source)
    assert sorted(got) == sorted(numbers(1_000))
    source.commit()
    source.close()
    rest = source_on(kafka, topic, until_end=True)
    assert sorted(read_all(rest)) == sorted(numbers(1_000, start=1_000))
    rest.close()


def test_records_that_retention_removed_are_counted_and_told(kafka: LocalKafka, topic: str) -> None:
    fill(kafka, topic, numbers(100))
    first = source_on(kafka, topic, until_end=True)
    got = read_all(first)
    first.commit()
    first.close()
    fill(kafka, topic, numbers(400, start=100))
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(topic, p, 60) for p in range(4)]).values():
        future.result()  # In each partition about 25 records are committed, and 60 are now gone.
    second = source_on(kafka, topic, until_end=True)
    with structlog.testing.capture_logs() as logs:
        rest = read_all(second)
    second.close()
    missing = set(numbers(500)) - set(got) - set(rest)
    assert second.expired_records == len(missing) > 0
    told = [line["records"] for line in logs if line["event"] == "records expired before they were read"]
    assert sum(told) == len(missing)


def test_lag_falls_to_zero(kafka: LocalKafka, topic: str) -> None:
    fill(kafka, topic, numbers(1_000))
    source = source_on(kafka, topic, start="earliest")
    assert source.lag is None
    read_some(source, 1, max_records=1)
    read_some(source, 999)
    assert source.lag == 0
    source.close()


def test_an_event_at_a_low_rate_does_not_wait_for_others(kafka: LocalKafka, topic: str) -> None:
    source = source_on(kafka, topic, start="latest")
    while source.lag is None:
        source.poll(1, 0.1)
    sink = sink_on(kafka, topic)
    waits = []
    for value in numbers(20):
        sink.write([value])
        begun_s = time.monotonic()
        assert read_some(source, 1, max_records=10_000) == [value]
        waits.append(time.monotonic() - begun_s)
    source.close()
    sink.close()
    assert sorted(waits)[10] < 0.05  # A batch that waits to be full would take the whole timeout of 0.1 s.


def test_what_lingers_leaves_when_the_sink_is_told_to_hurry(kafka: LocalKafka, topic: str) -> None:
    sink = sink_on(kafka, topic, settings={"linger.ms": "60000"})
    sink.write(numbers(20), keys(20))
    assert sink.queued_records == 20
    # Far sooner than it would linger. The client's threads have 1 ms to see it, which on a busy machine they may miss.
    for _ in range(1_000):
        sink.hurry()
        if sink.queued_records == 0:
            break
        time.sleep(0.01)
    source = source_on(kafka, topic, start="earliest")
    assert sorted(read_some(source, 20, timeout_s=20.0)) == sorted(numbers(20))
    sink.close()
    source.close()


# A broker that goes away


def _pump(sink: KafkaSink, values: list[bytes], pause_s: float, failures: list[BaseException]) -> None:
    try:
        for start in range(0, len(values), 50):
            chunk = values[start : start + 50]
            sink.write(chunk, keys(len(chunk)))
            time.sleep(pause_s)
        sink.flush()
    except BaseException as error:
        failures.append(error)


@pytest.mark.slow
@pytest.mark.parametrize("outage", ["paused", "restarted", "killed"])
def test_an_outage_mid_stream_loses_nothing(fragile_kafka: LocalKafka, outage: str) -> None:
    topic = f"outage-{outage}"
    ensure_topics([topic], bootstrap_servers=fragile_kafka.bootstrap_servers)
    values = numbers(10_000)
    sink, source = sink_on(fragile_kafka, topic), source_on(fragile_kafka, topic)
    failures: list[BaseException] = []
    pump = threading.Thread(target=_pump, args=(sink, values, 0.05, failures))
    pump.start()
    got = read_some(source, 1_000)
    source.commit()
    breaker = threading.Thread(target=_break, args=(fragile_kafka, outage))
    with structlog.testing.capture_logs() as logs:
        breaker.start()
        missing = set(values) - set(got)
        deadline_s = time.monotonic() + 120
        while missing:
            assert time.monotonic() < deadline_s, f"{len(missing)} records have not come"
            if batch := source.poll(1_000, 0.1):
                missing -= set(batch.values)
                source.commit()
        breaker.join()
        pump.join()
        # A broker is believed to be back a second after it first answered, and the last record may come before that.
        while outage != "paused" and not any(
            line["event"] == "broker is back" and line["role"] == "source" for line in logs
        ):
            assert time.monotonic() < deadline_s, "nobody said that the broker is back"
            source.poll(1_000, 0.1)
    assert not failures
    source.close()
    sink.close()
    after = source_on(fragile_kafka, topic, until_end=True)
    assert read_all(after) == []  # The commits got through after all.
    after.close()
    if outage != "paused":
        told = [line["role"] for line in logs if line["event"] == "broker is away, waiting"]
        assert sorted(told) == ["sink", "source"]
        assert {line["role"] for line in logs if line["event"] == "broker is back"} == {"sink", "source"}


def _break(kafka: LocalKafka, outage: str) -> None:
    if outage == "paused":
        kafka.pause()
        time.sleep(5)
        kafka.resume()
        return
    if outage == "killed":
        kafka.kill()
        time.sleep(2)
    kafka.restart()


@pytest.mark.slow
def test_write_blocks_at_the_bound_while_the_broker_is_away(fragile_kafka: LocalKafka) -> None:
    ensure_topics(["bounded"], bootstrap_servers=fragile_kafka.bootstrap_servers)
    sink = sink_on(fragile_kafka, "bounded", max_queued_records=1_000)
    fragile_kafka.pause()
    values = numbers(5_000)
    writer = threading.Thread(target=sink.write, args=(values,))
    writer.start()
    time.sleep(1.5)
    assert writer.is_alive()
    assert sink.queued_records <= 1_000
    fragile_kafka.resume()
    writer.join(30)
    assert not writer.is_alive()
    sink.close()
    source = source_on(fragile_kafka, "bounded", until_end=True)
    assert sorted(read_all(source)) == sorted(values)
    source.close()


def test_the_queue_is_bounded_in_bytes_too(kafka: LocalKafka, topic: str) -> None:
    values = [b"%04d" % n + b"x" * 100_000 for n in range(300)]
    sink = sink_on(kafka, topic, max_queued_bytes=2 * 1024 * 1024, max_record_bytes=1024 * 1024)
    sink.write(values, [b"one"] * len(values))
    sink.close()
    source = source_on(kafka, topic, until_end=True)
    assert read_all(source) == values  # Refused and queued again, and still in order.
    source.close()


def test_records_that_cannot_be_delivered_in_time_are_an_error(fragile_kafka: LocalKafka) -> None:
    ensure_topics(["late"], bootstrap_servers=fragile_kafka.bootstrap_servers)
    sink = sink_on(fragile_kafka, "late", delivery_timeout_s=1.5)
    fragile_kafka.pause()
    try:
        sink.write(numbers(10))
        with pytest.raises(SinkError, match=r"10 records could not be written.*mend the broker"):
            sink.flush()
    finally:
        fragile_kafka.resume()
    with pytest.raises(SinkError):
        sink.close()


# Wrong configuration


@pytest.mark.parametrize("make", [source_on, sink_on])
def test_an_unknown_setting_is_named(kafka: LocalKafka, topic: str, make: object) -> None:
    with pytest.raises(ConfigurationError, match=r'No such configuration property: "sasl\.pasword"') as caught:
        make(kafka, topic, settings={"sasl.pasword": "hunter2"})  # type: ignore[operator]
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"enable.auto.commit": "true"}, "committed only after"),
        ({"bootstrap.servers": "x:1"}, "give bootstrap_servers"),
        ({"group.id": "x"}, "give group"),
    ],
)
def test_settings_that_would_break_the_guarantee_are_refused(
    kafka: LocalKafka, topic: str, settings: dict[str, str], hint: str
) -> None:
    with pytest.raises(ConfigurationError, match=hint):
        source_on(kafka, topic, settings=settings)


def test_secrets_are_not_shown(kafka: LocalKafka, topic: str) -> None:
    settings = {"sasl.password": "hunter2", "sasl.username": "ann"}
    source, sink = source_on(kafka, topic, settings=settings), sink_on(kafka, topic, settings=settings)
    assert "hunter2" not in f"{source!r} {sink!r}"
    source.close()
    sink.close()


@pytest.mark.parametrize(("make", "error"), [(source_on, SourceError), (sink_on, SinkError)])
def test_a_missing_topic_stops_the_start(kafka: LocalKafka, make: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"'nowhere'.*the topic does not exist.*create it"):
        make(kafka, "nowhere")  # type: ignore[operator]


def test_no_broker_stops_the_start() -> None:
    with pytest.raises(SourceError, match=r"no broker answered within 1 s: .*Connect.*refused.*Check the address"):
        KafkaSource(stream="s", topic="t", bootstrap_servers="127.0.0.1:9", group="g", open_timeout_s=1.0)
    with pytest.raises(SinkError, match="no broker answered within 1 s"):
        KafkaSink(topic="t", bootstrap_servers="127.0.0.1:9", open_timeout_s=1.0)


def test_open_by_uri(kafka: LocalKafka, topic: str) -> None:
    uri = f"kafka://{kafka.bootstrap_servers}/{topic}"
    sink = open_sink(uri, settings={"linger.ms": "0"})
    sink.write([b"1", b"2"])
    sink.close()
    source = open_source(f"{uri}?group=g&start=earliest&until_end=true", stream="clicks")
    assert source.stream == "clicks"
    assert sorted(read_all(source)) == [b"1", b"2"]
    source.close()


# The local broker itself


def test_topics_that_exist_are_left_alone(kafka: LocalKafka, topic: str) -> None:
    wanted = {topic: 7, "new-one": 2}
    assert ensure_topics(wanted, bootstrap_servers=kafka.bootstrap_servers) == ["new-one"]


def test_a_broker_that_cannot_start_leaves_nothing_behind(
    kafka: LocalKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ConfigurationError, match=f"port {kafka.port} is taken"):
        LocalKafka(port=kafka.port).start()
    with pytest.raises(ConfigurationError, match=r"the broker died\. The end of its log: .*heap"):
        LocalKafka(heap_mb=1).start()
    assert list(tmp_path.iterdir()) == []
