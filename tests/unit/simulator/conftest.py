"""One simulated week that the tests of payments and clicks share."""

from __future__ import annotations

from typing import Any

import pytest
from simulated import records

from gillnet.simulator import Simulation, SimulationConfig


@pytest.fixture(scope="session")
def week() -> Simulation:
    """A clean week with a lot of fraud and bots, so that statements about rare things have some to stand on."""
    return Simulation(
        SimulationConfig(
            seed=11,
            duration="6d",
            cards=4_000,
            merchants=400,
            payments_per_day=10_000,
            sessions_per_day=1_500,
            bots_per_day=20,
            fraud_rate=0.02,
        )
    )


@pytest.fixture(scope="session")
def payments(week: Simulation) -> list[dict[str, Any]]:
    return records(week, "payments")


@pytest.fixture(scope="session")
def labels(week: Simulation) -> dict[str, dict[str, Any]]:
    return {label["tx_id"]: label for label in records(week, "labels")}


@pytest.fixture(scope="session")
def clicks(week: Simulation) -> list[dict[str, Any]]:
    return records(week, "clicks")
