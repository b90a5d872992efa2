"""SIGTERM and Ctrl-C: the first finishes what was read, flushes and commits; a second Ctrl-C quits at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SHOW_CURSOR_LEAVE_SCREEN = "\x1b[?1049l\x1b[?25h"


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Give an event that the first signal sets. Main thread only, as Python's signals are."""
    stop = threading.Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if stop.is_set() and number == signal.SIGINT:
            if sys.stdout.isatty():
                os.write(sys.stdout.fileno(), _SHOW_CURSOR_LEAVE_SCREEN.encode())
            os._exit(130)
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
