"""How far a stream is in event time, for displays and metrics (I8).

It reads what the kernel keeps for its watermarks, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

END_OF_TIME_US = (1 << 63) - 1
"""The watermark of a stream that has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionProgress:
    """What is known of one source partition.

    Attributes
    ----------
    newest_us
        Its newest event time, microseconds UTC, none of them counted beyond its arrival; None before its first event.
    heard_us
        When it was heard last, or assigned: processing time, microseconds UTC.
    idle
        Whether it was silent for longer than ``idle_after``, so that the watermark does not wait for it.
    """

    partition: int
    newest_us: int | None
    heard_us: int
    idle: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamProgress:
    """How far a stream is, at one moment.

    Attributes
    ----------
    stream
        Its name.
    now_us
        The moment, by the clock that stamps arrivals: microseconds UTC.
    watermark_us
        Microseconds UTC; None before every partition that it waits for was heard, and once the stream has ended.
    ended
        Whether the stream has ended: there is nothing more to wait for.
    held_by
        The partition whose newest event is the oldest, and so holds the watermark back; None if all are idle.
    partitions
        Every partition that was assigned or heard, by number.
    """

    stream: str
    now_us: int
    watermark_us: int | None
    ended: bool
    held_by: int | None
    partitions: tuple[PartitionProgress, ...]

    @property
    def newest_us(self) -> int | None:
        """The newest event time of all partitions, microseconds UTC; None before the first event."""
        return max((part.newest_us for part in self.partitions if part.newest_us is not None), default=None)

    @property
    def lag_us(self) -> int | None:
        """How far the watermark is behind the arrival clock, in microseconds; None where there is no watermark."""
        return None if self.watermark_us is None else self.now_us - self.watermark_us

    @property
    def idle(self) -> tuple[int, ...]:
        """The partitions that the watermark does not wait for."""
        return tuple(part.partition for part in self.partitions if part.idle)


def stream_progress(
    stream: str,
    now_us: int,
    watermark_us: int | None,
    held_by: int | None,
    partitions: Sequence[tuple[int, int | None, int, bool]],
) -> StreamProgress:
    """Put together what the kernel tells of a stream."""
    ended = watermark_us == END_OF_TIME_US
    return StreamProgress(
        stream=stream,
        now_us=now_us,
        watermark_us=None if ended else watermark_us,
        ended=ended,
        held_by=None if ended else held_by,
        partitions=tuple(
            PartitionProgress(partition=number, newest_us=newest_us, heard_us=heard_us, idle=idle)
            for number, newest_us, heard_us, idle in partitions
        ),
    )
