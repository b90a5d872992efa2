"""Headers of a record as confluent-kafka gives them, or cannot give them."""

from __future__ import annotations

import pytest

from gillnet.connectors.kafka.places import HEADERS_LOST, envelope


class Message:
    """A message whose headers are given, or raise."""

    def __init__(self, headers: object) -> None:
        self._headers = headers

    def key(self) -> bytes:
        return b"k"

    def headers(self) -> object:
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers


@pytest.mark.parametrize(("given", "headers"), [(None, []), ([("a", b"1"), ("a", None)], [("a", b"1"), ("a", None)])])
def test_headers_come_as_they_are(given: object, headers: object) -> None:
    assert envelope([Message(given)], 0) == (b"k", headers)


@pytest.mark.parametrize(
    "error",
    [
        # The client makes a str of the name, which fails, and returns its list all the same.
        SystemError("<method 'headers'> returned a result with an exception set"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
)
def test_a_name_that_is_no_utf_8_does_not_stop_the_run(error: Exception) -> None:
    assert envelope([Message(error)], 0) == (b"k", [(HEADERS_LOST, b"a name that is no UTF-8")])
