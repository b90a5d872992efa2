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
from gillnet.plan.expressions import columns_of
from gillnet.plan.nodes import BaselineNode, ExpressionNode
from gillnet.runtimes.embedded.revisions import REVISIONS
from gillnet.runtimes.embedded.stages import SCORE_AS_SCORED, widened

if TYPE_CHECKING:
    from gillnet._kernel import Batch
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
        return bool(self.emitted and self.expected and self.emitted["decision"] != self.expected["decision"])


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
    differences
        The first `LOOKED_UP` of all that are not equal, in the order of the batch answer.
    """

    rows: int = 0
    equal: int = 0
    missing: int = 0
    extra: int = 0
    differing: int = 0
    revised: int = 0
    left_out: tuple[str, ...] = ()
    differences: list[Difference] = field(default_factory=list)

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
class _Emitted:
    revision: int
    digest: bytes


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
        self._judged = not self.left_out  # Otherwise score and decision may rest on what is left out.
        self._encoder = EncodeOperator(self._fields(), omit_nulls=True)
        self._decide: DecideOperator | None = None

    def compare(self, outputs: Outputs, expected: Iterable[Batch]) -> Consistency:
        """Hold what a run emitted against the batch answer's rows.

        Raises
        ------
        SourceError
            If a record of the outputs is no row of this plan.
        """
        emitted = self._last_revisions(outputs())
        result = Consistency(left_out=self.left_out, revised=sum(row.revision > 0 for row in emitted.values()))
        wanted: dict[str, bytes | None] = {}
        for name, content in self.expected_rows(expected):
            result.rows += 1
            found = emitted.pop(name, None)
            if found is not None and found.digest == _digest(content):
                result.equal += 1
                continue
            result.missing += found is None
            result.differing += found is not None
            if len(wanted) < LOOKED_UP:
                wanted[name] = content
        result.rows += len(emitted)
        result.extra = len(emitted)
        wanted |= dict.fromkeys(list(emitted)[: LOOKED_UP - len(wanted)])
        if wanted:
            result.differences = self._look_up(outputs(), wanted)
        return result

    def expected_rows(self, batches: Iterable[Batch]) -> Iterator[tuple[str, bytes]]:
        """Score, decide and encode the batch answer's rows: (id, content)."""
        for batch in batches:
            for line in self._encoder.encode(self._judge(batch)):
                yield self._content(_raw.decode(line))

    def _judge(self, batch: Batch) -> Batch:
        rows = batch if self._scorer is None else widened(self._scorer.score(batch))
        if self._decide is None:
            self._decide = DecideOperator(self._plan, rows.to_pyarrow().schema)
        return self._decide.decide(rows)[0]

    def _fields(self) -> list[OutputField]:
        score = [] if self._scorer is None else [ColumnField(SCORE, SCORE_AS_SCORED)]
        features = GroupField("features", tuple(ColumnField(feature.name) for feature in self._plan.features))
        return [ColumnField(self._id), *score, ColumnField(DECISION), ColumnField(REASONS), features]

    def _last_revisions(self, records: Iterable[tuple[str, bytes]]) -> dict[str, _Emitted]:
        last: dict[str, _Emitted] = {}
        for output, record in records:
            row, revision = self._parse(output, record)
            name, content = self._content(row)
            if name not in last or revision >= last[name].revision:
                last[name] = _Emitted(revision, _digest(content))
        return last

    def _parse(self, output: str, record: bytes) -> tuple[dict[str, msgspec.Raw], int]:
        """Take a record apart: the row as of it, and its revision."""
        try:
            row = _raw.decode(record)
            if output != REVISIONS:
                return row, 0
            return {**_raw.decode(row["new"]), self._id: row[self._id]}, msgspec.json.decode(row["revision"], type=int)
        except (msgspec.DecodeError, KeyError) as error:
            raise SourceError(
                f"{output}: a record is no row of pipeline {self._plan.name!r} ({error}); give the outputs of a run of it."
            ) from None

    def _content(self, row: dict[str, msgspec.Raw]) -> tuple[str, bytes]:
        """Return the row's id, and the bytes that are compared."""
        try:
            features = row["features"]
            name = str(_text.decode(row[self._id]))
            if self.left_out:
                kept = {key: raw for key, raw in _raw.decode(features).items() if key not in self.left_out}
                features = msgspec.Raw(msgspec.json.encode(kept))
            judged = [bytes(row[key]) for key in (SCORE, DECISION, REASONS) if key in row] if self._judged else []
        except KeyError as error:
            raise SourceError(
                f"A row has no {error}: verifying needs whole rows; run with options.detail=audit (the default)."
            ) from None
        return name, b"\n".join([bytes(features), *judged])

    def _look_up(self, records: Iterable[tuple[str, bytes]], wanted: dict[str, bytes | None]) -> list[Difference]:
        history: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
        last: dict[str, tuple[int, bytes]] = {}
        for output, record in records:
            row, revision = self._parse(output, record)
            name, content = self._content(row)
            if name in history:
                history[name].append(msgspec.json.decode(record))
                if name not in last or revision >= last[name][0]:
                    last[name] = (revision, content)
        return [
            Difference(
                name, self._readable(last.get(name, (0, None))[1]), self._readable(content), tuple(history[name])
            )
            for name, content in wanted.items()
        ]

    def _readable(self, content: bytes | None) -> dict[str, Any] | None:
        if content is None:
            return None
        features, *judged = content.split(b"\n")
        names = ([] if self._scorer is None else [SCORE]) + [DECISION, REASONS]
        values = dict(zip(names, map(msgspec.json.decode, judged), strict=False))
        return {**values, "features": msgspec.json.decode(features)}


def _left_out(plan: PipelinePlan) -> tuple[str, ...]:
    """Return the features that rest on baselines."""
    names: list[str] = []
    for feature in plan.features:
        rests = isinstance(feature, ExpressionNode) and not columns_of(feature.expression).isdisjoint(names)
        if isinstance(feature, BaselineNode) or rests:
            names.append(feature.name)
    return tuple(names)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    rest = {name: value for name, value in content.items() if name != "features"}
    return {**content.get("features", {}), **rest}


def first_difference(differences: Sequence[Difference]) -> Difference | None:
    """Return the difference to show: the first whose decision flipped, else the first."""
    return next((d for d in differences if d.flipped), differences[0] if differences else None)
