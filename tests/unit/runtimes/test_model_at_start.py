"""A model that is missing, broken or does not fit stops ``gillnet run`` before the first record, in one paragraph."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xgboost as xgb
from typer.testing import CliRunner

from gillnet.cli.main import app
from gillnet.serving import ModelRegistry

from .driving import payment

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import gillnet as gn

Payment = gn.Schema(id=gn.String(), ts=gn.Timestamp("ms"), card=gn.String(), amount=gn.Decimal(2, minimum=0))
payments = gn.Stream("payments", schema=Payment, id="id", event_time="ts")
card = payments.by("card")
pipeline = gn.Pipeline(
    gn.Features(payments, spend_5m=card.sum("amount", over="5m"), payments_5m=card.count(over="5m"), paid=gn.col("card")),
    model="mine@1",
    policy=[gn.block(gn.col("score") > 0.9)],
)
"""

FITTING = [("spend_5m", "decimal(2)"), ("payments_5m", "int64")]


def publish(directory: Path, signature: list[tuple[str, str]]) -> Path:
    rows = np.random.default_rng(2).random((64, len(signature)))
    data = xgb.DMatrix(rows, rows[:, 0] > 0.5, feature_names=[name for name, _ in signature])
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1}, data, 2)
    ModelRegistry(directory).publish(booster, "mine", signature=signature)
    return directory / "mine" / "1" / "model.ubj"


def run(directory: Path) -> tuple[int, str, Path]:
    """Exit code, what was said (as one line), and the place of the decisions."""
    (directory / "app.py").write_text(APP)
    (directory / "payments.ndjson").write_bytes(payment(0, risk=...) + b"\n")
    out = directory / "decisions.ndjson"
    arguments = ["run", str(directory / "app.py"), "--plain", "--models", str(directory / "models")]
    arguments += ["--source", f"payments={directory / 'payments.ndjson'}", "--sink", f"decisions={out}"]
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, " ".join(done.stderr.split()), out


def test_a_model_that_fits_runs(tmp_path: Path) -> None:
    publish(tmp_path / "models", FITTING)
    code, _, out = run(tmp_path)
    assert code == 0
    assert json.loads(out.read_bytes())["model"] == "mine@1"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (None, ["no model 'mine@1'", "Known models"]),
        (b"", ["broken"]),
        (b"not a model", ["broken"]),
        (lambda whole: whole[: len(whole) // 2], ["broken"]),
        (lambda whole: whole[:-1], ["broken"]),
    ],
    ids=["missing", "empty", "something else", "half", "last byte"],
)
def test_a_model_file_that_is_missing_or_broken_stops_the_start(
    tmp_path: Path, broken: object, words: list[str]
) -> None:
    path = publish(tmp_path / "models", FITTING)
    if broken is None:
        path.unlink()
    else:
        path.write_bytes(broken(path.read_bytes()) if callable(broken) else broken)
    assert_refused(tmp_path, [*words, *([] if broken is None else [str(path)])])


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        ([*FITTING, ("merchants_1d", "int64")], ["'merchants_1d', which the pipeline does not have"]),
        ([("spend_5min", "decimal(2)"), FITTING[1]], ["'spend_5min'", "did you mean to rename 'spend_5m'"]),
        ([FITTING[0], ("payments_5m", "float64")], ["'payments_5m' as float64, but the pipeline's is int64"]),
        ([*FITTING, ("paid", "int64")], ["'paid' as int64, but the pipeline's is string"]),
    ],
    ids=["missing", "renamed", "another number", "no number"],
)
def test_a_model_of_another_signature_stops_the_start(
    tmp_path: Path, signature: list[tuple[str, str]], words: list[str]
) -> None:
    publish(tmp_path / "models", signature)
    assert_refused(tmp_path, words)


@pytest.mark.parametrize("suffix", ["ubj", "json"])
def test_a_model_that_gives_several_numbers_a_row_stops_the_start(tmp_path: Path, suffix: str) -> None:
    rows = np.random.default_rng(2).random((64, len(FITTING)))
    data = xgb.DMatrix(rows, (rows[:, 0] * 3).astype(int), feature_names=[name for name, _ in FITTING])
    booster = xgb.train({"objective": "multi:softprob", "num_class": 3, "nthread": 1}, data, 2)
    path = publish(tmp_path / "models", FITTING)
    path.unlink()
    path = path.with_suffix(f".{suffix}")
    booster.save_model(path)
    assert_refused(tmp_path, [str(path), "objective multi:softprob", "3 outputs a row", "such as binary:logistic"])


def assert_refused(directory: Path, words: list[str]) -> None:
    code, said, out = run(directory)
    assert code == 1
    assert said.startswith("error: ")
    assert said.count("error: ") == 1
    assert "Traceback" not in said
    for word in words:
        assert word in said
    assert not out.exists()
