"""A training set from the project's own features: the rows that the live scorer would have seen, as known then.

The same decoder and feature operator as in a run, fed in the order of arrival, so that there is nothing between training
and serving that could differ. It knows no labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from gillnet.operators.decode import stream_decoder
from gillnet.operators.features import FeatureOperator
from gillnet.serving.scorers import feature_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from gillnet._kernel import Batch
    from gillnet.core.ports import Source
    from gillnet.plan.nodes import PipelinePlan

POLL_RECORDS = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureTable:
    """Rows in the order of arrival.

    Attributes
    ----------
    ids
        The events' ids.
    event_time_us
        int64 microseconds UTC.
    matrix
        float32 (rows, features), NaN where null: the bits that the scorer gets.
    names
        The features, in the matrix's order.
    """

    ids: pa.StringArray
    event_time_us: NDArray[np.int64]
    matrix: NDArray[np.float32]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.bool_]) -> FeatureTable:
        """Return the rows where ``rows`` is true."""
        return FeatureTable(
            ids=self.ids.filter(pa.array(rows)),
            event_time_us=self.event_time_us[rows],
            matrix=self.matrix[rows],
            names=self.names,
        )

    def between(self, start_us: int, end_us: int) -> FeatureTable:
        """Return the rows with event time in [start, end)."""
        return self.take((self.event_time_us >= start_us) & (self.event_time_us < end_us))


def compute_features(
    plan: PipelinePlan,
    sources: Mapping[str, Source],
    *,
    names: Sequence[str] | None = None,
    keep: Sequence[tuple[int, int]] = ((-(2**62), 2**62),),
) -> FeatureTable:
    """Run bounded sources through a plan's features and collect the rows.

    Parameters
    ----------
    plan
        The pipeline's plan.
    sources
        One source for each stream; `gillnet.simulator.interleaved_sources` keeps them in the order of arrival.
    names
        The features, by default the model's.
    keep
        Spans of event time [start, end) in microseconds whose rows are kept; the others only build up the state.

    Returns
    -------
    FeatureTable
        Four bytes for each feature of each kept row.
    """
    chosen = tuple(names) if names is not None else tuple(name for name, _ in plan.model.features) if plan.model else ()
    operator = FeatureOperator(plan)
    decoders = {name: stream_decoder(plan, name) for name in sources}
    parts = _Parts(plan.stream(plan.root).id, plan.stream(plan.root).event_time, chosen, keep)
    order = sorted(sources, key=lambda name: name == plan.root)
    while not all(source.finished for source in sources.values()):
        for name in order:
            raw = sources[name].poll(POLL_RECORDS, 0.0)
            if raw is None:
                continue
            decoded = decoders[name].decode(raw)
            rows = operator.process(name, decoded.batch, raw.arrival_time_us).rows
            if rows is not None and rows.num_rows:
                parts.add(rows)
    return parts.table()


class _Parts:
    """Collects rows batch by batch."""

    def __init__(
        self, id_column: str, time_column: str, names: tuple[str, ...], keep: Sequence[tuple[int, int]]
    ) -> None:
        self._id, self._time, self._names, self._keep = id_column, time_column, names, keep
        self._ids: list[pa.StringArray] = []
        self._times: list[NDArray[np.int64]] = []
        self._matrices: list[NDArray[np.float32]] = []

    def add(self, rows: Batch) -> None:
        times = rows.column(self._time).cast(pa.int64()).to_numpy(zero_copy_only=False)
        kept = np.zeros(len(times), np.bool_)
        for start_us, end_us in self._keep:
            kept |= (times >= start_us) & (times < end_us)
        if not kept.any():
            return
        self._ids.append(rows.column(self._id).filter(pa.array(kept)))
        self._times.append(times[kept])
        self._matrices.append(feature_matrix(rows, self._names)[kept])

    def table(self) -> FeatureTable:
        return FeatureTable(
            ids=pa.concat_arrays(self._ids) if self._ids else pa.array([], pa.string()),
            event_time_us=np.concatenate([np.zeros(0, np.int64), *self._times]),
            matrix=np.concatenate([np.zeros((0, len(self._names)), np.float32), *self._matrices]),
            names=self._names,
        )
