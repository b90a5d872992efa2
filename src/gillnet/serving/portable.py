"""A model for hosts without Python: as the kernel evaluates it, or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gillnet.core.errors import ModelError
from gillnet.operators.program import PortableModel
from gillnet.serving import boosters
from gillnet.serving.scorers import KernelScorer

if TYPE_CHECKING:
    from gillnet.serving.scorers import Scorer


def portable_model(scorer: Scorer) -> PortableModel:
    """Return a scorer's model for a host without Python.

    Raises
    ------
    ModelError
        If the kernel does not give XGBoost's very scores for it, or cannot explain them: such a host has no XGBoost to fall back to.
    """
    model = scorer.model
    if not isinstance(scorer, KernelScorer):
        raise ModelError(
            f"The model {model.label} is scored by {scorer.kind}, which Flink's and Spark's hosts do not have: they have the kernel alone. "
            "Run it embedded, or train it with trees that the kernel evaluates (see the log line scorer.fallback)."
        )
    if not scorer.explains(np.zeros((1, len(model.signature)), np.float32)):
        raise ModelError(
            f"The model {model.label} splits on more than 32 features along one path, so the kernel cannot explain its scores. "
            "Run it embedded, or train it with a smaller depth."
        )
    return PortableModel(
        label=model.label,
        signature=model.signature,
        reference=model.reference,
        rounds=model.rounds,
        trees=boosters.booster_json(model.booster).decode(),
    )
