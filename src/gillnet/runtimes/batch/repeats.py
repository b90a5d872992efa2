"""Ids that came more than once, found with bounded memory: an id names one event, and the first to arrive is it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from gillnet._kernel import Batch

from gillnet._kernel import id_words

_ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("sequence", "<i8")])
_BUCKET_BITS = 6
BUFFERED_IDS = 4_000_000
"""Ids in memory at the most (24 bytes each); beyond, they go to bucket files by their hash, and are judged bucket by bucket."""


class RepeatedIds:
    """Takes the ids of all events of a stream; then says which events repeat one.

    Parameters
    ----------
    directory
        Where bucket files may go.
    name
        Begins their names.
    """

    def __init__(self, directory: Path, name: str, *, buffered: int = BUFFERED_IDS) -> None:
        self._paths = [directory / f"{name}.ids-{bucket:02}" for bucket in range(1 << _BUCKET_BITS)]
        self._limit = buffered
        self._entries: list[NDArray[np.void]] = []
        self._held = 0
        self._spilled = False

    def add(self, batch: Batch, id_column: str, first_sequence: int) -> None:
        """Take a batch's ids; its events are numbered from ``first_sequence`` on, in the order of arrival."""
        high, low = id_words(batch, id_column)
        entries = np.empty(batch.num_rows, _ENTRY)
        entries["high"], entries["low"] = high.to_numpy(), low.to_numpy()
        entries["sequence"] = np.arange(first_sequence, first_sequence + batch.num_rows)
        self._entries.append(entries)
        self._held += len(entries)
        if self._held > self._limit:
            self._spill()

    def repeated(self) -> NDArray[np.int64]:
        """Return the numbers of all events but the first of each id, sorted. Forgets everything."""
        if not self._spilled:
            found = [_repeats(self._taken())]
        else:
            self._spill()
            found = [_repeats(np.fromfile(path, _ENTRY)) for path in self._paths if path.exists()]
            for path in self._paths:
                path.unlink(missing_ok=True)
        return np.sort(np.concatenate(found))

    def _taken(self) -> NDArray[np.void]:
        entries = np.concatenate([np.empty(0, _ENTRY), *self._entries])
        self._entries, self._held = [], 0
        return entries

    def _spill(self) -> None:
        self._spilled = True
        entries = self._taken()
        buckets = _mixed(entries) >> np.uint64(64 - _BUCKET_BITS)
        order = np.argsort(buckets, kind="stable")
        ends = np.cumsum(np.bincount(buckets.astype(np.int64), minlength=len(self._paths)))
        for path, part in zip(self._paths, np.split(entries[order], ends[:-1]), strict=True):
            with path.open("ab") as file:
                part.tofile(file)


def _mixed(entries: NDArray[np.void]) -> NDArray[np.uint64]:
    """Spread ids evenly over 64 bits: the finaliser of SplitMix64 over both words."""
    mixed = (entries["high"] ^ np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9) ^ entries["low"]
    mixed = (mixed ^ (mixed >> np.uint64(31))) * np.uint64(0x94D049BB133111EB)
    spread: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(29))
    return spread


def _repeats(entries: NDArray[np.void]) -> NDArray[np.int64]:
    mixed = _mixed(entries)
    # Mostly none repeats, and to sort numbers alone is several times cheaper than to sort places.
    ranked = np.sort(mixed)
    if not (ranked[1:] == ranked[:-1]).any():
        return np.empty(0, np.int64)
    order = np.argsort(mixed)
    ranked = mixed[order]
    equal = np.concatenate([[False], ranked[1:] == ranked[:-1]])
    # Of ids with equal hashes, nearly always equal themselves, each group whole; the others stand alone.
    suspects = entries[order[equal | np.concatenate([equal[1:], [False]])]]
    suspects = suspects[np.lexsort((suspects["sequence"], suspects["low"], suspects["high"]))]
    same = (suspects["high"][1:] == suspects["high"][:-1]) & (suspects["low"][1:] == suspects["low"][:-1])
    repeated: NDArray[np.int64] = suspects["sequence"][1:][same]
    return repeated
