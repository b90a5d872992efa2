"""Reads a source to its end as a run would, into columns in the order of arrival.

What a run would refuse is left out and counted (I3): malformed records, absurd event times, duplicates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gillnet import _kernel
from gillnet.core.errors import ConfigurationError
from gillnet.core.messages import RawBatch
from gillnet.core.naming import nearest
from gillnet.core.ports import Source
from gillnet.core.schema import Integer, Schema, String, Timestamp
from gillnet.lifecycle.lateness.delays import Micros
from gillnet.operators.decode import DecodeOperator
from gillnet.plan.nodes import StreamNode

READ_AT_ONCE = 8_192
TimeUnit = Literal["s", "ms", "us", "rfc3339"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvents:
    """The events of one stream, in the order of arrival.

    Attributes
    ----------
    node
        The stream, as the pipeline or the command line describes it.
    rows
        The decoded columns.
    times, arrivals
        int64 microseconds UTC; arrivals ascend.
    recorded
        Whether the arrivals were recorded. If not, the newest event time so far stands in for each: the stream's own
        progress.
    partitions
        int32, from 0.
    ids
        uint64 of shape (events, 2): keys of the ids, in the order in which the kernel puts events of one microsecond.
    read, malformed, duplicate
        Records read, and those of them that are not among the events.
    whole
        Whether the source was read to its end.
    """

    node: StreamNode
    rows: pa.RecordBatch
    times: Micros
    arrivals: Micros
    recorded: bool
    partitions: NDArray[np.int32]
    ids: NDArray[np.uint64]
    read: int
    malformed: int
    duplicate: int
    whole: bool

    def __len__(self) -> int:
        return len(self.times)

    def take(self, places: NDArray[Any]) -> StreamEvents:
        """Return the events at these places."""
        return StreamEvents(
            node=self.node,
            rows=self.rows.take(pa.array(places)),
            times=self.times[places],
            arrivals=self.arrivals[places],
            recorded=self.recorded,
            partitions=self.partitions[places],
            ids=self.ids[places],
            read=self.read,
            malformed=self.malformed,
            duplicate=self.duplicate,
            whole=self.whole,
        )


def read_stream(
    source: Source,
    node: StreamNode | Callable[[bytes], StreamNode],
    *,
    keys: tuple[str, ...] = (),
    arrival: str | None = None,
    most: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> StreamEvents:
    """Read a source to its end.

    Parameters
    ----------
    source
        It is read and never committed, and not closed.
    node
        The stream, or what makes it of the first record (`described`).
    keys
        Columns that must hold a key.
    arrival
        The column with the time of arrival; by default what the source itself recorded.
    most
        Read so many records at the most.
    should_stop
        Asked between polls.

    Raises
    ------
    ConfigurationError
        If there is no record, or the column of the arrival is missing.
    """
    parts, read, malformed = [], 0, 0
    decoder: DecodeOperator | None = None
    stream: StreamNode | None = None
    for raw in _polls(source, most, should_stop):
        read += len(raw.values)
        if decoder is None or stream is None:
            stream = node if isinstance(node, StreamNode) else node(_first_object(raw, source))
            schema = stream.schema if arrival is None else _with_arrival(stream, arrival, _first_object(raw, source))
            decoder = DecodeOperator(schema, id=stream.id, keys=list(keys))
        part = _Part.of(raw, decoder, stream, arrival)
        malformed += len(raw.values) - part.rows.num_rows
        parts.append(part)
    if stream is None:
        raise ConfigurationError(f"The source of {source.stream!r} gave no record; there is nothing to measure.")
    return _joined(stream, parts, read=read, malformed=malformed, whole=most is None or read < most)


def described(
    first: bytes,
    *,
    name: str,
    id: str,  # noqa: A002 - the field's word
    event_time: str,
    idle_after_us: int,
    max_ahead_us: int,
) -> StreamNode:
    """Describe a stream of which only its id and its event time count, by its first record.

    Raises
    ------
    ConfigurationError
        If the record does not have these fields.
    """
    record = json.loads(first)
    for option, field in (("--id", id), ("--event-time", event_time)):
        if field not in record:
            raise ConfigurationError(
                f"The records of {name!r} have no field {field!r}{nearest(field, list(record))}; name it with {option}, or give "
                f"the pipeline's file."
            )
    schema = Schema(
        **{
            id: Integer() if isinstance(record[id], int) else String(),
            event_time: Timestamp(time_unit(record[event_time])),
        }
    )
    return StreamNode(
        name=name,
        schema=schema,
        id=id,
        event_time=event_time,
        watermark_delay_us=0,
        allowed_lateness_us=0,
        idle_after_us=idle_after_us,
        earliest_us=946_684_800_000_000,  # The year 2000, as in a definition.
        max_ahead_us=max_ahead_us,
    )


def time_unit(value: object) -> TimeUnit:
    """Tell the unit of a timestamp by its kind and size: text, or seconds, milliseconds or microseconds since 1970."""
    if not isinstance(value, int):
        return "rfc3339"
    return "s" if abs(value) < 10**11 else ("ms" if abs(value) < 10**14 else "us")


def _polls(source: Source, most: int | None, should_stop: Callable[[], bool]) -> Iterator[RawBatch]:
    read = 0
    while not (source.finished or should_stop()) and (most is None or read < most):
        raw = source.poll(READ_AT_ONCE if most is None else min(READ_AT_ONCE, most - read), 0.05)
        if raw is not None:
            read += len(raw.values)
            yield raw


def _first_object(raw: RawBatch, source: Source) -> bytes:
    for value in raw.values:
        try:
            if isinstance(json.loads(value), dict):
                return value
        except ValueError:
            continue
    raise ConfigurationError(
        f"The source of {source.stream!r} begins with {len(raw.values)} records that are no JSON objects."
    )


def _with_arrival(stream: StreamNode, arrival: str, first: bytes) -> Schema:
    columns = dict(stream.schema.items())
    record = json.loads(first)
    if arrival not in record:
        raise ConfigurationError(
            f"The records of {stream.name!r} have no field {arrival!r}{nearest(arrival, list(record))}; --arrival names the "
            "field that says when a record arrived."
        )
    return Schema(**{**columns, arrival: Timestamp(time_unit(record[arrival]))})


@dataclass(frozen=True, slots=True)
class _Part:
    rows: pa.RecordBatch
    times: Micros
    arrivals: Micros | None
    partitions: NDArray[np.int32]
    ids: NDArray[np.uint64]

    @classmethod
    def of(cls, raw: RawBatch, decoder: DecodeOperator, stream: StreamNode, arrival: str | None) -> _Part:
        decoded = decoder.decode(raw)
        rows = decoded.batch.to_pyarrow()
        places = range(len(raw.values)) if decoded.rows is None else decoded.rows.to_pylist()
        times, arrivals = _micros(rows, stream.event_time), _arrivals(raw, rows, places, arrival)
        # Where no arrival is recorded, it is judged as a run would that reads the record now.
        arrived = raw.arrival_time_us if arrivals is None else arrivals
        sane = (times >= stream.earliest_us) & (times <= arrived + stream.max_ahead_us)
        keys = np.column_stack([words.to_numpy() for words in _kernel.id_words(decoded.batch, stream.id)])
        partitions = np.array([raw.partitions[place] for place in places], np.int32)
        if sane.all():
            return cls(rows, times, arrivals, partitions, keys)
        kept = np.flatnonzero(sane)
        arrivals = None if arrivals is None else arrivals[kept]
        return cls(rows.take(pa.array(kept)), times[kept], arrivals, partitions[kept], keys[kept])


def _micros(rows: pa.RecordBatch, column: str) -> Micros:
    micros: Micros = rows[column].cast(pa.int64()).to_numpy()
    return micros


def _arrivals(raw: RawBatch, rows: pa.RecordBatch, places: Any, arrival: str | None) -> Micros | None:
    if arrival is not None:
        return _micros(rows, arrival)
    recorded = [raw.recorded_arrival_us(place) for place in places]
    return None if None in recorded else np.array(recorded, np.int64)


def _joined(stream: StreamNode, parts: list[_Part], *, read: int, malformed: int, whole: bool) -> StreamEvents:
    rows = pa.Table.from_batches([part.rows for part in parts]).combine_chunks().to_batches()
    times = np.concatenate([part.times for part in parts])
    numbers, partitions = np.unique(np.concatenate([part.partitions for part in parts]), return_inverse=True)
    del numbers  # Which partition it was does not matter here.
    known = [part.arrivals for part in parts if part.arrivals is not None]
    recorded = len(known) == len(parts)
    arrivals = np.concatenate(known) if recorded else np.maximum.accumulate(times)
    if recorded:
        for partition in range(int(partitions.max(initial=-1)) + 1):
            own = np.flatnonzero(partitions == partition)
            # Records of a partition arrive in their order, whatever the clocks of several producers say.
            arrivals[own] = np.maximum.accumulate(arrivals[own])
    ids = np.concatenate([part.ids for part in parts])
    order = np.argsort(arrivals, kind="stable")
    kept = order[_first_of_each(ids[order])]
    events = StreamEvents(
        node=stream,
        rows=rows[0] if rows else parts[0].rows,
        times=times,
        arrivals=arrivals,
        recorded=recorded,
        partitions=partitions.astype(np.int32),
        ids=ids,
        read=read,
        malformed=malformed,
        duplicate=len(order) - len(kept),
        whole=whole,
    )
    return events.take(kept)


def _first_of_each(ids: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return the places of the first event of each id, ascending."""
    order = np.lexsort((ids[:, 1], ids[:, 0]))
    again = np.zeros(len(ids), np.bool_)
    again[1:] = (ids[order][1:] == ids[order][:-1]).all(axis=1)
    return np.sort(order[~again])
