"""What is published is read in order, whatever happens to the broker or the reader in between."""

import random
import time
from functools import partial

import msgspec
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from bot.adapters.kafka.codec import Codec
from bot.adapters.kafka.publisher import QUEUE_MESSAGES
from bot.adapters.kafka.reader import KafkaReader, read_through
from bot.config import KafkaSettings
from bot.messages import LogEntry
from bot.ports import Link
from bot.supervision import SystemClock
from tests.integration.processes import pause, wait_until
from tests.kafka.entries import ENTRIES, a_trade
from tests.kafka.streams import by_symbol, everything, klines, linked, make_topics, polled, publish, publisher_of
from tests.support.builders import a_decision
from tests.support.kafka.brokers import Broker

pytestmark = pytest.mark.kafka()


@pytest.mark.kafka("latest_offset")
def test_all_kinds_go_there_and_come_back(kafka: KafkaSettings) -> None:
    make_topics(kafka)
    publisher = publisher_of(kafka)
    publish(publisher, [a_decision(), *ENTRIES.values(), a_decision()])
    state = publisher.state()
    assert (state.link, state.reason, state.failed, state.queued) == (Link.UP, "", 0, 0)
    assert state.delivered == len(ENTRIES), "what has no topic is not sent, and holds nothing up"
    publisher.close(5)
    read = everything(kafka, "KafkaStreams", "trades", "actor-events")
    assert sorted(map(repr, read)) == sorted(map(repr, ENTRIES.values()))


@pytest.mark.kafka("latest_offset")
def test_what_was_published_since_a_time_is_read_alone(kafka: KafkaSettings) -> None:
    make_topics(kafka)
    publisher = publisher_of(kafka)
    publish(publisher, klines(40))
    (last,) = {max(record.time for record in read_through(kafka, ["KafkaStreams"]))}
    wait_until(lambda: SystemClock().now_ms() > last, 5, "another millisecond")
    publish(publisher, klines(20, first=40), base=40)
    publisher.close(5)
    assert by_symbol(everything(kafka, "KafkaStreams")) == by_symbol(klines(60))
    assert by_symbol(everything(kafka, "KafkaStreams", since_ms=last + 1)) == by_symbol(klines(20, first=40))
    assert everything(kafka, "KafkaStreams", "trades", since_ms=SystemClock().now_ms() + 60_000) == []


def test_a_group_goes_on_behind_what_it_committed(kafka: KafkaSettings) -> None:
    make_topics(kafka)
    publisher = publisher_of(kafka)
    publish(publisher, klines(400))
    publisher.close(5)
    codec, group = Codec("paper", kafka.topic_prefix), f"{kafka.topic_prefix}readers"
    done: list[LogEntry] = []
    for _ in range(2):
        reader = KafkaReader(kafka, ["KafkaStreams"], group)
        for count in (150, 50):
            got = wait_until(partial(reader.poll, count, 0.5), 20, "records")
            while len(got) < count:
                got += reader.poll(count - len(got), 5)
            if count == 150:
                assert reader.commit(got)
                done += map(codec.decode, got)
        # The last 50 were not committed: they come again.
        assert reader.state().link is Link.UP
        reader.close()
    reader = KafkaReader(kafka, ["KafkaStreams"], group)
    while len(done) < 400:
        done += map(codec.decode, wait_until(partial(reader.poll, 500, 0.5), 20, "the rest"))
    reader.close()
    assert by_symbol(done) == by_symbol(klines(400))


@pytest.mark.kafka("durable", "restart", "latest_offset")
def test_a_killed_broker_loses_nothing_and_turns_nothing_round(broker: Broker, kafka: KafkaSettings) -> None:
    make_topics(kafka)
    publisher = publisher_of(kafka)
    entries = klines(6_000)
    publish(publisher, entries[:2_000])
    publisher.publish(4_000, entries[2_000:4_000])
    broker.kill()
    linked(publisher, Link.AWAY)
    polled(publisher, lambda: "nothing listens there; start the broker" in publisher.state().reason, "the reason")
    begun = time.monotonic()
    assert publisher.publish(6_000, entries[4_000:]) == 6_000
    assert time.monotonic() - begun < 10, "an absent broker makes nobody wait"
    assert publisher.state().queued > 1_900
    broker.restart()
    publish(publisher, entries)
    state = publisher.state()
    assert (state.link, state.failed, state.queued) == (Link.UP, 0, 0)
    publisher.close(5)
    read = by_symbol(everything(kafka, "KafkaStreams"))
    assert read == by_symbol(entries), "an idempotent producer that lives on repeats nothing"


