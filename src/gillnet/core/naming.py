"""Help with names in error messages."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(name: object, known: Iterable[str]) -> str:
    """Return the end of a sentence that helps with an unknown name: the nearest one, or what there is.

    >>> nearest("amuont", ["amount", "card_id"])
    "; did you mean 'amount'? There are amount, card_id"
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1) if isinstance(name, str) else []
    hint = f"; did you mean {close[0]!r}?" if close else ";"
    there = f" There are {', '.join(names)}" if close else f" there are {', '.join(names)}"
    return hint + (there if names else " there is none")
