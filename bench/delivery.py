"""What exactly-once costs beside at-least-once: both with checkpoints, on the payments benchmark, in one run.

``python -m bench.delivery`` takes a quarter of an hour; ``--events 200000 --rounds 1 --seconds 5`` gives a first look. The scores of
every round are held against the oracle, by a reader of committed records: none may be missing, none there twice.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench.payments import run
from bench.targets import Target, tell

OUT = Path("bench/results/delivery.json")
KEPT, EXACTLY = "gillnet_kept", "gillnet_exactly_once"
SHARE = 0.8
LATENCY_MS = 50.0


def main() -> None:
    given = sys.argv[1:]
    defaults = {"--rates": ["1000"], "--latency-rounds": ["3"], "--rounds": ["5"], "--out": [str(OUT)]}
    left_out = [part for name, values in defaults.items() if name not in given for part in (name, *values)]
    sys.argv[1:] = ["--contenders", KEPT, EXACTLY, *left_out, *given]
    run.main()
    out = Path(sys.argv[sys.argv.index("--out") + 1])
    record = json.loads(out.read_text("utf-8"))
    rates = {result["contender"]: result["events_per_s"] for result in record["throughput"]}
    found = []
    if rates:
        share = rates[EXACTLY] / rates[KEPT]
        found.append(Target(name="exactly-once, throughput beside at-least-once's", value=share, at_least=SHARE))
    for latency in record["latency"]:
        if latency["contender"] == EXACTLY:
            name = f"exactly-once, p99 at {latency['rate_per_s']:,}/s, ms"
            found.append(Target(name=name, value=latency["p99_ms"], at_most=LATENCY_MS))
    tell(found)


if __name__ == "__main__":
    main()
