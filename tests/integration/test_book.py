"""One book over several runs: other symbols, another capital, what the account holds, a start that is called off."""

import json
import signal
import socket
from decimal import Decimal

import pytest

from bot.app.data_directory import DataDirectory
from bot.app.snapshot import stored_snapshot
from tests.integration.desk import desk
from tests.integration.processes import ExchangeProcess, Program, command, status_of, told, wait_until
from tests.support.ports import unused_port

EAGER = {"BOT_BUY_DROP": "0.0004", "BOT_SELL_RISE": "0.0004"}


def wallet_of(data):
    """What `wallet --json` prints, without a process of its own."""
    return stored_snapshot(DataDirectory(data)).wallet_json()


def test_symbols_that_are_not_traded_now_stay_in_the_book(tmp_path):
    data = tmp_path / "data"
    with Program("run", "--data-dir", data, cwd=tmp_path, settings=EAGER) as bot:
        wait_until(lambda: {e["symbol"] for e in bot.events("trade")} >= {"DOGEUSDT", "ETHUSDT"}, 60, "trades")
        bot.send(signal.SIGTERM)
        assert bot.ends(10) == 0
    before = told("wallet", "--data-dir", data, cwd=tmp_path)
    ended = command("run", "--symbols", "BTCUSDT", "--for", "3s", "--data-dir", data, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    after = told("wallet", "--data-dir", data, cwd=tmp_path)
    for symbol in ("ETHUSDT", "DOGEUSDT"):
        assert after["positions"][symbol] == before["positions"][symbol]
    assert set(after["positions"]) == {"BTCUSDT", "ETHUSDT", "DOGEUSDT"}
    assert abs(Decimal(after["equity"]) - Decimal(before["equity"])) < 500


def test_capital_bounds_what_the_bot_may_use_and_can_be_changed(tmp_path):
    def cash(**settings):
        assert command("run", "--for", "1s", "--data-dir", tmp_path / "data", cwd=tmp_path, **settings).returncode == 0
        return wallet_of(tmp_path / "data")["cash"]

    never = {"BOT_BUY_DROP": "0.9"}
    assert [cash(BOT_CAPITAL=c, **never) for c in ("5000", "100", "7000", "99999")] == ["5000", "100", "7000", "10000"]


def test_the_wallet_of_an_account_shows_what_the_exchange_holds(tmp_path):
    with ExchangeProcess(tmp_path / "exchange", 1, 500) as exchange:
        settings = {"BOT_BUY_DROP": "0.9", **exchange.settings}
        with Program("run", "--mode", "testnet", "--data-dir", tmp_path / "data", cwd=tmp_path, settings=settings):
            wait_until(lambda: status_of(tmp_path / "data"), 20, "a running bot")
            wallet = told("wallet", "--data-dir", tmp_path / "data", cwd=tmp_path)
            wait_until(lambda: wallet_of(tmp_path / "data")["exchange"].get("USDT"), 20, "the balances")
    assert wallet["mode"] == "testnet"
    after = told("wallet", "--data-dir", tmp_path / "data", cwd=tmp_path)
    assert after["exchange"]["USDT"] == {"free": "10000", "locked": "0"}


@pytest.mark.parametrize("answers", [False, True])
def test_a_start_that_waits_for_the_exchange_is_called_off_in_order(tmp_path, answers):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1] if answers else unused_port()}"
        settings = {
            "BOT_EXCHANGE__REST_URL": address,
            "BOT_EXCHANGE__WS_URL": address.replace("http", "ws"),
            "BOT_API_KEY": "k" * 64,
            "BOT_API_SECRET": "s" * 64,
        }
        with Program("run", "--mode", "testnet", "--data-dir", tmp_path / "d", cwd=tmp_path, settings=settings) as bot:
            wait_until((tmp_path / "d" / "lock").exists, 20, "the directory is claimed")
            bot.send(signal.SIGTERM)
            assert bot.ends(10) == 0


@pytest.mark.slow
def test_the_last_lines_tell_of_an_order_that_was_in_flight_at_the_stop(tmp_path):
    with desk(tmp_path) as at:
        with at.running_bot() as bot:
            at.fault("delay", ms=1500, path="/api/v3/order")
            at.signal("BTCUSDT", "BUY")
            wait_until(lambda: at.orders("BTCUSDT"), 10, "the order is at the exchange")
        book = at.book
        assert book["BTC"] == at.total("BTC") > 0
        said = {line.split()[0]: line.split()[1:] for line in bot.said.splitlines() if line.startswith("  ")}
        assert said["trades"] == ["1"]
        assert said["decisions"][0] == said["messages"][0]
        assert said["positions"] == ["BTCUSDT", f"{book['BTC']}"]
        assert said["cash"] == [f"{book['USDT']:,.2f}", "USDT"]


@pytest.mark.slow
def test_a_symbol_that_the_book_does_not_know_is_not_reconciled(tmp_path):
    with desk(tmp_path) as at:
        with at.running_bot():
            at.trades("BTCUSDT", "BUY")
            (row,) = json.loads(at.ask("reconcile", "BTCUSDT", "--json"))["assets"]
            assert Decimal(row["book"]) == at.book["BTC"]
            unknown = at.run("reconcile", "btcusdt", "--accept")
        for ended in (unknown, at.run("reconcile", "XRPUSDT"), at.run("reconcile", "XRPUSDT", "--accept")):
            assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
            assert "it has BTCUSDT, DOGEUSDT, ETHUSDT" in ended.stderr
