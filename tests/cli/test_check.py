"""`check`: each subject a line, ok or the fix, also before there is a book."""

import pytest

from bot.app.data_directory import DataDirectory, Identity
from bot.cli.parser import main

A_BOOK = Identity("demo", "simulated", "paper", "bulkhead")


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "not" / "yet"


def checked(capsys, data):
    status = main(["check", "--data-dir", str(data)])
    return status, capsys.readouterr().out


def test_a_directory_that_is_not_there_yet_is_made_nowhere(capsys, data):
    status, said = checked(capsys, data)
    assert (status, data.parent.exists()) == (0, False)
    assert f"{data} holds no book yet" in said
    assert "MB free" in said


@pytest.mark.parametrize("has_book", [False, True])
def test_too_little_space_is_said_with_and_without_a_book(capsys, data, monkeypatch, has_book):
    if has_book:
        directory = DataDirectory(data)
        directory.claim(A_BOOK)
        directory.release()
    monkeypatch.setattr(DataDirectory, "free_bytes", lambda self: 3_000_000)
    status, said = checked(capsys, data)
    assert status == 1
    assert f"wrong data directory: {data}: only 3 MB free" in said


def test_a_directory_that_cannot_be_made_is_said(capsys, data):
    data.parent.write_text("a file where a directory would be")
    status, said = checked(capsys, data)
    assert status == 1
    assert f"wrong data directory: {data}" in said


def test_a_halt_is_wrong_until_it_is_resumed(capsys, data):
    directory = DataDirectory(data)
    directory.claim(A_BOOK)
    directory.release()
    assert main(["halt", "--data-dir", str(data)]) == 0
    capsys.readouterr()
    status, said = checked(capsys, data)
    assert status == 1
    (line,) = (line for line in said.splitlines() if line.startswith("wrong"))
    assert line.startswith("wrong halt: halted by ")
    assert line.endswith(
        f"resume with: {line.partition('with: ')[2].split(' -m ')[0]} -m bot.main resume --data-dir {data}"
    )
    assert main(["resume", "--data-dir", str(data)]) == 0
    assert checked(capsys, data)[0] == 0
