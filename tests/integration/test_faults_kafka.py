"""``gillnet run`` on a real broker: killed, stopped, joined by others, and cut off from its broker. Nothing is lost."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from gillnet.connectors.kafka import KafkaSink, KafkaSource, ensure_topics
from gillnet.connectors.local_kafka import LocalKafka
from gillnet.core.messages import OutputRecord

from .faulty import Bench, Load

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping
    from pathlib import Path

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def fragile_kafka() -> Iterator[LocalKafka]:
    """A broker of this module's own, to be paused, killed and restarted."""
    with LocalKafka() as broker:
        yield broker


def bench_on(kafka: LocalKafka, directory: Path, request: pytest.FixtureRequest) -> Bench:
    return Bench(kafka, directory, re.sub(r"[^a-zA-Z0-9_.-]", "-", request.node.name))


@pytest.fixture
def bench(kafka: LocalKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = bench_on(kafka, tmp_path, request)
    yield made
    made.close()


@pytest.fixture
def fragile(fragile_kafka: LocalKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = bench_on(fragile_kafka, tmp_path, request)
    yield made
    made.close()


def test_a_run_that_is_killed_again_and_again_loses_nothing(bench: Bench) -> None:
    """I5: recovery is the last commit, then replay from there."""
    with Load(bench.kafka, bench.topic) as load:
        for _ in range(3):
            before = bench.decided()
            process = bench.start()
            bench.wait_until(lambda before=before: bench.decided() > before + 500, "no decisions come")
            assert bench.end(process, signal.SIGKILL) == -signal.SIGKILL
        written = load.end()
    bench.finish()
    decided = Counter(bench.ids())
    assert set(decided) == set(written)
    # What comes again is at the most what was read since the last commit, once for each kill.
    assert max(decided.values()) <= 4


def test_sigterm_under_load_finishes_flushes_commits_and_leaves_nothing_to_repeat(bench: Bench) -> None:
    with Load(bench.kafka, bench.topic) as load:
        process = bench.start()
        bench.wait_until(lambda: bench.decided() > 1_000, "no decisions come")
        assert bench.end(process) == 0, bench.log()
        committed, decided = bench.committed(), bench.ids()
        assert committed == len(decided) == len(set(decided)) > 1_000
        assert bench.events()[-1] == "finished"
        written = load.end()
    bench.finish()
    decided = bench.ids()
    assert sorted(decided) == sorted(written)  # None lost, none twice.


def test_a_member_that_joins_and_one_that_leaves_lose_nothing(bench: Bench) -> None:
    with Load(bench.kafka, bench.topic) as load:
        first = bench.start()
        bench.wait_until(lambda: bench.decided() > 500, "no decisions come")
        second = bench.start()
        bench.wait_until(
            lambda: '"records_per_s"' in bench.log() and not _reads_nothing(bench), "the second member reads nothing"
        )
        assert bench.end(second) == 0, bench.log(1)
        before = bench.decided()
        bench.wait_until(lambda: bench.decided() > before + 2_000, "the first member does not go on")
        assert bench.end(first) == 0, bench.log(0)
        written = load.end()
    bench.finish()
    assert set(bench.ids()) == set(written)


def _reads_nothing(bench: Bench) -> bool:
    return "read=0 " in bench.log().splitlines()[-1]


def undergo(kafka: LocalKafka, outage: str, seconds: int) -> None:
    """Let a broker be frozen, or killed and started again."""
    if outage == "paused":
        kafka.pause()
        time.sleep(seconds)
        kafka.resume()
    else:
        kafka.kill()
        time.sleep(seconds)
        kafka.restart()


@pytest.mark.parametrize(
    ("outage", "seconds"),
    [
        ("paused", 12),
        ("restarted", 3),
        pytest.param("paused", 30, marks=pytest.mark.slow),
        pytest.param("restarted", 30, marks=pytest.mark.slow),
    ],
)
def test_a_broker_that_goes_away_is_waited_for_and_told_of(fragile: Bench, outage: str, seconds: int) -> None:
    with Load(fragile.kafka, fragile.topic, rate=1_000) as load:
        process = fragile.start()
        fragile.wait_until(lambda: fragile.decided() > 500, "no decisions come")
        undergo(fragile.kafka, outage, seconds)
        fragile.wait_until(
            lambda: "broker is back" in fragile.events(), "it does not say that the broker is back", timeout_s=90
        )
        after = fragile.decided()
        fragile.wait_until(lambda: fragile.decided() > after + 1_000, "it does not go on", timeout_s=90)
        assert process.poll() is None
        assert fragile.end(process) == 0, fragile.log()
        written = load.end()
    events = fragile.events()
    assert events.index("broker is away, waiting") < events.index("broker is back")
    fragile.finish()
    assert set(fragile.ids()) == set(written)


@pytest.mark.parametrize(("outage", "seconds"), [("paused", 8), ("restarted", 3)])
def test_with_exactly_once_an_outage_is_waited_for_and_nothing_is_said_twice(
    fragile: Bench, outage: str, seconds: int
) -> None:
    """A transaction that is open, or being committed, when the broker goes away is committed when it is back."""
    place = ["--checkpoints", str(fragile.directory / "place"), "--delivery", "exactly-once"]
    settings = [f"options.transactional_id={fragile.name}"]
    with Load(fragile.kafka, fragile.topic, rate=1_000) as load:
        process = fragile.start(options=place, settings=settings)
        fragile.wait_until(lambda: fragile.decided() > 500, "no decisions come")
        undergo(fragile.kafka, outage, seconds)
        fragile.wait_until(lambda: fragile.decided() > 0, "the broker does not come back", timeout_s=90)
        after = fragile.decided()
        fragile.wait_until(lambda: fragile.decided() > after + 3_000, "it does not go on", timeout_s=90)
        assert process.poll() is None
        written = load.end()
        assert fragile.end(process) == 0, fragile.log()
    fragile.finish(options=place, settings=settings)
    assert Counter(fragile.ids()) == Counter(written)


def test_a_source_alone_tells_of_a_frozen_broker(fragile_kafka: LocalKafka) -> None:
    ensure_topics(["quiet"], bootstrap_servers=fragile_kafka.bootstrap_servers)
    source = KafkaSource(
        stream="s", topic="quiet", bootstrap_servers=fragile_kafka.bootstrap_servers, group="quiet", start="earliest"
    )

    def poll_until(event: str, logs: list[MutableMapping[str, Any]]) -> None:
        deadline_s = time.monotonic() + 15
        while event not in [entry["event"] for entry in logs]:
            assert time.monotonic() < deadline_s, f"not told: {event}"
            assert source.poll(100, 0.1) is None

    with structlog.testing.capture_logs() as logs:
        poll_until("partitions assigned", logs)
        fragile_kafka.pause()
        try:
            poll_until("broker is away, waiting", logs)
        finally:
            fragile_kafka.resume()
        poll_until("broker is back", logs)
    source.close()


def test_a_side_output_whose_first_record_comes_while_the_broker_is_away_waits_too(fragile: Bench) -> None:
    name = fragile.out("payments.malformed")
    ensure_topics([name], bootstrap_servers=fragile.servers)
    fragile.kafka.pause()
    try:
        sink = KafkaSink(topic=name, bootstrap_servers=fragile.servers, open_timeout_s=0)
        sink.write_records([OutputRecord(value=b"{", headers=[("gillnet.reason", b"not_json")])])
    finally:
        fragile.kafka.resume()
    sink.close()
    assert [value for value, _, _ in fragile.read("payments.malformed")] == [b"{"]
