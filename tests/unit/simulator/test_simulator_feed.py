from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from gillnet.core.errors import DefinitionError
from gillnet.core.ports import Sink, Source
from gillnet.simulator import Simulation, SimulationConfig, SimulatorSource, produce, write_files

if TYPE_CHECKING:
    from gillnet.core.messages import OutputRecord


class ManualClock:
    """Time moves only by sleeping, or by hand."""

    def __init__(self):
        self.time_s = 1_000.0
        self.slept_s = 0.0

    def now_us(self):
        return int(self.time_s * 1e6)

    def monotonic_s(self):
        return self.time_s

    def sleep(self, seconds):
        self.time_s += seconds
        self.slept_s += seconds


class ListSink:
    def __init__(self, clock=None, block_s=0.0):
        self.values: list[bytes] = []
        self.keys: list[bytes | None] = []
        self.writes: list[tuple[float, int]] = []
        self.flushed = 0
        self._clock, self._block_s = clock, block_s

    def write(self, values, keys=None):
        self.values += values
        self.keys += keys or [None] * len(values)
        if self._clock:
            self.writes.append((self._clock.time_s, len(values)))
            self._clock.time_s += self._block_s
            self._block_s = 0.0

    def write_records(self, records: list[OutputRecord]):
        self.write([r.value for r in records], [r.key for r in records])

    def flush(self):
        self.flushed = len(self.values)

    def close(self):
        pass


@pytest.fixture(scope="module")
def simulation():
    return Simulation(
        SimulationConfig(
            duration="6h", cards=300, payments_per_day=8_000, sessions_per_day=200, bots_per_day=8, late_share=0.02
        )
    )


def all_values(simulation, stream):
    return [value for chunk in simulation.stream(stream) for value in chunk.values]


@pytest.mark.parametrize("stream", ["payments", "clicks", "labels", "visitor_labels"])
def test_a_source_without_rate_gives_everything_as_fast_as_polled(simulation, stream):
    clock = ManualClock()
    source = SimulatorSource(simulation, stream, clock=clock, name="live")
    assert isinstance(source, Source)
    assert source.stream == "live"
    got = []
    while not source.finished:
        batch = source.poll(97, 0.1)
        assert len(batch.values) == len(batch.partitions) <= 97
        assert batch.arrival_time_us == clock.now_us()
        assert batch.envelope(0)[0] in batch.values[0]
        got += batch.values
    assert got == all_values(simulation, stream)
    assert clock.slept_s == 0
    assert source.poll(10, 0.1) is None
    assert source.lag is None
    source.commit()
    source.close()


def test_a_paced_source_gives_what_is_due(simulation):
    clock = ManualClock()
    source = SimulatorSource(simulation, rate=100.0, clock=clock)
    assert len(source.poll(1_000, 0.0).values) == 1
    assert source.poll(1_000, 0.0) is None
    clock.time_s += 1.0
    assert source.lag == 100
    assert len(source.poll(1_000, 0.0).values) == 100
    before = clock.time_s
    assert len(source.poll(1_000, 5.0).values) == 1  # it waits for the next one only
    assert clock.time_s - before < 0.02
    clock.time_s += 2.0
    assert len(source.poll(50, 0.0).values) == 50
    assert source.lag >= 150


def test_a_slow_source_returns_in_time(simulation):
    clock = ManualClock()
    source = SimulatorSource(simulation, rate=0.1, clock=clock)
    source.poll(10, 0.0)
    before = clock.time_s
    assert source.poll(10, 0.5) is None
    assert clock.time_s - before == pytest.approx(0.5, abs=0.01)


def test_produce_writes_an_open_loop_keyed_by_card(simulation):
    clock = ManualClock()
    sink = ListSink(clock, block_s=1.0)
    assert isinstance(sink, Sink)
    assert produce(simulation, sink, rate=500.0, clock=clock, limit=800) == 800
    assert sink.values == all_values(simulation, "payments")[:800]
    assert all(msgspec.json.decode(v)["card_id"].encode() == k for v, k in zip(sink.values, sink.keys, strict=True))
    assert sink.flushed == 800
    assert clock.time_s - 1_000.0 == pytest.approx(800 / 500, abs=0.1)
    # The sink blocked for a second at first: what fell due meanwhile follows at once, and the schedule is kept.
    assert sink.writes[1][1] >= 490


def test_produce_keys_clicks_by_visitor_and_stops_when_told(simulation):
    sink = ListSink()
    written = produce(simulation, sink, stream="clicks", batch_records=10, should_stop=lambda: len(sink.values) >= 50)
    assert written == len(sink.values) == sink.flushed == 50
    assert all(msgspec.json.decode(v)["visitor_id"].encode() == k for v, k in zip(sink.values, sink.keys, strict=True))


def test_files_hold_every_stream(simulation, tmp_path):
    counts = write_files(simulation, tmp_path / "out")
    assert set(counts) == {"payments.ndjson", "clicks.ndjson", "labels.ndjson", "visitor_labels.ndjson"}
    for name, count in counts.items():
        lines = (tmp_path / "out" / name).read_bytes().split(b"\n")
        assert lines.pop() == b""
        assert len(lines) == count > 0
        assert lines == all_values(simulation, name.removesuffix(".ndjson"))


def test_wrong_use_is_told(simulation):
    with pytest.raises(DefinitionError, match="rate"):
        SimulatorSource(simulation, rate=0.0)
    with pytest.raises(DefinitionError, match="no stream 'refunds'"):
        SimulatorSource(simulation, "refunds")
    with pytest.raises(DefinitionError, match="chunk_records"):
        next(simulation.payments(chunk_records=0))
    with pytest.raises(DefinitionError, match="batch_records"):
        produce(simulation, ListSink(), batch_records=0)
