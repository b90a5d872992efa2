"""Message ids as places: one integer a message, in the order of its partition.

A message id is a ledger, an entry in it, and an index in the entry's batch. Later messages have larger ids, and ids are not without
gaps. The place after a message is its own and one, which comes before that of every later message.
"""

from __future__ import annotations

import base64
import binascii
from itertools import groupby
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gillnet.core.messages import Headers, Stretch

_BATCH_BITS = 24
_ENTRY_BITS = 40

MESSAGE_ID = "pulsar.message_id"
"""The header of a record aside that says where it lay: ledger:entry:partition:index, as Pulsar's tools write it."""
_BINARY = "@base64"
"""Properties are text: the value of a header that is none is written so, under its name with this behind it."""
_NULL = "@null"
_KEY = "gillnet.key@base64"


def place_of(ledger: int, entry: int, batch_index: int) -> int:
    """Return the place of a message; ``batch_index`` is -1 for one that is in no batch.

    >>> place_of(3, 7, -1) < place_of(3, 7, 0) < place_of(3, 8, -1) < place_of(4, 0, -1)
    True
    """
    return (ledger << (_ENTRY_BITS + _BATCH_BITS)) | (entry << _BATCH_BITS) | (batch_index + 1)


def ids_of(place: int) -> tuple[int, int, int]:
    """Return ledger, entry and index in the batch of a place.

    >>> ids_of(place_of(3, 7, 2))
    (3, 7, 2)
    """
    entry = (place >> _BATCH_BITS) & ((1 << _ENTRY_BITS) - 1)
    return place >> (_ENTRY_BITS + _BATCH_BITS), entry, (place & ((1 << _BATCH_BITS) - 1)) - 1


def stretch_of(places: Sequence[int], partitions: Sequence[int]) -> Stretch:
    """Return where messages lie in their topic, in their order."""
    stretch: Stretch = []
    begin = 0
    for partition, run in groupby(partitions):
        last = begin + sum(1 for _ in run) - 1
        stretch.append((partition, places[begin], places[last] + 1))
        begin = last + 1
    return stretch


def envelope(messages: Sequence[Any], places: Sequence[int], index: int) -> tuple[bytes | None, Headers]:
    """Return key and headers of a message, and its id among them."""
    message = messages[index]
    ledger, entry, batch_index = ids_of(places[index])
    where = f"{ledger}:{entry}:{message.message_id().partition()}:{batch_index}"
    headers: Headers = []
    key: bytes | None = None
    try:
        key = message.partition_key().encode() or None
        for name, value in message.properties().items():
            if name == _KEY:
                key = base64.b64decode(value)
            else:
                headers.append(_header(name, value))
    except (UnicodeDecodeError, binascii.Error):
        # Whoever writes a property that is no UTF-8 must not stop the run.
        headers.append(("gillnet.headers_lost", b"a property that is no UTF-8"))
    return key, [*headers, (MESSAGE_ID, where.encode())]


def _header(name: str, value: str) -> tuple[str, bytes | None]:
    if name.endswith(_NULL):
        return name.removesuffix(_NULL), None
    if name.endswith(_BINARY):
        return name.removesuffix(_BINARY), base64.b64decode(value)
    return name, value.encode()


def key_and_properties(key: bytes | None, headers: Headers) -> tuple[str | None, dict[str, str] | None]:
    """Return a record's key as text and its headers as properties; of headers of the same name, the last one stays."""
    properties: dict[str, str] = {}
    for name, value in headers:
        text = None if value is None else _text(value)
        if value is None:
            properties[name + _NULL] = ""
        elif text is None:
            properties[name + _BINARY] = base64.b64encode(value).decode()
        else:
            properties[name] = text
    text = None if not key else _text(key)
    if key and text is None:
        text = properties[_KEY] = base64.b64encode(key).decode()
    return text, properties or None


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
