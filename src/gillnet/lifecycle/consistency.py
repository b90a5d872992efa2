"""Holds a live run's rows against the batch answer, byte by byte (I2): what `gillnet verify` and `gillnet repair` stand on.

A row as it was written and the row that the batch twin computes are both JSON from the same encoder, so equal values are equal
bytes, and a float that differs in its last bit is another text. What a live run emitted is held as a digest for each row; rows that
differ are looked up again to say how.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from gillnet.core.errors import SourceError
from gillnet.operators.decide import DECISION, REASONS, SCORE, DecideOperator
from gillnet.operators.encode import ColumnField, EncodeOperator, GroupField, OutputField
from gillnet.operators.records import SCORE_AS_SCORED
from gillnet.plan.expressions import columns_of
from gillnet.plan.nodes import BaselineNode, ExpressionNode
from gillnet.runtimes.embedded.revisions import REVISIONS
from gillnet.runtimes.embedded.stages import widened

if TYPE_CHECKING:
    from gillnet._kernel import Batch
    from gillnet.lifecycle.output_consistency import OutputConsistency
    from gillnet.plan.nodes import PipelinePlan
    from gillnet.serving.scorers import Scorer

DECISIONS = "decisions"
LOOKED_UP = 10_000
"""Differing rows that are looked up again, to say how they differ."""

Outputs = Callable[[], Iterable[tuple[str, bytes]]]
"""Gives every record of ``decisions`` and ``decisions.revisions`` as (output, record), each time it is called anew."""

_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str | int)


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not what the batch answer says.

    Attributes
    ----------
    id
        The event's id.
    emitted
        The row's content as last emitted: score, decision and features; None if it never was.
    expected
        As the batch twin computes it; None if it has no such row.
    history
        Every record about the row, in the order in which they were read.
    """

    id: str
    emitted: dict[str, Any] | None
    expected: dict[str, Any] | None
    history: tuple[dict[str, Any], ...] = ()

    @property
    def names(self) -> list[str]:
        """What differs: features by name, and ``score`` and ``decision``."""
        mine, theirs = _flat(self.emitted or {}), _flat(self.expected or {})
        return sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))

    @property
    def flipped(self) -> bool:
        """Whether the decision would have been another one."""
        return bool(self.emitted and self.expected and self.emitted.get(DECISION) != self.expected.get(DECISION))


