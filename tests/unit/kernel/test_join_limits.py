"""What a join keeps and for how long: limits of a key and of an event, a side that is idle, a sweep that gives back."""

from __future__ import annotations

from typing import Any

from kernel_engine import ARRIVAL, SECOND, START, TAKEN, batch_of, engine_plan, stream_plan, with_times

from gillnet._kernel import Engine
from gillnet.plan.joins import IntervalJoinNode, JoinSide, join_to_json

IDLE = 30 * SECOND


class Pipeline:
    """Events of ``l`` joined with those of ``r`` in the ten seconds before."""

    def __init__(self, how: str = "full", *, lower_us: int = -10 * SECOND, lateness_us: int = 0, **limits: int) -> None:
        node = IntervalJoinNode(
            name="j",
            left=JoinSide("l", "key"),
            right=JoinSide("r", "key"),
            lower_us=lower_us,
            upper_us=0,
            how=how,  # type: ignore[arg-type]
            **limits,
        )
        streams = [stream_plan(name, idle_after_us=IDLE, allowed_lateness_us=lateness_us) for name in "lr"]
        self.engine = Engine(engine_plan([], *streams, joins=[join_to_json(node)]))
        self.now = ARRIVAL
        self._ids = iter(range(10**6))
        self.engine.pass_time(self.now)

    def arrive(self, stream: str, *at_s: float, key: str | None = "a") -> list[tuple[Any, ...]]:
        """Let events arrive together; the rows that leave: (left second, right second) and what they say besides."""
        events = [{"id": f"e{next(self._ids)}", "ts": START + round(at * SECOND), "key": key} for at in at_s]
        outcomes, _ = self.engine.process(stream, batch_of(events), self.now)
        assert set(outcomes) <= TAKEN
        return self.rows()

    def rows(self) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        while (joined := self.engine.joined(1_000)) is not None:
            rows += [_short(row) for row in with_times(joined[1])]
        return rows

    def pass_time(self, seconds: int) -> list[tuple[Any, ...]]:
        self.now += seconds * SECOND
        self.engine.pass_time(self.now)
        return self.rows()

    @property
    def counts(self) -> dict[str, int]:
        return self.engine.join_counts()["j"]

    @property
    def events(self) -> int:
        return self.engine.stats()["join_events"]


def _short(row: dict[str, Any]) -> tuple[Any, ...]:
    left, right = (row[name] and (row[name] - START) / SECOND for name in ("__left_time", "__right_time"))
    said = [name for name in ("withdrawn", "saturated") if row[f"__{name}"]]
    return left, right, *said


def test_an_unmatched_row_leaves_when_the_other_watermark_has_passed_its_last_partner():
    pipeline = Pipeline("left", lateness_us=60 * SECOND)
    assert pipeline.arrive("l", 100) == []
    assert pipeline.arrive("r", 80, 100) == [(100, 100)]
    assert pipeline.arrive("l", 120) == []
    assert pipeline.arrive("r", 120, key="b") == [], "another at 120 would still be in order"
    assert pipeline.arrive("r", 120.000001, key="b") == [(120, None)]
    assert pipeline.arrive("r", 115) == [(120, None, "withdrawn"), (120, 115)], "late, inside the allowed lateness"
    assert pipeline.arrive("r", 114) == [(120, 114)]


def test_a_null_key_comes_out_unmatched_at_once_on_an_outer_side():
    assert Pipeline("full").arrive("l", 1, key=None) == [(1, None)]
    assert Pipeline("right").arrive("r", 1, key=None) == [(None, 1)]
    pipeline = Pipeline("left")
    assert pipeline.arrive("r", 1, key=None) == []
    assert pipeline.events == 0


def test_a_key_over_its_limit_forgets_its_oldest_events_and_says_so():
    pipeline = Pipeline("full", lateness_us=100 * SECOND, max_events_per_key=3)
    assert pipeline.arrive("r", 1, 2, 3, 4, 5) == [(None, 1, "saturated"), (None, 2, "saturated")]
    assert pipeline.counts["dropped_events"] == 2
    assert pipeline.arrive("l", 4) == [(4, 3), (4, 4)], "those of 1 and 2 are forgotten"
    assert pipeline.counts["incomplete"] == 1
    assert pipeline.arrive("l", 1.5) == [(1.5, None, "saturated")], "1 would have matched"
    assert pipeline.counts["incomplete"] == 2


def test_an_event_with_too_many_partners_gives_those_with_the_newest():
    pipeline = Pipeline("full", max_pairs_per_event=2)
    pipeline.arrive("r", 1, 2, 3, 4)
    assert pipeline.arrive("l", 5) == [(5, 3), (5, 4)]
    assert (pipeline.counts["pairs"], pipeline.counts["dropped_pairs"]) == (2, 2)
    pipeline.engine.finish("l")
    assert pipeline.rows() == [], "1 and 2 have a partner too, though their pairs were left out"


def test_partners_beyond_the_limit_are_withdrawn_like_the_others():
    pipeline = Pipeline("right", lateness_us=60 * SECOND, max_pairs_per_event=1)
    pipeline.arrive("l", 30, key="b")
    assert pipeline.arrive("r", 1, 2, 3) == [(None, 1), (None, 2), (None, 3)]
    rows = pipeline.arrive("l", 3)
    assert sorted(rows, key=repr) == [(3, 3), *((None, at, "withdrawn") for at in (1, 2, 3))]


def test_events_wait_for_a_side_that_was_never_heard_and_not_for_ever():
    pipeline = Pipeline("left")
    for second in range(100):
        assert pipeline.arrive("l", second) == []
    assert pipeline.events == 100
    assert len(pipeline.pass_time(31)) == 99, "it is taken to be where the left side is"
    for second in range(100, 200):
        pipeline.arrive("l", second)
    assert pipeline.events < 5


def test_an_idle_side_that_wakes_further_back_is_counted():
    pipeline = Pipeline("full")
    pipeline.arrive("r", 0)
    pipeline.pass_time(31)
    for second in range(100):
        pipeline.arrive("l", second)
    assert pipeline.events < 20
    assert pipeline.arrive("r", 50) == [(None, 50, "saturated")], (
        "the left events that it would have matched are forgotten"
    )
    assert pipeline.counts["incomplete"] == 1
    assert pipeline.arrive("l", 100) == []
    assert pipeline.arrive("r", 95) == [(99, 95), (100, 95)], "what is kept still matches"
    assert pipeline.counts["incomplete"] == 2


def test_i7_memory_comes_back_as_the_watermarks_move():
    pipeline, most = Pipeline("full", lower_us=0, lateness_us=15 * SECOND), 0
    for second in range(0, 200, 10):
        for stream in "lr":
            pipeline.arrive(stream, *(second + part / 100 for part in range(1_000)), key=f"k{second % 70}")
        most = max(most, pipeline.events)
    assert most < 7_000, "of both sides, fifteen seconds of lateness and ten of a batch, at a hundred events a second"
    full = pipeline.engine.stats()["join_bytes"]
    for stream in "lr":
        pipeline.engine.finish(stream)
    for _ in range(5):
        pipeline.rows()
    stats = pipeline.engine.stats()
    assert (stats["join_keys"], stats["join_events"], stats["join_timers"]) == (0, 0, 0)
    assert stats["join_bytes"] * 4 < full
