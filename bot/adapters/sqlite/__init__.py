"""SQLite in the data directory: `history.db` holds klines and trades, `orders.db` the journal of orders sent.

`outbox.db` holds what is to be published.
"""

from bot.adapters.sqlite.decisions import ActorEvent, MessageKey
from bot.adapters.sqlite.journal import JournaledOrder, SqliteJournal
from bot.adapters.sqlite.outbox import SqliteOutbox, outbox_state
from bot.adapters.sqlite.store import SqliteStore

__all__ = ["ActorEvent", "JournaledOrder", "MessageKey", "SqliteJournal", "SqliteOutbox", "SqliteStore", "outbox_state"]
