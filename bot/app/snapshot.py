"""What is to be seen of a bot at one moment: from the cells of a running one, or from what a stopped one stored."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from bot.actors.cells import ArchiveMemory, PublisherMemory
from bot.actors.monitor import Refusal
from bot.actors.portfolio import START_CASH_NOTE
from bot.actors.supervisor import Memories
from bot.adapters.sqlite import SqliteJournal, SqliteStore, outbox_state
from bot.app.data_directory import DataDirectory
from bot.app.trading import RULES_NOTE, decode_rules
from bot.domain.filters import SymbolRules
from bot.domain.money import ZERO, add, multiply, plain, subtract
from bot.domain.order import OrderIntent, Trade
from bot.domain.position import Position
from bot.messages import Notice
from bot.ports import OutboxState
from bot.supervision import ActorStatus

BALANCES_NOTE = "balances"
"""Under which the journal keeps what the account at the exchange was last known to hold."""

_balances = msgspec.json.Decoder(tuple[tuple[str, str, str], ...])


class SymbolView(msgspec.Struct, frozen=True):
    """One symbol: prices and profit in the quote asset, position in the base asset; None before the first message.

    `decisions` counts messages since this process started by what was decided at them. `unknown` are the orders of
    unknown fate, whose money stays reserved.
    """

    symbol: str
    price: Decimal | None
    previous_price: Decimal | None
    position: Position
    last_kline_ms: int | None
    connected: bool
    messages: int = 0
    decisions: Mapping[str, int] = {}
    unknown: tuple[OrderIntent, ...] = ()

    @property
    def value(self) -> Decimal:
        """What the position is worth at the last close."""
        return multiply(self.position.quantity, self.price) if self.price is not None else ZERO

    @property
    def profit(self) -> Decimal:
        """What the symbol brought so far, its position at the last close included."""
        return add(self.position.net_quote, self.value)


class OutboxView(msgspec.Struct, frozen=True):
    """What waits for the broker or DynamoDB, and what is known of it; `memory` is None where no bot runs."""

    waiting: OutboxState
    memory: PublisherMemory | ArchiveMemory | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what waits, since when (ms UTC), and the last outage (its ms, what waited, how long that took)."""
        known = msgspec.structs.asdict(self.memory) if self.memory is not None else {"link": None, "reason": ""}
        return {**msgspec.structs.asdict(self.waiting), **known}


