"""The topics: made where they are absent, as the configuration has them. Source: contract, section 4."""

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from bot.adapters.kafka.client import client_config, is_refusal, reason_of
from bot.config import KafkaSettings, TopicSettings
from bot.ports import ConfigurationRefused

HOUR_MS = 3_600_000


class Topics:
    """Asks a broker about the bot's topics."""

    def __init__(self, settings: KafkaSettings, region: str = "", timeout_s: float = 10.0) -> None:
        """Raises ConfigurationRefused where no client can be made of the settings."""
        self._settings = settings
        self._timeout_s = timeout_s
        self._seen: list[KafkaError] = []
        self._client = AdminClient(client_config(settings, region) | {"error_cb": self._seen.append})

    def create_missing(self) -> tuple[str, ...]:
        """Make the topics that are not there; return their names.

        Raises ConfigurationRefused where the broker refuses, ConnectionError where it is away; one line with the fix.
        """
        there = self.partitions()
        wanted = {name: topic for name, topic in self._wanted().items() if name not in there}
        if not wanted:
            return ()
        made = []
        requested = [
            NewTopic(
                name,
                num_partitions=topic.partitions,
                replication_factor=self._settings.replication_factor,
                config={
                    "cleanup.policy": topic.cleanup,
                    "retention.ms": str(-1 if topic.retention_hours < 0 else topic.retention_hours * HOUR_MS),
                },
            )
            for name, topic in wanted.items()
        ]
        for name, future in self._client.create_topics(requested, request_timeout=self._timeout_s).items():
            try:
                future.result(self._timeout_s + 1)
                made.append(name)
            except KafkaException as error:
                cause = error.args[0]
                # Another process of the same bot may have been faster.
                if cause.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    self._raise(cause, f"topic {name}: ")
        return tuple(made)

    def partitions(self) -> dict[str, int]:
        """Return how many partitions each of the bot's topics has that is there. Raises as `create_missing`."""
        self._seen.clear()
        try:
            known = self._client.list_topics(timeout=self._timeout_s).topics
        except KafkaException as error:
            cause = error.args[0]
            self._raise(next((one for one in self._seen if is_refusal(one)), cause))
        return {name: len(known[name].partitions) for name in self._wanted() if name in known}

    def _wanted(self) -> dict[str, TopicSettings]:
        prefix, settings = self._settings.topic_prefix, self._settings
        return {
            f"{prefix}KafkaStreams": settings.klines,
            f"{prefix}trades": settings.trades,
            f"{prefix}actor-events": settings.actor_events,
        }

    def _raise(self, error: KafkaError, subject: str = "") -> None:
        kind = ConfigurationRefused if is_refusal(error) else ConnectionError
        raise kind(subject + reason_of(error, self._settings)) from None
