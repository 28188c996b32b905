"""What benchmarks.kafka measures: a plain loop, the bot's client layers, and whole bots, each end a process."""

import json
import resource
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog
from confluent_kafka import Consumer, Producer

from bot.actors import addresses
from bot.actors.feed import FeedSettings
from bot.actors.limits import ConnectionBudget
from bot.actors.persistence import PersistenceSettings
from bot.actors.portfolio import START_CASH_NOTE
from bot.actors.stream import StreamSettings
from bot.actors.supervisor import LANES, LiveParts, Memories, Parts, PublishingParts, child_specs
from bot.actors.trader import TraderSettings
from bot.adapters.kafka.codec import Codec
from bot.adapters.kafka.market import KafkaMarketStream
from bot.adapters.kafka.publisher import KafkaPublisher
from bot.adapters.kafka.reader import KafkaReader
from bot.adapters.local_log import LocalLog
from bot.adapters.paper import PaperExchange
from bot.adapters.sqlite import SqliteJournal, SqliteOutbox, SqliteStore
from bot.app.data_directory import DataDirectory
from bot.app.publishing import BATCH_MS
from bot.config import KafkaSettings
from bot.domain.filters import default_rules
from bot.domain.kline import Kline
from bot.domain.order import OrderIntent, OrderReport
from bot.domain.position import Position
from bot.domain.risk import RiskLimits
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters
from bot.gateway import OrderGateway
from bot.ports import MarketStream, StreamClosed, at_once
from bot.supervision import ActorSystem, SystemClock

SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
MINUTE_MS, YEAR_MS = 60_000, 31_536_000_000
START_MS = 1_621_036_800_000
TOPIC = "KafkaStreams"
PRICES = [Decimal(f"{49_000 + n}.{n:02}000000") for n in range(100)]
FALLING = [Decimal(48_000), Decimal(50_000)]
TURNS = 8
ON_THE_WAY = 400
"""A source of whole bots keeps no more of a symbol's klines under way: fewer than its mailboxes hold."""


def a_kline(number: int, stamp_ns: int = 0, *, trades: bool = False) -> Kline:
    """Return the closed kline `number`, of the symbols in turn; `stamp_ns` travels as its quote_volume."""
    symbol, minute = SYMBOLS[number % len(SYMBOLS)], number // len(SYMBOLS)
    open_time = START_MS + minute * MINUTE_MS
    price = FALLING[minute % 2] if trades else PRICES[minute % 100]
    close_time = open_time + MINUTE_MS - 1
    volume = PRICES[7]
    return Kline(
        symbol,
        "1m",
        open_time,
        close_time,
        close_time,
        price,
        price,
        price,
        price,
        volume,
        Decimal(stamp_ns),
        True,
        close_time,
    )


def cpu_s() -> float:
    """Return the seconds of CPU that this process took so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def resident_mb() -> float:
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


# A plain loop


def plain_producer(servers: str, topic: str, count: int, pipe: Connection) -> None:
    """Produce klines as a script would: a dict, json.dumps, produce, poll."""
    config = {
        "bootstrap.servers": servers,
        "enable.idempotence": True,
        "acks": "all",
        "compression.type": "lz4",
        "linger.ms": 5,
    }
    producer, delivered = Producer(config), 0

    def on_delivery(error: object, _: object) -> None:
        nonlocal delivered
        assert error is None, error
        delivered += 1

    pipe.send("ready")
    pipe.recv()
    for number in range(count):
        kline = a_kline(number)
        value = {
            "ticker": kline.symbol,
            "symbol": kline.symbol,
            "interval": kline.interval,
            "open_time": kline.open_time,
            "close_time": kline.close_time,
            "event_time": kline.event_time,
            "open": str(kline.open),
            "high": str(kline.high),
            "low": str(kline.low),
            "close": str(kline.close),
            "volume": str(kline.volume),
            "quote_volume": str(kline.quote_volume),
            "is_closed": kline.is_closed,
        }
        while True:
            try:
                producer.produce(
                    topic, json.dumps(value), kline.symbol, headers={"type": "Kline"}, on_delivery=on_delivery
                )
                break
            except BufferError:
                producer.poll(0.05)
        if number % 1000 == 0:
            producer.poll(0)
    producer.flush()
    assert delivered == count
    pipe.send(cpu_s())


def plain_consumer(servers: str, topic: str, count: int, pipe: Connection) -> None:
    """Consume them, parse, and compare each close with the one before it."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    consumer.poll(3)
    pipe.send("ready")
    pipe.recv()
    seen, signals, before = 0, 0, dict.fromkeys(SYMBOLS, Decimal(1))
    while seen < count:
        for message in consumer.consume(500, 0.1):
            value = json.loads(message.value())
            close = Decimal(value["close"])
            signals += close <= before[value["symbol"]] * Decimal("0.99")
            before[value["symbol"]] = close
            seen += 1
    pipe.send(cpu_s())
    consumer.close()


