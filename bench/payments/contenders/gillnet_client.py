"""Gillnet's embedded runtime on the benchmark's work: the definition that a user would write, not tuned by hand.

At-least-once like the others: outputs are flushed, then offsets are committed, every few seconds.
"""

from __future__ import annotations

import gc
import os
import tempfile
import threading
from pathlib import Path

import gillnet as gn
from bench.payments.contract import BLOCK_ABOVE, FEATURES, REVIEW_ABOVE, Job, Meter, announce_ready, parse_job
from gillnet import col
from gillnet.connectors.kafka import KafkaSink, KafkaSource, KafkaTransactions, ensure_topics
from gillnet.core.messages import RawBatch
from gillnet.runtimes.embedded import Checkpoints, EmbeddedRuntime, Outputs, RuntimeOptions
from gillnet.serving.model import load_model
from gillnet.serving.scorers import choose_scorer
from gillnet.state import CheckpointStore, FileJournal

Payment = gn.Schema(
    tx_id=gn.String(),
    ts=gn.Timestamp("ms"),
    card_id=gn.String(),
    merchant_id=gn.String(),
    amount=gn.Decimal(2, minimum=0),
    status=gn.String(),
    country=gn.String(),
    channel=gn.String(),
)
payments = gn.Stream(
    "payments", schema=Payment, id="tx_id", event_time="ts", allowed_lateness=os.environ.get("LATENESS", "1h")
)
card = payments.by("card_id")
features = gn.Features(
    payments,
    hour=col("ts").dt.hour(),
    spend_5m=card.sum("amount", over="5m"),
    payments_1h=card.count(over="1h"),
    declined_1h=card.count(over="1h", where=col("status") == "declined"),
    max_1h=card.max("amount", over="1h"),
    mean_1d=card.mean("amount", over="1d"),
    since_last_s=card.seconds_since_last(),
)
pipeline = gn.Pipeline(
    features,
    model="bench@1",
    model_features=FEATURES,
    policy=[gn.block(col("score") > BLOCK_ABOVE), gn.review(col("score") > REVIEW_ABOVE)],
)


class _MeteredSource(KafkaSource):
    """Starts the meter with the first record and ends the run with the last one."""

    def measure(self, job: Job, meter: Meter, stop: threading.Event) -> None:
        self._job, self._meter, self._stop, self._seen = job, meter, stop, 0

    def poll(self, max_records: int, timeout_s: float) -> RawBatch | None:
        raw = super().poll(max_records, timeout_s)
        if raw is not None:
            self._meter.start()
            self._meter.batches += 1
            self._seen += len(raw.values)
            if self._seen >= self._job.events:
                self._stop.set()
        return raw


def run(guarantee: str | None = None) -> None:
    """Run the benchmark's job: without checkpoints, or with them and a guarantee of `gillnet.runtimes.embedded.RuntimeOptions`."""
    job, meter, stop = parse_job(), Meter(), threading.Event()
    source = _MeteredSource(
        stream="payments", topic=job.input, bootstrap_servers=job.bootstrap, group=job.group, start="earliest"
    )
    source.measure(job, meter, stop)
    options = RuntimeOptions(detail="decision", top_reasons=0, commit_interval_s=5.0)
    with tempfile.TemporaryDirectory() as place:
        transactions = _transactions(job) if guarantee == "exactly-once" else None
        journal = FileJournal(Path(place) / "journal") if transactions is None else transactions.journal
        sink = KafkaSink(topic=job.output, bootstrap_servers=job.bootstrap) if transactions is None else None
        runtime = EmbeddedRuntime(
            pipeline.plan,
            sources={"payments": source},
            outputs=Outputs({"decisions": sink or (transactions and transactions.sink(job.output))}.get),
            scorer=choose_scorer(load_model(job.model)),
            options=options,
            checkpoints=None
            if guarantee is None
            else Checkpoints(CheckpointStore(place), interval_s=10.0, journal=journal),
            transactions=transactions,
        )
        announce_ready()
        gc.freeze()
        metrics = runtime.run(stop)
    meter.finish(metrics.stream("payments").scored)


def _transactions(job: Job) -> KafkaTransactions:
    journal = f"{job.output}.journal"
    ensure_topics({journal: 1}, bootstrap_servers=job.bootstrap)
    return KafkaTransactions(
        bootstrap_servers=job.bootstrap, transactional_id=job.group, topics=[job.output], journal=journal
    )


if __name__ == "__main__":
    run()
