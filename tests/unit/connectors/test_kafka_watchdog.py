"""A call of librdkafka that never comes back ends the process, which says which call of which client it was."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

HANGING = """
import sys, time
import structlog
from gillnet.connectors.kafka.watchdog import WatchedProducer

structlog.configure(
    processors=[structlog.processors.JSONRenderer()], logger_factory=structlog.PrintLoggerFactory(sys.stderr)
)
hanging, takes_s = sys.argv[1], float(sys.argv[2])

class Client:
    '''Stands in for librdkafka's producer: one of its calls takes no account of its timeout.'''

    produce = produce_batch = poll = purge = list_topics = None

    def __len__(self):
        return 0

    def flush(self, timeout_s):
        return 0

def hang(*_):
    time.sleep(takes_s)
    return 0

setattr(Client, hanging, hang)
producer = WatchedProducer(Client(), what="Kafka transactions 'orders'", margin_s=2.0)
for _ in range(100):
    producer.flush(0.0) if hanging != "flush" else None
call = getattr(producer, hanging)
call() if hanging == "begin_transaction" else call(1.0)
print("came back")
"""


def run(hanging: str, takes_s: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(HANGING), hanging, str(takes_s)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.parametrize("call", ["commit_transaction", "begin_transaction", "flush"])
def test_a_call_that_hangs_ends_the_process_and_is_named(call: str) -> None:
    done = run(call, 90.0)
    assert (done.returncode, done.stdout) == (1, "")
    [told] = [json.loads(line) for line in done.stderr.splitlines()]
    assert told["event"] == "a call of librdkafka hangs, so the process ends"
    assert (told["client"], told["call"]) == ("Kafka transactions 'orders'", call)
    assert told["taken_s"] > told["timeout_s"] + 2.0
    assert "start the run again" in told["mend"]


def test_a_call_that_is_late_and_comes_back_is_left_alone() -> None:
    done = run("commit_transaction", 1.5)
    assert (done.returncode, done.stdout, done.stderr) == (0, "came back\n", "")
