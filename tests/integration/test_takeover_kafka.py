"""Scenario 3 through a real broker: two topics with different delays, 2 % of both late by up to a day, a run that is stopped.

I2, I3: what `gillnet run` wrote is the complete answer by the time that nothing can change it any more: rows, rows of joins, matches.
A day of the simulation passes in a few seconds, so the run sees everything live: it waits, revises and withdraws.
"""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from gillnet.cli.main import app
from gillnet.connectors.kafka import KafkaSink, ensure_topics
from gillnet.connectors.memory import MemorySink
from gillnet.core.time import DAY, HOUR, MINUTE
from gillnet.runtimes.embedded import EmbeddedRuntime, Outputs, RuntimeOptions
from gillnet.scenarios.takeover import pipeline
from gillnet.simulator import Simulation, SimulationConfig, interleaved_sources
from gillnet.simulator.schemas import Fault
from gillnet.testing.clock import SimulatedClock
from gillnet.testing.oracle import Event
from gillnet.testing.oracle_joins import interval_join, last_revisions
from gillnet.testing.scripted import Pause, ScriptedSource

from .faulty import read_topic, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gillnet.connectors.local_kafka import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

GILLNET = Path(sys.executable).with_name("gillnet")
STREAMS = ("payments", "clicks")
SIMULATION = Simulation(
    SimulationConfig(
        seed=11,
        duration="1d",
        cards=300,
        merchants=64,
        payments_per_day=4_000,
        sessions_per_day=1_000,
        bots_per_day=3,
        fraud_rate=0.03,
        late_share=0.02,
        duplicate_share=0.005,
        malformed_share=0.005,
        disorder_s=2.0,
    )
)
DAY_S = 6.0
"""So long takes a day of the simulation."""
CLICK_DELAY = "20m"
"""How much later than payments of their time clicks come: some 80 ms of the run, more than a payment waits for them."""
TOLD_US = SIMULATION.config.end_us + 2 * DAY
"""When the payment of `STAGES` is made: behind everything that is simulated."""


