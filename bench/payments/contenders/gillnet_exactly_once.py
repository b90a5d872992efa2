"""Gillnet with checkpoints, in Kafka's transactions."""

from __future__ import annotations

from bench.payments.contenders.gillnet_client import run

if __name__ == "__main__":
    run("exactly-once")
