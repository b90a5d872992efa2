"""Cuts CSV text into blocks of whole records, and a block into the texts of its records.

Where a record ends is Arrow's reading of CSV: a quote counts at the start of a field only, doubled inside it, and what follows
the closing one is text again. A block is parsed by Arrow; its single texts are only wanted for records that turn out malformed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from gillnet.core.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK_BYTES = 1 << 20
LONGEST_RECORD_BYTES = 64 << 20

_FIELD = rb'(?:"(?:[^"]|"")*+"?+)?+[^,\r\n]*+'
_RECORD = re.compile(rb"(?:" + _FIELD + rb",)*+" + _FIELD)
_LINE_ENDS = b"\r\n"
_QUOTE, _NEWLINE = b'"\n'
_BEFORE_FIELDS = np.frombuffer(b',"\r\n', np.uint8)


def read_blocks(file: BinaryIO, path: str) -> Iterator[bytes]:
    """Yield the text of a file in blocks of about `BLOCK_BYTES` that begin and end between two records.

    Raises
    ------
    SourceError
        If a record is longer than `LONGEST_RECORD_BYTES`.
    """
    rest = b""
    while True:
        # A record that fills the block is read on in ever larger pieces, so that it is not looked through too often.
        block = file.read(max(BLOCK_BYTES, len(rest)))
        text = rest + block
        end = _end_of_records(text) if block else len(text)
        if end:
            yield text[:end]
        rest = text[end:]
        if not block:
            return
        if len(rest) > LONGEST_RECORD_BYTES:
            raise SourceError(
                f"{path}: a record is longer than {LONGEST_RECORD_BYTES >> 20} MB; it begins with "
                f"{rest[:60].decode(errors='replace')!r}. Is a quote not closed?"
            )


def split_records(block: bytes) -> list[bytes]:
    """Return the text of each record of a block, without line ends; blank lines are none."""
    records = []
    position = 0
    while (position := _skip_line_ends(block, position)) < len(block):
        end = _end_of_record(block, position)
        records.append(block[position:end])
        position = end
    return records


def split_header(block: bytes) -> tuple[bytes, bytes]:
    """Return the first record of a block, without the mark of byte order that may lead it, and what follows."""
    begin = _skip_line_ends(block, 3 if block.startswith(b"\xef\xbb\xbf") else 0)
    end = _end_of_record(block, begin)
    return block[begin:end], block[end:]


def _end_of_record(block: bytes, position: int) -> int:
    match = _RECORD.match(block, position)
    assert match is not None, "a record may be empty, so that there always is one"
    return match.end()


def _skip_line_ends(block: bytes, position: int) -> int:
    while position < len(block) and block[position] in _LINE_ENDS:
        position += 1
    return position


def _end_of_records(text: bytes) -> int:
    """Return where the last record of ``text``, which begins with one, surely has ended; 0 if none has."""
    if b'"' not in text:
        return (text.rfind(b"\n") + 1) or _last_by_reading(text)
    data = np.frombuffer(text, np.uint8)
    quotes = np.flatnonzero(data == _QUOTE)
    opening = quotes[0::2]
    before = data[np.maximum(opening, 1) - 1]
    if not np.isin(before[opening > 0], _BEFORE_FIELDS).all():
        return _last_by_reading(text)  # A quote inside a plain field, where it opens nothing.
    newlines = np.flatnonzero(data == _NEWLINE)
    outside = newlines[np.searchsorted(quotes, newlines) % 2 == 0]
    return int(outside[-1]) + 1 if len(outside) else _last_by_reading(text)


def _last_by_reading(text: bytes) -> int:
    """Find the end record by record, where a look at quotes and newlines does not tell."""
    last = position = 0
    while (position := _skip_line_ends(text, position)) < len(text):
        last, position = position, _end_of_record(text, position)
    return last
