"""Topics of the benchmark: create, fill, read, delete."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bench.payments.workload import Workload, encode, generate

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTITIONS = 4
# The partitioner of the Java clients, so that the spread of cards is what a JVM producer would give.
PARTITIONER = "murmur2_random"
_READ_TIMEOUT_S = 30.0


def create_topic(bootstrap: str, topic: str) -> None:
    """Create a topic with `PARTITIONS` partitions and wait until the broker leads them all."""
    admin = _admin(bootstrap)
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        found = admin.list_topics(topic, timeout=10).topics.get(topic)
        if found is not None and len(found.partitions) == PARTITIONS:
            return
        time.sleep(0.05)
    raise RuntimeError(f"Topic {topic} did not appear within 30 s.")


def delete_topic(bootstrap: str, topic: str) -> None:
    """Delete a topic, so that the disk does not fill over many rounds."""
    admin = _admin(bootstrap)  # must outlive the call that it has under way
    admin.delete_topics([topic])[topic].result(30)


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 3})


def fill(bootstrap: str, topic: str, workload: Workload) -> int:
    """Produce a workload in order, uncompressed, keyed by card.

    Returns
    -------
    int
        Bytes of all values.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "linger.ms": 50,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 2_000_000,
            "enable.idempotence": True,
            "partitioner": PARTITIONER,
            "log_level": 3,  # a new broker makes an idempotent producer ask twice; that is no news
        }
    )
    size_bytes = 0
    for chunk in generate(workload):
        keys, values = encode(chunk)
        for key, value in zip(keys, values, strict=True):
            producer.produce(topic, value, key)
            size_bytes += len(value)
        producer.poll(0)
        producer.flush()
    return size_bytes


def read(bootstrap: str, topic: str, records: int) -> Iterator[list[Message]]:
    """Yield all records of a topic in batches, in order within each partition; ends early if none come for a while.

    Reads on to the end of the topic even after ``records``, so that surplus records are seen.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"read-{topic}",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 2,
        }
    )
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    try:
        seen = 0
        quiet_since_s = time.monotonic()
        while time.monotonic() - quiet_since_s < (_READ_TIMEOUT_S if seen < records else 0.5):
            batch = consumer.consume(5_000, timeout=0.2)
            for message in batch:
                if message.error() is not None:
                    raise KafkaException(message.error())
            if batch:
                quiet_since_s = time.monotonic()
                seen += len(batch)
                yield batch
    finally:
        consumer.close()
