"""The money of a run: cash, reservations, positions, last closes, equity. One owner changes it, nobody else.

Amounts are in the quote asset that all symbols share.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

import msgspec

from bot.domain.adjustment import Adjustment
from bot.domain.filters import SymbolRules
from bot.domain.money import ONE, ZERO, add, multiply, subtract
from bot.domain.order import Fill, Side
from bot.domain.position import Position, quote_change
from bot.domain.risk import DAY_MS


class Reservation(msgspec.Struct, frozen=True):
    """Money set aside for one order until its fate is known; `quantity` is what the order asks for (base asset).

    `limit_price` is None for a market order.
    """

    symbol: str
    side: Side
    quantity: Decimal
    quote: Decimal
    limit_price: Decimal | None = None


class TradingDay(msgspec.Struct, frozen=True):
    """A UTC day by its number since the epoch, the equity it started with, and whether the daily loss was reached."""

    number: int = -1
    start_equity: Decimal = ZERO
    lost: bool = False


class Ledger:
    """Cash, positions and marks of all symbols of a run, conserved to the last decimal."""

    def __init__(self, cash: Decimal, rules: Mapping[str, SymbolRules], max_daily_loss: Decimal | None = None) -> None:
        self.rules = rules
        self._max_daily_loss = max_daily_loss
        self.cash = cash
        self.positions: dict[str, Position] = dict.fromkeys(rules, Position())
        self.marks: dict[str, Decimal] = {}
        self.reservations: dict[str, Reservation] = {}
        self.last_trade_time: dict[str, int] = {}
        self.day = TradingDay()
        self._booked: set[tuple[str, int]] = set()
        self._adjusted: set[str] = set()

    def mark(self, symbol: str, close: Decimal, event_time: int) -> None:
        """Take a symbol's new last close.

        The first message of a UTC day fixes the equity that the day started with; once equity falls to the day's
        limit, the day counts as lost until the next one begins.
        """
        number = event_time // DAY_MS
        if number > self.day.number:
            self.day = TradingDay(number=number, start_equity=self.equity())
        self.marks[symbol] = close
        if self._max_daily_loss is not None and not self.day.lost:
            floor = multiply(self.day.start_equity, subtract(ONE, self._max_daily_loss))
            if self.equity() <= floor:
                self.day = msgspec.structs.replace(self.day, lost=True)

    def equity(self) -> Decimal:
        """Return all cash, free and reserved, plus every position at its last close; an unseen symbol counts 0."""
        total = self.cash
        for symbol, close in self.marks.items():
            held = self.positions[symbol].quantity
            if held:
                total = add(total, multiply(held, close))
        return total

    def free_cash(self) -> Decimal:
        """Return the cash that no order in flight may still spend."""
        free = self.cash
        for reservation in self.reservations.values():
            free = subtract(free, reservation.quote)
        return free

    def reserve(self, client_order_id: str, reservation: Reservation) -> None:
        """Set money aside for an order; the same id twice is one reservation."""
        self.reservations.setdefault(client_order_id, reservation)

    def release(self, client_order_id: str) -> None:
        """Free what an ended order did not spend; unknown ids are ignored."""
        self.reservations.pop(client_order_id, None)

    def book(self, fill: Fill, event_time: int) -> bool:
        """Apply a fill once; `event_time` (ms) is the deciding kline's. Return False if it was booked before.

        A fill is known by its order and trade id: a reset of the testnet starts the trade ids of a symbol over.
        The order's reservation shrinks by what the fill spent, so that free cash does not move twice.
        """
        key = (fill.client_order_id, fill.trade_id)
        if key in self._booked:
            return False
        self._booked.add(key)
        rules = self.rules[fill.symbol]
        self.positions[fill.symbol] = self.positions[fill.symbol].after(fill, rules)
        change = quote_change(fill, rules.quote_asset)
        self.cash = add(self.cash, change)
        self.last_trade_time[fill.symbol] = max(event_time, self.last_trade_time.get(fill.symbol, 0))
        held = self.reservations.get(fill.client_order_id)
        if held is not None and change < 0:
            rest = max(ZERO, add(held.quote, change))
            self.reservations[fill.client_order_id] = msgspec.structs.replace(held, quote=rest)
        return True

    def adjust(self, adjustment: Adjustment) -> bool:
        """Apply a correction once by its id; return False if it was applied before.

        It is no trade, so it starts no cooldown; what it takes from the equity counts as a loss of its day.
        """
        if adjustment.adjustment_id in self._adjusted:
            return False
        self._adjusted.add(adjustment.adjustment_id)
        if adjustment.symbol:
            self.positions[adjustment.symbol] = self.positions[adjustment.symbol].adjusted(adjustment)
        self.cash = add(self.cash, adjustment.quote)
        return True

    def change_rules(self, changed: Iterable[SymbolRules]) -> None:
        """Take new rules of symbols that the ledger holds already; others are ignored. Money and positions stay."""
        self.rules = {**self.rules, **{new.symbol: new for new in changed if new.symbol in self.rules}}
