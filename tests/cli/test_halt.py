"""`halt` where the bot that runs is not on the directory that the settings name."""

from pathlib import Path

import pytest

from bot.app.data_directory import DataDirectory, Identity
from bot.cli.parser import main


@pytest.fixture
def live(tmp_path, monkeypatch):
    """A bot that was started with --mode live: nothing but that flag said so."""
    monkeypatch.chdir(tmp_path)
    directory = DataDirectory(Path("data/live"))
    directory.claim(Identity("live", "com@host", "uid 1", "bulkhead"))
    yield directory
    directory.release()


def test_a_halt_that_finds_no_book_names_the_bot_that_runs(live, capsys):
    assert main(["halt"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("nothing is halted, data/demo holds no book; a bot runs on data/live; halt that with: ")
    assert said.endswith(" halt --data-dir data/live\n")
    assert live.halted() is None
    assert main(["halt", "--flatten"]) == 2
    assert capsys.readouterr().err.endswith(" halt --flatten --data-dir data/live\n")


def test_a_halt_of_another_book_names_the_bot_that_goes_on(live, capsys):
    demo = DataDirectory(Path("data/demo"))
    demo.claim(Identity("demo", "simulated", "paper", "bulkhead"))
    demo.release()
    assert main(["halt"]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last.startswith("NOT halted: a bot runs on data/live; halt that with: ")
    assert demo.halted()
    assert live.halted() is None
    assert main(["halt", "--data-dir", "data/live"]) == 0
    assert "NOT halted" not in capsys.readouterr().out
    assert live.halted()


@pytest.mark.parametrize("identity", ["", "{", None])
def test_a_halt_does_not_hang_on_whose_book_it_is(live, capsys, identity):
    """One whose file is damaged, or that has not asked the exchange yet whose account it is."""
    file = live.path / "identity.json"
    if identity is None:
        file.unlink()
    else:
        file.write_text(identity)
    assert main(["halt", "--data-dir", "data/live"]) == 0
    assert "goes on without orders" in capsys.readouterr().out
    assert live.halted()


def test_a_halt_of_a_damaged_book_holds_for_its_next_run(live):
    live.release()
    (live.path / "identity.json").write_text("{")
    assert main(["halt", "--data-dir", "data/live"]) == 0
    assert live.halted()


def test_a_halt_where_there_is_no_book_is_refused(live, capsys):
    (live.path.parent / "file").touch()
    assert main(["halt", "--data-dir", "data"]) == 2
    assert "data holds no book" in capsys.readouterr().err
    assert main(["halt", "--data-dir", "data/file"]) == 2
    assert "data/file/identity.json: cannot be read" in capsys.readouterr().err
