"""Source and sink on a real Pulsar: the contracts of their ports, what a record carries, subscriptions, refusals and quotas."""

from __future__ import annotations

import itertools
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from gillnet.connectors.pulsar import EventTimeField, PulsarSink, PulsarSource
from gillnet.connectors.pulsar.client import make_client
from gillnet.connectors.pulsar.places import MESSAGE_ID
from gillnet.connectors.pulsar_admin import PulsarAdmin
from gillnet.core.errors import ConfigurationError, SinkError, SourceError
from gillnet.core.messages import OutputRecord
from gillnet.testing.conformance import check_sink, check_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gillnet.connectors.local_pulsar import LocalPulsar
    from gillnet.core.messages import RawBatch
    from gillnet.core.ports import Source

pytestmark = pytest.mark.pulsar


def settings(broker: LocalPulsar, role: str = "team-a") -> dict[str, str]:
    return {"token": broker.token(role), "admin_url": broker.admin_url}


def sink_on(broker: LocalPulsar, topic: str, role: str = "team-a", **options: Any) -> PulsarSink:
    return PulsarSink(
        topic=topic, service_url=f"pulsar://{broker.address}", **{"settings": settings(broker, role), **options}
    )


def source_on(broker: LocalPulsar, topic: str, role: str = "team-a", **options: Any) -> PulsarSource:
    options = {"subscription": "s", "settings": settings(broker, role), "busy_timeout_s": 10.0, **options}
    return PulsarSource(stream="payments", topic=topic, service_url=f"pulsar://{broker.address}", **options)


def client_of(broker: LocalPulsar, role: str = "team-a") -> Any:
    return make_client(f"pulsar://{broker.address}", settings(broker, role), timeout_s=10, what="test")


def read(source: PulsarSource, count: int, *, at_once: int = 1_000, timeout_s: float = 20.0) -> list[RawBatch]:
    """Batches with ``count`` records in all."""
    batches: list[RawBatch] = []
    deadline_s = time.monotonic() + timeout_s
    while (got := sum(len(batch.values) for batch in batches)) < count:
        assert time.monotonic() < deadline_s, f"{got} of {count} records came"
        if batch := source.poll(min(at_once, count - got), 0.2):
            batches.append(batch)
    return batches


def values(batches: Sequence[RawBatch]) -> list[bytes]:
    return [value for batch in batches for value in batch.values]


def numbered(count: int, first: int = 0) -> tuple[list[bytes], list[bytes | None]]:
    numbers = range(first, first + count)
    return [b'{"n":%d}' % n for n in numbers], [b"k%d" % (n % 13) for n in numbers]


def test_source_conforms(pulsar_broker: LocalPulsar, pulsar_topic: str) -> None:
    number = itertools.count()

    def open_on(values: Sequence[bytes]) -> Source:
        topic = f"{pulsar_topic}-{next(number)}"
        pulsar_broker.admin.create_topic(topic, partitions=3)
        with closing(client_of(pulsar_broker)) as client:
            # A plain producer: its batches keep the order of a whole partition, and not only of each key.
            producer = client.create_producer(f"persistent://{topic}", batching_enabled=True)
            for n, value in enumerate(values):
                producer.send_async(value, lambda *_: None, partition_key=f"k{n % 5}")
            producer.flush()
        return source_on(pulsar_broker, topic, until_end=True)

    def reopen(closed: Source) -> Source:
        assert isinstance(closed, PulsarSource)
        return source_on(pulsar_broker, closed.topic, until_end=True)

    check_source(open_on, reopen=reopen)


def test_sink_conforms(pulsar_broker: LocalPulsar, pulsar_topic: str) -> None:
    number = itertools.count()

    def read_back() -> list[OutputRecord]:
        source = source_on(
            pulsar_broker, pulsar_topic, subscription=f"r{next(number)}", start="earliest", until_end=True
        )
        records: list[OutputRecord] = []
        while not source.finished:
            if batch := source.poll(1_000, 0.2):
                records += [
                    OutputRecord(value=value, key=key, headers=headers)
                    for value, (key, headers) in zip(
                        batch.values, map(batch.envelope, range(len(batch.values))), strict=True
                    )
                ]
        source.close()
        return records

    check_sink(lambda: sink_on(pulsar_broker, pulsar_topic), read_back)


