"""A soak: ``gillnet run`` at a steady rate through a real broker, with checkpoints and history, watched for what grows.

``python -m bench.soak --minutes 30``. Every 10 s: memory, file handles, threads, disk, lag, and how old payments are when their
decision arrives. After the warm-up each figure's robust slope must be flat (`bench/soak/verdict.py` has the limits), and every record
must be accounted for. Prints the verdict, writes ``bench/results/soak.json``, and exits with 1 if anything grows.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.payments.machine import describe
from bench.soak.ends import Load, Probe
from bench.soak.verdict import LIMITS, Verdict, judge
from bench.soak.watch import Log, Process, disk
from gillnet.connectors.kafka import ensure_topics
from gillnet.connectors.local_kafka import LocalKafka

GILLNET = Path(sys.executable).with_name("gillnet")
APP = Path(__file__).with_name("app.py")
EVERY_S = 10.0
# The bursts, windows, lateness and the history's first joins are through after three minutes; the allocators take one more.
WARM_UP_S = 240.0
# The broker must not fill the disk: what was read and decided is not needed any more.
TOPIC = {"retention.ms": "120000", "segment.bytes": "16777216"}


def start(servers: str, place: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """Start the run that is watched; its log is beside its state."""
    log = place / "run.log"
    command: list[str | Path] = [GILLNET, "run", APP, "--plain", "--log", "json"]
    command += [
        "--source",
        f"payments=kafka://{servers}/payments?group=soak",
        "--sinks",
        f"kafka://{servers}/soak-{{name}}",
    ]
    command += ["--checkpoints", place / "checkpoints", "--history", place / "history"]
    command += ["--set", "options.checkpoint_interval=10s"]
    with log.open("wb") as stderr:
        return subprocess.Popen(command, stdout=stderr, stderr=stderr), log


def watch(
    process: subprocess.Popen[bytes], log: Log, probe: Probe, place: Path, until_s: float
) -> list[dict[str, Any]]:
    """Sample until a time, or until the run has ended, which is a failure."""
    samples: list[dict[str, Any]] = []
    seen, began_s = Process(process.pid), time.monotonic()
    while time.monotonic() < until_s:
        time.sleep(EVERY_S)
        if process.poll() is not None:
            raise SystemExit(f"The run has ended with {process.returncode}; see {place / 'run.log'}.")
        log.follow()
        checkpoints, history = disk(place / "checkpoints"), disk(place / "history")
        sample: dict[str, Any] = {
            "at_s": round(time.monotonic() - began_s, 1),
            **seen.sample(),
            "checkpoints_bytes": checkpoints[0],
            "checkpoints_files": checkpoints[1],
            "history_bytes": history[0],
            "history_files": history[1],
            "lag_records": log.last.get("lag", 0),
            **probe.percentiles_ms(),
        }
        samples.append(sample)
        tell_sample(sample)
    return samples


def tell_sample(sample: dict[str, Any]) -> None:
    """Print one look."""
    figures = {
        "RSS": f"{sample['rss_bytes'] / 1e6:.1f} MB",
        "handles": sample["handles"],
        "threads": sample["threads"],
        "checkpoints": f"{sample['checkpoints_bytes'] / 1e6:.2f} MB",
        "history": f"{sample['history_bytes'] / 1e6:.1f} MB in {sample['history_files']} files",
        "lag": sample["lag_records"],
        "p50": f"{sample['latency_ms_p50']} ms",
        "p99": f"{sample['latency_ms_p99']} ms",
    }
    print(f"{sample['at_s']:6.0f} s  " + "  ".join(f"{name} {value}" for name, value in figures.items()), flush=True)


def settle(probe: Probe, quiet_s: float = 3.0) -> None:
    """Wait until no decision comes any more."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() - probe.last_s < quiet_s and time.monotonic() < deadline_s:
        time.sleep(0.1)


def accounted(written: Counter[str], log: Log, probe: Probe) -> dict[str, Any]:
    """Return what was written, what the run says became of it, and whether they add up (I3)."""
    log.follow()
    told = dict(part.split("=") for part in log.last["payments"].split())
    counts = {name: int(value) for name, value in told.items()}
    in_time = written["ordinary"] + written["late"] + written["too_late"]
    whole = (
        counts["read"] == sum(written.values())
        and counts["scored"] == probe.decisions == in_time - counts["too_late"]
        and counts["too_late"] <= written["too_late"]  # Before there is a watermark nothing is too late.
        and all(counts[kind] == written[kind] for kind in ("duplicate", "malformed"))
    )
    return {"written": dict(written), "run": counts, "decisions_received": probe.decisions, "adds_up": whole}


def tell(verdicts: list[Verdict]) -> None:
    """Print what became of each figure."""
    print(f"\n{'figure':<20}{'median':>16}{'growth':>16}{'may grow by':>16}   over {verdicts[0].samples} samples")
    for verdict in verdicts:
        word = "flat" if verdict.flat else "GROWS"
        print(f"{verdict.figure:<20}{verdict.median:>16,.1f}{verdict.growth:>16,.1f}{verdict.allowed:>16,.1f}   {word}")


def soak(minutes: float, rate: int, place: Path) -> dict[str, Any]:
    """Run a soak and return its result."""
    with LocalKafka() as kafka:
        servers = kafka.bootstrap_servers
        ensure_topics(["payments", "soak-decisions"], bootstrap_servers=servers, config=TOPIC)
        process, log_path = start(servers, place)
        load, probe = Load(servers, "payments", rate=rate, seed=6), Probe(servers, "soak-decisions")
        try:
            load.start()
            probe.start()
            log = Log(log_path)
            samples = watch(process, log, probe, place, time.monotonic() + minutes * 60)
            written = load.end()
            settle(probe)
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
            settle(probe)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            probe.end()
        accounts = accounted(written, log, probe)
    warm = [sample for sample in samples if sample["at_s"] >= WARM_UP_S]
    if len(warm) < 6:
        raise SystemExit(
            f"{minutes:g} minutes leave {len(warm)} samples after the warm-up of {WARM_UP_S:g} s; soak for longer."
        )
    times = [sample["at_s"] for sample in warm]
    verdicts = [judge(figure, times, [sample[figure] for sample in warm]) for figure in LIMITS]
    return {
        "machine": describe(),
        "minutes": minutes,
        "rate": rate,
        "warm_up_s": WARM_UP_S,
        "exit_code": code,
        "accounts": accounts,
        "log_lines": dict(log.counts),
        "verdicts": [{**asdict(verdict), "flat": verdict.flat} for verdict in verdicts],
        "flat": all(verdict.flat for verdict in verdicts) and accounts["adds_up"] and code == 0,
        "samples": samples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=int, default=1_000, help="payments a second")
    parser.add_argument("--out", type=Path, default=Path("bench/results/soak.json"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gillnet-soak-") as place:
        result = soak(arguments.minutes, arguments.rate, Path(place))
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    tell([Verdict(**{name: v[name] for name in Verdict.__slots__}) for v in result["verdicts"]])
    print(f"accounts: {result['accounts']}")
    print(f"log: {result['log_lines']}")
    print("flat" if result["flat"] else "NOT FLAT", f"; {arguments.out}", sep="")
    sys.exit(0 if result["flat"] else 1)


if __name__ == "__main__":
    main()
