"""Apache Kafka killed with SIGKILL under load, the bot killed in between: topics have what the store has, in order.

Broker, exchange and bot are processes; the bot trades on klines that come forty times as fast as the exchange's. During
each outage the bot is killed too, now and then, and again at random while the broker is up. In the end a reader that
shares no code with the bot reads the topics: each stored kline and trade is there once, after the reader has dropped
what it has seen by (symbol, open_time, event_time) or client order id, and each symbol's are in order. Then the store
is rebuilt from the topics and has to be equal. The long form, outages of up to a minute:

    BULKHEAD_BROKER_KILLS=10 pytest tests/chaos/test_broker_storm.py -s

Recovery is the time from when the broker answers again until nothing of the outage waits any more.
"""

import json
import os
import random
import statistics
import time
from collections import Counter
from decimal import Decimal

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

from bot.app.control import ControlError, ask
from tests.integration.processes import ExchangeProcess, Program, command, pause, told, wait_until
from tests.support.kafka.brokers import ApacheKafka
from tests.support.kafka.jars import NoBroker

KILLS = int(os.environ.get("BULKHEAD_BROKER_KILLS", "2"))
LONGEST_S = 60.0 if KILLS > 2 else 5.0
SEED = int(os.environ.get("BULKHEAD_SEED") or 1)
INTERVAL_MS = 50
RECOVERS_WITHIN_S = 30.0
PREFIX = "storm."


@pytest.fixture
def broker(tmp_path):
    try:
        started = ApacheKafka(tmp_path / "broker")
    except NoBroker as error:
        must = os.environ.get("CI") == "true" or os.environ.get("BULKHEAD_TEST_KAFKA_KIND") == "apache"
        (pytest.fail if must else pytest.skip)(f"not run: {error}")
    yield started
    started.stop()


class Storm:
    """The three processes, and what was measured."""

    def __init__(self, folder, broker, exchange, rng):
        self.folder, self.broker, self.exchange, self.rng = folder, broker, exchange, rng
        self.data = folder / "bot"
        self.settings = {
            "BOT_KAFKA__BOOTSTRAP_SERVERS": broker.servers,
            "BOT_KAFKA__TOPIC_PREFIX": PREFIX,
            "BOT_BUY_DROP": "0.002",
            "BOT_SELL_RISE": "0.002",
        }
        self.bot_kills = 0
        self.outages = []
        self.launch()

    def launch(self):
        flags = ("run", "--mode", "testnet", "--data-dir", self.data)
        self.bot = Program(*flags, cwd=self.folder, settings=self.settings | self.exchange.settings)

    def kill_bot(self):
        self.bot.kill()
        self.bot_kills += 1
        self.launch()

    def status(self):
        """What the bot says of itself, None while it cannot be asked."""
        assert self.bot.is_running, self.bot.said
        try:
            return ask(self.data / "control.sock", {"command": "status"})
        except ControlError:
            return None

    def waiting(self):
        status = self.status()
        return None if status is None or not status["running"] else status["publishing"]

    def await_published(self, what):
        """Wait until the broker is up and nothing waits for longer than a moment."""

        def is_published():
            waiting = self.waiting()
            if waiting is None or waiting["link"] != "up":
                return False
            return waiting["oldest_ms"] is None or time.time() * 1000 - waiting["oldest_ms"] < 500

        try:
            wait_until(is_published, RECOVERS_WITHIN_S, what)
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.bot.said[-2000:]}") from None

    def taken(self):
        status = self.status()
        return 0 if status is None else sum(symbol["last_kline_ms"] or 0 for symbol in status["symbols"].values())

    def outage(self, seconds, with_bot):
        self.broker.kill()
        began = time.monotonic()
        before = self.taken()
        if with_bot:
            pause(self.rng.uniform(0, seconds / 2))
            self.kill_bot()
        pause(max(0.0, began + seconds - time.monotonic()))
        # A bot that was killed is still starting, on a machine that may be busy.
        wait_until(lambda: self.taken() > before, 60, f"the bot trades on without a broker: {self.bot.said[-2000:]}")
        waited = (self.waiting() or {"depth": 0})["depth"]
        self.broker.restart()
        back = time.monotonic()
        self.await_published("all of the outage is published")
        self.outages.append((back - began, waited, time.monotonic() - back))


