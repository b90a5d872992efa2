"""Read a simulation back as a stranger would: from its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from gillnet.simulator import Simulation


def records(simulation: Simulation, stream: str, **options: Any) -> list[dict[str, Any]]:
    decode = msgspec.json.decode
    return [decode(value) for chunk in getattr(simulation, stream)(**options) for value in chunk.values]
