"""What is asked of the exchange beside trading, off the path of every kline and order: prices and rules."""

import threading
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial

from bot.actors.cells import AccountMemory, Cell
from bot.domain.account import AccountOrder, BookPrice
from bot.domain.filters import TRADING, PlannedOrder, SymbolRules
from bot.domain.market import MarketView
from bot.domain.money import ZERO, add, subtract
from bot.domain.order import Side
from bot.domain.risk import RiskLimits
from bot.domain.sizing import price_refusal
from bot.ports import Account, ExchangeError
from bot.supervision import Clock

TICK_MS = 1_000
BOOK_EVERY_MS = 2_000
"""The best prices of all symbols weigh 4 of the 6,000 a minute."""
MOST_AVERAGES_A_TICK = 5
"""The average price is asked symbol by symbol and weighs 2: a tenth of the budget at most, however many there are."""
RULES_EVERY_MS = 3_600_000
RULES_AGAIN_MS = 10_000
"""How soon after a refusal the rules are read again, however many refusals there are; and while a market is closed."""


class MarketWatch:
    """The last known prices at the trading exchange. `view` and `look` are called by actors, `tick` by one thread.

    `look` asks the exchange only where the last known price is old or far from the close that is to be traded on, so
    that a price that was merely slow to come refuses nothing.
    """

    def __init__(
        self,
        account: Account,
        rules: Mapping[str, SymbolRules],
        symbols: Sequence[str],
        balances: Cell[AccountMemory],
        clock: Clock,
        on_rules: Callable[[Mapping[str, SymbolRules]], None],
        limits: RiskLimits,
    ) -> None:
        self._account = account
        self._rules = dict(rules)
        self._symbols = tuple(symbols)
        self._balances = balances
        self._clock = clock
        self._on_rules = on_rules
        self._limits = limits
        self._prices: dict[str, tuple[BookPrice, int]] = {}
        self._averages: dict[str, Decimal] = {}
        self._next_average = 0
        self._open_orders: dict[str, tuple[AccountOrder, ...]] = {}
        self._next_open = 0
        self._book_due = 0
        self._rules_read = clock.monotonic_ms()
        self._rules_due = self._rules_read + RULES_EVERY_MS
        self._closed_due = 0
        self._lock = threading.Lock()

    def view(self, symbol: str) -> MarketView:
        """Return what is known of a symbol now; never asks."""
        base = self._rules[symbol].base_asset
        held = next((add(free, locked) for asset, free, locked in self._balances.value.balances if asset == base), ZERO)
        open_orders = self._open_orders.get(symbol, ())
        wanted = ZERO
        for order in open_orders:
            if order.side is Side.BUY:
                wanted = add(wanted, subtract(order.quantity, order.executed_quantity))
        book = self._book(symbol)
        return MarketView(
            bid=book.bid,
            ask=book.ask,
            as_of_ms=book.as_of_ms,
            average_price=self._averages.get(symbol, ZERO),
            held_base=held,
            wanted_base=wanted,
            open_orders=len(open_orders),
            permissions=self._account.permissions(),
        )

    def look(self, symbol: str, close: Decimal, side: Side) -> None:
        """Make sure that a symbol's price is known well enough to judge `close` by it. Never raises.

        `side` is that of the order that waits: it is asked for as urgently as the order itself.
        """
        order = PlannedOrder(Side.BUY, ZERO, close)
        if price_refusal(order, self._book(symbol), self._clock.now_ms(), self._limits) is not None:
            self._ask(lambda: self._read_book((symbol,), side))

    def read_rules_soon(self) -> None:
        """The rules that are known were refused by the exchange: read them again."""
        with self._lock:
            self._rules_due = min(self._rules_due, self._rules_read + RULES_AGAIN_MS)

    def tick(self) -> None:
        """Ask what is due. Never raises: what was not answered is asked again at the next tick."""
        now = self._clock.monotonic_ms()
        if now >= self._book_due and self._ask(lambda: self._read_book(self._symbols)):
            self._book_due = now + BOOK_EVERY_MS
        for _ in range(min(MOST_AVERAGES_A_TICK, -(-len(self._symbols) // 10))):
            symbol = self._symbols[self._next_average % len(self._symbols)]
            self._next_average += 1
            self._ask(partial(self._read_average, symbol))
        self._read_open_orders()
        with self._lock:
            is_due = now >= self._rules_due
        if is_due and self._ask(lambda: self._read_rules(self._symbols)):
            with self._lock:
                self._rules_read = self._clock.monotonic_ms()
                self._rules_due = self._rules_read + RULES_EVERY_MS
        closed = [symbol for symbol in self._symbols if self._rules[symbol].status != TRADING]
        if closed and now >= self._closed_due and self._ask(lambda: self._read_rules(closed)):
            self._closed_due = now + RULES_AGAIN_MS

    def _book(self, symbol: str) -> MarketView:
        """Return the best prices that are known of a symbol, and nothing else."""
        known = self._prices.get(symbol)
        if known is None:
            return MarketView()
        price, as_of_ms = known
        return MarketView(bid=price.bid, ask=price.ask, as_of_ms=as_of_ms)

    def _read_book(self, symbols: Sequence[str], waiting: Side | None = None) -> None:
        prices = self._account.book_prices(symbols, waiting)
        now = self._clock.now_ms()
        for symbol, price in prices.items():
            self._prices[symbol] = (price, now)

    def _read_average(self, symbol: str) -> None:
        self._averages[symbol] = self._account.average_price(symbol)

    def _read_open_orders(self) -> None:
        """Ask of one symbol a tick, of those whose balances say that somebody's orders are open and may matter."""
        locked = {asset for asset, _, amount in self._balances.value.balances if amount}
        asked = [
            symbol
            for symbol in self._symbols
            if {self._rules[symbol].base_asset, self._rules[symbol].quote_asset} & locked
            and (self._rules[symbol].max_position or self._rules[symbol].max_num_orders)
        ]
        for symbol in self._open_orders.keys() - asked:
            self._open_orders.pop(symbol)
        if asked:
            symbol = asked[self._next_open % len(asked)]
            self._next_open += 1
            self._ask(lambda: self._open_orders.update({symbol: tuple(self._account.open_orders(symbol))}))

    def _read_rules(self, symbols: Sequence[str]) -> None:
        rules = self._account.rules(symbols)
        changed = {symbol: new for symbol, new in rules.items() if self._rules.get(symbol) != new}
        if changed:
            self._rules.update(changed)
            self._on_rules(changed)

    @staticmethod
    def _ask(question: Callable[[], None]) -> bool:
        try:
            question()
        except ExchangeError:
            return False
        return True
