"""What a watermark delay does to a stream, step by step: the slow answer that `gillnet.lifecycle.lateness` is held against.

The watermark is the `gillnet.testing.oracle.Gate`'s, the one that the kernel is held against as well. Nothing is computed for
several delays at once: each delay is a run of its own, event by event, with a buffer that is looked through each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gillnet.plan.nodes import StreamNode
from gillnet.testing.oracle import Gate


@dataclass(frozen=True, slots=True)
class Arrived:
    """An event as it arrives: its stream, partition, id and event time, and when it arrives."""

    stream: str
    partition: int
    id: str
    time: int
    at: int


@dataclass(frozen=True, slots=True)
class Waited:
    """What became of an event: late or not, and the place and time of its release; None if it waits at the end."""

    event: Arrived
    late: bool
    released_at: int | None
    released_by: int | None


def reorder(nodes: Mapping[str, StreamNode], events: Sequence[Arrived], delay_us: int, root: str) -> list[Waited]:
    """Let events wait in a buffer until the watermark of every stream has reached them; return the root's, by release.

    Those that still wait at the end come last. Events of one release come in the order of (event time, id); an event that the
    watermarks have passed already is released at once.

    Parameters
    ----------
    nodes
        The streams. Their partitions are those that have events; each is waited for from the first arrival.
    events
        In the order of arrival, without duplicates.
    """
    gates = {name: Gate(replace(node, watermark_delay_us=delay_us)) for name, node in nodes.items()}
    for event in events:
        gates[event.stream].register(event.partition, events[0].at)
    waiting: list[tuple[Arrived, bool]] = []
    released: list[Waited] = []
    reached: int | None = None
    for place, event in enumerate(events):
        before = gates[event.stream].watermark
        taken = gates[event.stream].take(event.partition, event.id, event.time, event.at)
        assert taken == "accepted", (event, taken)
        for gate in gates.values():
            gate.pass_time(event.at)
        if event.stream == root:
            waiting.append((event, before is not None and event.time < before))
        marks = [gate.watermark for gate in gates.values() if not _silent(gate)]
        known = [mark for mark in marks if mark is not None]
        if known and len(known) == len(marks):
            reached = min(known) if reached is None else max(reached, min(known))
        leaving = [one for one in waiting if reached is not None and one[0].time <= reached]
        waiting = [one for one in waiting if one not in leaving]
        leaving.sort(key=lambda one: (one[0].time, one[0].id))
        released += [Waited(one, late, event.at, place) for one, late in leaving]
    rest = sorted(waiting, key=lambda one: (one[0].time, one[0].id))
    return [*released, *(Waited(one, late, None, None) for one, late in rest)]


def _silent(gate: Gate) -> bool:
    """Whether every partition of a stream is idle, so that nobody waits for it."""
    partitions = gate.partitions()
    return bool(partitions) and all(idle for _, _, _, idle in partitions)
