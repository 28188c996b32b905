"""DynamoDB beside a running bot: what waits for it, how it is reached, and whose tables these are."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from bot.actors.archive import ArchiveSettings
from bot.actors.supervisor import ArchivingParts
from bot.adapters.sqlite import SqliteOutbox, SqliteStore
from bot.app.data_directory import DataDirectory, Identity
from bot.config import Settings
from bot.domain.kline import Kline
from bot.domain.order import Trade
from bot.ports import ConfigurationRefused, History, StoreError
from bot.supervision import Clock

PATIENCE_MS = 1_500
"""How long a call may be repeated before the archive is told: it pauses itself, and must not be long at a stop."""


class Archiving:
    """What a bot needs to store in DynamoDB, which may be away for as long as it likes."""

    def __init__(
        self, settings: Settings, path: Path, identity: Identity, clock: Clock, formerly: str | None = None
    ) -> None:
        """Open the outbox. `formerly` is what the account of `identity` was called. Raises StoreError."""
        most = settings.aws.outbox_bytes
        self.outbox = SqliteOutbox(path, most, (Kline, Trade), closed_only=settings.store_closed_only)
        alarm = ArchiveSettings(alarm_bytes=min(ArchiveSettings().alarm_bytes, most // 2))
        self.parts = ArchivingParts(self.outbox, self._connect, alarm)
        self._reach = _reaching(settings, identity, formerly, clock)
        self._reached: History | None = None

    def claim(self) -> None:
        """Make the tables this book's, if they can be reached now; the archive does so once they can.

        Takes some seconds at most. Raises ConfigurationRefused, both named, if they are another's.
        """
        with suppress(StoreError):
            self._reached = self._reach()

    def close(self) -> None:
        """Close the outbox; what waits in it is for the next process."""
        if self._reached is not None:
            self._reached.close()
        self.outbox.close()

    def _connect(self) -> History:
        reached, self._reached = self._reached, None
        try:
            return reached or self._reach()
        except ConfigurationRefused as error:
            raise StoreError(str(error)) from None


def change_of_store(settings: Settings, directory: DataDirectory, store: SqliteStore) -> str:
    """Return in a line what DynamoDB will lack because the directory's runs had another `store` so far; else nothing.

    To be asked before the outbox is opened, whose file tells that a run stored in DynamoDB. Raises StoreError.
    """
    was_archived = directory.archive.exists()
    if settings.store == "dynamodb" and not was_archived and store.symbols():
        return (
            f"store is dynamodb from now on: what {directory.history} has from before is not in the tables, so klines "
            "and trades show it once you run copy --from sqlite --to dynamodb"
        )
    if settings.store == "sqlite" and was_archived:
        return (
            f"store is sqlite from now on: nothing goes to DynamoDB; what waits in {directory.archive} goes when store "
            "is dynamodb again, what is stored meanwhile by copy --from sqlite --to dynamodb"
        )
    return ""


def _reaching(settings: Settings, identity: Identity, formerly: str | None, clock: Clock) -> Callable[[], History]:
    # Imported only now: whoever stores nothing there needs no client. But not by the actor, whose time is measured.
    from bot.adapters.dynamodb import DynamoHistory

    def reach() -> History:
        history = DynamoHistory(settings.aws, settings.keep_open_klines_days, clock, PATIENCE_MS)
        try:
            history.tables.claim(**msgspec.structs.asdict(identity), formerly=formerly)
        except (ConfigurationRefused, StoreError):
            history.close()
            raise
        return history

    return reach
