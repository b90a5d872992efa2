"""Audits what Gillnet depends on: known vulnerabilities, licences, where packages come from, and that every lock file binds by hash.

``python scripts/audit.py``. What needs a database that cannot be reached from here is said to be NOT CHECKED, by name, and is no
failure; with ``--strict`` it is one. Exit code 1 for what was found.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
CRATES = (ROOT / "Cargo.toml", ROOT / "fuzz" / "Cargo.toml")
OFFLINE_CHECKS = ("licenses", "bans", "sources")
_PIN = re.compile(r"^[a-z0-9._-]+==[^ ]+(?: ;[^\\]*)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", re.M)
_TIMEOUT_S = 300


@dataclass
class Report:
    """What was found, and what could not be looked at."""

    found: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    def say(self, what: str) -> None:
        """Print what is well."""
        print(f"ok           {what}")

    def find(self, what: str) -> None:
        """Note a finding."""
        self.found.append(what)
        print(f"FOUND        {what}")

    def skip(self, what: str) -> None:
        """Note what could not be checked, and why."""
        self.not_checked.append(what)
        print(f"NOT CHECKED  {what}")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool, and take what it says."""
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=_TIMEOUT_S)


def check_hashes(report: Report, locks: Sequence[Path]) -> None:
    """Every package of a lock file has the hashes that `pip install --require-hashes` asks for."""
    for lock in locks:
        text = lock.read_text(encoding="utf-8")
        packages = [line for line in text.splitlines() if line and not line.startswith(("#", " "))]
        bound = len(_PIN.findall(text))
        if bound == len(packages) > 0:
            report.say(f"{lock.name}: {bound} packages, each with its version and hashes")
        else:
            report.find(
                f"{lock.name}: {len(packages) - bound} of {len(packages)} packages have no hash; run `make lock`"
            )


def vulnerabilities(report: Report, name: str, answer: str) -> None:
    """Read what pip-audit answered, as JSON."""
    packages = json.loads(answer)["dependencies"]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    known = [(package, vuln) for package in packages for vuln in package.get("vulns", ())]
    for package, vuln in known:
        mend = f"; mended in {', '.join(vuln['fix_versions'])}" if vuln.get("fix_versions") else ""
        report.find(f"{name}: {package['name']} {package['version']} has {vuln['id']}{mend}")
    if skipped:
        report.skip(
            f"{name}: vulnerabilities of {len(skipped)} of {len(packages)} packages: the package index answers no question about "
            f"them ({', '.join(skipped[:3])}, ...); run this where PyPI itself can be reached"
        )
    elif not known:
        report.say(f"{name}: {len(packages)} packages without a known vulnerability")


def audit_python(report: Report) -> None:
    """Ask for known vulnerabilities of every locked package."""
    pip_audit = Path(sys.executable).with_name("pip-audit")
    for lock in LOCKS:
        if not pip_audit.exists():
            report.skip(f"{lock.name}: pip-audit is not installed; `make audit` installs it")
            continue
        asked = run(
            pip_audit, "-r", lock, "--require-hashes", "--disable-pip", "--progress-spinner=off", "--format=json"
        )
        try:
            vulnerabilities(report, lock.name, asked.stdout)
        except (ValueError, KeyError):
            reason = " ".join((asked.stderr or asked.stdout).split())[-200:]
            report.skip(f"{lock.name}: vulnerabilities: pip-audit gave no answer: {reason}")


def audit_rust(report: Report) -> None:
    """Hold the crates to `deny.toml`."""
    if run("cargo", "deny", "--version").returncode != 0:
        report.skip("crates: cargo-deny is not installed; `make audit` installs it")
        return
    for manifest in CRATES:
        name = manifest.relative_to(ROOT).as_posix()
        deny: tuple[str | Path, ...] = (
            "cargo",
            "deny",
            "--manifest-path",
            manifest,
            "--locked",
            "--config",
            ROOT / "deny.toml",
            "check",
        )
        for check in OFFLINE_CHECKS:
            asked = run(*deny, "--hide-inclusion-graph", check)
            if asked.returncode == 0:
                report.say(f"{name}: {check}")
            else:
                report.find(f"{name}: {check}: {asked.stderr[-1_500:]}")
        asked = run(*deny, "advisories")
        advisories(report, name, asked.returncode, asked.stderr)


def advisories(report: Report, name: str, code: int, said: str) -> None:
    """Read what cargo-deny said of known vulnerabilities."""
    if code == 0:
        report.say(f"{name}: advisories")
    elif re.search(r"failed to (fetch|load|clone|open|acquire)|advisory[- ]database", said) and "error[" not in said:
        report.skip(
            f"{name}: advisories: RustSec's database cannot be fetched from here; run this where GitHub can be reached"
        )
    else:
        report.find(f"{name}: advisories: {said[-1_500:]}")


def main() -> int:
    """Run every audit that can be run here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strict", action="store_true", help="what could not be checked is a failure")
    arguments = parser.parse_args()
    report = Report()
    check_hashes(report, LOCKS)
    audit_python(report)
    audit_rust(report)
    print(f"\n{len(report.found)} found, {len(report.not_checked)} not checked")
    return 1 if report.found or (arguments.strict and report.not_checked) else 0


if __name__ == "__main__":
    sys.exit(main())
