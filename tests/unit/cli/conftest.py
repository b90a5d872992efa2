"""Runs commands, in this process or in one of its own, and gives them small files to work on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import Result
from command_line import APP, Command
from typer.testing import CliRunner

from gillnet.cli.main import app


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty directory, and leave no log configuration behind that writes to a closed stream."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GILLNET_DEBUG", raising=False)
    yield
    structlog.reset_defaults()


@pytest.fixture
def gillnet() -> Command:
    """Run ``gillnet`` in this process."""

    def run(*arguments: str, stdin: bytes | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=stdin, prog_name="gillnet")

    return run


@pytest.fixture
def app_file(tmp_path: Path) -> Path:
    """A pipeline of one stream, without a model."""
    path = tmp_path / "app.py"
    path.write_text(APP, encoding="utf-8")
    return path


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start ``gillnet`` as a process of its own; it is ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        command = [sys.executable, "-m", "gillnet.cli.main", *arguments]
        process = subprocess.Popen(command, env={**os.environ, "COLUMNS": "120"}, **streams)  # type: ignore[call-overload]
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
