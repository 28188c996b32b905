"""The bot's book beside what the exchange says of the account: what the differences are, and what each one means.

The rules, asset by asset, with `total` = free + locked at the exchange and `held` = what the book says is the bot's:

* The bot's coins must be covered: total >= held. What is beyond is foreign, whatever brought it, and never the bot's.
* Executions of the bot's own orders that the book lacks are late fills and are booked first.
* A shortage up to what the bot's orders paid as commission in that asset (neither base nor quote of their symbol) since
  the last look is that commission: foreign coins pay first, the bot's own pay the rest. There is no other tolerance.
* Any other shortage is unexplained: it stops its symbol, or all entries where it is of the quote asset.
* An order with the bot's mark that its journal does not know, or knows as another order, stops its symbol: someone
  else trades under its name. Its executions are foreign.
* Unknown stays unknown: while a symbol has an order of unknown fate, nothing is said of its base asset, nor of the
  assets in which such an order may pay: the quote asset and those that commissions come from.
* The testnet's reset takes orders, trades and balances away; see `_reset`.

The views must be of one moment. An order that is executed between two questions shows as a difference that the next
look does not have, so an `Unexplained` counts once two looks in a row have it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal

import msgspec

from bot.domain.account import AccountOrder, AccountTrade
from bot.domain.book import third_asset_commissions
from bot.domain.filters import SymbolRules
from bot.domain.findings import (
    Accepted,
    CommissionTaken,
    Finding,
    ForeignChange,
    ForeignLock,
    LateFill,
    Look,
    TestnetReset,
    Unexplained,
    UnknownOrder,
    without_stopped,
)
from bot.domain.money import ZERO, add, plain, subtract
from bot.domain.order import Fill, Side
from bot.domain.position import Position, quote_change

DISCOUNT_ASSET = "BNB"
"""In which Binance takes commissions where the account asks for it."""


class BookView(msgspec.Struct, frozen=True):
    """The bot's book. All symbols share `quote_asset`; `rules` has every symbol that the book ever held.

    `unresolved`: symbols with an order of unknown fate, `doubts` their client order ids. `orders`, `order_ids`, `fills`
    and `commissions` are those of `domain.book.Book`, which goes on to change: they are looked up, never gone through.
    `accepted` is None before the first look. `may_reset`: this is a testnet.
    """

    positions: Mapping[str, Decimal]
    cash: Decimal
    quote_asset: str
    rules: Mapping[str, SymbolRules]
    order_prefix: str
    accepted: Accepted | None = None
    unresolved: frozenset[str] = frozenset()
    doubts: frozenset[str] = frozenset()
    orders: Mapping[tuple[str, int], str] = {}
    order_ids: Mapping[str, int] = {}
    fills: AbstractSet[tuple[str, int]] = frozenset()
    commissions: Mapping[str, Decimal] = {}
    may_reset: bool = False


class AccountView(msgspec.Struct, frozen=True):
    """What the exchange says: `balances` as (free, locked) by asset, orders and trades whoever sent them.

    `orders` are the recent ones, open or not, by which a trade's client order id is known. `trades` are those behind
    the last seen trade id of each symbol; all there are where `newest_trade_ids`, by symbol, is below that. `denied`
    are the client order ids of filled orders for which the exchange was asked and which it does not have.
    """

    balances: Mapping[str, tuple[Decimal, Decimal]]
    orders: tuple[AccountOrder, ...] = ()
    open_orders: tuple[AccountOrder, ...] = ()
    trades: tuple[AccountTrade, ...] = ()
    newest_trade_ids: Mapping[str, int] = {}
    denied: frozenset[str] = frozenset()

    def total(self, asset: str) -> Decimal:
        """Return what the account holds of an asset, free and locked."""
        return add(*self.balances.get(asset, (ZERO, ZERO)))


def reconcile(book: BookView, account: AccountView) -> Look:
    """Compare the book with the account; return the findings in the order in which they are to be applied.

    Raises KeyError where a position or an execution is of a symbol without rules.
    """
    return _Comparison(book, account).look()


class _Comparison:
    def __init__(self, book: BookView, account: AccountView) -> None:
        self._book = book
        self._account = account
        self._before = book.accepted or Accepted()
        self._findings: list[Finding] = []
        self._client_ids = {(o.symbol, o.order_id): o.client_order_id for o in (*account.orders, *account.open_orders)}
        self._skipped = self._left_out()
        self._ours: list[Fill] = []
        self._foreign_moves: dict[str, Decimal] = defaultdict(lambda: ZERO)

    def look(self) -> Look:
        book = self._book
        self._sort_trades()
        late = [f for f in self._ours if (f.client_order_id, f.trade_id) not in book.fills]
        for fill in late:
            line = f"{fill.symbol}: late fill {fill.trade_id} of {fill.client_order_id}, {_what(fill)}"
            self._findings.append(LateFill(fill, line))
        self._find_unknown_orders()
        positions, cash = self._with(late)
        commissions = dict(book.commissions)
        for asset, paid in third_asset_commissions(late, book.rules).items():
            commissions[asset] = add(commissions.get(asset, ZERO), paid)
        reset = self._reset(positions, cash)
        if reset is not None:
            self._findings.append(reset)
            left = {symbol: subtract(held, reset.removed.get(symbol, ZERO)) for symbol, held in positions.items()}
            own = self._by_asset(left, add(cash, reset.cash))
            totals = {asset: self._account.total(asset) for asset in {*own, *self._account.balances}}
            foreign = {asset: subtract(total, max(ZERO, own.get(asset, ZERO))) for asset, total in totals.items()}
            accepted = Accepted(_not_zero(foreign), commissions, dict(self._account.newest_trade_ids))
            return Look(tuple(self._findings), accepted, accepted)
        return self._compare(positions, cash, commissions)

    def _by_asset(self, positions: Mapping[str, Decimal], cash: Decimal) -> dict[str, Decimal]:
        rules = self._book.rules
        return {rules[symbol].base_asset: held for symbol, held in positions.items()} | {self._book.quote_asset: cash}

    def _left_out(self) -> frozenset[str]:
        book = self._book
        if not book.unresolved:
            return frozenset()
        bases = {book.rules[symbol].base_asset for symbol in book.unresolved}
        return frozenset({*bases, book.quote_asset, DISCOUNT_ASSET, *book.commissions})

    def _sort_trades(self) -> None:
        """Tell the bot's own executions from foreign ones; those of symbols of unknown fate are left for later."""
        book = self._book
        # After a reset an order id may be another order's, and the exchange alone says whose.
        known = {} if book.may_reset and self._account.denied else book.orders
        for trade in {(trade.symbol, trade.trade_id): trade for trade in self._account.trades}.values():
            if trade.symbol in book.unresolved:
                continue
            key = (trade.symbol, trade.order_id)
            client_order_id = self._client_ids.get(key) or known.get(key, "")
            fill = _fill(trade, client_order_id)
            if self._is_ours(client_order_id, trade.order_id):
                self._ours.append(fill)
                continue
            base, quote = book.rules[trade.symbol].base_asset, book.rules[trade.symbol].quote_asset
            moved = Position().after(fill, book.rules[trade.symbol]).quantity
            moves = [(base, moved), (quote, quote_change(fill, quote))]
            if trade.commission_asset not in (base, quote):
                moves.append((trade.commission_asset, subtract(ZERO, trade.commission)))
            for asset, change in moves:
                self._foreign_moves[asset] = add(self._foreign_moves[asset], change)

    def _is_ours(self, client_order_id: str, order_id: int) -> bool:
        """Return whether the journal knows an order; its id alone does not say so: once it has ended the id is free."""
        if client_order_id in self._book.doubts:
            return True
        known = self._book.order_ids.get(client_order_id)
        return known is not None and known in (0, order_id)

    def _find_unknown_orders(self) -> None:
        book, account = self._book, self._account
        seen_behind = {(t.symbol, t.order_id) for t in account.trades}
        open_ones = {(o.symbol, o.order_id) for o in account.open_orders}
        for (symbol, order_id), name in self._client_ids.items():
            is_new = (symbol, order_id) in seen_behind or (symbol, order_id) in open_ones
            if is_new and name.startswith(book.order_prefix) and not self._is_ours(name, order_id):
                line = (
                    f"{symbol}: order {order_id}, {name}, carries this bot's mark and is not in its journal; if "
                    "another bot with this bot_id trades on the account, stop it, then run: reconcile --accept"
                )
                self._findings.append(UnknownOrder(symbol, book.rules[symbol].base_asset, name, line))

    def _with(self, late: Iterable[Fill]) -> tuple[dict[str, Decimal], Decimal]:
        book = self._book
        positions, cash = dict(book.positions), book.cash
        for fill in late:
            rules = book.rules[fill.symbol]
            change = Position().after(fill, rules).quantity
            positions[fill.symbol] = add(positions.get(fill.symbol, ZERO), change)
            cash = add(cash, quote_change(fill, rules.quote_asset))
        return positions, cash

    def _reset(self, positions: Mapping[str, Decimal], cash: Decimal) -> TestnetReset | None:
        """Return the testnet's reset, None if there is no sign of one.

        Three signs together: the exchange lacks filled orders of the bot, its newest trade ids are below those seen at
        the last look, and the balances are not what they were. Afterwards the bot owns what its own executions there
        brought since, and of the cash what it had, as far as the account has it: the coins that a reset gives are
        foreign. With an order of unknown fate it waits.
        """
        book, account = self._book, self._account
        seen = {symbol: last for symbol, last in self._before.last_trade_ids.items() if last}
        if not book.may_reset or not account.denied or book.unresolved or not seen:
            return None
        if any(account.newest_trade_ids.get(symbol, 0) >= last for symbol, last in seen.items()):
            return None
        own, foreign = self._by_asset(positions, cash), self._before.foreign
        assets = {*own, *foreign, *account.balances}
        if all(account.total(a) == add(own.get(a, ZERO), foreign.get(a, ZERO)) for a in assets):
            return None
        since = dict.fromkeys(positions, ZERO)
        for fill in self._ours:
            change = Position().after(fill, book.rules[fill.symbol]).quantity
            since[fill.symbol] = add(since.get(fill.symbol, ZERO), change)
        gone = {symbol: subtract(held, max(ZERO, since[symbol])) for symbol, held in positions.items()}
        return TestnetReset(
            removed={symbol: quantity for symbol, quantity in gone.items() if quantity > 0},
            cash=min(ZERO, subtract(account.total(book.quote_asset), max(ZERO, cash))),
            line="the testnet was reset: it knows none of the bot's orders any more; its positions there are gone",
        )

    def _compare(self, positions: Mapping[str, Decimal], cash: Decimal, commissions: Mapping[str, Decimal]) -> Look:
        book, account, before = self._book, self._account, self._before
        symbols = {book.rules[symbol].base_asset: symbol for symbol in positions} | {book.quote_asset: ""}
        held = self._by_asset(positions, cash)
        foreign, paid, paid_then = dict(before.foreign), dict(before.commissions), dict(before.commissions)
        for asset in sorted({*held, *account.balances, *before.foreign} - self._skipped):
            own, total = max(ZERO, held.get(asset, ZERO)), account.total(asset)
            spent = subtract(commissions.get(asset, ZERO), before.commissions.get(asset, ZERO))
            paid_then[asset] = commissions.get(asset, ZERO)
            missing = subtract(own, total)
            if missing > spent:
                self._findings.append(self._unexplained(symbols[asset], asset, own, total))
                continue
            if missing > 0:
                line = (
                    f"{symbols[asset]}: {plain(missing)} {asset} of the position went as commission of the bot's orders"
                )
                self._findings.append(CommissionTaken(symbols[asset], asset, missing, line))
                own = total
            paid[asset] = paid_then[asset]
            foreign[asset] = subtract(total, own)
            if book.accepted is not None and foreign[asset] != before.foreign.get(asset, ZERO):
                self._findings.append(self._foreign_change(asset, foreign[asset], spent))
            free, _ = account.balances.get(asset, (ZERO, ZERO))
            if free < own:
                self._findings.append(self._lock(symbols[asset], asset, own, subtract(own, free)))
        last = dict(before.last_trade_ids)
        for trade in account.trades:
            if trade.symbol not in book.unresolved:
                last[trade.symbol] = max(trade.trade_id, last.get(trade.symbol, 0))
        stopped = {f.symbol for f in self._findings if isinstance(f, Unexplained | UnknownOrder)}
        # What stopped a symbol is found again, and its cause can be told, until a person has accepted it.
        bases = {book.rules[symbol].base_asset for symbol in stopped if symbol}
        held_back = {asset: before.foreign.get(asset, ZERO) for asset in bases}
        last_seen = without_stopped(last, before.last_trade_ids, stopped)
        accepted = Accepted(_not_zero(foreign | held_back), _not_zero(paid), last_seen)
        return Look(tuple(self._findings), accepted, Accepted(_not_zero(foreign), _not_zero(paid_then), last))

    def _unexplained(self, symbol: str, asset: str, expected: Decimal, actual: Decimal) -> Unexplained:
        missing = plain(subtract(expected, actual))
        moved = self._foreign_moves.get(asset, ZERO)
        cause = f", and orders that are not the bot's took {plain(subtract(ZERO, moved))} of it" if moved < 0 else ""
        stopped = symbol or "all entries"
        line = (
            f"{stopped}: the account holds {plain(actual)} {asset}, {missing} less than the bot's {plain(expected)}"
            f"{cause}; see: {' '.join(['reconcile', *([symbol] if symbol else [])])}"
        )
        return Unexplained(symbol, asset, expected, actual, line)

    def _foreign_change(self, asset: str, after: Decimal, commission: Decimal) -> ForeignChange:
        before = self._before.foreign.get(asset, ZERO)
        by_orders = self._foreign_moves.get(asset, ZERO)
        rest = subtract(subtract(after, before), subtract(by_orders, commission))
        parts = [
            f"{plain(amount)} by {cause}"
            for amount, cause in (
                (by_orders, "orders that are not the bot's"),
                (subtract(ZERO, commission), "the bot's commissions"),
                (rest, "deposits, withdrawals and other moves"),
            )
            if amount
        ]
        line = f"{asset} beside the bot's: {plain(before)} before, {plain(after)} now ({', '.join(parts)})"
        return ForeignChange(asset, before, after, line)

    def _lock(self, symbol: str, asset: str, own: Decimal, locked: Decimal) -> ForeignLock:
        side = Side.SELL if symbol else Side.BUY
        names = [
            str(order.order_id)
            for order in self._account.open_orders
            if order.side is side and (order.symbol == symbol or not symbol)
        ]
        whose = f"open orders that are not the bot's ({', '.join(names)})" if names else "something outside of the bot"
        line = (
            f"{plain(locked)} of the bot's {plain(own)} {asset} are locked by {whose}: cancel them, or orders may fail"
        )
        return ForeignLock(symbol, asset, locked, line)


def _fill(trade: AccountTrade, client_order_id: str) -> Fill:
    return Fill(
        client_order_id=client_order_id,
        order_id=trade.order_id,
        trade_id=trade.trade_id,
        symbol=trade.symbol,
        side=Side.BUY if trade.is_buyer else Side.SELL,
        price=trade.price,
        quantity=trade.quantity,
        quote_quantity=trade.quote_quantity,
        commission=trade.commission,
        commission_asset=trade.commission_asset,
        time=trade.time,
    )


def _what(fill: Fill) -> str:
    return f"{fill.side} {plain(fill.quantity)} at {plain(fill.price)}"


def _not_zero(amounts: Mapping[str, Decimal]) -> dict[str, Decimal]:
    return {asset: amount for asset, amount in amounts.items() if amount}
