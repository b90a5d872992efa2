"""CPU per record of decoding and encoding JSON payments, next to the libraries that one would take otherwise.

Run ``python bench/json_codec.py``. One thread; the best of several rounds of process CPU time. msgspec, Polars and
pyarrow parse into their own typed values with fewer checks than Gillnet makes (no bounds, no exact decimals, no
reasons), and msgspec and orjson leave the step to columns undone, so that their figures are floors.
"""

from __future__ import annotations

import importlib.util
import io
import json
import platform
import random
import sys
import time
from typing import TYPE_CHECKING

import msgspec
import pyarrow.json

from gillnet.core.messages import RawBatch
from gillnet.core.schema import Decimal, Schema, String, Timestamp
from gillnet.operators.decode import DecodeOperator
from gillnet.operators.encode import ColumnField, EncodeOperator

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = Schema(
    tx_id=String(),
    ts=Timestamp("ms"),
    card_id=String(),
    user_id=String(),
    device_id=String(nullable=True),
    merchant_id=String(),
    amount=Decimal(2, minimum=0),
    currency=String(),
    status=String(),
)


class Payment(msgspec.Struct):
    tx_id: str
    ts: int
    card_id: str
    user_id: str
    device_id: str | None
    merchant_id: str
    amount: float
    currency: str
    status: str


def payments(count: int) -> list[bytes]:
    """Make records of about 170 bytes, from a fixed seed."""
    draw = random.Random(1).randrange
    return [
        msgspec.json.encode(
            Payment(
                f"t-{index:010d}",
                1_700_000_000_000 + index,
                f"c-{draw(50_000):06d}",
                f"u-{draw(50_000)}",
                f"d-{draw(10_000)}",
                f"m-{draw(1_000)}",
                draw(20_000) / 100,
                "EUR",
                "approved",
            )
        )
        for index in range(count)
    ]


def cpu_us(work: Callable[[], object], records: int) -> float:
    """Return the CPU time of ``work`` in microseconds a record: the best of seven rounds of some 100 ms."""
    repeats = max(1, 100_000 // max(records, 20))
    best = float("inf")
    for _ in range(7):
        start = time.process_time()
        for _ in range(repeats):
            work()
        best = min(best, time.process_time() - start)
    return best / repeats / records * 1e6


def decoders(values: list[bytes]) -> dict[str, Callable[[], object]]:
    """Give each contender's decoding of ``values``."""
    operator = DecodeOperator(SCHEMA, id="tx_id", keys=["card_id", "user_id", "device_id", "merchant_id"])
    raw = RawBatch(stream="payments", values=values, partitions=[0] * len(values), arrival_time_us=0)
    typed = msgspec.json.Decoder(Payment)
    work: dict[str, Callable[[], object]] = {
        "gillnet (Arrow columns, all checks)": lambda: operator.decode(raw),
        "msgspec typed (objects)": lambda: [typed.decode(value) for value in values],
        "pyarrow.json (Arrow columns)": lambda: pyarrow.json.read_json(
            io.BytesIO(b"\n".join(values)), pyarrow.json.ReadOptions(use_threads=False)
        ),
    }
    if importlib.util.find_spec("orjson"):
        import orjson

        work["orjson (dicts)"] = lambda: [orjson.loads(value) for value in values]
    if importlib.util.find_spec("polars"):
        import polars

        work["Polars read_ndjson (columns)"] = lambda: polars.read_ndjson(io.BytesIO(b"\n".join(values)))
    return work


def encoders(values: list[bytes]) -> dict[str, Callable[[], object]]:
    """Give each contender's encoding of the rows of ``values``."""
    raw = RawBatch(stream="payments", values=values, partitions=[0] * len(values), arrival_time_us=0)
    batch = DecodeOperator(SCHEMA).decode(raw).batch
    operator = EncodeOperator([ColumnField(name, timestamp="ms" if name == "ts" else None) for name in SCHEMA])
    assert [json.loads(record) for record in operator.encode(batch)] == [json.loads(value) for value in values]
    typed = [msgspec.json.decode(value, type=Payment) for value in values]
    encoder = msgspec.json.Encoder()
    work: dict[str, Callable[[], object]] = {
        "gillnet (from Arrow columns)": lambda: operator.encode(batch),
        "msgspec typed (from objects)": lambda: [encoder.encode(value) for value in typed],
    }
    if importlib.util.find_spec("orjson"):
        import orjson

        dicts = [json.loads(value) for value in values]
        work["orjson (from dicts)"] = lambda: [orjson.dumps(value) for value in dicts]
    return work


def main() -> None:
    sizes = (1, 8, 1_000, 4_096)
    values = payments(max(sizes))
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {sys.platform}")
    print(f"{len(values[0])} bytes a record; µs of CPU a record\n")
    for title, contenders in (("decode", decoders), ("encode", encoders)):
        print(f"{title + ', rows at once':<40}" + "".join(f"{size:>10,}" for size in sizes))
        rounds = [contenders(values[:size]) for size in sizes]
        for name in rounds[0]:
            figures = [cpu_us(work[name], size) for work, size in zip(rounds, sizes, strict=True)]
            print(f"{name:<40}" + "".join(f"{figure:>10.3f}" for figure in figures))
        print()


if __name__ == "__main__":
    main()
