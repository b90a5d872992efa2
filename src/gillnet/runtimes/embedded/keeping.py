"""What goes into the history of a micro-batch: its accepted events, and where each came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from gillnet.operators.features import Outcome
from gillnet.stores.history import ARRIVAL_TIME, BATCH, OFFSET, PARTITION

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from gillnet.core.messages import RawBatch
    from gillnet.operators.decode import Decoded
    from gillnet.stores.history import HistoryWriter


def keep_accepted(
    history: HistoryWriter, raw: RawBatch, decoded: Decoded, outcomes: bytes, partitions: Sequence[int], number: int
) -> None:
    """Append a micro-batch to the history.

    Parameters
    ----------
    decoded, outcomes, partitions
        The events, what became of each, and the partition of each.
    number
        Of the micro-batch, over all streams of the run.
    """
    codes = np.frombuffer(outcomes, np.uint8)
    accepted = (codes == Outcome.ACCEPTED) | (codes == Outcome.LATE)
    events, kept = decoded.batch.to_pyarrow(), list(partitions)
    places: list[int] = list(range(len(codes))) if decoded.rows is None else decoded.rows.to_pylist()
    if not accepted.all():
        chosen = accepted.nonzero()[0].tolist()
        events = events.filter(pa.array(accepted))
        places, kept = [places[i] for i in chosen], [kept[i] for i in chosen]
    columns: dict[str, Any] = {
        ARRIVAL_TIME: raw.arrival_time_us,
        PARTITION: kept,
        OFFSET: [raw.offset(place) for place in places],
        BATCH: number,
    }
    history.append(raw.stream, events, columns)
