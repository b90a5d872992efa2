"""What must never be shown: not in a message, a log line or a ``repr``.

Each message leaves secrets out where it is made. What was said to be secret is remembered here as well, so that the places through
which everything goes that a person or a file gets to see (errors of librdkafka, log lines, the command line's errors) can blot it
out once more, whoever wrote the text: a library, or a setting whose value stands under the wrong name.
"""

from __future__ import annotations

import json
import os
import re

BLOT = "***"
SHORTEST = 4
"""A shorter secret is not blotted out of texts that hold it by chance."""

_NAME = re.compile(
    r"passw|secret|token|jaas|oauthbearer\.config|ssl\.key(\.pem)?$|private|credential|api_?key|access_?key|auth\.user\.info",
    re.IGNORECASE,
)
# Where object stores' clients take their credentials from.
_ENVIRONMENT = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN")
_known: dict[str, tuple[str, ...]] = {}


def is_secret(name: str) -> bool:
    """Whether the value of a setting or environment variable of this name must never be shown."""
    return _NAME.search(name) is not None and not name.endswith("_file")  # Where it lies is none.


def new_key() -> bytes:
    """Return a key to sign with: 256 bits that nobody can guess."""
    return os.urandom(32)


def remember(value: str) -> None:
    """Note a value that must never be shown, for the life of the process."""
    if len(value) >= SHORTEST:
        # As it is, as JSON and `repr` write it, and with its lines joined, as a paragraph has them.
        _known[value] = tuple({value, json.dumps(value)[1:-1], repr(value)[1:-1], " ".join(value.split())})


def conceal(text: str) -> str:
    """Return a text with every secret that is known blotted out."""
    for name in _ENVIRONMENT:
        remember(os.environ.get(name, ""))
    # Longer ones first: one secret may be a part of another.
    for form in sorted((form for forms in _known.values() for form in forms), key=len, reverse=True):
        text = text.replace(form, BLOT)
    return text


def without_parameters(uri: str) -> str:
    """Return a URI up to its parameters, which may hold what nobody should see."""
    return uri.partition("?")[0]
