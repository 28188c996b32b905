"""A bot whose broker is away: it trades, what waits is told, and the next process goes on from there."""

from decimal import Decimal

import msgspec
import pytest

from bot.adapters.kafka.admin import Topics
from bot.app import publishing
from bot.app.data_directory import DataDirectory
from bot.app.publishing import Publishing
from bot.app.snapshot import stored_snapshot
from bot.app.system import BotSystem
from bot.cli.tables import status_table
from bot.config import load_settings
from bot.messages import BookOpened
from bot.ports import ConfigurationRefused
from bot.supervision import SystemClock
from tests.chaos.stepping import await_true
from tests.kafka.streams import everything, publish, publisher_of

NOWHERE = {"BOT_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}


@pytest.fixture
def new_bot(tmp_path):
    """Makes bots of mode demo on one data directory."""
    bots = []

    def make(**environment):
        flags = {"mode": "demo", "symbols": "BTCUSDT", "data_dir": tmp_path}
        bots.append(BotSystem(load_settings(flags, environment=NOWHERE | environment)))
        return bots[-1]

    yield make
    for bot in bots:
        bot.stop()


def shown(status, capsys):
    from rich.console import Console

    Console(width=200).print(status_table(status))
    return capsys.readouterr().out


def test_without_a_broker_a_bot_trades_and_tells_what_waits(new_bot, tmp_path, capsys):
    bot = new_bot()
    bot.start()

    def told():
        return bot.snapshot().as_json()["publishing"]

    await_true(lambda: told()["link"] == "away", 20, "it knows that no broker answers")
    await_true(lambda: bot.snapshot().symbols[0].messages > 1, 20, "it takes klines")
    await_true(lambda: told()["depth"] > 2, 20, "they wait")
    assert told()["oldest_ms"] > 0
    assert (told()["published"], told()["dropped"]) == (0, 0)
    assert bot.trouble() is None
    out = shown(bot.snapshot().as_json(), capsys)
    assert "no broker: 127.0.0.1:1: nothing listens there; start the broker" in out
    assert " wait, 0.0 MB, the oldest since " in out
    bot.stop()
    left = stored_snapshot(DataDirectory(tmp_path)).as_json()["publishing"]
    assert (left["link"], left["depth"] > 2) == (None, True)
    assert "to be published; " in shown(stored_snapshot(DataDirectory(tmp_path)).as_json(), capsys)
    again = new_bot()
    again.start()
    assert again.snapshot().as_json()["publishing"]["depth"] >= left["depth"]


@pytest.mark.kafka
def test_topics_of_another_bot_are_refused_with_both_named(kafka, tmp_path, monkeypatch):
    """At the start where the broker answers; where it did not, nothing is published and trading goes on."""
    monkeypatch.setattr(publishing, "CLAIM_WITHIN_S", 60.0)  # a busy machine takes its time
    bots = []

    def a_bot(bot_id):
        flags = {"mode": "demo", "symbols": "BTCUSDT", "data_dir": tmp_path / bot_id, "bot_id": bot_id}
        broker = {"BOT_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
        bot = BotSystem(load_settings(flags, environment=broker | {"BOT_KAFKA__TOPIC_PREFIX": kafka.topic_prefix}))
        bots.append(bot)
        bot.start()
        return bot

    def told(bot):
        return bot.snapshot().as_json()["publishing"]

    def is_told():
        return any(isinstance(entry, BookOpened) for entry in everything(kafka, "actor-events"))

    try:
        first = a_bot("first")
        await_true(lambda: told(first)["published"], 30, "the first one publishes")
        await_true(is_told, 30, "its topics say whose they are")
        first.stop()
        whose = r"belongs to another bot \(bot_id is 'first', not 'second'\); give these a kafka.topic_prefix"
        with pytest.raises(ConfigurationRefused, match=f"^topic {kafka.topic_prefix}actor-events {whose}"):
            a_bot("second")
        with monkeypatch.context() as patch:
            patch.setattr(Publishing, "claim", lambda self, ours: None)
            second = a_bot("second")
        await_true(lambda: told(second)["link"] == "refused", 30, "the second one is refused")
        await_true(lambda: second.snapshot().symbols[0].messages > 1, 20, "it takes klines")
        assert "nothing is published: topic" in told(second)["reason"]
        assert "belongs to another bot (bot_id is 'first', not 'second')" in told(second)["reason"]
        assert told(second)["published"] == 0
        second.stop()
        again = a_bot("first")
        await_true(lambda: told(again)["published"] > 0, 30, "the first one goes on")
    finally:
        for bot in bots:
            bot.stop()


@pytest.mark.kafka
def test_topics_of_the_same_account_under_its_former_name_are_this_bots(kafka, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "CLAIM_WITHIN_S", 60.0)
    where = {"BOT_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "BOT_KAFKA__TOPIC_PREFIX": kafka.topic_prefix}
    settings = load_settings({"mode": "demo"}, environment=where)
    before = BookOpened("book", "testnet", "com@testnet", "key 1", "bulkhead", Decimal(0), "[]", 1)
    Topics(kafka).create_missing()
    publish(publisher_of(kafka), [before])

    def claim(formerly):
        topics = Publishing(settings, tmp_path / "outbox.db", SystemClock(), frozenset([formerly]))
        try:
            topics.claim(msgspec.structs.replace(before, account="uid 7"))
        finally:
            topics.close()

    claim("key 1")
    with pytest.raises(ConfigurationRefused, match="account is 'key 1', not 'uid 7'"):
        claim("key 2")


def test_a_bot_without_a_broker_has_no_outbox(new_bot, tmp_path, capsys):
    bot = new_bot(BOT_KAFKA__BOOTSTRAP_SERVERS="")
    bot.start()
    assert bot.snapshot().as_json()["publishing"] is None
    assert not (tmp_path / "outbox.db").exists()
    assert "publisher" not in [actor.name for actor in bot.snapshot().actors]
    assert "broker" not in shown(bot.snapshot().as_json(), capsys)


def test_settings_of_which_no_client_can_be_made_are_refused_at_the_start(new_bot):
    bot = new_bot(BOT_KAFKA__SECURITY_PROTOCOL="ssl", BOT_KAFKA__CA_FILE="/nowhere/ca.pem")
    with pytest.raises(ConfigurationRefused, match=r"kafka.ca_file /nowhere/ca.pem"):
        bot.start()
