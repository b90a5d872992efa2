"""The RocksDB backend keeps what it is given, within its memory, in a private place, and gives the disk back."""

from __future__ import annotations

import stat
import sys
from collections.abc import Sequence

import pyarrow as pa
import pytest

import gillnet as gn
from gillnet._kernel import Batch
from gillnet.app.config import RunConfig
from gillnet.app.runs import open_backend
from gillnet.core.errors import ConfigurationError, StateError
from gillnet.core.ports import StateBackend
from gillnet.operators.features import FeatureOperator, arrow_schema
from gillnet.plan.nodes import PipelinePlan
from gillnet.state import RocksDBBackend
from gillnet.state.rocksdb import LEAST_MEMORY

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
SCHEMA = gn.Schema(id=gn.String(), ts=gn.Timestamp("us"), card=gn.String(), amount=gn.Decimal(2))


@pytest.fixture
def backend(tmp_path):
    opened = RocksDBBackend(tmp_path / "state", memory=LEAST_MEMORY)
    yield opened
    opened.close()


def cards(*, lateness: str = "1m", over: str = "1m") -> PipelinePlan:
    stream = gn.Stream(
        "payments", schema=SCHEMA, id="id", event_time="ts", watermark_delay="1s", allowed_lateness=lateness
    )
    card = stream.by("card")
    return gn.Pipeline(gn.Features(stream, spend=card.sum("amount", over=over), n=card.count(over=over))).plan


def events(plan: PipelinePlan, numbers: Sequence[int], *, at_s: float, cards: int) -> Batch:
    ids = [f"{at_s}-{number}" for number in numbers]
    columns = {
        "id": ids,
        "ts": pa.array([START + round(at_s * SECOND)] * len(ids), pa.timestamp("us", tz="UTC")),
        "card": [f"card-{number % cards:08}" for number in numbers],
        "amount": pa.array([100] * len(ids), pa.int64()).cast(pa.decimal128(38, 2)),
    }
    return Batch.from_pyarrow(pa.RecordBatch.from_pydict(columns, schema=arrow_schema(plan.stream("payments").schema)))


def fill(operator: FeatureOperator, keys: int, *, at_s: float, step: int = 2_000) -> None:
    for low in range(0, keys, step):
        batch = events(operator.plan, range(low, min(low + step, keys)), at_s=at_s, cards=keys)
        operator.process("payments", batch, START + 10**15)


def test_it_is_a_state_backend(backend):
    assert isinstance(backend, StateBackend)


def test_what_is_kept_comes_back_and_what_is_forgotten_does_not(backend):
    names = [b"\0\0a", b"\0\0b", b"\0\0c"]
    backend.keep(names, [b"1", b"2", b"3"], [b"\0\0t1a", b"\0\0t2b", b"\0\0t3c"])
    backend.keep(names[1:2], [b"22"], [b"\0\0t4b"])
    assert backend.fetch([b"\0\0c", b"\0\0x", b"\0\0b"]) == [b"3", None, b"22"]
    assert backend.expiries(b"\0\0", b"\0\0t4", 9) == [b"\0\0t1a", b"\0\0t2b", b"\0\0t3c"]
    assert backend.expiries(b"\0\0", b"\0\0t9", 2) == [b"\0\0t1a", b"\0\0t2b"]
    backend.forget([b"\0\0a"], [b"\0\0t1a", b"\0\0t2b"])
    assert backend.fetch(names) == [None, b"22", b"3"]
    assert backend.expiries(b"\0\0", b"\0\0u", 9) == [b"\0\0t3c", b"\0\0t4b"]


def test_a_cut_holds_what_was_there_and_another_backend_goes_on_from_it(backend, tmp_path):
    backend.keep([b"a", b"b"], [b"1", b"2"], [b"t1a", b"t1b"])
    cut = backend.cut()
    backend.keep([b"a"], [b"changed"], [b"t2a"])
    backend.forget([b"b"], [b"t1b"])
    other = RocksDBBackend(tmp_path / "other", memory=LEAST_MEMORY)
    assert not other.holds
    other.restore(lambda directory: [(directory / file.name).write_bytes(file.read_bytes()) for file in cut.iterdir()])
    assert other.holds
    assert other.fetch([b"a", b"b"]) == [b"1", b"2"]
    assert other.expiries(b"t", b"u", 9) == [b"t1a", b"t1b"]
    other.close()
    assert backend.fetch([b"a", b"b"]) == [b"changed", None]


