"""``gillnet lateness`` over simulated streams and files."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_line import Command

SIMULATED = "simulator:payments?duration=3h&cards=300&merchants=64&payments_per_day=16000&late_share=0.02&disorder_s=1"


def test_a_stream_alone_is_told_by_its_delays(gillnet: Command) -> None:
    result = gillnet("lateness", "--source", f"payments={SIMULATED}", "--id", "tx_id", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    (stream,) = told["streams"]
    assert stream["recorded"]
    assert told["scores"] is None
    assert told["recommendation"] is None
    late = {at["delay_us"]: at["late_share"] for at in stream["delays"]}
    assert list(late) == sorted(late)
    assert list(late.values()) == sorted(late.values(), reverse=True)
    # Two in a hundred are late by a minute and more; what a second of disorder mixes up is not among them.
    assert late[2_000_000] == pytest.approx(0.02, abs=0.01)
    assert late[0] > late[2_000_000] > late[300_000_000] > 0
    assert max(late) == 2 * 3_600_000_000, "three hours of data say nothing of six"
    assert stream["arrival_minus_event_ms"]["max"] <= 24 * 3_600_000


def test_with_a_pipeline_the_scores_of_a_sample_are_told_and_a_delay_is_recommended(
    gillnet: Command, app_file: Path, tmp_path: Path
) -> None:
    page = tmp_path / "lateness.html"
    options = ("--source", f"payments={SIMULATED}", "--sample", "800", "--max-stale", "0%", "--html", str(page))
    result = gillnet("lateness", str(app_file), *options)
    assert result.exit_code == 0, result.output
    assert re.search(r"^watermark delay +late +too late +stale rows +.*wait p99", result.stdout, re.MULTILINE)
    assert re.search(r"^ +5s \(now\) +\d", result.stdout, re.MULTILINE)
    assert "the first 800 root events; 160 fill the windows, 640 are compared" in " ".join(result.stdout.split())
    assert re.search(
        r'Recommended: watermark_delay="\w+": \S+ stale scores, waits of .* \(p99\); the shortest wait', result.stdout
    )
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_what_is_recommended_keeps_the_budget(gillnet: Command, app_file: Path) -> None:
    options = ("--source", f"payments={SIMULATED}", "--sample", "800", "--json")
    for budget, keeps in (("--max-stale=1%", "stale"), ("--max-latency=50ms", "latency")):
        told = json.loads(gillnet("lateness", str(app_file), *options, budget).stdout)
        advice = told["recommendation"]
        scores = told["scores"]
        at_delay = {at["delay_us"]: at for at in scores["delays"]} | {None: scores["on_arrival"]}
        assert at_delay[advice["delay_us"]]["stale_share"] == advice["stale_share"]
        # With one stream, a watermark without delay waits for nothing either.
        assert at_delay[0]["stale_share"] == at_delay[None]["stale_share"]
        assert (advice["stale_share"] <= 0.01) if keeps == "stale" else (advice["wait_ms_p99"] <= 50)


def test_a_file_without_arrivals_says_what_stands_in_and_one_with_them_uses_them(
    gillnet: Command, tmp_path: Path
) -> None:
    lines = [{"id": n, "ts": 1_767_571_200 + n - 7 * (n % 5 == 0), "got": 1_767_571_200 + n} for n in range(100)]
    (tmp_path / "events.ndjson").write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    plain = gillnet("lateness", "--source", "events=events.ndjson")
    assert "No arrivals are recorded" in plain.stdout
    assert "Give a budget to get a recommendation" in plain.stdout
    recorded = gillnet("lateness", "--source", "events=events.ndjson", "--arrival", "got", "--json")
    (stream,) = json.loads(recorded.stdout)["streams"]
    assert stream["arrival_minus_event_ms"] == {"p50": 0, "p90": 7_000, "p99": 7_000, "p99.9": 7_000, "max": 7_000}
    late = {at["delay_us"]: at["late_share"] for at in stream["delays"]}
    assert late[5_000_000] == pytest.approx(0.19)  # The first of all is behind nobody.
    assert late[10_000_000] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "There is nothing to measure: give a source"),
        (
            ("--source", "payments=x.ndjson", "--max-stale", "0.5 percent"),
            "write a share from 0% to 100%, such as 0.5%",
        ),
        (("--source", "payments=x.ndjson", "--max-stale", "120%"), "write a share from 0% to 100%"),
        (("--source", "payments=x.ndjson", "--max-latency", "50"), "--max-latency: '50' is not a duration"),
        (("payments", "--source", "payment=x.ndjson"), "the pipeline has no stream 'payment'"),
        (("--source", f"payments={SIMULATED}"), "have no field 'id'"),
    ],
)
def test_a_wrong_question_is_answered_with_the_mend(gillnet: Command, arguments: tuple[str, ...], told: str) -> None:
    result = gillnet("lateness", *arguments)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
