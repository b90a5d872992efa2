"""A run's outputs by name, opened when the first record comes for them.

Names: ``decisions``, ``alerts``, ``sessions``, and for each stream ``<stream>.malformed``, ``<stream>.duplicate``,
``<stream>.late`` and ``<stream>.too_late``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from gillnet.core.messages import OutputRecord
from gillnet.core.ports import Sink
from gillnet.runtimes.embedded.writer import Encoded, OverlappedSink

OpenSink = Callable[[str], Sink | None]


class Outputs:
    """Writes to the sink of an output's name.

    Parameters
    ----------
    open_sink
        Gives the sink of a name, or None where nobody wants that output (it is counted all the same).
    """

    def __init__(self, open_sink: OpenSink) -> None:
        self._open = open_sink
        self._sinks: dict[str, OverlappedSink | None] = {}

    def write(self, name: str, rows: int, encode: Callable[[], Encoded]) -> None:
        """Write rows. A large batch is encoded by the sink's own thread, beside the next batch's features."""
        sink = self._sink(name)
        if sink is not None and rows:
            sink.write(rows, encode)

    def write_records(self, name: str, records: Sequence[OutputRecord]) -> None:
        """Write records with headers."""
        sink = self._sink(name)
        if sink is not None and records:
            sink.write_records(records)

    def wanted(self, name: str) -> bool:
        """Whether anybody takes that output: if not, rows need not be encoded for it."""
        return self._sink(name) is not None

    def flush(self) -> None:
        """Return when everything written is durable."""
        for sink in self._sinks.values():
            if sink is not None:
                sink.flush()

    def close(self) -> None:
        """Flush and close every sink, also when one of them fails; then its error is raised."""
        with ExitStack() as closing:
            for sink in self._sinks.values():
                if sink is not None:
                    closing.callback(sink.close)

    def _sink(self, name: str) -> OverlappedSink | None:
        if name not in self._sinks:
            sink = self._open(name)
            self._sinks[name] = None if sink is None else OverlappedSink(sink)
        return self._sinks[name]
