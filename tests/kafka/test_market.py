"""Klines taken from topics: each has its effect once and in order; what is committed is what is stored."""

import json
import signal
from collections import defaultdict

import pytest

from bot.adapters.kafka.admin import Topics
from bot.adapters.kafka.codec import Codec
from bot.adapters.kafka.market import AWAY_MS, COMMIT_MS, READY, WINDOW, KafkaMarketStream
from bot.adapters.kafka.reader import KafkaReader
from bot.domain.kline import is_newer
from bot.ports import Link, LinkState, Record, StreamClosed
from bot.supervision.testing import ManualClock
from tests.integration.processes import (
    ExchangeProcess,
    Program,
    command,
    count_of_klines,
    count_of_trades,
    told,
    wait_until,
)
from tests.kafka.entries import START_MS, a_kline
from tests.kafka.streams import klines, publish, publisher_of

SYMBOLS = ("BTCUSDT", "ETHUSDT")


class Group:
    """A topic of two partitions and what a group committed of it; readers of it come and go."""

    def __init__(self):
        self.codec = Codec("paper")
        self.records = defaultdict(list)
        self.committed = defaultdict(int)
        self.link = Link.UP
        self.takes_commits = True
        self.commits = 0
        self.readers = []

    def publish(self, *entries, partition=0):
        for entry in entries:
            topic, key, value, headers = self.codec.encode(entry)
            offset = len(self.records[partition])
            self.records[partition].append(Record(topic, partition, offset, 0, key, value, tuple(headers)))

    def open(self):
        self.readers.append(GroupReader(self))
        return self.readers[-1]