def event(stream: str, name: str, at_us: int, **fields: Any) -> bytes:
    """Return a good event of its own user, card and visitor, or with other fields."""
    template = next(SIMULATION.stream(stream)).values[0]  # type: ignore[arg-type]
    own = {"user_id": "told", "card_id": "told", "visitor_id": "told"}
    good = json.loads(template)
    good |= {field: value for field, value in own.items() if field in good}
    good |= {pipeline.plan.stream(stream).id: name, "ts": at_us // 1_000}
    return json.dumps(good | fields).encode()


STAGES: list[dict[str, list[bytes]]] = [
    {  # Failed logins and a reset, a payment, and a click that says that no other click will come in time.
        "clicks": [
            event("clicks", "failed-1", TOLD_US - 20 * MINUTE, event="login_failed"),
            event("clicks", "failed-2", TOLD_US - 19 * MINUTE, event="login_failed"),
            event("clicks", "reset", TOLD_US - 12 * MINUTE, event="password_reset"),
            event("clicks", "other", TOLD_US + HOUR, user_id="other"),
        ],
        "payments": [event("payments", "told", TOLD_US)],
    },
    {  # Late: a login between them, which undoes the match, and one before the payment, which it is joined with.
        "clicks": [
            event("clicks", "late-1", TOLD_US - 15 * MINUTE, event="login"),
            event("clicks", "late-2", TOLD_US - 5 * MINUTE, event="login"),
        ],
    },
    {  # Far behind, so that everything before is final: in the join even the payment, by the click after it.
        "clicks": [event("clicks", "last", TOLD_US + 2 * DAY + HOUR)],
        "payments": [event("payments", "last", TOLD_US + 2 * DAY)],
    },
]
"""What comes after the simulation. Each stage comes when the run has committed everything before it."""


@dataclass
class Expected:
    """What should become of a stream's records, as values."""

    accepted: list[bytes] = field(default_factory=list)
    duplicate: list[bytes] = field(default_factory=list)
    malformed: list[bytes] = field(default_factory=list)
    too_late: list[bytes] = field(default_factory=list)
    late: list[bytes] = field(default_factory=list)
    """Those of the accepted that came behind the watermark."""

    @property
    def read(self) -> int:
        return sum(map(len, (self.accepted, self.duplicate, self.malformed, self.too_late)))


def records(stream: str) -> Iterator[tuple[bytes, int, bool]]:
    """Yield (value, event time, whether it is malformed) in the order of arrival."""
    for chunk in SIMULATION.stream(stream):  # type: ignore[arg-type]
        for value, time_us, fault in zip(chunk.values, chunk.event_time_us, chunk.fault, strict=True):
            # An empty visitor is no fault here: this pipeline has no key of visitors.
            yield value, int(time_us), bool(fault & Fault.MALFORMED) and b'"visitor_id":""' not in value
    for value in itertools.chain.from_iterable(stage.get(stream, ()) for stage in STAGES):
        yield value, json.loads(value)["ts"] * 1_000, False


def expected(stream: str) -> Expected:
    """Judge every record by the rules of docs/event-time.md, one after the other: a stream of one partition."""
    node, found = pipeline.plan.stream(stream), Expected()
    newest, seen = -DAY, set()
    for value, time_us, malformed in records(stream):
        watermark = newest - node.watermark_delay_us
        name = None if malformed else json.loads(value)[node.id]
        if malformed:
            found.malformed.append(value)
        elif time_us < watermark - node.allowed_lateness_us:
            found.too_late.append(value)
        elif name in seen:
            found.duplicate.append(value)
        else:
            seen.add(name)
            found.accepted.append(value)
            if time_us < watermark:
                found.late.append(value)
            newest = max(newest, time_us)
    return found


@dataclass
class Ended:
    """A run that has read everything and was stopped: where it is, and what it should have made of its records."""

    servers: str
    directory: Path
    expected: dict[str, Expected]
    log: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sources(self) -> list[str]:
        topics = {name: f"kafka://{self.servers}/takeover-{name}?group=takeover.{name}" for name in STREAMS}
        return [part for name, topic in topics.items() for part in ("--source", f"{name}={topic}")]

    @property
    def history(self) -> list[str]:
        return ["--history", str(self.directory / "history")]

    @property
    def sinks(self) -> list[str]:
        return ["--sinks", f"kafka://{self.servers}/takeover-out-{{name}}"]

    def rows(self, output: str) -> list[dict[str, Any]]:
        return [json.loads(value) for value in self.values(output)]

    def values(self, output: str) -> list[bytes]:
        return [value for value, _, _ in read_topic(self.servers, f"takeover-out-{output}")]


class Producer:
    """Writes both streams to their topics; counts what it has written."""

    def __init__(self, servers: str) -> None:
        self.written = 0
        self._topics = {name: KafkaSink(topic=f"takeover-{name}", bootstrap_servers=servers) for name in STREAMS}

    def simulate(self) -> None:
        """Write the simulation as it comes: clicks behind payments, late records late, a day in `DAY_S`."""
        sources = interleaved_sources(
            SIMULATION, *STREAMS, ahead="1s", simulated_arrival=True, delays={"clicks": CLICK_DELAY}
        )
        began_s = time.monotonic()
        while not all(given.finished for given in sources.values()):
            for name, given in sources.items():
                if (raw := given.poll(200, 0.0)) is None:
                    continue
                due_s = (raw.arrival_time_us - SIMULATION.config.start_us) / DAY * DAY_S
                time.sleep(max(0.0, began_s + due_s - time.monotonic()))
                self._write(name, raw.values, [raw.envelope(place)[0] for place in range(len(raw.values))])

    def stage(self, number: int) -> None:
        """Write a stage of `STAGES`."""
        for name, values in STAGES[number].items():
            self._write(name, values)
        for topic in self._topics.values():
            topic.flush()

    def close(self) -> None:
        """End."""
        for topic in self._topics.values():
            topic.close()

    def _write(self, name: str, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:
        self._topics[name].write(values, keys)
        self.written += len(values)


def committed(servers: str) -> int:
    admin = AdminClient({"bootstrap.servers": servers})
    done = 0
    for name in STREAMS:  # One group a request is what the client takes.
        [future] = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(f"takeover.{name}")]).values()
        done += sum(max(place.offset, 0) for place in future.result().topic_partitions)
    return done


