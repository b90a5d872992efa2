"""A sequential score as row expressions: the evidence for one hypothesis against another, added up.

Each term looks up a weight, a log-likelihood ratio in nats, by the bin that one feature lies in; the score is their
sum. A score that is the true log-likelihood ratio exceeds ln(1/α) at any time of a session of the other kind with a
probability of at most α (Ville's inequality), however often it is looked at: that is what makes it fit to decide
*while* a session runs. Being a sum of terms that are features themselves, it says what each decision rests on.

It knows no feature by name: weights are data, fitted elsewhere.

References
----------
Wald, Sequential Tests of Statistical Hypotheses, Annals of Mathematical Statistics 16 (1945).
Ville, Étude critique de la notion de collectif (1939).
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gillnet.api.expressions import Expr, col, lit, when
from gillnet.core.errors import DefinitionError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceTerm:
    """What one feature says.

    Attributes
    ----------
    name
        The feature that holds this term's weight.
    of
        The feature that is looked at.
    edges
        Ascending bounds of the bins: the first bin is below ``edges[0]``, the last at or above ``edges[-1]``.
    weights
        Log-likelihood ratio of each bin, in nats: one more than there are edges.
    missing
        The weight where the feature is null or NaN.
    """

    name: str
    of: str
    edges: tuple[float, ...]
    weights: tuple[float, ...]
    missing: float = 0.0

    def __post_init__(self) -> None:
        ascending = all(low < high for low, high in zip(self.edges, self.edges[1:], strict=False))
        finite = all(math.isfinite(value) for value in (*self.edges, *self.weights, self.missing))
        if not self.edges or not ascending or not finite or len(self.weights) != len(self.edges) + 1:
            raise DefinitionError(
                f"evidence {self.name!r}: {len(self.edges)} edges and {len(self.weights)} weights; "
                "give finite, ascending edges and one weight more."
            )

    def expression(self) -> Expr:
        """Return the weight of the row's bin."""
        value = col(self.of)
        # A comparison with null is not true, and NaN lies above every number, so that both are asked for first.
        case = when(value.is_null() | value.cast("float64").is_nan()).then(lit(self.missing))
        for edge, weight in zip(self.edges, self.weights, strict=False):
            case = case.when(value < edge).then(lit(weight))
        return case.otherwise(lit(self.weights[-1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialScore:
    """The terms of a score, its constant, and where they come from.

    Attributes
    ----------
    bias
        Added to the terms.
    terms
        At least one.
    provenance
        How the weights were fitted, and what was measured: for people.
    """

    bias: float
    terms: tuple[EvidenceTerm, ...]
    provenance: dict[str, Any] = field(default_factory=dict, compare=False)

    def expressions(self) -> dict[str, Expr]:
        """Return one feature for each term, by the term's name."""
        return {term.name: term.expression() for term in self.terms}

    def total(self) -> Expr:
        """Return the score: the sum over the features that `expressions` names."""
        total: Expr = lit(self.bias)
        for term in self.terms:
            total = total + col(term.name)
        return total

    def save(self, path: str | Path) -> None:
        """Write the score as JSON."""
        values = {"provenance": self.provenance, "bias": self.bias, "terms": [asdict(term) for term in self.terms]}
        Path(path).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def load_score(path: str | Path) -> SequentialScore:
    """Read a score that `SequentialScore.save` wrote.

    Raises
    ------
    DefinitionError
        If the file is missing or no such score.
    """
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        terms = tuple(_term(term) for term in values["terms"])
        return SequentialScore(bias=float(values["bias"]), terms=terms, provenance=values["provenance"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DefinitionError(f"the sequential score {path} cannot be read ({error!r}); fit it again.") from error


def wald_threshold(false_alarms: float) -> float:
    """Return the score, in nats, that at most this share of the other kind's sessions ever exceeds: ln(1/α)."""
    if not 0 < false_alarms < 1:
        raise DefinitionError(f"wald_threshold: false_alarms={false_alarms} is a share between 0 and 1.")
    return math.log(1 / false_alarms)


def _term(values: dict[str, Any]) -> EvidenceTerm:
    return EvidenceTerm(
        name=values["name"],
        of=values["of"],
        edges=_floats(values["edges"]),
        weights=_floats(values["weights"]),
        missing=float(values["missing"]),
    )


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
