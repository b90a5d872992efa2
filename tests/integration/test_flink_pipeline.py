"""A pipeline on the real Flink, from topics to topics: the last word on every row is the embedded run's, whatever dies."""

from __future__ import annotations

import json
import random
import re
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from gillnet.app import RunConfig, build_runtime, load_pipeline
from gillnet.app.flink_job import flink_job
from gillnet.cli.main import app
from gillnet.connectors.kafka import KafkaSink, ensure_topics
from gillnet.core.errors import ConfigurationError
from gillnet.runtimes.flink.package import package_job

from .faulty import read_topic, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from gillnet.connectors.local_kafka import LocalKafka
    from gillnet.runtimes.flink import LocalFlink

pytestmark = [pytest.mark.kafka, pytest.mark.flink]

APP = """
import gillnet as gn

Payment = gn.Schema(id=gn.String(), ts=gn.Timestamp("ms"), card=gn.String(), amount=gn.Decimal(2, minimum=0))
payments = gn.Stream("payments", schema=Payment, id="id", event_time="ts", watermark_delay="2s", allowed_lateness="7d")
card = payments.by("card")
pipeline = gn.Pipeline(
    gn.Features(payments, spend_5m=card.sum("amount", over="5m"), payments_1h=card.count(over="1h"), largest=card.max("amount", over="1h")),
    name="NAME",
    policy=[gn.review(gn.col("spend_5m") > 90), gn.block(gn.col("payments_1h") > 40)],
)
"""
BROKEN = b'{"id": "broken"'


class Place:
    """A topic of payments, outputs beside it, and a file with the pipeline."""

    def __init__(self, kafka: LocalKafka, directory: Path, name: str) -> None:
        self.servers, self.name, self.directory = kafka.bootstrap_servers, name, directory
        self.app = directory / "app.py"
        self.app.write_text(APP.replace("NAME", name))
        ensure_topics([name], bootstrap_servers=self.servers)

    def config(self, outputs: str, *, until_end: bool, **options: Any) -> RunConfig:
        source = (
            f"kafka://{self.servers}/{self.name}?start=earliest&group={outputs}{'&until_end=true' if until_end else ''}"
        )
        config = RunConfig(sources={"payments": source}, default_sink=f"kafka://{self.servers}/{outputs}-{{name}}")
        return replace(config, options=replace(config.options, **options))

    def write(self, values: list[bytes]) -> None:
        sink = KafkaSink(topic=self.name, bootstrap_servers=self.servers)
        sink.write(values, [value[:12] for value in values])
        sink.flush()
        sink.close()

    def embedded(self) -> dict[str, dict[str, Any]]:
        build_runtime(load_pipeline(str(self.app)), self.config(f"{self.name}.embedded", until_end=True)).run()
        return self.last_words(f"{self.name}.embedded")

    def last_words(self, outputs: str) -> dict[str, dict[str, Any]]:
        """What a reader of committed records keeps of each row: its features and its decision, the last revision's."""
        rows = {row["id"]: (0, row) for row in self.rows(f"{outputs}-decisions")}
        for revision in self.rows(f"{outputs}-decisions.revisions"):
            number, _ = rows[revision["id"]]
            if revision["revision"] > number:
                rows[revision["id"]] = (revision["revision"], revision["new"])
        return {name: {"features": row["features"], "decision": row["decision"]} for name, (_, row) in rows.items()}

    def rows(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(value) for value, _, _ in read_topic(self.servers, topic)]


