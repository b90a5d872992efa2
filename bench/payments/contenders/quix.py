"""Quix Streams: a stateful ``apply`` over its RocksDB state, and the model called per record, as its guides do.

Its windows can't serve here: each makes a stream of its own, and this job needs three windows on one row. So the
state of a card is kept with ``State``: one small summary, and one entry a payment under its own number. A payment then
costs a handful of state operations however long the window is; rewriting a list of the whole window would cost far
more. Checkpoints every 5 s with changelog topics are its defaults.
"""

from __future__ import annotations

import math
import tempfile
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xgboost
from quixstreams import Application, State

from bench.payments.contract import DAY_MS, HOUR_MS, MINUTE_MS, Job, Meter, announce_ready, decide, parse_job

if TYPE_CHECKING:
    from collections.abc import Callable

Row = dict[str, Any]
CardStore = State[str, Any]


def _new_summary() -> Row:
    return {
        "next": 0,  # number of the payment to come; the three below are the first ones inside each window
        "first_5m": 0,
        "first_1h": 0,
        "first_1d": 0,
        "cents_5m": 0,
        "cents_1d": 0,
        "declined_1h": 0,
        "peaks_1h": [],  # [time, cents] of the hour's amounts that no later one exceeds
        "last_ms": None,
    }


def _event(state: CardStore, number: int) -> list[int]:
    return cast("list[int]", state.get(f"e{number}"))


def _evict(summary: Row, state: CardStore, time_ms: int) -> None:
    """Move the start of each window past the payments that have left it; forget those that left the longest one."""
    number = summary["first_5m"]
    while (event := _event(state, number))[0] <= time_ms - 5 * MINUTE_MS:
        summary["cents_5m"] -= event[1]
        number += 1
    summary["first_5m"] = number

    number = summary["first_1h"]
    while (event := _event(state, number))[0] <= time_ms - HOUR_MS:
        summary["declined_1h"] -= event[2]
        number += 1
    summary["first_1h"] = number

    number = summary["first_1d"]
    while (event := _event(state, number))[0] <= time_ms - DAY_MS:
        summary["cents_1d"] -= event[1]
        state.delete(f"e{number}")
        number += 1
    summary["first_1d"] = number

    peaks = summary["peaks_1h"]
    while peaks[0][0] <= time_ms - HOUR_MS:
        del peaks[0]


def featurise(payment: Row, state: CardStore) -> tuple[float, ...]:
    """Take one payment into the card's state and return its features in the order of the contract."""
    summary = state.get("summary") or _new_summary()
    time_ms, cents, declined = payment["ts"], round(payment["amount"] * 100), payment["status"] == "declined"
    state.set(f"e{summary['next']}", [time_ms, cents, declined])
    summary["next"] += 1
    summary["cents_5m"] += cents
    summary["cents_1d"] += cents
    summary["declined_1h"] += declined
    peaks = summary["peaks_1h"]
    while peaks and peaks[-1][1] <= cents:
        del peaks[-1]
    peaks.append([time_ms, cents])
    _evict(summary, state, time_ms)
    previous, summary["last_ms"] = summary["last_ms"], time_ms
    state.set("summary", summary)
    return (
        payment["amount"],
        time_ms // HOUR_MS % 24,
        summary["cents_5m"] / 100,
        summary["next"] - summary["first_1h"],
        summary["declined_1h"],
        peaks[0][1] / 100,
        summary["cents_1d"] / (100 * (summary["next"] - summary["first_1d"])),
        math.nan if previous is None else (time_ms - previous) / 1000,
    )


def _scorer(job: Job, meter: Meter) -> Callable[[Row, CardStore], Row]:
    booster = xgboost.Booster(model_file=job.model)
    booster.set_param({"nthread": 1})

    def score(payment: Row, state: CardStore) -> Row:
        meter.start()
        meter.batches += 1
        features = np.array([featurise(payment, state)], dtype=np.float32)
        value = float(booster.inplace_predict(features, validate_features=False)[0])
        return {"tx_id": payment["tx_id"], "score": value, "decision": decide(value)}

    return score


def main() -> None:
    job, meter = parse_job(), Meter()
    with tempfile.TemporaryDirectory(prefix="bench-quix-") as state_dir:
        application = Application(
            broker_address=job.bootstrap,
            consumer_group=job.group,
            auto_offset_reset="earliest",
            consumer_extra_config={"fetch.queue.backoff.ms": 2},
            producer_extra_config={"linger.ms": 20 if job.mode == "throughput" else 0},
            state_dir=state_dir,
            loglevel="WARNING",
        )
        payments = application.dataframe(application.topic(job.input, value_deserializer="json"))
        scores = payments.apply(_scorer(job, meter), stateful=True)
        scores.to_topic(application.topic(job.output, value_serializer="json"))
        announce_ready()
        application.run(count=job.events, collect=False)  # Returns after a last checkpoint, which flushes.
        meter.finish(job.events)


if __name__ == "__main__":
    main()
