from __future__ import annotations

import numpy as np
import pytest
import xgboost as xgb

from gillnet.core.errors import ModelError
from gillnet.serving import KernelScorer, check_signature, load_model, save_model

from .conftest import REFERENCE, SIGNATURE, train


def refusal(function, *args, **kwargs) -> str:
    with pytest.raises(ModelError) as caught:
        function(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_a_saved_model_comes_back_with_what_was_said_about_it(model, model_path):
    assert model.signature == tuple(SIGNATURE)
    assert model.metadata == {"average_precision": 0.61}
    assert model.reference == REFERENCE
    assert (model.name, model.version, model.label, model.path) == ("fraud", None, "fraud", model_path)
    assert model.objective == "binary:logistic"
    assert model.rounds is None


def test_saving_leaves_the_trained_booster_as_it_was(booster, model_path):
    assert booster.attributes() == {}


def test_ubj_and_json_files_give_the_same_bits(booster, rows, tmp_path):
    scores = []
    for suffix in ("ubj", "json"):
        path = tmp_path / f"m.{suffix}"
        save_model(booster, path, signature=SIGNATURE)
        scores.append(KernelScorer(load_model(path)).predict(rows))
    np.testing.assert_array_equal(scores[0].view(np.uint32), scores[1].view(np.uint32))
    np.testing.assert_array_equal(scores[0].view(np.uint32), booster.inplace_predict(rows).view(np.uint32))


def test_a_model_of_xgboost_itself_fits_any_numbers_of_the_right_names(booster, tmp_path):
    path = tmp_path / "plain.json"
    booster.save_model(path)
    model = load_model(path)
    assert model.signature == tuple((name, "number") for name, _ in SIGNATURE)
    check_signature(model, SIGNATURE)
    assert "'burst' as a number, but the pipeline's is string" in refusal(
        check_signature, model, [*SIGNATURE[:2], ("burst", "string"), SIGNATURE[3]]
    )


def test_an_early_stopped_model_scores_with_its_best_round(rows, tmp_path):
    rng = np.random.default_rng(3)
    names = [name for name, _ in SIGNATURE]
    label = rng.integers(0, 2, len(rows))
    train_set = xgb.DMatrix(rows[:200], label[:200], feature_names=names)
    valid = xgb.DMatrix(rows[200:], label[200:], feature_names=names)
    params = {"objective": "binary:logistic", "nthread": 1}
    booster = xgb.train(params, train_set, 40, evals=[(valid, "v")], early_stopping_rounds=2, verbose_eval=False)
    save_model(booster, tmp_path / "m.ubj", signature=SIGNATURE)
    model = load_model(tmp_path / "m.ubj")
    assert model.rounds == booster.best_iteration + 1 < booster.num_boosted_rounds()


def test_files_that_are_missing_or_broken_are_refused(model_path, tmp_path):
    assert str(tmp_path / "none.ubj") in refusal(load_model, tmp_path / "none.ubj")
    assert "does not exist" in refusal(load_model, tmp_path / "none.ubj")
    assert ".ubj or .json" in refusal(load_model, tmp_path / "m.pkl")
    whole = model_path.read_bytes()
    for broken in (b"", b"not a model", whole[: len(whole) // 2], whole[:40]):
        model_path.write_bytes(broken)
        text = refusal(load_model, model_path)
        assert str(model_path) in text
        assert "broken" in text
        assert "Stack trace" not in text


def test_broken_json_files_are_refused(booster, tmp_path):
    path = tmp_path / "m.json"
    booster.save_model(path)
    whole = path.read_bytes()
    for broken in (b"", b"{}", b'{"learner": {}}', whole[: len(whole) // 2]):
        path.write_bytes(broken)
        assert str(path) in refusal(load_model, path)


def test_a_signature_attribute_that_was_tampered_with_is_refused(booster, tmp_path):
    for text, message in [
        ("[[1", "gillnet.signature"),
        ('[["a", "int64"]]', "names other features"),
        ("7", "gillnet.signature"),
    ]:
        copy = booster.copy()
        copy.set_attr(**{"gillnet.signature": text})
        copy.save_model(tmp_path / "m.ubj")
        assert message in refusal(load_model, tmp_path / "m.ubj")


def test_a_model_without_feature_names_is_refused(rows, tmp_path):
    booster = xgb.train({"objective": "binary:logistic"}, xgb.DMatrix(rows, rows[:, 1] > 1), 2)
    booster.save_model(tmp_path / "m.ubj")
    assert "carries no feature names" in refusal(load_model, tmp_path / "m.ubj")


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        (SIGNATURE[:3], "has 3 features, the booster 4"),
        ([SIGNATURE[1], SIGNATURE[0], *SIGNATURE[2:]], "trained with 'spend_5m' where the signature has 'payments_1h'"),
        ([*SIGNATURE[:3], ("took_over", "string")], "'took_over' (string)"),
        ([*SIGNATURE[:3], SIGNATURE[0]], "twice"),
    ],
)
def test_a_signature_that_does_not_fit_the_booster_is_not_saved(booster, tmp_path, signature, message):
    assert message in refusal(save_model, booster, tmp_path / "m.ubj", signature=signature)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said(booster, tmp_path):
    path = tmp_path / "m.ubj"
    assert "JSON" in refusal(save_model, booster, path, signature=SIGNATURE, metadata={"x": object()})
    assert "JSON" in refusal(save_model, booster, path, signature=SIGNATURE, reference={"burst": float("nan")})
    assert "'spend_9m'" in refusal(save_model, booster, path, signature=SIGNATURE, reference={"spend_9m": 1.0})
    assert "cannot be written" in refusal(save_model, booster, tmp_path / "no" / "m.ubj", signature=SIGNATURE)
    assert ".ubj or .json" in refusal(save_model, booster, tmp_path / "m.bin", signature=SIGNATURE)


def test_the_pipelines_own_features_pass_in_any_order_and_with_more_beside_them(model):
    check_signature(model, [("more", "string"), *reversed(SIGNATURE)])
    check_signature(model, [("spend_5m", "decimal(4)"), *SIGNATURE[1:]])


def test_every_misfit_is_named_at_once(model):
    text = refusal(
        check_signature, model, [("spend_5min", "decimal(2)"), ("payments_1h", "float64"), ("took_over", "bool")]
    )
    assert "'spend_5m', which the pipeline does not have (did you mean to rename 'spend_5min'?)" in text
    assert "'payments_1h' as int64, but the pipeline's is float64" in text
    assert "'burst', which the pipeline does not have" in text
    assert "'took_over'" not in text
    assert str(model.path) in text


def test_objective_is_read_for_models_that_the_kernel_does_not_know(rows, tmp_path):
    path = tmp_path / "m.ubj"
    save_model(train(rows, "binary:logitraw"), path, signature=SIGNATURE)
    assert load_model(path).objective == "binary:logitraw"
