"""Scenario 1: bot sessions, flagged while they run.

Clicks → sessions by cookie → running activity → three kinds of flags → alerts; every session's last figures go to
``sessions`` when it closes. The kinds, each with reason codes of its own:

- *limits* that hold always (``limit_*``): more requests than a person can want;
- *baselines* (``baseline_*``): far from what the population itself has done lately, by robust streaming quantiles;
- the *sequential score* (``sequential_*``): evidence from pace, regularity, paths, failures and identities, added up
  as a log-likelihood ratio and held against Wald's thresholds. A fast person has a bot's rate; it is the sum that
  tells them apart, and mostly earlier.

``evidence_*`` codes are added to a flagged session's reasons and say what the score rests on. The weights are data
(``bots_evidence.json``), fitted by ``python -m gillnet.lifecycle.train_bots``.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from gillnet.api.aggregates import Aggregation
from gillnet.api.aggregates import functions as fn
from gillnet.api.expressions import Expr, col
from gillnet.api.features import Feature, Sessions, baseline
from gillnet.api.pipeline import Pipeline, Rule, block, review, step_up
from gillnet.api.stream import Stream
from gillnet.scenarios.sequential import SequentialScore, load_score, wald_threshold
from gillnet.simulator import CLICK_SCHEMA

SESSION_GAP, SESSION_MAX_LENGTH = "30m", "6h"
"""The longest session bounds the state: the clicks of so long, and of the allowed lateness, are kept."""

MIN_CLICKS = 3
"""Clicks before anything is flagged: a gap has nothing to be compared with before the third."""

BLOCK_FALSE_ALARMS, REVIEW_FALSE_ALARMS = 0.001, 0.01
"""The shares of human sessions that the sequential score may ever block, and bring to an analyst."""

NAMED_EVIDENCE = 1.0
"""Nats that a term must add to a suspected session's score to be among its reasons."""

EVIDENCE_FILE = Path(str(resources.files("gillnet.scenarios") / "bots_evidence.json"))

PRODUCTS_PER_SHELF = 100
_NUMBER_OF_PRODUCT = col("url").str.slice(len("/product/")).cast("int64")
_IS_PRODUCT = col("url").str.starts_with("/product/")


def clicks_stream() -> Stream:
    """Return the stream of requests to the site."""
    return Stream("clicks", schema=CLICK_SCHEMA, id="click_id", event_time="ts", allowed_lateness="1h")


