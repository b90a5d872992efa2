"""The sequential score as row expressions: weights by bins, Wald's thresholds, and what is refused."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from gillnet.core.errors import DefinitionError
from gillnet.scenarios.bots import EVIDENCE_FILE
from gillnet.scenarios.sequential import EvidenceTerm, SequentialScore, load_score, wald_threshold
from gillnet.testing.oracle_expressions import evaluate_row

if TYPE_CHECKING:
    from pathlib import Path

TERM = EvidenceTerm(name="e", of="x", edges=(1.0, 2.5), weights=(-1.0, 0.5, 3.0), missing=0.25)


@pytest.mark.parametrize(
    ("value", "weight"),
    [
        (-7.0, -1.0),
        (0.999, -1.0),
        (1.0, 0.5),
        (2.499, 0.5),
        (2.5, 3.0),
        (math.inf, 3.0),
        (None, 0.25),
        (math.nan, 0.25),
    ],
)
def test_a_term_is_the_weight_of_the_bin_that_begins_at_its_edge(value: float | None, weight: float) -> None:
    assert evaluate_row(TERM.expression().node, {"x": value}, {"x": ("float64", True)}) == weight


def test_the_score_is_the_sum_of_its_terms() -> None:
    other = EvidenceTerm(name="f", of="x", edges=(0.0,), weights=(1.0, 2.0))
    score = SequentialScore(bias=-0.5, terms=(TERM, other))
    assert list(score.expressions()) == ["e", "f"]
    columns = {"e": ("float64", True), "f": ("float64", True)}
    assert evaluate_row(score.total().node, {"e": 3.0, "f": 2.0}, columns) == 4.5


def test_a_saved_score_reads_back(tmp_path: Path) -> None:
    score = SequentialScore(bias=-0.5, terms=(TERM,), provenance={"seed": 1})
    score.save(tmp_path / "score.json")
    assert load_score(tmp_path / "score.json") == score


def test_the_packaged_score_says_where_it_comes_from() -> None:
    provenance = load_score(EVIDENCE_FILE).provenance
    assert provenance["fitted_by"] == "python -m gillnet.lifecycle.train_bots"
    assert provenance["simulation"]["seed"] != provenance["simulation"]["validation_seed"]
    # Ville's inequality holds on sessions that were not fitted.
    for share in (0.001, 0.01):
        measured = provenance["validation"][f"sequential, Wald at {share}"]
        assert measured["false_alarms_per_1000"] <= 1_000 * share


def test_wald_threshold_is_the_log_of_one_over_alpha() -> None:
    assert wald_threshold(0.01) == pytest.approx(math.log(100))
    with pytest.raises(DefinitionError, match="share between 0 and 1"):
        wald_threshold(1.5)


@pytest.mark.parametrize(
    ("edges", "weights"),
    [((), (1.0,)), ((1.0, 1.0), (0.0, 0.0, 0.0)), ((1.0,), (0.0,)), ((1.0,), (0.0, math.nan))],
)
def test_a_term_that_makes_no_sense_is_refused(edges: tuple[float, ...], weights: tuple[float, ...]) -> None:
    with pytest.raises(DefinitionError, match="ascending edges and one weight more"):
        EvidenceTerm(name="e", of="x", edges=edges, weights=weights)


@pytest.mark.parametrize("text", ["", "{}", '{"bias": 0, "provenance": {}, "terms": [{"name": "e"}]}'])
def test_a_broken_file_is_a_readable_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "score.json").write_text(text)
    with pytest.raises(DefinitionError, match="fit it again"):
        load_score(tmp_path / "score.json")
    with pytest.raises(DefinitionError, match="cannot be read"):
        load_score(tmp_path / "missing.json")
