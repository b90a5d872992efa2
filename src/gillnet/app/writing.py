"""Writes simulated streams to sinks, in step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gillnet.app.config import RunConfig
from gillnet.app.reading import read_blocked
from gillnet.app.sinks import create_topics, make_directory, place_pattern
from gillnet.connectors.uri import open_sink, parse_uri
from gillnet.core.errors import ConfigurationError
from gillnet.core.ports import Sink
from gillnet.core.secrets import without_parameters
from gillnet.simulator import Simulation, SimulationConfig, interleaved_sources
from gillnet.simulator.streams import StreamName

_BATCH_RECORDS = 1_000
_FLUSH_EVERY_BATCHES = 500
_WAIT_S = 0.02


class SimulatedWriter:
    """Writes streams of one simulation.

    Parameters
    ----------
    config
        What is simulated.
    streams
        The streams to write; the first sets the pace, and the others keep step with it.
    to
        A directory, a URI with ``{name}``, or, for one stream, any sink's URI.
    rate
        Records of the first stream a second; None: as fast as the sinks take them.
    settings
        ``kafka.<setting>=value`` or ``pulsar.<setting>=value`` each.
    max_records
        Stop after so many records of the first stream.
    blocked
        Where a run wrote its decisions (a file of NDJSON, or a topic): payments that it blocked get no label.

    Raises
    ------
    ConfigurationError, SourceError, SinkError
        If a place cannot be written, or the decisions cannot be read.

    Attributes
    ----------
    places
        URI by stream.
    """

    def __init__(
        self,
        config: SimulationConfig,
        streams: Sequence[StreamName],
        *,
        to: str,
        rate: float | None = None,
        settings: Sequence[str] = (),
        max_records: int | None = None,
        blocked: str | None = None,
    ) -> None:
        connection = RunConfig().changed(settings=settings).connection
        single = len(streams) == 1 and "{name}" not in to and (to == "-" or parse_uri(to, what="--to").scheme != "file")
        pattern = to if single else place_pattern(to, what="--to")
        self.places: dict[str, str] = {stream: pattern.replace("{name}", stream) for stream in streams}
        self._lead, *others = streams
        self._max_records = max_records
        if blocked is not None and "labels" not in streams:
            raise ConfigurationError(
                f"--blocked {without_parameters(blocked)}: it leaves labels of payments out, and none are written; leave it "
                "out, or simulate labels, payments or all."
            )
        # Read before a sink is opened: opening one empties the file that an earlier simulation left.
        simulation = Simulation(
            config, blocked=() if blocked is None else read_blocked(blocked, kafka=connection("kafka:"))
        )
        self._sources = interleaved_sources(simulation, self._lead, *others, rate=rate)
        self._sinks: dict[str, Sink] = {stream: _open(uri, connection(uri)) for stream, uri in self.places.items()}

    def run(self, should_stop: Callable[[], bool] = lambda: False) -> dict[str, int]:
        """Write until the simulation ends or ``should_stop``; then flush.

        Returns
        -------
        dict of str to int
            Stream to records written.
        """
        written = dict.fromkeys(self._sinks, 0)
        turns = 0
        try:
            while not should_stop() and not all(source.finished for source in self._sources.values()):
                if self._max_records is not None and written[self._lead] >= self._max_records:
                    break
                self._turn(written)
                turns += 1
                if turns % _FLUSH_EVERY_BATCHES == 0:
                    self._flush()
        finally:
            for sink in self._sinks.values():
                sink.close()
        return written

    def _turn(self, written: dict[str, int]) -> None:
        for stream, source in self._sources.items():
            most = _BATCH_RECORDS
            if stream == self._lead and self._max_records is not None:
                most = min(most, self._max_records - written[stream])
            batch = source.poll(most, _WAIT_S if stream == self._lead else 0.0)
            if batch is not None:
                keys = [batch.envelope(place)[0] for place in range(len(batch.values))]
                self._sinks[stream].write(batch.values, keys)
                written[stream] += len(batch.values)

    def _flush(self) -> None:
        for sink in self._sinks.values():
            sink.flush()


def _open(uri: str, settings: Mapping[str, str]) -> Sink:
    parsed = parse_uri(uri, what="--to")
    if parsed.scheme == "kafka":
        topic = parsed.path.strip("/")
        if not (parsed.address and topic):
            raise ConfigurationError(f"--to {without_parameters(uri)}: write it as kafka://localhost:9092/{{name}}.")
        create_topics(parsed.address, [topic], settings=settings)
    elif parsed.scheme == "file" and parsed.path != "-":
        make_directory(Path(parsed.path).parent)
        # A simulation is written from its start, so what an earlier one left is replaced.
        uri = uri if "mode=" in uri else f"{uri}{'&' if parsed.parameters else '?'}mode=overwrite"
    return open_sink(uri, settings=settings)