def running_activity() -> dict[str, Aggregation]:
    """Return what is aggregated over an open session."""
    return {
        "clicks": fn.count(),
        "mean_gap_s": fn.mean_gap_seconds(),
        "std_gap_s": fn.std_gap_seconds(),
        "modal_gap_share": fn.modal_gap_share(),
        "unique_urls": fn.n_unique("url"),
        "url_entropy": fn.entropy("url"),
        "errors": fn.count(where=col("status_code") >= 400),
        "failed_logins": fn.count(where=col("event") == "login_failed"),
        "addresses": fn.n_unique("ip"),
        "agents": fn.n_unique("user_agent"),
        "accounts": fn.n_unique("user_id"),
        "searches": fn.count(where=col("event") == "search"),
        "unreferred": fn.count(where=col("referrer").is_null()),
        "scripted": fn.count(where=~col("user_agent").str.starts_with("Mozilla/")),
        "products": fn.n_unique("url", where=_IS_PRODUCT),
        "shelves": fn.n_unique(_NUMBER_OF_PRODUCT // PRODUCTS_PER_SHELF, where=_IS_PRODUCT),
        "lowest_product": fn.min(_NUMBER_OF_PRODUCT, where=_IS_PRODUCT),
        "highest_product": fn.max(_NUMBER_OF_PRODUCT, where=_IS_PRODUCT),
    }


def ratios() -> dict[str, Expr]:
    """Return what follows from the aggregates of the same row."""
    gaps, clicks = col("clicks") - 1, col("clicks").cast("float64")
    # Over a quarter of a minute at least: two quick clicks are no rate.
    minutes = (gaps * col("mean_gap_s") / 60).fill_null(0.0).clip(0.25)
    span = (col("highest_product") - col("lowest_product") + 1).cast("float64")
    return {
        "clicks_per_minute": gaps / minutes,
        "gap_variation": col("std_gap_s") / col("mean_gap_s"),
        "regular_gaps": gaps * col("modal_gap_share"),
        "steady_gaps": gaps * (1 - col("gap_variation")).clip(0.0),
        "unique_path_ratio": col("unique_urls") / clicks,
        "repeated_urls": col("clicks") - col("unique_urls"),
        "error_ratio": col("errors") / clicks,
        "failed_login_share": col("failed_logins") / clicks,
        "other_errors": col("errors") - col("failed_logins"),
        # Products, counted by how densely they fill the range of the catalogue that they span.
        "swept_products": col("products") * col("products") / span,
        # Products that share a shelf with another one: who wants the whole catalogue has many, however he shuffles it.
        "neighbour_products": col("products") - col("shelves"),
    }


def baselines() -> dict[str, Feature]:
    """Return where the row stands in the population of recently closed sessions.

    ``*_excess`` is the distance from the median in units of the distance from the median to the 90 % quantile: a robust
    z-score, which a tenth of the sessions being bots does not move.
    """
    features: dict[str, Feature] = {}
    for name, of in (("rate", "clicks_per_minute"), ("length", "clicks")):
        features[f"{name}_p50"] = baseline(of, quantile=0.5, over="24h", step="10m")
        features[f"{name}_p90"] = baseline(of, quantile=0.9, over="24h", step="10m")
        features[f"{name}_excess"] = (col(of) - col(f"{name}_p50")) / (col(f"{name}_p90") - col(f"{name}_p50"))
    return features


def bot_sessions(score: SequentialScore | None = None) -> Sessions:
    """Return the sessions with their features; with ``score``, its terms and ``sequential_score`` too."""
    features: dict[str, Feature | Aggregation] = {**running_activity(), **ratios(), **baselines()}
    if score is not None:
        features |= score.expressions()
        features["sequential_score"] = score.total()
    return Sessions(clicks_stream().by("visitor_id"), gap=SESSION_GAP, max_length=SESSION_MAX_LENGTH, **features)


def policy(score: SequentialScore) -> list[Rule]:
    """Return the rules: the first that matches decides, and each that matches gives its reason."""
    seen, llr = col("clicks") >= MIN_CLICKS, col("sequential_score")
    suspected = seen & (llr > wald_threshold(REVIEW_FALSE_ALARMS))
    return [
        block(seen & (llr > wald_threshold(BLOCK_FALSE_ALARMS)), reason="sequential_bot"),
        block((col("failed_logins") >= 12) & (col("failed_login_share") > 0.3), reason="limit_failed_logins"),
        step_up((col("clicks") >= 40) & (col("clicks_per_minute") > 90), reason="limit_rate"),
        step_up(col("clicks") >= 120, reason="limit_length"),
        review(suspected, reason="sequential_suspect"),
        review((col("clicks") >= 30) & (col("rate_excess") > 5), reason="baseline_rate"),
        review(col("length_excess") > 5, reason="baseline_length"),
        # These match only where a rule above does, and so decide nothing: they say what the score rests on.
        *(review(suspected & (col(term.name) > NAMED_EVIDENCE), reason=term.name) for term in score.terms),
    ]


def bots_pipeline(evidence: str | Path = EVIDENCE_FILE) -> Pipeline:
    """Return the whole scenario.

    Parameters
    ----------
    evidence
        The sequential score's weights.

    Raises
    ------
    DefinitionError
        If the weights cannot be read.
    """
    score = load_score(evidence)
    return Pipeline(bot_sessions(score), name="bots", policy=policy(score))


pipeline = bots_pipeline()
