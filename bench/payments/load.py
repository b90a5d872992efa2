"""The two ends of a latency run: a sender on schedule and a receiver of scores, each a process of its own.

Open loop: payment *i* is due at ``start + i / rate`` whatever has come back, and its latency counts from that instant,
not from when it was really sent. So neither a slow contender nor a late sender can hide waiting time (there is no
coordinated omission). Both ends use CLOCK_MONOTONIC, which the processes of one machine share.
"""

from __future__ import annotations

import json
import resource
import time
from dataclasses import dataclass
from itertools import chain
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from bench.payments.topics import PARTITIONER, PARTITIONS
from bench.payments.workload import Workload, encode, generate, transaction_number

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

# Wake-ups cost CPU that the contender could use. What a payment waits for the next one counts in its latency.
_TICK_S = 0.0005
# Sent at once instead of one by one, when the sender itself was held up, and between two looks at the clock.
_BURST_MAX = 500

Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What to send, where to, and how fast."""

    bootstrap: str
    input: str
    output: str
    workload: Workload
    rate_per_s: int
    linger_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What the sender did: when the first payment was due, how late each one left, and the CPU time it took."""

    start_s: float
    lateness_s: Times
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """When the score of each payment arrived (NaN if it did not), and the CPU time it took to receive them."""

    at_s: Times
    cpu_s: float


class Ends:
    """Starts both processes on entry, idle until `send`; ends them on exit."""

    def __init__(self, schedule: Schedule) -> None:
        spawn = get_context("spawn")  # librdkafka does not survive a fork
        self._sender, sender_end = spawn.Pipe()
        self._receiver, receiver_end = spawn.Pipe()
        self._processes = [
            spawn.Process(target=_send, args=(schedule, sender_end), daemon=True),
            spawn.Process(target=_receive, args=(schedule, receiver_end), daemon=True),
        ]

    def __enter__(self) -> Ends:
        for process in self._processes:
            process.start()
        for connection in (self._sender, self._receiver):
            _answer(connection, timeout_s=60)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()

    def send(self, timeout_s: float) -> Sent:
        """Send everything on schedule and return when the broker has acknowledged it."""
        self._sender.send("go")
        sent: Sent = _answer(self._sender, timeout_s=timeout_s)
        return sent

    def receive(self, grace_s: float) -> Received:
        """Return what has arrived, as soon as everything has or after ``grace_s`` seconds."""
        self._receiver.send(grace_s)
        received: Received = _answer(self._receiver, timeout_s=grace_s + 30)
        return received


def _answer(connection: Connection[Any, Any], *, timeout_s: float) -> Any:
    if not connection.poll(timeout_s):
        raise RuntimeError(f"The load generator gave no answer within {timeout_s:.0f} s.")
    return connection.recv()


def _send(schedule: Schedule, connection: Connection[Any, Any]) -> None:
    encoded = [encode(chunk) for chunk in generate(schedule.workload)]
    keys = list(chain.from_iterable(keys for keys, _ in encoded))
    values = list(chain.from_iterable(values for _, values in encoded))
    producer = Producer(
        {"bootstrap.servers": schedule.bootstrap, "linger.ms": schedule.linger_ms, "partitioner": PARTITIONER}
    )
    producer.list_topics(schedule.input, timeout=30)
    connection.send("ready")
    connection.recv()
    total, rate, topic = len(values), schedule.rate_per_s, schedule.input
    left_s = np.empty(total)
    cpu_before_s = _cpu_s()
    start_s = time.monotonic() + 0.1
    sent = 0
    while sent < total:
        now_s = time.monotonic()
        due = min(total, sent + _BURST_MAX, int((now_s - start_s) * rate) + 1)
        if due <= sent:
            time.sleep(max(start_s + sent / rate - now_s, _TICK_S))
            continue
        for number in range(sent, due):
            producer.produce(topic, values[number], keys[number])
        left_s[sent:due] = time.monotonic()
        sent = due
        producer.poll(0)
    producer.flush()
    due_s = start_s + np.arange(total) / rate
    connection.send(Sent(start_s=start_s, lateness_s=left_s - due_s, cpu_s=_cpu_s() - cpu_before_s))
    connection.recv()  # Stay until the end is killed, so that the pipe is not torn down early.


def _receive(schedule: Schedule, connection: Connection[Any, Any]) -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": schedule.bootstrap,
            "group.id": f"latency-{schedule.output}",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 2,
        }
    )
    consumer.assign([TopicPartition(schedule.output, partition, OFFSET_BEGINNING) for partition in range(PARTITIONS)])
    consumer.poll(0)
    connection.send("ready")
    at_s = np.full(schedule.workload.events, np.nan)
    missing = len(at_s)
    give_up_s = float("inf")
    cpu_before_s = _cpu_s()
    while missing and time.monotonic() < give_up_s:
        # While records come too: from a contender that fell behind they come without end.
        if give_up_s == float("inf") and connection.poll():
            give_up_s = time.monotonic() + connection.recv()
        first = consumer.poll(0.1)
        if first is not None:
            messages = [first, *consumer.consume(1_000, timeout=0)]
            now_s = time.monotonic()
            for message in messages:
                at_s[_number(message.value())] = now_s
            missing -= len(messages)
    connection.send(Received(at_s=at_s, cpu_s=_cpu_s() - cpu_before_s))
    consumer.close()
    connection.poll(None)


def _number(value: bytes) -> int:
    # Compact JSON that starts with the id is what everyone writes; parse only if somebody does not.
    if value.startswith(b'{"tx_id":"p'):
        return int(value[11:22])
    return transaction_number(json.loads(value)["tx_id"])


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
