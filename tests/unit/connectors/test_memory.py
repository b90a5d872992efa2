"""Streams in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gillnet.connectors.memory import MemorySink, MemorySource
from gillnet.core.errors import ConfigurationError
from gillnet.testing.conformance import ConformanceError, check_sink, check_source

if TYPE_CHECKING:
    from gillnet.core.messages import OutputRecord


def test_source_conforms() -> None:
    lists: dict[int, list[bytes]] = {}

    def open_on(values: list[bytes]) -> MemorySource:
        source = MemorySource("s", values, partitions=[n % 3 for n in range(len(values))])
        lists[id(source)] = values
        return source

    def reopen(closed: MemorySource) -> MemorySource:
        again = MemorySource("s", lists[id(closed)], start=closed.committed_records)
        lists[id(again)] = lists[id(closed)]
        return again

    check_source(open_on, reopen=reopen)  # type: ignore[arg-type]


def test_sink_conforms() -> None:
    sink = MemorySink()
    check_sink(lambda: sink, lambda: sink.records)


def test_the_kit_finds_a_source_that_loses_records() -> None:
    class Lossy(MemorySource):
        def poll(self, max_records, timeout_s):  # type: ignore[no-untyped-def]
            batch = super().poll(max_records, timeout_s)
            self._position += 1
            return batch

    with pytest.raises(ConformanceError, match="records are missing"):
        check_source(lambda values: Lossy("s", values))


def test_the_kit_finds_a_source_that_commits_what_was_only_read() -> None:
    values_of: dict[int, list[bytes]] = {}

    class Hasty(MemorySource):
        def close(self) -> None:
            self.commit()

    def open_on(values):  # type: ignore[no-untyped-def]
        source = Hasty("s", values)
        values_of[id(source)] = values
        return source

    with pytest.raises(ConformanceError, match="after a commit and a restart: 50 records are missing"):
        check_source(open_on, reopen=lambda s: MemorySource("s", values_of[id(s)], start=s.committed_records))  # type: ignore[attr-defined]


def test_the_kit_finds_a_sink_that_forgets_to_flush() -> None:
    kept: list[OutputRecord] = []

    class Forgetful(MemorySink):
        def close(self) -> None:
            kept.extend(self.records[:503])

    with pytest.raises(ConformanceError, match="wrote 503 records, read 0"):
        check_sink(Forgetful, lambda: kept)


def test_envelope_of_a_later_batch() -> None:
    source = MemorySource("s", [b"a", b"b"], keys=[b"1", b"2"], headers=[[], [("h", b"v")]], partitions=[4, 5])
    source.poll(1, 0.0)
    batch = source.poll(1, 0.0)
    assert batch is not None
    assert (list(batch.partitions), batch.envelope(0)) == ([5], (b"2", [("h", b"v")]))


def test_columns_of_another_length_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="1 keys for 2 values"):
        MemorySource("s", [b"a", b"b"], keys=[b"1"])
