"""Exactly-once on a real broker: a run that is killed again and again says each row once, to readers that read committed.

Late payments come all the while, so that rows are revised across the kills; every kill falls at a random time, into whatever the run
is doing: reading, writing, committing a transaction, forking, replaying.
"""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from gillnet.cli.main import app
from gillnet.state import CheckpointStore

from .faulty import Bench, Load
from .test_checkpoints_kafka import LateLoad

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gillnet.connectors.local_kafka import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

KILLS = 20
SEED = 20_261_127


@pytest.fixture
def bench(kafka: LocalKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(kafka, tmp_path, re.sub(r"[^a-zA-Z0-9_.-]", "-", request.node.name))
    yield made
    made.close()


def exactly_once(bench: Bench) -> dict[str, list[str]]:
    place = str(bench.directory / "checkpoints")
    settings = ["options.checkpoint_interval=700ms", f"options.transactional_id={bench.name}"]
    return {"settings": settings, "options": ["--checkpoints", place, "--delivery", "exactly-once"]}


def test_i5_twenty_kills_and_every_row_is_said_once(bench: Bench) -> None:
    dice = random.Random(SEED)
    history = ["--history", str(bench.directory / "history")]
    told = exactly_once(bench)
    told["options"] += history
    with LateLoad(bench.kafka, bench.topic, rate=1_000) as load:
        for _ in range(KILLS):
            process = bench.start(**told)
            bench.wait_until(
                lambda: "going on from a checkpoint" in bench.log() or bench.decided() > 0, "it does not start"
            )
            time.sleep(dice.uniform(0.2, 1.5))
            assert bench.end(process, signal.SIGKILL) == -signal.SIGKILL
        written = load.end()
    bench.finish(**told)

    # None lost, none twice: for readers of committed records the decisions are the payments.
    assert Counter(bench.ids()) == Counter(written)
    revised = Counter((row["id"], row["revision"]) for row in map(json.loads, bench.values("decisions.revisions")))
    assert max(revised.values()) == 1
    numbers: dict[str, list[int]] = {}
    for name, revision in sorted(revised):
        numbers.setdefault(name, []).append(revision)
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values()), (
        "a revision is missing between two"
    )
    # I3: over the whole of its life the run has read each record once.
    checkpoint, _ = CheckpointStore(bench.directory / "checkpoints").latest() or pytest.fail("no checkpoint")
    counts = checkpoint.counts["streams"]["payments"]
    assert (counts["read"], counts["scored"], counts["duplicate"]) == (len(written), len(written), 0)
    # I2: the last word on each row is the batch answer. And the group's offsets are at the end.
    verify = ["verify", str(bench.directory / "app.py"), *history, "--json"]
    verified = CliRunner().invoke(app, [*verify, "--sinks", f"kafka://{bench.servers}/{bench.name}-{{name}}"])
    assert verified.exit_code == 0, verified.output
    found = json.loads(verified.stdout)
    assert (found["equal"], found["rows"]) == (len(written), len(written)), found
    assert bench.committed() == len(written)


def test_a_zombie_is_fenced_and_nothing_of_it_is_seen(bench: Bench) -> None:
    """A run that is frozen while another one takes over wakes up, is refused, and has said nothing that the other says again."""
    told = exactly_once(bench)
    with Load(bench.kafka, bench.topic) as load:
        zombie = bench.start(**told)
        bench.wait_until(lambda: bench.decided() > 500, "no decisions come")
        zombie.send_signal(signal.SIGSTOP)
        bench.running.remove(zombie)
        successor = bench.start(**told)
        bench.wait_until(lambda: "going on from a checkpoint" in bench.log(), "the second run does not start")
        before = bench.decided()
        bench.wait_until(lambda: bench.decided() > before + 2_000, "the second run decides nothing")
        zombie.send_signal(signal.SIGCONT)
        assert zombie.wait(60) == 1
        assert "another run has taken over" in " ".join(bench.log(0).split())
        written = load.end()
        assert bench.end(successor) == 0
    bench.finish(**told)
    assert Counter(bench.ids()) == Counter(written)
