from __future__ import annotations

import re
from collections import Counter, defaultdict

import msgspec
import numpy as np
import pytest
from simulated import records

from gillnet.core.errors import DefinitionError
from gillnet.simulator import LABEL_SCHEMA, PAYMENT_SCHEMA, PaymentLabel, Simulation, SimulationConfig

DAY_MS = 86_400_000


def small(**options) -> SimulationConfig:
    return SimulationConfig(
        **{
            "duration": "1d",
            "cards": 500,
            "merchants": 100,
            "payments_per_day": 4_000,
            "sessions_per_day": 300,
            **options,
        }
    )


@pytest.mark.parametrize("stream", ["payments", "clicks", "labels", "visitor_labels"])
def test_the_same_seed_gives_the_same_bytes_in_any_chunk_size(stream):
    faults = {
        "late_share": 0.05,
        "duplicate_share": 0.03,
        "malformed_share": 0.03,
        "disorder_s": 5.0,
        "bot_difficulty": 2.0,
    }
    config = small(duration="2d", drift_at="1d", **faults)
    runs = []
    for chunk_records in (1, 777, 1_000_000):
        chunks = list(Simulation(config).stream(stream, chunk_records=chunk_records))
        assert all(len(chunk) <= chunk_records for chunk in chunks)
        runs.append(
            (
                [value for chunk in chunks for value in chunk.values],
                [key for chunk in chunks for key in chunk.keys],
                np.concatenate([chunk.arrival_time_us for chunk in chunks]).tolist(),
            )
        )
    assert runs[0] == runs[1] == runs[2]
    assert len(runs[0][0]) > 100


def test_another_seed_gives_other_bytes():
    first, second = (next(Simulation(small(seed=seed)).payments()).values for seed in (1, 2))
    assert first != second


def test_a_stream_can_be_read_again_and_beside_another():
    simulation = Simulation(small())
    alone = [chunk.values for chunk in simulation.payments()]
    beside = [chunk.values for chunk, _ in zip(simulation.payments(), simulation.clicks(), strict=False)]
    assert alone[: len(beside)] == beside


def test_payments_are_valid_unique_and_in_order(week, payments):
    start_ms, end_ms = week.config.start_us // 1_000, week.config.end_us // 1_000
    assert [p["tx_id"] for p in payments] == [f"t{i:012d}" for i in range(len(payments))]
    assert [p["ts"] for p in payments] == sorted(p["ts"] for p in payments)
    assert all(start_ms <= p["ts"] < end_ms for p in payments)
    assert all(list(p) == list(PAYMENT_SCHEMA) for p in payments)
    assert {p["channel"] for p in payments} == {"online", "pos", "atm"}
    assert {p["status"] for p in payments} == {"approved", "declined"}
    assert all(0.5 <= p["amount"] < 1_000_000 for p in payments)
    assert all(len(p["country"]) == len(p["billing_country"]) == 2 and len(p["currency"]) == 3 for p in payments)
    assert all(p["card_present"] == (p["channel"] != "online") for p in payments)
    ids = ("tx_id", "card_id", "user_id", "merchant_id")
    assert all(len(p[field]) <= 15 for p in payments for field in ids)
    assert all(max(map(int, p["ip"].split("."))) < 256 and p["ip"].count(".") == 3 for p in payments)


def test_amounts_have_two_decimals_and_keys_are_the_cards(week):
    for chunk in week.payments():
        for value, key in zip(chunk.values, chunk.keys, strict=True):
            assert re.search(rb'"amount":(0|[1-9]\d*)\.\d\d,', value)
            assert b'"card_id":"' + key + b'"' in value
        break


def test_references_hold(payments):
    for many, one in (
        ("card_id", "user_id"),
        ("card_id", "billing_country"),
        ("merchant_id", "mcc"),
        ("merchant_id", "currency"),
    ):
        partners = defaultdict(set)
        for p in payments:
            partners[p[many]].add(p[one])
        assert max(map(len, partners.values())) == 1, (many, one)
    assert len({p["card_id"] for p in payments}) > 3_000


