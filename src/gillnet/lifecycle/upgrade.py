"""Upgrades: the state of a run that was stopped, carried over to another definition of its pipeline.

The newest checkpoint of a place is read with the plan that it holds, compared with the new one, and moved by the kernel; it is
written as the place's next checkpoint, from which the next run goes on. Nothing is written where anything is refused, and the
checkpoint before stays as long as `keep` says.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from gillnet.core.errors import ConfigurationError, StateError
from gillnet.core.time import SystemClock
from gillnet.operators.features import FeatureOperator
from gillnet.plan.expressions import columns_of
from gillnet.plan.nodes import AggregateNode, ExpressionNode, FeatureNode, PipelinePlan, SessionWindow
from gillnet.plan.serde import dumps, loads
from gillnet.plan.upgrade import Difference, compare
from gillnet.runtimes.embedded.journal import Replay
from gillnet.state import Checkpoint, CheckpointStore, FileJournal, still_warming, stored_keys
from gillnet.state.writing import CheckpointWriter, write_durably


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """What becomes of a checkpoint under a new plan.

    Attributes
    ----------
    checkpoint
        The one that is upgraded.
    parts
        What becomes of each part of both plans.
    warming
        Features that miss what was not kept, and the event time from which on each is complete; None where that is for each key
        once it has paused.
    state
        The state under the new plan; empty where something is refused.
    """

    place: str
    checkpoint: Checkpoint
    plan: PipelinePlan
    parts: tuple[Difference, ...]
    warming: dict[str, int | None]
    state: bytes

    @property
    def refused(self) -> tuple[Difference, ...]:
        """Return what cannot be carried over."""
        return tuple(part for part in self.parts if part.outcome == "refused")

    @property
    def needed(self) -> bool:
        """Whether the plans differ at all."""
        return any(part.outcome != "kept" for part in self.parts) or self._reordered

    @property
    def _reordered(self) -> bool:
        return dumps(replace(self.plan, model=None)) != dumps(replace(loads(self.checkpoint.plan), model=None))


def plan_upgrade(place: str, plan: PipelinePlan, *, drop: Collection[str] = ()) -> Upgrade:
    """Work out what becomes of the newest checkpoint of a place under ``plan``; nothing is written.

    Parameters
    ----------
    place
        Where the checkpoints are.
    plan
        The new plan.
    drop
        Names of parts whose state may be forgotten where it cannot be carried over.

    Raises
    ------
    ConfigurationError
        If ``drop`` names what there is not, or the checkpoint has keys of a state backend that is not installed.
    StateError
        If there is no whole checkpoint, the run behind it has not ended, or its state cannot be moved.
    """
    store = CheckpointStore(place)
    checkpoint = store.find()
    state = store.state(checkpoint)
    if not checkpoint.plan:
        raise StateError(
            f"Checkpoint {checkpoint.number} of {store.place} is of a version that kept no plan; start the old definition once with this "
            "version and stop it, then upgrade."
        )
    _check_ended(store, checkpoint)
    old = loads(checkpoint.plan)
    _check_dropped(old, plan, drop)
    parts = tuple(compare(old, plan, drop=drop))
    if any(part.outcome == "refused" for part in parts):
        return Upgrade(place=place, checkpoint=checkpoint, plan=plan, parts=parts, warming={}, state=b"")
    with stored_keys(store, checkpoint) as keys:
        operator, warming = FeatureOperator.upgraded(plan, state, old_plan=checkpoint.plan, keys=keys)
    before = still_warming(checkpoint, plan.stream(plan.root), operator.watermark_us(plan.root))
    return Upgrade(
        place=place,
        checkpoint=checkpoint,
        plan=plan,
        parts=parts,
        warming=_with_earlier(old, plan, warming, before),
        state=operator.snapshot(),
    )


def write_upgrade(upgrade: Upgrade) -> Checkpoint:
    """Write the upgraded state as the next checkpoint of its place, and return that.

    A run that still writes there is fenced: it stops at its next checkpoint.

    Raises
    ------
    StateError
        If something is refused, or the place cannot be written.
    """
    if upgrade.refused:
        raise StateError(f"Checkpoints {upgrade.place}: {'; '.join(map(str, upgrade.refused))}.")
    store = CheckpointStore(upgrade.place)
    store.own()
    writer = CheckpointWriter(store, in_background=False)
    try:
        checkpoint = replace(
            upgrade.checkpoint,
            number=writer.next_number(),
            taken_us=SystemClock().now_us(),
            marks={
                stream.name: upgrade.checkpoint.marks[stream.name]
                for stream in upgrade.plan.streams
                if stream.name in upgrade.checkpoint.marks
            },
            files=(),
            plan=dumps(upgrade.plan),
            warming=upgrade.warming,
            upgraded=True,
        )
        writer.begin(checkpoint, lambda path: write_durably(path, upgrade.state))
        taken = writer.settle(wait=True)
    finally:
        writer.close()
    assert taken is not None, "it was waited for"
    return taken.checkpoint


def _check_ended(store: CheckpointStore, checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint that noted steps lie behind: they can only be taken again under the old plan.

    A journal that is a topic is looked at by the run that goes on.
    """
    cut = checkpoint.journal
    if store.directory is None or cut.get("kind") != FileJournal.kind:
        return
    replay = Replay(FileJournal(Path(store.directory) / "journal"), run=checkpoint.started_us, cut=cut)
    if next(replay.steps(), None) is not None:
        raise StateError(
            f"Checkpoints {store.place}: the run has not ended: its journal goes on behind checkpoint {checkpoint.number}, and "
            "these steps can only be taken under the old definition. Stop the run, or if it was killed, start the "
            "old definition once and stop it."
        )


