"""How orders sent are journaled: the intent before the order leaves, its end and its fills in one transaction after.

All is kept for ever. Decimals are text in plain form, times are ms UTC as integers.
"""

import sqlite3
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import msgspec

from bot.adapters.sqlite.database import Database, DatabaseOwner, Migration
from bot.domain.adjustment import Adjustment
from bot.domain.money import ZERO, plain, subtract
from bot.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, Side
from bot.ports import JournalEntry, StoreError

MIGRATIONS: Sequence[Migration] = (
    (
        # `recorded` counts up without AUTOINCREMENT, which would write one more page a commit: no row is ever deleted.
        """
        CREATE TABLE intents (
            recorded INTEGER PRIMARY KEY,
            client_order_id TEXT NOT NULL UNIQUE,
            symbol TEXT NOT NULL,
            side TEXT NOT NULL,
            quantity TEXT NOT NULL,
            close TEXT NOT NULL,
            open_time INTEGER NOT NULL,
            event_time INTEGER NOT NULL,
            reason TEXT NOT NULL,
            quote_reserved TEXT NOT NULL,
            status TEXT NOT NULL DEFAULT 'RECORDED',
            order_id INTEGER,
            detail TEXT NOT NULL DEFAULT ''
        ) STRICT
        """,
        # A trader that recovers reads its own symbol's orders, whatever the others have sent over the years.
        "CREATE INDEX intents_of_a_symbol ON intents (symbol, recorded)",
        "CREATE INDEX unresolved_intents ON intents (recorded) WHERE status = 'RECORDED'",
        # `position` is the place in the order's report.
        """
        CREATE TABLE fills (
            symbol TEXT NOT NULL,
            trade_id INTEGER NOT NULL,
            client_order_id TEXT NOT NULL,
            position INTEGER NOT NULL,
            order_id INTEGER NOT NULL,
            side TEXT NOT NULL,
            price TEXT NOT NULL,
            quantity TEXT NOT NULL,
            quote_quantity TEXT NOT NULL,
            commission TEXT NOT NULL,
            commission_asset TEXT NOT NULL,
            time INTEGER NOT NULL,
            PRIMARY KEY (symbol, trade_id)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE INDEX fills_of_an_order ON fills (client_order_id, position)",
        "CREATE TABLE notes (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    ),
    # NULL: a market order, as all before were.
    ("ALTER TABLE intents ADD COLUMN limit_price TEXT",),
    (
        # A reset of the testnet starts trade ids over: a fill is known by its order and trade id. The primary key also
        # finds the fills of an order.
        """
        CREATE TABLE fills_by_order (
            client_order_id TEXT NOT NULL,
            trade_id INTEGER NOT NULL,
            symbol TEXT NOT NULL,
            position INTEGER NOT NULL,
            order_id INTEGER NOT NULL,
            side TEXT NOT NULL,
            price TEXT NOT NULL,
            quantity TEXT NOT NULL,
            quote_quantity TEXT NOT NULL,
            commission TEXT NOT NULL,
            commission_asset TEXT NOT NULL,
            time INTEGER NOT NULL,
            PRIMARY KEY (client_order_id, trade_id)
        ) STRICT, WITHOUT ROWID
        """,
        """
        INSERT INTO fills_by_order
        SELECT client_order_id, trade_id, symbol, position, order_id, side, price, quantity, quote_quantity, commission,
            commission_asset, time
        FROM fills
        """,
        "DROP TABLE fills",
        "ALTER TABLE fills_by_order RENAME TO fills",
        # One execution at one moment belongs to one order, whatever its ids.
        "CREATE UNIQUE INDEX executions ON fills (symbol, trade_id, time)",
        # `recorded` is the order in which they were stored.
        """
        CREATE TABLE adjustments (
            recorded INTEGER PRIMARY KEY,
            adjustment_id TEXT NOT NULL UNIQUE,
            symbol TEXT NOT NULL,
            quantity TEXT NOT NULL,
            quote TEXT NOT NULL,
            reason TEXT NOT NULL,
            time INTEGER NOT NULL,
            price TEXT NOT NULL
        ) STRICT
        """,
    ),
    # 1: it is certain that no byte of the order left. Of those before, nobody knows.
    ("ALTER TABLE intents ADD COLUMN never_left INTEGER NOT NULL DEFAULT 0",),
)

FOLD_PAGES, WAL_PAGES = 4_000, 16_000
"""Of the WAL: `fold` is due, about 500 orders; what a write does not exceed without folding, where nobody calls it."""

_INTENT_COLUMNS = (
    "client_order_id, symbol, side, quantity, close, open_time, event_time, reason, quote_reserved, limit_price, "
    "status, order_id, detail, never_left"
)
_FILL_COLUMNS = (
    "client_order_id, order_id, trade_id, symbol, side, price, quantity, quote_quantity, commission, commission_asset, "
    "time"
)
_ADJUSTMENT_COLUMNS = "adjustment_id, symbol, quantity, quote, reason, time, price"


class JournaledOrder(msgspec.Struct, frozen=True):
    """One order as the journal knows it; `order_id` is the exchange's, None until the order was settled.

    `status` is RECORDED or a final one; `fills` are in the order in which the report gave them. `never_left`: it is
    certain that none of it left.
    """

    intent: OrderIntent
    status: OrderStatus
    order_id: int | None
    detail: str
    fills: tuple[Fill, ...]
    never_left: bool = False

    @property
    def is_no_order(self) -> bool:
        """Certain that the exchange has no order of this intent: it never left, or was refused."""
        return self.never_left or (self.status is OrderStatus.REJECTED and not self.order_id)


class SqliteJournal(DatabaseOwner):
    """`ports.OrderJournal` in one file.

    One process writes it and any number read it at the same time; within the writing process all methods are
    thread-safe. Every method raises StoreError.
    """

    def __init__(self, path: Path) -> None:
        """Open for writing; the file is created and migrated if need be. Raises StoreError."""
        self._database = Database(path, MIGRATIONS, wal_pages=WAL_PAGES)
        self._changed: list[str] = []  # what ended or got fills since; grown by who writes, inside of the transaction

    @classmethod
    def read_only(cls, path: Path) -> Self:
        """Open for reading beside a running bot or without one; nothing is created or changed. Raises StoreError."""
        journal = cls.__new__(cls)
        journal._database = Database(path, MIGRATIONS, read_only=True)
        journal._changed = []
        return journal

    def fold(self) -> bool:
        """Fold the WAL into the file if that is due; return whether it was.

        To be called now and then, beside the orders: else one in a hundred would wait some ms for the disk.
        """
        return self._database.fold(FOLD_PAGES)

    def record(self, intent: OrderIntent) -> bool:
        """Store an intent before its order leaves; False if the id is known already (then nothing changes)."""
        row = (
            intent.client_order_id,
            intent.symbol,
            intent.side.value,
            plain(intent.quantity),
            plain(intent.close),
            intent.open_time,
            intent.event_time,
            intent.reason,
            plain(intent.quote_reserved),
            None if intent.limit_price is None else plain(intent.limit_price),
        )
        with self._database.writing() as connection:
            cursor = connection.execute(
                "INSERT INTO intents (client_order_id, symbol, side, quantity, close, open_time, event_time, reason, "
                "quote_reserved, limit_price) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (client_order_id) DO NOTHING",
                row,
            )
            return cursor.rowcount == 1

    def settle(self, report: OrderReport, never_left: bool = False) -> None:
        """Store an order's final status and fills. The first settlement of an id stands; later ones change nothing.

        `never_left`: no byte of it left, so whatever the exchange has under its id is another one's.

        Raises ValueError if the status is not final or a fill is of another order, StoreError if the id was never
        recorded or if a fill is journaled already; then nothing is stored.
        """
        if not report.status.is_final:
            raise ValueError(f"order {report.client_order_id} is {report.status}, only a final status is journaled")
        if any(fill.client_order_id != report.client_order_id for fill in report.fills):
            raise ValueError(f"the report of order {report.client_order_id} holds fills of other orders")
        with self._database.writing() as connection:
            cursor = connection.execute(
                "UPDATE intents SET status = ?, order_id = ?, detail = ?, never_left = ? "
                "WHERE client_order_id = ? AND status = 'RECORDED'",
                (report.status.value, report.order_id, report.detail, int(never_left), report.client_order_id),
            )
            if cursor.rowcount == 0:
                known = connection.execute("SELECT 1 FROM intents WHERE client_order_id = ?", (report.client_order_id,))
                if known.fetchone() is None:
                    raise StoreError(f"order {report.client_order_id} was never recorded: record its intent first")
                return
            for position, fill in enumerate(report.fills):
                _insert_fill(connection, fill, position)
            self._changed.append(report.client_order_id)

    def amend(self, client_order_id: str, fills: Sequence[Fill]) -> tuple[Fill, ...]:
        """Add fills that were found after the order was settled; return those that were not journaled before.

        They stand behind the order's other fills. A fill is known by its order and trade id, so the same ones again
        change nothing. The order's status stays.

        Raises ValueError if a fill is of another order, StoreError if the order was not settled yet or if a fill is
        journaled as another order's; then nothing is stored.
        """
        if any(fill.client_order_id != client_order_id for fill in fills):
            raise ValueError(f"fills of other orders cannot amend order {client_order_id}")
        with self._database.writing() as connection:
            row = connection.execute(
                "SELECT status FROM intents WHERE client_order_id = ?", (client_order_id,)
            ).fetchone()
            if row is None or not OrderStatus(row[0]).is_final:
                raise StoreError(f"order {client_order_id} has not ended in the journal: settle it first")
            known = dict(
                connection.execute("SELECT trade_id, position FROM fills WHERE client_order_id = ?", (client_order_id,))
            )
            found = list({fill.trade_id: fill for fill in fills if fill.trade_id not in known}.values())
            for position, fill in enumerate(found, start=1 + max(known.values(), default=-1)):
                _insert_fill(connection, fill, position)
            self._changed.append(client_order_id)
        return tuple(found)

    def adjust(self, adjustment: Adjustment) -> bool:
        """Store a correction of the book; False if its id is known already (then nothing changes)."""
        row = (
            adjustment.adjustment_id,
            adjustment.symbol,
            plain(adjustment.quantity),
            plain(adjustment.quote),
            adjustment.reason,
            adjustment.time,
            plain(adjustment.price),
        )
        with self._database.writing() as connection:
            cursor = connection.execute(
                f"INSERT INTO adjustments ({_ADJUSTMENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (adjustment_id) DO NOTHING",
                row,
            )
            return cursor.rowcount == 1

    def adjustments(self) -> list[Adjustment]:
        """Return all corrections of the book, in the order in which they were stored."""
        with self._database.reading() as connection:
            rows = connection.execute(f"SELECT {_ADJUSTMENT_COLUMNS} FROM adjustments ORDER BY recorded").fetchall()
        return [
            Adjustment(
                adjustment_id=adjustment_id,
                symbol=symbol,
                quantity=Decimal(quantity),
                quote=Decimal(quote),
                reason=reason,
                time=time,
                price=Decimal(price),
            )
            for adjustment_id, symbol, quantity, quote, reason, time, price in rows
        ]

    def entry(self, client_order_id: str) -> JournaledOrder | None:
        """Return what is known of one order, None if it was never recorded."""
        # Asked before every order: without a connection of its own.
        with self._database.glancing() as connection:
            found = connection.execute(
                f"SELECT {_INTENT_COLUMNS} FROM intents WHERE client_order_id = ?", (client_order_id,)
            )
            row = found.fetchone()
            if row is None:
                return None
            fills = connection.execute(
                f"SELECT {_FILL_COLUMNS} FROM fills WHERE client_order_id = ? ORDER BY position", (client_order_id,)
            ).fetchall()
        return _order(row, tuple(_fill(fill) for fill in fills))

    def unresolved(self, symbol: str | None = None) -> list[JournalEntry]:
        """Return the orders whose fate is unknown, in the order in which they were recorded."""
        if symbol is None:
            return [*self._orders("status = 'RECORDED'")]
        # The + keeps SQLite on the index of the few unresolved, off that of all orders of the symbol.
        return [*self._orders("status = 'RECORDED' AND +symbol = ?", symbol)]

    def changes(self, after: int) -> tuple[int, list[JournalEntry]]:
        """Return the orders that ended, or got fills, since a mark, and the new mark; all that ended where it is 0.

        Marks are this object's own. An order may be among them once more than it changed.
        """
        with self._database.glancing():  # whoever writes is not in the middle of it
            mark = 1 + len(self._changed)
        if not after:
            return mark, [*self.settled()]
        entries = (self.entry(name) for name in dict.fromkeys(self._changed[after - 1 : mark - 1]))
        return mark, [entry for entry in entries if entry is not None and entry.status.is_final]

    def settled(self, symbol: str | None = None) -> list[JournaledOrder]:
        """Return all orders that ended, in the order in which they were recorded: the state of one moment."""
        if symbol is None:
            return self._orders("status <> 'RECORDED'")
        return self._orders("status <> 'RECORDED' AND symbol = ?", symbol)

    def position_changes(self, symbol: str, base_asset: str) -> list[tuple[int, Decimal]]:
        """Return what moved a symbol's position: the moment and the change (base asset), in any order.

        An order's moment is its deciding kline's event_time.
        """
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT i.event_time, f.side, f.quantity, f.commission, f.commission_asset FROM intents i "
                "JOIN fills f ON f.client_order_id = i.client_order_id WHERE i.symbol = ?",
                (symbol,),
            ).fetchall()
        changes = []
        for time, side, quantity, commission, asset in rows:
            change = Decimal(quantity) if side == Side.BUY else subtract(ZERO, Decimal(quantity))
            changes.append((time, subtract(change, Decimal(commission)) if asset == base_asset else change))
        return changes + [(one.time, one.quantity) for one in self.adjustments() if one.symbol == symbol]

    def get_note(self, key: str) -> str | None:
        """Return a remembered fact of the book, None if there is none."""
        with self._database.reading() as connection:
            row = connection.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def set_note(self, key: str, value: str) -> None:
        """Remember a fact of the book; the last value of a key stands."""
        with self._database.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO notes (key, value) VALUES (?, ?)", (key, value))

    def _orders(self, condition: str, *parameters: str) -> list[JournaledOrder]:
        with self._database.reading() as connection:
            rows = connection.execute(
                f"SELECT {_INTENT_COLUMNS} FROM intents WHERE {condition} ORDER BY recorded", parameters
            ).fetchall()
            fills: dict[str, list[Fill]] = {row[0]: [] for row in rows}
            for row in connection.execute(
                f"SELECT {_FILL_COLUMNS} FROM fills WHERE client_order_id IN "
                f"(SELECT client_order_id FROM intents WHERE {condition}) ORDER BY client_order_id, position",
                parameters,
            ):
                fills[row[0]].append(_fill(row))
        return [_order(row, tuple(fills[row[0]])) for row in rows]


def _order(row: tuple[Any, ...], fills: tuple[Fill, ...]) -> JournaledOrder:
    client_order_id, symbol, side, quantity, close, open_time, event_time, reason = row[:8]
    quote_reserved, limit_price, status, order_id, detail, never_left = row[8:]
    return JournaledOrder(
        intent=OrderIntent(
            client_order_id=client_order_id,
            symbol=symbol,
            side=Side(side),
            quantity=Decimal(quantity),
            close=Decimal(close),
            open_time=open_time,
            event_time=event_time,
            reason=reason,
            quote_reserved=Decimal(quote_reserved),
            limit_price=None if limit_price is None else Decimal(limit_price),
        ),
        status=OrderStatus(status),
        order_id=order_id,
        detail=detail,
        fills=fills,
        never_left=bool(never_left),
    )


def _insert_fill(connection: sqlite3.Connection, fill: Fill, position: int) -> None:
    cursor = connection.execute(
        f"INSERT INTO fills ({_FILL_COLUMNS}, position) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        (*_fill_row(fill), position),
    )
    if cursor.rowcount == 0:
        # Neither dropped nor booked twice in silence: both would falsify the position.
        raise StoreError(
            f"order {fill.client_order_id}: its fill {fill.trade_id} of {fill.symbol} is journaled already: "
            "compare the book with the exchange's (reconcile)"
        )


def _fill_row(fill: Fill) -> tuple[Any, ...]:
    return (
        fill.client_order_id,
        fill.order_id,
        fill.trade_id,
        fill.symbol,
        fill.side.value,
        plain(fill.price),
        plain(fill.quantity),
        plain(fill.quote_quantity),
        plain(fill.commission),
        fill.commission_asset,
        fill.time,
    )


def _fill(row: tuple[Any, ...]) -> Fill:
    client_order_id, order_id, trade_id, symbol, side, price, quantity, quote_quantity = row[:8]
    commission, commission_asset, time = row[8:]
    return Fill(
        client_order_id=client_order_id,
        order_id=order_id,
        trade_id=trade_id,
        symbol=symbol,
        side=Side(side),
        price=Decimal(price),
        quantity=Decimal(quantity),
        quote_quantity=Decimal(quote_quantity),
        commission=Decimal(commission),
        commission_asset=commission_asset,
        time=time,
    )