def test_what_a_record_carries_comes_through_and_a_key_keeps_its_order(
    pulsar_broker: LocalPulsar, pulsar_topic: str
) -> None:
    headers = [("reason", b"not-json"), ("binary", b"\x00\xff"), ("empty", None)]
    sink = sink_on(pulsar_broker, pulsar_topic)
    sink.write_records([OutputRecord(value=b"\xff\x00 not json", key=b"\xfe", headers=headers)])
    sent, keys = numbered(500)
    sink.write(sent, keys)
    sink.close()
    source = source_on(pulsar_broker, pulsar_topic)
    batches = read(source, 501)
    source.close()
    found: dict[bytes | None, list[bytes]] = {}
    for batch in batches:
        for place, value in enumerate(batch.values):
            key, told = batch.envelope(place)
            found.setdefault(key, []).append(value)
            if key == b"\xfe":
                assert (value, dict(told) | {MESSAGE_ID: b""}) == (
                    b"\xff\x00 not json",
                    {**dict(headers), MESSAGE_ID: b""},
                )
                assert dict(told)[MESSAGE_ID].count(b":") == 3
            assert batch.recorded_arrival_us(place) == pytest.approx(time.time_ns() / 1_000, abs=120e6)
    assert {key: got for key, got in found.items() if key != b"\xfe"} == {
        b"k%d" % k: [v for v, key in zip(sent, keys, strict=True) if key == b"k%d" % k] for k in range(13)
    }
    assert {p for batch in batches for p in batch.partitions} <= set(source.partitions) == set(range(4))


def test_event_time_of_the_message_goes_into_the_record(pulsar_broker: LocalPulsar, pulsar_topic: str) -> None:
    with closing(client_of(pulsar_broker)) as client:
        producer = client.create_producer(f"persistent://{pulsar_topic}")
        producer.send(b' {"id":"a"}', event_timestamp=1_767_225_600_123)
        producer.send(b'{"id":"no time"}')
        producer.send(b"[1]", event_timestamp=1_767_225_600_123)
    source = source_on(pulsar_broker, pulsar_topic, event_time=EventTimeField(name="ts", unit="us"))
    batches = read(source, 3)
    source.close()
    assert sorted(values(batches)) == sorted([b'{"ts":1767225600123000,"id":"a"}', b'{"id":"no time"}', b"[1]"])
    originals = [batch.original(place) for batch in batches for place in range(len(batch.values))]
    assert sorted(originals) == sorted([b' {"id":"a"}', b'{"id":"no time"}', b"[1]"])


# Reading again


def test_an_exclusive_source_goes_on_from_any_mark_and_replays_its_batches_exactly(
    pulsar_broker: LocalPulsar, pulsar_topic: str
) -> None:
    sink = sink_on(pulsar_broker, pulsar_topic)
    sink.write(*numbered(100))
    sink.flush()
    first = source_on(pulsar_broker, pulsar_topic)
    first.start_at({})
    before = values(read(first, 100))
    sink.write(*numbered(900, first=100))
    sink.flush()
    before += values(read(first, 233, at_once=37))
    mark = first.mark()
    assert set(mark) == set(range(4))
    noted = [(batch, batch.stretch()) for batch in read(first, 400, at_once=41)]
    first.commit_to(mark)
    with pytest.raises(SourceError, match="another consumer has the subscription"):
        source_on(pulsar_broker, pulsar_topic, busy_timeout_s=0.0)
    first.close()

    second = source_on(pulsar_broker, pulsar_topic)
    second.start_at(mark)
    for batch, stretch in noted:
        again = second.replay(stretch, 17)
        assert (list(again.values), list(again.partitions), again.stretch()) == (
            batch.values,
            batch.partitions,
            stretch,
        )
    rest = values(read(second, 267))
    assert sorted(before + values([batch for batch, _ in noted]) + rest) == sorted(numbered(1_000)[0])
    second.commit()
    end = second.mark()
    second.close()

    # Everything is acknowledged but the last entries: what comes now is new, and nothing twice.
    third = source_on(pulsar_broker, pulsar_topic)
    third.start_at(end)
    assert third.poll(100, 0.5) is None
    sink.write(*numbered(100, first=1_000))
    sink.close()
    assert sorted(values(read(third, 100))) == sorted(numbered(100, first=1_000)[0])
    assert third.poll(100, 0.3) is None
    third.close()

    # From an older mark everything behind it comes again, though it was acknowledged.
    older = source_on(pulsar_broker, pulsar_topic)
    older.start_at(mark)
    assert sorted(before + values(read(older, 767))) == sorted(numbered(1_100)[0])
    older.close()


