"""What ends a start: a wish that comes while the exchange does not answer, a book of which the half is missing."""

import threading
from contextlib import closing

import pytest

import bot.app.system as app
from bot.adapters.sqlite import SqliteStore
from bot.app.data_directory import DataDirectory, DataDirectoryError
from bot.app.reaching import StartCancelled
from bot.app.system import BotSystem
from bot.config import load_settings
from tests.adapters.servers import Wire
from tests.contract.test_store import a_trade
from tests.integration.processes import wait_until


def test_a_stop_while_the_exchange_does_not_answer_is_heeded_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "EXCHANGE_TIMEOUTS_MS", (10_000, 600_000))
    cancelled, ends = threading.Event(), []

    def start():
        with pytest.raises(StartCancelled) as caught:
            system.start(cancelled=cancelled)
        ends.append(caught.type)

    with closing(Wire(lambda _: b"")) as exchange:
        variables = {
            "BOT_EXCHANGE__REST_URL": f"http://127.0.0.1:{exchange.port}",
            "BOT_EXCHANGE__WS_URL": f"ws://127.0.0.1:{exchange.port}",
            "BOT_API_KEY": "k",
            "BOT_API_SECRET": "s",
        }
        system = BotSystem(load_settings({"mode": "testnet", "data_dir": tmp_path / "data"}, environment=variables))
        starting = threading.Thread(target=start, daemon=True)
        starting.start()
        wait_until(lambda: any(exchange.received), 15, "a question that gets no answer")
        cancelled.set()
        starting.join(60)
        assert ends == [StartCancelled]


def test_trades_without_the_journal_of_their_orders_are_no_book_to_go_on_with(tmp_path):
    settings = load_settings({"mode": "demo", "data_dir": tmp_path}, environment={})
    bot = BotSystem(settings)
    bot.start()
    bot.stop()
    directory = DataDirectory(tmp_path)
    with SqliteStore(directory.history) as store:
        store.write([], [a_trade()])
    directory.orders.unlink()
    with pytest.raises(DataDirectoryError, match=r"trades in history\.db but no orders\.db.*restore it or use another"):
        BotSystem(settings).start()
    assert directory.running_pid() is None
    assert not directory.orders.exists()
