"""What a case comes to, in the form of its golden file: one line a row, session, join's row, side record and stream's counts."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from gillnet.testing.oracle_joins import last_revisions

COUNTS = ("read", "scored", "duplicate", "malformed", "too_late", "late")
_REVISION = re.compile(r'"revision":\d+,')
_JOIN_REVISION = re.compile(r',"revision":\d+(?=[,}])')


@dataclass(slots=True)
class Outcome:
    """Outputs by name, each a list of lines; rows as the very text that the sink gets."""

    rows: list[str] = field(default_factory=list)
    sessions: list[str] = field(default_factory=list)
    matches: list[str] = field(default_factory=list)
    joins: list[str] = field(default_factory=list)
    sides: dict[str, list[str]] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return the golden file's lines."""
        sides = [line for name in sorted(self.sides) for line in self.sides[name]]
        counts = [json.dumps({"counts": name, **self.counts[name]}) for name in sorted(self.counts)]
        return [
            *(f'{{"row":{row}}}' for row in self.rows),
            *(f'{{"session":{session}}}' for session in self.sessions),
            *(f'{{"match":{match}}}' for match in self.matches),
            *self.joins,
            *sides,
            *counts,
        ]


def side_line(output: str, *, reason: str, partition: int, value: bytes) -> str:
    """Return a side output's record; its reason's wording for people is free to change, and is left out."""
    try:
        content = {"value": value.decode()}
    except UnicodeDecodeError:
        content = {"base64": base64.b64encode(value).decode()}
    return json.dumps({"side": output, "reason": reason, "partition": partition, **content}, ensure_ascii=False)


def final_sessions(emitted: Iterable[str]) -> list[str]:
    """Keep the last revision of every session, by start and key.

    How many revisions come before it depends on when the watermark moved between two looks, and so on the batches; what
    the last one says must not. One that says that another session has its clicks now leaves none.
    """
    last: dict[tuple[str, str], str] = {}
    for text in emitted:
        session = json.loads(text)
        place = session["session_start"], str(next(iter(session.values())))
        if "replaced_by" in session:
            del last[place]
        else:
            last[place] = _REVISION.sub("", text, count=1)
    return [last[place] for place in sorted(last)]


def final_matches(emitted: Iterable[str]) -> list[str]:
    """Keep the last revision of every match that was not withdrawn, in the order of their text."""
    last: dict[tuple[str, ...], str] = {}
    for text in emitted:
        match = json.loads(text)
        identity = tuple(match[name] for name in ("pattern", "key", "first", "last"))
        if match["withdrawn"]:
            del last[identity]
        else:
            last[identity] = _REVISION.sub("", text, count=1)
    return sorted(last.values())


def join_line(name: str, row: str) -> str:
    """Return a row of a join."""
    return f'{{"join":"{name}","row":{row}}}'


def final_join(name: str, emitted: Iterable[str]) -> list[str]:
    """Keep what a consumer keeps of a join: the last revision of each pair of ids, less those that are withdrawn."""
    rows = [json.loads(text) | {"text": text} for text in emitted]
    return [join_line(name, _JOIN_REVISION.sub("", str(row["text"]), count=1)) for row in last_revisions(rows)]
