"""Pipelines: features, a model and a policy, lowered to a plan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from gillnet.api.expressions import Expr
from gillnet.api.features import Features
from gillnet.api.joins import IntervalJoin
from gillnet.api.limits import check_limit
from gillnet.api.stream import Duration
from gillnet.core.errors import DefinitionError
from gillnet.core.naming import nearest
from gillnet.core.time import duration_us
from gillnet.plan.expressions import columns_of
from gillnet.plan.format import format_expression
from gillnet.plan.nodes import ACTIONS, Action, EmissionNode, ModelNode, PipelinePlan, RuleNode, StreamNode
from gillnet.plan.typing import infer

# It is part of consumer groups' and transactions' names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MODEL = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}@[a-z0-9][a-z0-9_-]{0,63}")

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
        The pipeline's name, of letters, digits, ``.``, ``_`` and ``-``; by default the root stream's.
    model
        A model's name with a version or an alias: ``"fraud@3"``, ``"fraud@champion"``. Its score is the column
        ``score``.
    model_features
        The features that the model takes, in order; by default all features that are numbers or booleans.
    policy
        Rules in order. The first that matches decides; every rule that matches gives its reason. Without a match:
        ``allow``. A condition that is null does not match.
    emission
        ``"on_arrival"``: a row leaves at once, with what is known. ``"on_watermark"``: it waits until the watermark of
        every stream has passed it, so that only late data can change it any more.
    max_wait
        A row leaves when the streams that it looks up have caught up with it, and after this long in any case.
    joins
        Joins of two streams, `IntervalJoin`, each with an output of its own, ``joins.<name>``. Their streams need not be
        those of the features.
    revisions
        Compute a row again when an event that arrives later, inside the allowed lateness, changes it, and send what
        changed to ``revisions``. Costs memory: rows are kept until nothing can change them any more. Without it, a row
        stays as it went out.
    max_events_per_key
        Events of one key at the most; beyond it the oldest go, and readings are ``saturated``.
    max_partial_matches
        Partial matches of one key and pattern at the most; beyond it the oldest go, and readings are ``saturated``.

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
        emission: str = "on_arrival",
        max_wait: Duration | None = None,
        joins: Sequence[IntervalJoin] = (),
        revisions: bool = True,
        max_events_per_key: int = 4_000_000,
        max_partial_matches: int = 1_000,
    ) -> None:
        _check_arguments(features, name, model_features if model is None else None)
        _check_flag("revisions", revisions)
        check_limit("Pipeline", "max_events_per_key", max_events_per_key, "1_000_000")
        check_limit("Pipeline", "max_partial_matches", max_partial_matches, "1_000")
        columns = dict(features.columns)
        node = None
        if model is not None:
            node = _model(model, model_features, features)
            columns["score"] = ("float64", False)
        self.features = features
        self.plan = PipelinePlan(
            name=name or features.stream.name,
            root=features.stream.name,
            streams=_streams(features, _joins(joins)),
            features=features.nodes,
            sessions=features.sessions,
            model=node,
            policy=tuple(_rule(number, rule, columns) for number, rule in enumerate(_rules(policy), 1)),
            emission=_emission(emission, max_wait, features),
            joins=tuple(join.node for join in joins),
            revisions=revisions,
            max_events_per_key=max_events_per_key,
            max_partial_matches=max_partial_matches,
        )

    def __repr__(self) -> str:
        return f"<pipeline {self.plan.name}: {len(self.plan.features)} features, {len(self.plan.policy)} rules>"


def _joins(joins: Sequence[IntervalJoin]) -> Sequence[IntervalJoin]:
    if not isinstance(joins, list | tuple) or not all(isinstance(join, IntervalJoin) for join in joins):
        raise DefinitionError(f"joins: {joins!r} is not a list of joins; write [gillnet.IntervalJoin('name', …), …].")
    names = [join.node.name for join in joins]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DefinitionError(f"joins: two are called {twice[0]!r}, the name of their output; rename one.")
    return joins


def _streams(features: Features, joins: Sequence[IntervalJoin]) -> tuple[StreamNode, ...]:
    """Return the root stream, those that rows look up, and those that joins need besides."""
    streams = {features.stream.name: features.stream.node, **features.others}
    for join in joins:
        for stream in join.streams:
            if streams.setdefault(stream.name, stream) != stream:
                raise DefinitionError(
                    f"join {join.node.name!r}: two different streams are called {stream.name!r}; rename one."
                )
    return tuple(streams.values())


def _emission(kind: str, max_wait: Duration | None, features: Features) -> EmissionNode:
    if kind not in ("on_arrival", "on_watermark"):
        raise DefinitionError(f"Pipeline: emission={kind!r} is unknown; use 'on_arrival' or 'on_watermark'.")
    if kind == "on_watermark" and max_wait is not None:
        raise DefinitionError(
            "Pipeline: emission='on_watermark' waits for the watermark, however long that takes; leave max_wait out, or "
            "the emission."
        )
    if features.sessions is not None and (max_wait is not None or kind != "on_arrival"):
        raise DefinitionError(
            "Pipeline: rows of sessions leave on arrival, since sessions are judged while they run; leave emission and "
            "max_wait out."
        )
    if max_wait is None:
        return EmissionNode(kind="on_watermark" if kind == "on_watermark" else "on_arrival")
    if not features.others:
        raise DefinitionError(
            "Pipeline: max_wait waits for the streams that rows look up, and these features look none up; leave it out, or "
            "wait for late events of the stream itself with emission='on_watermark'."
        )
    return EmissionNode(kind="max_wait", max_wait_us=duration_us(max_wait, what="Pipeline: max_wait"))


def _model(ref: str, chosen: Sequence[str] | None, features: Features) -> ModelNode:
    if not isinstance(ref, str) or not _MODEL.fullmatch(ref):
        raise DefinitionError(
            f"model={ref!r}: write name@version or name@alias, such as 'fraud@3' or 'fraud@champion', "
            "of a-z, 0-9, '_' and '-'."
        )
    if "score" in features.columns:
        raise DefinitionError(
            f"model={ref!r}: stream {features.stream.name!r} has a column 'score', the name of the model's score; leave it "
            "out of the schema, or rename it at its source."
        )
    usable = [node.name for node in features.nodes if _is_number(node.type)]
    names = usable if chosen is None else _chosen(chosen, features)
    if not names:
        raise DefinitionError(f"model={ref!r}: it takes no feature; a model needs one that is a number or boolean.")
    return ModelNode(ref=ref, features=tuple((name, features.columns[name][0]) for name in names))


def _chosen(chosen: Sequence[str], features: Features) -> list[str]:
    if isinstance(chosen, str):
        raise DefinitionError(f"model_features: {chosen!r} is one text; write a list, such as [{chosen!r}].")
    if not isinstance(chosen, Sequence):
        raise DefinitionError(f"model_features: {chosen!r} is no list of features; write one, such as ['spend_5m'].")
    for place, feature in enumerate(chosen):
        if not isinstance(feature, str) or feature not in features.columns:
            raise DefinitionError(
                f"model_features: there is no feature {feature!r}{nearest(feature, features.columns)}."
            )
        if not _is_number(features.columns[feature][0]):
            raise DefinitionError(
                f"model_features: {feature!r} is {features.columns[feature][0]}; a model takes numbers and booleans. "
                "Make one of it, or leave it out."
            )
        if feature in chosen[:place]:
            raise DefinitionError(f"model_features: {feature!r} is there twice; leave one out.")
    return list(chosen)


def _is_number(value_type: str) -> bool:
    return value_type.partition("(")[0] in MODEL_TYPES


def _rules(policy: Sequence[Rule]) -> Sequence[Rule]:
    if not isinstance(policy, list | tuple):
        raise DefinitionError(
            f"policy: {policy!r} is not a list of rules; write [gillnet.block(col('spend') > 500), …]."
        )
    for number, rule in enumerate(policy, 1):
        if not isinstance(rule, Rule):
            raise DefinitionError(
                f"rule {number} of the policy: {rule!r} is not a rule; write gillnet.block, step_up, review or allow "
                "around a condition."
            )
    return policy


def _check_arguments(features: object, name: str | None, model_features: Sequence[str] | None) -> None:
    if not isinstance(features, Features):
        raise DefinitionError(
            f"Pipeline: {features!r} is neither gillnet.Features nor gillnet.Sessions; make one of it."
        )
    if name is not None and (not isinstance(name, str) or not _NAME.fullmatch(name)):
        raise DefinitionError(
            f"Pipeline: name={name!r} is no name; it is of a-z, A-Z, 0-9, '.', '_' and '-', and begins with a letter or digit. "
            "Give another, or leave it out for the stream's."
        )
    if model_features is not None:
        raise DefinitionError("Pipeline: model_features without a model; give model='name@alias', or leave them out.")


def _check_flag(name: str, flag: object) -> None:
    if not isinstance(flag, bool):
        raise DefinitionError(
            f"Pipeline: {name}={flag!r} is neither True nor False; give one of them, or leave it out."
        )


def _rule(number: int, rule: Rule, columns: dict[str, tuple[str, bool]]) -> RuleNode:
    place = f"rule {number} of the policy ({rule.action})"
    if not isinstance(rule.when, Expr):
        raise DefinitionError(f"{place}: {rule.when!r} is not an expression; write one such as col('score') > 0.97.")
    if rule.action not in ACTIONS:
        raise DefinitionError(f"{place}: the action {rule.action!r} is unknown{nearest(rule.action, ACTIONS)}.")
    if rule.reason is not None and (not isinstance(rule.reason, str) or not rule.reason.strip()):
        raise DefinitionError(f"{place}: reason={rule.reason!r} is no reason code; write a text, or leave it out.")
    if "score" in columns_of(rule.when.node) and "score" not in columns:
        raise DefinitionError(
            f"{place}: {format_expression(rule.when.node)} asks for a score, and the pipeline has no model; "
            "give one, such as model='fraud@champion'."
        )
    value_type, _ = infer(rule.when.node, columns, what=place)
    if value_type != "bool":
        raise DefinitionError(
            f"{place}: {format_expression(rule.when.node)} is {value_type}, not bool; compare it with something."
        )
    return RuleNode(action=rule.action, when=rule.when.node, reason=rule.reason or format_expression(rule.when.node))
