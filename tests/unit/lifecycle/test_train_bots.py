"""The fit of the sequential score: small, but through every step of it."""

from __future__ import annotations

import numpy as np
import pytest

from gillnet.api.pipeline import Pipeline
from gillnet.lifecycle.bot_prefixes import Prefixes, prefixes
from gillnet.lifecycle.train_bots import BINS, fit, measure, threshold_at, total
from gillnet.scenarios.bots import EVIDENCE_FILE, bot_sessions, bots_pipeline, load_score
from gillnet.simulator import Simulation, SimulationConfig


def simulated(seed: int, level: int) -> Simulation:
    return Simulation(
        SimulationConfig(
            seed=seed + level,
            duration="12h",
            bot_difficulty=level,
            payments_per_day=1_000,
            sessions_per_day=3_000,
            bots_per_day=200,
        )
    )


@pytest.fixture(scope="module")
def data() -> list[Prefixes]:
    plan = Pipeline(bot_sessions()).plan
    return [prefixes(simulated(41, level), plan) for level in (0, 1, 2)]


def test_prefixes_are_every_click_of_every_labelled_session(data: list[Prefixes]) -> None:
    for level, part in enumerate(data):
        longest = np.zeros(len(part.bot), dtype=np.int64)
        np.maximum.at(longest, part.session, part.clicks)
        assert (np.bincount(part.session) == longest).all()
        assert set(part.level[part.bot]) == {level}
        assert set(part.level[~part.bot]) == {-1}


def test_a_fit_finds_bots_it_has_not_seen(data: list[Prefixes]) -> None:
    score = fit(data)
    assert [term.name for term in score.terms] == list(BINS)
    plan = Pipeline(bot_sessions()).plan
    unseen = [prefixes(simulated(71, level), plan) for level in (0, 1, 2)]
    scores = [total(score, part) for part in unseen]
    figures = measure(unseen, scores, threshold_at(unseen, scores, 0.005))
    assert figures["false_alarms_per_1000"] <= 5.1
    assert figures["level 0 scraper"]["recall"] == 1.0
    assert figures["level 2 scraper"]["recall"] > 0.8


def test_a_fit_gives_the_same_weights_again(data: list[Prefixes]) -> None:
    first, again = fit(data), fit(data)
    assert first == again


def test_the_pipeline_computes_the_score_that_was_measured() -> None:
    """The row expressions and the arrays of the fit are one score: no skew between training and serving."""
    part = prefixes(simulated(53, 1), bots_pipeline().plan)
    np.testing.assert_allclose(
        part.features["sequential_score"], total(load_score(EVIDENCE_FILE), part), rtol=0, atol=1e-9
    )
