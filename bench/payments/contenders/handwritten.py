"""The hand-written loop: what a good Python engineer builds on confluent-kafka without a framework.

Micro-batches of up to 1,000 records; msgspec for typed decoding; per-card deques with running sums; one XGBoost
prediction a batch on one thread; one ``produce`` a payment. At-least-once: every few seconds the producer is flushed
and then the offsets are committed. The state is in memory only.

How it was tuned: ``fetch.queue.backoff.ms`` of 2 instead of 1,000, without which librdkafka lets the consumer starve;
the cyclic garbage collector is off, since nothing here makes cycles and it would walk the whole state; msgspec structs
on both sides (encoding one takes half the time of formatting it); with latency as the aim, the loop takes what is
there instead of waiting for a full batch, and the producer does not linger.
"""

from __future__ import annotations

import gc
import time
from collections import defaultdict

import msgspec
import numpy as np
import xgboost
from confluent_kafka import Consumer, KafkaException, Message, Producer

from bench.payments.contenders.card_state import CardState, Payment, Scored
from bench.payments.contract import FEATURES, Job, Meter, announce_ready, decide, parse_job

BATCH_RECORDS = 1_000
COMMIT_INTERVAL_S = 5.0


class Scorer:
    """Decodes a batch, updates the cards, predicts and produces."""

    def __init__(self, job: Job, producer: Producer) -> None:
        self._decode = msgspec.json.Decoder(Payment).decode
        self._encode = msgspec.json.Encoder().encode
        self._cards: defaultdict[str, CardState] = defaultdict(CardState)
        self._booster = xgboost.Booster(model_file=job.model)
        self._booster.set_param({"nthread": 1})
        self._producer = producer
        self._output = job.output

    def score(self, messages: list[Message]) -> None:
        """Process one micro-batch."""
        decode, cards = self._decode, self._cards
        payments = []
        rows: list[float] = []
        for message in messages:
            if message.error() is not None:
                raise KafkaException(message.error())
            payment = decode(message.value())
            payments.append(payment)
            rows += cards[payment.card_id].update(payment.ts, payment.amount, payment.status == "declined")
        matrix = np.array(rows, dtype=np.float32).reshape(-1, len(FEATURES))
        scores = self._booster.inplace_predict(matrix, validate_features=False).tolist()
        produce, output, encode = self._producer.produce, self._output, self._encode
        for payment, score in zip(payments, scores, strict=True):
            produce(output, encode(Scored(payment.tx_id, score, decide(score))), payment.card_id)
        self._producer.poll(0)


def _connect(job: Job) -> tuple[Consumer, Producer]:
    consumer = Consumer(
        {
            "bootstrap.servers": job.bootstrap,
            "group.id": job.group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 2,
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": job.bootstrap,
            "linger.ms": 20 if job.mode == "throughput" else 0,
            "queue.buffering.max.messages": 1_000_000,
            "enable.idempotence": True,
        }
    )
    consumer.subscribe([job.input], on_assign=lambda *_: announce_ready())
    return consumer, producer


def _take_batch(consumer: Consumer, job: Job) -> list[Message]:
    if job.mode == "throughput":
        batch: list[Message] = consumer.consume(BATCH_RECORDS, timeout=0.05)
        return batch
    # `consume` waits until the batch is full or the time is over, so wait for one record and then take the rest.
    first = consumer.poll(0.1)
    return [] if first is None else [first, *consumer.consume(BATCH_RECORDS - 1, timeout=0)]


def main() -> None:
    job, meter = parse_job(), Meter()
    consumer, producer = _connect(job)
    scorer = Scorer(job, producer)
    gc.freeze()
    gc.disable()
    seen = 0
    next_commit_s = time.monotonic() + COMMIT_INTERVAL_S
    while seen < job.events:
        messages = _take_batch(consumer, job)
        if not messages:
            continue
        meter.start()
        scorer.score(messages)
        seen += len(messages)
        meter.batches += 1
        if time.monotonic() >= next_commit_s:
            producer.flush()
            consumer.commit(asynchronous=False)
            next_commit_s = time.monotonic() + COMMIT_INTERVAL_S
    producer.flush()
    meter.finish(seen)
    consumer.commit(asynchronous=False)
    consumer.close()


if __name__ == "__main__":
    main()