@pytest.mark.parametrize("kind", ["failover", "key_shared"])
def test_a_subscription_that_moves_keys_without_telling_refuses_checkpoints(
    pulsar_broker: LocalPulsar, pulsar_topic: str, kind: Any
) -> None:
    source = source_on(pulsar_broker, pulsar_topic, subscription_type=kind)
    with pytest.raises(ConfigurationError, match=rf"a {kind} subscription goes with no checkpoints.*\?type=exclusive"):
        source.start_at({})
    source.close()
    with pytest.raises(ConfigurationError, match=f"start=earliest would move a {kind} subscription"):
        source_on(pulsar_broker, pulsar_topic, subscription_type=kind, start="earliest")


def test_a_mark_whose_records_are_gone_is_no_silent_gap(pulsar_broker: LocalPulsar, pulsar_topic: str) -> None:
    sink = sink_on(pulsar_broker, pulsar_topic)
    sink.write(*numbered(100))
    sink.flush()
    source = source_on(pulsar_broker, pulsar_topic)
    source.start_at({})
    read(source, 50, at_once=10)
    mark = source.mark()
    stretch = read(source, 10)[0].stretch()
    source.close()
    sink.close()
    pulsar_broker.admin.delete_topic(pulsar_topic)
    pulsar_broker.admin.create_topic(pulsar_topic, partitions=4)
    sink = sink_on(pulsar_broker, pulsar_topic)
    sink.write(*numbered(100, first=100))
    sink.close()
    again = source_on(pulsar_broker, pulsar_topic)
    again.start_at(mark)
    with pytest.raises(SourceError, match=r"is no longer there.*set-retention"):
        again.replay(stretch, 1)
    again.close()
    live = source_on(pulsar_broker, pulsar_topic)
    live.start_at(mark)
    with pytest.raises(SourceError, match=r"is no longer there.*set-retention"):
        read(live, 100)
    live.close()


# Subscriptions of several consumers


def test_key_shared_consumers_share_the_keys_each_in_order_and_what_one_leaves_goes_to_the_other(
    pulsar_broker: LocalPulsar, pulsar_topic: str
) -> None:
    pair = [source_on(pulsar_broker, pulsar_topic, subscription_type="key_shared") for _ in range(2)]
    for source in pair:
        source.poll(1, 0.1)
    sink = sink_on(pulsar_broker, pulsar_topic)
    sent, keys = numbered(2_000)
    sink.write(sent, keys)
    sink.flush()
    got: list[list[tuple[bytes | None, bytes]]] = [[], []]
    deadline_s = time.monotonic() + 20
    while sum(map(len, got)) < 2_000 and time.monotonic() < deadline_s:
        for mine, source in zip(got, pair, strict=True):
            if batch := source.poll(100, 0.05):
                mine += [(batch.envelope(i)[0], value) for i, value in enumerate(batch.values)]
                source.commit()
    assert sum(map(len, got)) == 2_000
    owned = [{key for key, _ in mine} for mine in got]
    assert all(owned)
    assert not owned[0] & owned[1]
    order = {value: place for place, value in enumerate(sent)}
    for mine in got:
        for key in {key for key, _ in mine}:
            places = [order[value] for k, value in mine if k == key]
            assert places == sorted(places)
    # One reads and dies without acknowledging: the other one gets its records.
    more, more_keys = numbered(500, first=2_000)
    sink.write(more, more_keys)
    sink.close()
    lost = {value for batch in read(pair[0], 50) for value in batch.values}
    pair[0].close()
    rest: set[bytes] = set()
    deadline_s = time.monotonic() + 20
    while not lost <= rest or len(rest) < 500:
        assert time.monotonic() < deadline_s, len(rest)
        if batch := pair[1].poll(100, 0.1):
            rest.update(batch.values)
            pair[1].commit()
    assert rest == set(more)
    pair[1].close()


def test_failover_gives_everything_to_the_one_that_is_left(pulsar_broker: LocalPulsar, pulsar_topic: str) -> None:
    sink = sink_on(pulsar_broker, pulsar_topic)
    sink.write(*numbered(400))
    sink.close()
    first = source_on(pulsar_broker, pulsar_topic, subscription_type="failover")
    done = set(values(read(first, 100, at_once=20)))
    first.commit()
    not_done = set(values(read(first, 100, at_once=20)))
    second = source_on(pulsar_broker, pulsar_topic, subscription_type="failover")
    first.close()
    seen: set[bytes] = set()
    deadline_s = time.monotonic() + 20
    while not not_done <= seen or len(seen | done) < 400:
        assert time.monotonic() < deadline_s
        if batch := second.poll(100, 0.1):
            seen.update(batch.values)
    assert seen | done == set(numbered(400)[0])
    second.close()


