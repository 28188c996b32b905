"""Reads topics: as a member of a group that commits, or once from a time up to the end."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from bot.adapters.kafka.client import (
    ConnectionFailed,
    ask_metadata,
    cause_of,
    client_config,
    is_refusal,
    open_client,
    reason_of,
)
from bot.config import KafkaSettings
from bot.ports import ConfigurationRefused, Link, LinkState, Record

# Within this a member that was killed is missed and its partitions go to the others.
SESSION_MS = 10_000
_NO_GROUP = KafkaError.GROUP_AUTHORIZATION_FAILED
# As right after a start of the broker: a partition has its leader a moment later.
_NO_LEADER = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
_NO_LEADER_PAUSE_S = 0.1


class KafkaReader:
    """A `ports.TopicReader`: manual commits, cooperative-sticky, from the first message where nothing was committed."""

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Sequence[str],
        group: str,
        region: str = "",
        session_ms: int = SESSION_MS,
        instance: str = "",
    ) -> None:
        """A member with an `instance` has its partitions at once when it comes back, without its session's end.

        Raises ConfigurationRefused where no client can be made of the settings.
        """
        self._settings = settings
        self._link, self._reason = Link.CONNECTING, ""
        self._failed = 0
        self._consumer = open_client(
            Consumer,
            client_config(settings, region)
            | {
                "group.id": group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "partition.assignment.strategy": "cooperative-sticky",
                "isolation.level": "read_committed",
                "session.timeout.ms": session_ms,
                "heartbeat.interval.ms": max(session_ms // 4, 100),
                "max.poll.interval.ms": max(300_000, session_ms),
                "fetch.wait.max.ms": 100,
                "error_cb": self._on_error,
            }
            | ({"group.instance.id": instance} if instance else {}),
        )
        self._consumer.subscribe([settings.topic_prefix + topic for topic in topics])

    def poll(self, limit: int, timeout_s: float) -> list[Record]:
        records = []
        try:
            for message in _consume(self._consumer, limit, timeout_s):
                error = message.error()
                if error is None:
                    records.append(_record(message))
                else:
                    self._failed += 1
                    self._on_error(error)
        except KafkaException as raised:
            self._failed += 1
            self._on_error(raised.args[0])
        if records:
            self._link, self._reason = Link.UP, ""
        return records

    def commit(self, records: Iterable[Record]) -> bool:
        behind: dict[tuple[str, int], int] = {}
        for record in records:
            place = (record.topic, record.partition)
            behind[place] = max(behind.get(place, 0), record.offset + 1)
        if not behind:
            return True
        offsets = [TopicPartition(topic, partition, offset) for (topic, partition), offset in behind.items()]
        try:
            taken = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            self._on_error(error.args[0])
            return False
        return all(place.error is None for place in taken or ())

    def ends(self) -> dict[tuple[str, int], int]:
        ends = {}
        try:
            for place in self._consumer.assignment():
                _, end = self._consumer.get_watermark_offsets(place, cached=True)
                if end >= 0:
                    ends[place.topic, place.partition] = end
        except KafkaException as error:
            self._on_error(error.args[0])
        return ends

    def state(self) -> LinkState:
        return LinkState(self._link, self._reason, failed=self._failed)

    def close(self) -> None:
        self._consumer.close()

    def _on_error(self, error: KafkaError) -> None:
        if is_refusal(error):
            self._link = Link.REFUSED
        elif error.code() == KafkaError._ALL_BROKERS_DOWN and self._link in (Link.REFUSED, Link.AWAY):
            return  # it comes behind the error that says why
        else:
            self._link = Link.AWAY
        self._reason = reason_of(error, self._settings)


def read_through(
    settings: KafkaSettings,
    topics: Sequence[str],
    since_ms: int | None = None,
    region: str = "",
    timeout_s: float = 10.0,
) -> Iterator[Record]:
    """Give all records of `topics` that were there at the call, or those published at or after `since_ms` (UTC).

    Each partition in its order, partitions mixed; no group, nothing is committed.

    Raises ConfigurationRefused where a topic is not there or may not be read, ConnectionFailed where the broker is away
    or gives nothing for `timeout_s`; the text is one line with the fix.
    """
    seen: list[KafkaError] = []
    config: dict[str, Any] = client_config(settings, region) | {
        "group.id": "bulkhead-unused",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 50,
        "error_cb": lambda error: seen.append(error) if error.code() != _NO_GROUP else None,
    }
    consumer = open_client(Consumer, config)
    try:
        left = _assign(consumer, seen, [settings.topic_prefix + topic for topic in topics], since_ms, timeout_s)
        while left:
            messages = _consume(consumer, 5_000, timeout_s)
            if not messages:
                raise KafkaException(seen[0] if seen else KafkaError(KafkaError._TIMED_OUT))
            for message in messages:
                failure, place = message.error(), (str(message.topic()), message.partition() or 0)
                offset = message.offset() or 0
                if failure is not None and failure.code() != KafkaError._PARTITION_EOF:
                    if failure.code() == _NO_GROUP:
                        continue  # the library looks for the group, to which nothing here needs a right
                    raise KafkaException(failure)
                if failure is None and offset < left.get(place, 0):
                    yield _record(message)
                # Aborted or compacted messages leave holes, so the last offset may be none that is ever given.
                if offset + (failure is None) >= left.get(place, 0):
                    left.pop(place, None)
    except KafkaException as error:
        cause = cause_of(seen, error.args[0])
        kind = ConfigurationRefused if is_refusal(cause) else ConnectionFailed
        raise kind(reason_of(cause, settings)) from None
    finally:
        consumer.close()


def _consume(consumer: Consumer, limit: int, timeout_s: float) -> list[KafkaMessage]:
    # `consume` with a time-out waits until it has `limit` messages: what is there is taken first, then one waited for.
    messages = consumer.consume(limit, 0)
    if not messages and (first := consumer.poll(timeout_s)) is not None:
        messages = [first, *(consumer.consume(limit - 1, 0) if limit > 1 else ())]
    return messages


def _assign(
    consumer: Consumer, seen: list[KafkaError], topics: Sequence[str], since_ms: int | None, timeout_s: float
) -> dict[tuple[str, int], int]:
    """Point the consumer at the first record wanted of each partition; return the ends of those that hold one."""
    wanted = []
    ends: dict[tuple[str, int], int] = {}
    for topic in topics:
        described = ask_metadata(consumer, seen, timeout_s, topic).topics[topic]
        if described.error is not None:
            raise KafkaException(described.error)
        for partition in described.partitions:
            place = TopicPartition(topic, partition, since_ms or 0)
            low, high = _bounds(consumer, place, timeout_s)
            start = low
            if since_ms is not None:
                found = consumer.offsets_for_times([place], timeout_s)[0]
                if found.error is not None:
                    raise KafkaException(found.error)
                start = found.offset if found.offset >= 0 else high
            if start < high:
                wanted.append(TopicPartition(topic, partition, start))
                ends[topic, partition] = high
    consumer.assign(wanted)
    return ends


def _bounds(consumer: Consumer, place: TopicPartition, timeout_s: float) -> tuple[int, int]:
    """Return the first offset that there is of a partition, and the one behind its last.

    While the partition has no leader, it is asked again. The library asks for both offsets at once and, where one of
    the answers is an error, takes the other for both: so what looks empty is asked twice.
    """
    deadline = time.monotonic() + timeout_s
    looked_empty = False
    while True:
        try:
            low, high = consumer.get_watermark_offsets(place, timeout_s)
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER or time.monotonic() > deadline:
                raise
            looked_empty = False
            time.sleep(_NO_LEADER_PAUSE_S)
            continue
        if low < high or looked_empty:
            return low, high
        looked_empty = True


def _record(message: KafkaMessage) -> Record:
    return Record(
        message.topic(),  # type: ignore[arg-type]
        message.partition(),  # type: ignore[arg-type]
        message.offset(),  # type: ignore[arg-type]
        message.timestamp()[1],
        message.key(),
        message.value(),
        tuple(message.headers() or ()),  # type: ignore[arg-type]
    )
