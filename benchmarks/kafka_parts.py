"""What benchmarks.kafka measures: a plain loop, the bot's client layers, and memory, each end a process."""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog
from confluent_kafka import Consumer, Producer

from bot.actors import addresses
from bot.actors.cells import Cell, PublisherMemory
from bot.actors.publisher import PublisherActor, PublisherSettings
from bot.actors.supervisor import LANES
from bot.adapters.kafka.codec import Codec
from bot.adapters.kafka.market import KafkaMarketStream
from bot.adapters.kafka.publisher import KafkaPublisher
from bot.adapters.kafka.reader import KafkaReader
from bot.adapters.sqlite import SqliteOutbox
from bot.config import KafkaSettings
from bot.domain.kline import Kline
from bot.domain.position import Position
from bot.domain.scalping import Scalping
from bot.messages import Publish
from bot.ports import StreamClosed
from bot.supervision import ActorSystem, ChildSpec, SystemClock

SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
MINUTE_MS = 60_000
START_MS = 1_621_036_800_000
TOPIC = "KafkaStreams"
PRICES = [Decimal(f"{49_000 + n}.{n:02}000000") for n in range(100)]
FALLING = [Decimal(48_000), Decimal(50_000)]


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
    """Produce the same messages as a script would: a dict, json.dumps, produce, poll."""
    headers = {"type": "Kline", "schema": "1", "mode": "paper"}
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
    began = cpu_s()
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
                producer.produce(topic, json.dumps(value), kline.symbol, headers=headers, on_delivery=on_delivery)
                break
            except BufferError:
                producer.poll(0.05)
        if number % 1000 == 0:
            producer.poll(0)
    producer.flush()
    assert delivered == count
    pipe.send(cpu_s() - began)


def plain_consumer(servers: str, topic: str, count: int, pipe: Connection) -> None:
    """Consume them, parse, and compare each close with the one before it."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    consumer.poll(3)
    pipe.send("ready")
    pipe.recv()
    began = cpu_s()
    seen, signals, before = 0, 0, dict.fromkeys(SYMBOLS, Decimal(1))
    while seen < count:
        for message in consumer.consume(500, 0.1):
            value = json.loads(message.value())
            close = Decimal(value["close"])
            signals += close <= before[value["symbol"]] * Decimal("0.99")
            before[value["symbol"]] = close
            seen += 1
    pipe.send(cpu_s() - began)
    consumer.close()


# The bot's client layers alone


def settings_of(servers: str, prefix: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=servers, topic_prefix=prefix)


def layer_producer(servers: str, prefix: str, count: int, pipe: Connection) -> None:
    """Give klines to the bot's publisher, a thousand at a time."""
    publisher = KafkaPublisher(settings_of(servers, prefix), Codec("paper", prefix), SystemClock())
    pipe.send("ready")
    pipe.recv()
    began = cpu_s()
    taken = 0
    while taken < count:
        upto = min(taken + 1000, count)
        taken = publisher.publish(upto, [a_kline(number) for number in range(taken, upto)])
        publisher.poll(0 if taken == upto else 0.05)
    while publisher.delivered < count:
        publisher.poll(0.1)
    pipe.send(cpu_s() - began)
    publisher.close(5)


def layer_consumer(servers: str, prefix: str, count: int, pipe: Connection) -> None:
    """Take them from the bot's stream of published klines, and decide by the bot's rule."""
    stored: dict[str, Kline] = {}
    strategy, states = Scalping(Decimal("0.01"), Decimal("0.01")), dict.fromkeys(SYMBOLS)
    connection = kafka_stream(servers, prefix, stored.get).connect(SYMBOLS, "1m")
    pipe.send("ready")
    pipe.recv()
    began = cpu_s()
    seen, position = 0, Position()
    while seen < count:
        kline = connection.receive()
        if kline is not None:
            states[kline.symbol], _ = strategy.decide(states[kline.symbol], kline, position)
            stored[kline.symbol] = kline
            seen += 1
    pipe.send(cpu_s() - began)
    connection.close()


def kafka_stream(servers: str, prefix: str, last_stored: Callable[[str], Kline | None]) -> KafkaMarketStream:
    settings = settings_of(servers, prefix)
    codec = Codec("paper", prefix)

    def complain(line: str) -> None:
        raise AssertionError(line)

    return KafkaMarketStream(
        lambda: KafkaReader(settings, [TOPIC], f"{prefix}group"), codec, last_stored, complain, SystemClock()
    )


@contextmanager
def quietly(folder: Path) -> Iterator[None]:
    """What actors say goes to a file; threads take turns as in a real run."""
    folder.mkdir(parents=True, exist_ok=True)
    sys.setswitchinterval(0.0005)
    with (folder / "log").open("w") as log:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(log))
        yield


# Memory


def endless_producer(servers: str, prefix: str, folder: Path, count: int, pipe: Connection) -> None:
    """Outbox and publisher over `count` klines, the store left out; tells memory in MB twenty times."""
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
