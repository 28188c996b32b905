"""What the publisher does with errors that a real broker gives seldom: by librdkafka's mock cluster, for these only."""

from collections.abc import Iterator

import msgspec
import pytest
from confluent_kafka import KafkaError, KafkaException

from bot.config import KafkaSettings
from bot.ports import Link
from tests.kafka.entries import a_trade
from tests.kafka.streams import by_symbol, everything, klines, linked, polled, publish, publisher_of
from tests.support.kafka.mock_cluster import (
    LIST_OFFSETS,
    NOT_ENOUGH_REPLICAS,
    NOT_LEADER,
    REQUEST_TIMED_OUT,
    TOPIC_AUTHORIZATION_FAILED,
    MockCluster,
    mock_cluster,
)


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with mock_cluster() as cluster:
        cluster.create("KafkaStreams")
        yield cluster


@pytest.fixture
def settings(cluster: MockCluster) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=cluster.servers)


def test_what_may_pass_is_tried_again_and_counted(cluster: MockCluster, settings: KafkaSettings) -> None:
    publisher = publisher_of(settings)
    publish(publisher, klines(5))
    cluster.fail(REQUEST_TIMED_OUT, REQUEST_TIMED_OUT, NOT_ENOUGH_REPLICAS)
    publish(publisher, klines(5, first=5), base=5)
    polled(publisher, lambda: publisher.state().retried >= 3, "three retries are counted")
    state = publisher.state()
    assert (state.link, state.delivered, state.failed) == (Link.UP, 10, 0)
    publisher.close(5)
    assert by_symbol(everything(settings, "KafkaStreams")) == by_symbol(klines(10))


def test_a_refusal_gives_back_what_was_behind_it_too(cluster: MockCluster, settings: KafkaSettings) -> None:
    publisher = publisher_of(settings)
    publish(publisher, klines(5))
    cluster.fail(TOPIC_AUTHORIZATION_FAILED)
    publisher.publish(25, klines(20, first=5))
    assert "allow WRITE, READ and DESCRIBE on it with an ACL" in linked(publisher, Link.REFUSED)
    polled(publisher, lambda: publisher.taken == publisher.delivered == 5, "it fell back")
    assert publisher.state().failed >= 1
    publish(publisher, klines(25))
    publisher.close(5)
    assert by_symbol(everything(settings, "KafkaStreams")) == by_symbol(klines(25)), "in order, nothing twice"


def test_a_broker_that_goes_and_comes_back(cluster: MockCluster, settings: KafkaSettings) -> None:
    publisher = publisher_of(settings)
    publish(publisher, klines(5))
    cluster.set_up(False)
    publisher.publish(20, klines(15, first=5))
    linked(publisher, Link.AWAY)
    assert (publisher.delivered, publisher.state().queued, publisher.state().failed) == (5, 15, 0)
    cluster.set_up(True)
    polled(publisher, lambda: publisher.delivered == 20, "the rest was taken")
    assert publisher.state().link is Link.UP
    publisher.close(5)
    assert by_symbol(everything(settings, "KafkaStreams")) == by_symbol(klines(20))


def test_a_message_that_no_client_sends_is_refused_too(settings: KafkaSettings) -> None:
    publisher = publisher_of(settings)
    publish(publisher, klines(5))
    large = msgspec.structs.replace(a_trade(), reason="x" * 2_000_000)
    assert publisher.publish(8, [*klines(1, first=5), large, *klines(1, first=6)]) == 6
    assert "raise max.message.bytes" in publisher.state().reason
    polled(
        publisher,
        lambda: publisher.state().link is Link.REFUSED and publisher.taken == publisher.delivered,
        "it fell back",
    )
    assert publisher.delivered in (5, 6)
    publisher.close(5)


def test_a_reader_waits_for_a_partition_that_has_no_leader_yet(cluster: MockCluster, settings: KafkaSettings) -> None:
    publisher = publisher_of(settings)
    publish(publisher, klines(5))
    publisher.close(5)
    cluster.fail(NOT_LEADER, NOT_LEADER, NOT_LEADER, request=LIST_OFFSETS)
    assert by_symbol(everything(settings, "KafkaStreams")) == by_symbol(klines(5))


class Ending:
    """A producer that ended while it had deliveries to tell of, as confluent-kafka raises that then and now."""

    def __init__(self) -> None:
        self.flushes = 0

    def poll(self, _: float) -> None:
        self._end()

    def purge(self) -> None:
        pass

    def flush(self, _: float) -> None:
        self.flushes += 1
        if self.flushes < 3:
            self._end()

    def _end(self) -> None:
        raise SystemError("returned a result with an exception set") from KafkaException(
            KafkaError(KafkaError._GAPLESS_GUARANTEE, "unable to satisfy gap-less guarantee", fatal=True)
        )


def test_an_end_that_is_raised_amid_a_delivery_is_an_end_like_any_other(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, ending = publisher_of(settings), Ending()
    publish(publisher, klines(5))
    monkeypatch.setattr(publisher, "_producer", ending)
    publisher.poll()
    assert (publisher.state().link, publisher.taken, ending.flushes) == (Link.REFUSED, 5, 3)
    publish(publisher, klines(10))
    publisher.close(5)
    assert by_symbol(everything(settings, "KafkaStreams")) == by_symbol(klines(10))