def read_topic(servers, topic):
    """All values of a topic, partition by partition, as JSON: a reader that is not the bot's."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "foreign", "enable.partition.eof": True})
    partitions = consumer.list_topics(topic, 10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    values, open_partitions = [], set(partitions)
    while open_partitions:
        message = consumer.poll(10)
        assert message is not None, f"{topic}: nothing came"
        if message.error() is None:
            values.append(json.loads(message.value()))
        else:
            assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
            open_partitions.discard(message.partition())
    consumer.close()
    return values


def without_repeats(values, key):
    seen = {}
    for value in values:
        seen.setdefault(key(value), value)
    return list(seen.values())


def compare(storm):
    """Compare topics and store; return how many there are of what."""
    servers = storm.broker.servers
    klines, trades = read_topic(servers, f"{PREFIX}KafkaStreams"), read_topic(servers, f"{PREFIX}trades")
    seen = without_repeats(klines, lambda k: (k["symbol"], k["open_time"], k["event_time"]))
    stored = told("klines", "--data-dir", storm.data, cwd=storm.folder)
    for symbol in sorted({kline["symbol"] for kline in stored}):
        mine = [k for k in seen if k["symbol"] == symbol]
        assert mine == sorted(mine, key=lambda k: (k["open_time"], k["is_closed"], k["event_time"])), symbol
        theirs = [k for k in stored if k["symbol"] == symbol]
        assert [_plain(k) for k in mine] == [_plain(k) for k in theirs], symbol
    made = without_repeats(trades, lambda trade: trade["client_order_id"])
    booked = told("trades", "--data-dir", storm.data, cwd=storm.folder)
    ids = Counter(trade["client_order_id"] for trade in made)
    assert ids == Counter(trade["client_order_id"] for trade in booked)
    by_id = {trade["client_order_id"]: trade for trade in booked}
    for trade in made:
        its = by_id[trade["client_order_id"]]
        assert all(Decimal(trade[name]) == Decimal(its[name]) for name in ("price", "quantity", "commission")), its
    ended = command(
        *("replay", "--from-kafka", "--data-dir", "rebuilt", "--equal-to", storm.data),
        cwd=storm.folder,
        **storm.settings,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    counts = {"klines": len(seen), "trades": len(made)}
    return counts | {"klines published again": len(klines) - len(seen), "trades again": len(trades) - len(made)}


def _plain(kline):
    """The fields that topic and store share."""
    names = ("symbol", "interval", "open_time", "close_time", "event_time", "is_closed")
    numbers = ("open", "high", "low", "close", "volume", "quote_volume")
    return [kline[name] for name in names] + [Decimal(kline[name]) for name in numbers]


@pytest.mark.chaos
@pytest.mark.kafka("durable", "restart")
@pytest.mark.timeout(180 + KILLS * (LONGEST_S + 90))
def test_topics_have_what_the_store_has_whoever_was_killed(tmp_path, broker):
    rng = random.Random(SEED)
    print(f"\nBULKHEAD_SEED={SEED} BULKHEAD_BROKER_KILLS={KILLS}, {broker.title}")
    with ExchangeProcess(tmp_path / "exchange", SEED, INTERVAL_MS) as exchange:
        storm = Storm(tmp_path, broker, exchange, rng)
        try:
            storm.await_published("the first klines")
            for number in range(KILLS):
                storm.outage(rng.uniform(2.0, LONGEST_S), with_bot=number % 2 == 0)
                pause(rng.uniform(0.0, 2.0))
                storm.kill_bot()
                storm.await_published("after the bot was killed")
            storm.bot.send(15)
            assert storm.bot.ends(20) == 0, storm.bot.said
        finally:
            storm.bot.kill()
    waits = [waited for _, waited, _ in storm.outages]
    recoveries = [recovery for *_, recovery in storm.outages]
    for seconds, waited, recovery in storm.outages:
        print(f"  broker away {seconds:5.1f} s, {waited:6} waited, published {recovery:5.2f} s after it was back")
    print(f"  bot killed {storm.bot_kills} times; recovery median {statistics.median(recoveries):.2f} s")
    state = told("status", "--data-dir", storm.data, cwd=storm.folder)["publishing"]
    assert (state["depth"], state["dropped"]) == (0, 0)
    counts = compare(storm)
    print("  " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    assert min(waits) > 0
    assert counts["klines"] > 100
    assert counts["trades"] > 0
    assert max(recoveries) < RECOVERS_WITHIN_S
