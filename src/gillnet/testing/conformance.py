"""What every source and sink must do, whatever the system behind it. A new connector passes these before anything else.

Run in a test::

    def test_my_source_conforms(tmp_path):
        check_source(lambda values: MySource(...), resumes=True)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gillnet.core.ports import Sink, Source
from gillnet.core.time import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gillnet.core.messages import OutputRecord, RawBatch

# Bytes that have broken connectors: braces and quotes, a comma, UTF-8 of two to four bytes, white space at both ends.
_VALUES = [b'{"n":%d}' % n for n in range(500)] + [
    b'{"text":"a,\\"b\\"\\n"}',
    '{"text":"é漢🎣"}'.encode(),
    b' {"pad":1} ',
]

_DEADLINE_S = 60.0


class ConformanceError(AssertionError):
    """A connector breaks the contract of its port."""


def check_source(
    open_on: Callable[[Sequence[bytes]], Source],
    *,
    reopen: Callable[[Source], Source] | None = None,
    clock: Clock | None = None,
) -> None:
    """Hold a bounded source against the contract of `gillnet.core.ports.Source`.

    Parameters
    ----------
    open_on
        Puts the given values into a fresh place and returns a bounded source on them.
    reopen
        For a source with committed offsets: returns a new source on the same place, as a run that starts again would,
        given the closed one. None for a source that always begins at its beginning.

    Raises
    ------
    ConformanceError
        Naming what does not hold.
    """
    clock = clock or SystemClock()
    source = open_on(_VALUES)
    _expect(isinstance(source, Source), f"{source!r} has not every method of the Source port")
    _expect(bool(source.stream), "the source's stream has no name")
    batches = _drain(source, clock, max_records=64)
    got = [value for batch in batches for value in batch.values]
    _expect(sorted(got) == sorted(_VALUES), _difference(got, "a whole read"))
    for batch in batches:
        _check_batch(batch, source.stream, max_records=64)
    _check_order(batches)
    _expect(source.poll(10, 0.0) is None, "poll gives a record after the source has finished")
    _expect(source.lag in (None, 0), f"lag is {source.lag} after the last record")
    source.close()
    source.close()  # Releasing twice is harmless: error paths do it.
    empty = open_on([])
    _expect(_drain(empty, clock, max_records=10) == [], "an empty source gives records")
    empty.close()
    if reopen is not None:
        _check_resume(open_on, reopen, clock)


def _check_resume(
    open_on: Callable[[Sequence[bytes]], Source], reopen: Callable[[Source], Source], clock: Clock
) -> None:
    """Nothing that was not committed is lost, and what was committed does not come again."""
    source = open_on(_VALUES)
    committed = [value for batch in _drain(source, clock, max_records=50, at_least=100) for value in batch.values]
    source.commit()
    _drain(source, clock, max_records=50, at_least=50)  # Read, and not processed when the run dies.
    source.close()
    again = reopen(source)
    rest = [value for batch in _drain(again, clock, max_records=64) for value in batch.values]
    _expect(sorted(committed + rest) == sorted(_VALUES), _difference(committed + rest, "a commit and a restart"))
    again.commit()
    again.close()
    last = reopen(again)
    _expect(_drain(last, clock, max_records=64) == [], "records come again after everything was committed")
    last.close()


def check_sink(open_sink: Callable[[], Sink], read_back: Callable[[], Sequence[OutputRecord]]) -> None:
    """Hold a sink against the contract of `gillnet.core.ports.Sink`.

    Parameters
    ----------
    open_sink
        Opens a sink; called twice, the second time on what the first one wrote.
    read_back
        Reads everything that was written. A system that cannot keep keys or headers returns None and [] for them.

    Raises
    ------
    ConformanceError
        Naming what does not hold.
    """
    sink = open_sink()
    _expect(isinstance(sink, Sink), f"{sink!r} has not every method of the Sink port")
    sink.write([])
    sink.flush()
    sink.write(_VALUES)
    sink.flush()
    _expect_values(read_back(), _VALUES, "what was flushed can be read")
    keyed = [b'{"keyed":%d}' % n for n in range(100)]
    sink.write(keyed, [b"k%d" % (n % 7) if n % 10 else None for n in range(100)])
    sink.close()
    sink.close()  # Releasing twice is harmless: error paths do it.
    _expect_values(read_back(), [*_VALUES, *keyed], "close flushes")
    _check_mismatch(open_sink)
    second = open_sink()
    second.write([b'{"second":true}'])
    second.close()
    _expect_values(
        read_back(), [*_VALUES, *keyed, b'{"second":true}'], "a sink that is opened again keeps what is there"
    )


def _check_mismatch(open_sink: Callable[[], Sink]) -> None:
    """Keys that are not as many as the values must be an error or be ignored as a whole, never cut the values short."""
    sink = open_sink()
    try:
        sink.write([], [])
    finally:
        sink.close()


def _drain(source: Source, clock: Clock, *, max_records: int, at_least: int | None = None) -> list[RawBatch]:
    batches: list[RawBatch] = []
    count = 0
    deadline_s = clock.monotonic_s() + _DEADLINE_S
    while not source.finished and (at_least is None or count < at_least):
        if clock.monotonic_s() > deadline_s:
            raise ConformanceError(f"{source!r} has not finished after {_DEADLINE_S:g} s; it gave {count} records")
        batch = source.poll(max_records, 0.1)
        if batch is not None:
            batches.append(batch)
            count += len(batch.values)
    return batches


def _check_batch(batch: RawBatch, stream: str, *, max_records: int) -> None:
    size = len(batch.values)
    _expect(0 < size <= max_records, f"a batch holds {size} records, asked for were 1 to {max_records}")
    _expect(len(batch.partitions) == size, f"a batch holds {size} values and {len(batch.partitions)} partitions")
    _expect(batch.stream == stream, f"a batch is of stream {batch.stream!r}, the source of {stream!r}")
    _expect(batch.arrival_time_us > 0, "a batch has no arrival time")
    _expect(all(type(value) is bytes for value in batch.values), "a value is not bytes")
    key, headers = batch.envelope(size - 1)
    _expect(key is None or type(key) is bytes, f"a key is {key!r}, neither bytes nor None")
    _expect(isinstance(headers, list), f"headers are {headers!r}, not a list")


def _check_order(batches: Sequence[RawBatch]) -> None:
    """Within a partition records keep their order."""
    place = {value: index for index, value in enumerate(_VALUES)}
    last: dict[int, int] = {}
    for batch in batches:
        for value, partition in zip(batch.values, batch.partitions, strict=True):
            _expect(last.get(partition, -1) < place[value], f"partition {partition} gives {value!r} out of order")
            last[partition] = place[value]


def _expect_values(records: Sequence[OutputRecord], values: Sequence[bytes], rule: str) -> None:
    got = [record.value for record in records]
    _expect(sorted(got) == sorted(values), f"{rule}: wrote {len(values)} records, read {len(got)}")


def _difference(got: Sequence[bytes], after: str) -> str:
    missing, more = set(_VALUES) - set(got), len(got) - len(set(got))
    strange = len(set(got) - set(_VALUES))
    return f"after {after}: {len(missing)} records are missing, {more} came twice, {strange} are strange"


def _expect(holds: bool, message: str) -> None:
    if not holds:
        raise ConformanceError(message)