@pytest.fixture(scope="module")
def ended(kafka: LocalKafka, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    servers, directory = kafka.bootstrap_servers, tmp_path_factory.mktemp("takeover")
    ensure_topics([f"takeover-{name}" for name in STREAMS], bootstrap_servers=servers, partitions=1)
    ended = Ended(servers, directory, {name: expected(name) for name in STREAMS})
    command = [GILLNET, "run", "takeover", *ended.sources, *ended.sinks, *ended.history]
    command += ["--set", "options.commit_interval=500ms", "--plain", "--log", "json"]
    log = directory / "run.log"
    with log.open("wb") as told:
        run = subprocess.Popen(command, cwd=directory, stdout=told, stderr=told)
    producer = Producer(servers)

    def is_done() -> bool:
        assert run.poll() is None, log.read_text()
        return committed(servers) == producer.written

    try:
        producer.simulate()
        for number in range(len(STAGES)):
            wait_until(is_done, "not everything is committed")
            producer.stage(number)
        wait_until(is_done, "not everything is committed")
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) == 0, log.read_text()
    finally:
        producer.close()
        run.kill()
        run.wait()
    ended.log = [json.loads(line) for line in log.read_text().splitlines()]
    return ended


def gillnet(ended: Ended, *arguments: str) -> str:
    """Run a command on the run's outputs in this process; return what it prints."""
    result = CliRunner().invoke(app, [*arguments, *ended.sinks])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_i3_every_record_is_accounted_for(ended: Ended) -> None:
    """I3: the counts add up, and side topics hold the very records that the rules put there."""
    for stream, what in ended.expected.items():
        counts = {kind: int(count) for kind, count in (pair.split("=") for pair in ended.log[-1][stream].split())}
        kinds = ("duplicate", "malformed", "too_late")
        assert counts["read"] == what.read == sum(counts[kind] for kind in ("scored", *kinds))
        assert counts["scored"] == len(what.accepted)
        for kind in (*kinds, "late"):
            assert counts.get(kind) in (None, len(getattr(what, kind)))
            assert len(getattr(what, kind)) > 0, (stream, kind)
            assert Counter(ended.values(f"{stream}.{kind}")) == Counter(getattr(what, kind)), (stream, kind)


def test_i2_the_run_is_the_batch_answer_by_its_topics_and_by_its_history(ended: Ended) -> None:
    """I2: every row after its last revision, and every row of the join after its withdrawal."""
    accepted = len(ended.expected["payments"].accepted)
    for read in (ended.sources, ended.history):
        told = json.loads(gillnet(ended, "verify", "takeover", "--json", *read))
        join = told["joins"]["joins.clicks_before"]
        assert (told["rows"], told["equal"], told["share"]) == (accepted, accepted, 1.0)
        assert (join["rows"], join["share"]) == (join["equal"], 1.0)
        assert told["revised"] > 0
        assert join["withdrawn"] > 0
    assert "100 %" in gillnet(ended, "verify", "takeover", *ended.history)


def test_a_repair_gives_the_same_bytes_each_time(ended: Ended) -> None:
    """From the history twice, and from the topics: the same corrections, of the rows that the records that were too late change."""
    written = []
    for number, read in enumerate([ended.history, ended.history, ended.sources]):
        place = ended.directory / f"corrections-{number}.ndjson"
        told = json.loads(gillnet(ended, "repair", "takeover", "--json", "--out", str(place), *read))
        written.append(place.read_bytes())
    assert written[0] == written[1] == written[2]
    never_scored = ids("payments", ended.expected["payments"].too_late) - ids(
        "payments", ended.expected["payments"].accepted
    )
    corrections = [json.loads(line) for line in written[0].splitlines()]
    assert {row["tx_id"] for row in corrections if row["correction"] == "added"} == never_scored != set()
    assert told["late"]["payments"]["too_late"] == len(ended.expected["payments"].too_late)
    assert told["added"] == len(never_scored)
    assert told["changed"] == len(corrections) - len(never_scored) > 0


def test_i2_joins_and_matches_are_those_of_a_run_in_the_order_of_event_time(ended: Ended) -> None:
    """I2: what consumers hold after withdrawals is what a run says that gets the same events, each at its time."""
    in_order = run_in_order({name: what.accepted for name, what in ended.expected.items()})
    written = ended.rows("joins.clicks_before")
    joined = by_ids(last_revisions(sorted(written, key=lambda row: row["revision"])))
    assert joined == by_ids(last_revisions(in_order["joins.clicks_before"]))
    assert set(joined) == joined_by_hand(ended)
    matched = ended.rows("matches")
    matches = last_matches(matched)
    assert matches == last_matches(in_order["matches"])
    assert {pattern for pattern, *_ in matches} == {"tested", "took_over"}


