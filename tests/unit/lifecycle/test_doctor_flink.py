"""The doctor on Flink: each rule's readings in which it finds something, and those in which it does not; the addresses of jobs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gillnet.core.errors import ConfigurationError
from gillnet.lifecycle.doctor import ON_FLINK, Finding, Readings, diagnose, job_address
from gillnet.lifecycle.doctor.flink_readings import FlinkJob, TaskManager, Vertex
from gillnet.lifecycle.doctor.flink_rules import RULES
from gillnet.lifecycle.doctor.gather_flink import JobAddress
from gillnet.lifecycle.doctor.readings import Checkpoints, Stream

MB, GB = 1e6, 1e9
MINUTE = 60 * 10**6


def source(**changes: Any) -> Vertex:
    usual: dict[str, Any] = {
        "name": "payments",
        "parallelism": 4,
        "max_parallelism": 128,
        "back_pressured": 0.05,
        "records": (25_000,) * 4,
    }
    return Vertex(**(usual | changes))  # fmt: skip


def cards(**changes: Any) -> Vertex:
    usual: dict[str, Any] = {
        "name": "cards", "parallelism": 4, "max_parallelism": 128, "busy": 0.4, "back_pressured": 0.0, "inputs": ("payments",),
        "records": (26_000, 24_000, 25_000, 25_000), "state_bytes": 2 * GB, "sync_ms": 20.0, "async_ms": 900.0, "aligned_ms": 40.0,
        "start_delay_ms": 30.0,
    }  # fmt: skip
    return Vertex(**(usual | changes))


def manager(**changes: Any) -> TaskManager:
    usual: dict[str, Any] = {"name": "taskmanager-0", "heap_used": 1 * GB, "heap_max": 4 * GB, "gc_share": 0.01}
    return TaskManager(**(usual | changes))


def job(**changes: Any) -> FlinkJob:
    usual: dict[str, Any] = {
        "state": "RUNNING", "up_s": 7_200.0, "vertices": (source(), cards()), "task_managers": (manager(),), "slots": 8,
        "slots_free": 4, "state_bytes": 2 * GB, "timeout_s": 600.0,
    }  # fmt: skip
    return FlinkJob(**(usual | changes))


def readings(checkpoints: dict[str, Any] | None = None, backend: str = "rocksdb", **changes: Any) -> Readings:
    """A job that is well: two hours up, 2 GB of state in RocksDB, incremental checkpoints of a second every half minute."""
    usual = Checkpoints(
        number=240, bytes=50 * MB, age_s=12.0, interval_s=30.0, took_ms=1_200.0, completed=240, incremental=True
    )
    stream = Stream(name="payments", partitions=4, records_read=100_000)
    return Readings(
        pipeline="p", source="", live=True, backend=backend, streams=(stream,), flink=job(**changes),
        checkpoints=replace(usual, **(checkpoints or {})),
    )  # fmt: skip


def found(given: Readings) -> dict[str, Finding]:
    return {finding.rule: finding for finding in diagnose(given)}


PRESSED = (source(back_pressured=0.8), cards(busy=0.97))
WAITING = (source(back_pressured=0.8), cards(busy=0.97, start_delay_ms=9_000.0))

#: (rule, how bad, what has it, what nearly does)
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("flink_restarts", "critical", {"state": "RESTARTING", "cause": "java.io.IOException: disk full"}, {"state": "FINISHED"}),
    ("flink_restarts", "warning", {"restarts": 20, "up_s": 3_600.0}, {"restarts": 2, "up_s": 600.0}),
    ("flink_no_checkpoints", "critical", {"checkpointed": False}, {"checkpointed": False, "state": "FINISHED"}),
    ("flink_checkpoints_fail", "critical", {"checkpoints": {"failed": 100}}, {"checkpoints": {"failed": 2}}),
    ("flink_checkpoints_fail", "warning", {"checkpoints": {"failed": 20}}, {"checkpoints": {"failed": 0}}),
    ("flink_old_checkpoint", "warning", {"checkpoints": {"age_s": 1_200.0}},
     {"checkpoints": {"age_s": 1_200.0, "interval_s": 600.0}}),
    ("flink_old_checkpoint", "warning", {"checkpoints": {"age_s": None, "completed": 0}},
     {"checkpoints": {"age_s": None, "completed": 0}, "up_s": 60.0}),
    ("flink_interval_short", "critical", {"checkpoints": {"interval_s": 1.0}}, {"checkpoints": {"interval_s": 3.0}}),
    ("flink_interval_short", "warning", {"checkpoints": {"interval_s": 2.0}},
     {"checkpoints": {"interval_s": 0.0}, "checkpointed": False}),
    ("flink_timeout_near", "warning", {"timeout_s": 2.0}, {"timeout_s": 5.0}),
    ("flink_unaligned", "warning", {"vertices": WAITING, "checkpoints": {"took_ms": 10_000.0}},
     {"vertices": WAITING, "checkpoints": {"took_ms": 10_000.0}, "unaligned": True}),
    ("flink_unaligned", "warning", {"vertices": WAITING, "checkpoints": {"took_ms": 10_000.0}},
     {"vertices": PRESSED, "checkpoints": {"took_ms": 10_000.0}}),
    ("flink_back_pressure", "warning", {"vertices": PRESSED}, {"vertices": (source(back_pressured=0.3), cards(busy=0.97))}),
    ("flink_busy", "notice", {"vertices": (source(), cards(busy=0.98))}, {"vertices": (source(), cards(busy=0.98)), "slots_free": 0}),
    ("flink_busy", "notice", {"vertices": (source(), cards(busy=0.98))},
     {"vertices": (source(), cards(busy=0.98, max_parallelism=4, state_bytes=0.0))}),
    ("flink_skew", "notice", {"vertices": (source(), cards(records=(80_000, 6_000, 7_000, 7_000)))},
     {"vertices": (source(), cards(records=(40_000, 20_000, 20_000, 20_000)))}),
    ("flink_skew", "warning", {"vertices": (source(), cards(records=(90_000, 10_000), busy=0.9))},
     {"vertices": (source(), cards(records=(900, 100), busy=0.9))}),
    ("flink_not_incremental", "warning", {"checkpoints": {"incremental": False}},
     {"checkpoints": {"incremental": False}, "backend": "hashmap", "state_bytes": 300 * MB}),
    ("flink_not_incremental", "notice", {"checkpoints": {"incremental": False}, "state_bytes": 300 * MB},
     {"checkpoints": {"incremental": False}, "state_bytes": 3 * MB}),
    ("flink_state_on_heap", "critical", {"backend": "hashmap"}, {"backend": "rocksdb"}),
    ("flink_state_on_heap", "warning", {"backend": "hashmap", "state_bytes": 1 * GB}, {"backend": "hashmap", "state_bytes": 400 * MB}),
    ("flink_garbage", "critical", {"task_managers": (manager(), manager(gc_share=0.5))}, {"task_managers": (manager(gc_share=0.05),)}),
    ("flink_garbage", "warning", {"task_managers": (manager(gc_share=0.15),)}, {"task_managers": ()}),
    ("flink_key_groups", "notice", {"vertices": (source(), cards(max_parallelism=6))},
     {"vertices": (source(), cards(max_parallelism=6, state_bytes=0.0))}),
]  # fmt: skip


def test_a_job_that_is_well_has_no_findings() -> None:
    assert diagnose(readings()) == []


@pytest.mark.parametrize(("rule", "severity", "ill", "well"), CASES)
def test_a_rule_finds_what_it_is_for_and_nothing_else(
    rule: str, severity: str, ill: dict[str, Any], well: dict[str, Any]
) -> None:
    finding = found(readings(**ill))[rule]
    assert finding.severity == severity
    assert finding.title.endswith(".")
    assert finding.figures
    assert finding.advice
    assert 0 <= finding.effect <= 1
    assert rule not in found(readings(**well))


def test_every_rule_has_a_case_and_says_nothing_where_no_flink_is() -> None:
    assert {rule.__name__ for rule in RULES} == {rule for rule, *_ in CASES}
    embedded = replace(readings(), flink=None)
    assert [finding for rule in RULES for finding in rule(embedded)] == []


def test_a_watermark_that_is_held_is_told_of_flink_too() -> None:
    held = replace(readings(), streams=(Stream(name="payments", held_by=2, held_back_us=10 * MINUTE, records_read=1),))
    assert set(found(held)) == {"watermark_held"}
    assert {"watermark_held", "no_watermark"} <= {rule.__name__ for rule in ON_FLINK}


def test_what_advises_settings_of_the_embedded_run_is_silent_on_flink() -> None:
    slow = readings(checkpoints={"took_ms": 40_000.0, "paused_ms": 900.0, "wrote_ms": 30_000.0})
    settings = [setting for finding in diagnose(slow) for setting in finding.settings]
    assert settings
    assert not [setting for setting in settings if setting.startswith("options.")]


def test_the_slowest_of_a_chain_is_what_others_wait_for() -> None:
    chain = (
        source(back_pressured=0.9),
        cards(name="joined", back_pressured=0.7, busy=0.2),
        cards(name="scored", inputs=("joined",), busy=0.99),
        cards(name="counted", inputs=("joined",), busy=0.3),
    )
    finding = found(readings(vertices=chain))["flink_back_pressure"]
    assert finding.figures["slowest"] == "scored"
    assert "payments waits 90% of the time for scored" in finding.title
    assert finding.settings == ("parallelism.default: 8",)


@pytest.mark.parametrize(
    ("text", "url", "name"),
    [
        ("http://localhost:8081/jobs/payments", "http://localhost:8081", "payments"),
        ("http://localhost:8081/jobs/State%20machine%20job/", "http://localhost:8081", "State machine job"),
        ("https://proxy/flink/jobs/a1", "https://proxy/flink", "a1"),
        ("http://localhost:8081/#/job/running/a1/overview", "http://localhost:8081", "a1"),
        ("http://localhost:8081/#/job/a1", "http://localhost:8081", "a1"),
    ],
)
def test_a_job_s_address_is_its_path_or_its_page(text: str, url: str, name: str) -> None:
    assert job_address(text) == JobAddress(url, name)


@pytest.mark.parametrize(
    "text", ["http://localhost:8081", "http://localhost:8081/jobs/", "http:///jobs/x", "http://h/#/overview"]
)
def test_an_address_without_a_job_says_how_one_is_written(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write where a job on Flink is as"):
        job_address(text)
