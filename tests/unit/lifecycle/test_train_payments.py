"""Training: the calendar holds labels back (I6), the same arguments give the same model, and the result can be loaded."""

from __future__ import annotations

import io

import pytest

from gillnet.lifecycle.train_payments import Calendar, Training, train, write
from gillnet.serving import ModelRegistry

SMALL = Training(
    seed=8,
    cards=400,
    merchants=64,
    payments_per_day=1_000,
    calendar=Calendar(train_end=12, cut_off=42, test=44, end=47),
)


@pytest.fixture(scope="module")
def trained():
    return train(SMALL, progress=io.StringIO())


def test_the_model_is_read_back_from_the_registry(trained, tmp_path):
    write(trained, tmp_path)
    model = ModelRegistry(tmp_path).load("fraud@champion")
    assert model.label == "fraud@1"
    assert model.signature == trained.signature
    assert set(model.reference) <= set(model.feature_names)
    assert dict(model.metadata) == trained.metadata


def test_the_same_arguments_give_the_same_bytes(trained, tmp_path):
    first, second = (
        write(result, tmp_path / name) for name, result in (("a", trained), ("b", train(SMALL, progress=io.StringIO())))
    )
    assert first.read_bytes() == second.read_bytes()
    assert (first.parent / "metrics.json").read_bytes() == (second.parent / "metrics.json").read_bytes()


def test_i6_labels_that_become_known_after_the_cut_off_are_pending(trained):
    used = trained.metadata["trained_on"]
    expected = 10 * SMALL.payments_per_day
    assert used["rows"] + used["pending"] == pytest.approx(expected, rel=0.1)
    assert used["fraud"] > 0
    # Some chargebacks take longer than the maturity; they must not have become legitimate rows.
    assert used["pending"] > 0


def test_i6_an_earlier_cut_off_leaves_fewer_rows():
    early = Training(
        seed=8,
        cards=400,
        merchants=64,
        payments_per_day=1_000,
        calendar=Calendar(train_end=12, cut_off=37, test=38, end=40),
    )
    used = train(early, progress=io.StringIO()).metadata["trained_on"]
    assert used["rows"] + used["pending"] == pytest.approx(5 * 1_000, rel=0.1)


def test_payments_alone_can_be_trained(tmp_path):
    write(train(SMALL, clicks=False, progress=io.StringIO()), tmp_path, name="fraud-payments-only")
    model = ModelRegistry(tmp_path).load("fraud-payments-only@champion")
    assert "failed_logins_1h" not in model.feature_names
