"""How klines and trades are stored and read back: tables `Crypto_Table` and `Crypto_Trades` of contract section 3.

Beside them stands why: what was decided at which message, what happened to actors, by which settings each run traded.
Decimals are text in plain form (`0.00000001`), times are ms UTC as integers.
"""

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import msgspec

from bot.adapters.sqlite.database import Database, DatabaseOwner, Migration
from bot.adapters.sqlite.decisions import REASONS, MessageKey, Reasons, write_decisions, write_events, write_run
from bot.domain.decision import Decision, Run
from bot.domain.kline import Kline, kline_key
from bot.domain.money import plain
from bot.domain.order import Side, Trade
from bot.messages import BookEvent

MIGRATIONS: Sequence[Migration] = (
    (
        """
        CREATE TABLE Crypto_Table (
            symbol TEXT NOT NULL,
            kline_key TEXT NOT NULL,
            interval TEXT NOT NULL,
            open_time INTEGER NOT NULL,
            close_time INTEGER NOT NULL,
            event_time INTEGER NOT NULL,
            open TEXT NOT NULL,
            high TEXT NOT NULL,
            low TEXT NOT NULL,
            close TEXT NOT NULL,
            volume TEXT NOT NULL,
            quote_volume TEXT,
            is_closed INTEGER NOT NULL,
            received_event_time INTEGER,
            PRIMARY KEY (symbol, kline_key)
        ) STRICT, WITHOUT ROWID
        """,
        # kline_key makes the order total and is part of the index anyway.
        """
        CREATE INDEX klines_in_message_order
        ON Crypto_Table (symbol, open_time, is_closed, event_time, kline_key)
        """,
        # Of live data one kline in about thirty is closed.
        """
        CREATE INDEX closed_klines_in_message_order
        ON Crypto_Table (symbol, open_time, event_time, kline_key) WHERE is_closed = 1
        """,
        "CREATE INDEX klines_to_prune ON Crypto_Table (open_time) WHERE is_closed = 0",
        """
        CREATE TABLE Crypto_Trades (
            symbol TEXT NOT NULL,
            client_order_id TEXT NOT NULL,
            side TEXT NOT NULL,
            close TEXT NOT NULL,
            sale_price TEXT NOT NULL,
            quantity TEXT NOT NULL,
            volume TEXT NOT NULL,
            commission TEXT NOT NULL,
            commission_asset TEXT NOT NULL,
            ticker TEXT NOT NULL,
            order_id INTEGER NOT NULL,
            time INTEGER NOT NULL,
            mode TEXT NOT NULL,
            bot_id TEXT NOT NULL,
            reason TEXT NOT NULL,
            commissions TEXT NOT NULL,
            PRIMARY KEY (symbol, client_order_id)
        ) STRICT, WITHOUT ROWID
        """,
    ),
    REASONS,
)

_KLINE_COLUMNS = (
    "symbol, interval, open_time, close_time, event_time, open, high, low, close, volume, quote_volume, is_closed, "
    "received_event_time"
)
_TRADE_COLUMNS = (
    "symbol, side, time, sale_price, quantity, volume, commission, commission_asset, close, order_id, client_order_id, "
    "mode, bot_id, reason, commissions"
)
# Symbols are few and klines many: one look-up in the index for each symbol instead of a scan of all rows.
_SYMBOLS = """
    WITH RECURSIVE found (symbol) AS (
        SELECT min(symbol) FROM Crypto_Table
        UNION ALL
        SELECT (SELECT min(symbol) FROM Crypto_Table WHERE symbol > found.symbol) FROM found
        WHERE found.symbol IS NOT NULL
    )
    SELECT symbol FROM found WHERE symbol IS NOT NULL
"""
_commissions = msgspec.json.Decoder(tuple[tuple[str, Decimal], ...])

_SLICE = 2_000
_PRUNE_SLICE = 500


