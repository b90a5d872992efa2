"""A case's input: records in the order of arrival, and what else happens to the streams.

One JSON object a line. ``at`` (arrival, RFC 3339), ``stream`` and ``partition`` hold until they are said anew::

    {"at": "2026-01-05T10:00:00Z", "stream": "payments", "partition": 0, "record": {"id": "a", …}}
    {"record": {…}}                     the very bytes between "record": and the last brace are the record
    {"text": "{\\"id"}                  a record that is no JSON;  {"base64": "…"} one that is no UTF-8
    {"at": "2026-01-05T10:01:00Z"}      time passes, and nothing arrives
    {"partitions": {"payments": [0, 1]}}   partitions that are assigned from the start, heard or not
    {"end": "clicks"}                   a bounded stream ends; at the end of the file all do
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

KNOWN = {"at", "stream", "partition", "record", "text", "base64", "partitions", "end"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A record that arrives, a stream that ends (``value`` None, ``end`` its name), or time that passes (both None)."""

    at_us: int
    stream: str
    partition: int = 0
    value: bytes | None = None
    end: str | None = None


@dataclass(frozen=True, slots=True)
class Script:
    """All steps of a case, and the partitions that each stream has from the start."""

    steps: tuple[Step, ...]
    partitions: dict[str, frozenset[int]] = field(default_factory=dict)


def instant_us(text: str) -> int:
    """Return microseconds since 1970."""
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 1_000_000 + moment.microsecond


def read_script(path: Path, *, root: str) -> Script:
    """Read ``input.ndjson``; ``root`` is the stream of records that name none."""
    steps: list[Step] = []
    partitions: dict[str, frozenset[int]] = {}
    at_us, stream, partition = -1, root, 0
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        said = json.loads(line)
        assert set(said) <= KNOWN, f"{path}, line {number}: unknown {set(said) - KNOWN}"
        at_us = instant_us(said["at"]) if "at" in said else at_us
        stream, partition = said.get("stream", stream), said.get("partition", partition)
        if "partitions" in said:
            partitions = {name: frozenset(numbers) for name, numbers in said["partitions"].items()}
            continue
        assert at_us >= 0, f"{path}, line {number}: say with at= when the first record arrives"
        value = _value(line, said)
        steps.append(Step(at_us=at_us, stream=stream, partition=partition, value=value, end=said.get("end")))
    return Script(tuple(steps), partitions)


def _value(line: str, said: dict[str, object]) -> bytes | None:
    if "record" in said:
        return line.partition('"record":')[2].strip().removesuffix("}").strip().encode()
    if "text" in said:
        return str(said["text"]).encode()
    return base64.b64decode(str(said["base64"])) if "base64" in said else None