# Bounds


def test_more_than_the_queue_holds_is_written_at_the_pace_of_the_broker(
    pulsar_broker: LocalPulsar, pulsar_topic: str
) -> None:
    sink = sink_on(pulsar_broker, pulsar_topic, max_queued_records=2_000, max_queued_bytes=100_000)
    sent, _ = numbered(20_000)
    sink.write(sent, [b"the same"] * len(sent))
    assert sink.queued_records <= 2_000
    sink.close()
    source = source_on(pulsar_broker, pulsar_topic, receiver_queue=100)
    assert values(read(source, 20_000)) == sent
    source.close()


# Refused


def test_another_tenant_may_neither_read_nor_write_and_is_told_how_that_is_granted(
    pulsar_broker: LocalPulsar, pulsar_topic: str
) -> None:
    for opened in (source_on, sink_on):
        with pytest.raises(
            (SourceError, SinkError), match=r"refuses this client's role.*grant-permission team-a/fraud"
        ) as told:
            opened(pulsar_broker, pulsar_topic, "team-b")
        assert pulsar_broker.token("team-b") not in str(told.value)
    other = PulsarAdmin(pulsar_broker.admin_url, token=pulsar_broker.token("team-b"))
    with pytest.raises(Exception, match=r"refused \(40[13]\)"):
        other.backlog(f"{pulsar_topic}-partition-0", "s")


@pytest.mark.parametrize(
    ("token", "told"),
    [("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZG1pbiJ9.forged", "token is wrong or has expired"), ("", "wants a token")],
    ids=["wrong", "none"],
)
def test_a_wrong_token_is_told_from_a_broker_that_is_not_there(
    pulsar_broker: LocalPulsar, pulsar_topic: str, token: str, told: str
) -> None:
    with pytest.raises(SinkError, match=f"answers and does not let this client in.*{told}") as caught:
        sink_on(pulsar_broker, pulsar_topic, settings={"token": token} if token else {}, open_timeout_s=1.0)
    assert "forged" not in str(caught.value)


def test_a_full_backlog_quota_is_an_error_that_names_it(pulsar_broker: LocalPulsar) -> None:
    admin = pulsar_broker.admin
    admin.create_namespace("team-b/small", roles=["team-b"])
    admin.limit_backlog("team-b/small", bytes_most=50_000)
    topic = "team-b/small/payments"
    source_on(pulsar_broker, topic, "team-b").close()  # A subscription that does not read.
    sink = sink_on(pulsar_broker, topic, "team-b", delivery_timeout_s=20.0)

    def fill() -> None:
        for _ in range(60):  # The broker looks every two seconds.
            sink.write([b"x" * 10_000] * 10)
            sink.flush()
            time.sleep(0.25)

    with pytest.raises(SinkError, match=r"backlog quota of the namespace team-b/small is used up.*set-backlog-quota"):
        fill()
    with pytest.raises(SinkError, match="backlog quota"):
        sink.close()
    with pytest.raises(SinkError, match="backlog quota of the namespace team-b/small"):
        sink_on(pulsar_broker, topic, "team-b")


def test_a_record_aside_that_is_too_large_is_cut_and_one_of_the_rows_is_an_error(
    pulsar_broker: LocalPulsar, pulsar_topic: str
) -> None:
    sink = sink_on(pulsar_broker, pulsar_topic)
    sink.write_records([OutputRecord(value=b"x" * 6_000_000, headers=[("gillnet.reason", b"not_json")])])
    sink.flush()
    assert sink.cut_records == 1
    source = source_on(pulsar_broker, pulsar_topic)
    batch = read(source, 1)[0]
    source.close()
    assert len(batch.values[0]) == 262_144
    assert dict(batch.envelope(0)[1])["gillnet.original_bytes"] == b"6000000"
    sink.write([b"y" * 6_000_000])
    with pytest.raises(SinkError, match="maxMessageSize"):
        sink.flush()
    with pytest.raises(SinkError):
        sink.close()
