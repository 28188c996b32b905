"""Decides what of the exchange survives a kill: one SQLite file, an order committed before it is answered."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from bot.simulator.candles import StoredCandle
from bot.simulator.errors import SimulatorError

FILE_NAME = "simulated-exchange.sqlite3"
SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS placements (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS fills (number INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS klines (
    symbol TEXT NOT NULL, interval TEXT NOT NULL, open_time INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (symbol, interval, open_time)
) WITHOUT ROWID;
"""


_candles = msgspec.json.Decoder(StoredCandle)


class Journal:
    """The books on disk; without a directory it keeps nothing and every call is harmless.

    Not thread-safe: it belongs to the exchange's own thread. Writes wait in `facts`, `placements`, `fills` and `klines`
    until `commit`, which is one transaction: after a SIGKILL the books are those of the last commit.
    """

    def __init__(self, data_dir: Path | None) -> None:
        """Open or create the file. Raises SimulatorError if it cannot be used or another process has it."""
        self._connection: sqlite3.Connection | None = None
        self._facts: dict[str, str] = {}
        self._rows: list[tuple[str, tuple[Any, ...]]] = []
        if data_dir is None:
            return
        path = data_dir / FILE_NAME
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            # Opened in the thread that calls start(), used in the exchange's own thread, never in both at a time.
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0.2)
            # A lock held for life: two exchanges on one book would sell the same coins twice.
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            self.close()
            hint = "another simulated exchange is using it" if "locked" in str(error) else str(error)
            raise SimulatorError(f"{path}: the books cannot be opened ({hint})") from error
        version = self.fact("schema")
        if version not in (None, str(SCHEMA_VERSION)):
            self.close()
            raise SimulatorError(f"{path}: written by another version (schema {version}, this one is {SCHEMA_VERSION})")
        self.set_fact("schema", str(SCHEMA_VERSION))
        self.commit()

    @property
    def is_durable(self) -> bool:
        return self._connection is not None

    def fact(self, name: str) -> str | None:
        """Return a stored text; None if it was never written."""
        if self._connection is None:
            return None
        row = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def bodies(self, table: str) -> list[bytes]:
        """Return all bodies of `placements` or `fills`, in the order in which they were written."""
        if self._connection is None:
            return []
        return [bytes(row[0]) for row in self._connection.execute(f"SELECT body FROM {table} ORDER BY number")]

    def klines(self, symbol: str, interval: str, newest: int) -> list[StoredCandle]:
        """Return the `newest` stored candles of one interval, oldest first."""
        if self._connection is None:
            return []
        rows = self._connection.execute(
            "SELECT body FROM klines WHERE symbol = ? AND interval = ? ORDER BY open_time DESC LIMIT ?",
            (symbol, interval, newest),
        ).fetchall()
        return [_candles.decode(row[0]) for row in reversed(rows)]

    def set_fact(self, name: str, value: str) -> None:
        if self._connection is not None:
            self._facts[name] = value

    def set_body(self, table: str, number: int, body: bytes) -> None:
        if self._connection is not None:
            self._rows.append((f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (number, body)))

    def set_klines(self, symbol: str, candles: Iterable[StoredCandle]) -> None:
        if self._connection is not None:
            for stored in candles:
                row = (symbol, stored.interval, stored.candle.open_time, msgspec.json.encode(stored))
                self._rows.append(("INSERT OR REPLACE INTO klines VALUES (?, ?, ?, ?)", row))

    def forget_books(self) -> None:
        """Let all orders and fills be forgotten with the next commit."""
        if self._connection is not None:
            self._rows += [("DELETE FROM placements", ()), ("DELETE FROM fills", ())]

    def forget_klines(self) -> None:
        """Forget all candles and how far files were played: another market begins."""
        if self._connection is not None:
            self._connection.execute("DELETE FROM klines")
            self._connection.execute("DELETE FROM facts WHERE name IN ('positions', 'anchors')")

    def prune_klines(self, symbol: str, interval: str, before_ms: int) -> None:
        """Forget candles that opened before `before_ms`."""
        if self._connection is not None:
            row = (symbol, interval, before_ms)
            self._rows.append(("DELETE FROM klines WHERE symbol = ? AND interval = ? AND open_time < ?", row))

    def commit(self) -> None:
        """Write all that waits, in one transaction. Raises sqlite3.Error; what waited then still waits."""
        if self._connection is None or not (self._facts or self._rows):
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", list(self._facts.items()))
            for statement, row in self._rows:
                self._connection.execute(statement, row)
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # a full disk ends it by itself
                self._connection.execute("ROLLBACK")
            raise
        self._facts.clear()
        self._rows.clear()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
