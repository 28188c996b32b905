"""`run` publishes what it stores; `replay --from-kafka` makes the same store and book of it again."""

import json
import signal
from decimal import Decimal

import msgspec
import pytest
from confluent_kafka import Producer

from bot.adapters.kafka.codec import Codec
from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.domain.adjustment import Adjustment
from tests.integration.processes import ExchangeProcess, Program, command, count_of_trades, wait_until
from tests.kafka.entries import ENTRIES, MINUTE_MS, START_MS, a_kline, a_trade
from tests.kafka.streams import make_topics


@pytest.fixture
def settings(kafka):
    """The environment of a bot that has this broker."""
    return {"BOT_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "BOT_KAFKA__TOPIC_PREFIX": kafka.topic_prefix}


@pytest.fixture
def told(settings, tmp_path):
    """Runs a command of the bot that has this broker; returns its status and what it said."""

    def tell(*arguments, **more):
        ended = command(*arguments, cwd=tmp_path, **(settings | more))
        return ended.returncode, ended.stdout, ended.stderr

    return tell


@pytest.fixture
def publish(kafka):
    """Writes entries to topics as a bot does."""
    make_topics(kafka)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})

    def write(*entries, mode="paper"):
        codec = Codec(mode, kafka.topic_prefix)
        for entry in entries:
            topic, key, value, headers = codec.encode(entry)
            producer.produce(topic, value, key, headers=headers)
        assert producer.flush(60) == 0

    return write


@pytest.mark.kafka("latest_offset")
@pytest.mark.timeout(600)
def test_a_bot_that_ran_twice_is_made_again_of_its_topics(told, settings, tmp_path):
    def run_until_it_traded():
        before = count_of_trades(tmp_path / "bot")
        with Program("run", "--data-dir", "bot", cwd=tmp_path, settings=settings) as bot:
            wait_until(lambda: count_of_trades(tmp_path / "bot") > before, 30, "a trade")
            bot.send(signal.SIGTERM)
            assert bot.ends(20) == 0, bot.said

    for _ in range(2):
        run_until_it_traded()
    while "nothing waits" not in told("status", "--data-dir", "bot")[1]:
        run_until_it_traded()  # what a busy machine did not publish at the stop is left to the next process
    status, out, complaint = told("replay", "--from-kafka", "--data-dir", "again", "--equal-to", "bot")
    assert (status, complaint) == (0, ""), out
    assert out.endswith("equal to bot\n")
    for what in ("klines", "trades", "wallet"):
        status, original, _ = told(what, "--json", "--data-dir", "bot")
        assert status == 0
        assert told(what, "--json", "--data-dir", "again")[1] == original
        assert len(original) > 50
    status, _, complaint = told("run", "--data-dir", "again", "--for", "1s")
    assert status == 2
    assert complaint.startswith("again was rebuilt of trades, to be looked at: orders that made no trade are not in")
    assert "so no demo run goes on with it; trade with the original" in complaint
    assert complaint.count("\n") == 1


@pytest.mark.kafka("latest_offset")
@pytest.mark.timeout(600)
def test_a_rebuilt_paper_book_trades_on(kafka, told, tmp_path):
    def trades_of(name):
        status, out, _ = told("trades", "--json", "--data-dir", name)
        return json.loads(out) if status == 0 else []

    def trade(name, settings):
        before = len(trades_of(name))
        with Program("run", "--mode", "paper", "--data-dir", name, cwd=tmp_path, settings=settings) as bot:
            bot.await_line("topics made" if name == "bot" else "stream up", 30)
            wait_until(lambda: len(trades_of(name)) > before, 60, "a trade")
            bot.send(signal.SIGTERM)
            assert bot.ends(20) == 0, bot.said

    settings = {
        "BOT_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "BOT_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        "BOT_BUY_DROP": "0.002",
        "BOT_SELL_RISE": "0.002",
    }
    with ExchangeProcess(tmp_path / "exchange", 7, 50) as exchange:
        settings |= exchange.settings
        trade("bot", settings)
        while "nothing waits" not in told("status", "--data-dir", "bot")[1]:
            trade("bot", settings)  # what a busy machine did not publish at the stop is left to the next process
        status, out, complaint = told("replay", "--from-kafka", "--data-dir", "again", "--equal-to", "bot")
        assert (status, complaint) == (0, ""), out
        before = trades_of("again")
        trade("again", settings)
    after = trades_of("again")
    assert after[: len(before)] == before
    assert len(after) > len(before) > 0
    for name in ("order_id", "client_order_id"):
        assert len({trade[name] for trade in after}) == len(after)
    held = json.loads(told("wallet", "--json", "--data-dir", "again")[1])["positions"]
    for symbol in held:
        bought = sum(
            Decimal(one["quantity"]) - Decimal(one["commission"])
            for one in after
            if one["symbol"] == symbol and one["side"] == "BUY"
        )
        sold = sum(Decimal(one["quantity"]) for one in after if one["symbol"] == symbol and one["side"] == "SELL")
        assert Decimal(held[symbol]) == bought - sold


