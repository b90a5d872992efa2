"""The two ends of a soak: payments at a steady rate, some of them late, twice, or broken; and the decisions that come of them."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter

from gillnet.connectors.kafka import KafkaSink, KafkaSource

TICK_S = 0.02
CARDS, USERS = 20_000, 5_000
# Each of these seconds brings so many payments at once: queues, micro-batches and the allocators' high-water marks are then once as
# large as they get, and a machine that is busy for a while later on does not look like a leak.
BURSTS_S, BURST = (40.0, 70.0, 100.0), 40_000
CHUNK = 2_000
SHARES = {"late": 0.02, "too_late": 0.002, "duplicate": 0.01, "malformed": 0.005}


class Load(threading.Thread):
    """Writes payments on schedule until it is ended. The id of each holds the millisecond at which it was made."""

    def __init__(self, servers: str, topic: str, *, rate: int, seed: int) -> None:
        super().__init__(name="soak-load", daemon=True)
        self._sink = KafkaSink(topic=topic, bootstrap_servers=servers)
        self._rate, self._dice = rate, random.Random(seed)
        self._ended = threading.Event()
        self._sent, self._last = 0, b""
        self.written: Counter[str] = Counter()
        self.failure: BaseException | None = None

    def run(self) -> None:
        began_s = time.monotonic()
        try:
            while not self._ended.wait(TICK_S):
                passed_s = time.monotonic() - began_s
                bursts = sum(passed_s >= burst_s for burst_s in BURSTS_S)
                due = int(passed_s * self._rate) + bursts * BURST - self._sent
                while due > 0:
                    self._write(min(due, CHUNK))
                    due -= CHUNK
            self._sink.close()
        except BaseException as failure:
            self.failure = failure

    def _write(self, records: int) -> None:
        values, keys = [], []
        for number in range(self._sent, self._sent + records):
            kind, value, key = self._payment(number, self._last)
            self._last = value if kind in ("ordinary", "late") else self._last
            self.written[kind] += 1
            values.append(value)
            keys.append(key)
        self._sink.write(values, keys)
        self._sent += records

    def _payment(self, number: int, last: bytes) -> tuple[str, bytes, bytes]:
        dice, now_ms = self._dice.random(), time.time_ns() // 1_000_000
        kind, below = "ordinary", 0.0
        for name, share in SHARES.items():
            below += share
            if dice < below:
                kind = name
                break
        if kind == "malformed":
            return kind, b'{"id": "broken-%d", "ts": ' % number, b"c0"
        if kind == "duplicate" and last:
            return kind, last, last.split(b'"card":"', 1)[1].split(b'"', 1)[0]
        kind = "ordinary" if kind == "duplicate" else kind
        by_ms = {"late": self._dice.randrange(2_000, 20_000), "too_late": 600_000}.get(kind, 0)
        card = b"c%d" % int(CARDS * self._dice.random() ** 2)
        value = b'{"id":"%d-%d","ts":%d,"card":"%b","user":"u%d","amount":"%d.%02d","status":"%b"}' % (
            now_ms,
            number,
            now_ms - by_ms,
            card,
            self._dice.randrange(USERS),
            self._dice.randrange(200),
            self._dice.randrange(100),
            b"declined" if self._dice.random() < 0.1 else b"approved",
        )
        return kind, value, card

    def end(self) -> Counter[str]:
        """Stop, flush, and return how many of each kind were written."""
        self._ended.set()
        self.join(120)
        if self.failure is not None:
            raise self.failure
        return self.written


class Probe(threading.Thread):
    """Reads decisions as they come, and notes how old each payment is by then."""

    def __init__(self, servers: str, topic: str) -> None:
        super().__init__(name="soak-probe", daemon=True)
        self._source = KafkaSource(
            stream="d", topic=topic, bootstrap_servers=servers, group="soak-probe", start="earliest"
        )
        self._ended = threading.Event()
        self._ages_ms: list[int] = []
        self._lock = threading.Lock()
        self.decisions = 0
        self.last_s = time.monotonic()

    def run(self) -> None:
        while not self._ended.is_set():
            batch = self._source.poll(2_000, 0.1)
            if batch is None:
                continue
            now_ms = time.time_ns() // 1_000_000
            ages = [now_ms - int(value.split(b'"id":"', 1)[1].split(b"-", 1)[0]) for value in batch.values]
            with self._lock:
                self._ages_ms += ages
                self.decisions += len(ages)
                self.last_s = time.monotonic()
        self._source.close()

    def percentiles_ms(self) -> dict[str, float | None]:
        """Return p50 and p99 since the last call."""
        with self._lock:
            ages, self._ages_ms = sorted(self._ages_ms), []
        shares = {"latency_ms_p50": 0.5, "latency_ms_p99": 0.99}
        return {name: float(ages[int(share * (len(ages) - 1))]) if ages else None for name, share in shares.items()}

    def end(self) -> None:
        """Stop."""
        self._ended.set()
        self.join(30)
