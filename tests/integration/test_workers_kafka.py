"""Workers on a real broker: partitions are shared among processes, and another number of them goes on from the same checkpoints."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from gillnet.cli.main import app
from gillnet.connectors.kafka import KafkaSink

from .faulty import Bench, payment, wait_until
from .test_checkpoints_kafka import LateLoad

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from gillnet.connectors.local_kafka import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.fixture
def bench(kafka: LocalKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(kafka, tmp_path, re.sub(r"[^a-zA-Z0-9_.-]", "-", request.node.name))
    yield made
    made.close()


def workers_of(bench: Bench, run: int = -1) -> list[int]:
    """The ids of the processes that a run has started, by its log."""
    lines = [json.loads(line) for line in bench.log(run).splitlines() if line.startswith("{")]
    return next((line["processes"] for line in lines if line["event"] == "workers started"), [])


def ended(process: subprocess.Popen[bytes], bench: Bench, code: int) -> None:
    assert process.wait(60) == code, bench.log()
    bench.running.remove(process)


@pytest.mark.parametrize("guarantee", ["at-least-once", "exactly-once"])
def test_i5_another_number_of_workers_goes_on_and_says_the_same(bench: Bench, guarantee: str) -> None:
    """One worker is killed, two go on, one of them is killed, three go on and are stopped, and one reads to the end."""
    history = ["--history", str(bench.directory / "history")]
    options = ["--checkpoints", str(bench.directory / "place"), "--delivery", guarantee, *history]
    settings = ["options.checkpoint_interval=500ms", f"options.transactional_id={bench.name}"]
    with LateLoad(bench.kafka, bench.topic, rate=800) as load:
        wait_until(lambda: load.written > 400, "nothing is written")
        for workers, how in ((1, signal.SIGKILL), (2, signal.SIGKILL), (3, signal.SIGTERM)):
            process = bench.start(settings=settings, options=[*options, "--workers", str(workers)])
            bench.wait_until(lambda: len(workers_of(bench)) == workers, "the workers do not start")  # noqa: B023
            if workers > 1:
                bench.wait_until(
                    lambda: bench.log().count("going on from a checkpoint") == 4, "the workers do not go on"
                )
            before = bench.decided()
            bench.wait_until(lambda: bench.decided() > before + 1_500, "the workers decide nothing")  # noqa: B023
            time.sleep(0.3)
            if how is signal.SIGKILL:
                # One of the workers: its end stops the others and the run.
                os.kill(workers_of(bench)[0], signal.SIGKILL)
                ended(process, bench, 1)
            else:
                assert bench.end(process) == 0
        written = load.end()
    bench.finish(settings=settings, options=[*options, "--workers", "1"])

    decided = Counter(bench.ids())
    assert set(decided) == set(written)
    if guarantee == "exactly-once":
        assert decided == Counter(written)
    verify = ["verify", str(bench.directory / "app.py"), *history, "--json"]
    told = CliRunner().invoke(app, [*verify, "--sinks", f"kafka://{bench.servers}/{bench.name}-{{name}}"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert (found["equal"], found["rows"]) == (len(written), len(written)), found
    lanes = sorted(path.name for path in (bench.directory / "place").iterdir())
    assert lanes == [f"partition-{number:05}" for number in range(4)]


def test_checkpoints_of_a_run_with_workers_are_told_from_others(bench: Bench) -> None:
    place = bench.directory / "place"
    bench.finish(options=["--checkpoints", str(place), "--workers", "2"])
    told = CliRunner().invoke(app, ["state", "list", str(place)])
    assert told.exit_code == 1
    assert "one place for each partition" in " ".join(told.output.split())
    assert CliRunner().invoke(app, ["state", "list", str(place / "partition-00000")]).exit_code == 0
    process = bench.start(until_end=True, options=["--checkpoints", str(place)])
    ended(process, bench, 2)
    assert "they are of a run with workers (partition-00000 to partition-00003)" in " ".join(bench.log().split())


def test_a_topic_that_is_not_partitioned_by_the_key_is_refused_and_names_it(bench: Bench) -> None:
    sink = KafkaSink(topic=bench.topic, bootstrap_servers=bench.servers)
    sink.write([payment(number) for number in range(500)], [b"%d" % number for number in range(500)])
    sink.close()
    process = bench.start(until_end=True, options=["--workers", "2"])
    ended(process, bench, 2)
    told = " ".join(bench.log().split())
    assert re.search(r"card='c\d+' is in the partitions \d and \d, so the topic is not partitioned by card", told), told


def test_checkpoints_of_a_run_without_workers_are_refused(bench: Bench) -> None:
    kept = ["--checkpoints", str(bench.directory / "place")]
    bench.finish(options=kept)
    process = bench.start(until_end=True, options=[*kept, "--workers", "2"])
    ended(process, bench, 2)
    assert "they are of a run without workers" in " ".join(bench.log().split())
