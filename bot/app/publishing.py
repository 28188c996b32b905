"""The broker beside a running bot: what waits for it, how it is reached, which topics it needs."""

import threading
from collections.abc import Callable
from pathlib import Path

from bot.actors.persistence import by_table
from bot.actors.supervisor import PublishingParts
from bot.adapters.sqlite import SqliteOutbox
from bot.config import Settings
from bot.messages import Notice
from bot.ports import ConfigurationRefused, Publisher, Store
from bot.supervision import Clock

BATCH_MS = 20
"""How long what is to be published may wait for others to be stored with it, where there is a broker."""

TOPICS_RETRY_S = 2.0


class Publishing:
    """What a bot needs to publish. Nothing here waits for a broker, which may be away for as long as it likes."""

    def __init__(self, settings: Settings, path: Path, store: Store, clock: Clock) -> None:
        """Open the outbox, and give the store what a process that died may have kept there only.

        Raises StoreError, and ConfigurationRefused where no client can be made of the settings.
        """
        # Imported only now: whoever has no broker needs no client.
        from bot.adapters.kafka.admin import Topics
        from bot.adapters.kafka.codec import Codec
        from bot.adapters.kafka.publisher import KafkaPublisher

        kafka, region = settings.kafka, settings.aws.region
        self._topics = Topics(kafka, region)
        codec = Codec(settings.mode.value, kafka.topic_prefix)
        self.outbox = SqliteOutbox(path, kafka.outbox_bytes)
        left = self.outbox.unconfirmed()
        if left:
            store.write(*by_table(left))
            self.outbox.confirm()

        def connect() -> Publisher:
            return KafkaPublisher(kafka, codec, clock, region=region)

        self.parts = PublishingParts(self.outbox, connect)

    def make_topics(self, stopping: threading.Event, tell: Callable[[Notice], None], now_ms: Callable[[], int]) -> None:
        """Make the topics that are not there, as soon as the broker can be asked; returns once they are."""
        refused = ""
        while not stopping.is_set():
            try:
                made = self._topics.create_missing()
            except ConnectionError:
                pass  # the publisher tells of it
            except ConfigurationRefused as error:
                if str(error) != refused:
                    refused = str(error)
                    tell(Notice("publisher", "error", refused, now_ms()))
            else:
                if made:
                    tell(Notice("publisher", "info", f"topics made: {', '.join(made)}", now_ms()))
                return
            stopping.wait(TOPICS_RETRY_S)

    def close(self) -> None:
        """Close the outbox; what waits in it is for the next process."""
        self.outbox.close()
