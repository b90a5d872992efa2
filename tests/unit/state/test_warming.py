"""Which features are still warming, and from when on they are complete, in words."""

from __future__ import annotations

import pytest

import gillnet as gn
from gillnet.state import Checkpoint, still_warming, warming_words

SCHEMA = gn.Schema(id=gn.String(), ts=gn.Timestamp("ms"))
STREAM = gn.Stream("s", schema=SCHEMA, id="id", event_time="ts", allowed_lateness="10s")
ROOT = gn.Pipeline(gn.Features(STREAM, n=STREAM.by("id").count(over="1m"))).plan.streams[0]
WARMING = {"soon": 100_000_000, "late": 200_000_000, "pause": None}


@pytest.mark.parametrize(
    ("watermark_us", "left"),
    [
        (None, ["soon", "late", "pause"]),
        (109_999_999, ["soon", "late", "pause"]),
        (110_000_000, ["late", "pause"]),
        (1 << 62, ["pause"]),
    ],
)
def test_a_feature_is_warming_until_no_late_row_can_be_incomplete(watermark_us, left):
    checkpoint = Checkpoint(number=1, taken_us=0, started_us=0, pipeline="p", marks={}, warming=WARMING)
    assert list(still_warming(checkpoint, ROOT, watermark_us)) == left


def test_words():
    assert warming_words({"a": 1_767_571_200_000_001, "b": None, "c": 1 << 62}) == {
        "a": "2026-01-05 00:00:01 UTC",
        "b": "each key's next pause",
        "c": "never",
    }
