"""A run that has ended: what it read and what it wrote, found by the options that it ran with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from gillnet.app.config import RunConfig
from gillnet.app.reading import bounded, read_records
from gillnet.app.runs import check_streams
from gillnet.app.sinks import SinkRoutes
from gillnet.connectors.pulsar_uri import SCHEMES as PULSAR
from gillnet.connectors.pulsar_uri import refuse_reading_again
from gillnet.connectors.uri import open_source, parse_uri, source_format
from gillnet.core.errors import ConfigurationError
from gillnet.core.messages import RawBatch
from gillnet.operators.decode import stream_decoder
from gillnet.operators.progress import END_OF_TIME_US
from gillnet.plan.nodes import PipelinePlan, StreamNode
from gillnet.runtimes.batch import parquet_events, source_events
from gillnet.runtimes.embedded.revisions import REVISIONS
from gillnet.stores.history import History

Events = dict[str, Iterable[pa.RecordBatch]]

_DECODED_AT_ONCE = 4_096
_side_record = msgspec.json.Decoder(dict[str, Any])


class FinishedRun:
    """What a run read and wrote.

    Parameters
    ----------
    plan
        What it ran.
    config
        Its sources or its history, and its sinks.

    Raises
    ------
    ConfigurationError
        If the decisions went nowhere that can be read, or there is neither a history nor a source for each stream.
    """

    def __init__(self, plan: PipelinePlan, config: RunConfig) -> None:
        self.plan = plan
        self._config = config
        self._uris = SinkRoutes(plan, config.sinks, default=config.default_sink).uris
        if "decisions" not in self._uris:
            raise ConfigurationError(
                "There are no decisions to read: say where the run wrote them, with --sinks or --sink decisions=..., as it was run."
            )
        if config.history is None:
            check_streams(plan, config.sources)

    def outputs(self) -> Iterator[tuple[str, bytes]]:
        """Yield every row and every revision that the run wrote, as (output, record)."""
        for name in ("decisions", REVISIONS):
            for record in self.records(name):
                yield name, record

    def set_aside(self, stream: str, *kinds: str) -> Iterator[pa.RecordBatch]:
        """Yield the events of a stream's side outputs (``late``, ``too_late``, ``malformed``) that can be decoded."""
        decoder = stream_decoder(self.plan, stream)
        uri = self._config.sources.get(stream)
        form = None if uri is None else source_format(uri, settings=self._config.kafka)
        values = itertools.chain.from_iterable(self._side_values(f"{stream}.{kind}") for kind in kinds)
        while chunk := list(itertools.islice(values, _DECODED_AT_ONCE)):
            raw = RawBatch(stream=stream, values=chunk, partitions=[0] * len(chunk), arrival_time_us=0, format=form)
            batch = decoder.decode(raw).batch
            if batch.num_rows:
                yield batch.to_pyarrow()

    def events(self) -> Events:
        """Return the events of each stream: of the history, or else everything that its source has."""
        if self._config.history is not None:
            history = History(self._config.history)
            return {stream.name: _events_of(history, stream) for stream in self.plan.streams}
        return {stream.name: self._source(stream.name) for stream in self.plan.streams}

    def accepted_events(self) -> Events:
        """Return the events that the run accepted.

        The history has these alone. From a source, what the run set aside as too late or malformed is left out by its id, unless
        a row of that id was written; where another stream's id came twice, once in time and once too late, only the history knows.
        """
        if self._config.history is not None:
            return self.events()
        return {name: self._without_refused(name, events) for name, events in self.events().items()}

    def _without_refused(self, stream: str, events: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        column = self.plan.stream(stream).id
        refused: set[Any] = set()
        for batch in self.set_aside(stream, "too_late", "malformed"):
            refused.update(batch.column(column).to_pylist())
        if refused and stream == self.plan.root:
            refused -= self._written(column, refused)
        if not refused:
            yield from events
            return
        values = pa.array(sorted(refused))
        for batch in events:
            yield batch.filter(pc.invert(pc.is_in(batch.column(column), value_set=values)))

    def _written(self, column: str, ids: set[Any]) -> set[Any]:
        found = (_side_record.decode(record)[column] for record in self.records("decisions"))
        return {name for name in found if name in ids}

    def _source(self, stream: str) -> Iterator[pa.RecordBatch]:
        uri = self._config.sources[stream]
        parsed = parse_uri(uri, what=f"Source of {stream}")
        refuse_reading_again(parsed, what=f"Source of {stream}")
        if parsed.scheme == "kafka":
            uri = bounded(uri, stream)
        schema = self.plan.stream(stream).schema
        yield from source_events(self.plan, open_source(uri, stream=stream, schema=schema, settings=self._config.kafka))

    def records(self, output: str) -> Iterator[bytes]:
        """Yield every record that the run wrote to an output; nothing if it went nowhere."""
        uri = self._uris.get(output)
        if uri is not None and _exists(uri):
            yield from read_records(uri, name=output, kafka=self._config.kafka)

    def _side_values(self, output: str) -> Iterator[bytes]:
        uri = self._uris.get(output, "")
        unpack: Callable[[bytes], bytes] = _value_in_file if _is_file(uri) else bytes
        return map(unpack, self.records(output))

    def watermarks(self) -> dict[str, int | None]:
        """Return each stream's watermark when the run stopped, microseconds UTC; None where that is not known.

        The history says so. From a source, one that was read to its end has passed all of event time.
        """
        last: dict[str, int | None] = {stream.name: END_OF_TIME_US for stream in self.plan.streams}
        if self._config.history is None:
            return {name: mark if _ends(self._config.sources[name]) else None for name, mark in last.items()}
        for run in History(self._config.history).runs():
            for name in run.files.keys() & last.keys():
                mark, before = END_OF_TIME_US if name in run.ended else run.watermarks.get(name), last[name]
                # A run goes on where the one before it stopped, or begins further back.
                last[name] = mark if None in (mark, before) or before == END_OF_TIME_US else max(mark or 0, before or 0)
        return last

    def uri(self, output: str) -> str | None:
        """Return where an output went; None if nowhere."""
        return self._uris.get(output)


def _events_of(history: History, stream: StreamNode) -> Iterator[pa.RecordBatch]:
    """Yield a stream's events without when and where they arrived."""
    for batch in parquet_events(history.files(stream.name)):
        yield batch.select(list(stream.schema))


def _ends(source: str) -> bool:
    """Whether a source comes to an end by itself."""
    parsed = parse_uri(source, what="Source")
    return parsed.scheme not in ("kafka", *PULSAR) or parsed.parameters.get("until_end") == "true"


def _is_file(uri: str) -> bool:
    return bool(uri) and parse_uri(uri, what="Sink").scheme == "file"


def _exists(uri: str) -> bool:
    # A file is made when its first record comes; topics are made at the start.
    parsed = parse_uri(uri, what="Sink")
    return parsed.scheme != "file" or Path(parsed.path).exists()


def _value_in_file(line: bytes) -> bytes:
    value = _side_record.decode(line).get("value")
    return value.encode() if isinstance(value, str) else b""


def chained(first: Events, second: Mapping[str, Iterable[pa.RecordBatch]]) -> Events:
    """Return the events of both, those of the first before; of an id that is in both the first counts."""
    return {name: itertools.chain(events, second.get(name, ())) for name, events in first.items()}
