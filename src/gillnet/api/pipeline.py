"""Pipelines: features, a model and a policy, lowered to a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gillnet.api.expressions import Expr
from gillnet.api.features import Features
from gillnet.core.errors import DefinitionError
from gillnet.core.naming import nearest
from gillnet.plan.format import format_expression
from gillnet.plan.nodes import Action, ModelNode, PipelinePlan, RuleNode
from gillnet.plan.typing import infer

MODEL_TYPES = ("int64", "float64", "bool", "decimal")
"""Types that a model can take."""


@dataclass(frozen=True, slots=True)
class Rule:
    """An action, when it applies, and the reason code that the decision then carries."""

    action: Action
    when: Expr
    reason: str | None = None


def block(when: Expr, *, reason: str | None = None) -> Rule:
    """Return a rule that blocks the event where ``when`` is true."""
    return Rule("block", when, reason)


def step_up(when: Expr, *, reason: str | None = None) -> Rule:
    """Return a rule that asks the customer for another proof where ``when`` is true."""
    return Rule("step_up", when, reason)


def review(when: Expr, *, reason: str | None = None) -> Rule:
    """Return a rule that sends the event to an analyst where ``when`` is true."""
    return Rule("review", when, reason)


def allow(when: Expr, *, reason: str | None = None) -> Rule:
    """Return a rule that lets the event pass where ``when`` is true; put it first, since the first match decides."""
    return Rule("allow", when, reason)


class Pipeline:
    """Features, and what is done with them.

    Parameters
    ----------
    features
        `Features` or `Sessions`.
    name
        The pipeline's name; by default the root stream's.
    model
        A model's name with a version or an alias: ``"fraud@3"``, ``"fraud@champion"``. Its score is the column
        ``score``.
    model_features
        The features that the model takes, in order; by default all features that are numbers or booleans.
    policy
        Rules in order. The first that matches decides; every rule that matches gives its reason. Without a match:
        ``allow``. A condition that is null does not match.

    Attributes
    ----------
    plan
        The `PipelinePlan` that every runtime executes.

    Raises
    ------
    DefinitionError
        If a rule names an unknown column, is not boolean, or uses ``score`` without a model.
    """

    def __init__(
        self,
        features: Features,
        *,
        name: str | None = None,
        model: str | None = None,
        model_features: Sequence[str] | None = None,
        policy: Sequence[Rule] = (),
        max_events_per_key: int = 4_000_000,
    ) -> None:
        columns = dict(features.columns)
        node = None
        if model is not None:
            node = _model(model, model_features, features)
            columns["score"] = ("float64", False)
        self.features = features
        self.plan = PipelinePlan(
            name=name or features.stream.name,
            root=features.stream.name,
            streams=(features.stream.node, *features.others.values()),
            features=features.nodes,
            sessions=features.sessions,
            model=node,
            policy=tuple(_rule(number, rule, columns) for number, rule in enumerate(policy, 1)),
            max_events_per_key=max_events_per_key,
        )

    def __repr__(self) -> str:
        return f"<pipeline {self.plan.name}: {len(self.plan.features)} features, {len(self.plan.policy)} rules>"


def _model(ref: str, chosen: Sequence[str] | None, features: Features) -> ModelNode:
    name, at, version = ref.partition("@")
    if not (name and at and version):
        raise DefinitionError(
            f"model={ref!r}: write name@version or name@alias, such as 'fraud@3' or 'fraud@champion'."
        )
    types = {node.name: node.type for node in features.nodes}
    usable = [name for name, value_type in types.items() if value_type.partition("(")[0] in MODEL_TYPES]
    for feature in chosen or ():
        if feature not in features.columns:
            raise DefinitionError(f"model_features: there is no feature {feature!r}{nearest(feature, types)}.")
        if features.columns[feature][0].partition("(")[0] not in MODEL_TYPES:
            raise DefinitionError(
                f"model_features: {feature!r} is {features.columns[feature][0]}; a model takes numbers."
            )
    names = list(chosen) if chosen is not None else usable
    return ModelNode(ref=ref, features=tuple((name, features.columns[name][0]) for name in names))


def _rule(number: int, rule: Rule, columns: dict[str, tuple[str, bool]]) -> RuleNode:
    place = f"rule {number} of the policy ({rule.action})"
    if not isinstance(rule.when, Expr):
        raise DefinitionError(f"{place}: {rule.when!r} is not an expression; write one such as col('score') > 0.97.")
    value_type, _ = infer(rule.when.node, columns, what=place)
    if value_type != "bool":
        raise DefinitionError(
            f"{place}: {format_expression(rule.when.node)} is {value_type}, not bool; compare it with something."
        )
    return RuleNode(action=rule.action, when=rule.when.node, reason=rule.reason or format_expression(rule.when.node))
