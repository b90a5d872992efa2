"""The stored form of the shipped pipelines' plans, byte for byte.

Plans lie beside checkpoints and are read by later versions, so a change of their JSON is a change of the format. A field that is
new or renamed needs a new ``PLAN_VERSION``, or a reader that takes the old form; a definition that was meant to change needs
only new golden files: ``GILLNET_UPDATE_GOLDEN=1 pytest tests/unit/scenarios/test_plan_json.py``, and a look at their diff.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from gillnet.plan.nodes import PLAN_VERSION, PipelinePlan
from gillnet.plan.serde import dumps, loads
from gillnet.scenarios import bots, payments, takeover

GOLDEN = Path(__file__).parent / "golden"
PLANS = {
    "payments": payments.pipeline.plan,
    "bots": bots.bots_pipeline().plan,
    "takeover": takeover.pipeline.plan,
}


@pytest.fixture(scope="module", autouse=True)
def _update() -> None:
    if os.environ.get("GILLNET_UPDATE_GOLDEN"):
        for name, plan in PLANS.items():
            (GOLDEN / f"{name}.json").write_text(dumps(plan, indent=1) + "\n", encoding="utf-8")


def stored(name: str) -> str:
    return (GOLDEN / f"{name}.json").read_text("utf-8")


@pytest.mark.parametrize(("name", "plan"), PLANS.items(), ids=PLANS)
def test_the_json_of_a_plan_is_the_golden_one(name: str, plan: PipelinePlan) -> None:
    assert dumps(plan, indent=1) + "\n" == stored(name), (
        "a changed form needs a new PLAN_VERSION; if only the definition was meant to change, set GILLNET_UPDATE_GOLDEN=1"
    )


@pytest.mark.parametrize(("name", "plan"), PLANS.items(), ids=PLANS)
def test_a_stored_plan_loads_to_the_plan_that_was_stored(name: str, plan: PipelinePlan) -> None:
    text = stored(name)
    assert json.loads(text)["version"] == PLAN_VERSION
    loaded = loads(text)
    assert loaded == plan
    assert dumps(loaded, indent=1) + "\n" == text
    assert dumps(loaded) == dumps(plan)


def test_the_golden_files_hold_every_part_of_a_plan() -> None:
    """What none of them has could change unseen."""
    documents = [json.loads(stored(name)) for name in PLANS]
    for part in documents[0]:
        assert any(document[part] for document in documents), f"no shipped plan has {part}"
    kinds = {feature["kind"] for document in documents for feature in document["features"]}
    assert kinds == {"aggregate", "expression", "baseline", "pattern"}
