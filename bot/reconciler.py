"""The one way by which the book is compared with the account, and by which differences are booked.

What a difference means is decided in `bot.domain.reconcile`; this asks the exchange, and writes what was found into the
journal before anybody is told of it.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from bot.domain.account import AccountOrder, AccountTrade
from bot.domain.adjustment import Adjustment
from bot.domain.book import Book
from bot.domain.filters import SymbolRules
from bot.domain.findings import Accepted, LateFill, Look
from bot.domain.money import ZERO, add, plain, subtract
from bot.domain.order import Fill, OrderReport, OrderStatus
from bot.domain.reconcile import AccountView, BookView, reconcile
from bot.messages import Compared
from bot.ports import Account, OrderJournal

RECONCILED_NOTE = "reconciled"
"""Under which the journal keeps what the last look left behind."""

ONE_BY_ONE = 5
"""So many unknown orders are asked for by their ids; more are read from the list of all orders."""

LOOKS = 3
"""How often both are read at most until nothing happened in between."""

ALL_AT_ONCE = 13
"""From so many symbols on, the open orders of all weigh less than those of each. Source: Binance, weights."""

_MINUTE_MS = 60_000


class _Kept(msgspec.Struct, frozen=True):
    """What one look leaves for the next; `began_ms` is when the first one was: what came before is nobody's."""

    accepted: Accepted
    began_ms: int


_kept = msgspec.json.Decoder(_Kept)


class Undecided(Exception):
    """Differences cannot be accepted yet; the text is one line with the reason."""


class Comparison(msgspec.Struct, frozen=True):
    """One look, and what of it was written into the journal: whoever keeps books in memory has to be told that.

    `reports` hold executions found late, by their orders, which their traders book; `adjustments` are corrections;
    `stops` say why which symbols must not trade on (an empty symbol: all entries); `freed` are those whose differences
    a person accepted.
    """

    book: BookView
    account: AccountView
    look: Look
    reports: tuple[OrderReport, ...] = ()
    adjustments: tuple[Adjustment, ...] = ()
    stops: Mapping[str, str] = {}
    freed: frozenset[str] = frozenset()

    def as_json(self) -> dict[str, Any]:
        """Return the book beside the account, asset by asset, and what was found; decimals as strings."""
        by_base = {rules.base_asset: symbol for symbol, rules in self.book.rules.items()}
        rows = []
        for asset in (*by_base, self.book.quote_asset):
            symbol = by_base.get(asset, "")
            held = self.book.positions.get(symbol, ZERO) if symbol else self.book.cash
            free, locked = self.account.balances.get(asset, (ZERO, ZERO))
            rows.append(
                {
                    "asset": asset,
                    "symbol": symbol,
                    "book": plain(held),
                    "free": plain(free),
                    "locked": plain(locked),
                    "beside": plain(subtract(add(free, locked), held)),
                    "unknown": symbol in self.book.unresolved if symbol else bool(self.book.unresolved),
                }
            )
        return {
            "assets": rows,
            "findings": [finding.line for finding in self.look.findings],
            "stops": dict(self.stops),
            "freed": sorted(self.freed),
            "adjustments": [adjustment.reason for adjustment in self.adjustments],
        }

    @property
    def undecided(self) -> frozenset[str]:
        """The symbols of which nothing could be said ("": nor of the quote asset): an order's fate is unknown."""
        return self.book.unresolved | {""} if self.book.unresolved else frozenset()

    @property
    def told(self) -> Compared:
        """What those who keep books in memory have to know."""
        return Compared(
            reports=self.reports,
            adjustments=self.adjustments,
            stops=tuple(self.stops.items()),
            freed=tuple(sorted(self.freed)),
            lines=tuple(finding.line for finding in self.look.findings),
        )