@pytest.mark.kafka("latest_offset")
def test_what_a_person_booked_is_on_no_topic_and_that_is_said(told, publish, tmp_path):
    publish(ENTRIES["BookOpened"], a_kline(0), a_kline(1))
    assert told("replay", "--from-kafka", "--data-dir", "one")[0] == 0
    with SqliteJournal(tmp_path / "one" / "orders.db") as journal:
        journal.adjust(Adjustment("a1", "", Decimal(0), Decimal(-5), "reconcile --accept", START_MS))
    status, out, _ = told("replay", "--from-kafka", "--data-dir", "two", "--equal-to", "one")
    assert status == 1
    assert "NOT equal to one: cash: 10000 rebuilt, 9995 in the original, 1 of whose corrections are on no topic" in out


@pytest.mark.kafka("latest_offset")
def test_messages_that_came_twice_count_once_and_late_fills_replace_their_trade(told, publish, tmp_path):
    klines = [a_kline(number) for number in range(5)]
    part = msgspec.structs.replace(a_trade(2), quantity=Decimal("0.01"))
    publish(ENTRIES["BookOpened"], *klines[:3], *klines, part, a_trade(2), part)
    status, out, complaint = told("replay", "--from-kafka", "--data-dir", "again")
    assert (status, complaint) == (0, "")
    assert out.startswith("rebuilt the paper book: 5 klines, 1 trades, 1 events; 5 came more than once")
    with SqliteStore.read_only(tmp_path / "again" / "history.db") as store:
        assert list(store.klines()) == klines
        assert list(store.trades()) == [a_trade(2)]
    status, out, _ = told("replay", "--from-kafka", "--since", str(START_MS + 3 * MINUTE_MS), "--data-dir", "late")
    assert out.startswith("rebuilt the paper book: 2 klines, 1 trades, 0 events")


@pytest.mark.kafka("latest_offset")
def test_a_store_that_lacks_a_kline_is_not_equal(told, publish, tmp_path):
    publish(ENTRIES["BookOpened"], a_kline(0), a_kline(1))
    assert told("replay", "--from-kafka", "--data-dir", "one")[0] == 0
    publish(a_kline(2))
    status, out, _ = told("replay", "--from-kafka", "--data-dir", "two", "--equal-to", "one")
    assert status == 1
    place = f"1m#{START_MS + 2 * MINUTE_MS}#closed"
    assert f"NOT equal to one: klines of BTCUSDT: {place} rebuilt, none in the original at the same place" in out


@pytest.mark.kafka("latest_offset")
def test_topics_of_two_bots_or_modes_are_no_book_and_leave_none(told, publish, tmp_path):
    publish(ENTRIES["BookOpened"], a_kline())
    publish(a_kline(1), mode="live")
    status, _, complaint = told("replay", "--from-kafka", "--data-dir", "again")
    assert status == 1
    assert "of mode paper (" in complaint
    assert "and of mode live (" in complaint
    assert complaint.count("\n") == 1
    assert not list((tmp_path / "again").glob("*.db"))


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("servers", "status", "line"),
    [
        ("", 2, "kafka.bootstrap_servers is empty: name the broker (BOT_KAFKA__BOOTSTRAP_SERVERS)"),
        ("127.0.0.1:1", 1, "127.0.0.1:1: nothing listens there; start the broker, or mend kafka.bootstrap_servers"),
        (None, 2, "the topic is not there"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(told, servers, status, line):
    more = {} if servers is None else {"BOT_KAFKA__BOOTSTRAP_SERVERS": servers}
    got, _, complaint = told("replay", "--from-kafka", "--data-dir", "again", **more)
    assert got == status
    assert complaint.startswith(line)
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "no FILE to replay; name kline files, or --from-kafka for a broker's topics"),
        (["--since", "now", "x.csv"], "--since belongs to --from-kafka; give that too, or leave it out"),
        (["--from-kafka", "x.csv"], "x.csv: --from-kafka reads topics and takes no FILE; leave one of them out"),
        (["--from-kafka", "--since", "soon"], "'soon' is no time"),
        (["--from-kafka", "--equal-to", "nowhere"], "--equal-to nowhere holds no book"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(arguments, line, tmp_path):
    ended = command("replay", *arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(line)
    assert ended.stderr.count("\n") == 1