# The bot's client layers alone


def settings_of(servers: str, prefix: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=servers, topic_prefix=prefix)


def layer_producer(servers: str, prefix: str, count: int, pipe: Connection) -> None:
    """Give klines to the bot's publisher, a thousand at a time."""
    publisher = KafkaPublisher(settings_of(servers, prefix), Codec("paper", prefix), SystemClock())
    pipe.send("ready")
    pipe.recv()
    taken = 0
    while taken < count:
        upto = min(taken + 1000, count)
        taken = publisher.publish(upto, [a_kline(number) for number in range(taken, upto)])
        publisher.poll(0 if taken == upto else 0.05)
    while publisher.delivered < count:
        publisher.poll(0.1)
    pipe.send(cpu_s())
    publisher.close(5)


def layer_consumer(servers: str, prefix: str, count: int, pipe: Connection) -> None:
    """Take them from the bot's stream of published klines, and decide by the bot's rule."""
    stored: dict[str, Kline] = {}
    strategy, states = Scalping(Decimal("0.01"), Decimal("0.01")), dict.fromkeys(SYMBOLS)
    connection = kafka_stream(servers, prefix, stored.get).connect(SYMBOLS, "1m")
    pipe.send("ready")
    pipe.recv()
    seen, position = 0, Position()
    while seen < count:
        kline = connection.receive()
        if kline is not None:
            states[kline.symbol], _ = strategy.decide(states[kline.symbol], kline, position)
            stored[kline.symbol] = kline
            seen += 1
    pipe.send(cpu_s())
    connection.close()


def kafka_stream(servers: str, prefix: str, last_stored: Callable[[str], Kline | None]) -> KafkaMarketStream:
    settings = settings_of(servers, prefix)
    codec = Codec("paper", prefix)

    def complain(line: str) -> None:
        raise AssertionError(line)

    return KafkaMarketStream(
        lambda: KafkaReader(settings, [TOPIC], f"{prefix}group"), codec, last_stored, complain, SystemClock()
    )


# Whole bots


class Source:
    """A market stream of made klines: `count` as fast as they are taken, or at `rate` a second for `seconds`."""

    def __init__(self, count: int, rate: float = 0, trades: bool = False) -> None:
        self.count, self.rate, self.trades = count, rate, trades
        self.memories: Memories | None = None
        self.number = 0
        self.is_on = False

    def connect(self, symbols: Sequence[str], interval: str) -> "Source":
        return self

    def receive(self) -> Kline | None:
        if self.number >= self.count or not self.is_on:
            time.sleep(0.005)
            return None
        number = self.number
        if self.rate:
            due = self._began + number / self.rate
            time.sleep(max(0.0, due - time.perf_counter()))
        else:
            assert self.memories is not None
            memory = self.memories.traders[SYMBOLS[number % len(SYMBOLS)]]
            while number // len(SYMBOLS) - memory.value.taken > ON_THE_WAY:
                time.sleep(0.001)
        self.number += 1
        return a_kline(number, time.time_ns(), trades=self.trades)

    def begin(self) -> None:
        self._began = time.perf_counter()
        self.is_on = True

    def close(self) -> None:
        self.count = 0


class Timed(Scalping):
    """The rule; notes how long after its stamp each kline was decided."""

    def __init__(self, keep: int) -> None:
        super().__init__(Decimal("0.01"), Decimal("0.01"))
        self.after_ns: deque[int] = deque(maxlen=keep)

    def decide(self, state: Any, kline: Kline, position: Position) -> Any:
        if kline.quote_volume:
            self.after_ns.append(time.time_ns() - int(kline.quote_volume))
        return super().decide(state, kline, position)


