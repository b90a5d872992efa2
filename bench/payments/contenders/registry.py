"""Who takes part. Add a contender here, or name one on the command line as ``NAME=COMMAND``."""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from typing import TYPE_CHECKING

from bench.payments.process import Contender, python_contender

if TYPE_CHECKING:
    from collections.abc import Iterable

GILLNET = python_contender("gillnet_client")
HANDWRITTEN = python_contender("handwritten")
CONTENDERS = (
    GILLNET,
    HANDWRITTEN,
    python_contender("bytewax_flow"),
    python_contender("quix", slow=True),
)
# Compared with each other by `bench.delivery`; without a place in the table of those above.
OF_DELIVERY = (python_contender("gillnet_kept"), python_contender("gillnet_exactly_once"))


def names() -> list[str]:
    """Return the names of the contenders whose program is there, in the order of the table."""
    return [contender.name for contender in CONTENDERS if find_spec(f"bench.payments.contenders.{contender.name}")]


def contenders_named(wanted: Iterable[str]) -> list[Contender]:
    """Return contenders by name; ``NAME=COMMAND`` makes one from any program that speaks the contract."""
    known = {contender.name: contender for contender in (*CONTENDERS, *OF_DELIVERY)}
    found = []
    for text in wanted:
        name, given, command = text.partition("=")
        if given:
            found.append(Contender(name=name, command=tuple(shlex.split(command))))
        elif name in known:
            found.append(known[name])
        else:
            raise SystemExit(f"Contender {name!r} is unknown; choose of {', '.join(known)}, or give NAME=COMMAND.")
    return found
