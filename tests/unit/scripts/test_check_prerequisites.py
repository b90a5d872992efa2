"""What is said of a machine that lacks a tool, or has one that is too old; and that `make` says it before it builds."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import check_prerequisites

ROOT = Path(__file__).parents[3]
TOOLS = {
    "cargo": "cargo 1.88.0 (873a06493 2025-05-10)",
    "cc": "cc 13.2",
    "java": 'openjdk version "17.0.12" 2024-07-16\nOpenJDK Runtime Environment',
    "javac": "javac 17.0.12",
    "mvn": "Apache Maven 3.8.7",
}

# What differs from TOOLS (None: the tool is not there), what is wanted, and what is said of it, in order.
LACKING: dict[str, tuple[dict[str, str | None], str, list[str]]] = {
    "no cargo": (
        {"cargo": None},
        "build",
        [
            "To build Gillnet, this machine lacks: cargo (Rust) 1.88 or newer.",
            "Debian, Ubuntu: rustup.rs",
            "macOS: brew install rustup",
        ],
    ),
    "an old cargo": (
        {"cargo": "cargo 1.87.9 (x 2025-01-01)"},
        "build",
        ["lacks: cargo (Rust) 1.88 or newer (found 1.87).", "rustup.rs"],
    ),
    "a cargo without a toolchain": (
        {"cargo": "error: rustup could not choose a version of cargo to run"},
        "build",
        ["lacks: cargo (Rust) 1.88 or newer."],
    ),
    "no compiler": (
        {"cc": None},
        "build",
        ["lacks: a C compiler, which Rust links with.", "apt install build-essential", "xcode-select --install"],
    ),
    "nothing": (
        dict.fromkeys(TOOLS),
        "kafka",
        [
            "To run Gillnet with a real Kafka broker, this machine lacks: cargo (Rust) 1.88 or newer; a C compiler, which Rust "
            "links with; Java 17 or newer; Maven (mvn), which fetches the broker once.",
            "Debian, Ubuntu: rustup.rs, as root or not; the distribution's Rust is too old; apt install build-essential; apt "
            "install openjdk-17-jre-headless; apt install maven",
            "Without Kafka: `make demo` and `make test-unit` need neither Java nor Maven.",
        ],
    ),
    "no Java": ({"java": None}, "kafka", ["lacks: Java 17 or newer.", "openjdk-17-jre-headless", "openjdk@17"]),
    "an old Java": (
        {"java": 'openjdk version "11.0.24" 2024-07-16'},
        "kafka",
        ["lacks: Java 17 or newer (found 11).", "Without Kafka"],
    ),
    "a Java of the old numbers": (
        {"java": 'java version "1.8.0_292"'},
        "kafka",
        ["lacks: Java 17 or newer (found 8)."],
    ),
    "a Java that is only a hint": (
        {"java": "The operation could not be completed. Unable to locate a Java Runtime."},
        "kafka",
        ["lacks: Java 17 or newer."],
    ),
    "no Java compiler, for Flink": (
        {"javac": None},
        "flink",
        [
            "To run Gillnet on a real Flink cluster",
            "lacks: a Java compiler (javac).",
            "openjdk-17-jdk-headless",
            "Without Flink",
        ],
    ),
    "no Maven, for Flink": ({"mvn": None}, "flink", ["lacks: Maven (mvn), which fetches the cluster once."]),
    "no Maven": ({"mvn": None}, "kafka", ["lacks: Maven (mvn)", "apt install maven", "brew install maven"]),
}

ENOUGH: dict[str, tuple[dict[str, str | None], str]] = {
    "everything": ({}, "kafka"),
    "everything, for Flink": ({}, "flink"),
    "no Java compiler, for Kafka": ({"javac": None}, "kafka"),
    "neither Java nor Maven, to build": ({"java": None, "mvn": None}, "build"),
    "clang alone": ({"cc": None, "clang": "clang 17"}, "build"),
    "newer ones": ({"cargo": "cargo 2.0.0", "java": 'openjdk version "25" 2025-09-16'}, "kafka"),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for programs, the only one that is searched."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def install(place: Path, tools: dict[str, str | None]) -> None:
    """Write programs that say a version of themselves, Java's as it does to the standard error."""
    for name, says in tools.items():
        if says is not None:
            program = place / name
            program.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
            program.chmod(0o755)


def checked(want: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["check_prerequisites.py", want])
    code = check_prerequisites.main()
    captured = capsys.readouterr()
    assert captured.out == ""
    return code, captured.err


@pytest.mark.parametrize(("changed", "want", "said"), LACKING.values(), ids=LACKING)
def test_what_is_missing_or_too_old_is_said_with_its_mend(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, str | None],
    want: str,
    said: list[str],
) -> None:
    install(place, {**TOOLS, **changed})
    code, text = checked(want, monkeypatch, capsys)
    assert code == 1
    places = [text.find(part) for part in said]
    assert -1 not in places, text
    assert places == sorted(places)
    assert ("Without Kafka" in text) == (want == "kafka")


@pytest.mark.parametrize(("changed", "want"), ENOUGH.values(), ids=ENOUGH)
def test_nothing_is_said_where_nothing_is_missing(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changed: dict[str, str | None],
    want: str,
) -> None:
    install(place, {**TOOLS, **changed})
    assert checked(want, monkeypatch, capsys) == (0, "")


def test_java_is_that_of_java_home(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(place, TOOLS)
    (place / "home" / "bin").mkdir(parents=True)
    install(place / "home" / "bin", {"java": 'openjdk version "11.0.2"'})
    monkeypatch.setenv("JAVA_HOME", str(place / "home"))
    assert "Java 17 or newer (found 11)" in checked("kafka", monkeypatch, capsys)[1]


def test_an_old_python_is_told_which_one_it_is_and_how_to_name_another(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(place, TOOLS)
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    code, text = checked("build", monkeypatch, capsys)
    assert code == 1
    assert f"Python 3.11 or newer ({sys.executable} is 3.9.18; name another: make PYTHON=/path/to/python)" in text
    assert "apt install python3.11 python3.11-venv" in text


def test_a_python_without_venv_is_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(place, TOOLS)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    code, text = checked("build", monkeypatch, capsys)
    assert code == 1
    assert "lacks: Python's venv module." in text
    assert "apt install python3.11-venv" in text


def plan_of(*arguments: str) -> str:
    """What `make` would do on a machine where nothing is set up yet."""
    make = shutil.which("make")
    assert make is not None, "the tests are run by make"
    nowhere = [f"{name}=/nowhere/{name}" for name in ("VENV", "BENCH_VENV")]
    # What `make test` was called with is not for this one.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "KAFKA")}
    command = [make, "-n", *arguments, *nowhere]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    "arguments",
    [["demo", "KAFKA=1"], ["test"], ["test-python"], ["test-integration"], ["report"], ["soak"], ["bench"]],
    ids=" ".join,
)
def test_make_looks_for_java_and_maven_before_it_builds(arguments: list[str]) -> None:
    planned = plan_of(*arguments)
    assert 0 <= planned.find("check_prerequisites.py kafka") < planned.find(" install ")


@pytest.mark.parametrize("target", ["demo", "test-unit", "lint"])
def test_make_wants_no_java_where_no_broker_is_needed(target: str) -> None:
    planned = plan_of(target)
    assert "check_prerequisites.py kafka" not in planned
    assert 0 <= planned.find("check_prerequisites.py build") < planned.find(" install ")
