from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from simulated import records

from gillnet.simulator import CLICK_SCHEMA, VISITOR_LABEL_SCHEMA, Simulation, SimulationConfig

EVENTS = {"view", "search", "login", "login_failed", "password_reset", "add_to_cart", "checkout"}


def by_visitor(clicks):
    sessions = defaultdict(list)
    for click in clicks:
        sessions[click["visitor_id"]].append(click)
    return sessions


def test_clicks_are_valid_unique_and_in_order(week, clicks):
    start_ms, end_ms = week.config.start_us // 1_000, week.config.end_us // 1_000
    assert [c["click_id"] for c in clicks] == [f"k{i:012d}" for i in range(len(clicks))]
    assert [c["ts"] for c in clicks] == sorted(c["ts"] for c in clicks)
    assert all(start_ms <= c["ts"] < end_ms for c in clicks)
    assert all(list(c) == list(CLICK_SCHEMA) for c in clicks)
    assert {c["event"] for c in clicks} == EVENTS
    assert all(len(c["visitor_id"]) <= 15 and len(c["user_agent"]) > 5 for c in clicks)
    assert any(c["user_id"] is None for c in clicks)
    assert all(c["url"].startswith("/") and (c["referrer"] or "/").startswith("/") for c in clicks)
    assert {c["status_code"] for c in clicks if c["event"] == "login_failed"} == {401}


def test_every_visitor_has_one_label(week, clicks):
    labels = records(week, "visitor_labels")
    assert all(list(label) == list(VISITOR_LABEL_SCHEMA) for label in labels)
    assert Counter(label["visitor_id"] for label in labels).most_common(1)[0][1] == 1
    assert {label["visitor_id"] for label in labels} >= {c["visitor_id"] for c in clicks}
    kinds = {label["kind"]: label["bot"] for label in labels}
    assert kinds == {"human": False, "account_takeover": False, "scraper": True, "credential_stuffing": True}
    assert {label["level"] for label in labels if label["bot"]} == {1}


def test_take_overs_show_in_both_streams_for_the_same_user(week, payments, labels, clicks):
    users = defaultdict(list)
    for click in clicks:
        if click["user_id"]:
            users[click["user_id"]].append(click)
    kind = {label["visitor_id"]: label["kind"] for label in records(week, "visitor_labels")}
    taken = [p for p in payments if labels[p["tx_id"]]["scenario"] == "account_takeover"]
    assert len(taken) > 100
    preceded = failed = same_address = 0
    for p in taken:
        villain = [c for c in users[p["user_id"]] if c["ts"] <= p["ts"] and kind[c["visitor_id"]] == "account_takeover"]
        preceded += bool(villain)
        failed += any(c["event"] in ("login_failed", "password_reset") for c in villain)
        same_address += any(c["ip"] == p["ip"] for c in villain)
    assert preceded == len(taken)
    assert failed > 0.7 * len(taken)
    assert same_address == len(taken)


def test_honest_purchases_have_sessions_and_forgotten_passwords_too(payments, labels, clicks):
    hour = 3_600_000
    users = defaultdict(list)
    for click in clicks:
        if click["user_id"]:
            users[click["user_id"]].append(click)
    online = [p for p in payments if p["channel"] == "online" and not labels[p["tx_id"]]["fraud"]][:8_000]
    recent = [[c for c in users[p["user_id"]] if p["ts"] - hour < c["ts"] <= p["ts"]] for p in online]
    assert np.mean([any(c["event"] == "checkout" for c in some) for some in recent]) > 0.4
    resets = np.mean([any(c["event"] == "password_reset" for c in some) for some in recent])
    takeovers = sum(label["scenario"] == "account_takeover" for label in labels.values()) / len(payments)
    assert resets > takeovers / 3


def test_human_gaps_are_heavy_tailed_and_some_people_are_very_fast(week, clicks):
    kind = {label["visitor_id"]: label["kind"] for label in records(week, "visitor_labels")}
    medians = []
    spread = []
    for visitor, session in by_visitor(clicks).items():
        if kind[visitor] == "human" and len(session) >= 8:
            gaps = np.diff([c["ts"] for c in session]) / 1_000
            gaps = gaps[gaps < 1_800]
            medians.append(np.median(gaps))
            spread.append(np.std(np.log(np.maximum(gaps, 0.05))))
    assert np.quantile(medians, 0.02) < 2.0 < 5.0 < np.median(medians) < 15.0
    assert np.median(spread) > 0.6


