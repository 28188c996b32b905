"""SQLite in the data directory: `history.db` holds klines and trades, `orders.db` the journal of orders sent."""

from bot.adapters.sqlite.decisions import ActorEvent, MessageKey
from bot.adapters.sqlite.journal import JournaledOrder, SqliteJournal
from bot.adapters.sqlite.store import SqliteStore

__all__ = ["ActorEvent", "JournaledOrder", "MessageKey", "SqliteJournal", "SqliteStore"]