@dataclass(slots=True)
class Consistency:
    """How a run's rows, after their last revision, compare with the batch answer.

    Attributes
    ----------
    rows
        Rows of either side.
    equal
        Rows that are the same bytes on both.
    missing, extra
        Rows that the batch answer has and the run never emitted, and the other way round.
    differing
        Rows of both whose content differs.
    revised
        Rows that went out more than once.
    left_out
        Features that are not compared, since they depend on when a row was judged and not only on the events: baselines.
    other_model
        Rows that another model version scored: their features are compared, their scores are not.
    differences
        The first `LOOKED_UP` of all that are not equal, in the order of the batch answer.
    outputs
        How the rows of the other outputs compare, by name: sessions, matches, joins.
    unwritten
        Outputs that went nowhere and are not compared.
    """

    rows: int = 0
    equal: int = 0
    missing: int = 0
    extra: int = 0
    differing: int = 0
    revised: int = 0
    left_out: tuple[str, ...] = ()
    other_model: int = 0
    differences: list[Difference] = field(default_factory=list)
    outputs: dict[str, OutputConsistency] = field(default_factory=dict)
    unwritten: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether every row is equal, those of the other outputs too."""
        return self.equal == self.rows and all(output.agrees for output in self.outputs.values())

    @property
    def share(self) -> float:
        """Equal rows among all; 1 if there are none."""
        return self.equal / self.rows if self.rows else 1.0

    @property
    def largest(self) -> tuple[str, str, float] | None:
        """The largest numeric difference among `differences`: (row's id, name, absolute difference)."""
        found: tuple[str, str, float] | None = None
        for difference in self.differences:
            mine, theirs = _flat(difference.emitted or {}), _flat(difference.expected or {})
            for name in mine.keys() & theirs.keys():
                one, other = mine[name], theirs[name]
                if isinstance(one, (int, float)) and isinstance(other, (int, float)):
                    gap = abs(one - other)
                    if gap > 0 and (found is None or gap > found[2]):
                        found = (difference.id, name, gap)
        return found


@dataclass(frozen=True, slots=True)
class _Row:
    """A row taken apart: what is compared, and whether score and decision belong to it."""

    id: str
    event_time: str
    content: bytes
    judged: bool


@dataclass(frozen=True, slots=True)
class _Emitted:
    revision: int
    digest: bytes
    judged: bool


class RowComparer:
    """Compares rows of one plan.

    Parameters
    ----------
    plan
        What both sides computed.
    scorer
        The model's scorer, where the plan has a model.
    """

    def __init__(self, plan: PipelinePlan, scorer: Scorer | None) -> None:
        self._plan = plan
        self._scorer = scorer
        self._id = plan.stream(plan.root).id
        self.left_out = _left_out(plan)
        # Where something is left out, score and decision may rest on it.
        judged = (DECISION, REASONS) if scorer is None else (SCORE, DECISION, REASONS)
        self._judged_by: tuple[str, ...] = () if self.left_out else judged
        self._encoder = EncodeOperator(self._fields(), omit_nulls=True)
        self._decide: DecideOperator | None = None

    def compare(
        self,
        outputs: Outputs,
        expected: Iterable[Batch],
        *,
        since: str = "",
        flagged_only: bool = False,
        most: int | None = LOOKED_UP,
    ) -> Consistency:
        """Hold what a run emitted against the batch answer's rows.

        Parameters
        ----------
        outputs
            What the run wrote.
        expected
            The batch answer's rows, in the order of event time.
        since
            Leave out emitted rows with an earlier event time, as rows write it (RFC 3339 in UTC).
        flagged_only
            A row that is simply allowed need not have been emitted.
        most
            Differing rows to look up; None for all.

        Raises
        ------
        SourceError
            If a record of the outputs is no row of this plan.
        """
        emitted = self._last_revisions(outputs(), since)
        result = Consistency(
            left_out=self.left_out,
            revised=sum(row.revision > 0 for row in emitted.values()),
            other_model=0 if self._scorer is None else sum(not row.judged for row in emitted.values()),
        )
        wanted: dict[str, _Row | None] = {}
        for row in self.expected_rows(expected):
            result.rows += 1
            found = emitted.pop(row.id, None)
            if found is None and flagged_only and not self._is_flagged(row):
                result.rows -= 1
                continue
            if found is not None and found.digest == _digest(row, judged=found.judged):
                result.equal += 1
                continue
            result.missing += found is None
            result.differing += found is not None
            if most is None or len(wanted) < most:
                wanted[row.id] = row
        result.rows += len(emitted)
        result.extra = len(emitted)
        wanted |= dict.fromkeys(list(emitted)[: None if most is None else most - len(wanted)])
        if wanted:
            result.differences = self._look_up(outputs(), wanted)
        return result

    def _is_flagged(self, row: _Row) -> bool:
        """Whether the batch answer flags the row; not known where decisions are not compared."""
        judged = dict(zip(self._judged_by, row.content.split(b"\n")[1:], strict=False))
        return judged.get(DECISION, b'"allow"') != b'"allow"'

    def expected_rows(self, batches: Iterable[Batch]) -> Iterator[_Row]:
        """Score, decide, encode and take apart the batch answer's rows."""
        for batch in batches:
            for line in self._encoder.encode(self._judge(batch)):
                yield self._row(_raw.decode(line), None)

    def _judge(self, batch: Batch) -> Batch:
        rows = batch if self._scorer is None else widened(self._scorer.score(batch))
        if self._decide is None:
            self._decide = DecideOperator(self._plan, rows.to_pyarrow().schema)
        return self._decide.decide(rows)[0]

    def _fields(self) -> list[OutputField]:
        score = [] if self._scorer is None else [ColumnField(SCORE, SCORE_AS_SCORED)]
        features = GroupField("features", tuple(ColumnField(feature.name) for feature in self._plan.features))
        times = ColumnField("event_time", self._plan.stream(self._plan.root).event_time)
        return [ColumnField(self._id), times, *score, ColumnField(DECISION), ColumnField(REASONS), features]

    def _last_revisions(self, records: Iterable[tuple[str, bytes]], since: str) -> dict[str, _Emitted]:
        last: dict[str, _Emitted] = {}
        for output, record in records:
            fields, revision = self._parse(output, record)
            row = self._row(fields, fields.get("model"))
            if row.event_time >= since and (row.id not in last or revision >= last[row.id].revision):
                last[row.id] = _Emitted(revision, _digest(row, judged=row.judged), row.judged)
        return last

    def _parse(self, output: str, record: bytes) -> tuple[dict[str, msgspec.Raw], int]:
        """Take a record apart: the row as of it, and its revision."""
        try:
            row = _raw.decode(record)
            if output != REVISIONS:
                return row, 0
            shared = {name: row[name] for name in (self._id, "event_time")}
            return {**_raw.decode(row["new"]), **shared}, msgspec.json.decode(row["revision"], type=int)
        except (msgspec.DecodeError, KeyError) as error:
            raise SourceError(
                f"{output}: a record is no row of pipeline {self._plan.name!r} ({error}); give the outputs of a run of it."
            ) from None

    def _row(self, fields: dict[str, msgspec.Raw], model: msgspec.Raw | None) -> _Row:
        """Return what is compared of a row; ``model`` is the one that scored it, if it says so."""
        try:
            features = fields["features"]
            name, when = str(_text.decode(fields[self._id])), str(_text.decode(fields["event_time"]))
            if self.left_out:
                kept = {key: raw for key, raw in _raw.decode(features).items() if key not in self.left_out}
                features = msgspec.Raw(msgspec.json.encode(kept))
            judged = [bytes(fields[key]) for key in self._judged_by]
        except KeyError as error:
            raise SourceError(
                f"A row has no {error}: comparing needs whole rows; run with options.detail=audit (the default)."
            ) from None
        ours = self._scorer is None or model is None or _text.decode(model) == self._scorer.model.label
        return _Row(name, when, b"\n".join([bytes(features), *judged]), ours and bool(judged))

    def _look_up(self, records: Iterable[tuple[str, bytes]], wanted: dict[str, _Row | None]) -> list[Difference]:
        history: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
        last: dict[str, tuple[int, _Row]] = {}
        for output, record in records:
            fields, revision = self._parse(output, record)
            row = self._row(fields, fields.get("model"))
            if row.id in history:
                history[row.id].append(msgspec.json.decode(record))
                if row.id not in last or revision >= last[row.id][0]:
                    last[row.id] = (revision, row)
        return [
            Difference(name, self._readable(last.get(name, (0, None))[1]), self._readable(row), tuple(history[name]))
            for name, row in wanted.items()
        ]

    def _readable(self, row: _Row | None) -> dict[str, Any] | None:
        if row is None:
            return None
        features, *judged = row.content.split(b"\n")
        values = dict(zip(self._judged_by, map(msgspec.json.decode, judged), strict=False))
        return {"event_time": row.event_time, **values, "features": msgspec.json.decode(features)}


def _left_out(plan: PipelinePlan) -> tuple[str, ...]:
    """Return the features that rest on baselines."""
    names: list[str] = []
    for feature in plan.features:
        rests = isinstance(feature, ExpressionNode) and not columns_of(feature.expression).isdisjoint(names)
        if isinstance(feature, BaselineNode) or rests:
            names.append(feature.name)
    return tuple(names)


def _digest(row: _Row, *, judged: bool) -> bytes:
    content = row.content if judged else row.content.partition(b"\n")[0]
    return hashlib.blake2b(content, digest_size=16).digest()


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in content.items() if name not in ("features", "event_time")}
    return {**content.get("features", {}), **rest}


def first_difference(differences: Sequence[Difference]) -> Difference | None:
    """Return the difference to show: the first whose decision flipped, else the first."""
    return next((d for d in differences if d.flipped), differences[0] if differences else None)