class Placed(PaperExchange):
    """Paper; notes how long after its kline's stamp each order was placed."""

    def note(self, stamp_of: Callable[[str, int], int]) -> None:
        self.stamp_of, self.after_ns = stamp_of, list[int]()

    def place(self, intent: OrderIntent, leave: Any = at_once) -> OrderReport:
        self.after_ns.append(time.time_ns() - self.stamp_of(intent.symbol, intent.open_time))
        return super().place(intent, leave)


class Bot:
    """All actors over real files, on a market stream; publishing where it is given a prefix."""

    def __init__(self, folder: Path, market: Callable[["Bot"], MarketStream], publish: tuple[str, str] | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.memories = Memories(SYMBOLS)
        self.store = SqliteStore(folder / "history.db")
        self.journal = SqliteJournal(folder / "orders.db")
        self.journal.set_note(START_CASH_NOTE, "1000000")
        self.outbox = SqliteOutbox(folder / "outbox.db", 10**10) if publish else None
        self.strategy = Timed(200_000)
        self.log = LocalLog(folder / "spool")
        clock = SystemClock()
        rules = {symbol: rule for symbol in SYMBOLS if (rule := default_rules(symbol)) is not None}
        sizing = SizingParameters(fraction=Decimal("0.001"))
        self.exchange = Placed(rules, sizing, clock, next_trade_id=1)
        directory = DataDirectory(folder)
        publishing = None
        if publish and self.outbox:
            servers, prefix = publish
            settings, codec = settings_of(servers, prefix), Codec("paper", prefix)
            publishing = PublishingParts(self.outbox, lambda: KafkaPublisher(settings, codec, clock))
        forever = {"update_ms": YEAR_MS, "max_silence_ms": YEAR_MS, "life_ms": YEAR_MS}
        parts = Parts(
            feeds=tuple(FeedSettings(symbol, "1m") for symbol in SYMBOLS),
            traders=tuple(TraderSettings(symbol=s, mode="paper", bot_id="b", limits=RiskLimits()) for s in SYMBOLS),
            persistence=PersistenceSettings(batch_ms=BATCH_MS) if publish else PersistenceSettings(),
            rules=rules,
            strategy=self.strategy,
            sizing=sizing,
            mode="paper",
            live=LiveParts(market(self), (StreamSettings(0, SYMBOLS, "1m", **forever),), ConnectionBudget(clock)),
            history=None,
            gateway=OrderGateway(self.exchange, self.journal, directory),
            journal=self.journal,
            store=self.store,
            log=self.log,
            free_bytes=lambda: 10**12,
            now_ms=clock.now_ms,
            exchange_now_ms=clock.now_ms,
            memories=self.memories,
            handler_deadline_ms=120_000,
            halt=lambda *_: None,
            publishing=publishing,
        )
        self.system = ActorSystem(clock, lanes=LANES, on_event=self._hear)
        self.system.start(child_specs(parts))

    def _hear(self, event: object) -> None:
        self.system.tell(addresses.MONITOR, event)

    def last_stored(self, symbol: str) -> Kline | None:
        klines = self.store.last_klines(symbol, 1)
        return klines[0] if klines else None

    @property
    def taken(self) -> int:
        return sum(cell.value.taken for cell in self.memories.traders.values())

    def is_done(self, count: int) -> bool:
        return self.taken >= count and self.log.depth == 0 and (self.outbox is None or self.outbox.state().depth == 0)

    def stop(self) -> None:
        self.system.stop()
        for database in (self.store, self.journal, self.outbox):
            if database is not None:
                database.close()
        self.log.close()


@contextmanager
def quietly(folder: Path) -> Iterator[None]:
    """What actors say goes to a file; threads take turns as in a real run."""
    import sys

    folder.mkdir(parents=True, exist_ok=True)
    sys.setswitchinterval(0.0005)
    with (folder / "log").open("w") as log:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(log))
        yield


def first_bot(servers: str, prefix: str, folder: Path, count: int, rate: float, pipe: Connection) -> None:
    """A bot on made klines that publishes, if there is a prefix; tells its CPU seconds once the broker has all."""
    source = Source(count, rate)
    with quietly(folder):
        bot = Bot(folder, lambda made: _bound(source, made), (servers, prefix) if prefix else None)
        pipe.send("ready")
        pipe.recv()
        began = cpu_s()
        source.begin()
        while not bot.is_done(count):
            time.sleep(0.02)
        pipe.send(cpu_s() - began)
        bot.stop()


