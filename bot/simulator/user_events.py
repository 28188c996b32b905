"""Decides what the user data stream tells: which events follow each change of the account, and each one's keys.

Source: Binance, user data streams.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from bot.simulator.amounts import ZERO, exact, text8
from bot.simulator.books import Books
from bot.simulator.orders import Fill, Order
from bot.simulator.profiles import SymbolRules

Event = dict[str, Any]
TIME_KEYS = {
    "executionReport": ("E", "T", "O", "W"),
    "outboundAccountPosition": ("E", "u"),
    "balanceUpdate": ("E", "T"),
}
# status of an order that ends unfilled -> execution type
ENDINGS = {
    "EXPIRED": "EXPIRED",
    "EXPIRED_IN_MATCH": "TRADE_PREVENTION",
    "CANCELED": "CANCELED",
    "REJECTED": "REJECTED",
}
EXECUTION_IDS_A_RUN = 10**9


class AccountEvents:
    """Watches the books and hands the events of each change, as one list in their order, to `sink`."""

    def __init__(self, books: Books, rules: Callable[[str], SymbolRules], now_ms: Callable[[], int], run: int) -> None:
        """`run` counts the starts of the exchange: execution ids are never given twice."""
        self.sink: Callable[[list[Event]], None] | None = None
        self._books = books
        self._rules = rules
        self._now_ms = now_ms
        self._execution_id = run * EXECUTION_IDS_A_RUN

    @exact
    def placed(self, order: Order, fills: list[Fill]) -> None:
        """Tell of a new order: NEW, a TRADE per fill, how the rest ended if it did, then the balances."""
        events = [] if order.status == "REJECTED" else [self._report(order, "NEW", "NEW")]
        events += self._trades(order, fills, ZERO, ZERO)
        if order.status in ENDINGS:
            events.append(self._report(order, ENDINGS[order.status], order.status, order.executed, order.quote))
        self._emit([*events, self._position(self._assets(order, fills))])

    @exact
    def matched(self, order: Order, fill: Fill) -> None:
        """Tell of one fill of a resting order, already booked."""
        trades = self._trades(order, [fill], order.executed - fill.quantity, order.quote - fill.quote)
        self._emit([*trades, self._position(self._assets(order, [fill]))])

    def cancelled(self, order: Order) -> None:
        event = self._report(order, "CANCELED", "CANCELED", order.executed, order.quote)
        self._emit([event, self._position(self._assets(order, []))])

    def transferred(self, asset: str, delta: Decimal) -> None:
        """Tell of a deposit, or a withdrawal (`delta` < 0), already booked."""
        now = self._now_ms()
        update = {"e": "balanceUpdate", "E": now, "a": asset, "d": text8(delta), "T": now}
        self._emit([update, self._position([asset])])

    def _emit(self, events: list[Event]) -> None:
        if self.sink is not None:
            self.sink(events)

    def _assets(self, order: Order, fills: list[Fill]) -> list[str]:
        rules = self._rules(order.symbol)
        return [*dict.fromkeys([rules.base, rules.quote, *(fill.commission_asset for fill in fills)])]

    def _trades(self, order: Order, fills: list[Fill], executed: Decimal, quote: Decimal) -> list[Event]:
        """`executed` and `quote`: the order's totals before the first of `fills`."""
        events = []
        for fill in fills:
            executed += fill.quantity
            quote += fill.quote
            status = "FILLED" if executed == order.quantity else "PARTIALLY_FILLED"
            events.append(self._report(order, "TRADE", status, executed, quote, fill))
        return events

    def _report(
        self,
        order: Order,
        execution: str,
        status: str,
        executed: Decimal = ZERO,
        quote: Decimal = ZERO,
        fill: Fill | None = None,
    ) -> Event:
        self._execution_id += 1
        event: Event = {
            "e": "executionReport",
            "E": self._now_ms(),
            "s": order.symbol,
            "c": order.client_order_id,
            "S": order.side,
            "o": order.type,
            "f": order.time_in_force,
            "q": text8(order.quantity),
            "p": text8(order.price),
            "P": text8(ZERO),
            "F": text8(ZERO),
            "g": -1,
            "C": order.original_client_order_id or "",
            "x": execution,
            "X": status,
            "r": "INSUFFICIENT_BALANCES" if status == "REJECTED" else "NONE",
            "i": order.order_id,
            "l": text8(fill.quantity if fill else ZERO),
            "z": text8(executed),
            "L": text8(fill.price if fill else ZERO),
            "n": text8(fill.commission) if fill else "0",
            "N": fill.commission_asset if fill else None,
            "T": fill.time if fill else order.update_time,
            "t": fill.trade_id if fill else -1,
            "I": self._execution_id,
            "w": status in ("NEW", "PARTIALLY_FILLED"),
            "m": fill.is_maker if fill else False,
            "M": fill is not None,
            "O": order.time,
            "Z": text8(quote),
            "Y": text8(fill.quote if fill else ZERO),
            "Q": text8(order.quote_quantity),
            "W": order.working_time,
            "V": order.self_trade_prevention,
        }
        optional = {
            "j": order.strategy_id,
            "J": order.strategy_type,
            "eR": order.expiry_reason if execution in ENDINGS.values() else None,
            "v": order.prevented_match_id if execution == "TRADE_PREVENTION" else None,
            "A": text8(order.prevented) if execution == "TRADE_PREVENTION" else None,
            "B": text8(order.prevented) if execution == "TRADE_PREVENTION" else None,
        }
        return event | {key: value for key, value in optional.items() if value is not None}

    def _position(self, assets: list[str]) -> Event:
        balances = self._books.balances
        return {
            "e": "outboundAccountPosition",
            "E": self._now_ms(),
            "u": self._books.update_time,
            "B": [
                {"a": asset, "f": text8(balances[asset].free), "l": text8(balances[asset].locked)} for asset in assets
            ],
        }


def told(event: Event, is_micro: bool) -> Event:
    """Return `event` with its times in the unit that a connection asked for."""
    if not is_micro:
        return event
    return event | {key: event[key] * 1000 for key in TIME_KEYS.get(event["e"], ("E",)) if event[key] >= 0}
