"""The broker beside a running bot: what waits for it, how it is reached, which topics it needs."""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bot.actors import addresses
from bot.actors.supervisor import PublishingParts
from bot.adapters.sqlite import SqliteOutbox
from bot.app.account import noted_names
from bot.app.data_directory import DataDirectory
from bot.config import KafkaSettings, Settings
from bot.domain.kline import Kline
from bot.messages import TOPICS, BookOpened, Notice, Publish
from bot.ports import ConfigurationRefused, Publisher, TopicReader
from bot.supervision import Address, Clock

if TYPE_CHECKING:
    from bot.adapters.kafka.admin import Topics
    from bot.adapters.kafka.market import KafkaMarketStream

BATCH_MS = 5
"""How long what is to go elsewhere may wait for others to be stored with it, where there is a broker or DynamoDB."""

TOPICS_RETRY_S = 2.0
ATTEND_S = 60.0
DAY_MS = 86_400_000
CLAIM_WITHIN_S = 2.0
"""How long a start waits for each answer of a broker that is asked whose topics these are."""

Book = Callable[[int], BookOpened]
"""What is published of the book, for a time in ms UTC."""


class Publishing:
    """What a bot needs to publish. Nothing here waits for a broker, which may be away for as long as it likes."""

    def __init__(self, settings: Settings, path: Path, clock: Clock, formerly: frozenset[str] = frozenset()) -> None:
        """Open the outbox. `formerly` is what the book's account was called too.

        Raises StoreError, and ConfigurationRefused where no client can be made of the settings.
        """
        # Imported only now: whoever has no broker needs no client.
        from bot.adapters.kafka.admin import Topics
        from bot.adapters.kafka.codec import Codec
        from bot.adapters.kafka.publisher import KafkaPublisher

        kafka, region = settings.kafka, settings.aws.region
        self._clock = clock
        self._formerly = formerly
        self._kafka, self._region = kafka, region
        self._held: str | None = ""  # not known yet
        self._topics = Topics(kafka, region)
        codec = Codec(settings.mode.value, kafka.topic_prefix)
        # What it takes from a topic is there already.
        kinds = [kind for kind in TOPICS if not (kind is Kline and settings.takes_klines_of_its_topics)]
        self.outbox = SqliteOutbox(path, kafka.outbox_bytes, kinds)

        def connect() -> Publisher:
            return KafkaPublisher(kafka, codec, clock, region=region, ready=lambda: self._held is None)

        self.parts = PublishingParts(self.outbox, connect, lambda: self._held)

    def claim(self, ours: BookOpened) -> None:
        """Refuse topics of another bot, where the broker can be asked now; else `attend` holds all back once it can.

        Takes half a second where no broker listens. Raises ConfigurationRefused, both named.
        """
        from bot.adapters.kafka.admin import Topics

        try:
            asked = Topics(self._kafka, self._region, CLAIM_WITHIN_S)
            is_there = self._kafka.topic_prefix + TOPICS[BookOpened] in asked.partitions()
            anothers = self._anothers(ours, CLAIM_WITHIN_S) if is_there else None
        except (ConnectionError, ConfigurationRefused):
            return  # told of by the publisher and by `attend`, who ask again
        if anothers is not None:
            raise ConfigurationRefused(anothers)

    def attend(self, stopping: threading.Event, tell: Callable[[Address, object], object], book: Book) -> None:
        """Make the topics once the broker can be asked, and let publishing begin if they are this bot's or nobody's.

        Whose book is published is said at once and daily.
        """
        told_ms, refused = -DAY_MS, ""
        while not stopping.is_set():
            if self._clock.monotonic_ms() - told_ms >= DAY_MS:
                told_ms = self._clock.monotonic_ms()
                tell(addresses.BRIDGE, book(self._clock.now_ms()))
            if self._held is None:
                stopping.wait(ATTEND_S)
                continue
            try:
                made = self._topics.create_missing()
                # A topic that was just made is nobody's, and may not be readable yet.
                is_new = self._kafka.topic_prefix + TOPICS[BookOpened] in made
                anothers = None if is_new else self._anothers(book(0))
                self._held = None if anothers is None else f"nothing is published: {anothers}"
                refused, was = self._held or "", refused
                if made:
                    tell(addresses.MONITOR, self._notice("info", f"topics made: {', '.join(made)}"))
                tell(addresses.PUBLISHER, Publish())
            except ConnectionError:
                was = refused  # the publisher tells of it
            except ConfigurationRefused as error:
                refused, was = str(error), refused
            if refused and refused != was:
                tell(addresses.MONITOR, self._notice("error", refused))
            if self._held is not None:
                stopping.wait(TOPICS_RETRY_S)

    def _anothers(self, ours: BookOpened, timeout_s: float = 10.0) -> str | None:
        """Return whose topics these are if they are another bot's, with the fix; None if this one's or nobody's.

        Raises ConnectionError, ConfigurationRefused.
        """
        theirs = _told_book(self._kafka, self._region, timeout_s)
        if theirs is None:
            return None
        wanted = {name: getattr(ours, name) for name in _WHOSE}
        if theirs.account in self._formerly:
            del wanted["account"]
        return _refusal(theirs, wanted, self._kafka.topic_prefix)

    def _notice(self, level: str, text: str) -> Notice:
        return Notice("publisher", level, text, self._clock.now_ms())

    def close(self) -> None:
        """Close the outbox; what waits in it is for the next process."""
        self.outbox.close()


