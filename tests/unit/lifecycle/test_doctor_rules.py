"""Each of the doctor's rules: readings in which it finds something, and readings in which it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from effort import examples
from hypothesis import given
from hypothesis import strategies as st

from gillnet.lifecycle.doctor import RULES, Finding, Readings, diagnose
from gillnet.lifecycle.doctor.readings import Checkpoints, Disk, Feature, Load, Memory, Operator, Stream
from gillnet.lifecycle.doctor.trend import Trend, trend

MB, GB = 1e6, 1e9
MINUTE, HOUR, DAY = 60 * 10**6, 3_600 * 10**6, 86_400 * 10**6


def rising(per_s: float, *, now: float, span_s: float = 3_600.0, steady: float = 0.9) -> Trend:
    return Trend(per_s=per_s, steady=steady, now=now, span_s=span_s, points=100)


def cards(**changes: Any) -> Operator:
    """An operator that keeps a day of events, and has had it for long."""
    day = Feature(name="spend_1d", window="1d", window_us=DAY, bytes=80 * MB, alone_bytes=0.0)
    usual: dict[str, Any] = {
        "kind": "windows", "name": "payments.card_id", "stream": "payments", "keys": 10_000, "events": 1_000_000,
        "bytes": 100 * MB, "kept_us": DAY + HOUR, "late_us": HOUR, "covered_us": DAY + HOUR, "largest_key": "c1",
        "largest_events": 900, "largest_bytes": 90_000.0, "gini": 0.4, "features": (day,),
    }  # fmt: skip
    return Operator(**(usual | changes))


def month(**changes: Any) -> Operator:
    """One that keeps a month for the sake of one feature, and is two days old."""
    features = (
        Feature(name="spend_5m", window="5m", window_us=5 * MINUTE, bytes=2 * MB, alone_bytes=0.0),
        Feature(name="spend_30d", window="30d", window_us=30 * DAY, bytes=2 * GB, alone_bytes=1.9 * GB),
    )
    kept = {"bytes": 2 * GB, "kept_us": 30 * DAY + HOUR, "late_us": HOUR, "covered_us": 2 * DAY, "features": features}
    return cards(**(kept | changes))


def late(kind: str, bytes_: float) -> Operator:
    """Ids, or rows that can be revised: kept for a lateness of a day."""
    return Operator(
        kind=kind,
        name="payments",
        stream="payments",
        events=10_000_000,
        bytes=bytes_,
        kept_us=DAY,
        late_us=DAY,
        covered_us=DAY,
    )


def stream(**changes: Any) -> Stream:
    usual: dict[str, Any] = {
        "name": "payments", "behind_us": 6e6, "held_by": 2, "held_back_us": 2_000_000, "partitions": 4,
        "records_read": 1_000_000, "late_share": 0.01, "watermark_delay_us": 5_000_000, "allowed_lateness_us": HOUR,
        "idle_after_us": 30_000_000,
    }  # fmt: skip
    return Stream(**(usual | changes))


def readings(**changes: Any) -> Readings:
    """A run that is well."""
    usual: dict[str, Any] = {
        "pipeline": "p", "source": "", "live": True, "history_s": 7_200.0,
        "memory": Memory(rss=1 * GB, limit=8 * GB, state=100 * MB, malloc_used=500 * MB, malloc_free=50 * MB,
                         trend=rising(10, now=1 * GB, steady=0.1)),
        "operators": (cards(),),
        "streams": (stream(),),
        "checkpoints": Checkpoints(number=7, bytes=100 * MB, age_s=20.0, paused_ms=10.0, wrote_ms=700.0, took_ms=900.0, completed=50),
        "load": Load(records_per_s=5_000.0, batch_records=60.0, loop_share=0.3, cpu_cores=0.4, cpus=4.0, lag_records=100.0,
                     latency_p99_ms=15.0),
        "disk": Disk(free=100 * GB),
    }  # fmt: skip
    return Readings(**(usual | changes))


def found(given_readings: Readings) -> dict[str, Finding]:
    return {finding.rule: finding for finding in diagnose(given_readings)}


def memory(**changes: Any) -> dict[str, Any]:
    return {"memory": replace(readings().memory, **changes)}


def checkpoints(**changes: Any) -> dict[str, Any]:
    return {"checkpoints": replace(readings().checkpoints, **changes)}


def load(**changes: Any) -> dict[str, Any]:
    return {"load": replace(readings().load, **changes)}


TIGHT = memory(limit=2 * GB)
LAGGING: dict[str, Any] = {"lag_records": 500_000.0, "lag_trend": rising(2_000, now=500_000)}

#: (rule, how bad, readings that have it, readings that nearly do)
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("memory_full", "critical", memory(rss=7.5 * GB), memory(rss=5.9 * GB)),
    ("memory_full", "warning", memory(rss=6.5 * GB), memory(rss=6.5 * GB, limit=None)),
    ("memory_grows", "critical", memory(trend=rising(5 * MB, now=1 * GB)) | {"operators": (cards(kept_us=None),)},
     memory(trend=rising(5 * MB, now=1 * GB))),  # Its windows fill up, and fit.
    ("memory_grows", "warning", memory(trend=rising(0.2 * MB, now=1 * GB)) | {"operators": (cards(kept_us=None),)},
     memory(trend=rising(0.2 * MB, now=1 * GB, steady=0.3)) | {"operators": (cards(kept_us=None),)}),
    ("state_will_not_fit", "critical", {"operators": (month(),)}, {"operators": (month(covered_us=30 * DAY),)}),
    ("state_will_not_fit", "warning", memory(limit=36 * GB) | {"operators": (month(),)},
     memory(limit=60 * GB) | {"operators": (month(),)}),
    ("swapping", "warning", memory(swap=300 * MB), memory(swap=10 * MB)),
    ("long_window", "warning", {"operators": (month(),)}, {"operators": (cards(),)}),
    ("long_window", "notice", memory(limit=100 * GB) | {"operators": (month(),)},
     memory(limit=100 * GB) | {"operators": (month(bytes=10 * MB),)}),
    ("lateness_dominates", "warning",
     TIGHT | {"operators": (cards(), late("ids", 1 * GB), late("revisable rows", 1 * GB)), "streams": (stream(allowed_lateness_us=DAY),)},
     TIGHT | {"operators": (cards(), late("ids", 1 * GB)), "streams": (stream(allowed_lateness_us=DAY, late_share=0.2),)}),
    ("skewed_key", "warning", {"operators": (cards(largest_events=600_000),)}, {"operators": (cards(largest_events=100_000),)}),
    ("skewed_key", "notice", {"operators": (cards(largest_events=300_000),)},
     {"operators": (cards(largest_events=300_000, keys=3),)}),
    ("skewed_key", "warning", {"max_events_per_key": 2_000}, {"max_events_per_key": 10_000}),
    ("saturated", "warning", {"operators": (cards(saturated_keys=3),)}, {}),
    ("waiting_rows", "warning", {"operators": (Operator(kind="waiting rows", name="payments", stream="payments", events=600_000),)},
     {"operators": (Operator(kind="waiting rows", name="payments", stream="payments", events=60_000),)}),
    ("unswept", "notice", {"operators": (cards(bytes=900 * MB, expired_bytes=500 * MB),)},
     {"operators": (cards(bytes=900 * MB, expired_bytes=500 * MB),), "streams": (stream(ended=True),)}),
    ("free_heap", "notice", memory(malloc_free=600 * MB), memory(malloc_free=100 * MB)),
    ("watermark_held", "critical", {"streams": (stream(held_back_us=3 * HOUR),)}, {"streams": (stream(held_back_us=30_000_000),)}),
    ("watermark_held", "warning", {"streams": (stream(held_back_us=10 * MINUTE),)},
     {"streams": (stream(held_back_us=10 * MINUTE, watermark_delay_us=2 * MINUTE),)}),
    ("no_watermark", "critical", {"streams": (stream(watermark_known=False, held_by=None),)},
     {"streams": (stream(watermark_known=False, held_by=None, records_read=0),)}),
    ("streams_apart", "warning", {"operators": (cards(kept_us=2 * DAY, late_us=DAY),)}, {"operators": (cards(),)}),
    ("records_too_late", "warning", {"streams": (stream(too_late_share=0.02),)}, {"streams": (stream(too_late_share=0.0002),)}),
    ("records_too_late", "notice", {"streams": (stream(too_late_share=0.002),)},
     {"streams": (stream(too_late_share=0.002, records_read=500),)}),
    ("checkpoints_fail", "critical", checkpoints(failed=2), checkpoints(failed=0)),
    ("checkpoints_stale", "warning", checkpoints(age_s=4_000.0), checkpoints(age_s=4_000.0) | {"live": False}),
    ("checkpoint_slow", "critical", checkpoints(took_ms=40_000.0), checkpoints(took_ms=10_000.0)),
    ("checkpoint_slow", "warning", checkpoints(took_ms=20_000.0, wrote_ms=1_000.0), checkpoints(took_ms=20_000.0, interval_s=300.0)),
    ("checkpoint_pause", "warning", checkpoints(paused_ms=180.0), checkpoints(paused_ms=45.0)),
    ("checkpoint_writes", "notice", checkpoints(bytes=4 * GB, wrote_ms=4_000.0),
     checkpoints(bytes=4 * GB, wrote_ms=4_000.0, incremental=True)),
    ("serialisation", "notice", checkpoints(wrote_ms=8_000.0, took_ms=9_000.0),
     checkpoints(wrote_ms=8_000.0, took_ms=9_000.0, bytes=1 * GB)),
    ("disk_full", "critical", {"disk": Disk(free=50 * MB)}, {"disk": Disk(free=1 * GB)}),
    ("disk_full", "warning", {"disk": Disk(free=10 * GB, trend=Trend(per_s=-1 * MB, steady=-0.9, now=10 * GB, span_s=3_600, points=99))},
     {"disk": Disk(free=10 * GB, trend=Trend(per_s=-1 * MB, steady=-0.2, now=10 * GB, span_s=3_600, points=99))}),
    ("falling_behind", "critical", load(**LAGGING, loop_share=0.97), load(**LAGGING | {"lag_trend": rising(-50, now=5e5, steady=-0.9)})),
    ("falling_behind", "warning", load(**LAGGING | {"lag_trend": rising(500, now=5e5)}, loop_share=0.97),
     load(**LAGGING | {"lag_records": 900.0})),
    ("slow_rows", "warning", load(latency_p99_ms=800.0), load(latency_p99_ms=200.0)),
    ("revisions_behind", "notice", load(disturbances=40_000), load(disturbances=400)),
    (
        "cold_keys",
        "notice",
        load(fetched_per_record=0.9, keys_resident=250e6, keys_budget=256e6, keys_on_disk=2e9),
        load(fetched_per_record=0.02, keys_resident=250e6, keys_budget=256e6, keys_on_disk=2e9),
    ),
    (
        "keys_crowded_out",
        "warning",
        load(fetched_per_record=0.9, keys_resident=30e6, keys_budget=256e6, keys_on_disk=2e9),
        load(fetched_per_record=0.9, keys_resident=250e6, keys_budget=256e6, keys_on_disk=2e9),
    ),
    (
        "keys_crowded_out",
        "warning",
        load(fetched_per_record=0.9, keys_resident=30e6, keys_budget=256e6, keys_on_disk=2e9)
        | {"operators": (cards(), late("ids", 200 * MB))},
        load(fetched_per_record=0.1, keys_resident=30e6, keys_budget=256e6, keys_on_disk=2e9),
    ),
]  # fmt: skip


def test_a_run_that_is_well_has_no_findings() -> None:
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


def test_every_rule_has_a_case() -> None:
    covered = {rule for rule, *_ in CASES}
    # One rule tells of failures and of old checkpoints.
    assert {rule.__name__ for rule in RULES} <= covered
    assert covered - {rule.__name__ for rule in RULES} == {"checkpoints_stale"}


@examples(60)
@given(st.permutations(range(6)), st.integers(0, 6))
def test_findings_come_with_the_worst_first_then_symptoms_then_by_effect(order: list[int], most: int) -> None:
    parts: list[dict[str, Any]] = [
        memory(rss=7.9 * GB),
        {"operators": (month(saturated_keys=2),)},
        {"streams": (stream(held_back_us=2 * HOUR),)},
        checkpoints(paused_ms=300.0),
        load(latency_p99_ms=900.0),
        {"disk": Disk(free=1.0)},
    ]
    together: dict[str, Any] = {}
    for number in order[:most]:
        together |= parts[number]
    findings = diagnose(readings(**together))
    assert [finding.order for finding in findings] == sorted(finding.order for finding in findings)
    assert bool(findings) == bool(most)


def test_nothing_known_is_nothing_found() -> None:
    assert diagnose(Readings(pipeline="p", source="")) == []


def test_what_this_build_cannot_be_told_is_not_advised() -> None:
    ill = checkpoints(took_ms=40_000.0) | load(**LAGGING, loop_share=0.97)
    plain = " ".join(setting for finding in diagnose(readings(**ill)) for setting in finding.settings)
    able = " ".join(
        setting
        for finding in diagnose(readings(**ill, options=frozenset({"rocksdb", "workers"})))
        for setting in finding.settings
    )
    assert "rocksdb" not in plain
    assert "--workers" not in plain
    assert 'options.state_backend = "rocksdb"' in able
    assert "--workers 4" in able


def test_what_crowds_keys_out_of_memory_is_named_and_keys_are_not() -> None:
    crowded = load(fetched_per_record=0.9, keys_resident=30e6, keys_budget=256e6, keys_on_disk=2e9)
    held = {"operators": (cards(), late("ids", 150 * MB), late("revisable rows", 70 * MB))}
    finding = found(readings(**crowded, **held))["keys_crowded_out"]
    assert finding.figures["stays_bytes"] == 220 * MB
    assert "payments ids" in finding.title
    assert "card_id" not in finding.title
    assert "cold_keys" not in found(readings(**crowded, **held))


def test_a_long_window_says_what_a_shorter_one_would_cost() -> None:
    finding = found(readings(operators=(month(),)))["long_window"]
    full = 2 * GB * (30 * DAY + HOUR) / (2 * DAY)
    assert finding.figures["full_bytes"] == round(full)
    assert finding.figures["full_bytes_with"]["7d"] == pytest.approx(full * (7 * DAY + HOUR) / (30 * DAY + HOUR), abs=1)
    assert finding.settings == ('spend_30d: over="14d"',)


@pytest.mark.parametrize(
    ("changes", "says", "setting"),
    [
        ({"loop_share": 0.97}, "all that one can do", 'options.detail = "decision"'),
        ({"queued": {"decisions": 95_000.0}}, "the queue of the sink decisions is full", "kafka.linger.ms = 20"),
        ({"loop_share": 0.2}, "waits for something", None),
    ],
)
def test_falling_behind_says_by_what_it_is_held_up(changes: dict[str, Any], says: str, setting: str | None) -> None:
    finding = found(readings(**load(**LAGGING, **changes)))["falling_behind"]
    assert says in finding.title
    assert setting is None or setting in finding.settings


def test_a_silent_partition_is_to_be_left_out_sooner_and_a_slow_one_is_not() -> None:
    held: dict[str, Any] = {"held_back_us": 2 * HOUR, "idle_after_us": 7 * DAY}
    silent = found(readings(streams=(stream(**held, held_silent_us=2 * HOUR),)))["watermark_held"]
    slow = found(readings(streams=(stream(**held, held_silent_us=0),)))["watermark_held"]
    assert silent.settings == ('Stream("payments", idle_after="30s")',)
    assert slow.settings == ()


# Trends


@examples(60)
@given(st.floats(-1e6, 1e6), st.floats(-1e9, 1e9), st.integers(8, 200), st.integers(0, 2**32 - 1), st.integers(0, 20))
def test_a_line_is_found_although_some_points_lie_anywhere(
    slope: float, start: float, points: int, seed: int, outliers: int
) -> None:
    chance = np.random.default_rng(seed)
    times = np.arange(points) * 10.0
    values = start + slope * times
    wrong = chance.choice(points, min(outliers, points // 10), replace=False)
    values[wrong] += chance.normal(0, 1e12, len(wrong))
    told = trend(list(times), list(values))
    assert told is not None
    assert told.per_s == pytest.approx(slope, rel=0.05, abs=1e-3 * (1 + abs(slope)) + 1e-6 * abs(start) / 10)


@pytest.mark.parametrize("times", [[], [1.0] * 20, list(range(7)), [number * 0.1 for number in range(100)]])
def test_too_little_has_no_trend(times: list[float]) -> None:
    assert trend(times, [1.0] * len(times)) is None


def test_chance_has_no_direction_and_time_until_a_limit_is_told() -> None:
    noise = np.random.default_rng(3).normal(size=400)
    told = trend(list(np.arange(400) * 10.0), list(noise))
    assert told is not None
    assert not told.rises
    assert not told.falls
    up = rising(2.0, now=10.0)
    assert up.until_s(30.0) == 10.0
    assert up.until_s(5.0) is None
