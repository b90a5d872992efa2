"""Model versions: an XGBoost booster together with the features that it was trained on.

The *signature* (ordered names and value types) lies inside the model file, as an attribute of the booster, so that a
model cannot be parted from it. A run checks it against the pipeline's features before the first record is read.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gillnet.core.errors import ModelError
from gillnet.serving import boosters

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Signature = tuple[tuple[str, str], ...]

NUMBER = "number"
"""The value type of a feature in a model that Gillnet did not save: any numeric feature fits it."""

_ATTRIBUTE = "gillnet.{}"
_NUMERIC = ("int64", "float64", "bool")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model version, read and ready to be scored.

    Attributes
    ----------
    name
        The model's name in the registry, or the file's stem.
    version
        Its number in the registry; None for a model read from a path.
    path
        The file that it was read from.
    signature
        (name, value type) of every feature, in the model's order.
    objective
        XGBoost's objective, such as ``binary:logistic``.
    metadata
        What the trainer wrote beside it: metrics, training period, code version.
    reference
        A typical value per feature, which reason codes call ``high`` or ``low`` against; may be empty.
    rounds
        Boosting rounds to score with: up to the best one if training stopped early; None for all.
    booster
        The XGBoost booster.
    """

    name: str
    version: int | None = None
    path: Path
    signature: Signature
    objective: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, float] = field(default_factory=dict)
    rounds: int | None = None
    booster: Any = field(repr=False, compare=False)

    @property
    def feature_names(self) -> list[str]:
        """The names of the features, in the model's order."""
        return [name for name, _ in self.signature]

    @property
    def label(self) -> str:
        """How messages and audit records name this version: ``fraud@3``, or the name alone."""
        return self.name if self.version is None else f"{self.name}@{self.version}"

    def named(self, name: str, version: int) -> Model:
        """Return this model under the name and version of a registry."""
        return replace(self, name=name, version=version)


def load_model(path: str | Path) -> Model:
    """Read an XGBoost model file (UBJ or JSON) with its signature.

    Parameters
    ----------
    path
        A file written by `save_model`, or by XGBoost itself with feature names.

    Raises
    ------
    ModelError
        If the file is missing, broken, without feature names, or of a model with categorical features.
    """
    path = Path(path)
    booster = boosters.read_booster(path)
    best = booster.attr("best_iteration")
    reference = _read_attribute(booster, "reference", path) or {}
    return Model(
        name=path.stem,
        path=path,
        signature=_read_signature(booster, path),
        objective=_read_objective(booster, path),
        metadata=MappingProxyType(_read_attribute(booster, "metadata", path) or {}),
        reference=MappingProxyType({name: float(value) for name, value in reference.items()}),
        rounds=None if best is None else int(best) + 1,
        booster=booster,
    )


