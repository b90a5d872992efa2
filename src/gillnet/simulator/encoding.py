"""Rows to NDJSON: whole windows at a time, without a Python object for each field.

How it works, with n rows:

1. every field is an (n, width) block of bytes: digits from a table of four-digit groups, names from a table of names;
what a
   value does not need stays 0, a byte that JSON text never holds;
2. the blocks and the constant text between them are laid side by side in one (n, line width) matrix;
3. the zeros are squeezed out in one pass, and what is left is the NDJSON.

It takes about a microsecond per record, where formatting each record in Python takes four.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gillnet.simulator import browsing
from gillnet.simulator.population import CATEGORIES, CATEGORY_CHANNEL, COUNTRIES, Population
from gillnet.simulator.randomness import Integers, Mask, Rows, scramble
from gillnet.simulator.schemas import EVENTS, SCENARIOS, Channel, Event

if TYPE_CHECKING:
    from collections.abc import Sequence

Bytes = NDArray[np.uint8]

_GROUPS = np.array([list(f"{number:04d}".encode()) for number in range(10_000)], dtype=np.uint8)


class EncodedRows(NamedTuple):
    """Rows as records: one value and one key each."""

    values: list[bytes]
    keys: list[bytes]


def digits(value: Integers, width: int) -> Bytes:
    """Write integers with leading zeros, ``width`` digits each."""
    groups = -(-width // 4)
    text = np.empty((len(value), 4 * groups), dtype=np.uint8)
    rest = value
    for group in range(groups - 1, -1, -1):
        rest, last = np.divmod(rest, 10_000)
        text[:, 4 * group : 4 * group + 4] = _GROUPS[last]
    return text[:, 4 * groups - width :]


def number(value: Integers, width: int) -> Bytes:
    """Write integers of 0 or more as JSON does: leading zeros are zero bytes."""
    text = digits(value, width).copy()
    for place in range(width - 1):
        text[value < 10 ** (width - 1 - place), place] = 0
    return text


def names(texts: Sequence[str]) -> Bytes:
    """Make a table of texts, padded with zero bytes; index it with codes."""
    encoded = [text.encode() for text in texts]
    table = np.zeros((len(encoded), max(map(len, encoded))), dtype=np.uint8)
    for row, text in enumerate(encoded):
        table[row, : len(text)] = list(text)
    return table


def lines(rows: int, parts: Sequence[str | Bytes]) -> bytes:
    """Lay constant text and blocks side by side, squeeze the zeros out, and end each row with a line feed."""
    blocks = [
        np.frombuffer(part.encode(), dtype=np.uint8)[None, :] if isinstance(part, str) else part for part in parts
    ]
    matrix = np.empty((rows, sum(block.shape[1] for block in blocks) + 1), dtype=np.uint8)
    column = 0
    for block in blocks:
        matrix[:, column : column + block.shape[1]] = block
        column += block.shape[1]
    matrix[:, column] = 10
    flat = matrix.ravel()
    text: bytes = flat[flat != 0].tobytes()
    return text


def fixed_ids(prefix: str, value: Integers, width: int) -> list[bytes]:
    """Write ids of one width, such as keys, as a list of bytes."""
    text = np.empty((len(value), 1 + width), dtype=np.uint8)
    text[:, 0], text[:, 1:] = ord(prefix), digits(value, width)
    return text.view(f"S{1 + width}").ravel().tolist()


_OCTETS = names([str(octet) for octet in range(256)])
_COUNTRY = names([country.code for country in COUNTRIES])
_CURRENCY = names([country.currency for country in COUNTRIES])
_MCC = names([category.mcc for category in CATEGORIES])
_CHANNEL = names([channel.name.lower() for channel in Channel])
_STATUS = names(["approved", "declined"])
_BOOLEAN = names(["false", "true"])
_EVENT = names(EVENTS)
_METHOD = names(["POST" if event >= Event.LOGIN else "GET" for event in Event])
_AGENT = names(browsing.USER_AGENTS)
_PAGE = names(browsing.PAGE_URLS)
_PAGE_DIGITS = np.array(browsing.PAGE_DIGITS)
_SCENARIO = names(SCENARIOS)


def _address(ip: Integers) -> list[str | Bytes]:
    octets = [_OCTETS[(ip >> shift) & 255] for shift in (24, 16, 8, 0)]
    return [octets[0], ".", octets[1], ".", octets[2], ".", octets[3]]


def _nullable(prefix: str, value: Integers, width: int, null: Mask) -> Bytes:
    """Write ids in quotes, or ``null``."""
    text = np.zeros((len(value), width + 3), dtype=np.uint8)
    text[:, 0] = text[:, -1] = ord('"')
    text[:, 1] = ord(prefix)
    text[:, 2:-1] = digits(value, width)
    text[null] = 0
    text[null, :4] = np.frombuffer(b"null", dtype=np.uint8)
    return text


class PaymentEncoder:
    """Writes payment rows as NDJSON; the key is ``card_id``."""

    def __init__(self, population: Population) -> None:
        self._population = population

    def __call__(self, rows: Rows) -> EncodedRows:
        """Encode rows."""
        values = lines(len(rows), self._parts(rows)).split(b"\n")
        values.pop()
        return EncodedRows(values, fixed_ids("c", rows["card"], 8))

    def _parts(self, rows: Rows) -> list[str | Bytes]:
        population, merchant = self._population, rows["merchant"]
        user, category = population.card_user[rows["card"]], population.merchant_category[merchant]
        device = rows["device"]
        return [
            '{"tx_id":"t',
            digits(rows["sequence"], 12),
            '","ts":',
            digits(rows["ts_ms"], 13),
            ',"card_id":"c',
            digits(rows["card"], 8),
            '","user_id":"u',
            digits(user, 8),
            '","device_id":',
            _nullable("d", scramble(device), 13, device < 0),
            ',"merchant_id":"m',
            digits(merchant, 6),
            '","ip":"',
            *_address(rows["ip"]),
            '","country":"',
            _COUNTRY[rows["country"]],
            '","amount":',
            number(rows["amount"] // 100, 7),
            ".",
            digits(rows["amount"] % 100, 2),
            ',"currency":"',
            _CURRENCY[population.merchant_country[merchant]],
            '","channel":"',
            _CHANNEL[CATEGORY_CHANNEL[category]],
            '","mcc":"',
            _MCC[category],
            '","status":"',
            _STATUS[rows["declined"].view(np.uint8)],
            '","card_present":',
            _BOOLEAN[rows["present"].view(np.uint8)],
            ',"billing_country":"',
            _COUNTRY[population.user_home[user]],
            '"}',
        ]


class ClickEncoder:
    """Writes click rows as NDJSON; the key is ``visitor_id``."""

    def __call__(self, rows: Rows) -> EncodedRows:
        """Encode rows."""
        visitor = scramble(rows["visitor"])
        values = lines(len(rows), self._parts(rows, visitor)).split(b"\n")
        values.pop()
        return EncodedRows(values, fixed_ids("v", visitor, 13))

    def _parts(self, rows: Rows, visitor: Integers) -> list[str | Bytes]:
        return [
            '{"click_id":"k',
            digits(rows["sequence"], 12),
            '","ts":',
            digits(rows["ts_ms"], 13),
            ',"user_id":',
            _nullable("u", np.maximum(rows["user"], 0), 8, rows["user"] < 0),
            ',"visitor_id":"v',
            digits(visitor, 13),
            '","ip":"',
            *_address(rows["ip"]),
            '","url":"',
            *_url(rows["page"], rows["number"]),
            '","method":"',
            _METHOD[rows["event"]],
            '","status_code":',
            digits(rows["status"], 3),
            ',"referrer":',
            *_referrer(rows),
            ',"user_agent":"',
            _AGENT[rows["agent"]],
            '","event":"',
            _EVENT[rows["event"]],
            '"}',
        ]


def _url(page: Integers, item: Integers) -> list[str | Bytes]:
    item_digits = digits(item, browsing.NUMBER_WIDTH).copy()
    width = _PAGE_DIGITS[page]
    for place in range(browsing.NUMBER_WIDTH):
        item_digits[width < browsing.NUMBER_WIDTH - place, place] = 0
    return [_PAGE[page], item_digits]


def _referrer(rows: Rows) -> list[str | Bytes]:
    null = rows["from_page"] < 0
    quote = np.where(null, 0, ord('"')).astype(np.uint8)[:, None]
    path, item = _url(np.maximum(rows["from_page"], 0), rows["from_number"])
    word = names(["", "null"])[null.view(np.uint8)]
    blank = np.where(null, 0, 255).astype(np.uint8)[:, None]
    assert not isinstance(path, str)
    assert not isinstance(item, str)
    return [word, quote, path & blank, item & blank, quote]


def encode_labels(sequence: Integers, scenario: Integers, known_at_ms: Integers) -> EncodedRows:
    """Write payment labels as NDJSON; the key is ``tx_id``."""
    parts: list[str | Bytes] = [
        '{"tx_id":"t',
        digits(sequence, 12),
        '","fraud":',
        _BOOLEAN[(scenario > 0).view(np.uint8)],
        ',"scenario":"',
        _SCENARIO[scenario],
        '","known_at":',
        digits(known_at_ms, 13),
        "}",
    ]
    values = lines(len(sequence), parts).split(b"\n")
    values.pop()
    return EncodedRows(values, fixed_ids("t", sequence, 12))
