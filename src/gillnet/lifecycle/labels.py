"""Labels as they become known: the join that a training set stands on (I6).

A label counts only from the instant at which it became known. Until then its payment is *pending*: neither fraud nor
legitimate, and left out. It knows neither features nor models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gillnet.core.errors import DefinitionError
from gillnet.core.messages import RawBatch
from gillnet.core.schema import Boolean, Schema, String, Timestamp
from gillnet.operators.decode import DecodeOperator

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from gillnet.core.schema import DataType

PENDING = np.int8(-1)
"""The outcome of a row whose label is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What became known of events, one row for each.

    Attributes
    ----------
    ids
        The events' ids, each once.
    positive
        bool: fraud or not.
    kinds
        What kind of fraud, or ``legitimate``.
    known_at_us
        int64 microseconds UTC: when it became known.
    """

    ids: pa.StringArray
    positive: NDArray[np.bool_]
    kinds: NDArray[np.object_]
    known_at_us: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def places(self, ids: pa.StringArray) -> NDArray[np.int64]:
        """Return where each id stands in here; -1 for one that has no label."""
        found: NDArray[np.int64] = pc.index_in(ids, value_set=self.ids).fill_null(-1).to_numpy(zero_copy_only=False)
        return found.astype(np.int64)


def read_labels(records: Iterable[Sequence[bytes]], schema: Schema, *, id: str = "tx_id") -> Labels:  # noqa: A002
    """Decode label records (JSON), chunk by chunk.

    Parameters
    ----------
    records
        Chunks of records with ``fraud`` (bool), ``scenario`` (string) and ``known_at`` (timestamp).
    schema
        Their schema, such as `gillnet.simulator.LABEL_SCHEMA`.
    id
        The column with the labelled event's id. Where an id comes again, its first label counts.

    Raises
    ------
    DefinitionError
        If a record is malformed: a training set from half of its labels would be wrong in silence.
    """
    decoder = DecodeOperator(schema, id=id, keys=[])
    batches = [_decode(decoder, values) for values in records if values]
    if not batches:
        raise DefinitionError("read_labels: there is no label record; give the labels' stream from its beginning.")
    table = pa.Table.from_batches(batches).combine_chunks()
    ids = table[id].combine_chunks().cast(pa.string())
    first = np.unique(pc.index_in(ids, value_set=ids).to_numpy(zero_copy_only=False))
    return Labels(
        ids=ids.take(pa.array(first)),
        positive=table["fraud"].to_numpy()[first].astype(np.bool_),
        kinds=table["scenario"].to_numpy()[first],
        known_at_us=table["known_at"].cast(pa.int64()).to_numpy()[first],
    )


def outcomes_as_known(ids: pa.StringArray, labels: Labels, at_us: int) -> NDArray[np.int8]:
    """Return what was known of events at an instant.

    Parameters
    ----------
    ids
        The events' ids.
    labels
        All labels, known by then or not.
    at_us
        The instant, microseconds UTC: the training's cut-off.

    Returns
    -------
    ndarray of int8
        1 for fraud, 0 for legitimate, `PENDING` where no label was known.
    """
    places = labels.places(ids)
    known = (places >= 0) & (labels.known_at_us[places] <= at_us)
    return np.where(known, labels.positive[places].astype(np.int8), PENDING)


def outcomes_when_mature(
    ids: pa.StringArray, event_time_us: NDArray[np.int64], labels: Labels, *, at_us: int, maturity_us: int
) -> NDArray[np.int8]:
    """Return what was known of events at an instant, `PENDING` also for those that are too young then.

    See `mature` for why a young event is pending even if it is known as fraud.
    """
    old = mature(event_time_us, at_us=at_us, maturity_us=maturity_us)
    return np.where(old, outcomes_as_known(ids, labels, at_us), PENDING)


def label_schema(id_column: str, id_type: DataType) -> Schema:
    """Return the schema of label records of a stream: its id, ``fraud``, ``scenario`` and ``known_at`` (in ms)."""
    return Schema(**{id_column: id_type}, fraud=Boolean(), scenario=String(nullable=True), known_at=Timestamp("ms"))


def mature(event_time_us: NDArray[np.int64], *, at_us: int, maturity_us: int) -> NDArray[np.bool_]:
    """Return the events that are old enough at ``at_us`` for either outcome to be known.

    Fraud is known within days, that a payment was legitimate only after ``maturity_us``. To train on younger events is to
    train on their fraud alone, so they stay out whatever is known of them.
    """
    ripe: NDArray[np.bool_] = event_time_us + maturity_us <= at_us
    return ripe


def _decode(decoder: DecodeOperator, values: Sequence[bytes]) -> Any:
    raw = RawBatch(stream="labels", values=values, partitions=[0] * len(values), arrival_time_us=0)
    decoded = decoder.decode(raw)
    if decoded.malformed:
        fault = decoded.malformed[0]
        raise DefinitionError(f"read_labels: a label is malformed ({fault.reason}: {fault.detail}); mend it first.")
    return decoded.batch.to_pyarrow()
