"""Kafka's transactions: what is committed is seen at once and by all, and what is not is never seen."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from gillnet.connectors.kafka import KafkaSink, KafkaSource, KafkaTransactions, ensure_topics
from gillnet.core.errors import ConfigurationError, FencedError, SinkError, SourceError, StateError
from gillnet.core.messages import OutputRecord

from .faulty import read_topic, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gillnet.connectors.local_kafka import LocalKafka
    from gillnet.core.ports import Journal

pytestmark = pytest.mark.kafka

Open = Callable[..., KafkaTransactions]


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return re.sub(r"[^a-zA-Z0-9_.-]", "-", request.node.name)


@pytest.fixture
def opened(kafka: LocalKafka, name: str) -> Iterator[Callable[..., KafkaTransactions]]:
    """Opens transactions on two topics and a journal, and closes them in the end."""
    made: list[KafkaTransactions] = []
    topics = [f"{name}-a", f"{name}-b"]
    ensure_topics({topics[0]: 2, topics[1]: 1, f"{name}.journal": 1}, bootstrap_servers=kafka.bootstrap_servers)

    def open_transactions(**options: object) -> KafkaTransactions:
        merged = {"topics": topics, "journal": f"{name}.journal", **options}
        made.append(
            KafkaTransactions(bootstrap_servers=kafka.bootstrap_servers, transactional_id=name, **merged)  # type: ignore[arg-type]
        )
        return made[-1]

    yield open_transactions
    for transactions in made:
        transactions.close()


def seen(kafka: LocalKafka, topic: str) -> list[bytes]:
    return sorted(value for value, _, _ in read_topic(kafka.bootstrap_servers, topic))


def test_outputs_and_journal_become_visible_together(kafka: LocalKafka, name: str, opened: Open) -> None:
    transactions = opened()
    first, second = transactions.sink(f"{name}-a"), transactions.sink(f"{name}-b")
    first.write([b"1", b"2"], [b"k", b"l"])
    second.write_records([OutputRecord(value=b"3", key=b"m", headers=[("h", b"x")])])
    first.flush()
    transactions.journal.append(b"steps")
    begin = transactions.journal.cut()
    assert seen(kafka, f"{name}-a") == seen(kafka, f"{name}-b") == list(transactions.journal.read(begin)) == []
    transactions.commit()
    assert seen(kafka, f"{name}-a") == [b"1", b"2"]
    assert read_topic(kafka.bootstrap_servers, f"{name}-b") == [(b"3", b"m", [("h", b"x")])]
    wait_until(lambda: list(transactions.journal.read(0)) == [b"steps"], "the journal is not visible")


def test_what_was_open_is_aborted_by_the_next_start_and_the_one_before_is_fenced(
    kafka: LocalKafka, name: str, opened: Open
) -> None:
    zombie = opened()
    zombie.sink(f"{name}-a").write([b"lost"])
    zombie.sink(f"{name}-a").flush()
    successor = opened()
    successor.sink(f"{name}-a").write([b"kept"])
    successor.commit()
    assert seen(kafka, f"{name}-a") == [b"kept"]
    with pytest.raises(FencedError, match="another run has taken over, so this one stops"):
        zombie.commit()
    successor.sink(f"{name}-a").write([b"more"])
    successor.commit()
    assert seen(kafka, f"{name}-a") == [b"kept", b"more"]


def test_closing_aborts_what_is_not_committed(kafka: LocalKafka, name: str, opened: Open) -> None:
    transactions = opened()
    transactions.sink(f"{name}-a").write([b"1"])
    transactions.commit()
    transactions.sink(f"{name}-a").write([b"2"])
    transactions.close()
    transactions.close()
    assert seen(kafka, f"{name}-a") == [b"1"]


def test_many_transactions_in_a_row_and_an_empty_one(kafka: LocalKafka, name: str, opened: Open) -> None:
    transactions = opened()
    sink = transactions.sink(f"{name}-b")
    for number in range(50):
        sink.write([b"%d" % number])
        transactions.commit()
    transactions.commit()
    assert [value for value, _, _ in read_topic(kafka.bootstrap_servers, f"{name}-b")] == [b"%d" % n for n in range(50)]


def test_a_side_output_s_record_that_the_topic_refuses_is_cut_before_it_is_sent(kafka: LocalKafka, name: str) -> None:
    """A refusal by the broker would abort the transaction and end the run."""
    servers = kafka.bootstrap_servers
    ensure_topics([f"{name}-narrow"], bootstrap_servers=servers, partitions=1, config={"max.message.bytes": "300000"})
    ensure_topics([f"{name}-tiny"], bootstrap_servers=servers, partitions=1, config={"max.message.bytes": "2000"})
    ensure_topics([f"{name}.journal"], bootstrap_servers=servers, partitions=1)
    transactions = KafkaTransactions(
        bootstrap_servers=servers,
        transactional_id=name,
        topics=[f"{name}-narrow", f"{name}-tiny"],
        journal=f"{name}.journal",
    )
    large = OutputRecord(value=b"x" * 1_000_000, key=b"k", headers=[("gillnet.reason", b"too_large"), ("h", b"y")])
    for topic in (f"{name}-narrow", f"{name}-tiny"):
        sink = transactions.sink(topic)
        sink.write_records([OutputRecord(value=b"small"), large])
        assert sink.cut_records == 1
    transactions.commit()
    transactions.close()
    cut = [("gillnet.original_bytes", b"1000000")]
    (small, narrow), (_, tiny) = (read_topic(servers, f"{name}-{topic}") for topic in ("narrow", "tiny"))
    assert small[0] == b"small"
    assert narrow == (b"x" * 262_144, b"k", [("gillnet.reason", b"too_large"), ("h", b"y"), *cut])
    assert tiny == (b"", None, [("gillnet.reason", b"too_large"), *cut])


def test_a_decision_that_the_topic_refuses_ends_the_run_and_nothing_of_the_transaction_is_seen(
    kafka: LocalKafka, name: str, opened: Open
) -> None:
    narrow = {"max.message.bytes": "100000"}
    ensure_topics([f"{name}-c"], bootstrap_servers=kafka.bootstrap_servers, partitions=1, config=narrow)
    transactions = opened(topics=[f"{name}-a", f"{name}-c"])
    transactions.sink(f"{name}-a").write([b"1"])
    transactions.sink(f"{name}-c").write([b"x" * 200_000])
    with pytest.raises(SinkError, match=r"records could not be written: .*raise the topic's max\.message\.bytes"):
        transactions.commit()
    transactions.close()
    assert seen(kafka, f"{name}-a") == seen(kafka, f"{name}-c") == []


def gone(journal: Journal, position: int) -> bool:
    try:
        list(journal.read(position))
    except StateError as error:
        return "are gone" in str(error)
    return False


def test_a_journal_forgets_and_says_when_a_position_is_gone(name: str, opened: Open) -> None:
    transactions = opened()
    journal = transactions.journal
    positions = []
    for number in range(3):
        positions.append(journal.cut())
        journal.append(b"%d" % number)
        transactions.commit()
    # A position may lie some records before the cut: the broker shows a commit a little later than it acknowledges it.
    wait_until(lambda: list(journal.read(positions[1]))[-2:] == [b"1", b"2"], "the records are not there")
    journal.forget(positions[2])
    wait_until(lambda: gone(journal, positions[0]), "nothing is deleted")
    assert list(journal.read(positions[2]))[-1:] == [b"2"]


def test_settings_that_the_transactions_decide_are_refused_and_a_missing_topic_is_told(
    kafka: LocalKafka, name: str
) -> None:
    given = {"bootstrap_servers": kafka.bootstrap_servers, "transactional_id": name, "journal": f"{name}.journal"}
    with pytest.raises(ConfigurationError, match=r"'transactional\.id' is not passed through"):
        KafkaTransactions(topics=[], settings={"transactional.id": "x"}, **given)
    with pytest.raises(ConfigurationError, match="their settings cannot be read"):
        KafkaTransactions(topics=[f"{name}-none"], **given)


# Batches that are read again


def filled(kafka: LocalKafka, name: str) -> KafkaSource:
    ensure_topics({name: 3}, bootstrap_servers=kafka.bootstrap_servers)
    sink = KafkaSink(topic=name, bootstrap_servers=kafka.bootstrap_servers)
    sink.write([b"%d" % n for n in range(300)], [b"k%d" % (n % 17) for n in range(300)])
    sink.close()
    return source(kafka, name)


def source(kafka: LocalKafka, name: str) -> KafkaSource:
    return KafkaSource(
        stream="s", topic=name, bootstrap_servers=kafka.bootstrap_servers, group=f"{name}-group", until_end=True
    )


def test_a_source_gives_the_very_batches_again_and_goes_on_behind_them(kafka: LocalKafka, name: str) -> None:
    first = filled(kafka, name)
    batches = []
    while len(batches) < 12:
        if (batch := first.poll(17, 0.2)) is not None:
            batches.append(batch)
    mark = first.mark()
    first.close()
    again = source(kafka, name)
    again.start_at({})
    replayed = [again.replay(batch.stretch(), 17) for batch in batches]
    for one, other in zip(batches, replayed, strict=True):
        assert (one.values, one.partitions, one.stretch()) == (other.values, other.partitions, other.stretch())
        assert [one.offset(i) for i in range(len(one.values))] == [other.offset(i) for i in range(len(one.values))]
        assert one.envelope(0) == other.envelope(0)
        assert other.arrival_time_us == 17
    assert again.mark() == {p: place for p, place in mark.items() if place >= 0}  # One partition has had no record.
    rest = []
    while not again.finished:
        if (batch := again.poll(1_000, 0.2)) is not None:
            rest += batch.values
    again.close()
    given = [value for batch in batches for value in batch.values]
    assert sorted(given + rest) == sorted(b"%d" % n for n in range(300))


@pytest.mark.parametrize("stretch", [[(0, 0, 100_000)], [(1, 100_000, 100_001)]], ids=["end", "beginning"])
def test_records_that_are_no_longer_there_are_told(
    kafka: LocalKafka, name: str, stretch: list[tuple[int, int, int]]
) -> None:
    again = filled(kafka, name)
    with pytest.raises(SourceError, match=r"was read before the run ended and is no longer there"):
        again.replay(stretch, 17)
    again.close()
