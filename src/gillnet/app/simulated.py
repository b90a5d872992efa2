"""Simulated streams by URI: ``simulator:payments?seed=7&rate=500&duration=1d``.

Streams with the same parameters come from one simulation and keep step, so that a lookup finds the clicks that came
before a payment, whatever the rate.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from gillnet.connectors.uri import ConnectorUri, parse_uri
from gillnet.core.errors import ConfigurationError, DefinitionError
from gillnet.core.naming import nearest
from gillnet.core.ports import Source
from gillnet.core.schema import Schema
from gillnet.core.time import Clock
from gillnet.simulator import Simulation, SimulationConfig, SimulatorSource, interleaved_sources
from gillnet.simulator.streams import STREAMS, StreamName

SCHEME = "simulator"
_TYPES = typing.get_type_hints(SimulationConfig)


class SimulatorScheme:
    """Opens ``simulator:`` URIs of one run; a `gillnet.connectors.uri.SourceFactory`.

    Parameters
    ----------
    sources
        All sources of the run: URI by stream.
    lead
        The pipeline's root stream. Its ``rate`` holds; what comes from the same simulation keeps step with it.

    Raises
    ------
    ConfigurationError
        If a URI names no simulated stream, or a parameter is unknown or wrong.
    """

    def __init__(self, sources: Mapping[str, str], *, lead: str, clock: Clock | None = None) -> None:
        self._opened: dict[str, Source] = {}
        groups: dict[SimulationConfig, dict[str, tuple[StreamName, float | None]]] = {}
        for stream, uri in sources.items():
            parsed = parse_uri(uri, what=f"Source of {stream}")
            if parsed.scheme == SCHEME:
                simulated, rate, config = _read(parsed)
                groups.setdefault(config, {})[stream] = simulated, rate
        for config, members in groups.items():
            self._open(config, members, lead=lead, clock=clock)

    def _open(
        self,
        config: SimulationConfig,
        members: dict[str, tuple[StreamName, float | None]],
        *,
        lead: str,
        clock: Clock | None,
    ) -> None:
        simulation = Simulation(config)
        first = lead if lead in members else next(iter(members))
        name, rate = members[first]
        if len(members) == 1:
            self._opened[first] = SimulatorSource(simulation, name, rate=rate, name=first, clock=clock)
            return
        others = {stream: simulated for stream, (simulated, _) in members.items() if stream != first}
        opened = interleaved_sources(simulation, name, *others.values(), rate=rate, clock=clock)
        for stream, simulated in {**others, first: name}.items():
            opened[simulated].stream = stream  # The pipeline may call it otherwise.
            self._opened[stream] = opened[simulated]

    def __call__(
        self,
        uri: ConnectorUri,  # noqa: ARG002
        *,
        stream: str,
        schema: Schema | None,  # noqa: ARG002
        settings: Mapping[str, str] | None,  # noqa: ARG002
        clock: Clock | None,  # noqa: ARG002
    ) -> Source:
        """Return the source of a stream."""
        return self._opened[stream]


def simulation_config(parameters: Mapping[str, str], *, what: str) -> SimulationConfig:
    """Read a simulation's configuration from text parameters.

    Raises
    ------
    ConfigurationError
        If a parameter is unknown or out of its range.
    """
    known = [field.name for field in fields(SimulationConfig)]
    values: dict[str, Any] = {}
    for name, text in parameters.items():
        if name not in known:
            raise ConfigurationError(f"{what}: the parameter {name!r} is unknown{nearest(name, [*known, 'rate'])}.")
        values[name] = _value(name, text, what=what)
    try:
        return SimulationConfig(**values)
    except DefinitionError as error:
        raise ConfigurationError(f"{what}: {error}") from error


def _value(name: str, text: str, *, what: str) -> Any:
    try:
        if _TYPES[name] is int:
            return int(text)
        if _TYPES[name] is float:
            return float(text)
    except ValueError as error:
        raise ConfigurationError(f"{what}: {name}={text!r} is not a number.") from error
    return text


def _read(uri: ConnectorUri) -> tuple[StreamName, float | None, SimulationConfig]:
    what = f"Source {uri.shown!r}"
    if uri.path not in STREAMS:
        raise ConfigurationError(f"{what}: there is no simulated stream {uri.path!r}{nearest(uri.path, STREAMS)}.")
    parameters = dict(uri.parameters)
    rate = None
    if (text := parameters.pop("rate", None)) is not None:
        rate = read_rate(text, what=what)
    return uri.path, rate, simulation_config(parameters, what=what)


def read_rate(text: str, *, what: str) -> float:
    """Read records a second; above 0.

    Raises
    ------
    ConfigurationError
        If it is no such number.
    """
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (rate > 0 and math.isfinite(rate)):
        raise ConfigurationError(f"{what}: rate={text} must be a number of records a second, above 0.")
    return rate
