"""What the audit says of what its tools found, and of what they could not look at."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from scripts.audit import Report, advisories, check_hashes, vulnerabilities

if TYPE_CHECKING:
    from pathlib import Path

WELL = {"name": "numpy", "version": "2.4.6", "vulns": []}
ILL = {"name": "rich", "version": "15.0.0", "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["15.0.1"]}]}
UNKNOWN = {"name": "typer", "skip_reason": "Dependency not found on PyPI and could not be audited: typer (0.29.2)"}
FETCH = "[ERROR] failed to fetch advisory database https://somewhere with cli: failed to clone"
ADVISORY = "error[vulnerability]: Read of freed memory\n ID: RUSTSEC-2026-0001\nadvisory-db 1\nadvisories FAILED"


def found(answer: list[dict[str, object]]) -> Report:
    report = Report()
    vulnerabilities(report, "runtime.lock", json.dumps({"dependencies": answer}))
    return report


def test_a_vulnerability_is_found_with_its_mend_and_what_is_well_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    report = found([WELL, ILL])
    assert report.found == ["runtime.lock: rich 15.0.0 has PYSEC-2026-1; mended in 15.0.1"]
    assert found([WELL]).found == found([WELL]).not_checked == []
    assert "1 packages without a known vulnerability" in capsys.readouterr().out


def test_what_no_index_answers_is_said_not_to_be_checked_and_is_not_called_well(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = found([WELL, UNKNOWN])
    assert report.found == []
    assert "1 of 2 packages" in report.not_checked[0]
    assert "ok " not in capsys.readouterr().out


def test_crates_that_have_an_advisory_are_found_and_a_database_that_cannot_be_reached_is_not_one() -> None:
    report = Report()
    advisories(report, "Cargo.toml", 1, FETCH)
    assert (len(report.found), len(report.not_checked)) == (0, 1)
    advisories(report, "Cargo.toml", 1, ADVISORY)
    assert "RUSTSEC-2026-0001" in report.found[0]
    advisories(report, "Cargo.toml", 0, "advisories ok")
    assert (len(report.found), len(report.not_checked)) == (1, 1)


def test_a_package_without_a_hash_is_found(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    bound = f"numpy==2.4.6 \\\n    --hash=sha256:{'0' * 64}\n"
    report = Report()
    lock.write_text(f"# made\n{bound}")
    check_hashes(report, [lock])
    assert report.found == []
    lock.write_text(f"{bound}rich==15.0.0\n")
    check_hashes(report, [lock])
    assert report.found == ["x.lock: 1 of 2 packages have no hash; run `make lock`"]