_WHOSE = ("mode", "exchange", "account", "bot_id")


def _told_book(kafka: KafkaSettings, region: str, timeout_s: float) -> BookOpened | None:
    """Return the first book that the topics tell of, None if they tell of none.

    Raises ConnectionError, ConfigurationRefused.
    """
    from bot.adapters.kafka.codec import Codec, CodecError
    from bot.adapters.kafka.reader import read_through

    codec = Codec("", kafka.topic_prefix)
    for record in read_through(kafka, [TOPICS[BookOpened]], None, region, timeout_s):
        with suppress(CodecError):
            entry = codec.decode(record)
            if isinstance(entry, BookOpened):
                return entry
    return None


def _refusal(theirs: BookOpened, wanted: Mapping[str, str], prefix: str) -> str | None:
    differing = [
        f"{name} is {getattr(theirs, name)!r}, not {value!r}"
        for name, value in wanted.items()
        if getattr(theirs, name) != value
    ]
    if not differing:
        return None
    return (
        f"topic {prefix}{TOPICS[BookOpened]} belongs to another bot ({'; '.join(differing)}); "
        "give these a kafka.topic_prefix of their own"
    )


def examine_book(settings: Settings, directory: DataDirectory, topics: "Topics", timeout_s: float) -> str:
    """Return in one line whose the topics are.

    What a run asks of the exchange is not known here: account and exchange are compared where a directory has them.
    Raises ConfigurationRefused where they are another bot's or may not be read, ConnectionError, DataDirectoryError,
    StoreError.
    """
    is_there = settings.kafka.topic_prefix + TOPICS[BookOpened] in topics.partitions()
    theirs = _told_book(settings.kafka, settings.aws.region, timeout_s) if is_there else None
    ours = directory.identity()
    if theirs is None:
        return "nobody's yet, the first run makes them its own"
    wanted = {"mode": settings.mode.value, "bot_id": settings.bot_id}
    if ours is not None and ours.mode == settings.mode.value:
        wanted |= {"exchange": ours.exchange, "account": ours.account}
        if theirs.account in noted_names(directory):
            del wanted["account"]
    if refusal := _refusal(theirs, wanted, settings.kafka.topic_prefix):
        raise ConfigurationRefused(refusal)
    return f"a {theirs.mode} book of {theirs.bot_id}, {theirs.exchange}"


def published_klines(
    settings: Settings, last_stored: Callable[[str], Kline | None], on_bad_record: Callable[[str], None], clock: Clock
) -> "KafkaMarketStream":
    """Return the stream of the klines that another process publishes.

    A second member of the same bot takes the first one's place. Raises ConfigurationRefused where no client can be
    made of the settings.
    """
    from bot.adapters.kafka.codec import Codec
    from bot.adapters.kafka.market import TOPIC, KafkaMarketStream
    from bot.adapters.kafka.reader import KafkaReader

    prefix = settings.market_data.topic_prefix
    kafka = settings.kafka if prefix is None else settings.kafka.model_copy(update={"topic_prefix": prefix})
    group = f"bulkhead.{settings.bot_id}.{settings.mode.value}"

    def open_reader() -> TopicReader:
        return KafkaReader(kafka, [TOPIC], group, settings.aws.region, instance=settings.bot_id)

    return KafkaMarketStream(open_reader, Codec("", kafka.topic_prefix), last_stored, on_bad_record, clock)