class GroupReader:
    def __init__(self, group):
        self.group, self.at, self.is_closed = group, dict(group.committed), False

    def poll(self, limit, timeout_s):
        found = []
        for partition, records in self.group.records.items():
            at = self.at.get(partition, self.group.committed[partition])
            new = records[at : at + limit // len(self.group.records)]
            self.at[partition] = at + len(new)
            found += new
        return found

    def rewind(self):
        """As when partitions are given away and back."""
        self.at = dict(self.group.committed)

    def commit(self, records):
        self.group.commits += 1
        if self.group.takes_commits:
            for record in records:
                self.group.committed[record.partition] = record.offset + 1
        return self.group.takes_commits

    def ends(self):
        return {("KafkaStreams", partition): len(records) for partition, records in self.group.records.items()}

    def state(self):
        return LinkState(self.group.link, "" if self.group.link is Link.UP else "no broker answers")

    def close(self):
        self.is_closed = True


class Desk:
    """A connection, and feeds and a store as plain values."""

    def __init__(self, group=None):
        self.clock = ManualClock(START_MS)
        self.group = group or Group()
        self.last, self.stored, self.bad = {}, {}, []
        self.stream = KafkaMarketStream(self.group.open, self.group.codec, self.stored.get, self.bad.append, self.clock)
        self.connect()

    def connect(self):
        self.connection = self.stream.connect(SYMBOLS, "1m")
        self.connection._pause.set()  # no waiting here

    def take(self, tries=2_000):
        """What comes now and is newer than what came before, as a feed has it."""
        taken = []
        for _ in range(tries):
            kline = self.connection.receive()
            if kline is None:
                return taken
            if is_newer(kline, self.last.get(kline.symbol)):
                self.last[kline.symbol] = kline
                taken.append(kline)
        return taken

    def store(self):
        self.stored.update(self.last)
        self.clock.advance(COMMIT_MS)

    def die(self):
        """The process is killed: what was not stored is forgotten, the group sees nobody leave."""
        self.last = dict(self.stored)
        self.connect()


def test_klines_come_in_order_and_only_what_is_stored_is_committed():
    desk = Desk()
    klines = [a_kline(number) for number in range(4)]
    desk.group.publish(*klines[:3])
    assert desk.take() == klines[:3]
    desk.clock.advance(COMMIT_MS)
    desk.take()
    assert desk.group.committed[0] == 0
    desk.store()
    desk.group.publish(klines[3])
    assert desk.take() == klines[3:]
    assert desk.group.committed[0] == 3


def test_a_process_that_was_killed_takes_what_was_not_stored_and_nothing_twice():
    desk = Desk()
    klines = [a_kline(number) for number in range(6)]
    desk.group.publish(*klines[:4])
    assert desk.take() == klines[:4]
    desk.stored["BTCUSDT"] = klines[1]
    desk.die()
    assert desk.take() == klines[2:4]
    desk.store()
    desk.take()
    desk.group.publish(*klines[4:])
    desk.die()
    assert desk.take() == klines[4:]


def test_a_partition_is_committed_up_to_the_first_symbol_that_is_not_stored():
    desk = Desk()
    mine = [a_kline(number, symbol) for number in range(3) for symbol in SYMBOLS]
    desk.group.publish(*mine)
    assert sorted(desk.take(), key=mine.index) == mine
    desk.stored["ETHUSDT"] = desk.last["ETHUSDT"]
    desk.stored["BTCUSDT"] = mine[0]
    desk.clock.advance(COMMIT_MS)
    desk.take()
    assert desk.group.committed[0] == 2, "the second kline of BTCUSDT is the first that is missing"


def test_what_is_nobodys_or_cannot_be_read_holds_up_nothing():
    desk = Desk()
    desk.group.publish(a_kline(0, "DOGEUSDT"))
    record = desk.group.records[0][0]
    desk.group.records[0].append(Record(record.topic, 0, 1, 0, b"BTCUSDT", b"{}", record.headers))
    desk.group.publish(a_kline(1))
    assert desk.take() == [a_kline(1)]
    assert len(desk.bad) == 1
    desk.store()
    desk.take()
    assert desk.group.committed[0] == 3


def test_no_more_than_mailboxes_hold_is_on_its_way_and_a_slow_symbol_holds_up_no_other():
    desk = Desk()
    slow = [a_kline(number) for number in range(WINDOW + 50)]
    desk.group.publish(*slow)
    fast = [a_kline(number, "ETHUSDT") for number in range(WINDOW + 50)]
    for start in range(0, len(fast), 50):
        desk.group.publish(*fast[start : start + 50], partition=1)
        desk.take()
        desk.stored["ETHUSDT"] = desk.last["ETHUSDT"]
        desk.clock.advance(COMMIT_MS)
    assert desk.last["ETHUSDT"] == fast[-1]
    assert desk.last["BTCUSDT"] == slow[WINDOW - 1]
    desk.store()
    assert desk.take() == slow[WINDOW:]


def test_a_symbol_far_behind_is_read_again_later_and_the_others_go_on():
    desk = Desk()
    slow = [a_kline(number) for number in range(WINDOW + READY + 100)]
    desk.group.publish(*slow)
    for number in range(READY // 20):
        desk.group.publish(a_kline(number, "ETHUSDT"), partition=1)
        desk.take()
    assert desk.last["ETHUSDT"].open_time == a_kline(number).open_time
    taken = slow[:WINDOW]
    with pytest.raises(StreamClosed, match="was left behind"):  # noqa: PT012
        while True:
            desk.store()
            taken += [kline for kline in desk.take() if kline.symbol == "BTCUSDT"]
    desk.connect()
    while len(taken) < len(slow):
        taken += [kline for kline in desk.take() if kline.symbol == "BTCUSDT"]
        desk.store()
    assert taken == slow


def test_partitions_that_came_back_are_read_from_what_is_committed():
    desk = Desk()
    klines = [a_kline(number) for number in range(5)]
    desk.group.publish(*klines[:4])
    assert desk.take() == klines[:4]
    desk.group.readers[0].rewind()
    desk.group.publish(klines[4])
    assert desk.take() == klines[4:]
    desk.store()
    desk.take()
    assert desk.group.committed[0] == 5


def test_how_much_of_a_topic_is_not_stored_yet_is_told():
    desk = Desk()
    assert desk.stream.lags == {}
    desk.group.publish(*(a_kline(number) for number in range(WINDOW + 300)))
    desk.group.publish(*(a_kline(number, "ETHUSDT") for number in range(10)), partition=1)
    desk.take()
    desk.clock.advance(COMMIT_MS)
    desk.take()
    assert desk.stream.lags == {"KafkaStreams": WINDOW + 310}
    desk.store()
    desk.connection.receive()
    assert desk.stream.lags == {"KafkaStreams": 300}, "what waits here is not stored"
    desk.take()
    desk.store()
    desk.connection.receive()
    assert desk.stream.lags == {"KafkaStreams": 0}


def test_a_commit_that_was_not_taken_is_tried_again():
    desk = Desk()
    desk.group.publish(a_kline())
    desk.take()
    desk.group.takes_commits = False
    desk.store()
    desk.take()
    assert (desk.group.commits, desk.group.committed[0]) == (1, 0)
    desk.group.takes_commits = True
    desk.clock.advance(COMMIT_MS)
    desk.take()
    assert desk.group.committed[0] == 1


def test_a_broker_that_is_away_ends_the_stream_after_some_time_or_lets_none_begin():
    desk = Desk()
    desk.group.link = Link.AWAY
    assert desk.take() == []
    desk.clock.advance(AWAY_MS)
    with pytest.raises(StreamClosed, match="no broker answers"):
        desk.take()
    assert desk.group.readers[0].is_closed
    with pytest.raises(StreamClosed, match="no broker answers"):
        desk.connect()
    assert desk.group.readers[1].is_closed


def test_closed_from_another_thread_it_ends_at_the_next_receive():
    desk = Desk()
    desk.connection._owner = 0  # as if made elsewhere
    desk.connection.close()
    assert not desk.group.readers[0].is_closed
    with pytest.raises(StreamClosed):
        desk.connection.receive()


@pytest.mark.kafka("latest_offset")
def test_a_reader_knows_where_its_partitions_end(kafka):
    Topics(kafka).create_missing()
    publish(publisher_of(kafka), klines(10))
    reader, read = KafkaReader(kafka, ["KafkaStreams"], f"{kafka.topic_prefix}group"), []
    try:
        assert reader.ends() == {}

        def all_are_told():
            read.extend(reader.poll(100, 0.1))
            return sum(reader.ends().values()) == len(read) == 10

        wait_until(all_are_told, 60, "ends as far as there are klines")
        assert {topic for topic, _ in reader.ends()} == {f"{kafka.topic_prefix}KafkaStreams"}
    finally:
        reader.close()


def stored_klines(name, folder):
    """What a bot stored so far; nothing while it has not made its files."""
    ended = command("klines", "--json", "--data-dir", name, cwd=folder)
    return json.loads(ended.stdout) if ended.returncode == 0 else []


@pytest.mark.kafka("groups", "durable")
@pytest.mark.timeout(600)
def test_a_bot_that_trades_on_what_another_one_publishes_is_killed_and_misses_nothing(kafka, tmp_path):
    theirs, ours = f"{kafka.topic_prefix}a.", f"{kafka.topic_prefix}b."
    broker = {"BOT_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    with ExchangeProcess(tmp_path / "exchange", 7, 50) as exchange:
        first = {"BOT_KAFKA__TOPIC_PREFIX": theirs, "BOT_BOT_ID": "first", **broker, **exchange.settings}
        second = {
            "BOT_KAFKA__TOPIC_PREFIX": ours,
            "BOT_MARKET_DATA__SOURCE": "kafka",
            "BOT_MARKET_DATA__TOPIC_PREFIX": theirs,
            "BOT_BUY_DROP": "0.002",
            "BOT_SELL_RISE": "0.002",
            **broker,
            **exchange.settings,
        }

        def start(name, settings):
            return Program("run", "--mode", "testnet", "--data-dir", name, cwd=tmp_path, settings=settings)

        def is_further(count):
            return lambda: count_of_klines(tmp_path / "second") > count

        def has_traded(count):
            return lambda: count_of_trades(tmp_path / "second") > count

        with start("first", first) as producer:
            producer.await_line("topics made", 30)
            for _ in range(2):
                before = count_of_trades(tmp_path / "second")
                with start("second", second) as consumer:
                    wait_until(has_traded(before), 60, "it trades on what it reads")
                    consumer.kill()
            with start("second", second) as consumer:
                producer.send(signal.SIGTERM)
                assert producer.ends(20) == 0, producer.said
                whole = stored_klines("first", tmp_path)
                wait_until(is_further(len(whole) - 1), 40, "all of it is taken")
                consumer.send(signal.SIGTERM)
                assert consumer.ends(20) == 0, consumer.said
    assert stored_klines("second", tmp_path) == whole
    trades = told("trades", "--data-dir", "second", cwd=tmp_path)
    assert len({trade["client_order_id"] for trade in trades}) == len(trades) > 0
