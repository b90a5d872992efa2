"""A run's outputs by name, opened when the first record comes for them.

Names: ``decisions``, ``decisions.revisions``, ``alerts``, ``sessions``, ``matches``, ``joins.<name>``, and for each stream
``<stream>.malformed``, ``<stream>.duplicate``, ``<stream>.late`` and ``<stream>.too_late``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

from gillnet.core.messages import OutputRecord
from gillnet.core.ports import LingeringSink, Sink
from gillnet.runtimes.embedded.backlog import Figures, sink_figures

OpenSink = Callable[[str], Sink | None]


class Outputs:
    """Writes to the sink of an output's name.

    Parameters
    ----------
    open_sink
        Gives the sink of a name, or None where nobody wants that output (it is counted all the same).

    Attributes
    ----------
    muted
        Nothing is written: what would be is there already.
    """

    def __init__(self, open_sink: OpenSink) -> None:
        self._open = open_sink
        self._sinks: dict[str, Sink | None] = {}
        self._lingering: list[LingeringSink] = []
        self.muted = False

    def write(self, name: str, values: Sequence[bytes], keys: Sequence[bytes | None] | None = None) -> None:
        """Write encoded rows."""
        sink = self._sink(name)
        if sink is not None and values:
            sink.write(values, keys)

    def write_records(self, name: str, records: Sequence[OutputRecord]) -> None:
        """Write records with headers."""
        sink = self._sink(name)
        if sink is not None and records:
            sink.write_records(records)

    def wanted(self, name: str) -> bool:
        """Whether anybody takes that output: if not, rows need not be encoded for it."""
        return not self.muted and self._sink(name) is not None

    def figures(self) -> Figures:
        """Return the figures of the sinks that have any, by output; from any thread."""
        return sink_figures(dict(self._sinks))

    def hurry(self) -> None:
        """Let no sink wait for more before it sends what was written."""
        for sink in self._lingering:
            sink.hurry()

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

    def _sink(self, name: str) -> Sink | None:
        if name not in self._sinks:
            sink = self._sinks[name] = self._open(name)
            if isinstance(sink, LingeringSink):
                self._lingering.append(sink)
        return self._sinks[name]