def save_model(
    booster: Any,
    path: str | Path,
    *,
    signature: Sequence[tuple[str, str]],
    metadata: Mapping[str, Any] | None = None,
    reference: Mapping[str, float] | None = None,
) -> None:
    """Write a booster with its signature, at once: a reader sees the old file or the new one.

    Parameters
    ----------
    booster
        A trained ``xgboost.Booster``; it is not changed.
    path
        The file; ``.ubj`` or ``.json`` decides the format.
    signature
        (name, value type) of every feature in the order of the training matrix; value types are ``int64``,
        ``float64``, ``bool`` and ``decimal(scale)``.
    metadata
        Anything that JSON can hold.
    reference
        A typical value per feature, such as the training median, for reason codes.

    Raises
    ------
    ModelError
        If the signature does not fit the booster, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in boosters.SUFFIXES:
        raise ModelError(f"A model cannot be saved as {path}: the name must end in .ubj or .json.")
    _check_saved_signature(booster, signature, path)
    unknown = set(reference or {}) - {name for name, _ in signature}
    if unknown:
        raise ModelError(f"The reference of {path} names {_quoted(sorted(unknown))}, not in the signature.")
    try:
        attributes = {
            _ATTRIBUTE.format(key): json.dumps(value, allow_nan=False)
            for key, value in (
                ("signature", [list(pair) for pair in signature]),
                ("metadata", dict(metadata or {})),
                ("reference", dict(reference or {})),
            )
        }
    except (TypeError, ValueError) as error:
        raise ModelError(f"The metadata or reference of {path} cannot be written as JSON: {error}.") from error
    boosters.write_booster(booster, path, attributes, [name for name, _ in signature])


def check_signature(model: Model, features: Sequence[tuple[str, str]]) -> None:
    """Hold the pipeline's features against those that the model was trained on.

    The order does not matter, since columns are found by name, and features that the model does not take are allowed:
    the policy may use them.

    Parameters
    ----------
    model
        The model.
    features
        (name, value type) of the pipeline's features.

    Raises
    ------
    ModelError
        If a feature of the model is missing (the message suggests a renamed one) or of another type. All problems
        are listed at once.
    """
    given = dict(features)
    spare = [name for name in given if name not in dict(model.signature)]
    problems: list[str] = []
    for name, wanted in model.signature:
        if name not in given:
            problems.append(_missing(name, spare))
        elif not _fits(wanted, given[name]):
            expected = "a number" if wanted == NUMBER else wanted
            problems.append(f"it takes '{name}' as {expected}, but the pipeline's is {given[name]}")
    if not problems:
        return
    unused = f" The pipeline's {_quoted(spare)} are unknown to the model." if spare else ""
    raise ModelError(
        f"The model {model.label} ({model.path}) does not fit the pipeline's features: {'; '.join(problems)}.{unused} "
        "Rename or add the features, or train the model again on this pipeline."
    )


def _missing(name: str, spare: list[str]) -> str:
    close = difflib.get_close_matches(name, spare, n=1)
    hint = f" (did you mean to rename '{close[0]}'?)" if close else ""
    return f"it takes '{name}', which the pipeline does not have{hint}"


def _fits(wanted: str, given: str) -> bool:
    if wanted == NUMBER:
        return _is_numeric(given)
    # The value of a decimal goes to the model, not its scaled integer, so another scale is the same feature.
    return wanted == given or (wanted.startswith("decimal(") and given.startswith("decimal("))


def _is_numeric(value_type: str) -> bool:
    return value_type in _NUMERIC or value_type.startswith("decimal(")


def _check_saved_signature(booster: Any, signature: Sequence[tuple[str, str]], path: Path) -> None:
    names = [name for name, _ in signature]
    repeated = sorted({name for name in names if names.count(name) > 1})
    wrong = [f"'{name}' ({kind})" for name, kind in signature if not _is_numeric(kind)]
    own = booster.feature_names
    problem = ""
    if booster.num_features() != len(signature):
        problem = f"the signature has {len(signature)} features, the booster {booster.num_features()}"
    elif repeated:
        problem = f"{_quoted(repeated)} stand in the signature twice"
    elif wrong:
        problem = f"{', '.join(wrong)} are not int64, float64, bool or decimal(scale)"
    elif own and list(own) != names:
        first = next((mine, given) for mine, given in zip(own, names, strict=True) if mine != given)
        problem = f"the booster was trained with '{first[0]}' where the signature has '{first[1]}'"
    if problem:
        raise ModelError(f"The model cannot be saved as {path}: {problem}. Give the features in the order of training.")


def _read_signature(booster: Any, path: Path) -> Signature:
    stored = _read_attribute(booster, "signature", path)
    if stored is not None:
        names = [str(name) for name, _ in stored]
        if names != list(booster.feature_names or []):
            raise ModelError(f"The model file {path} is broken: its signature names other features than its trees.")
        return tuple((str(name), str(kind)) for name, kind in stored)
    if not booster.feature_names:
        raise ModelError(
            f"The model file {path} carries no feature names, so it cannot be checked against a pipeline. "
            "Save it with gillnet.serving.save_model(booster, path, signature=[...])."
        )
    if "c" in (booster.feature_types or []):
        raise ModelError(
            f"The model file {path} has categorical features, which Gillnet does not feed. "
            "Encode them as numbers and train again."
        )
    return tuple((str(name), NUMBER) for name in booster.feature_names)


def _read_attribute(booster: Any, key: str, path: Path) -> Any:
    text = booster.attr(_ATTRIBUTE.format(key))
    if text is None:
        return None
    try:
        value = json.loads(text)
        if key == "signature":
            return [(name, kind) for name, kind in value]
        return dict(value)
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"The model file {path} is broken: its attribute {_ATTRIBUTE.format(key)} is not what "
            "gillnet.serving.save_model writes. Save the model again."
        ) from error


def _read_objective(booster: Any, path: Path) -> str:
    try:
        return str(json.loads(booster.save_config())["learner"]["objective"]["name"])
    except (KeyError, ValueError) as error:
        raise ModelError(f"The model file {path} names no objective; train and save it again.") from error


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
