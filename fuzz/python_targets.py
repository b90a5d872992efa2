"""Fuzz targets for what Python reads: manifests and owners of checkpoints, URIs, configuration, headers of records aside.

``PYTHONPATH=src python fuzz/python_targets.py TARGET SEEDS -max_total_time=60`` (libFuzzer's arguments, through Atheris). Whatever the
input is, the answer is a value or an error of Gillnet's own; anything else is found. ``TARGET`` ``--seed FOLDER`` writes the seeds.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEEDING = "--seed" in sys.argv

if not SEEDING:
    import atheris

    with atheris.instrument_imports(include=["gillnet", "tomllib", "urllib.parse"]):
        import gillnet.app.config
        import gillnet.app.sinks
        import gillnet.state.checkpoints

import msgspec

import gillnet as gn
from gillnet.app.config import RunConfig, load_config
from gillnet.app.finished import _value_in_file
from gillnet.app.runs import with_groups
from gillnet.app.sinks import SinkRoutes, place_pattern
from gillnet.connectors.files.sink import _as_json
from gillnet.connectors.uri import parse_uri
from gillnet.core.errors import GillnetError, StateError
from gillnet.core.messages import RawBatch
from gillnet.observability.metrics import RunMetrics
from gillnet.operators.decode import Malformed, malformed_records
from gillnet.state import CheckpointStore
from gillnet.state.checkpoints import Checkpoint, _parsed, _sealed

PAYMENT = gn.Schema(id=gn.String(), ts=gn.Timestamp("ms"), card=gn.String(), amount=gn.Decimal(2))
PAYMENTS = gn.Stream("payments", schema=PAYMENT, id="id", event_time="ts")
PLAN = gn.Pipeline(gn.Features(PAYMENTS, n=PAYMENTS.by("card").count(over="5m")), name="fuzzed").plan
WHOLE = Checkpoint(
    number=7,
    taken_us=1,
    started_us=0,
    pipeline="fuzzed",
    marks={"payments": {0: 3, 12: 4}},
    counts={**RunMetrics().counts(), "alerted": [["a", 1, "block"]], "ended": []},
)
SCRATCH = Path(tempfile.mkdtemp(prefix="gillnet-fuzz-"))


def manifest(data: bytes) -> None:
    """Read a manifest as it came, and one whose checksum fits, as a forger or a later version would write it."""
    for text in (
        data,
        json.dumps({"sha256": hashlib.sha256(data).hexdigest(), "checkpoint": data.decode("utf-8", "replace")}),
    ):
        try:
            checkpoint = _parsed(text if isinstance(text, bytes) else text.encode(), 7, what="m")
            RunMetrics().restore(checkpoint.counts)
        except StateError:
            continue
        # What passed is what a run would go on from.
        again = _parsed(_sealed(checkpoint), 7, what="m")
        assert again == checkpoint
        assert all(isinstance(place, int) for mark in checkpoint.marks.values() for place in mark.values())


def owner(data: bytes) -> None:
    """Read an owner's file as anyone may have left it."""
    (SCRATCH / "owner.json").write_bytes(data)
    try:
        CheckpointStore(SCRATCH).own()
    except StateError:
        (SCRATCH / "owner.json").unlink()


def uri(data: bytes) -> None:
    """Read what stands on the command line."""
    text = data.decode("utf-8", "replace")
    for read in (
        lambda: parse_uri(text, what="Source"),
        lambda: place_pattern(text, what="--sinks"),
        lambda: with_groups(PLAN, {"payments": text}),
        lambda: SinkRoutes(PLAN, {"decisions": text}),
        lambda: RunConfig().changed(settings=[text], sources=[text]),
    ):
        try:
            read()
        except GillnetError:
            continue


def config(data: bytes) -> None:
    """Read a configuration file."""
    place = SCRATCH / "gillnet.toml"
    place.write_bytes(data)
    try:
        read = load_config(place)
        SinkRoutes(PLAN, read.sinks, default=read.default_sink, connection=read.connection)
    except GillnetError:
        return


def headers(data: bytes) -> None:
    """Set a record aside with whatever key and headers it came with, and read it back from the file."""
    parts = data.split(b"\xff", 6)
    names = [part.decode("utf-8", "replace") for part in parts[2:]]
    given = [(name, None if len(name) % 5 == 0 else part) for name, part in zip(names, reversed(parts), strict=False)]
    key = parts[1] if len(parts) > 1 else None
    raw = RawBatch(
        stream="payments", values=[parts[0]], partitions=[3], arrival_time_us=1, envelope=lambda _: (key, list(given))
    )
    [record] = malformed_records(raw, [Malformed(0, "not_json", "an excerpt")])
    line = msgspec.json.encode(_as_json(record))
    assert b"\n" not in line
    try:
        whole = parts[0].decode().encode()
    except UnicodeDecodeError:
        whole = b""  # What is no UTF-8 stands there as base64, and can be no JSON record.
    assert _value_in_file(line) == whole


TARGETS: dict[str, Callable[[bytes], None]] = {
    "manifest": manifest,
    "owner": owner,
    "uri": uri,
    "config": config,
    "headers": headers,
}


def seeds(target: str) -> list[bytes]:
    """Return what a target begins with."""
    sealed = _sealed(WHOLE)
    return {
        "manifest": [sealed, json.loads(sealed)["checkpoint"].encode(), b"{}", b"[" * 2_000, b'{"format":1}'],
        "owner": [b'{"owner": 3}', b"", b"[]", b'{"owner": "x"}', b'{"owner": 1e400}', b"[" * 2_000],
        "uri": [
            b"kafka://h:9092/t?group=g&start=latest",
            b"file:///a/b.ndjson.gz?mode=append",
            b"out/{name}.ndjson",
            b"simulator:payments?rate=5",
            b"kafka://[::1/x",
            b"s3://a:b@c/d",
            b"kafka.sasl.password=x",
            b"-",
        ],
        "config": [
            b'models = "m"\ncheckpoints = "s3://b/c"\n[sources]\np = "x"\n[sinks]\ndefault = "o/{name}.ndjson"\n',
            b'[kafka]\n"a.b" = "${HOME}"\nsecurity.protocol = "SSL"\n[options]\nlatency_budget = "5ms"\nmax_records = 5\n',
            b"x = " + b"[" * 2_000,
            b'[options]\nlatency_budget = "99999999999999999999999d"\n',
        ],
        "headers": [b"{\xffkey\xffname\xfftrace\xff", b"\x80\x81\xff\xff\xff\xff", b'{"id": "\xff'],
    }[target]


def main() -> None:
    """Fuzz one target, or write its seeds."""
    target = sys.argv[1]
    if SEEDING:
        folder = Path(sys.argv[3])
        folder.mkdir(parents=True, exist_ok=True)
        for seed in seeds(target):
            (folder / hashlib.sha256(seed).hexdigest()[:20]).write_bytes(seed)
        return
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