class SqliteStore(DatabaseOwner):
    """`ports.Store` in one file, and what the command line reads of it.

    One process writes it and any number read it at the same time; within the writing process all methods are
    thread-safe. Every method raises StoreError.
    """

    def __init__(self, path: Path) -> None:
        """Open for writing; the file is created and migrated if need be. Raises StoreError."""
        self._database = Database(path, MIGRATIONS)

    @classmethod
    def read_only(cls, path: Path) -> Self:
        """Open for reading beside a running bot or without one; nothing is created or changed. Raises StoreError."""
        store = cls.__new__(cls)
        store._database = Database(path, MIGRATIONS, read_only=True)
        return store

    def write(
        self,
        klines: Sequence[Kline],
        trades: Sequence[Trade],
        decisions: Sequence[Decision] = (),
        events: Sequence[BookEvent] = (),
    ) -> None:
        """Store all in one transaction. A kline replaces the one of its key; all else stays as it was first written.

        Only a trade of more quantity replaces the one of its order: a fill of it was found late.
        """
        kline_rows = [_kline_row(kline) for kline in klines]
        with self._database.writing() as connection:
            connection.executemany(
                f"INSERT OR REPLACE INTO Crypto_Table (kline_key, {_KLINE_COLUMNS}) VALUES ({_marks(14)})", kline_rows
            )
            for trade in trades:
                _write_trade(connection, trade)
            write_decisions(connection, decisions)
            write_events(connection, events)

    def record_run(self, run: Run) -> None:
        """Store by which settings is traded from `run.start_time` on."""
        with self._database.writing() as connection:
            write_run(connection, run)

    def last_klines(self, symbol: str, count: int, closed_only: bool = False) -> list[Kline]:
        """Return the last `count` klines (or closed klines) of a symbol in message order, oldest first."""
        return self._newest_klines("symbol = ? AND is_closed = 1" if closed_only else "symbol = ?", (symbol,), count)

    def klines(
        self,
        symbol: str | None = None,
        interval: str | None = None,
        since: int | None = None,
        limit: int | None = None,
    ) -> Iterator[Kline]:
        """Iterate over klines by (open_time, is_closed, event_time), oldest first; of several symbols, merged.

        `since` is the smallest open_time in ms; `limit` keeps the newest so many. Rows are read in slices as they are
        asked for, so a slow consumer holds nothing open; what is stored meanwhile may be among them.
        """
        symbols = self.symbols() if symbol is None else [symbol]
        if limit is None:
            return heapq.merge(*(self._klines_in_slices(each, interval, since) for each in symbols), key=_message_order)
        newest = [
            kline for each in symbols for kline in self._newest_klines(*_kline_filter(each, interval, since), limit)
        ]
        newest.sort(key=_message_order)
        return iter(newest[max(len(newest) - max(limit, 0), 0) :])

    def trades(self, symbol: str | None = None) -> Iterator[Trade]:
        """Iterate over all trades by (time, client_order_id), oldest first."""
        condition, parameters = ("WHERE symbol = ?", (symbol,)) if symbol is not None else ("", ())
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT {_TRADE_COLUMNS} FROM Crypto_Trades {condition} ORDER BY time, client_order_id, symbol",
                parameters,
            ).fetchall()
        return map(_trade, rows)

    def traded(self, symbol: str) -> dict[str, Decimal]:
        """Return the quantities of a symbol's stored trades (base asset), by client order id."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT client_order_id, quantity FROM Crypto_Trades WHERE symbol = ?", (symbol,))
            return {client_order_id: Decimal(quantity) for client_order_id, quantity in rows}

    def symbols(self) -> list[str]:
        """Return the symbols that have klines, sorted."""
        with self._database.reading() as connection:
            return [symbol for (symbol,) in connection.execute(_SYMBOLS)]

    def kline_count(self, symbol: str | None = None) -> int:
        """Return how many klines are stored, of one symbol or of all."""
        return self._count("Crypto_Table", symbol)

    def trade_count(self, symbol: str | None = None) -> int:
        """Return how many trades are stored, of one symbol or of all."""
        return self._count("Crypto_Trades", symbol)

    @property
    def reasons(self) -> Reasons:
        """What is stored of why."""
        return Reasons(self._database)

    def trade(self, symbol: str, client_order_id: str) -> Trade | None:
        """Return the trade that an order made, None if it made none or it is not stored."""
        with self._database.reading() as connection:
            row = connection.execute(
                f"SELECT {_TRADE_COLUMNS} FROM Crypto_Trades WHERE symbol = ? AND client_order_id = ?",
                (symbol, client_order_id),
            ).fetchone()
        return None if row is None else _trade(row)

    def span(self, symbol: str) -> tuple[int, int] | None:
        """Return the event_time of a symbol's first and last kline, None if it has none."""
        order = "open_time {0}, is_closed {0}, event_time {0}"
        query = "SELECT event_time FROM Crypto_Table WHERE symbol = ? ORDER BY " + order + " LIMIT 1"
        with self._database.reading() as connection:
            first, last = (connection.execute(query.format(way), (symbol,)).fetchone() for way in ("ASC", "DESC"))
        return None if first is None else (first[0], last[0])

    def oldest_open_kline(self, symbol: str) -> int | None:
        """Return the open_time (ms UTC) of the oldest unclosed kline of a symbol that is kept, None if none is."""
        query = "SELECT min(open_time) FROM Crypto_Table WHERE is_closed = 0 AND symbol = ?"
        with self._database.reading() as connection:
            (oldest,) = connection.execute(query, (symbol,)).fetchone()
        return None if oldest is None else int(oldest)

    def kline_at(self, symbol: str, time_ms: int) -> Kline | None:
        """Return the last kline in message order whose event_time is not after `time_ms`."""
        found = self._newest_klines("symbol = ? AND open_time <= ? AND event_time <= ?", (symbol, time_ms, time_ms), 1)
        return found[0] if found else None

    def klines_before(self, symbol: str, key: MessageKey, count: int, closed_only: bool = False) -> list[Kline]:
        """Return the last `count` klines (or closed klines) before a place in message order, oldest first."""
        condition = "symbol = ? AND (open_time, is_closed, event_time) < (?, ?, ?)"
        return self._newest_klines(condition + (" AND is_closed = 1" if closed_only else ""), (symbol, *key), count)

    def klines_from(self, symbol: str, key: MessageKey, count: int) -> list[Kline]:
        """Return the first `count` klines at or behind a place in message order, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT {_KLINE_COLUMNS} FROM Crypto_Table "
                "WHERE symbol = ? AND (open_time, is_closed, event_time) >= (?, ?, ?) "
                "ORDER BY open_time, is_closed, event_time, kline_key LIMIT ?",
                (symbol, *key, count),
            ).fetchall()
        return [_kline(row) for row in rows]

    def prune(self, before_ms: int, events_before_ms: int) -> int:
        """Delete unclosed klines with an open_time before `before_ms`; return how many went.

        What was decided at them goes too unless it came of a signal, and events from before `events_before_ms`.
        Each slice is a transaction of its own, so that a write waits for one slice at most.
        """
        key = "symbol, open_time, is_closed, event_time"
        self._delete("decisions", key, "is_closed = 0 AND client_order_id = '' AND open_time < ?", before_ms)
        self._delete("actor_events", "name, time, event, number", "time < ?", events_before_ms)
        return self._delete("Crypto_Table", "symbol, kline_key", "is_closed = 0 AND open_time < ?", before_ms)

    def _delete(self, table: str, key: str, condition: str, before_ms: int) -> int:
        pruned = 0
        while True:
            with self._database.writing() as connection:
                cursor = connection.execute(
                    f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE {condition} LIMIT ?)",
                    (before_ms, _PRUNE_SLICE),
                )
            pruned += cursor.rowcount
            if cursor.rowcount < _PRUNE_SLICE:
                return pruned

    def _klines_in_slices(self, symbol: str, interval: str | None, since: int | None) -> Iterator[Kline]:
        condition, parameters = _kline_filter(symbol, interval, since)
        behind: tuple[Any, ...] = ()
        while True:
            with self._database.reading() as connection:
                rows = connection.execute(
                    f"SELECT {_KLINE_COLUMNS} FROM Crypto_Table WHERE {condition} "
                    + ("AND (open_time, is_closed, event_time, kline_key) > (?, ?, ?, ?) " if behind else "")
                    + "ORDER BY open_time, is_closed, event_time, kline_key LIMIT ?",
                    (*parameters, *behind, _SLICE),
                ).fetchall()
            klines = [_kline(row) for row in rows]
            yield from klines
            if len(klines) < _SLICE:
                return
            last = klines[-1]
            behind = (last.open_time, last.is_closed, last.event_time, kline_key(last))

    def _newest_klines(self, condition: str, parameters: tuple[Any, ...], count: int) -> list[Kline]:
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT {_KLINE_COLUMNS} FROM Crypto_Table WHERE {condition} "
                "ORDER BY open_time DESC, is_closed DESC, event_time DESC, kline_key DESC LIMIT ?",
                (*parameters, max(count, 0)),
            ).fetchall()
        return [_kline(row) for row in reversed(rows)]

    def _count(self, table: str, symbol: str | None) -> int:
        condition, parameters = ("WHERE symbol = ?", (symbol,)) if symbol is not None else ("", ())
        with self._database.reading() as connection:
            (count,) = connection.execute(f"SELECT count(*) FROM {table} {condition}", parameters).fetchone()
        return int(count)


def _write_trade(connection: sqlite3.Connection, trade: Trade) -> None:
    # Compared here: SQLite has no decimals.
    stored = connection.execute(
        "SELECT quantity FROM Crypto_Trades WHERE symbol = ? AND client_order_id = ?",
        (trade.symbol, trade.client_order_id),
    ).fetchone()
    if stored is None or trade.quantity > Decimal(stored[0]):
        connection.execute(
            f"INSERT OR REPLACE INTO Crypto_Trades (ticker, {_TRADE_COLUMNS}) VALUES ({_marks(16)})", _trade_row(trade)
        )


def _message_order(kline: Kline) -> tuple[int, bool, int]:
    return kline.open_time, kline.is_closed, kline.event_time


def _kline_filter(symbol: str, interval: str | None, since: int | None) -> tuple[str, tuple[Any, ...]]:
    condition, parameters = "symbol = ?", [symbol]
    if interval is not None:
        condition, parameters = f"{condition} AND interval = ?", [*parameters, interval]
    if since is not None:
        return f"{condition} AND open_time >= ?", (*parameters, since)
    return condition, tuple(parameters)


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _kline_row(kline: Kline) -> tuple[Any, ...]:
    return (
        kline_key(kline),
        kline.symbol,
        kline.interval,
        kline.open_time,
        kline.close_time,
        kline.event_time,
        plain(kline.open),
        plain(kline.high),
        plain(kline.low),
        plain(kline.close),
        plain(kline.volume),
        None if kline.quote_volume is None else plain(kline.quote_volume),
        kline.is_closed,
        kline.received_event_time,
    )


def _kline(row: tuple[Any, ...]) -> Kline:
    symbol, interval, open_time, close_time, event_time = row[:5]
    opened, high, low, close, volume, quote_volume, is_closed, received_event_time = row[5:]
    return Kline(
        symbol=symbol,
        interval=interval,
        open_time=open_time,
        close_time=close_time,
        event_time=event_time,
        open=Decimal(opened),
        high=Decimal(high),
        low=Decimal(low),
        close=Decimal(close),
        volume=Decimal(volume),
        quote_volume=None if quote_volume is None else Decimal(quote_volume),
        is_closed=bool(is_closed),
        received_event_time=received_event_time,
    )


def _trade_row(trade: Trade) -> tuple[Any, ...]:
    return (
        trade.symbol,
        trade.symbol,
        trade.side.value,
        trade.time,
        plain(trade.price),
        plain(trade.quantity),
        plain(trade.quote_quantity),
        plain(trade.commission),
        trade.commission_asset,
        plain(trade.close),
        trade.order_id,
        trade.client_order_id,
        trade.mode,
        trade.bot_id,
        trade.reason,
        msgspec.json.encode([(asset, plain(amount)) for asset, amount in trade.commissions]).decode(),
    )


def _trade(row: tuple[Any, ...]) -> Trade:
    symbol, side, time, price, quantity, quote_quantity, commission, commission_asset, close = row[:9]
    order_id, client_order_id, mode, bot_id, reason, commissions = row[9:]
    return Trade(
        symbol=symbol,
        side=Side(side),
        time=time,
        price=Decimal(price),
        quantity=Decimal(quantity),
        quote_quantity=Decimal(quote_quantity),
        commission=Decimal(commission),
        commission_asset=commission_asset,
        close=Decimal(close),
        order_id=order_id,
        client_order_id=client_order_id,
        mode=mode,
        bot_id=bot_id,
        reason=reason,
        commissions=_commissions.decode(commissions),
    )
