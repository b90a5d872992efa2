"""Scenario 1 through a real broker: clicks → alerts and sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gillnet.lifecycle.report_bots import report

if TYPE_CHECKING:
    from gillnet.connectors.local_kafka import LocalKafka
    from gillnet.runtimes.embedded import Alert

pytestmark = pytest.mark.kafka


def test_the_broker_run_blocks_what_the_run_from_memory_blocks(kafka: LocalKafka) -> None:
    shown: list[Alert] = []
    (level,) = report(
        seed=77,
        days=1,
        sessions_per_day=4_000,
        payments_per_day=2_000,
        bots_per_day=100,
        levels=[1],
        bootstrap_servers=kafka.bootstrap_servers,
        on_alerts=shown.extend,
    ).levels
    assert level.kafka is not None
    assert level.kafka.too_late == 0
    assert level.kafka.differing["block"] == 0
    assert level.kafka.differing["step_up"] == 0
    assert level.kafka.alerts == len(shown) > level.bot_sessions > 50
    assert level.kafka.sessions >= level.human_sessions + level.bot_sessions