def test_files_are_private_and_go_with_the_run(tmp_path):
    backend = RocksDBBackend(tmp_path / "state", memory=LEAST_MEMORY)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / "keys").stat().st_mode) == 0o700
    backend.cut()
    backend.close()
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["lock"]
    temporary = RocksDBBackend(memory=LEAST_MEMORY)
    directory = temporary.directory
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    temporary.close()
    assert not directory.exists()


def test_one_run_at_a_time_and_what_a_killed_one_left_goes(tmp_path):
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "000009.sst").write_bytes(b"left by a run that was killed")
    (tmp_path / "cut-000000001").mkdir()
    backend = RocksDBBackend(tmp_path, memory=LEAST_MEMORY)
    assert not (tmp_path / "cut-000000001").exists()
    with pytest.raises(ConfigurationError, match="another run keeps its state there; give each run a directory of its"):
        RocksDBBackend(tmp_path, memory=LEAST_MEMORY)
    backend.close()
    RocksDBBackend(tmp_path, memory=LEAST_MEMORY).close()


def test_without_rocksdict_the_error_names_the_mend(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rocksdict", None)
    with pytest.raises(ConfigurationError, match=r"rocksdict is not installed; run `pip install 'gillnet\[rocksdb\]'`"):
        RocksDBBackend(tmp_path)


def test_an_engine_says_what_failed_and_that_the_run_goes_on_from_a_checkpoint(backend):
    operator = FeatureOperator(cards(), backend=backend)
    backend.budget = 1
    operator._spill()
    backend._close()
    with pytest.raises(StateError, match=r"State backend rocksdb: cannot write .* goes on from its last checkpoint"):
        fill(operator, 600, at_s=0)


def test_the_budget_holds_and_expired_keys_give_the_disk_back(backend):
    """Ten times as many keys as memory may hold; then the watermark passes them all."""
    backend.budget = 1 << 20
    operator = FeatureOperator(cards(), backend=backend)
    keys = 60_000
    fill(operator, keys, at_s=0)
    resident, fetched, kept = operator._engine.spill_stats()
    assert resident <= backend.budget * 1.2
    assert kept > keys * 0.5
    fill(operator, keys, at_s=30)
    assert operator._engine.spill_stats()[1] > fetched
    backend.compact()
    before = backend.disk_bytes()
    # Nobody's events any more: two minutes later only one card pays, once a second.
    for second in range(150, 400):
        batch = events(operator.plan, [0] * 1_000, at_s=second, cards=1)
        operator.process("payments", batch, START + 10**15)
    backend.compact()
    assert backend.disk_bytes() < before / 10
    assert backend.expiries(b"\0", b"\1", 10) == []


def test_rows_are_those_of_the_memory_backend(backend):
    backend.budget = 1 << 18
    plan = cards()
    memory, spilled = FeatureOperator(plan), FeatureOperator(plan, backend=backend)
    for turn in range(60):
        batch = events(plan, range(turn * 977, turn * 977 + 1_500), at_s=turn / 2, cards=9_000)
        ours = [operator.process("payments", batch, START + 10**15) for operator in (memory, spilled)]
        assert ours[0].outcomes == ours[1].outcomes
        assert ours[0].rows.to_pyarrow().equals(ours[1].rows.to_pyarrow())
    assert spilled._engine.spill_stats()[1] > 10_000


def test_options_choose_the_backend(tmp_path):
    def opened(**options: str) -> RocksDBBackend | None:
        return open_backend(
            RunConfig().changed(settings=[f"options.{name}={value}" for name, value in options.items()])
        )

    assert opened() is None
    assert opened(state_backend="memory") is None
    backend = opened(state_backend="rocksdb", state_memory="64MB", state_directory=str(tmp_path / "s"))
    assert (backend.memory, backend.directory) == (64 << 20, tmp_path / "s")
    backend.close()
    with pytest.raises(ConfigurationError, match="state_backend: 'disk' is unknown; choose memory or rocksdb"):
        opened(state_backend="disk")
    with pytest.raises(ConfigurationError, match="state_memory: 'much' is no size; write it as 512MB or 4GB"):
        opened(state_backend="rocksdb", state_memory="much")
    with pytest.raises(ConfigurationError, match="are too few; give 64MB or more"):
        opened(state_backend="rocksdb", state_memory="1MB", state_directory=str(tmp_path / "t"))
    with pytest.raises(
        ConfigurationError, match="state_memory is the state backend rocksdb's, and this run's is memory"
    ):
        opened(state_memory="64MB")
