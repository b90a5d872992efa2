"""Reading a stream for its delays, recommending a delay, and drawing the page."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from gillnet.connectors.memory import MemorySource
from gillnet.core.errors import ConfigurationError
from gillnet.core.time import HOUR
from gillnet.lifecycle.lateness import Budget, LatenessReport, StreamEvents, measure, read_stream, recommend
from gillnet.lifecycle.lateness.opening import open_bounded
from gillnet.lifecycle.lateness.page import page, write_page
from gillnet.lifecycle.lateness.reading import described, time_unit
from gillnet.lifecycle.lateness.report import DelayAt, ScoresLateness, StreamLateness
from gillnet.lifecycle.lateness.scores import ScoresAt
from gillnet.lifecycle.lateness.words import advice_text

START_S = 1_767_571_200


def read(records: list[Any], *, partitions: list[int] | None = None, **options: Any) -> StreamEvents:
    values = [record if isinstance(record, bytes) else json.dumps(record).encode() for record in records]
    source = MemorySource("payments", values, partitions=partitions)

    def node(first: bytes) -> Any:
        return described(first, name="payments", id="id", event_time="ts", idle_after_us=30_000_000, max_ahead_us=HOUR)

    return read_stream(source, node, **options)


def record(number: int, at_s: float, received_s: float | None = None) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": f"p{number}", "ts": round((START_S + at_s) * 1_000), "amount": 1}
    return fields if received_s is None else fields | {"received": round((START_S + received_s) * 1_000)}


# Reading


def test_what_a_run_would_refuse_is_left_out_and_counted() -> None:
    ahead, epoch = record(9, 10**9), record(8, -START_S)
    events = read([record(1, 0), b"{", record(2, 5), record(1, 0), ahead, epoch])
    assert (events.read, len(events), events.malformed, events.duplicate) == (6, 2, 3, 1)
    assert (events.times - START_S * 1_000_000).tolist() == [0, 5_000_000]


def test_without_recorded_arrivals_the_newest_event_time_stands_in() -> None:
    events = read([record(1, 10), record(2, 5), record(3, 20)])
    assert not events.recorded
    assert (events.arrivals - START_S * 1_000_000).tolist() == [10_000_000, 10_000_000, 20_000_000]


def test_partitions_are_brought_into_their_common_order_of_arrival() -> None:
    # A bounded read gives one partition after the other; within one, records keep their order whatever their clocks say.
    records = [record(1, 1, 2), record(2, 2, 9), record(3, 3, 4), record(4, 1, 3), record(5, 5, 6)]
    events = read(records, partitions=[0, 0, 0, 7, 7], arrival="received")
    assert events.recorded
    assert events.rows["id"].to_pylist() == ["p1", "p4", "p5", "p2", "p3"]
    assert events.partitions.tolist() == [0, 1, 1, 0, 0]
    assert ((events.arrivals - START_S * 1_000_000) // 1_000_000).tolist() == [2, 3, 6, 9, 9]


def test_no_more_is_read_than_was_asked_for() -> None:
    events = read([record(n, n) for n in range(10)], most=4)
    assert (len(events), events.whole) == (4, False)
    assert read([record(n, n) for n in range(4)]).whole


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (1_767_571_200, "s"),
        (1_767_571_200_000, "ms"),
        (1_767_571_200_000_000, "us"),
        ("2026-01-05T00:00:00Z", "rfc3339"),
    ],
)
def test_the_unit_of_a_time_is_told_by_its_size(value: object, unit: str) -> None:
    assert time_unit(value) == unit


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        ([], {}, r"source of 'payments' gave no record"),
        ([b"1", b"x"], {}, r"begins with 2 records that are no JSON objects"),
        ([{"tx": "1", "ts": 1}], {}, r"have no field 'id'.*name it with --id"),
        ([record(1, 0)], {"arrival": "recieved"}, r"have no field 'recieved'.*--arrival names"),
    ],
)
def test_what_cannot_be_measured_says_why(records: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read(records, **options)


def test_a_simulation_gives_the_arrivals_that_it_made_up_and_no_rate_holds_it_back() -> None:
    uri = "simulator:payments?duration=1h&cards=100&merchants=64&payments_per_day=12000&disorder_s=3&rate=1"
    source = open_bounded("payments", uri, schema=None, kafka={})

    def node(first: bytes) -> Any:
        return described(first, name="payments", id="tx_id", event_time="ts", idle_after_us=HOUR, max_ahead_us=HOUR)

    events = read_stream(source, node)
    delays = events.arrivals - events.times
    assert events.recorded
    assert len(events) > 100
    assert 0 <= delays.min() < 1_000_000 < delays.max() <= 3_000_000


# Recommending


def report(late: list[float], waits_ms: list[float | None], stale: list[float] | None = None) -> LatenessReport:
    delays = [0, 1_000_000, 3_600_000_000]
    stream = StreamLateness(
        stream="payments",
        read=10,
        events=10,
        malformed=0,
        duplicate=0,
        partitions=1,
        recorded=True,
        first_event_us=START_S * 1_000_000,
        last_event_us=START_S * 1_000_000,
        watermark_delay_us=0,
        allowed_lateness_us=0,
        behind_newest_ms={},
        arrival_minus_event_ms=None,
        delays=[
            DelayAt(delay_us=d, late_share=share, too_late_share=None, wait_ms_p50=wait, wait_ms_p99=wait)
            for d, share, wait in zip(delays, late, waits_ms, strict=True)
        ],
    )
    scored = stale and [
        ScoresAt(delay_us=d, stale_share=share, changed_share=share, moved_mean=0.1, moved_p99=None, flipped_share=0.0)
        for d, share in zip(delays, stale, strict=True)
    ]
    on_arrival = ScoresAt(
        delay_us=-1, stale_share=0.006, changed_share=0.006, moved_mean=0.1, moved_p99=None, flipped_share=0.0
    )
    scores = scored and ScoresLateness(
        pipeline="p", model="fraud@1", size=10, warm_up=2, counted=8, events=10, on_arrival=on_arrival, delays=scored
    )
    return LatenessReport(streams=[stream], scores=scores or None)


LATE, WAITS = [0.2, 0.01, 0.0], [0.0, 1_200.0, None]


@pytest.mark.parametrize(
    ("budget", "delay_us", "share"),
    [
        (Budget(max_stale_share=0.05), 1_000_000, 0.01),
        (Budget(max_stale_share=0.2), 0, 0.2),
        (Budget(max_stale_share=0.0), 3_600_000_000, 0.0),
        (Budget(max_latency_ms=50), 0, 0.2),
        (Budget(max_latency_ms=1_200), 1_000_000, 0.01),
        (Budget(max_latency_ms=2_000, max_stale_share=0.05), 1_000_000, 0.01),
        (Budget(max_latency_ms=2_000, max_stale_share=0.5), 0, 0.2),
    ],
)
def test_the_shortest_delay_for_a_share_and_the_longest_for_a_latency(
    budget: Budget, delay_us: int, share: float
) -> None:
    advice = recommend(report(LATE, WAITS), budget)
    assert (advice.delay_us, advice.stale_share, advice.stale_of) == (delay_us, share, "events")


def test_with_a_pipeline_its_scores_count_and_not_the_late_events() -> None:
    advice = recommend(report(LATE, WAITS, stale=[0.004, 0.001, 0.0]), Budget(max_stale_share=0.005))
    assert (advice.delay_us, advice.stale_share, advice.stale_of) == (0, 0.004, "scores")
    assert advice_text(advice) == (
        'Recommended: watermark_delay="0s": 0.4% stale scores, waits of 0 (p99); the shortest wait with so few stale scores.'
    )


def test_scoring_on_arrival_is_recommended_where_it_keeps_the_budget() -> None:
    waits_for_clicks = report(LATE, [80.0, 1_200.0, None], stale=[0.004, 0.001, 0.0])
    for budget in (
        Budget(max_latency_ms=50),
        Budget(max_stale_share=0.01),
        Budget(max_latency_ms=50, max_stale_share=0.01),
    ):
        advice = recommend(waits_for_clicks, budget)
        assert (advice.emission, advice.delay_us, advice.stale_share) == ("on_arrival", None, 0.006)
        assert "score on arrival, as is the default: 0.6% stale scores, no wait" in advice_text(advice)
    assert recommend(waits_for_clicks, Budget(max_latency_ms=100)).delay_us == 0


@pytest.mark.parametrize(
    ("budget", "why"),
    [
        (Budget(max_stale_share=0.001), r"even the longest delay leaves 0\.200% of events stale"),
        (Budget(max_stale_share=0.02, max_latency_ms=50), r"no delay keeps both"),
        (Budget(max_latency_ms=50), r"even the shortest delay waits longer"),
    ],
)
def test_a_budget_that_nothing_keeps_is_told(budget: Budget, why: str) -> None:
    hopeless = report([0.2, 0.01, 0.002], [60.0, 1_200.0, None])
    advice = recommend(hopeless, budget)
    assert advice.delay_us is None
    assert advice_text(advice).startswith("Nothing in the table keeps the budget: ")
    assert re.search(why, advice.why)


# The page


def charts_of(text: str) -> list[ET.Element]:
    return [ET.fromstring(f"<svg{part.partition('</svg>')[0]}</svg>") for part in text.split("<svg")[1:]]


def test_the_page_is_whole_in_itself_and_has_every_figure(tmp_path: Path) -> None:
    shown = report(LATE, WAITS, stale=[0.004, 0.001, 0.0])
    path = tmp_path / "lateness.html"
    write_page(path, shown, recommend(shown, Budget(max_stale_share=0.005)))
    text = path.read_text(encoding="utf-8")
    assert not any(outside in text for outside in ("http:", "https:", "<script", "<link", "<img", "url("))
    assert "Recommended: watermark_delay=&quot;0s&quot;" in text
    for figure in ("20.0%", "0.4%", "1.2 s"):
        assert figure in text


def test_every_point_of_a_chart_lies_on_it() -> None:
    text = page(report(LATE, WAITS, stale=[0.004, 0.001, 0.0]), None)
    charts = charts_of(text)
    assert [chart.get("aria-label") for chart in charts] == [
        "What comes too late, or is scored without it",
        "What waiting costs",
        "How far stale scores moved",
    ]
    for chart in charts:
        _, _, width, height = (float(part) for part in (chart.get("viewBox") or "").split())
        circles = list(chart.iter("circle"))
        assert circles
        for circle in circles:
            assert 0 < float(circle.get("cx") or -1) < width
            assert 0 < float(circle.get("cy") or -1) < height
    labels = [text.text for text in charts[0].iter("text")]
    assert {"0", "late events", "stale rows", "watermark delay", "share"} <= set(labels)


def test_more_lateness_is_drawn_higher() -> None:
    text = page(report([0.2, 0.01, 0.0], WAITS), None)
    chart = charts_of(text)[0]
    heights = [float(circle.get("cy") or 0) for circle in chart.iter("circle")]
    assert heights == sorted(heights)
    assert len(set(heights)) == 3


def test_a_page_that_cannot_be_written_is_a_readable_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"--html .*: the page cannot be written: No such file"):
        write_page(tmp_path / "missing" / "page.html", report(LATE, WAITS), None)


def test_a_stream_alone_is_measured_without_a_pipeline() -> None:
    events = read([record(1, 0, 0), record(2, 10, 10), record(3, 4, 11)], arrival="received")
    measured = measure([events], delays_us=[0, 5_000_000, 6_000_000])
    assert [at.late_share for at in measured.root.delays] == pytest.approx([1 / 3, 1 / 3, 0])
    assert measured.root.arrival_minus_event_ms is not None
    assert measured.root.arrival_minus_event_ms["max"] == 7_000
    assert measured.root.behind_newest_ms["max"] == 6_000
    assert measured.scores is None


def test_delays_that_the_data_do_not_span_are_left_out() -> None:
    # Under a delay of an hour nothing in half a minute of data is late, and that says nothing of the stream.
    assert [at.delay_us for at in measure([read([record(1, 0), record(2, 30)])]).root.delays][-1] == 30_000_000
    assert [at.delay_us for at in measure([read([record(1, 0)])]).root.delays] == [0]