def _bound(source: Source, bot: Bot) -> Source:
    source.memories = bot.memories
    return source


def second_bot(servers: str, prefix: str, folder: Path, count: int, pipe: Connection) -> None:
    """A bot on what the first one publishes; tells its CPU seconds and the latencies in ns."""
    with quietly(folder):
        bot = Bot(folder, lambda made: kafka_stream(servers, prefix, made.last_stored), None)
        feeds = bot.memories.feeds.values()
        while not all(cell.value.connected for cell in feeds):
            time.sleep(0.02)
        pipe.send("ready")
        pipe.recv()
        began = cpu_s()
        while not bot.is_done(count):
            time.sleep(0.02)
        pipe.send((cpu_s() - began, list(bot.strategy.after_ns)))
        bot.stop()


def order_paths(servers: str, prefix: str, folder: Path, seconds: float, rate: float, pipe: Connection) -> None:
    """Order with and without publishing, in turns; tells the latencies of each in ns, from kline to order."""
    results: dict[str, list[list[int]]] = {"without": [], "with": []}
    with quietly(folder):
        for turn in range(TURNS):
            for kind, publish in (("without", None), ("with", (servers, prefix))):
                source = Source(int(seconds * rate), rate, trades=True)
                stamps: dict[tuple[str, int], int] = {}
                bot = Bot(folder / f"{kind}{turn}", lambda made, s=source: _bound(s, made), publish)
                real = source.receive

                def receive(real: Any = real, stamps: Any = stamps) -> Kline | None:
                    kline: Kline | None = real()
                    if kline is not None:
                        stamps[kline.symbol, kline.open_time] = int(kline.quote_volume or 0)
                    return kline

                source.receive = receive  # type: ignore[method-assign]
                bot.exchange.note(lambda symbol, at, stamps=stamps: stamps[symbol, at])
                source.begin()
                while not bot.is_done(source.count):
                    time.sleep(0.02)
                results[kind].append(bot.exchange.after_ns[20:])
                bot.stop()
    pipe.send(results)


# Memory


def endless_producer(servers: str, prefix: str, folder: Path, count: int, pipe: Connection) -> None:
    """Outbox and publisher over `count` klines, the store left out; tells memory in MB twenty times."""
    from bot.actors.cells import Cell, PublisherMemory
    from bot.actors.publisher import PublisherActor, PublisherSettings
    from bot.messages import Publish
    from bot.supervision import ChildSpec

    settings, codec, clock = settings_of(servers, prefix), Codec("paper", prefix), SystemClock()
    with quietly(folder), SqliteOutbox(folder / "outbox.db", 10**9) as outbox:
        system = ActorSystem(clock, lanes=LANES)

        def make(context: Any) -> PublisherActor:
            cell = Cell(PublisherMemory())
            return PublisherActor(
                context, PublisherSettings(), cell, outbox, lambda: KafkaPublisher(settings, codec, clock)
            )

        system.start([ChildSpec(addresses.PUBLISHER, make, handler_deadline_ms=120_000)])
        pipe.send("ready")
        pipe.recv()
        for upto in range(1000, count + 1, 1000):
            outbox.add(upto, [a_kline(number) for number in range(upto - 1000, upto)], clock.now_ms())
            outbox.confirm()
            system.tell(addresses.PUBLISHER, Publish())
            while outbox.state().depth > 20_000:
                time.sleep(0.005)
            if upto % (count // 20) == 0:
                pipe.send(resident_mb())
        while outbox.state().depth:
            time.sleep(0.02)
        pipe.send(cpu_s())
        system.stop()


def endless_consumer(servers: str, prefix: str, count: int, pipe: Connection) -> None:
    """The stream of published klines over `count` of them; tells memory in MB twenty times."""
    stored: dict[str, Kline] = {}
    connection = kafka_stream(servers, prefix, stored.get).connect(SYMBOLS, "1m")
    pipe.send("ready")
    pipe.recv()
    seen = 0
    while seen < count:
        try:
            kline = connection.receive()
        except StreamClosed as error:
            raise AssertionError(error) from None
        if kline is not None:
            stored[kline.symbol] = kline
            seen += 1
            if seen % (count // 20) == 0:
                pipe.send(resident_mb())
    pipe.send(cpu_s())
    connection.close()
