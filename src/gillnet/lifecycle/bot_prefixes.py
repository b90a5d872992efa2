"""Prefixes of simulated click sessions, as the bots pipeline sees them while they run, with who was behind them.

The rows come from the pipeline's own feature operator: what a score is fitted on is what it will be given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa

from gillnet.core.messages import RawBatch
from gillnet.operators.decode import DecodeOperator
from gillnet.operators.features import SESSION_START, FeatureOperator
from gillnet.simulator import Simulation, VisitorLabel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gillnet.plan.nodes import PipelinePlan

CHECKPOINTS = (3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 28, 33, 40, 48, 57, 68, 80, 96, 115, 140, 170, 200, 250, 300)
"""Clicks after which a session is looked at: denser where decisions fall, since neighbouring prefixes say the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefixes:
    """One row for each click of each session.

    Attributes
    ----------
    features
        Feature name to float64 values; NaN is null.
    session
        Number of the row's session.
    clicks
        Clicks of the session up to and including the row.
    bot, kind, level
        Of each session, by its number: whether a bot, its kind as the simulator calls it, its level (-1 for people).
    """

    features: dict[str, NDArray[np.float64]]
    session: NDArray[np.int64]
    clicks: NDArray[np.int64]
    bot: NDArray[np.bool_]
    kind: NDArray[np.str_]
    level: NDArray[np.int64]

    def at_checkpoints(self) -> NDArray[np.bool_]:
        """Return which rows are at one of `CHECKPOINTS`."""
        return np.isin(self.clicks, CHECKPOINTS)

    def matrix(self, names: list[str]) -> NDArray[np.float64]:
        """Return features as columns of a matrix."""
        return np.column_stack([self.features[name] for name in names])


def visitor_labels(simulation: Simulation) -> dict[str, VisitorLabel]:
    """Return the simulator's label of every visitor."""
    decoder = msgspec.json.Decoder(VisitorLabel)
    labels = (decoder.decode(value) for chunk in simulation.visitor_labels() for value in chunk.values)
    return {label.visitor_id: label for label in labels}


def session_rows(simulation: Simulation, plan: PipelinePlan) -> pa.Table:
    """Return the rows that a sessions pipeline gives for a simulation's clicks, in the order of arrival."""
    stream, key = plan.stream(plan.root), plan.sessions.key if plan.sessions else ""
    decoder, operator = DecodeOperator(stream.schema, id=stream.id, keys=[key]), FeatureOperator(plan)
    batches = []
    for chunk in simulation.clicks():
        arrival_us = int(chunk.arrival_time_us[-1])
        raw = _raw(stream.name, chunk.values, arrival_us)
        rows = operator.process(stream.name, decoder.decode(raw).batch, arrival_us).rows
        if rows is not None:
            batches.append(rows.to_pyarrow())
        while operator.closed_sessions() is not None:
            pass  # Closing feeds the baselines; the closed rows themselves are not asked for.
    return pa.Table.from_batches(batches)


def prefixes(simulation: Simulation, plan: PipelinePlan) -> Prefixes:
    """Return every session's rows with labels, sessions numbered in the order of their first row."""
    table, labels = session_rows(simulation, plan), visitor_labels(simulation)
    key = plan.sessions.key if plan.sessions else ""
    starts = np.asarray(table[SESSION_START].cast(pa.int64()))
    visitors = table[key].to_pylist()
    numbers: dict[tuple[str, int], int] = {}
    session = np.array([numbers.setdefault(who, len(numbers)) for who in zip(visitors, starts.tolist(), strict=True)])
    behind = [labels[visitor] for visitor, _ in numbers]
    return Prefixes(
        features={feature.name: _float64(table[feature.name]) for feature in plan.features},
        session=session.astype(np.int64),
        clicks=np.asarray(table["clicks"]).astype(np.int64),
        bot=np.array([label.bot for label in behind]),
        kind=np.array([label.kind for label in behind]),
        level=np.array([-1 if label.level is None else label.level for label in behind]),
    )


def _raw(stream: str, values: list[bytes], arrival_us: int) -> RawBatch:
    return RawBatch(
        stream=stream,
        values=values,
        partitions=[0] * len(values),
        arrival_time_us=arrival_us,
        envelope=lambda _: (None, []),
    )


def _float64(column: Any) -> NDArray[np.float64]:
    return np.asarray(column.combine_chunks().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
