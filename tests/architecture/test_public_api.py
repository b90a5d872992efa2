"""What users may write: a name that comes or goes is seen in review, for it changes this list."""

from __future__ import annotations

from pathlib import Path

import gillnet

GOLDEN = Path(__file__).with_name("public_api.txt")


def test_the_public_names_are_those_of_the_list() -> None:
    listed = GOLDEN.read_text(encoding="utf-8").split()
    assert list(gillnet.__all__) == listed, f"if this is meant, write the new list into {GOLDEN.name}"


def test_every_public_name_exists_and_is_documented() -> None:
    undocumented = [name for name in gillnet.__all__ if not getattr(gillnet, name).__doc__]
    assert not undocumented
