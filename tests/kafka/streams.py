"""Entries published until they are acknowledged, and read back."""

from collections.abc import Callable, Sequence

from bot.adapters.kafka.admin import Topics
from bot.adapters.kafka.codec import Codec
from bot.adapters.kafka.publisher import KafkaPublisher
from bot.adapters.kafka.reader import read_through
from bot.config import KafkaSettings
from bot.messages import Kline, LogEntry
from bot.ports import Link
from bot.supervision import SystemClock
from tests.integration.processes import wait_until
from tests.kafka.entries import a_kline

SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT", "SOLUSDT")


def klines(count: int, first: int = 0) -> list[LogEntry]:
    return [a_kline(number, SYMBOLS[number % len(SYMBOLS)]) for number in range(first, first + count)]


def by_symbol(entries: Sequence[LogEntry]) -> dict[str, list[Kline]]:
    klines = [entry for entry in entries if isinstance(entry, Kline)]
    return {symbol: [kline for kline in klines if kline.symbol == symbol] for symbol in SYMBOLS}


def make_topics(settings: KafkaSettings) -> None:
    """Make the bot's topics, and wait until the broker knows those that the controller made."""
    topics = Topics(settings)
    topics.create_missing()
    wait_until(lambda: topics.partitions().keys() == topics.wanted.keys(), 10, "what was made is known")


def publisher_of(settings: KafkaSettings, after: int = 0) -> KafkaPublisher:
    return KafkaPublisher(settings, Codec("paper", settings.topic_prefix), SystemClock(), after)


def publish(publisher: KafkaPublisher, entries: Sequence[LogEntry], base: int = 0, timeout_s: float = 60) -> None:
    """Publish entries, the first at offset `base` + 1, until all are acknowledged."""

    def all_acknowledged() -> bool:
        rest = entries[publisher.taken - base :][:500]
        publisher.publish(publisher.taken + len(rest), rest)
        publisher.poll(0.01)
        return publisher.delivered == base + len(entries)

    wait_until(all_acknowledged, timeout_s, f"{len(entries)} entries acknowledged")


def polled(publisher: KafkaPublisher, condition: Callable[[], object], what: str, timeout_s: float = 30) -> None:
    """Poll until a condition holds."""

    def holds() -> bool:
        publisher.poll(0.02)
        return bool(condition())

    wait_until(holds, timeout_s, what)


def linked(publisher: KafkaPublisher, link: Link, timeout_s: float = 30) -> str:
    """Poll until the publisher says so of its broker; return the reason."""
    polled(publisher, lambda: publisher.state().link is link, f"the broker is {link}", timeout_s)
    return publisher.state().reason


def everything(settings: KafkaSettings, *topics: str, since_ms: int | None = None) -> list[LogEntry]:
    codec = Codec("paper", settings.topic_prefix)
    return [codec.decode(record) for record in read_through(settings, topics, since_ms)]
