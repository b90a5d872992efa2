"""Runs cases on `crates/gillnet-flow`, which Flink's and Spark's hosts run: as one flow, and shared out among shards."""

from __future__ import annotations

import itertools
import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.cases.outcome import COUNTS, Outcome, final_join, final_matches, final_sessions, side_line

from gillnet._kernel import Flow, FlowProgram, Intake, write_chunk
from gillnet.operators.program import compile_program, shard_columns

if TYPE_CHECKING:
    from tests.cases.harness import Case
    from tests.cases.script import Step

_COUNT_ORDER = ("read", "scored", "malformed", "duplicate", "too_late", "late")


@dataclass(frozen=True, slots=True)
class Written:
    """A record that came out."""

    output: str
    value: bytes
    headers: dict[str, bytes]


def read_records(frame: bytes, names: list[str]) -> Iterator[Written]:
    """Read what a flow writes; `crates/gillnet-flow/src/frame.rs` says how."""
    place = 0

    def take(form: str) -> int:
        nonlocal place
        (number,) = struct.unpack_from(form, frame, place)
        place += struct.calcsize(form)
        return int(number)

    def string() -> bytes | None:
        nonlocal place
        if (length := take("<i")) < 0:
            return None
        place += length
        return frame[place - length : place]

    for _ in range(take("<I") if frame else 0):
        output = names[take("<H")]
        string()
        headers = _headers(string())
        yield Written(output, string() or b"", headers)
    assert place == len(frame), "bytes are left"


def _headers(block: bytes | None) -> dict[str, bytes]:
    found, place = {}, 2
    for _ in range(struct.unpack_from("<H", block)[0] if block else 0):
        assert block is not None
        (length,) = struct.unpack_from("<H", block, place)
        name, place = block[place + 2 : place + 2 + length].decode(), place + 2 + length
        (length,) = struct.unpack_from("<i", block, place)
        found[name], place = block[place + 4 : place + 4 + length], place + 4 + length
    return found


class Host:
    """One flow, or several shards of one behind an intake for each stream, as a JVM would host them."""

    def __init__(self, case: Case, *, shards: int | None) -> None:
        plan = case.pipeline.plan
        self.program = FlowProgram(compile_program(plan, None, emit="all"))
        self.names = self.program.outputs()
        self.streams = [stream.name for stream in plan.streams]
        self.flows = [Flow(self.program) for _ in range(shards or 1)]
        self.intakes = [Intake(self.program, number, shards, 0) for number in range(len(self.streams)) if shards]
        self.outputs: dict[str, list[Written]] = defaultdict(list)
        self.refused = dict.fromkeys(self.streams, 0)
        heard = {
            step.stream: {s.partition for s in case.script.steps if s.stream == step.stream and s.value is not None}
            for step in case.script.steps
        }
        self._assigned = {name: sorted(case.script.partitions.get(name, heard.get(name, ()))) for name in self.streams}
        self._counted = {name: [0] * len(_COUNT_ORDER) for name in self.streams}

    def write(self, frame: bytes) -> None:
        for record in read_records(frame, self.names):
            self.outputs[record.output].append(record)

    def each(self, step: Callable[[Flow], bytes]) -> None:
        for flow in self.flows:
            self.write(step(flow))

    def step(self, steps: list[Step]) -> None:
        ended = steps[0].end
        if steps[0].value is not None:
            self._take(steps)
        elif ended is not None:
            self.each(lambda flow: flow.finish(self.streams.index(ended)))

    def _take(self, steps: list[Step]) -> None:
        number = self.streams.index(steps[0].stream)
        # Assigned partitions hold the watermark from the stream's first record on.
        for flow, partition in itertools.product(self.flows, self._assigned.pop(steps[0].stream, ())):
            flow.register(number, partition, steps[0].at_us)
        records = [(step.partition, None, None, None, step.value or b"") for step in steps]
        chunk = write_chunk(number, steps[0].at_us, records)
        if not self.intakes:
            return self.write(self.flows[0].take(chunk))
        shared, aside = self.intakes[number].share(chunk)
        self.refused[steps[0].stream] += len(list(read_records(aside, self.names)))
        self.write(aside)
        for shard, part in shared:
            self.write(self.flows[shard].take(part))
        return None

    def restore(self) -> None:
        self._count()
        self.flows = [Flow(self.program, flow.snapshot()) for flow in self.flows]

    def counts(self) -> dict[str, dict[str, int]]:
        self._count()
        told = {}
        for stream, counted in self._counted.items():
            counts = dict(zip(_COUNT_ORDER, counted, strict=True))
            counts["read"] += self.refused[stream]
            counts["malformed"] += self.refused[stream]
            told[stream] = {name: counts[name] for name in COUNTS}
        return told

    def _count(self) -> None:
        for flow in self.flows:
            for stream, counts in zip(self.streams, flow.stream_counts(), strict=True):
                self._counted[stream] = [one + other for one, other in zip(self._counted[stream], counts, strict=True)]


def can_be_shared(case: Case) -> bool:
    """Whether a case's plan can be shared out among shards."""
    return bool(shard_columns(case.pipeline.plan))


def run_flow(
    case: Case, *, batch_records: int | None = None, restore_every: int | None = None, shards: int | None = None
) -> Outcome:
    """Run a case in batches of at most so many records of one arrival, restored from its snapshot every so many steps."""
    host = Host(case, shards=shards if can_be_shared(case) else None)
    looked_us = case.script.steps[0].at_us
    groups = [list(group) for _, group in itertools.groupby(case.script.steps, _together)]
    for turn, steps in enumerate(_cut(groups, batch_records), 1):
        now_us = steps[0].at_us
        host.step(steps)
        if steps[0].value is None or now_us - looked_us >= 1_000_000:
            host.each(lambda flow, now_us=now_us: flow.pass_time(now_us))
            looked_us = now_us
        if restore_every is not None and turn % restore_every == 0:
            host.restore()
    for number in range(len(host.streams)):
        host.each(lambda flow, number=number: flow.finish(number))
    host.each(lambda flow: flow.end(case.script.steps[-1].at_us))
    return _outcome(case, host)


def _together(step: Step) -> tuple[int, str, bool, str | None]:
    return step.at_us, step.stream, step.value is None, step.end


def _cut(groups: list[list[Step]], most: int | None) -> Iterator[list[Step]]:
    for group in groups:
        size = most or len(group)
        yield from (group[begin : begin + size] for begin in range(0, len(group), size))


def _outcome(case: Case, host: Host) -> Outcome:
    texts = {
        name: [record.value.decode() for record in records]
        for name, records in host.outputs.items()
        if name.count(".") == 0
    }
    sides = {
        f"{stream}.{kind}": [_side(f"{stream}.{kind}", record) for record in records]
        for stream, kind in itertools.product(host.streams, ("malformed", "duplicate", "too_late", "late"))
        if (records := host.outputs.get(f"{stream}.{kind}"))
    }
    joins = [
        line
        for join in case.pipeline.plan.joins
        for line in final_join(join.name, [record.value.decode() for record in host.outputs[f"joins.{join.name}"]])
    ]
    return Outcome(
        texts.get("decisions", []),
        final_sessions(texts.get("sessions", [])),
        final_matches(texts.get("matches", [])),
        sorted(joins),
        sides,
        host.counts(),
    )


def _side(output: str, record: Written) -> str:
    return side_line(
        output,
        reason=record.headers["gillnet.reason"].decode(),
        partition=int(record.headers["gillnet.partition"]),
        value=record.value,
    )