def test_volume_is_what_was_asked_for(week, payments):
    # Monday to Saturday: the weekdays' factors are 0.93 to 1.18 and average 1.027.
    assert len(payments) == pytest.approx(60_000 * 1.027, rel=0.06)
    by_hour = Counter(p["ts"] // 3_600_000 % 24 for p in payments if p["billing_country"] in ("GB", "DE", "FR"))
    assert by_hour[17] > 4 * by_hour[3]
    merchants = Counter(p["merchant_id"] for p in payments)
    top = sum(count for _, count in merchants.most_common(40))
    assert 0.3 < top / len(payments) < 0.9  # a tenth of the merchants


@pytest.mark.parametrize(("rate", "difficulty"), [(0.02, 0.0), (0.02, 1.0), (0.007, 0.5)])
def test_the_fraud_rate_is_what_was_asked_for(rate, difficulty):
    config = SimulationConfig(
        duration="20d", cards=4_000, payments_per_day=10_000, fraud_rate=rate, difficulty=difficulty
    )
    fraud = [label["fraud"] for label in records(Simulation(config), "labels")]
    assert np.mean(fraud) == pytest.approx(rate, rel=0.3)


def test_no_fraud_when_none_is_asked_for():
    labels = records(Simulation(small(fraud_rate=0.0)), "labels")
    assert {label["scenario"] for label in labels} == {"legitimate"}


def test_every_scenario_shows_and_behaves_as_it_is_told(payments, labels):
    by_scenario = defaultdict(list)
    for p in payments:
        by_scenario[labels[p["tx_id"]]["scenario"]].append(p)
    honest = by_scenario.pop("legitimate")
    assert set(by_scenario) == {
        "card_testing",
        "account_takeover",
        "stolen_card_spree",
        "merchant_collusion",
        "quiet_fraud",
    }
    declined = {name: np.mean([p["status"] == "declined" for p in rows]) for name, rows in by_scenario.items()}
    median = {name: np.median([p["amount"] for p in rows]) for name, rows in by_scenario.items()}
    usual = np.median([p["amount"] for p in honest])
    assert declined["card_testing"] > 0.2 > np.mean([p["status"] == "declined" for p in honest]) > 0.02
    assert median["card_testing"] < usual < min(median["account_takeover"], median["stolen_card_spree"])
    round_share = np.mean([p["amount"] % 25 == 0 for p in by_scenario["merchant_collusion"]])
    assert round_share > 3 * np.mean([p["amount"] % 25 == 0 for p in honest])


def test_honest_customers_do_suspicious_things_too(payments, labels):
    honest = [p for p in payments if not labels[p["tx_id"]]["fraud"]]
    assert 0.02 < np.mean([p["country"] != p["billing_country"] for p in honest]) < 0.3
    amounts = [p["amount"] for p in honest]
    assert np.quantile(amounts, 0.995) > 10 * np.median(amounts)
    last: dict[str, dict] = {}
    bursts = new_devices = with_device = 0
    seen = defaultdict(set)
    for p in honest:
        before = last.get(p["card_id"])
        bursts += before is not None and p["ts"] - before["ts"] < 120_000
        last[p["card_id"]] = p
        if p["device_id"] and seen[p["user_id"]]:
            with_device += 1
            new_devices += p["device_id"] not in seen[p["user_id"]]
        if p["device_id"]:
            seen[p["user_id"]].add(p["device_id"])
    assert bursts > 0.05 * len(honest)
    assert 0.01 < new_devices / with_device < 0.4


def test_labels_cover_all_payments_and_come_when_they_become_known(week, payments):
    rows = records(week, "labels")
    ts = {p["tx_id"]: p["ts"] for p in payments}
    assert len(rows) == len(payments)
    assert {row["tx_id"] for row in rows} == set(ts)
    assert [row["known_at"] for row in rows] == sorted(row["known_at"] for row in rows)
    assert all(list(row) == list(LABEL_SCHEMA) for row in rows)
    legitimate = {row["known_at"] - ts[row["tx_id"]] for row in rows if not row["fraud"]}
    assert legitimate == {30 * DAY_MS}
    delays = (
        np.array([row["known_at"] - ts[row["tx_id"]] for row in rows if row["scenario"] == "stolen_card_spree"])
        / DAY_MS
    )
    assert np.median(delays) == pytest.approx(5.0, rel=0.3)
    assert delays.min() < 2 < 14 < delays.max()


def test_blocked_payments_get_no_label_even_if_blocked_while_labels_flow(payments, week):
    blocked: set[str] = {payments[3]["tx_id"]}
    got = set()
    for chunk in Simulation(week.config, blocked=blocked).labels(chunk_records=500):
        got |= {msgspec.json.decode(value, type=PaymentLabel).tx_id for value in chunk.values}
        if len(got) > 20_000 and len(blocked) == 1:
            blocked |= {p["tx_id"] for p in payments} - got
    assert payments[3]["tx_id"] not in got
    assert 20_000 < len(got) <= 20_500


def test_drift_changes_mix_and_amounts():
    config = SimulationConfig(duration="20d", cards=4_000, payments_per_day=10_000, fraud_rate=0.05, drift_at="10d")
    simulation = Simulation(config)
    scenario = {row["tx_id"]: row["scenario"] for row in records(simulation, "labels")}
    drift_ms = config.drift_start_us // 1_000
    before, after = Counter(), Counter()
    amounts: tuple[list, list] = ([], [])
    for p in records(simulation, "payments"):
        kind = scenario[p["tx_id"]]
        (after if p["ts"] >= drift_ms else before)[kind] += 1
        if kind == "legitimate":
            amounts[p["ts"] >= drift_ms].append(p["amount"])

    def share(counts, kind):
        return counts[kind] / (counts.total() - counts["legitimate"])

    assert share(after, "card_testing") < 0.8 * share(before, "card_testing")
    assert share(after, "account_takeover") > 1.2 * share(before, "account_takeover")
    assert np.median(amounts[1]) > 1.1 * np.median(amounts[0])


@pytest.mark.parametrize(
    "wrong",
    [
        {"cards": 3},
        {"merchants": 10},
        {"fraud_rate": 0.9},
        {"fraud_rate": float("nan")},
        {"late_share": -0.1},
        {"bot_difficulty": 3},
        {"disorder_s": 1e9},
        {"duration": "0s"},
        {"duration": "soon"},
        {"drift_at": "later"},
        {"start_us": 5},
        {"start_us": 1_767_571_200_000_001},
        {"seed": True},
        {"payments_per_day": 1.5},
    ],
)
def test_a_wrong_configuration_names_its_field(wrong):
    with pytest.raises(DefinitionError, match=next(iter(wrong))):
        SimulationConfig(**wrong)
