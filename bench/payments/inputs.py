"""What a run needs before its first contender starts: the model and the oracle's scores, kept between runs."""

from __future__ import annotations

import hashlib
from dataclasses import astuple
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.payments import oracle
from bench.payments.train import train
from bench.payments.workload import Workload, encode, generate

if TYPE_CHECKING:
    from bench.payments.oracle import FloatArray

LOCAL = Path("bench/results/local")
MODEL = LOCAL / "payments-model.ubj"


def ensure_model() -> Path:
    """Return the model's path; train it if it is not there."""
    if not MODEL.exists():
        train(MODEL)
    return MODEL


def expected_scores(workload: Workload, model: Path) -> FloatArray:
    """Return the oracle's score of every payment, computed once per workload and model."""
    identity = f"{astuple(workload)} {hashlib.sha256(model.read_bytes()).hexdigest()}"
    kept = LOCAL / f"oracle-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.npy"
    if kept.exists():
        scores: FloatArray = np.load(kept)
        return scores
    values = chain.from_iterable(encode(chunk)[1] for chunk in generate(workload))
    scores = oracle.score(oracle.feature_matrix(values), model)
    np.save(kept, scores)
    return scores
