"""The topics: made where they are absent, as the configuration has them; and what is wrong with a broker, in one line.

Source: contract, section 4; Kafka, Authorization and ACLs.
"""

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclOperation
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._topic import TopicDescription
from confluent_kafka.cimpl import NewTopic

from bot.adapters.kafka.client import ConnectionFailed, ask_metadata, client_config, is_refusal, open_client, reason_of
from bot.config import KafkaSettings, TopicSettings
from bot.ports import ConfigurationRefused

HOUR_MS = 3_600_000
# What the bot does with its topics, as ACLs call it.
NEEDED = {AclOperation.DESCRIBE: "DESCRIBE", AclOperation.READ: "READ", AclOperation.WRITE: "WRITE"}


class Topics:
    """Asks a broker about the bot's topics.

    Every call raises ConfigurationRefused where the broker refuses, ConnectionFailed where it is away; the text is one
    line with the fix.
    """

    def __init__(self, settings: KafkaSettings, region: str = "", timeout_s: float = 10.0) -> None:
        """Raises ConfigurationRefused where no client can be made of the settings."""
        self._settings = settings
        self._timeout_s = timeout_s
        self._seen: list[KafkaError] = []
        self._client = open_client(AdminClient, client_config(settings, region) | {"error_cb": self._seen.append})
        self.wanted: Mapping[str, TopicSettings] = {
            f"{settings.topic_prefix}KafkaStreams": settings.klines,
            f"{settings.topic_prefix}trades": settings.trades,
            f"{settings.topic_prefix}actor-events": settings.actor_events,
        }

    def brokers(self) -> str:
        """Return in words which cluster answers and how it is spoken to."""
        count = len(self._metadata().brokers)
        settings = self._settings
        how = settings.security_protocol + (f", {settings.sasl_mechanism}" if settings.sasl_mechanism else "")
        return f"{settings.bootstrap_servers} answers, {count} broker{'s' if count != 1 else ''}, {how}"

    def partitions(self) -> dict[str, int]:
        """Return how many partitions each of the bot's topics has that is there and may be seen."""
        known = self._metadata().topics
        return {name: len(known[name].partitions) for name in self.wanted if name in known}

    def create_missing(self) -> tuple[str, ...]:
        """Make the topics that are not there; return their names."""
        there = self.partitions()
        made = []
        for name in (name for name in self.wanted if name not in there):
            try:
                made += [name] if self._create(name) else []
            except (ConfigurationRefused, ConnectionFailed) as error:
                raise type(error)(f"topic {name}: {error}") from None
        return tuple(made)

    def examine(self, name: str) -> str:
        """Return in words what a topic is, or would be; nothing is made. Raises where the bot could not use it."""
        description = self._describe(name)
        if description is None:
            self._create(name, only_try=True)
            partitions = self.wanted[name].partitions
            return f"is not there, and will be made at the start: {partitions} partitions"
        allowed = set(description.authorized_operations or ())
        missing = [right for operation, right in NEEDED.items() if operation not in allowed]
        if missing and allowed:
            raise ConfigurationRefused(
                f"this user may not {' and '.join(missing)} it; allow that with an ACL on the topic"
            )
        return f"{len(description.partitions)} partitions{self._kept(name)}"

    def _create(self, name: str, only_try: bool = False) -> bool:
        """Return whether the topic was made; False if another process was faster."""
        topic = self.wanted[name]
        requested = NewTopic(
            name,
            num_partitions=topic.partitions,
            replication_factor=self._settings.replication_factor,
            config={
                "cleanup.policy": topic.cleanup,
                "retention.ms": str(-1 if topic.retention_hours < 0 else topic.retention_hours * HOUR_MS),
            },
        )
        try:
            asked = self._client.create_topics([requested], request_timeout=self._timeout_s, validate_only=only_try)
            self._answer(asked[name])
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise ConfigurationRefused(
                    "it is not there or may not be seen, and this user may not make it; make it, and "
                    "allow this user WRITE, READ and DESCRIBE on it with an ACL, or also CREATE"
                ) from None
            raise self._failed(error.args[0]) from None
        return True

    def _describe(self, name: str) -> TopicDescription | None:
        try:
            asked = self._client.describe_topics(
                TopicCollection([name]), include_authorized_operations=True, request_timeout=self._timeout_s
            )
            described: TopicDescription = self._answer(asked[name])
        except KafkaException as error:
            # Kafka says the one or the other of a topic that this user may not see, by version.
            if error.args[0].code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED):
                return None
            raise self._failed(error.args[0]) from None
        return described

    def _kept(self, name: str) -> str:
        """Return how long a topic keeps its messages. Raises where it forgets what is needed."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, name)
        try:
            asked = self._client.describe_configs([resource], request_timeout=self._timeout_s)
            entries = self._answer(asked[resource])
        except KafkaException:
            return ""  # a right of its own, DESCRIBE_CONFIGS, that the bot does not need
        hours = int(entries["retention.ms"].value) // HOUR_MS
        policy = entries["cleanup.policy"].value
        if "compact" in policy and "compact" not in self.wanted[name].cleanup:
            raise ConfigurationRefused(
                f"its cleanup.policy is {policy}, which keeps only the last message of a symbol; set it to delete"
            )
        return ", kept for ever" if hours < 0 else f", kept {hours} h"

    def _metadata(self) -> Any:
        self._seen.clear()
        try:
            return ask_metadata(self._client, self._seen, self._timeout_s)
        except KafkaException as error:
            raise self._failed(error.args[0]) from None

    def _answer(self, future: "Future[Any]") -> Any:
        return future.result(self._timeout_s + 5)

    def _failed(self, error: KafkaError) -> Exception:
        kind = ConfigurationRefused if is_refusal(error) else ConnectionFailed
        return kind(reason_of(error, self._settings))