class Reconciler:
    """Compares and books. Thread-safe; calls block while the exchange does, and are made one after another.

    `rules` has every symbol that the book ever held, `start_cash` is what it began with; `symbols` are those that have
    a trader, which books what was found late. `may_reset`: a testnet.
    """

    def __init__(
        self,
        account: Account,
        journal: OrderJournal,
        rules: Mapping[str, SymbolRules],
        symbols: Collection[str],
        order_prefix: str,
        start_cash: Decimal,
        may_reset: bool,
        now_ms: Callable[[], int],
    ) -> None:
        self._account = account
        self._journal = journal
        self._rules = dict(rules)
        self._symbols = frozenset(symbols)
        self._quote_asset = next(iter(self._rules.values())).quote_asset
        self._order_prefix = order_prefix
        self._book = Book(start_cash, self._rules)
        self._mark = 0
        self._may_reset = may_reset
        self._now_ms = now_ms
        self._began_ms = now_ms()
        self._agreed: dict[str, int] = {}  # the book's newest execution by symbol, of those that hold what they should
        self._lock = threading.Lock()

    def read_ahead(self) -> None:
        """Fold the journal as it is now, so that a comparison reads only what is new; asks no exchange.

        To be called before anybody trades: folding 10,000 orders keeps the interpreter busy for a fifth of a second.

        Raises StoreError.
        """
        with self._lock:
            self._read_book()

    def compare(self) -> Comparison:
        """Look, and book what can be explained. Raises as `Account` does, and StoreError."""
        with self._lock:
            return self._booked(*self._look())

    def accept(self, symbols: Collection[str] | None = None) -> Comparison:
        """Look, and book also what cannot be explained, of these symbols ("": of the quote asset) or of all.

        None of them may trade meanwhile: an order that is executed then could look like a difference. A symbol with an
        order of unknown fate is not freed: what it should hold is not known.

        Raises as `Account` does, StoreError, and Undecided if that is so of all these symbols.
        """
        with self._lock:
            book, account, look = self._look()
            undecided = Comparison(book, account, look).undecided
            if symbols and undecided.issuperset(symbols):
                names = ", ".join(symbol or "the quote asset" for symbol in sorted(symbols))
                what = f"an order of unknown fate leaves open what should be there of {names}"
                raise Undecided(f"{what}; let the bot run until it is settled")
            adjustments, accepted = look.accept(self._now_ms(), symbols)
            freed = frozenset(look.stops if symbols is None else symbols) - undecided
            return self._booked(book, account, look, adjustments, accepted, freed)

    def _booked(
        self,
        book: BookView,
        account: AccountView,
        look: Look,
        more: tuple[Adjustment, ...] = (),
        accepted: Accepted | None = None,
        freed: frozenset[str] = frozenset(),
    ) -> Comparison:
        adjustments = (*look.adjustments(self._now_ms()), *more)
        for adjustment in adjustments:
            self._journal.adjust(adjustment)
        reports = _reports(finding.fill for finding in look.findings if isinstance(finding, LateFill))
        for report in reports:
            if report.symbol not in self._symbols:
                self._journal.amend(report.client_order_id, report.fills)
        accepted = accepted or look.accepted
        last = {**accepted.last_trade_ids, **{symbol: last for symbol, last in self._agreed.items() if last}}
        kept = _Kept(msgspec.structs.replace(accepted, last_trade_ids=last), self._began_ms)
        self._journal.set_note(RECONCILED_NOTE, msgspec.json.encode(kept).decode())
        return Comparison(
            book=book,
            account=account,
            look=look,
            reports=reports,
            adjustments=adjustments,
            stops={symbol: line for symbol, line in look.stops.items() if symbol not in freed},
            freed=freed,
        )

    def _look(self) -> tuple[BookView, AccountView, Look]:
        """Compare views of one moment: an order that ended in between has both read again.

        Where that does not help, since orders end all the time, nothing is said of those symbols this time.
        """
        book, _ = self._read_book()
        for _ in range(LOOKS):
            before, account = book, self._read_account(book)
            book, moved = self._read_book()
            if not moved and book.doubts == before.doubts:
                break
        else:
            before = msgspec.structs.replace(
                before,
                unresolved=before.unresolved | book.unresolved | moved,
                doubts=before.doubts | book.doubts,
            )
        return before, account, reconcile(before, account)

    def _read_book(self) -> tuple[BookView, set[str]]:
        """Return the book as it is now, and the symbols of which it has changed since it was read before."""
        # Asked before the ended ones: an order that ends meanwhile is then in both, not in neither.
        unresolved = self._journal.unresolved()
        self._mark, ended = self._journal.changes(self._mark)
        folded, moved = self._book, set()
        for entry in ended:
            if not entry.is_no_order and folded.take(entry.intent, entry.order_id, entry.fills):
                moved.add(entry.intent.symbol)
        moved |= {adjustment.symbol for adjustment in self._journal.adjustments() if folded.adjust(adjustment)}
        noted = self._journal.get_note(RECONCILED_NOTE)
        kept = None if noted is None else _kept.decode(noted)
        if kept is not None:
            self._began_ms = kept.began_ms
        view = BookView(
            positions={symbol: position.quantity for symbol, position in folded.positions.items()},
            cash=folded.cash,
            quote_asset=self._quote_asset,
            rules=self._rules,
            order_prefix=self._order_prefix,
            accepted=None if kept is None else kept.accepted,
            unresolved=frozenset(entry.intent.symbol for entry in unresolved),
            doubts=frozenset(entry.intent.client_order_id for entry in unresolved),
            orders=folded.orders,
            order_ids=folded.order_ids,
            fills=folded.fills,
            commissions=dict(folded.commissions),
            may_reset=self._may_reset,
        )
        return view, moved

    def _read_account(self, book: BookView) -> AccountView:
        """Ask what the account holds and, where that is not what it should be, by which orders and executions.

        A late or foreign execution shows in the base asset, so symbols that hold what they should cost no question; a
        testnet's reset shows in any asset, and then in the executions of all symbols.
        """
        seen = book.accepted.last_trade_ids if book.accepted is not None else {}
        balances = self._account.balances()
        trades: list[AccountTrade] = []
        orders: list[AccountOrder] = []
        newest = dict(seen)
        denied: set[str] = set()
        self._agreed = {}
        off = _off(book, balances)
        may_be_reset = self._may_reset and bool(off)
        for symbol, rules in self._rules.items():
            if symbol in book.unresolved or book.accepted is None:
                continue
            if not may_be_reset and rules.base_asset not in off:
                booked = self._book.newest_trade_ids.get(symbol, 0)
                newest[symbol] = self._agreed[symbol] = max(seen.get(symbol, 0), booked)
                continue
            rows = self._trades(symbol, seen.get(symbol))
            newest[symbol] = max((row.trade_id for row in rows), default=0)
            is_behind = newest[symbol] < seen.get(symbol, 0)
            fresh = [row for row in rows if is_behind or row.trade_id > seen.get(symbol, 0)]
            trades += fresh
            orders += self._orders(symbol, fresh, book)
            if is_behind and self._may_reset:
                denied |= self._denied(symbol, book)
        return AccountView(
            balances=balances,
            orders=tuple(orders),
            open_orders=tuple(self._open_orders(balances)),
            trades=tuple(trades),
            newest_trade_ids=newest,
            denied=frozenset(denied),
        )

    def _trades(self, symbol: str, last_seen: int | None) -> list[AccountTrade]:
        """Return the executions from the last seen one on; all there are, where that one is not there any more."""
        if not last_seen:
            return self._account.trades_since(symbol, start_time=self._began_ms)
        rows = self._account.trades_since(symbol, from_id=last_seen)
        if rows or not self._may_reset:
            return rows
        return self._account.trades_since(symbol, from_id=0)

    def _open_orders(self, balances: Mapping[str, tuple[Decimal, Decimal]]) -> list[AccountOrder]:
        """Return the open orders of the symbols in whose assets something is locked."""
        locked = {asset for asset, (_, amount) in balances.items() if amount}
        asked = [symbol for symbol, rules in self._rules.items() if {rules.base_asset, rules.quote_asset} & locked]
        if len(asked) >= ALL_AT_ONCE:
            return [order for order in self._account.open_orders() if order.symbol in self._rules]
        return [order for symbol in asked for order in self._account.open_orders(symbol)]

    def _orders(self, symbol: str, trades: Iterable[AccountTrade], book: BookView) -> list[AccountOrder]:
        """Return the orders of executions of which the book does not say whose they are."""
        unknown = {trade.order_id: trade for trade in trades if (symbol, trade.order_id) not in book.orders}
        if len(unknown) > ONE_BY_ONE:
            return self._account.orders_since(symbol, min(t.time for t in unknown.values()) - _MINUTE_MS)
        found = (self._account.order_by_id(symbol, order_id) for order_id in unknown)
        return [order for order in found if order is not None]

    def _denied(self, symbol: str, book: BookView) -> set[str]:
        """Return the bot's newest order of a symbol, if the exchange says that there is no such order."""
        ids = [order_id for known, order_id in book.orders if known == symbol]
        if not ids:
            return set()
        newest = max(ids)
        name = book.orders[symbol, newest]
        found = self._account.order_by_id(symbol, newest)
        return set() if found is not None and found.client_order_id == name else {name}


def _off(book: BookView, balances: Mapping[str, tuple[Decimal, Decimal]]) -> set[str]:
    """Return the assets of which the account does not hold what book and last look add up to."""
    foreign = book.accepted.foreign if book.accepted is not None else {}
    own = {book.rules[symbol].base_asset: held for symbol, held in book.positions.items()} | {
        book.quote_asset: book.cash
    }
    return {
        asset
        for asset, held in own.items()
        if add(*balances.get(asset, (ZERO, ZERO))) != add(held, foreign.get(asset, ZERO))
    }


def _reports(late: Iterable[Fill]) -> tuple[OrderReport, ...]:
    """Return late executions by their orders. The status says nothing: the journal keeps the one it has."""
    by_order: dict[str, list[Fill]] = defaultdict(list)
    for fill in late:
        by_order[fill.client_order_id].append(fill)
    return tuple(
        OrderReport(order_id, fills[0].order_id, fills[0].symbol, OrderStatus.EXPIRED, tuple(fills), "found late")
        for order_id, fills in by_order.items()
    )
