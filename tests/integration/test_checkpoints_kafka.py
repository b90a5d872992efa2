"""I5 on a real broker: a run that is killed again and again goes on from its checkpoints, and its last word is the complete answer.

Late payments come all the while, so that rows are revised across the kills; every kill falls at a random time, into whatever the run
is doing: reading, flushing, forking, writing a checkpoint.
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

from .faulty import Bench, Load, payment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from gillnet.connectors.local_kafka import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

KILLS = 20
SEED = 20_261_126
SETTINGS = ("options.checkpoint_interval=300ms",)


@pytest.fixture
def bench(kafka: LocalKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(kafka, tmp_path, re.sub(r"[^a-zA-Z0-9_.-]", "-", request.node.name))
    yield made
    made.close()


class LateLoad(Load):
    """One payment in fifty was made up to ten minutes ago."""

    def __init__(self, kafka: LocalKafka, topic: str, *, rate: int) -> None:
        super().__init__(kafka, topic, rate=rate)
        self._dice = random.Random(SEED)

    def payments(self, numbers: Sequence[int]) -> list[bytes]:
        now_ms = time.time_ns() // 1_000_000
        late = [self._dice.randrange(600_000) if self._dice.random() < 0.02 else 0 for _ in numbers]
        return [payment(n, ts=now_ms - by) for n, by in zip(numbers, late, strict=True)]


def test_i5_twenty_kills_change_nothing(bench: Bench) -> None:
    dice = random.Random(SEED)
    place, history = bench.directory / "checkpoints", bench.directory / "history"
    kept = ["--checkpoints", str(place), "--history", str(history)]
    with LateLoad(bench.kafka, bench.topic, rate=1_000) as load:
        for _ in range(KILLS):
            process = bench.start(settings=SETTINGS, options=kept)
            bench.wait_until(
                lambda: "going on from a checkpoint" in bench.log() or bench.decided() > 0, "it does not start"
            )
            time.sleep(dice.uniform(0.2, 1.5))
            assert bench.end(process, signal.SIGKILL) == -signal.SIGKILL
        written = load.end()
    bench.finish(settings=SETTINGS, options=kept)

    # I3: over the whole of its life the run has read each record once, and every one was scored.
    checkpoint, _ = CheckpointStore(place).latest() or pytest.fail("no checkpoint")
    counts = checkpoint.counts["streams"]["payments"]
    assert (counts["read"], counts["scored"], counts["duplicate"]) == (len(written), len(written), 0)
    # At-least-once: none is lost, and what comes again is bounded by the kills.
    decided = Counter(bench.ids())
    assert set(decided) == set(written)
    assert max(decided.values()) <= KILLS + 1
    assert len(bench.read("decisions.revisions")) > 0
    # I2: the history is what was read, once; the last word on each row is the batch answer.
    verify = ["verify", str(bench.directory / "app.py"), "--history", str(history), "--json"]
    told = CliRunner().invoke(app, [*verify, "--sinks", f"kafka://{bench.servers}/{bench.name}-{{name}}"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert (found["equal"], found["rows"]) == (len(written), len(written)), found


def test_a_second_run_on_the_same_place_takes_over_and_the_first_one_stops(bench: Bench) -> None:
    kept = ["--checkpoints", str(bench.directory / "checkpoints")]
    with Load(bench.kafka, bench.topic) as load:
        first = bench.start(settings=SETTINGS, options=kept)
        bench.wait_until(lambda: bench.decided() > 500, "no decisions come")
        second = bench.start(settings=SETTINGS, options=kept)
        bench.running.remove(first)
        assert first.wait(60) == 1
        told = " ".join(bench.log(0).split())  # The error's lines are broken as the terminal's width has it.
        assert "another run has taken over" in told or "fenced" in told.lower()
        before = bench.decided()
        bench.wait_until(lambda: bench.decided() > before + 500, "the second run decides nothing")
        written = load.end()
        assert bench.end(second) == 0
    bench.finish(settings=SETTINGS, options=kept)
    assert set(bench.ids()) == set(written)
