"""Bytewax: its Kafka source and sink, a stateful map per card, and a prediction per batch of the engine.

``flat_map_batch`` hands over whatever the engine has at that moment, so XGBoost runs on real batches. One worker. No
recovery store is configured (Bytewax's own default), so unlike the hand-written loop it records no progress.
``add_config`` sets the same ``fetch.queue.backoff.ms`` as the hand-written loop.
"""

from __future__ import annotations

from typing import Any

import bytewax.operators as op
import msgspec
import numpy as np
import xgboost
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource
from bytewax.dataflow import Dataflow
from bytewax.inputs import StatefulSourcePartition
from bytewax.run import cli_main

from bench.payments.contenders.card_state import CardState, Payment, Scored
from bench.payments.contract import FEATURES, Job, Meter, announce_ready, decide, parse_job

Featured = tuple[str, tuple[str, tuple[float, ...]]]


class _Remaining:
    """How many payments are still to come, over all partitions."""

    def __init__(self, events: int, meter: Meter) -> None:
        self.events = events
        self.meter = meter


class _CountedPartition(StatefulSourcePartition[Any, Any]):
    """Ends Bytewax's own Kafka partition when all payments of the job were read: a live topic has no end."""

    def __init__(self, inner: StatefulSourcePartition[Any, Any], remaining: _Remaining) -> None:
        self._inner = inner
        self._remaining = remaining

    def next_batch(self) -> list[Any]:
        if self._remaining.events <= 0:
            raise StopIteration
        batch = list(self._inner.next_batch())
        if batch:
            self._remaining.meter.start()
            self._remaining.events -= len(batch)
        return batch

    def snapshot(self) -> Any:
        return self._inner.snapshot()

    def close(self) -> None:
        self._inner.close()


class _CountedKafkaSource(KafkaSource):
    """Bytewax's Kafka source for a job with a known number of payments."""

    def __init__(self, remaining: _Remaining, job: Job) -> None:
        super().__init__([job.bootstrap], [job.input], add_config={"fetch.queue.backoff.ms": "2"})
        self._remaining = remaining

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Any:
        return _CountedPartition(super().build_part(step_id, for_part, resume_state), self._remaining)


def _update(state: CardState | None, payment: Payment) -> tuple[CardState | None, tuple[str, tuple[float, ...]]]:
    state = state or CardState()
    return state, (payment.tx_id, state.update(payment.ts, payment.amount, payment.status == "declined"))


def build(job: Job, meter: Meter) -> Dataflow:
    """Build the dataflow of a job."""
    decode = msgspec.json.Decoder(Payment).decode
    encode = msgspec.json.Encoder().encode
    booster = xgboost.Booster(model_file=job.model)
    booster.set_param({"nthread": 1})

    def keyed(records: list[Any]) -> list[tuple[str, Payment]]:
        payments = [decode(record.value) for record in records]
        return [(payment.card_id, payment) for payment in payments]

    def score(batch: list[Featured]) -> list[KafkaSinkMessage[bytes | None, bytes | None]]:
        meter.batches += 1
        matrix = np.array([features for _, (_, features) in batch], dtype=np.float32).reshape(-1, len(FEATURES))
        scores = booster.inplace_predict(matrix, validate_features=False).tolist()
        return [
            KafkaSinkMessage(card.encode(), encode(Scored(tx_id, score, decide(score))))
            for (card, (tx_id, _)), score in zip(batch, scores, strict=True)
        ]

    flow = Dataflow("payments")
    records = op.input("payments", flow, _CountedKafkaSource(_Remaining(job.events, meter), job))
    payments = op.flat_map_batch("decode", records, keyed)
    features = op.stateful_map("features", payments, _update)
    scored = op.flat_map_batch("score", features, score)
    linger = {"linger.ms": "20" if job.mode == "throughput" else "0"}
    op.output("scores", scored, KafkaSink([job.bootstrap], job.output, add_config=linger))
    return flow


def main() -> None:
    job, meter = parse_job(), Meter()
    flow = build(job, meter)
    announce_ready()
    cli_main(flow)  # type: ignore[no-untyped-call]  # Returns after the sink has flushed.
    meter.finish(job.events)


if __name__ == "__main__":
    main()
