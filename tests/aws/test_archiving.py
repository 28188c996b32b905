"""A bot that stores in DynamoDB: it trades whatever that does, what waits is told, and the next process goes on."""

import time
from contextlib import closing

import pytest
from rich.console import Console

from bot.actors import addresses
from bot.adapters import dynamodb
from bot.adapters.dynamodb import DynamoHistory
from bot.adapters.sqlite import SqliteStore
from bot.app import archiving
from bot.app.archiving import Archiving
from bot.app.data_directory import DataDirectory, Identity
from bot.app.snapshot import stored_snapshot
from bot.app.system import BotSystem
from bot.cli.tables import status_table
from bot.config import load_settings
from bot.ports import ConfigurationRefused, StoreError
from bot.supervision import SystemClock
from tests.adapters.servers import Wire
from tests.aws.fault_proxy import fault_proxy, silence
from tests.aws.servers import REGION
from tests.aws.tables import ClockAt, made, open_history
from tests.chaos.stepping import await_true

pytestmark = pytest.mark.usefixtures("aws_credentials")
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def new_bot(tmp_path, table_prefix):
    """Makes bots of mode demo on one data directory."""
    bots = []

    def make(url, store="dynamodb", said=None, deadline_ms=3_000):
        flags = {"mode": "demo", "symbols": "BTCUSDT", "data_dir": tmp_path / "bot"}
        environment = {
            "BOT_STORE": store,
            "BOT_AWS__REGION": REGION,
            "BOT_AWS__ENDPOINT_URL": url,
            "BOT_AWS__TABLE_PREFIX": table_prefix,
            "BOT_HANDLER_DEADLINE_MS": str(deadline_ms),
        }
        say = [].append if said is None else said.append
        bots.append(BotSystem(load_settings(flags, environment=environment), say=say))
        bots[-1].start()
        return bots[-1]

    yield make
    for bot in bots:
        bot.stop()


