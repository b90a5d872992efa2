"""Every kind of state is told, and nothing twice: on every case, at every turn, against the engine's own sums and key by key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.cases.harness import Player, ScriptSource, case_names, load_case

from gillnet.app import load_pipeline
from gillnet.connectors.memory import MemorySink
from gillnet.operators.decode import stream_decoder
from gillnet.operators.features import FeatureOperator
from gillnet.operators.inspection import KEYED, OperatorState, StateInspector
from gillnet.plan.nodes import EmissionNode
from gillnet.runtimes.embedded import EmbeddedRuntime, Outputs
from gillnet.simulator import Simulation, SimulationConfig, interleaved_sources

KINDS = {"windows", "pattern", "join", "sessions", "baseline", "ids", "revisable rows", "waiting rows"}


def total(operators: list[OperatorState], kind: str, figure: str = "events") -> int:
    return sum(getattr(operator, figure) for operator in operators if operator.kind == kind)


def check(inspector: StateInspector) -> set[str]:
    operators, stats = inspector.operators(top=1_000), inspector._engine.stats()
    assert {operator.kind for operator in operators} <= KINDS
    assert total(operators, "windows", "keys") == stats["keys"]
    assert total(operators, "windows") == stats["events"]
    assert total(operators, "pattern") == stats["pattern_events"]
    assert total(operators, "join") == stats["join_events"]
    assert total(operators, "sessions") == stats["timers"]
    assert total(operators, "waiting rows") == stats["pending_rows"]
    assert (total(operators, "ids"), total(operators, "ids", "bytes")) == (stats["ids"], stats["id_bytes"])
    # A row that was revised is kept twice until its segment goes.
    assert total(operators, "revisable rows") >= stats["revisable_rows"]
    assert total(operators, "revisable rows", "bytes") == stats["revisable_bytes"]
    parts = sum(total(operators, kind, "bytes") for kind in ("windows", "pattern", "revisable rows"))
    assert parts == stats["bytes"] - stats["join_bytes"]
    assert total(operators, "join", "bytes") <= stats["join_bytes"]
    for number, operator in enumerate(operators):
        check_operator(inspector, number, operator)
    return {operator.kind for operator in operators if operator.events}


def check_operator(inspector: StateInspector, number: int, operator: OperatorState) -> None:
    for cuts in (operator.expiring, dict(sorted(operator.kept.items()))):
        counts = [(cut.keys, cut.events, cut.bytes) for cut in cuts.values()]
        assert counts == sorted(counts), "what goes or stays within longer is no less"
        assert all(cut.events <= operator.events for cut in cuts.values())
    if operator.kind not in KEYED:
        assert not operator.largest
        return
    pages = list(inspector.tables(number))
    rows: list[dict[str, Any]] = [row for keys, _ in pages for row in keys.to_pylist()]
    assert {row["key"]: row["events"] for row in rows} == {key.key: key.events for key in operator.largest}
    assert sum(events.num_rows for _, events in pages) == operator.events == sum(row["events"] for row in rows)
    for row in rows[:3]:
        held = [one for one in inspector.key(row["key"]) if (one.kind, one.name) == (operator.kind, operator.name)]
        assert [one.events.num_rows for one in held] == [row["events"]]
        assert set(held[0].values) == set(operator.features)


def run(name: str, *, emission: str = "on_arrival") -> set[str]:
    """Run a case, looking at its state every few turns; return the kinds of state that it had."""
    case = load_case(name)
    player = Player(case.script, root=case.pipeline.plan.root, batch_records=3)
    plan = replace(case.pipeline.plan, emission=EmissionNode(kind=emission))  # type: ignore[arg-type]
    turns, kinds = 0, set()

    def on_turn() -> None:
        nonlocal turns
        turns += 1
        if turns % 5 == 0:
            kinds.update(check(StateInspector(plan, runtime.features.snapshot())))

    runtime = EmbeddedRuntime(
        plan,
        sources={stream.name: ScriptSource(player, stream.name) for stream in plan.streams},
        outputs=Outputs(lambda _: MemorySink()),
        clock=player.clock,
        on_turn=on_turn,
    )
    runtime.run()
    return kinds | check(StateInspector(plan, runtime.features.snapshot()))


@pytest.mark.parametrize("name", case_names())
def test_what_is_told_is_all_that_there_is(name: str) -> None:
    assert run(name) & KINDS


def test_every_kind_of_state_is_told() -> None:
    found = run("interval_join") | run("patterns_lookup") | run("baselines") | run("lookup", emission="on_watermark")
    assert found == KINDS


def test_rows_that_were_read_from_a_snapshot_take_as_much_as_before() -> None:
    """Their columns are parts of one buffer, which once each of them counted whole."""
    plan = load_pipeline("payments").plan
    operator = FeatureOperator(plan)
    decoders = {stream.name: stream_decoder(plan, stream.name) for stream in plan.streams}
    sources = interleaved_sources(Simulation(SimulationConfig(duration="6h")), *decoders, simulated_arrival=True)
    for _ in range(20):
        for name, source in sources.items():
            if (raw := source.poll(500, 0.0)) is not None:
                operator.process(name, decoders[name].decode(raw).batch, raw.arrival_time_us)
    rows, live = operator.stats()["revisable_rows"], operator.stats()["revisable_bytes"]
    restored = FeatureOperator.restored(plan, operator.snapshot()).stats()
    assert rows > 1_000
    assert restored["revisable_rows"] == rows
    assert 0.5 * live < restored["revisable_bytes"] < 1.5 * live
