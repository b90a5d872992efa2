"""Two runs in one consumer group, each with its own place, killed under load: what one has read is never the other's.

A group hands the partitions of a member to another one, and the state of their keys stays where it was. So neither run may go on,
whoever came first and whoever is killed; started again alone, the first one goes on where its state stands.
"""

from __future__ import annotations

import json
import random
import re
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from .faulty import Bench, Load

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from gillnet.connectors.local_kafka import LocalKafka

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 20_261_128


class TwoMembers(Bench):
    """Both write to the same topics, each under a transactional id and as a group member of its own."""

    def member(self, name: str) -> dict[str, list[str]]:
        return {
            "options": ["--checkpoints", str(self.directory / f"place-{name}"), "--delivery", "exactly-once"],
            "settings": [
                "options.checkpoint_interval=700ms",
                f"options.transactional_id={self.name}.{name}",
                f"kafka.group.instance.id={name}",
            ],
        }

    def begin(self, name: str) -> subprocess.Popen[bytes]:
        told: dict[str, Any] = self.member(name)
        return self.start(**told)

    def ended_with(self, process: subprocess.Popen[bytes]) -> str:
        """Wait until a run has ended with an error; return what it says."""
        log = self.logs[self.processes.index(process)]
        assert process.wait(30) == 1, log.read_text()
        self.running.remove(process)
        return " ".join(log.read_text().split())  # The error's lines are broken as the terminal's width has it.

    def start(self, **told: Any) -> subprocess.Popen[bytes]:
        process = super().start(**told)
        self.processes.append(process)
        return process

    def __post_init__(self) -> None:
        super().__post_init__()
        self.processes: list[subprocess.Popen[bytes]] = []


@pytest.fixture
def bench(kafka: LocalKafka, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[TwoMembers]:
    made = TwoMembers(kafka, tmp_path, re.sub(r"[^a-zA-Z0-9_.-]", "-", request.node.name))
    yield made
    made.close()


def test_i5_members_that_are_killed_while_the_group_is_rebalanced_say_each_row_once(bench: TwoMembers) -> None:
    dice = random.Random(SEED)

    def first_is_under_load() -> subprocess.Popen[bytes]:
        before = bench.decided()
        first = bench.begin("first")
        bench.wait_until(lambda: bench.decided() > before + 500, "no decisions come")
        return first

    with Load(bench.kafka, bench.topic, rate=1_000) as load:
        # The second is given half of the partitions, so the first one ends; the second dies at some time before it is given the rest.
        first = first_is_under_load()
        second = bench.begin("second")
        assert "to another member, and the state of its keys" in bench.ended_with(first)
        time.sleep(dice.uniform(0.0, 2.0))
        bench.end(second, signal.SIGKILL)

        # The first one goes on, and dies at some time while the second joins again, which then is given all that it had.
        first = first_is_under_load()
        second = bench.begin("second")
        time.sleep(dice.uniform(0.5, 2.0))
        bench.end(first, signal.SIGKILL) if first.poll() is None else bench.ended_with(first)
        assert "is in the checkpoints of another run" in bench.ended_with(second)
        written = load.end()
    told: dict[str, Any] = bench.member("first")
    bench.finish(**told)
    # None lost, none twice; and every row is of what came before it, so that each payment of a card counts one more.
    assert Counter(bench.ids()) == Counter(written)
    counted: dict[str, list[int]] = {}
    for row in map(json.loads, bench.values("decisions")):
        counted.setdefault(row["card"], []).append(row["features"]["payments_5m"])
    assert all(sorted(numbers) == list(range(1, len(numbers) + 1)) for numbers in counted.values())
