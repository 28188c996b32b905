"""How it is stored why: what was decided at which message, what happened to actors, by which settings a run traded.

Decimals are text in plain form, times are ms UTC as integers, an absent value is NULL.
"""

import sqlite3
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from bot.adapters.sqlite.database import Database, Migration
from bot.domain.decision import Decided, Decision, Run
from bot.domain.money import plain
from bot.domain.strategy import Thresholds
from bot.messages import BookEvent, BookOpened, SymbolStopped
from bot.supervision import ActorFailed, ActorQuarantined, ActorRestarted, ActorStarted, ActorStopped, DeadLetter

REASONS: Migration = (
    """
    CREATE TABLE decisions (
        symbol TEXT NOT NULL,
        open_time INTEGER NOT NULL,
        is_closed INTEGER NOT NULL,
        event_time INTEGER NOT NULL,
        name TEXT NOT NULL,
        reason TEXT NOT NULL,
        close TEXT NOT NULL,
        previous_close TEXT,
        buy_threshold TEXT,
        sell_threshold TEXT,
        position TEXT,
        client_order_id TEXT NOT NULL,
        time INTEGER NOT NULL,
        PRIMARY KEY (symbol, open_time, is_closed, event_time)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX decisions_of_a_signal ON decisions (client_order_id) WHERE client_order_id <> ''",
    "CREATE INDEX decisions_to_prune ON decisions (open_time) WHERE is_closed = 0 AND client_order_id = ''",
    # `number` tells events of one actor in one millisecond apart: its epoch, or a dead letter's own number.
    """
    CREATE TABLE actor_events (
        name TEXT NOT NULL,
        time INTEGER NOT NULL,
        event TEXT NOT NULL,
        number INTEGER NOT NULL,
        detail TEXT NOT NULL,
        PRIMARY KEY (name, time, event, number)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX actor_events_to_prune ON actor_events (time)",
    "CREATE TABLE runs (start_time INTEGER PRIMARY KEY, run TEXT NOT NULL) STRICT",
)

_DECISION_COLUMNS = (
    "symbol, open_time, is_closed, event_time, name, reason, close, previous_close, buy_threshold, sell_threshold, "
    "position, client_order_id, time"
)


_NEWEST = "open_time DESC, is_closed DESC, event_time DESC"
_OLDEST = "open_time, is_closed, event_time"
_BEFORE = f"symbol = ? AND ({_OLDEST}) < (?, ?, ?)"
_FROM = f"symbol = ? AND ({_OLDEST}) >= (?, ?, ?)"
# A message that came late stands where it belongs, but what was held is of the time when it came.
_HOLDS = f"position IS NOT NULL AND name <> '{Decided.DROPPED.value}'"
_runs = msgspec.json.Decoder(Run)

MessageKey = tuple[int, bool, int]
"""A message's place among those of its symbol: open_time, is_closed, event_time."""


class ActorEvent(msgspec.Struct, frozen=True):
    """An event about the actor `name` as it is stored: `event` is its type's name, `detail` one line, `time` ms UTC."""

    name: str
    time: int
    event: str
    detail: str


class Reasons:
    """Reads why. Every method reads one consistent state and raises StoreError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def decision_of(self, client_order_id: str) -> Decision | None:
        """Return the decision whose signal has this id."""
        found = self._decisions("client_order_id = ? AND client_order_id <> ''", (client_order_id,), "LIMIT 1")
        return found[0] if found else None

    def decision_at(self, symbol: str, time_ms: int) -> Decision | None:
        """Return the decision of the last message in message order whose event_time is not after `time_ms`."""
        condition = "symbol = ? AND open_time <= ? AND event_time <= ?"
        found = self._decisions(condition, (symbol, time_ms, time_ms), f"ORDER BY {_NEWEST} LIMIT 1")
        return found[0] if found else None

    def decisions_before(self, symbol: str, key: MessageKey, count: int) -> list[Decision]:
        """Return the last `count` decisions before a place in message order, oldest first."""
        return self._decisions(_BEFORE, (symbol, *key, count), f"ORDER BY {_NEWEST} LIMIT ?")[::-1]

    def decisions_from(self, symbol: str, key: MessageKey, count: int) -> list[Decision]:
        """Return the first `count` decisions at or behind a place in message order, oldest first."""
        return self._decisions(_FROM, (symbol, *key, count), f"ORDER BY {_OLDEST} LIMIT ?")

    def position_before(self, symbol: str, key: MessageKey) -> Decision | None:
        """Return the last decision before a place in message order that says what was held then."""
        found = self._decisions(f"{_BEFORE} AND {_HOLDS}", (symbol, *key), f"ORDER BY {_NEWEST} LIMIT 1")
        return found[0] if found else None

    def position_from(self, symbol: str, key: MessageKey) -> Decision | None:
        """Return the first decision at or behind a place in message order that says what was held then."""
        found = self._decisions(f"{_FROM} AND {_HOLDS}", (symbol, *key), f"ORDER BY {_OLDEST} LIMIT 1")
        return found[0] if found else None

    def events(self, names: Iterable[str], since_ms: int, until_ms: int) -> list[ActorEvent]:
        """Return the events about these actors between two times, both included, oldest first."""
        found: list[ActorEvent] = []
        with self._database.reading() as connection:
            for name in names:
                rows = connection.execute(
                    "SELECT name, time, event, detail FROM actor_events WHERE name = ? AND time BETWEEN ? AND ?",
                    (name, since_ms, until_ms),
                )
                found += [ActorEvent(*row) for row in rows]
        return sorted(found, key=lambda event: (event.time, event.name))

    def event_count(self) -> int:
        """Return how many events are stored."""
        with self._database.reading() as connection:
            return int(connection.execute("SELECT count(*) FROM actor_events").fetchone()[0])

    def runs(self, since_ms: int, until_ms: int) -> list[Run]:
        """Return the runs that began between two times, both included, oldest first."""
        return self._runs("WHERE start_time BETWEEN ? AND ? ORDER BY start_time", (since_ms, until_ms))

    def run_at(self, time_ms: int) -> Run | None:
        """Return the last run that had begun at a time; where that is none, the first of all, None if there is none."""
        return next(
            iter(
                self._runs("WHERE start_time <= ? ORDER BY start_time DESC LIMIT 1", (time_ms,))
                or self._runs("ORDER BY start_time LIMIT 1", ())
            ),
            None,
        )

    def _runs(self, condition: str, parameters: tuple[int, ...]) -> list[Run]:
        with self._database.reading() as connection:
            return [_runs.decode(row[0]) for row in connection.execute(f"SELECT run FROM runs {condition}", parameters)]

    def _decisions(self, condition: str, parameters: tuple[Any, ...], order: str) -> list[Decision]:
        with self._database.reading() as connection:
            query = f"SELECT {_DECISION_COLUMNS} FROM decisions WHERE {condition} {order}"
            return [_decision(row) for row in connection.execute(query, parameters)]


def write_decisions(connection: sqlite3.Connection, decisions: Iterable[Decision]) -> None:
    """Store decisions; the first one of a message stands."""
    connection.executemany(
        f"INSERT INTO decisions ({_DECISION_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT DO NOTHING",
        [_decision_row(decision) for decision in decisions],
    )


def write_events(connection: sqlite3.Connection, events: Iterable[BookEvent]) -> None:
    """Store events about actors, each once."""
    connection.executemany(
        "INSERT INTO actor_events (name, time, event, number, detail) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        [_event_row(event) for event in events],
    )


def write_run(connection: sqlite3.Connection, run: Run) -> None:
    """Store a run's settings; a later one of the same millisecond replaces it."""
    row = (run.start_time, msgspec.json.encode(run).decode())
    connection.execute("INSERT OR REPLACE INTO runs (start_time, run) VALUES (?, ?)", row)


def _decision_row(decision: Decision) -> tuple[Any, ...]:
    thresholds = decision.thresholds or Thresholds()
    return (
        decision.symbol,
        decision.open_time,
        decision.is_closed,
        decision.event_time,
        decision.name,
        decision.reason,
        plain(decision.close),
        _text(decision.previous_close),
        _text(thresholds.buy),
        _text(thresholds.sell),
        _text(decision.position),
        decision.client_order_id,
        decision.time,
    )


def _decision(row: tuple[Any, ...]) -> Decision:
    symbol, open_time, is_closed, event_time, name, reason, close, previous_close = row[:8]
    buy, sell, position, client_order_id, time = row[8:]
    return Decision(
        symbol=symbol,
        open_time=open_time,
        event_time=event_time,
        is_closed=bool(is_closed),
        name=name,
        reason=reason,
        close=Decimal(close),
        previous_close=_number(previous_close),
        thresholds=None if buy is None and sell is None else Thresholds(_number(buy), _number(sell)),
        position=_number(position),
        client_order_id=client_order_id,
        time=time,
    )


def _text(value: Decimal | None) -> str | None:
    return None if value is None else plain(value)


def _number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _event_row(event: BookEvent) -> tuple[Any, ...]:
    number = event.number if isinstance(event, DeadLetter) else getattr(event, "epoch", 0)
    return event.name, event.time, type(event).__name__, number, _event_detail(event)


def _event_detail(event: BookEvent) -> str:
    match event:
        case ActorStarted():
            said = f"epoch {event.epoch}"
        case ActorStopped():
            said = f"epoch {event.epoch}{', its thread was left behind' if event.abandoned else ''}"
        case ActorFailed():
            said = f"epoch {event.epoch} in {event.phase} {event.message_type}: {event.error}"
        case ActorRestarted():
            said = f"epoch {event.epoch}, restart {event.restarts}, down for {event.downtime_ms} ms"
        case ActorQuarantined() | SymbolStopped():
            said = event.reason
        case BookOpened():
            said = f"{event.mode} book of {event.bot_id}, {event.account} at {event.exchange}"
        case DeadLetter():
            said = f"{event.message_type} given up after {event.attempts} attempts: {event.error}"
    return " ".join(said.split())
