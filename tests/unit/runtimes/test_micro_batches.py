"""Micro-batches follow the latency budget: one event at a low rate, as many as the budget allows under load."""

from __future__ import annotations

import itertools
import json
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import pytest
import xgboost as xgb

from gillnet.runtimes.embedded import RuntimeOptions
from gillnet.serving import KernelScorer, load_model, save_model
from gillnet.testing.clock import SimulatedClock
from gillnet.testing.scripted import Pause

from .driving import JournalSource, drive, payment, payments, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from gillnet._kernel import Batch
    from gillnet.serving import Model

SIGNATURE = [("spend_5m", "decimal(2)"), ("payments_5m", "int64")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path: Path = tmp_path_factory.mktemp("model") / "fraud.ubj"
    rows = np.random.default_rng(1).random((64, 2))
    data = xgb.DMatrix(rows, rows[:, 0] > 0.5, feature_names=[name for name, _ in SIGNATURE])
    save_model(xgb.train({"objective": "binary:logistic", "nthread": 1}, data, 2), path, signature=SIGNATURE)
    return load_model(path)


class TimedScorer(KernelScorer):
    """The kernel's scorer, which takes a given time for each batch on the simulated clock."""

    def __init__(self, model: Model, clock: SimulatedClock, cost_s: Callable[[int], float]) -> None:
        super().__init__(model)
        self._clock = clock
        self._cost_s = cost_s

    def score(self, batch: Batch) -> Batch:
        self._clock.sleep(self._cost_s(batch.num_rows))
        return super().score(batch)


def sizes_under_load(model: Model, cost_s: Callable[[int], float], count: int = 12_000, **options: object) -> list[int]:
    clock = SimulatedClock()
    driven = drive(
        payments(count),
        plan=pipeline(model="fraud@1"),
        clock=clock,
        scorer=TimedScorer(model, clock, cost_s),
        overlap=False,  # One simulated clock for two threads at a time would tell neither's cost.
        **options,
    ).run()
    assert sum(driven.source.batch_sizes) == count
    return driven.source.batch_sizes[:-1]  # The last one is what was left.


def test_at_a_low_rate_each_event_is_a_batch_of_its_own() -> None:
    script = list(itertools.chain.from_iterable((payment(n), Pause(0.2)) for n in range(50)))
    driven = drive(script).run()
    assert driven.source.batch_sizes == [1] * 50
    arrived_us = [row["arrival_time"] for row in driven.outs.rows()]
    assert len(set(arrived_us)) == 50
    assert driven.runtime.metrics.latency_ms.maximum == 0.0  # Nothing waited for a batch to fill.


@pytest.mark.parametrize(
    ("budget_ms", "cost_us", "records"),
    [(10, 20, 500), (5, 20, 250), (10, 100, 100), (20, 5, 4_000), (10, 1, 4_096), (1, 500, 16)],
)
def test_under_load_a_batch_is_as_long_as_the_budget_allows(
    model: Model, budget_ms: float, cost_us: float, records: int
) -> None:
    count = max(3_000, 7 * records)
    sizes = sizes_under_load(model, lambda rows: rows * cost_us / 1e6, count, latency_budget_ms=budget_ms)
    assert median(sizes[len(sizes) // 2 :]) == pytest.approx(records, rel=0.02)


def test_the_fixed_cost_of_a_batch_counts_against_the_budget(model: Model) -> None:
    sizes = sizes_under_load(model, lambda rows: 0.005 + rows * 10e-6)
    assert median(sizes[len(sizes) // 2 :]) == pytest.approx(500, rel=0.05)


def test_batches_shrink_when_the_work_becomes_dearer_and_by_half_at_the_most(model: Model) -> None:
    seen = itertools.count(1)
    sizes = sizes_under_load(model, lambda rows: rows * (10e-6 if next(seen) < 10 else 100e-6))
    assert max(sizes) == 1_000
    assert sizes[-1] == pytest.approx(100, rel=0.05)
    assert all(before / 2 - 1 <= after <= before * 2 for before, after in itertools.pairwise(sizes))


class BackloggedSource(JournalSource):
    """A source that says how much waits behind it."""

    @property
    def lag(self) -> int | None:
        return 1_000_000 - self.polled_records


def test_a_run_that_is_far_behind_takes_whole_batches_however_slow_the_machine(model: Model) -> None:
    """I7: a busy machine makes each batch dear; by the budget alone batches become small, each record dearer still, and the lag grows."""
    clock = SimulatedClock()
    source = BackloggedSource("payments", payments(12_000), clock=clock)
    scorer = TimedScorer(model, clock, lambda rows: 0.3 + rows * 10e-6)
    plan = pipeline(model="fraud@1")
    driven = drive(source, plan=plan, clock=clock, scorer=scorer, overlap=False, max_batch_records=1_000).run()
    assert median(driven.source.batch_sizes) == 1_000
    assert driven.counts.scored == 12_000


@pytest.mark.parametrize("most", [1, 7, 100, 300, 1_000])
def test_no_batch_is_longer_than_max_batch_records(most: int) -> None:
    driven = drive(payments(1_000 if most < 10 else 3_000), max_batch_records=most, overlap=False).run()
    assert max(driven.source.batch_sizes) == most
    assert driven.counts.scored == driven.counts.read


@pytest.mark.parametrize("most", [1, 255, 256, 1_000])
def test_max_records_is_exact(most: int) -> None:
    driven = drive(payments(2_000), max_records=most).run()
    assert driven.counts.read == driven.source.committed_records == most
    assert [json.loads(value)["id"] for value in driven.outs["decisions"].values] == [f"p{n}" for n in range(most)]


def test_the_defaults_are_those_of_the_documentation() -> None:
    options = RuntimeOptions()
    assert (options.latency_budget_ms, options.max_batch_records, options.commit_interval_s) == (10.0, 4_096, 2.0)
