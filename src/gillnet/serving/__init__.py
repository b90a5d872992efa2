"""Serving: model versions, their registry, the scorers and the reason codes.

Its place in the flow: features → **score** → decide. It knows nothing of streams, windows or policies; features come
in as columns of a batch. XGBoost is loaded by the first model, not by this import.
"""

from gillnet.serving.model import Model, check_signature, load_model, save_model
from gillnet.serving.reasons import Reason, explain, explain_matrix
from gillnet.serving.registry import ModelRegistry
from gillnet.serving.scorers import KernelScorer, Scorer, XGBoostScorer, choose_scorer, feature_matrix

__all__ = [
    "KernelScorer",
    "Model",
    "ModelRegistry",
    "Reason",
    "Scorer",
    "XGBoostScorer",
    "check_signature",
    "choose_scorer",
    "explain",
    "explain_matrix",
    "feature_matrix",
    "load_model",
    "save_model",
]