def _check_dropped(old: PipelinePlan, new: PipelinePlan, drop: Collection[str]) -> None:
    parts = [part for plan in (old, new) for part in (*plan.streams, *plan.features, *plan.joins)]
    known = {part.name for part in parts}
    for name in drop:
        if name not in known:
            raise ConfigurationError(f"--drop {name}: neither definition has a stream, feature or join of that name.")


def _with_earlier(
    old: PipelinePlan, new: PipelinePlan, warming: dict[str, int | None], before: dict[str, int | None]
) -> dict[str, int | None]:
    """Return which features are warming, those included that an earlier upgrade left so.

    What an earlier upgrade left of a key's events is not the whole of what its windows now keep: whoever reads the same key
    is complete no sooner than a window of its own that begins where the earlier feature's did.
    """
    told = dict(warming)
    known = {feature.name: feature for feature in old.features}
    for feature in new.features:
        same = known.get(feature.name) == feature
        if same and feature.name in before:
            _put_off(told, feature.name, before[feature.name])
        for other in () if same else (known[name] for name in before):
            if _shares(feature, other):
                since_us = before[other.name]
                own_us = None if since_us is None else since_us - _reach_us(other) + _reach_us(feature)
                _put_off(told, feature.name, own_us)
        if isinstance(feature, ExpressionNode):
            for name in columns_of(feature.expression) & told.keys():
                _put_off(told, feature.name, told[name])
    return told


def _shares(feature: FeatureNode, other: FeatureNode) -> bool:
    """Whether what an earlier feature still misses, a new one may miss as well."""
    if not isinstance(feature, AggregateNode) or not isinstance(other, AggregateNode):
        return False
    if (feature.stream, feature.key) != (other.stream, other.key):
        return False
    if not isinstance(other.window, SessionWindow) or isinstance(feature.window, SessionWindow):
        return True
    # Of a session it may be no more than where it is cut; or else the column was not kept.
    return any(
        own is not None and own == its for own, its in ((feature.input, other.input), (feature.where, other.where))
    )


def _put_off(told: dict[str, int | None], name: str, since_us: int | None) -> None:
    """Let a feature be complete no sooner than ``since_us``; None is the latest of all."""
    known = told.get(name, 0)
    told[name] = None if since_us is None or known is None else max(known, since_us)


def _reach_us(feature: FeatureNode) -> int:
    assert isinstance(feature, AggregateNode)
    match feature.window:
        case SessionWindow(gap_us=gap_us, max_length_us=longest_us, delay_us=delay_us):
            return gap_us + longest_us + delay_us
        case window:
            return window.size_us + window.delay_us
