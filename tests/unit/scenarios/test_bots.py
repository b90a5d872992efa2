"""Scenario 1: the plan, and flags while sessions run."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import gillnet as gn
from gillnet.connectors.memory import MemorySink, MemorySource
from gillnet.core.errors import DefinitionError
from gillnet.core.messages import RawBatch
from gillnet.lifecycle.report_bots import log_alerts
from gillnet.operators.decode import DecodeOperator
from gillnet.operators.features import SESSION_START, FeatureOperator
from gillnet.plan.explain import explain
from gillnet.plan.nodes import AggregateNode, ExpressionNode
from gillnet.plan.serde import dumps, loads
from gillnet.runtimes.embedded import Alert, EmbeddedRuntime, Outputs, RuntimeOptions
from gillnet.scenarios.bots import MIN_CLICKS, bot_sessions, bots_pipeline
from gillnet.simulator import CLICK_SCHEMA, Simulation, SimulationConfig
from gillnet.testing import oracle
from gillnet.testing.oracle_expressions import evaluate_row

START_MS = 1_767_571_200_000
GOLDEN = Path(__file__).with_name("bots_plan.txt")
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"


def click(number: int, at_s: float, visitor: str, **changes: Any) -> bytes:
    record = {
        "click_id": f"k{number:06d}",
        "ts": START_MS + round(at_s * 1_000),
        "user_id": None,
        "visitor_id": visitor,
        "ip": "192.0.2.1",
        "url": "/",
        "method": "GET",
        "status_code": 200,
        "referrer": "/",
        "user_agent": BROWSER,
        "event": "view",
    }
    return json.dumps(record | changes).encode()


def script(count: int, *, visitor: str = "v-bot", start_s: float = 0.0, first: int = 0) -> list[bytes]:
    """A scraper: the catalogue in order, every half second."""
    return [
        click(first + n, start_s + 0.5 * n, visitor, url=f"/product/{1_000 + n:05d}", referrer=None)
        for n in range(count)
    ]


def run(clicks: list[bytes], *, emit: str = "flagged") -> dict[str, list[Any]]:
    """Run the scenario; returns what each output got, and the alerts as the display saw them."""
    sinks: dict[str, MemorySink] = {}
    shown: list[Alert] = []
    runtime = EmbeddedRuntime(
        bots_pipeline().plan,
        sources={"clicks": MemorySource("clicks", clicks)},
        outputs=Outputs(lambda name: sinks.setdefault(name, MemorySink())),
        options=RuntimeOptions(emit=emit),
        on_alerts=shown.extend,
    )
    runtime.run()
    written = {name: [json.loads(value) for value in sink.values] for name, sink in sinks.items()}
    return {"alerts": [], "decisions": [], "sessions": [], "shown": shown, **written}


def test_the_printed_plan_is_the_golden_file() -> None:
    plan = bots_pipeline().plan
    if os.environ.get("GILLNET_UPDATE_GOLDEN"):
        GOLDEN.write_text(explain(plan), encoding="utf-8")
    assert explain(plan) == GOLDEN.read_text(encoding="utf-8"), "set GILLNET_UPDATE_GOLDEN=1 if the change is meant"


def test_the_plan_survives_json() -> None:
    plan = bots_pipeline().plan
    assert loads(dumps(plan)) == plan


def test_missing_weights_are_a_readable_error(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="fit it again"):
        bots_pipeline(tmp_path / "none.json")


def test_a_bot_is_flagged_while_its_session_runs() -> None:
    output = run(script(100))
    first = output["alerts"][0]
    assert MIN_CLICKS <= first["features"]["clicks"] <= 6
    (session,) = output["sessions"]
    assert session["features"]["clicks"] == 100
    assert first["event_time"] < session["session_end"]
    assert first["session_start"] == session["session_start"]


def test_every_rule_that_holds_gives_its_reason_and_the_score_says_what_it_rests_on() -> None:
    reasons = Counter(reason for row in run(script(130))["decisions"] for reason in row["reasons"])
    # A sweep of 0.5 s a click: from the 3rd click on for the score, from the 40th and 120th for the fixed limits.
    assert reasons["sequential_bot"] >= 120
    assert (reasons["limit_rate"], reasons["limit_length"]) == (91, 11)
    assert reasons["evidence_sweep"] >= 120


def test_a_fast_person_is_not_a_bot() -> None:
    # As fast as a script; but to pages that people go back to, and with gaps that vary.
    gaps = [0.2, 1.9, 0.4, 0.3, 0.9, 1.1, 0.2, 0.6, 2.4, 0.3, 0.5, 0.8, 0.2, 1.4, 0.3]
    pages = ["/", "/search?q=017", "/product/00412", "/product/00017", "/category/12", "/product/20312", "/account"]
    times = [sum(gaps[:n]) for n in range(len(gaps))]
    clicks = [
        click(n, at, "v-1", url=pages[n % 7], user_id="u1", event="search" if n % 7 == 1 else "view")
        for n, at in enumerate(times)
    ]
    output = run(clicks, emit="all")
    assert output["decisions"][-1]["features"]["clicks_per_minute"] > 50
    assert output["alerts"] == []


def test_stuffed_credentials_are_blocked_within_a_few_clicks() -> None:
    clicks = [
        click(n, 2.0 * n, "v-1", url="/login", event="login_failed", status_code=401, user_id=f"u{n}", method="POST")
        for n in range(20)
    ]
    blocked = [row for row in run(clicks)["alerts"] if row["decision"] == "block"]
    assert blocked[0]["features"]["clicks"] <= 5
    assert "evidence_failures" in blocked[0]["reasons"] or "evidence_accounts" in blocked[0]["reasons"]


def test_a_session_gives_one_alert_for_each_decision() -> None:
    # The same visitor comes back after the gap: that is another session, with alerts of its own.
    output = run(script(60) + script(60, start_s=7_200.0, first=60))
    given = Counter((row["session_start"], row["decision"]) for row in output["alerts"])
    assert set(given.values()) == {1}
    assert len({start for start, _ in given}) == 2
    assert len(output["decisions"]) > len(output["alerts"])
    assert len(output["shown"]) == len(output["alerts"])


def test_a_closed_session_gives_one_row_when_the_watermark_passes_its_gap() -> None:
    # The last visitor's click moves the watermark past everybody else's gap, and its own session stays open.
    clicks = [*script(5, visitor="v-1"), *script(5, visitor="v-2", start_s=60, first=5)]
    operator = FeatureOperator(bots_pipeline().plan)
    feed(operator, [*clicks, click(99, 3_600, "v-3")])
    closed = operator.closed_sessions()
    assert closed is not None
    assert sorted(closed.column("visitor_id").to_pylist()) == ["v-1", "v-2"]
    assert closed.column("clicks").to_pylist() == [5, 5]
    assert operator.closed_sessions() is None


def test_a_session_at_the_very_gap_stays_open() -> None:
    operator = FeatureOperator(bots_pipeline().plan)
    # The watermark trails by 5 s: at 30 min and 5 s it stands on the last instant that could extend the session.
    feed(operator, [click(0, 0, "v-1"), click(1, 30 * 60 + 5, "v-2")])
    assert operator.closed_sessions() is None
    feed(operator, [click(2, 30 * 60 + 5.001, "v-2")])
    assert operator.closed_sessions() is not None


def test_an_open_session_closes_at_the_end_of_the_input() -> None:
    (session,) = run([click(0, 0, "v-1"), click(1, 5, "v-1")])["sessions"]
    assert (session["visitor_id"], session["features"]["clicks"], session["revision"]) == ("v-1", 2, 0)


def test_baselines_are_null_until_enough_sessions_have_closed_in_earlier_steps() -> None:
    # 100 people with two clicks each, 6 s apart, in the first minutes; then one every ten minutes.
    clicks = [click(2 * n + k, n + 6 * k, f"v-{n}") for n in range(100) for k in range(2)]
    clicks.sort(key=lambda value: json.loads(value)["ts"])
    clicks += [click(1_000 + n, 600 * n + 1, f"w-{n}") for n in range(1, 8)]
    operator, known = FeatureOperator(bots_pipeline().plan), {}
    for value in clicks:
        (row,) = feed(operator, [value])
        known[row["visitor_id"]] = row["rate_p50"]
        while operator.closed_sessions() is not None:
            pass
    # They are over by 105 s and so closed half an hour later, in the step from 30 to 40 min.
    assert [known[f"w-{n}"] is None for n in range(1, 4)] == [True, True, True]
    assert known["w-7"] == pytest.approx(4.0, rel=0.02)  # one gap, over a quarter of a minute at least


def test_the_population_flags_what_is_far_from_it() -> None:
    calm = [click(n, 4 * n, f"v-{n // 3}-{n % 5}") for n in range(3_000)]
    busy = [click(5_000 + n, 12_100 + 1.1 * n, "v-busy", url=f"/category/{n % 7}") for n in range(40)]
    rows = run(calm + busy)["decisions"]
    reasons = {reason for row in rows if row["visitor_id"] == "v-busy" for reason in row["reasons"]}
    assert "baseline_rate" in reasons
    assert not reasons & {"limit_rate", "limit_length"}


def test_alerts_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    log_alerts(run(script(10))["shown"])
    logged = capsys.readouterr().out
    assert "v-bot" in logged
    assert "sequential_bot" in logged


def feed(operator: FeatureOperator, clicks: list[bytes], *, arrival_us: int = START_MS * 1_000) -> list[dict[str, Any]]:
    """Put clicks through decoding and features, and return the rows."""
    decoder = DecodeOperator(CLICK_SCHEMA, id="click_id", keys=["visitor_id"])
    raw = RawBatch(
        stream="clicks",
        values=clicks,
        partitions=[0] * len(clicks),
        arrival_time_us=arrival_us,
        envelope=lambda _: (None, []),
    )
    rows = operator.process("clicks", decoder.decode(raw).batch, arrival_us + 10 * 3_600_000_000).rows
    assert rows is not None
    return list(rows.to_pyarrow().to_pylist())


def test_session_features_are_those_of_a_slow_recomputation() -> None:
    """I1: every row of a simulated sample, out of order, read again by the oracle; then every closed session."""
    config = SimulationConfig(
        seed=11, duration="2h", payments_per_day=1_000, sessions_per_day=2_000, bots_per_day=60, disorder_s=4
    )
    clicks = [value for chunk in Simulation(config).clicks() for value in chunk.values]
    plan = gn.Pipeline(bot_sessions()).plan
    columns = {name: (dtype.name, dtype.nullable) for name, dtype in CLICK_SCHEMA.items()}
    columns |= {feature.name: (feature.type, True) for feature in plan.features}
    operator, arrived = FeatureOperator(plan), {}

    def evaluate(node: Any, row: Any) -> Any:
        return evaluate_row(node, row, columns)

    checked = 0
    for row in feed(operator, clicks):
        time = round(row["ts"].timestamp() * 1_000) * 1_000
        own = oracle.Event(time, row["click_id"], row)
        events = arrived.setdefault(row["visitor_id"], [])
        events.append(own)
        for feature in plan.features:
            if isinstance(feature, AggregateNode):
                assert row[feature.name] == oracle.read(feature, events, time, own, evaluate), (feature.name, row)
            elif isinstance(feature, ExpressionNode):
                assert row[feature.name] == evaluate(feature.expression, row), (feature.name, row)
        checked += 1
    assert checked == len(clicks) > 1_000
    assert len({row.row[SESSION_START] for events in arrived.values() for row in events}) > 50
    check_closed_sessions(operator, arrived, evaluate)


def check_closed_sessions(operator: FeatureOperator, arrived: dict[str, Any], evaluate: Any) -> None:
    operator.finish("clicks")
    closed = []
    while (batch := operator.closed_sessions()) is not None:
        closed += batch.to_pyarrow().to_pylist()
    assert sum(session["clicks"] for session in closed) == sum(map(len, arrived.values()))
    for session in closed:
        end = round(session["session_end"].timestamp() * 1_000) * 1_000
        for feature in operator.plan.features:
            if isinstance(feature, AggregateNode):
                expected = oracle.read(feature, arrived[session["visitor_id"]], end, None, evaluate)
                assert session[feature.name] == expected, (feature.name, session)
