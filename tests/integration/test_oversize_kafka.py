"""Records that are larger than others: aside, whole where the topic allows it, else cut with a header that says so."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import structlog
from confluent_kafka import Consumer, TopicPartition

from gillnet.connectors.kafka import KafkaSink, ensure_topics
from gillnet.core.messages import OutputRecord

from .faulty import Bench, payment, read_topic

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gillnet.connectors.local_kafka import LocalKafka

pytestmark = pytest.mark.kafka

HUGE = payment(1, pad="x" * 10_000_000)


@pytest.fixture
def bench(kafka: LocalKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(kafka, tmp_path, re.sub(r"[^a-zA-Z0-9_.-]", "-", request.node.name))
    yield made
    made.close()


def give(bench: Bench, values: Sequence[bytes]) -> None:
    sink = KafkaSink(topic=bench.topic, bootstrap_servers=bench.servers)
    sink.write_records([OutputRecord(value=v, key=b"k", headers=[("trace", b"7")]) for v in values])
    sink.close()


def read_at(bench: Bench, partition: int, offset: int) -> bytes:
    consumer = Consumer({"bootstrap.servers": bench.servers, "group.id": "by-offset", "enable.auto.commit": "false"})
    try:
        consumer.assign([TopicPartition(bench.topic, partition, offset)])
        [message] = consumer.consume(1, 20.0)
        value: bytes = message.value()
        return value
    finally:
        consumer.close()


def test_ten_megabytes_go_aside_whole_and_the_stream_goes_on(bench: Bench) -> None:
    give(bench, [payment(0), HUGE, payment(2)])
    bench.finish()
    assert sorted(bench.ids()) == ["p0", "p2"]
    [(value, key, headers)] = bench.read("payments.malformed")
    assert (value, key) == (HUGE, b"k")
    assert headers[0] == ("trace", b"7")
    told = dict(headers)
    assert told["gillnet.reason"] == b"too_large"
    assert read_at(bench, int(told["gillnet.partition"]), int(told["gillnet.offset"])) == HUGE


@pytest.mark.parametrize(("limit", "kept"), [("1048588", 262_144), ("2000", 0)])
def test_a_topic_that_is_too_narrow_gets_a_cut_copy_that_says_where_the_whole_is(
    bench: Bench, limit: str, kept: int
) -> None:
    name = bench.out("payments.malformed")
    ensure_topics([name], bootstrap_servers=bench.servers, config={"max.message.bytes": limit})
    give(bench, [payment(0), b"small", HUGE, b"{", payment(2)])
    events = bench.finish()
    assert events.count("record cut to fit the topic") == 1
    assert sorted(bench.ids()) == ["p0", "p2"]
    aside = bench.read("payments.malformed")
    assert sorted(value for value, _, _ in aside) == sorted([b"small", b"{", HUGE[:kept]])
    [told] = [dict(headers) for _, _, headers in aside if "gillnet.original_bytes" in dict(headers)]
    assert told["gillnet.original_bytes"] == str(len(HUGE)).encode()
    assert told["gillnet.reason"] == b"too_large"
    assert read_at(bench, int(told["gillnet.partition"]), int(told["gillnet.offset"])) == HUGE
    assert bench.committed() == 5


def test_a_record_above_the_sink_s_own_limit_is_cut_too(kafka: LocalKafka, topic: str) -> None:
    sink = KafkaSink(topic=topic, bootstrap_servers=kafka.bootstrap_servers, max_record_bytes=500_000)
    with structlog.testing.capture_logs() as logs:
        sink.write_records([OutputRecord(value=b"x" * 600_000, key=b"k", headers=[("gillnet.reason", b"too_large")])])
        sink.close()
    [(value, key, headers)] = read_topic(kafka.bootstrap_servers, topic)
    assert (value, key) == (b"x" * 262_144, b"k")
    assert dict(headers)["gillnet.original_bytes"] == b"600000"
    assert sink.cut_records == len([line for line in logs if line["event"] == "record cut to fit the topic"]) == 1


def test_small_records_whose_batch_was_too_large_are_written_whole(kafka: LocalKafka) -> None:
    ensure_topics(["narrow-aside"], bootstrap_servers=kafka.bootstrap_servers, config={"max.message.bytes": "3000"})
    sink = KafkaSink(topic="narrow-aside", bootstrap_servers=kafka.bootstrap_servers, settings={"linger.ms": "200"})
    values = [b"%03d" % n + b"y" * 500 for n in range(60)]
    sink.write_records([OutputRecord(value=value, key=b"one") for value in values])
    sink.close()
    assert sink.cut_records == 0
    assert sorted(value for value, _, _ in read_topic(kafka.bootstrap_servers, "narrow-aside")) == values
