"""How what is to go elsewhere waits on disk (`outbox.db`, `dynamodb.db`): there before it is stored, gone once it went.

A row is one log entry, as msgpack under its type's name. Rows that are not to go there (`has_topic` is 0) are kept only
until the store has them, so that a batch of which the process died half-way can be stored whole.
"""

import sqlite3
import threading
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import msgspec

from bot.adapters.sqlite.database import Database, DatabaseOwner, Migration
from bot.domain.kline import Kline
from bot.messages import ENTRY_TYPES, TOPICS, LogEntry
from bot.ports import OutboxState, StoreError

MIGRATIONS: Sequence[Migration] = (
    (
        """
        CREATE TABLE outbox (
            seq INTEGER PRIMARY KEY,
            has_topic INTEGER NOT NULL,
            type TEXT NOT NULL,
            is_open INTEGER NOT NULL,
            time INTEGER NOT NULL,
            body BLOB NOT NULL
        ) STRICT
        """,
        "CREATE INDEX outbox_of_open_klines ON outbox (seq) WHERE is_open = 1",
        "CREATE INDEX outbox_for_the_store ON outbox (seq) WHERE has_topic = 0",
        # `stored` is the last row that the store has; `dropped` counts open klines that left no room.
        "CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT",
        "INSERT INTO marks VALUES ('stored', 0), ('dropped', 0)",
    ),
    # Trades are few among klines, and may be read before them.
    ("CREATE INDEX outbox_of_trades ON outbox (seq) WHERE type = 'Trade'",),
)

ROW_BYTES = 50
"""What a row takes beside its body, its place in an index included."""
_SIZE = f"(length(body) + {ROW_BYTES})"
_SLICE = 500
_Row = tuple[bool, str, bool, int, bytes]
"""Whether it goes, its type, whether it is an open kline, since when it waits (ms UTC), its body."""
_DECODERS: Mapping[str, msgspec.msgpack.Decoder[LogEntry]] = {
    kind.__name__: msgspec.msgpack.Decoder(kind) for kind in ENTRY_TYPES
}


