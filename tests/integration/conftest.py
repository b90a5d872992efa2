"""The Pulsar broker, one for the session. Tests that use it are marked ``pulsar``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from gillnet.connectors.local_pulsar import CLUSTER, LocalPulsar

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def pulsar_broker() -> Iterator[LocalPulsar]:
    """A real broker with two tenants, each with a namespace ``fraud`` and a role of the tenant's name."""
    with LocalPulsar() as broker:
        for tenant in ("team-a", "team-b"):
            broker.admin.create_tenant(tenant, roles=[tenant], clusters=[CLUSTER])
            broker.admin.create_namespace(f"{tenant}/fraud", roles=[tenant])
        yield broker


@pytest.fixture
def pulsar_topic(pulsar_broker: LocalPulsar, request: pytest.FixtureRequest) -> str:
    """A fresh topic of team-a with four partitions, named after the test."""
    name = f"team-a/fraud/{re.sub(r'[^a-zA-Z0-9_.-]', '-', request.node.name)}"
    pulsar_broker.admin.create_topic(name, partitions=4)
    return name