class Snapshot(msgspec.Struct, frozen=True):
    """Everything a person or a program may want to see of a bot; amounts in the quote asset.

    `halted` is why no order may leave, None if orders may; `stopped` has the same of single symbols.
    `exchange` is what the account was last known to hold, as (asset, free, locked); None where there is no account.
    `publishing` is None where there is no broker, `archiving` where there is no DynamoDB.
    """

    mode: str
    pid: int | None
    symbols: tuple[SymbolView, ...]
    cash: Decimal
    start_cash: Decimal
    actors: tuple[ActorStatus, ...] = ()
    trades: tuple[Trade, ...] = ()
    trade_count: int = 0
    refusals: tuple[Refusal, ...] = ()
    skipped: tuple[tuple[str, int], ...] = ()
    notices: tuple[Notice, ...] = ()
    log_depth: int = 0
    halted: str | None = None
    stopped: tuple[tuple[str, str], ...] = ()
    exchange: tuple[tuple[str, str, str], ...] | None = None
    publishing: OutboxView | None = None
    archiving: OutboxView | None = None

    @property
    def equity(self) -> Decimal:
        """Cash and every position at its last close."""
        total = self.cash
        for view in self.symbols:
            total = add(total, view.value)
        return total

    @property
    def outboxes(self) -> dict[str, OutboxState]:
        """What waits on disk for someone to take it, by whom."""
        views = {"kafka": self.publishing, "dynamodb": self.archiving}
        return {name: view.waiting for name, view in views.items() if view is not None}

    @property
    def decisions(self) -> dict[str, int]:
        """Messages of all symbols since the process started, counted by what was decided at them, most first."""
        total: Counter[str] = Counter()
        for view in self.symbols:
            total.update(view.decisions)
        return dict(total.most_common())

    @property
    def profit(self) -> Decimal:
        """Equity less what the book began with."""
        return subtract(self.equity, self.start_cash)

    def as_json(self) -> dict[str, Any]:
        """Return the contract's status object (section 2), with the wallet's cash beside it."""
        return {
            "mode": self.mode,
            "running": self.pid is not None,
            "pid": self.pid,
            "actors": [actor_json(actor) for actor in self.actors],
            "symbols": {
                view.symbol: {
                    "price": None if view.price is None else plain(view.price),
                    "position": plain(view.position.quantity),
                    "last_kline_ms": view.last_kline_ms,
                    "decisions": dict(view.decisions),
                    "unknown": [_unknown_json(intent) for intent in view.unknown],
                }
                for view in self.symbols
            },
            "equity": plain(self.equity),
            "cash": plain(self.cash),
            "feeds_connected": self._feeds_connected(),
            "trades": self.trade_count,
            "decisions": self.decisions,
            "decided": sum(self.decisions.values()),
            "skipped": dict(self.skipped),
            "log_depth": self.log_depth,
            "halted": self.halted,
            "stopped": dict(self.stopped),
            "publishing": None if self.publishing is None else self.publishing.as_json(),
            "archiving": None if self.archiving is None else self.archiving.as_json(),
        }

    def wallet_json(self) -> dict[str, Any]:
        """Return the contract's wallet object (section 2)."""
        wallet: dict[str, Any] = {
            "cash": plain(self.cash),
            "equity": plain(self.equity),
            "positions": {view.symbol: plain(view.position.quantity) for view in self.symbols},
            "mode": self.mode,
        }
        if self.exchange is not None:
            wallet["exchange"] = {asset: {"free": free, "locked": locked} for asset, free, locked in self.exchange}
        return wallet

    def _feeds_connected(self) -> bool:
        fed = {actor.name for actor in self.actors if actor.kind == "feed"}
        return bool(fed) and all(view.connected for view in self.symbols if f"feed/{view.symbol}" in fed)


def actor_json(actor: ActorStatus) -> dict[str, Any]:
    """Return an actor as the contract's status object has it."""
    return {
        "name": actor.name,
        "state": actor.state,
        "restarts": actor.restarts,
        "epoch": actor.epoch,
        "mailbox": actor.mailbox.total,
        "uptime_s": actor.uptime_ms // 1000,
        "last_error": actor.last_error,
    }


def _unknown_json(intent: OrderIntent) -> dict[str, Any]:
    return {
        "client_order_id": intent.client_order_id,
        "side": intent.side.value,
        "quantity": plain(intent.quantity),
        "reserved": plain(intent.quote_reserved),
    }


def take_snapshot(
    mode: str,
    symbols: Sequence[str],
    memories: Memories,
    tree: tuple[ActorStatus, ...],
    log_depth: int,
    idle: tuple[SymbolView, ...] = (),
    halted: str | None = None,
    stopped: Mapping[str, str] | None = None,
    outbox: OutboxState | None = None,
    archive: OutboxState | None = None,
) -> Snapshot:
    """Read the cells of a running bot; no actor is asked, so it works while all of them hang.

    `idle` are the symbols that the book holds and this run does not trade; `outbox` and `archive` are what waits for
    the broker and for DynamoDB, None where there is none.
    """
    views = []
    for symbol in symbols:
        trader, feed = memories.traders[symbol].value, memories.feeds[symbol].value
        views.append(
            SymbolView(
                symbol=symbol,
                price=trader.close,
                previous_price=trader.previous_close,
                position=trader.position,
                last_kline_ms=trader.last.event_time if trader.last is not None else None,
                connected=feed.connected,
                messages=trader.taken,
                decisions=trader.decisions,
                unknown=trader.doubts,
            )
        )
    portfolio, monitor = memories.portfolio.value, memories.monitor.value
    return Snapshot(
        mode=mode,
        pid=os.getpid(),
        symbols=(*views, *idle),
        cash=portfolio.cash,
        start_cash=portfolio.start_cash,
        actors=tree,
        trades=monitor.trades,
        trade_count=monitor.trade_count,
        refusals=monitor.refusals,
        skipped=monitor.skipped,
        notices=monitor.notices,
        log_depth=log_depth,
        halted=halted,
        stopped=tuple((stopped or {}).items()),
        publishing=None if outbox is None else OutboxView(outbox, memories.publisher.value),
        archiving=None if archive is None else OutboxView(archive, memories.archive.value),
    )