def test_late_clicks_withdraw_a_match_and_a_row_of_the_join_and_revise_the_payment(ended: Ended) -> None:
    """What `STAGES` tells of, record by record."""
    joined = [row for row in ended.rows("joins.clicks_before") if row["left_id"] == "told"]
    assert [(row.get("right_id"), row["revision"], row.get("withdrawn", False)) for row in joined] == [
        (None, 0, False),
        (None, 1, True),
        ("late-2", 0, False),
    ]
    matches = [row for row in ended.rows("matches") if row["key"] == "told" and row["pattern"] == "took_over"]
    assert [(row["first"], row["last"], row["withdrawn"]) for row in matches] == [
        ("failed-1", "reset", False),
        ("failed-1", "reset", True),
    ]
    [first] = [row for row in ended.rows("decisions") if row["tx_id"] == "told"]
    revisions = [row for row in ended.rows("decisions.revisions") if row["tx_id"] == "told"]
    last = max(revisions, key=lambda row: row["revision"])  # One or two, by whether both clicks came in one look.
    assert (first["features"]["took_over"], last["new"]["features"]["took_over"]) == (True, False)
    assert {(row["cause"]["stream"], row["cause"]["id"]) for row in revisions} <= {
        ("clicks", "late-1"),
        ("clicks", "late-2"),
    }


def ids(stream: str, values: Iterable[bytes]) -> set[str]:
    return {json.loads(value)[pipeline.plan.stream(stream).id] for value in values}


def run_in_order(accepted: dict[str, Sequence[bytes]]) -> dict[str, list[dict[str, Any]]]:
    """Run the pipeline in this process over events that come at their time, both streams in step, hour by hour."""
    clock = SimulatedClock(TOLD_US + 7 * DAY)
    sources = {}
    for stream, values in accepted.items():
        name, script = pipeline.plan.stream(stream).id, []
        timed = sorted((row["ts"], row[name], value) for value, row in ((v, json.loads(v)) for v in values))
        hours = defaultdict(list)
        for ts, _, value in timed:
            hours[(ts * 1_000 - SIMULATION.config.start_us) // HOUR].append(value)
        for hour in range(max(hours) + 1):
            script += [*hours[hour], Pause()]
        sources[stream] = ScriptedSource(stream, script, clock=clock)
    outs: dict[str, MemorySink] = defaultdict(MemorySink)
    options = RuntimeOptions(turn_ms=0, max_batch_records=100_000, overlap=False)
    runtime = EmbeddedRuntime(
        pipeline.plan, sources=sources, outputs=Outputs(outs.__getitem__), options=options, clock=clock
    )
    metrics = runtime.run()
    assert metrics.revisions == 0
    assert all(counts.late == 0 for counts in metrics.streams.values())
    return {name: [json.loads(value) for value in sink.values] for name, sink in outs.items()}


def by_ids(rows: Iterable[Any]) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Return rows of a join by their events, without how they came to be said."""
    return {
        (row["left_id"], row.get("right_id")): {name: value for name, value in row.items() if name != "revision"}
        for row in rows
    }


def joined_by_hand(ended: Ended) -> set[tuple[str, str | None]]:
    """Hold each payment against each click of its user."""
    [node] = pipeline.plan.joins
    of_user: dict[str, tuple[list[Event], list[Event]]] = defaultdict(lambda: ([], []))
    for side, stream in enumerate(STREAMS):
        name = pipeline.plan.stream(stream).id
        for row in map(json.loads, ended.expected[stream].accepted):
            of_user[row["user_id"]][side].append(Event(row["ts"] * 1_000, row[name], row))
    pairs = itertools.chain.from_iterable(
        interval_join(node, *sides, lambda _, click: click.row["event"] not in ("view", "search"))
        for sides in of_user.values()
    )
    return {(payment.id, None if click is None else click.id) for payment, click in pairs if payment is not None}


def last_matches(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str, str, str], list[Any]]:
    """Return the matches that are left: by pattern, key, first and last event, the highest revision of each."""
    last: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["revision"]):
        last[row["pattern"], row["key"], row["first"], row["last"]] = row
    return {name: row["events"] for name, row in last.items() if not row["withdrawn"]}
