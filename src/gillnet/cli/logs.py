"""Where log lines go: standard error, so that standard output stays free for records."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Any

import structlog

from gillnet.cli.errors import debugging
from gillnet.core.secrets import conceal


def _concealed(_logger: Any, _method: str, line: Any) -> str:
    """Let no secret through, whoever logs it; the line is rendered by now."""
    return conceal(line)


class LogFormat(StrEnum):
    """How a log line is written."""

    TEXT = "text"
    JSON = "json"


def log_lines(form: LogFormat = LogFormat.TEXT) -> None:
    """Write structured log lines to standard error, as ``key=value`` or JSON; debug lines with ``GILLNET_DEBUG=1`` only."""
    last = (
        structlog.processors.JSONRenderer()
        if form is LogFormat.JSON
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    )
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("debug" if debugging() else "info"),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            last,
            _concealed,
        ],
        # One write for a line and its end: workers share standard error, and two writes let theirs come in between.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
