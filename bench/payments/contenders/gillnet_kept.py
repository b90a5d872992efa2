"""Gillnet with checkpoints and a journal, at-least-once."""

from __future__ import annotations

from bench.payments.contenders.gillnet_client import run

if __name__ == "__main__":
    run("at-least-once")
