"""Creates topics, waits until they can be written and read, and counts what they hold."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from gillnet.connectors.kafka.client import Settings, check_settings, connection_settings, make_client, readable
from gillnet.core.errors import ConfigurationError
from gillnet.core.time import Clock, SystemClock


def ensure_topics(
    topics: Sequence[str] | Mapping[str, int],
    *,
    bootstrap_servers: str,
    partitions: int = 4,
    replication_factor: int = -1,
    config: Mapping[str, str] | None = None,
    settings: Settings | None = None,
    timeout_s: float = 30.0,
    clock: Clock | None = None,
) -> list[str]:
    """Create the topics that do not exist yet, and return when each of their partitions has a leader.

    Parameters
    ----------
    topics
        Names; or a mapping of name to number of partitions.
    bootstrap_servers
        ``host:port``, several with commas.
    partitions
        Of a topic that is given without a number. A topic that exists keeps its own.
    replication_factor
        -1 takes the broker's default.
    config
        Topic settings, such as ``{"max.message.bytes": "16777216"}``; for the topics that are created.
    settings
        librdkafka's settings (TLS, SASL).
    timeout_s
        The longest wait, in seconds.

    Returns
    -------
    list of str
        The topics that were created.

    Raises
    ------
    ConfigurationError
        If the broker refuses (authorization, a bad name or setting) or does not answer in time.
    """
    clock = clock or SystemClock()
    what = f"Kafka topics at {bootstrap_servers}"
    passed = check_settings(settings, reserved={"bootstrap.servers": "give bootstrap_servers"}, what=what)
    # Why there is no connection, such as a wrong password: requests only say that time is up.
    causes: deque[KafkaError] = deque(maxlen=1)
    client = {"bootstrap.servers": bootstrap_servers, "error_cb": partial(_keep_cause, causes)}
    admin = make_client(AdminClient, client, settings=passed, what=what)
    wanted = dict(topics) if isinstance(topics, Mapping) else dict.fromkeys(topics, partitions)
    new = [
        NewTopic(name, num_partitions=count, replication_factor=replication_factor, config=dict(config or {}))
        for name, count in wanted.items()
    ]
    created = [
        name
        for name, future in admin.create_topics(new, operation_timeout=timeout_s, request_timeout=timeout_s).items()
        if _was_created(name, future, what=what, settings=passed, cause=lambda: _cause(admin, causes))
    ]
    deadline_s = clock.monotonic_s() + timeout_s
    while missing := _without_leader(admin, wanted):
        if clock.monotonic_s() > deadline_s:
            raise ConfigurationError(
                f"{what}: no leader after {timeout_s:g} s for {', '.join(missing)}; is the broker well?"
            )
        clock.sleep(0.02)
    return created


def count_records(
    topics: Sequence[str], *, bootstrap_servers: str, settings: Settings | None = None, timeout_s: float = 10.0
) -> dict[str, int]:
    """Return how many records each topic holds, transaction markers and compacted records included.

    Raises
    ------
    ConfigurationError
        If the broker does not answer in time, or a topic does not exist.
    """
    what = f"Kafka topics at {bootstrap_servers}"
    passed = check_settings(settings, reserved={"bootstrap.servers": "give bootstrap_servers"}, what=what)
    admin = make_client(AdminClient, {"bootstrap.servers": bootstrap_servers}, settings=passed, what=what)
    counts = dict.fromkeys(topics, 0)
    try:
        known = admin.list_topics(timeout=timeout_s).topics
        if missing := [name for name in topics if name not in known]:
            raise ConfigurationError(f"{what}: {missing[0]!r} does not exist.")
        places = [TopicPartition(name, partition) for name in topics for partition in known[name].partitions]
        ends: Any = OffsetSpec  # Ships without types.
        for sign, end in ((-1, ends.earliest()), (1, ends.latest())):
            asked = admin.list_offsets(dict.fromkeys(places, end), request_timeout=timeout_s)
            for place, future in asked.items():
                counts[place.topic] += sign * future.result().offset
    except KafkaException as error:
        raise ConfigurationError(f"{what}: they cannot be counted: {readable(error, passed)}.") from None
    return counts


def count_partitions(
    topic: str, *, bootstrap_servers: str, settings: Settings | None = None, timeout_s: float = 10.0
) -> int:
    """Return how many partitions a topic has.

    Raises
    ------
    ConfigurationError
        If the broker does not answer in time, or the topic does not exist.
    """
    what = f"Kafka topic {topic!r} at {bootstrap_servers}"
    passed = check_settings(settings, reserved={"bootstrap.servers": "give bootstrap_servers"}, what=what)
    admin = make_client(AdminClient, {"bootstrap.servers": bootstrap_servers}, settings=passed, what=what)
    try:
        known = admin.list_topics(topic, timeout=timeout_s).topics[topic]
        if known.error is not None:
            raise KafkaException(known.error)
    except KafkaException as error:
        raise ConfigurationError(f"{what}: its partitions cannot be counted: {readable(error, passed)}.") from None
    return len(known.partitions)


def newest_records(
    topic: str, *, bootstrap_servers: str, most: int, settings: Settings | None = None, timeout_s: float = 10.0
) -> dict[int, list[bytes]]:
    """Return up to ``most`` of the newest records of each partition of a topic.

    Raises
    ------
    ConfigurationError
        If the broker does not answer in time, or the topic does not exist.
    """
    what = f"Kafka topic {topic!r} at {bootstrap_servers}"
    passed = connection_settings(settings or {})
    config = {
        "bootstrap.servers": bootstrap_servers,
        "group.id": "gillnet.look",
        "enable.auto.commit": "false",
        "enable.partition.eof": "true",
    }
    consumer: Any = make_client(Consumer, config, settings=passed, what=what)
    try:
        known = consumer.list_topics(topic, timeout=timeout_s).topics[topic]
        if known.error is not None:
            raise KafkaException(known.error)
        found: dict[int, list[bytes]] = {partition: [] for partition in sorted(known.partitions)}
        ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=timeout_s) for p in found}
        consumer.assign([TopicPartition(topic, p, max(low, high - most)) for p, (low, high) in ends.items()])
        unread = set(found)
        while unread:
            for message in consumer.consume(most, 1.0):
                if message.error() is None:
                    found[message.partition()].append(message.value() or b"")
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                if message.offset() + 1 >= ends[message.partition()][1]:
                    unread.discard(message.partition())
    except (KafkaException, TypeError) as error:
        raise ConfigurationError(f"{what}: it cannot be read: {readable(error, passed)}.") from None
    finally:
        consumer.close()
    return {partition: values[:most] for partition, values in found.items()}


def largest_records(
    topics: Sequence[str], *, bootstrap_servers: str, settings: Settings | None = None, timeout_s: float = 10.0
) -> dict[str, int]:
    """Return the largest record that each topic takes, ``max.message.bytes``.

    Raises
    ------
    ConfigurationError
        If the broker does not answer in time, refuses, or a topic does not exist.
    """
    what = f"Kafka topics at {bootstrap_servers}"
    connection = connection_settings(settings or {})
    admin = make_client(AdminClient, {"bootstrap.servers": bootstrap_servers}, settings=connection, what=what)
    resources = {ConfigResource(ConfigResource.Type.TOPIC, name): name for name in topics}
    found: dict[str, int] = {}
    try:
        for resource, future in admin.describe_configs(list(resources), request_timeout=timeout_s).items():
            found[resources[resource]] = int(future.result()["max.message.bytes"].value)
    except KafkaException as error:
        raise ConfigurationError(f"{what}: their settings cannot be read: {readable(error, connection)}.") from None
    return found


def _keep_cause(causes: deque[KafkaError], error: KafkaError) -> None:
    if error.code() != KafkaError._ALL_BROKERS_DOWN:  # That one only counts the brokers; the cause came before it.
        causes.append(error)


def _cause(admin: Any, causes: deque[KafkaError]) -> KafkaError | None:
    admin.poll(0)  # Serves error_cb.
    return causes[-1] if causes else None


def _was_created(name: str, future: Any, *, what: str, settings: Settings, cause: Callable[[], Any]) -> bool:
    try:
        future.result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        timed_out = error.args[0].code() == KafkaError._TIMED_OUT
        why = readable((timed_out and cause()) or error, settings)
        raise ConfigurationError(f"{what}: {name!r} cannot be created: {why}.") from None
    return True


def _without_leader(admin: Any, wanted: Mapping[str, int]) -> list[str]:
    try:
        known = admin.list_topics(timeout=2.0).topics
    except KafkaException:
        return list(wanted)
    return [
        name
        for name in wanted
        if name not in known
        or not known[name].partitions
        or any(partition.leader < 0 for partition in known[name].partitions.values())
    ]
