"""Payments and clicks of a simulated population, from one seed.

The flow: `SimulationConfig` → population → event-time windows of payments (honest and fraudulent) and clicks (people
and bots) → faults (late, duplicated, malformed, disordered) → NDJSON in the order of arrival. Everything follows from
the seed: the same configuration gives the same bytes, whatever the size of the chunks in which they are read. It
knows no broker; records leave through `gillnet.core.ports.Source` or `gillnet.core.ports.Sink`.
"""

from gillnet.simulator.config import SimulationConfig
from gillnet.simulator.feed import SimulatorSource, produce, write_files
from gillnet.simulator.interleave import ArrivalClock, InterleavedSource, interleaved_sources
from gillnet.simulator.labels import PaymentLabel, VisitorLabel
from gillnet.simulator.schemas import CLICK_SCHEMA, LABEL_SCHEMA, PAYMENT_SCHEMA, VISITOR_LABEL_SCHEMA, Fault
from gillnet.simulator.streams import Chunk, Simulation

__all__ = [
    "CLICK_SCHEMA",
    "LABEL_SCHEMA",
    "PAYMENT_SCHEMA",
    "VISITOR_LABEL_SCHEMA",
    "ArrivalClock",
    "Chunk",
    "Fault",
    "InterleavedSource",
    "PaymentLabel",
    "Simulation",
    "SimulationConfig",
    "SimulatorSource",
    "VisitorLabel",
    "interleaved_sources",
    "produce",
    "write_files",
]
