"""A journal in files: what was appended is read again as far as it is whole, and goes when nobody needs it."""

from __future__ import annotations

import os
import stat

import pytest
import structlog

from gillnet.core.files import boot_name
from gillnet.state import FileJournal

RECORDS = [b'{"n":1}', b'{"n":2}', b'{"n":3}']


@pytest.fixture
def journal(tmp_path):
    made = FileJournal(tmp_path / "journal")
    yield made
    made.close()


def filled(tmp_path):
    journal = FileJournal(tmp_path / "journal")
    position = journal.cut()
    for record in RECORDS:
        journal.append(record)
    return journal, position


def test_what_was_appended_is_read_by_the_next_one(tmp_path):
    journal, position = filled(tmp_path)
    again = FileJournal(tmp_path / "journal")  # Without a close: the process was killed.
    assert list(again.read(position)) == RECORDS
    again.append(b'{"n":4}')
    assert list(again.read(position)) == [*RECORDS, b'{"n":4}']
    assert list(again.read(again.cut())) == []
    journal.close()
    again.close()


def test_a_position_is_taken_though_nothing_was_appended_behind_it(tmp_path, journal):
    position = journal.cut()
    journal.close()
    again = FileJournal(tmp_path / "journal")
    again.append(RECORDS[0])
    assert list(again.read(position)) == RECORDS[:1]
    again.close()


@pytest.mark.parametrize("cut_off", [1, 5, 16])
def test_a_torn_end_is_left_out_and_told_and_the_next_file_goes_on(tmp_path, cut_off):
    journal, position = filled(tmp_path)
    journal.close()
    (file,) = (tmp_path / "journal").glob("*.log")
    file.write_bytes(file.read_bytes()[:-cut_off])
    again = FileJournal(tmp_path / "journal")
    again.append(b'{"n":9}')
    with structlog.testing.capture_logs() as logs:
        found = list(again.read(position))
    assert found == [*RECORDS[:2], b'{"n":9}']
    assert [entry["event"] for entry in logs] == ["journal torn, what lies behind is read again"]
    again.close()


def test_a_changed_record_ends_its_file(tmp_path):
    journal, position = filled(tmp_path)
    journal.close()
    (file,) = (tmp_path / "journal").glob("*.log")
    file.write_bytes(file.read_bytes().replace(b'"n":2', b'"n":7'))
    assert list(FileJournal(tmp_path / "journal").read(position)) == RECORDS[:1]


def test_what_no_checkpoint_needs_goes_and_the_open_file_stays(tmp_path):
    journal, first = filled(tmp_path)
    second = journal.cut()
    journal.append(b'{"n":4}')
    journal.forget(second)
    assert list(journal.read(first)) == [b'{"n":4}']
    journal.forget(second + 100)
    assert list(journal.read(first)) == [b'{"n":4}']
    assert len(list((tmp_path / "journal").iterdir())) == 1
    journal.close()


def test_a_full_disk_is_told_once_and_the_next_cut_begins_anew(tmp_path, journal, monkeypatch):
    position = journal.cut()
    journal.append(RECORDS[0])
    write = os.write
    monkeypatch.setattr("gillnet.state.journal.os.write", lambda handle, line: write(handle, line[:5]))
    with structlog.testing.capture_logs() as logs:
        journal.append(RECORDS[1])
        journal.append(RECORDS[2])
        journal.sync()
    assert [entry["log_level"] for entry in logs] == ["error"]
    assert "without it until the next checkpoint" in logs[0]["event"]
    monkeypatch.undo()
    behind = journal.cut()
    journal.append(b'{"n":4}')
    assert list(journal.read(position)) == [RECORDS[0], b'{"n":4}']
    assert list(journal.read(behind)) == [b'{"n":4}']


def test_it_is_private_to_its_user(tmp_path):
    journal, _ = filled(tmp_path)
    (file,) = (tmp_path / "journal").glob("*.log")
    assert stat.S_IMODE((tmp_path / "journal").stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    journal.close()


def test_whether_it_is_whole_is_known_within_one_boot_of_the_machine_alone(tmp_path, monkeypatch):
    journal, position = filled(tmp_path)
    journal.close()
    for boot, whole in ((None, False), ("another", False), (boot_name(), True)):
        monkeypatch.setattr("gillnet.state.journal.boot_name", lambda boot=boot: boot)
        again = FileJournal(tmp_path / "journal")
        assert list(again.read(position)) == RECORDS
        assert again.whole == whole, boot
