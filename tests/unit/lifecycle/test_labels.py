"""I6: a label counts only from the time at which it became known; until then its payment is pending, not good."""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from gillnet.core.errors import DefinitionError
from gillnet.core.time import DAY, MILLISECOND
from gillnet.lifecycle.labels import PENDING, mature, outcomes_as_known, read_labels
from gillnet.simulator import LABEL_SCHEMA, PaymentLabel, Simulation, SimulationConfig

NOW_MS = 1_767_571_200_000


def label(tx_id: str, known_ms: int, *, fraud: bool = False) -> bytes:
    kind = "quiet_fraud" if fraud else "legitimate"
    return msgspec.json.encode(PaymentLabel(tx_id=tx_id, fraud=fraud, scenario=kind, known_at=NOW_MS + known_ms))


def test_i6_a_label_counts_from_the_instant_at_which_it_became_known():
    labels = read_labels([[label("a", 0, fraud=True)], [label("b", 0), label("c", 1, fraud=True)]], LABEL_SCHEMA)
    ids = pa.array(["c", "b", "a", "never"])
    just_before, now, later = ((NOW_MS + ms) * MILLISECOND for ms in (-1, 0, 1))
    assert outcomes_as_known(ids, labels, just_before).tolist() == [PENDING] * 4
    assert outcomes_as_known(ids, labels, now).tolist() == [PENDING, 0, 1, PENDING]
    assert outcomes_as_known(ids, labels, later).tolist() == [1, 0, 1, PENDING]


def test_where_an_id_is_labelled_twice_the_first_label_counts():
    labels = read_labels([[label("b", 0), label("a", 0), label("b", 5, fraud=True)]], LABEL_SCHEMA)
    assert len(labels) == 2
    assert outcomes_as_known(pa.array(["a", "b"]), labels, (NOW_MS + 9) * MILLISECOND).tolist() == [0, 0]


def test_i6_events_that_are_too_young_to_be_known_as_legitimate_are_not_mature():
    times = np.array([0, DAY, 2 * DAY, 3 * DAY])
    assert mature(times, at_us=32 * DAY, maturity_us=30 * DAY).tolist() == [True, True, True, False]


def test_i6_mature_rows_keep_the_true_share_of_fraud_and_young_ones_do_not():
    config = SimulationConfig(seed=4, duration="40d", cards=500, merchants=64, payments_per_day=1_000, fraud_rate=0.05)
    simulation = Simulation(config)
    labels = read_labels((chunk.values for chunk in simulation.labels()), LABEL_SCHEMA)
    chunks = list(simulation.payments())
    ids = pa.array([msgspec.json.decode(value)["tx_id"] for chunk in chunks for value in chunk.values])
    times = np.concatenate([chunk.event_time_us for chunk in chunks])
    cut_off_us = config.end_us
    outcomes = outcomes_as_known(ids, labels, cut_off_us)
    old = mature(times, at_us=cut_off_us, maturity_us=30 * DAY)
    truth = labels.positive[labels.places(ids)]
    known_old, known_young = old & (outcomes != PENDING), ~old & (outcomes != PENDING)
    assert outcomes[known_old].mean() == pytest.approx(truth[old].mean(), rel=0.05)
    assert outcomes[known_young].mean() == 1.0  # Of young payments only fraud is known: to train on them is to cheat.


def test_a_malformed_label_is_an_error_and_not_left_out():
    with pytest.raises(DefinitionError, match="malformed"):
        read_labels([[label("a", 0), b'{"tx_id":"b","fraud":"yes"}']], LABEL_SCHEMA)
    with pytest.raises(DefinitionError, match="no label"):
        read_labels([], LABEL_SCHEMA)