@pytest.mark.kafka("restart")
def test_a_broker_that_is_absent_at_the_start_is_waited_for(broker: Broker, kafka: KafkaSettings) -> None:
    make_topics(kafka)
    broker.kill()
    publisher = publisher_of(kafka, after=7)
    assert (publisher.taken, publisher.delivered, publisher.state().link) == (7, 7, Link.CONNECTING)
    entries = klines(QUEUE_MESSAGES + 500)
    assert publisher.publish(7 + len(entries), entries) == 7 + QUEUE_MESSAGES, "what it holds is bounded"
    assert publisher.publish(publisher.taken + 1, entries[:1]) == publisher.taken
    reader = KafkaReader(kafka, ["KafkaStreams"], f"{kafka.topic_prefix}early")
    assert reader.poll(10, 0.3) == []
    broker.restart()
    publish(publisher, entries, base=7)
    publisher.close(5)
    first = wait_until(partial(reader.poll, 10, 0.5), 30, "the reader found the broker")
    assert reader.commit(first)
    reader.close()
    assert by_symbol(everything(kafka, "KafkaStreams")) == by_symbol(entries)


@pytest.mark.kafka("limits", "latest_offset")
def test_what_the_broker_refuses_stops_the_rest_until_it_is_mended(kafka: KafkaSettings) -> None:
    publisher = publisher_of(kafka)
    entries = [a_trade(), *klines(50)]
    publisher.publish(len(entries), entries)
    assert "the topic is not there; make it" in linked(publisher, Link.REFUSED)
    polled(publisher, lambda: publisher.taken == 0, "it fell back")
    assert publisher.delivered == 0
    make_topics(kafka)
    publish(publisher, entries)
    assert (publisher.state().link, publisher.state().reason) == (Link.UP, "")
    publisher.close(5)


@pytest.mark.kafka("limits", "latest_offset")
def test_nothing_passes_a_message_that_the_broker_refuses(kafka: KafkaSettings) -> None:
    make_topics(kafka)
    limit(kafka, "trades", "20000")
    publisher = publisher_of(kafka)
    publish(publisher, [a_trade()])
    publisher.publish(2, [msgspec.structs.replace(a_trade(1), reason=random.Random(1).randbytes(100_000).hex())])
    pause(1)  # the refusal is there, and nobody has looked
    publisher.publish(4, [a_trade(2), a_trade(3)])
    pause(1)
    assert "raise max.message.bytes" in linked(publisher, Link.REFUSED)
    polled(publisher, lambda: publisher.taken == publisher.delivered == 1, "it fell back")
    assert everything(kafka, "trades") == [a_trade()]
    limit(kafka, "trades", "1000000")
    publish(publisher, [a_trade(1), a_trade(2)], base=1)
    publisher.close(5)
    assert sorted(map(repr, everything(kafka, "trades"))) == sorted(repr(a_trade(number)) for number in range(3))


def limit(kafka: KafkaSettings, topic: str, max_message_bytes: str) -> None:
    entry = ConfigEntry("max.message.bytes", max_message_bytes, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, kafka.topic_prefix + topic, incremental_configs=[entry])
    client = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    client.incremental_alter_configs([resource])[resource].result(10)


def test_offsets_have_no_gap(kafka: KafkaSettings) -> None:
    publisher = publisher_of(kafka, after=3)
    with pytest.raises(ValueError, match="offset 5 is not the next: 3 was taken last"):
        publisher.publish(5, klines(1))
    publisher.close(0)
