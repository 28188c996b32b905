"""What ends a start: a wish that comes while the exchange does not answer, a book of which the half is missing."""

import threading
from contextlib import closing

import pytest

import bot.app.system as app
from bot.adapters.sqlite import SqliteStore
from bot.app.archiving import Archiving
from bot.app.data_directory import DataDirectory, DataDirectoryError
from bot.app.publishing import Publishing
from bot.app.reaching import StartCancelled
from bot.app.system import BotSystem
from bot.config import load_settings
from tests.adapters.servers import Wire
from tests.contract.test_store import a_trade
from tests.integration.processes import wait_until


def assert_stop_is_heeded(system, is_asked):
    """A start that waits for an answer that does not come is ended by the wish to stop."""
    cancelled, ends = threading.Event(), []

    def start():
        with pytest.raises(StartCancelled) as caught:
            system.start(cancelled=cancelled)
        ends.append(caught.type)

    starting = threading.Thread(target=start, daemon=True)
    starting.start()
    wait_until(is_asked, 15, "a question that gets no answer")
    cancelled.set()
    starting.join(60)
    assert ends == [StartCancelled]


def test_a_stop_while_the_exchange_does_not_answer_is_heeded_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(app, "EXCHANGE_TIMEOUTS_MS", (10_000, 600_000))
    with closing(Wire(lambda _: b"")) as exchange:
        variables = {
            "BOT_EXCHANGE__REST_URL": f"http://127.0.0.1:{exchange.port}",
            "BOT_EXCHANGE__WS_URL": f"ws://127.0.0.1:{exchange.port}",
            "BOT_API_KEY": "k",
            "BOT_API_SECRET": "s",
        }
        system = BotSystem(load_settings({"mode": "testnet", "data_dir": tmp_path / "data"}, environment=variables))
        assert_stop_is_heeded(system, lambda: any(exchange.received))


@pytest.mark.parametrize(
    ("asker", "variables"),
    [
        (Publishing, {"BOT_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}),
        (Archiving, {"BOT_STORE": "dynamodb", "BOT_AWS__REGION": "eu-central-1"}),
    ],
)
def test_a_stop_while_nobody_says_whose_topics_or_tables_these_are_is_heeded_at_once(
    tmp_path, monkeypatch, asker, variables
):
    asked, released = threading.Event(), threading.Event()
    monkeypatch.setattr(asker, "claim", lambda *_: (asked.set(), released.wait()))
    try:
        system = BotSystem(load_settings({"mode": "demo", "data_dir": tmp_path / "data"}, environment=variables))
        assert_stop_is_heeded(system, asked.is_set)
    finally:
        released.set()


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
    directory.orders.touch()
    with pytest.raises(DataDirectoryError, match=r"trades in history\.db but an empty orders\.db"):
        BotSystem(settings).start()
    assert directory.orders.stat().st_size == 0