def bot_sessions(level):
    config = SimulationConfig(
        seed=5,
        duration="2d",
        cards=2_000,
        payments_per_day=3_000,
        sessions_per_day=2_000,
        bots_per_day=60,
        bot_difficulty=level,
    )
    simulation = Simulation(config)
    kinds = {label["visitor_id"]: label for label in records(simulation, "visitor_labels")}
    sessions = by_visitor(records(simulation, "clicks"))
    bots = {v: s for v, s in sessions.items() if kinds[v]["bot"] and len(s) >= 20}
    people = [s for v, s in sessions.items() if kinds[v]["kind"] == "human"]
    assert len(bots) > 40
    assert {kinds[v]["level"] for v in bots} == {level}
    scrapers = [s for v, s in bots.items() if kinds[v]["kind"] == "scraper"]
    return scrapers, [s for v, s in bots.items() if kinds[v]["kind"] == "credential_stuffing"], people


def gap_variation(session):
    gaps = np.diff([c["ts"] for c in session])
    return float(np.std(gaps) / np.mean(gaps))


def unique_paths(session):
    return len({c["url"] for c in session}) / len(session)


def test_a_plain_script_has_fixed_gaps_and_walks_the_catalogue():
    scrapers, stuffers, _ = bot_sessions(0)
    assert all(gap_variation(s) < 0.01 for s in scrapers + stuffers)
    assert all(unique_paths(s) > 0.95 for s in scrapers)
    assert all(len({c["user_agent"] for c in s}) == 1 for s in scrapers + stuffers)
    assert all(np.mean([c["event"] == "login_failed" for c in s]) > 0.9 for s in stuffers)
    assert all(len({c["ip"] for c in s}) == 1 for s in stuffers)


def test_a_jittered_bot_has_gaps_within_its_jitter():
    scrapers, stuffers, _ = bot_sessions(1)
    assert all(0.2 < gap_variation(s) < 0.55 for s in scrapers + stuffers)
    assert all(len({c["ip"] for c in s}) > 1 for s in stuffers)


def test_a_replaying_bot_has_the_gaps_and_paths_of_people():
    scrapers, stuffers, people = bot_sessions(2)
    human = np.median([gap_variation(s) for s in people if len(s) >= 8])
    assert np.median([gap_variation(s) for s in scrapers + stuffers]) > 0.6 * human
    assert np.median([unique_paths(s) for s in scrapers]) < 0.95
    assert all(len({c["ip"] for c in s}) > 5 for s in stuffers)
    assert all(any(c["event"] == "view" for c in s) for s in stuffers)
    # Its gaps are somebody's: many a stretch of four recurs, within the noise, among the people of the simulation.
    known = [np.diff([c["ts"] for c in s]) for s in people if len(s) >= 6]
    stretches = np.concatenate([np.lib.stride_tricks.sliding_window_view(gaps, 4) for gaps in known if len(gaps) >= 4])
    own = np.diff([c["ts"] for c in scrapers[0]])[:40]
    hits = 0
    for window in np.lib.stride_tricks.sliding_window_view(own, 4):
        hits += bool((np.abs(stretches / np.maximum(window, 1) - 1).max(axis=1) < 0.15).any())
    assert hits > 10


def test_difficulty_between_levels_mixes_them():
    config = SimulationConfig(duration="2d", payments_per_day=1_000, bots_per_day=100, bot_difficulty=0.5)
    levels = Counter(label["level"] for label in records(Simulation(config), "visitor_labels") if label["bot"])
    assert set(levels) == {0, 1}
    assert 0.5 < levels[0] / levels[1] < 2.0


@pytest.mark.parametrize("difficulty", [0.0, 2.0])
def test_bots_without_people_do_not_break(difficulty):
    config = SimulationConfig(
        duration="6h", payments_per_day=0, sessions_per_day=0, bots_per_day=50, bot_difficulty=difficulty
    )
    clicks = records(Simulation(config), "clicks")
    assert bool(clicks) == (difficulty == 0.0)  # nobody to replay