@pytest.fixture
def place(kafka: LocalKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Place:
    return Place(kafka, tmp_path, re.sub(r"[^a-zA-Z0-9_.-]", "-", request.node.name)[:60])


def payments(begin: int, count: int, dice: random.Random) -> list[bytes]:
    """Payments out of order by up to 20 s, of 60 cards."""
    now_ms = int(time.time() * 1_000)
    return [
        json.dumps(
            {
                "id": f"p{number}",
                "ts": now_ms - 60_000 + number * 5 - dice.randrange(20_000),
                "card": f"c{dice.randrange(60)}",
                "amount": f"{dice.randrange(1, 900) / 100:.2f}",
            }
        ).encode()
        for number in range(begin, begin + count)
    ]


@pytest.mark.parametrize("shards", [None, 1])
def test_i2_a_bounded_job_comes_to_the_embedded_answer(
    place: Place, flink: LocalFlink, tmp_path: Path, shards: int | None
) -> None:
    dice = random.Random(7)
    values = payments(0, 6_000, dice)
    place.write([*values[:3_000], BROKEN, values[17], *values[3_000:]])
    out = f"{place.name}.flink"
    job = flink_job(load_pipeline(str(place.app)).plan, place.config(out, until_end=True), shards=shards)
    assert job["shards"] == (shards or 32)
    jar = flink.rest.upload_jar(package_job(job, tmp_path / "job.jar"))
    number = flink.rest.run_jar(jar, parallelism=2)
    flink.rest.wait_for(number, "FINISHED", timeout_s=90)

    assert place.last_words(out) == place.embedded()
    assert Counter(row["id"] for row in place.rows(f"{out}-decisions")) == Counter(f"p{n}" for n in range(6_000))
    # I3: what is not scored is told, with the reason and as it came.
    [(value, _, headers)] = read_topic(place.servers, f"{out}-payments.malformed")
    assert (value, dict(headers)["gillnet.reason"]) == (BROKEN, b"not_json")
    [(value, _, headers)] = read_topic(place.servers, f"{out}-payments.duplicate")
    assert (value, dict(headers)["gillnet.reason"]) == (values[17], b"duplicate")


@pytest.mark.slow
def test_i5_killed_task_managers_and_another_parallelism_change_nothing(
    place: Place, flink: LocalFlink, tmp_path: Path
) -> None:
    dice = random.Random(8)
    out = f"{place.name}.flink"
    place.write(payments(0, 2_000, dice))
    config = place.config(out, until_end=False, delivery="exactly-once", checkpoint_interval_s=1.0)
    jar = flink.rest.upload_jar(
        package_job(flink_job(load_pipeline(str(place.app)).plan, config), tmp_path / "job.jar")
    )
    number = flink.rest.run_jar(jar, parallelism=2)
    flink.rest.wait_for(number, "RUNNING")
    flink.rest.wait_for_checkpoint(number)
    for round_number in range(1, 3):
        flink.kill_task_manager(next(iter(flink.task_manager_pids)))
        place.write(payments(round_number * 2_000, 2_000, dice))
        flink.add_task_manager()
        flink.rest.wait_for_checkpoint(number, after=flink.rest.checkpoints(number).counts.completed)
    savepoint = flink.rest.stop_with_savepoint(number)
    place.write(payments(6_000, 2_000, dice))
    number = flink.rest.run_jar(jar, parallelism=1, savepoint=savepoint)
    flink.rest.wait_for(number, "RUNNING")
    wait_until(lambda: len(place.rows(f"{out}-decisions")) >= 8_000, "decisions are missing", timeout_s=60)
    flink.rest.stop_with_savepoint(number)

    decided = Counter(row["id"] for row in place.rows(f"{out}-decisions"))
    assert decided == Counter(f"p{n}" for n in range(8_000))
    revised = Counter((row["id"], row["revision"]) for row in place.rows(f"{out}-decisions.revisions"))
    assert max(revised.values()) == 1
    assert place.last_words(out) == place.embedded()


def test_the_command_packages_a_job_that_needs_nothing_else(place: Place, tmp_path: Path) -> None:
    command = ["flink", "package", str(place.app), "--out", str(tmp_path / "made" / "job.jar")]
    command += ["--source", f"payments=kafka://{place.servers}/{place.name}"]
    done = CliRunner().invoke(app, [*command, "--sinks", f"kafka://{place.servers}/{place.name}-{{name}}"])
    assert done.exit_code == 0, done.output
    assert "32 shards" in done.output
    assert (tmp_path / "made" / "job.jar").stat().st_size > 10_000_000


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sources": {"payments": "payments.ndjson"}}, "streams come from topics of Kafka"),
        ({"kafka": {"sasl.password": "hidden"}}, "jar would hold the secret"),
        ({"default_sink": "out"}, "Kafka"),
    ],
)
def test_what_a_job_cannot_have_is_refused(place: Place, change: dict[str, Any], told: str) -> None:
    config = replace(place.config(place.name, until_end=True), **change)
    with pytest.raises(ConfigurationError, match=told) as refused:
        flink_job(load_pipeline(str(place.app)).plan, config)
    assert "hidden" not in str(refused.value)