class SqliteOutbox(DatabaseOwner):
    """`ports.Outbox` in one file of this process. Thread-safe. Every method raises StoreError."""

    def __init__(self, path: Path, max_bytes: int, kinds: Collection[type] = TOPICS, closed_only: bool = False) -> None:
        """Open for writing; created and migrated if need be. Rows may take `max_bytes`; `kinds` are the types of entry
        that go there, `closed_only` leaves open klines out. Raises StoreError.
        """
        self._kinds = frozenset(kinds)
        self._closed_only = closed_only
        self._database = Database(path, MIGRATIONS)
        self._path = path
        self._max_bytes = max_bytes
        self._encode = msgspec.msgpack.Encoder().encode
        self._lock = threading.Lock()
        self._upto = 0
        with self._database.reading() as connection:
            marks = dict(connection.execute("SELECT name, value FROM marks").fetchall())
            newest, depth, size = connection.execute(
                f"SELECT coalesce(max(seq), 0), coalesce(sum(has_topic), 0), coalesce(sum({_SIZE}), 0) FROM outbox"
            ).fetchone()
        self._depth, self._bytes = int(depth), int(size)
        self._stored, self._dropped = int(marks["stored"]), int(marks["dropped"])
        # Rows that are gone had places too.
        self._last = max(newest, self._stored)

    def add(self, upto: int, entries: Sequence[LogEntry], now_ms: int) -> None:
        """Keep log entries, the last of which is at the log's offset `upto`; those that were added are left out."""
        with self._lock:
            entries = entries[max(0, len(entries) - (upto - self._upto)) :] if upto > self._upto else ()
            if entries:
                self._append([self._row(entry, now_ms) for entry in entries])
                self._upto = upto

    def complete(self, entries: Sequence[LogEntry], now_ms: int) -> None:
        """Keep also what an earlier process gave to another outbox and did not confirm; what is here is left out."""
        with self._lock:
            with self._database.reading() as connection:
                known = set(connection.execute("SELECT type, body FROM outbox WHERE seq > ?", (self._stored,)))
            rows = [self._row(entry, now_ms) for entry in entries]
            lacking = [row for row in rows if (row[1], row[4]) not in known]
            if lacking:
                self._append(lacking)

    def _append(self, rows: Sequence[_Row]) -> None:
        with self._database.writing() as connection:
            connection.executemany(
                "INSERT INTO outbox (seq, has_topic, type, is_open, time, body) VALUES (?, ?, ?, ?, ?, ?)",
                [(self._last + number, *row) for number, row in enumerate(rows, 1)],
            )
        self._last += len(rows)
        self._bytes += sum(len(row[4]) + ROW_BYTES for row in rows)
        self._depth += sum(row[0] for row in rows)

    def _row(self, entry: LogEntry, now_ms: int) -> _Row:
        kind = type(entry)
        is_open = isinstance(entry, Kline) and not entry.is_closed
        goes = kind in self._kinds and not (is_open and self._closed_only)
        return goes, kind.__name__, is_open, now_ms, self._encode(entry)

    def confirm(self) -> None:
        """All that was added is stored: it may go. Open klines are dropped, the oldest first, where room is short."""
        with self._lock:
            if self._stored == self._last:
                return
            with self._database.writing() as connection:
                done = connection.execute(f"SELECT coalesce(sum({_SIZE}), 0) FROM outbox WHERE has_topic = 0")
                (freed,) = done.fetchone()
                connection.execute("DELETE FROM outbox WHERE has_topic = 0")
                connection.execute("UPDATE marks SET value = ? WHERE name = 'stored'", (self._last,))
                gone = self._make_room(connection, self._bytes - freed - self._max_bytes)
            self._stored = self._last
            self._bytes -= freed + sum(gone)
            self._depth -= len(gone)
            self._dropped += len(gone)

    def _make_room(self, connection: sqlite3.Connection, over: int) -> list[int]:
        """Delete open klines, oldest first, that take `over` bytes, or all there are; return the size of each."""
        gone: list[int] = []
        while sum(gone) < over:
            rows = connection.execute(
                f"SELECT seq, {_SIZE} FROM outbox WHERE is_open = 1 ORDER BY seq LIMIT {_SLICE}"
            ).fetchall()
            if not rows:
                break
            connection.execute("DELETE FROM outbox WHERE is_open = 1 AND seq <= ?", (rows[-1][0],))
            gone += [size for _, size in rows]
        if gone:
            connection.execute("UPDATE marks SET value = value + ? WHERE name = 'dropped'", (len(gone),))
        return gone

    def unconfirmed(self) -> list[LogEntry]:
        """Return what an earlier process added and did not confirm, in order: the store may lack some of it."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT type, body FROM outbox WHERE seq > ? ORDER BY seq", (self._stored,)
            ).fetchall()
        return [self._decode(name, body) for name, body in rows]

    @property
    def newest(self) -> int:
        """The place of the last entry that may go; 0 if there was none yet."""
        return self._stored

    @property
    def depth(self) -> int:
        """How many entries wait."""
        return self._depth

    def read(self, after: int, limit: int, kind: type | None = None) -> list[tuple[int, LogEntry]]:
        """Return up to `limit` stored entries (of a kind) behind the place `after`, each with its place, in order."""
        with self._database.glancing() as connection:
            rows = connection.execute(
                "SELECT seq, type, body FROM outbox "
                f"WHERE seq > ? AND seq <= ? AND has_topic = 1{_of_kind(kind)} ORDER BY seq LIMIT ?",
                (after, self._stored, limit),
            ).fetchall()
        return [(seq, self._decode(name, body)) for seq, name, body in rows]

    def delivered(self, upto: int, kind: type | None = None) -> None:
        """Forget the entries (of a kind) up to a place: they went."""
        with self._lock:
            upto = min(upto, self._stored)
            with self._database.writing() as connection:
                count, size = connection.execute(
                    f"SELECT count(*), coalesce(sum({_SIZE}), 0) FROM outbox WHERE seq <= ?{_of_kind(kind)}", (upto,)
                ).fetchone()
                connection.execute(f"DELETE FROM outbox WHERE seq <= ?{_of_kind(kind)}", (upto,))
            self._depth -= count
            self._bytes -= size

    def state(self) -> OutboxState:
        """Return how much waits, since when, and how much had to go."""
        with self._database.reading() as connection:
            oldest = connection.execute("SELECT time FROM outbox ORDER BY seq LIMIT 1").fetchone()
        return OutboxState(self._depth, self._bytes, None if oldest is None else oldest[0], self._dropped)

    def _decode(self, name: str, body: bytes) -> LogEntry:
        try:
            return _DECODERS[name].decode(body)
        except (KeyError, msgspec.DecodeError) as error:
            raise StoreError(
                f"{self._path} holds a {name} that this program cannot read ({error}): "
                "run the version that wrote it until nothing waits there"
            ) from None


def _of_kind(kind: type | None) -> str:
    # Not a parameter: only a constant lets SQLite take the index of trades.
    return "" if kind is None else f" AND type = '{kind.__name__}'"


def outbox_state(path: Path) -> OutboxState | None:
    """Return what waits in an outbox that nobody need have open, None if there is none. Raises StoreError."""
    if not path.exists():
        return None
    database = Database(path, MIGRATIONS, read_only=True)
    with database.reading() as connection:
        depth, size, oldest = connection.execute(
            f"SELECT coalesce(sum(has_topic), 0), coalesce(sum({_SIZE}), 0), min(time) FROM outbox"
        ).fetchone()
        (dropped,) = connection.execute("SELECT value FROM marks WHERE name = 'dropped'").fetchone()
    return OutboxState(depth, size, oldest, dropped)
