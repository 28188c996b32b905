"""Publishes log entries by an idempotent producer, so that every entry is on its topic at least once and in order."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from bot.adapters.kafka.client import client_config, is_refusal, open_client, reason_of
from bot.adapters.kafka.codec import Codec
from bot.config import KafkaSettings
from bot.messages import LogEntry
from bot.ports import Link, LinkState
from bot.supervision import Clock

# Taken, not acknowledged: some tens of MB at most. What is beyond waits with the caller.
QUEUE_MESSAGES = 20_000
# After a refusal, until it is tried again: a person has to do something in between.
RETRY_MS = 2_000
STATISTICS_MS = 1_000
FLUSHES = 10


class _BrokerStatistics(msgspec.Struct):
    nodeid: int
    state: str


class _PartitionStatistics(msgspec.Struct):
    txmsgs: int


class _TopicStatistics(msgspec.Struct):
    partitions: dict[str, _PartitionStatistics] = {}


class _Statistics(msgspec.Struct):
    brokers: dict[str, _BrokerStatistics] = {}
    topics: dict[str, _TopicStatistics] = {}


_ENDS = (KafkaError._GAPLESS_GUARANTEE, KafkaError._FATAL)
_STATISTICS = msgspec.json.Decoder(_Statistics)


def _flush(producer: Producer, timeout_s: float) -> bool:
    """Return whether the flush came to its end, rather than to the end of the producer."""
    try:
        producer.flush(timeout_s)
    except (KafkaException, SystemError) as error:
        _end_in(error)
        return False
    return True


def _end_in(error: KafkaException | SystemError) -> KafkaError:
    """Return what ended a producer, as its library raised it.

    Raised while it has a delivery to tell of too, it comes as the cause of a SystemError: the library calls back with
    its own error still pending.
    """
    raised = error if isinstance(error, KafkaException) else error.__cause__
    if not isinstance(raised, KafkaException):
        raise error
    found: KafkaError = raised.args[0]
    return found


class KafkaPublisher:
    """A `ports.Publisher` of one mode's entries; the first offset it takes is behind `after`.

    The producer tries again by itself, without end and in order, whatever may pass. An entry that the broker refuses
    (no such topic, no right, too large) ends the producer: what was behind it is given up too, and `taken` falls
    back to `delivered`. Another producer begins there RETRY_MS later, so order holds and nothing is left out.

    Source: librdkafka, CONFIGURATION.md and INTRODUCTION.md, Idempotent producer.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        codec: Codec,
        clock: Clock,
        after: int = 0,
        region: str = "",
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        """Nothing is taken before `ready` says that the topics are there.

        A producer that finds none has them made by a broker that is set so, with fewer partitions and days than wanted.

        Raises ConfigurationRefused where no client can be made of the settings."""
        self._settings = settings
        self._codec = codec
        self._clock = clock
        self._ready = ready
        self._config = client_config(settings, region) | {
            "enable.idempotence": True,
            "acks": "all",
            # Behind a message that is lost for good nothing may pass: the producer ends instead.
            "enable.gapless.guarantee": True,
            "message.timeout.ms": 0,
            "compression.type": settings.compression,
            "linger.ms": settings.linger_ms,
            # How long a topic that is not there may be one that was just made.
            "topic.metadata.propagation.max.ms": 5_000,
            "queue.buffering.max.messages": 2 * QUEUE_MESSAGES,
            "statistics.interval.ms": STATISTICS_MS,
        }
        self._taken = self._delivered = after
        self._acknowledged: set[int] = set()
        self._counts = {"delivered": 0, "failed": 0, "retried": 0}
        self._produced = self._retried_now = 0
        self._link, self._reason = Link.CONNECTING, ""
        self._retry_at: int | None = None
        self._refused = self._ended = False
        self._producer: Producer | None = self._make()

    @property
    def taken(self) -> int:
        return self._taken

    @property
    def delivered(self) -> int:
        return self._delivered

    def publish(self, upto: int, entries: Sequence[LogEntry]) -> int:
        offset = upto - len(entries)
        if offset != self._taken:
            raise ValueError(f"offset {offset + 1} is not the next: {self._taken} was taken last")
        producer = self._producer
        if producer is None or not self._ready():
            return self._taken
        encode, produce, on_delivery = self._codec.encode, producer.produce, self._on_delivery
        room = QUEUE_MESSAGES - (self._taken - self._delivered)
        for entry in entries[:room] if room > 0 else ():
            offset += 1
            message = encode(entry)
            if message is None:
                self._acknowledged.add(offset)
            else:
                topic, key, value, headers = message
                try:
                    produce(topic, value, key, on_delivery=partial(on_delivery, offset), headers=headers)
                    self._produced += 1
                except BufferError:
                    break
                except KafkaException as error:
                    # The producer is at its end; what it still holds is told of in poll.
                    self._refuse(error.args[0])
                    break
            self._taken = offset
        self._advance()
        return self._taken

    def poll(self, timeout_s: float = 0) -> None:
        if self._producer is None:
            if self._retry_at is None or self._clock.monotonic_ms() < self._retry_at:
                return
            self._producer = self._make()
        try:
            self._producer.poll(timeout_s)
        except (KafkaException, SystemError) as error:
            self._refuse(_end_in(error))  # the library raises here, instead of telling, what ends a producer
        self._advance()
        if self._refused:
            self._begin_again()

    def state(self) -> LinkState:
        queued = self._taken - self._delivered - len(self._acknowledged)
        return LinkState(self._link, self._reason, queued=queued, **self._counts)

    def close(self, timeout_s: float) -> None:
        if self._producer is not None:
            _flush(self._producer, timeout_s)
            self._drop()

    def _make(self) -> Producer:
        self._retry_at, self._produced, self._retried_now = None, 0, 0
        return open_client(Producer, self._config | {"error_cb": self._on_error, "stats_cb": self._on_statistics})

    def _begin_again(self) -> None:
        self._drop()
        self._acknowledged.clear()
        self._taken = self._delivered
        self._refused = self._ended = False
        self._retry_at = self._clock.monotonic_ms() + RETRY_MS

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            # Told of here, what was acknowledged before the end still counts, and why it ended.
            producer.purge()
            for _ in range(FLUSHES):
                if _flush(producer, 1):  # else the end itself was raised again, maybe before the rest is told
                    break
            self._advance()

    def _on_delivery(self, offset: int, error: KafkaError | None, _: Any) -> None:
        if error is None:
            self._counts["delivered"] += 1
            self._acknowledged.add(offset)
            if self._link is not Link.UP and not self._refused:
                self._link, self._reason = Link.UP, ""
            return
        if error.code() in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            return
        self._counts["failed"] += 1
        self._refuse(error)

    def _advance(self) -> None:
        acknowledged, delivered = self._acknowledged, self._delivered
        while delivered + 1 in acknowledged:
            delivered += 1
            acknowledged.remove(delivered)
        self._delivered = delivered

    def _refuse(self, error: KafkaError) -> None:
        # The first error is the cause; the ones behind it only follow, but that the producer ended may be told first.
        if not self._refused or (self._ended and error.code() not in _ENDS):
            self._refused, self._ended = True, error.code() in _ENDS
            self._link, self._reason = Link.REFUSED, reason_of(error, self._settings)

    def _on_error(self, error: KafkaError) -> None:
        if self._refused or error.code() == KafkaError._FATAL:
            return
        if is_refusal(error):
            self._link, self._reason = Link.REFUSED, reason_of(error, self._settings)
        elif error.code() == KafkaError._ALL_BROKERS_DOWN and self._link in (Link.REFUSED, Link.AWAY):
            return  # it comes behind the error that says why
        else:
            self._link, self._reason = Link.AWAY, reason_of(error, self._settings)

    def _on_statistics(self, text: str) -> None:
        statistics = _STATISTICS.decode(text)
        sent = sum(partition.txmsgs for topic in statistics.topics.values() for partition in topic.partitions.values())
        # What was sent more often than there are messages; those that wait hide some of it, until they are sent too.
        again = sent - self._produced - self._retried_now
        if again > 0:
            self._retried_now += again
            self._counts["retried"] += again
        brokers = statistics.brokers.values()
        if not self._refused and any(broker.state == "UP" for broker in brokers if broker.nodeid >= 0):
            self._link, self._reason = Link.UP, ""