def stored_snapshot(directory: DataDirectory) -> Snapshot:
    """Read the books of a bot that need not be running; nothing is written, nothing is asked of an exchange.

    Raises DataDirectoryError, StoreError; a directory without a book gives an empty snapshot of mode "none".
    """
    identity = directory.identity()
    if identity is None or not directory.orders.exists() or not directory.history.exists():
        return Snapshot("none" if identity is None else identity.mode, directory.running_pid(), (), ZERO, ZERO)
    with SqliteJournal.read_only(directory.orders) as journal, SqliteStore.read_only(directory.history) as store:
        start_cash = Decimal(journal.get_note(START_CASH_NOTE) or "0")
        views = stored_views(journal, store, decode_rules(journal.get_note(RULES_NOTE)))
        cash = start_cash
        for view in views:
            cash = add(cash, view.position.net_quote)
        for adjustment in journal.adjustments():
            if not adjustment.symbol:
                cash = add(cash, adjustment.quote)
        has_account = identity.mode in ("testnet", "live")
        balances = _balances.decode(journal.get_note(BALANCES_NOTE) or "[]")
        to_publish, to_archive = outbox_state(directory.outbox), outbox_state(directory.archive)
        return Snapshot(
            mode=identity.mode,
            pid=directory.running_pid(),
            symbols=views,
            cash=cash,
            start_cash=start_cash,
            trade_count=store.trade_count(),
            halted=directory.halted(),
            stopped=tuple(directory.stopped_symbols().items()),
            exchange=balances if has_account else None,
            publishing=None if to_publish is None else OutboxView(to_publish),
            archiving=None if to_archive is None else OutboxView(to_archive),
        )


def stored_views(
    journal: SqliteJournal, store: SqliteStore, rules: Mapping[str, SymbolRules]
) -> tuple[SymbolView, ...]:
    """Return symbols as the files have them: positions of the journal, prices of the store. Raises StoreError."""
    views, adjustments = [], journal.adjustments()
    for symbol, symbol_rules in rules.items():
        fills = (fill for entry in journal.settled(symbol) for fill in entry.fills)
        own = [adjustment for adjustment in adjustments if adjustment.symbol == symbol]
        position = Position().with_all(fills, own, symbol_rules)
        klines = store.last_klines(symbol, 2)
        views.append(
            SymbolView(
                symbol=symbol,
                price=klines[-1].close if klines else None,
                previous_price=klines[0].close if len(klines) > 1 else None,
                position=position,
                last_kline_ms=klines[-1].event_time if klines else None,
                connected=False,
                messages=store.kline_count(symbol),
                unknown=tuple(entry.intent for entry in journal.unresolved(symbol)),
            )
        )
    return tuple(views)


def encode_balances(balances: Mapping[str, tuple[Decimal, Decimal]]) -> str:
    """Return balances, by asset (free, locked), as the text of a journal note."""
    rows = [(asset, plain(free), plain(locked)) for asset, (free, locked) in sorted(balances.items())]
    return msgspec.json.encode(rows).decode()
