"""Topics are made as the configuration has them, and what is there already is left alone."""

from collections.abc import Mapping

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource

from bot.adapters.kafka.admin import Topics
from bot.config import KafkaSettings, TopicSettings
from tests.integration.processes import wait_until

pytestmark = pytest.mark.kafka("latest_offset")


def configuration(settings: KafkaSettings, topic: str) -> Mapping[str, str]:
    resource = ConfigResource(ConfigResource.Type.TOPIC, settings.topic_prefix + topic)
    client = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    answer = client.describe_configs([resource])[resource].result(10)
    return {name: entry.value for name, entry in answer.items()}


def test_absent_topics_are_made_once(kafka: KafkaSettings) -> None:
    settings = kafka.model_copy(
        update={
            "klines": TopicSettings(partitions=5, retention_hours=2),
            "actor_events": TopicSettings(partitions=1, cleanup="compact,delete", retention_hours=24),
        }
    )
    names = tuple(f"{kafka.topic_prefix}{name}" for name in ("KafkaStreams", "trades", "actor-events"))
    topics = Topics(settings)
    assert topics.create_missing() == names
    wanted = dict(zip(names, (5, 3, 1), strict=True))
    wait_until(lambda: topics.partitions() == wanted, 10, "what was made is known")
    assert configuration(settings, "KafkaStreams")["retention.ms"] == "7200000"
    assert configuration(settings, "KafkaStreams")["cleanup.policy"] == "delete"
    assert configuration(settings, "trades")["retention.ms"] == "-1", "trades are kept for ever"
    assert configuration(settings, "actor-events")["cleanup.policy"] == "compact,delete"
    other = kafka.model_copy(update={"klines": TopicSettings(partitions=7)})
    assert Topics(other).create_missing() == ()
    assert Topics(other).partitions()[names[0]] == 5, "what is there is left as it is"