@pytest.fixture
def tables(dynalite, table_prefix):
    with open_history(dynalite.url, table_prefix, ClockAt(time.time_ns() // 1_000_000)) as history:
        yield history


def archive_of(bot):
    return next(actor for actor in bot.snapshot().actors if actor.name == "archive")


def told(bot):
    return bot.snapshot().as_json()["archiving"]


def shown(status, capsys):
    Console(width=250).print(status_table(status))
    return capsys.readouterr().out


def ages(bot, tables):
    """How many seconds after the bot took a kline it was in the table, for some of them."""
    for _ in range(8):
        before = bot.snapshot().symbols[0].last_kline_ms
        await_true(lambda before=before: bot.snapshot().symbols[0].last_kline_ms != before, 20, "the next one")
        taken, began = bot.snapshot().symbols[0].last_kline_ms, time.monotonic()
        await_true(lambda taken=taken: tables.last_klines("BTCUSDT", 1)[-1].event_time >= taken, 20, "there")
        yield time.monotonic() - began


def test_without_dynamodb_a_bot_trades_tells_what_waits_and_the_next_one_brings_it(
    new_bot, tmp_path, dynalite, tables, capsys
):
    bot = new_bot(NOWHERE)
    await_true(lambda: told(bot)["link"] == "away", 20, "it knows that nothing answers")
    await_true(lambda: bot.snapshot().symbols[0].messages > 1, 20, "it takes klines")
    await_true(lambda: told(bot)["depth"] > 2, 20, "they wait")
    assert (told(bot)["archived"], told(bot)["dropped"]) == (0, 0)
    assert bot.trouble() is None
    assert "DynamoDB takes nothing: DynamoDB at http://127.0.0.1:1 cannot be reached" in shown(
        bot.snapshot().as_json(), capsys
    )
    began = time.monotonic()
    bot.stop()
    assert time.monotonic() - began < 10
    left = stored_snapshot(DataDirectory(tmp_path / "bot")).as_json()
    assert left["archiving"]["depth"] > 2
    assert "to go to DynamoDB; " in shown(left, capsys)

    again = new_bot(dynalite.url)
    await_true(lambda: told(again)["link"] == "refused", 20, "there are no tables")

    def said():
        notices = again.snapshot().notices
        return [notice.text for notice in notices if notice.source == "archive" and "there is no table" in notice.text]

    await_true(said, 20, "it is said")
    (line,) = said()
    assert f"there is no table {tables.tables.klines} at {dynalite.url}: make it with check --create" in line
    made(tables)
    assert said() == [line], "once"
    # One that hangs has a successor, which asks at once.
    again._system.kill(addresses.ARCHIVE, "hang")
    await_true(lambda: told(again)["link"] == "up" and told(again)["depth"] < 5, 30, "it goes on by itself")
    assert archive_of(again).epoch >= 2
    assert any(age < 1 for age in ages(again, tables))
    again.stop()
    assert told(again) is None
    # What a busy machine did not send at the stop waits for the next start.
    left = stored_snapshot(DataDirectory(tmp_path / "bot")).as_json()["archiving"]["depth"]
    with SqliteStore.read_only(tmp_path / "bot" / "history.db") as store:
        klines, there = list(store.klines("BTCUSDT")), list(tables.klines("BTCUSDT"))
        assert there == klines[: len(there)]
        assert set(tables.trades()) <= set(store.trades())
        assert len(there) + len(list(tables.trades())) == len(klines) + store.trade_count() - left


PATIENT_MS = 120_000


@pytest.fixture
def patient(monkeypatch):
    """Whoever asks whose tables these are waits as long as a busy machine needs; to be given PATIENT_MS a handler."""
    monkeypatch.setattr(archiving, "PATIENCE_MS", 60_000)
    monkeypatch.setattr(archiving, "CLIENT_WITHIN_S", 60.0)
    monkeypatch.setattr(archiving, "CLAIM_WITHIN_S", 60.0)


def test_tables_of_another_bot_are_refused_and_both_are_named(new_bot, tables, patient):
    made(tables).tables.belong_to("live", "com@api.binance.com", "uid-1", "other")
    with pytest.raises(ConfigurationRefused, match=r"belong to another run \(mode is 'live', not 'demo'.*'other'"):
        new_bot(tables.tables._aws.endpoint_url, deadline_ms=PATIENT_MS)
    assert tables.last_klines("BTCUSDT", 1) == []


def test_a_start_does_not_wait_for_a_dynamodb_that_gives_no_answer(new_bot, dynalite, tables, monkeypatch):
    monkeypatch.setattr(archiving, "PATIENCE_MS", 60_000)
    made(tables)
    said = []
    with fault_proxy(dynalite.url) as proxy:
        proxy.fail(silence())
        bot = new_bot(proxy.url, said=said, deadline_ms=PATIENT_MS)
        assert said == [
            f"DynamoDB gets nothing yet, all waits on disk: DynamoDB at {proxy.url} gave no answer within 2 s: it is "
            "tried again"
        ]
        await_true(lambda: told(bot)["depth"] > 1, 60, "klines wait")
        assert tables.tables.identity() is None
        proxy.heal()
        await_true(lambda: told(bot)["link"] == "up", 60, "it goes on by itself")
        assert tables.tables.identity()["bot_id"] == "bulkhead", "nothing is written to tables of nobody"


@pytest.fixture
def endless_credentials(monkeypatch):
    """A role whose credentials are asked for and do not come; yields who is asked."""
    with closing(Wire(lambda _: b"")) as role:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{role.port}/")
        yield role


def test_a_start_does_not_wait_for_credentials_that_do_not_come(new_bot, endless_credentials, monkeypatch):
    monkeypatch.setattr(archiving, "CLIENT_WITHIN_S", 0.1)
    said = []
    new_bot(NOWHERE, said=said, deadline_ms=PATIENT_MS)
    (line,) = said
    assert "all waits on disk: no client of AWS within 0.1 s, as where credentials are fetched and do not come" in line


def test_why_the_tables_are_not_reached_is_said_at_the_start(new_bot, dynalite, tables, patient):
    said = []
    new_bot(dynalite.url, said=said, deadline_ms=PATIENT_MS)
    (line,) = said
    assert (
        f"nothing yet, all waits on disk: there is no table {tables.tables.klines} at {dynalite.url}: make it" in line
    )


def test_one_client_asks_however_often_it_is_refused(tmp_path, monkeypatch, dynalite, table_prefix, patient):
    """Making one takes a slow machine longer than asking: an archive that made one a try would hang."""
    made_of = []

    class Counted(DynamoHistory):
        def __init__(self, *arguments):
            made_of.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(dynamodb, "DynamoHistory", Counted)
    where = {"BOT_AWS__REGION": REGION, "BOT_AWS__ENDPOINT_URL": dynalite.url, "BOT_AWS__TABLE_PREFIX": table_prefix}
    settings = load_settings({"mode": "demo"}, environment=where)
    book = Identity("demo", "simulated", "paper", "bulkhead")
    archive = Archiving(settings, tmp_path / "dynamodb.db", book, SystemClock())
    try:
        archive.claim()
        for _ in range(2):
            with pytest.raises(StoreError):
                archive.parts.connect()
        assert len(made_of) == 1
    finally:
        archive.close()


def test_tables_that_became_another_bots_meanwhile_get_nothing(new_bot, dynalite, tables, monkeypatch):
    bot = new_bot(NOWHERE)
    await_true(lambda: told(bot)["depth"] > 1, 60, "klines wait")
    bot.stop()
    made(tables).tables.belong_to("live", "com@api.binance.com", "uid-1", "other")
    # It cannot be reached at the start, and is there a moment later.
    monkeypatch.setattr(Archiving, "claim", lambda self: "")
    monkeypatch.setattr(archiving, "PATIENCE_MS", 60_000)
    bot = new_bot(dynalite.url, deadline_ms=PATIENT_MS)
    await_true(lambda: told(bot)["link"] == "refused", 60, "it is refused")
    assert "belong to another run (mode is 'live', not 'demo'" in told(bot)["reason"]
    assert tables.last_klines("BTCUSDT", 1) == []


def test_a_change_of_store_is_told_with_what_the_tables_will_lack(new_bot):
    first, to_dynamodb, same, to_sqlite = [], [], [], []
    bot = new_bot(NOWHERE, "sqlite", first)
    await_true(lambda: bot.snapshot().symbols[0].messages, 30, "a kline was taken")
    bot.stop()
    new_bot(NOWHERE, "dynamodb", to_dynamodb).stop()
    new_bot(NOWHERE, "dynamodb", same).stop()
    new_bot(NOWHERE, "sqlite", to_sqlite).stop()
    assert first == []
    assert [line for line in same if "from now on" in line] == []
    assert "from before is not in the tables" in to_dynamodb[0]
    assert "run copy --from sqlite --to dynamodb" in to_dynamodb[0]
    assert "store is sqlite from now on: nothing goes to DynamoDB" in to_sqlite[0]
