"""DynamoDB beside a running bot: what waits for it, how it is reached, and whose tables these are."""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from bot.adapters.dynamodb import DynamoHistory

PATIENCE_MS = 1_500
"""How long a call may be repeated before the archive is told: it pauses itself, and must not be long at a stop."""

CLIENT_WITHIN_S = 10.0
"""How long a start waits for a client, which needs credentials: of a role, or by a program, they are fetched."""

CLAIM_WITHIN_S = 2.0
"""How long it then waits to be told whose tables these are. More than PATIENCE_MS, which has better reasons."""


class Archiving:
    """What a bot needs to store in DynamoDB, which may be away for as long as it likes."""

    def __init__(
        self, settings: Settings, path: Path, identity: Identity, clock: Clock, formerly: frozenset[str] = frozenset()
    ) -> None:
        """Open the outbox. `formerly` is what the account of `identity` was called too. Raises StoreError."""
        most = settings.aws.outbox_bytes
        self.outbox = SqliteOutbox(path, most, (Kline, Trade), closed_only=settings.store_closed_only)
        alarm = ArchiveSettings(alarm_bytes=min(ArchiveSettings().alarm_bytes, most // 2))
        self.parts = ArchivingParts(self.outbox, self._connect, alarm)
        self._open = _opening(settings, clock)
        self._identity, self._formerly = identity, formerly
        self._asked: DynamoHistory | None = None
        self._claimed = queue.SimpleQueue[History | Exception]()

    def claim(self) -> str:
        """Make the tables this book's, if they answer in time; else the archive does so before it writes.

        Returns in a line why that is not known yet, nothing once they are this book's. Raises ConfigurationRefused,
        both named, if they are another's.
        """
        history = self._open()
        is_made = threading.Event()

        def ask() -> None:
            with suppress(StoreError):  # what the client lacks is told by the question
                history.open()
            is_made.set()
            try:
                self._claimed.put(self._make_ours(history))
            except (ConfigurationRefused, StoreError) as error:
                self._claimed.put(error)

        # A thread of its own: names that are not resolved and credentials that are fetched have no time-out of ours.
        threading.Thread(target=ask, name="dynamodb-claim", daemon=True).start()
        if not is_made.wait(CLIENT_WITHIN_S):
            why = f"no client of AWS within {CLIENT_WITHIN_S:g} s, as where credentials are fetched and do not come"
            return _not_yet(f"{why}: it is tried again")
        try:
            answer = self._claimed.get(timeout=CLAIM_WITHIN_S)
        except queue.Empty:
            return _not_yet(f"DynamoDB {history.place} gave no answer within {CLAIM_WITHIN_S:.0f} s: it is tried again")
        if isinstance(answer, ConfigurationRefused):
            raise answer
        if isinstance(answer, Exception):
            return _not_yet(str(answer))
        self._claimed.put(answer)
        return ""

    def close(self) -> None:
        """Close the outbox; what waits in it is for the next process."""
        for history in (self._take_claimed(), self._asked):
            if history is not None:
                history.close()
        self.outbox.close()

    def _connect(self) -> History:
        try:
            return self._take_claimed() or self._make_ours(self._asked or self._open())
        except ConfigurationRefused as error:
            raise StoreError(str(error)) from None

    def _take_claimed(self) -> History | None:
        """Return what the start's question left, maybe after the start had gone on; None if it came to nothing."""
        with suppress(queue.Empty):
            answer = self._claimed.get_nowait()
            if not isinstance(answer, Exception):
                return answer
        return None

    def _make_ours(self, history: "DynamoHistory") -> History:
        self._asked = None
        try:
            history.tables.claim(**msgspec.structs.asdict(self._identity), formerly=self._formerly)
        except (ConfigurationRefused, StoreError):
            self._asked = history  # to make another client takes a slow machine longer than to ask
            raise
        return history


def _not_yet(reason: str) -> str:
    return f"DynamoDB gets nothing yet, all waits on disk: {reason}"


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


def _opening(settings: Settings, clock: Clock) -> "Callable[[], DynamoHistory]":
    # Imported only now: whoever stores nothing there needs no client. But not by the actor, whose time is measured.
    from bot.adapters.dynamodb import DynamoHistory

    return lambda: DynamoHistory(settings.aws, settings.keep_open_klines_days, clock, PATIENCE_MS)
