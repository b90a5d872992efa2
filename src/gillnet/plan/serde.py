"""The plan as JSON: what is stored, shown by golden files, and handed to the kernel.

The format is versioned by ``PLAN_VERSION``; another version is refused with a message, never read by guess.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from gillnet.core.errors import PlanError
from gillnet.core.schema import schema_from_json, schema_to_json
from gillnet.plan import nodes
from gillnet.plan.expressions import expression_from_json, expression_to_json
from gillnet.plan.joins import join_from_json, join_to_json
from gillnet.plan.nodes import (
    PLAN_VERSION,
    AggregateNode,
    BaselineNode,
    EmissionNode,
    ExpressionNode,
    FeatureNode,
    ModelNode,
    PipelinePlan,
    RuleNode,
    SessionsNode,
    StreamNode,
    Window,
)
from gillnet.plan.patterns import PatternNode, sequence_from_json, sequence_to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

_WINDOWS: dict[str, type[Window]] = {
    "sliding": nodes.SlidingWindow,
    "tumbling": nodes.TumblingWindow,
    "session": nodes.SessionWindow,
    "latest": nodes.LatestWindow,
}
_FEATURES: dict[str, type[FeatureNode]] = {
    "aggregate": AggregateNode,
    "expression": ExpressionNode,
    "baseline": BaselineNode,
    "pattern": PatternNode,
}


def plan_to_json(plan: PipelinePlan) -> dict[str, Any]:
    """Write a plan as JSON values."""
    return {
        "version": plan.version,
        "name": plan.name,
        "root": plan.root,
        "streams": [_plain(stream) | {"schema": schema_to_json(stream.schema)} for stream in plan.streams],
        "features": [_feature_to_json(feature) for feature in plan.features],
        "sessions": plan.sessions and _plain(plan.sessions),
        "model": plan.model and {"ref": plan.model.ref, "features": [list(pair) for pair in plan.model.features]},
        "policy": [_plain(rule) | {"when": expression_to_json(rule.when)} for rule in plan.policy],
        "emission": _emission_to_json(plan.emission),
        "joins": [join_to_json(join) for join in plan.joins],
        "revisions": plan.revisions,
        "limits": {
            "max_events_per_key": plan.max_events_per_key,
            "max_partial_matches": plan.max_partial_matches,
        },
    }


def dumps(plan: PipelinePlan, *, indent: int | None = None) -> str:
    """Write a plan as JSON text; the same plan gives the same text."""
    return json.dumps(plan_to_json(plan), indent=indent, ensure_ascii=False)


def loads(text: str) -> PipelinePlan:
    """Read a plan that `dumps` wrote.

    Raises
    ------
    PlanError
        If the text is no plan, or a plan of another version.
    """
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise PlanError(
            f"the plan is not JSON (line {error.lineno}: {error.msg}); write it again from its definition."
        ) from None
    if not isinstance(values, dict) or values.get("version") != PLAN_VERSION:
        found = values.get("version") if isinstance(values, dict) else None
        raise PlanError(f"the plan has version {found}, and this Gillnet reads version {PLAN_VERSION}; write it again.")
    try:
        return _plan_from_json(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PlanError(f"the plan is not of version {PLAN_VERSION}'s form ({error!r}); write it again.") from error


def _plan_from_json(values: Mapping[str, Any]) -> PipelinePlan:
    model, sessions = values["model"], values["sessions"]
    return PipelinePlan(
        name=values["name"],
        root=values["root"],
        streams=tuple(
            StreamNode(**(stream | {"schema": schema_from_json(stream["schema"])})) for stream in values["streams"]
        ),
        features=tuple(_feature_from_json(feature) for feature in values["features"]),
        sessions=sessions and SessionsNode(**sessions),
        model=model and ModelNode(ref=model["ref"], features=tuple((name, kind) for name, kind in model["features"])),
        policy=tuple(RuleNode(**(rule | {"when": expression_from_json(rule["when"])})) for rule in values["policy"]),
        emission=EmissionNode(**values["emission"]),
        joins=tuple(join_from_json(join) for join in values["joins"]),
        revisions=values["revisions"],
        max_events_per_key=values["limits"]["max_events_per_key"],
        max_partial_matches=values["limits"]["max_partial_matches"],
    )


def _emission_to_json(emission: EmissionNode) -> dict[str, Any]:
    return {"kind": emission.kind} | ({"max_wait_us": emission.max_wait_us} if emission.kind == "max_wait" else {})


def _plain(node: Any) -> dict[str, Any]:
    return {field.name: getattr(node, field.name) for field in fields(node)}


def _feature_to_json(feature: FeatureNode) -> dict[str, Any]:
    kind = next(kind for kind, node in _FEATURES.items() if isinstance(feature, node))
    values = {"kind": kind} | _plain(feature)
    for name in ("input", "where", "expression"):
        if values.get(name) is not None:
            values[name] = expression_to_json(values[name])
    if isinstance(feature, AggregateNode):
        window = next(kind for kind, node in _WINDOWS.items() if type(feature.window) is node)
        values["window"] = {"kind": window} | _plain(feature.window)
    if isinstance(feature, PatternNode):
        values["pattern"] = sequence_to_json(feature.pattern)
    return values


def _feature_from_json(values: Mapping[str, Any]) -> FeatureNode:
    rest = {name: value for name, value in values.items() if name != "kind"}
    if values["kind"] not in _FEATURES:
        raise PlanError(
            f"the plan has a feature of kind {values['kind']!r}, which this Gillnet does not know; update it."
        )
    for name in ("input", "where", "expression"):
        if rest.get(name) is not None:
            rest[name] = expression_from_json(rest[name])
    if "window" in rest:
        window = dict(rest["window"])
        rest["window"] = _WINDOWS[window.pop("kind")](**window)
    if "pattern" in rest:
        rest["pattern"] = sequence_from_json(rest["pattern"])
    return _FEATURES[values["kind"]](**rest)
