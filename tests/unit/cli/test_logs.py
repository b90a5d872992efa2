"""What a log line is to those who read standard error."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from gillnet.cli.logs import LogFormat, log_lines


class Written(io.StringIO):
    """Keeps what each single write was given, as a file shared with other processes would see it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[str] = []

    def write(self, text: str, /) -> int:
        self.writes.append(text)
        return len(text)


@pytest.fixture(autouse=True)
def configuration_as_before() -> Iterator[None]:
    kept = structlog.get_config()
    yield
    structlog.configure(**kept)


@pytest.mark.parametrize("form", list(LogFormat))
def test_a_line_and_its_end_are_one_write_so_that_workers_do_not_tear_each_others_lines(
    monkeypatch: pytest.MonkeyPatch, form: LogFormat
) -> None:
    written = Written()
    monkeypatch.setattr("sys.stderr", written)
    log_lines(form)
    log = structlog.get_logger("gillnet.run")
    log.info("checkpoint complete", id=7)
    log.warning("source closed", stream="payments\nclicks")
    assert [(text.count("\n"), text[-1]) for text in written.writes] == [(1, "\n")] * 2
    if form is LogFormat.JSON:
        assert [json.loads(text)["event"] for text in written.writes] == ["checkpoint complete", "source closed"]
