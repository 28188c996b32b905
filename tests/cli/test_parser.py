"""The command line as it is typed: every flag explains itself, refusals are quick, one line and of the right status."""

import argparse
import importlib
import subprocess
import sys

import pytest

from bot.adapters.sqlite import SqliteStore
from bot.app.data_directory import DataDirectory, Identity
from bot.cli.parser import STATUSES, USAGE, _parser, main
from tests.contract.test_store import a_trade
from tests.support.builders import a_kline

A_BOOK = Identity("demo", "simulated", "paper", "bulkhead")


@pytest.fixture
def data(tmp_path):
    """A directory with a book of BTCUSDT and ETHUSDT, no trade of the latter."""
    directory = DataDirectory(tmp_path / "data")
    directory.claim(A_BOOK)
    with SqliteStore(directory.history) as store:
        store.write([a_kline("100"), a_kline("20", symbol="ETHUSDT")], [a_trade()])
    directory.release()
    return directory.path


def commands():
    (subparsers,) = (one for one in _parser()._actions if isinstance(one, argparse._SubParsersAction))
    return subparsers.choices.items()


@pytest.mark.parametrize(("name", "parser"), [pytest.param(*one, id=one[0]) for one in commands()])
def test_every_flag_of_every_command_says_what_it_means(name, parser):
    silent = [one.option_strings or one.dest for one in parser._actions if not (one.help or "").strip()]
    assert silent == []
    assert parser.description


@pytest.mark.parametrize("name", STATUSES)
def test_each_error_that_has_a_status_exists_under_its_name(name):
    module, _, kind = name.rpartition(".")
    found = getattr(importlib.import_module(module), kind)
    assert (issubclass(found, Exception), found.__module__) == (True, module)


def refused(capsys, *arguments):
    status = main([str(one) for one in arguments])
    said = capsys.readouterr()
    assert (status, said.out, said.err.count("\n")) == (USAGE, "", 1)
    return said.err


def test_status_of_a_directory_that_is_not_there_is_bad_usage(capsys, tmp_path, data):
    assert f"there is no directory {tmp_path / 'nowhere'}" in refused(
        capsys, "status", "--data-dir", tmp_path / "nowhere"
    )
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "empty").mkdir()
    assert main(["status", "--data-dir", str(tmp_path / "empty")]) == 0
    assert "no book is kept here yet" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["klines", "trades"])
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["table", "json"])
def test_a_symbol_that_was_never_seen_is_named_beside_those_that_were(capsys, data, command, form):
    line = refused(capsys, command, "--symbol", "FOO", "--data-dir", data, *form)
    assert line == "nothing of FOO is stored; symbols stored: BTCUSDT, ETHUSDT\n"


def test_a_symbol_without_trades_has_none(capsys, data):
    assert main(["trades", "--symbol", "ETHUSDT", "--json", "--data-dir", str(data)]) == 0
    assert capsys.readouterr().out == "[]\n"
    assert main(["trades", "--symbol", "BTCUSDT", "--json", "--data-dir", str(data)]) == 0
    assert capsys.readouterr().out.count("client_order_id") == 1


def test_the_reason_of_a_trade_is_not_cut(capsys, data, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    main(["trades", "--data-dir", str(data)])
    assert a_trade().reason in capsys.readouterr().out


def test_a_used_directory_is_refused_before_a_bot_is_imported(data):
    holder = DataDirectory(data)
    holder.lock()
    try:
        code = (
            "import sys; from bot.cli.parser import main; status = main(sys.argv[1:]); "
            "print(status, [name for name in ('bot.app.system', 'binance', 'aiohttp') if name in sys.modules])"
        )
        arguments = [sys.executable, "-c", code, "run", "--data-dir", str(data)]
        ended = subprocess.run(arguments, capture_output=True, text=True, timeout=240, check=False)
    finally:
        holder.release()
    assert ended.stdout == "2 []\n", ended.stderr
    assert f"{data} is in use by process" in ended.stderr


@pytest.mark.parametrize("command", ["check", "run"])
def test_the_mode_of_replay_is_no_mode_to_run_in(capsys, monkeypatch, command):
    monkeypatch.setenv("BOT_MODE", "replay")
    assert refused(capsys, command) == "mode: replay is a command of its own: bulkhead replay FILE...\n"
