"""Decides whether an order is legal for its symbol: every filter in exchangeInfo's order, only the first failure told.

Source: Binance, filters. The order of evaluation is not documented; the fact sheet proposes exchangeInfo's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from bot.simulator.amounts import ZERO, exact
from bot.simulator.errors import ApiError, filter_failure, rejected
from bot.simulator.orders import OrderRequest
from bot.simulator.profiles import SymbolRules

Filter = Mapping[str, Any]


@dataclass(frozen=True)
class Situation:
    """What the filters need to know beside the order.

    `average(minutes)` is the reference price: a volume-weighted average, or the last price for 0 minutes. `quantity` is
    in the base asset, computed from the book for an order by quoteOrderQty. `open_orders` (on the symbol), `all_open`
    (on all symbols) and `position` (free and locked base asset and what open BUY orders still want) are without it.
    """

    order: OrderRequest
    quantity: Decimal
    average: Callable[[int], Decimal]
    open_orders: int = 0
    all_open: int = 0
    position: Decimal = ZERO

    @property
    def is_market(self) -> bool:
        return self.order.type == "MARKET"

    def notional(self, rule: Filter) -> Decimal:
        """Return the order's value in the quote asset; that of quoteOrderQty is taken to be itself (not documented)."""
        if self.order.quote_quantity is not None:
            return self.order.quote_quantity
        price = self.order.price if self.order.price is not None else self.average(rule["avgPriceMins"])
        return price * self.quantity


@exact
def check(rules: SymbolRules, exchange_filters: Sequence[Filter], situation: Situation) -> None:
    """Raise ApiError -1013 with the name of the first filter that the order breaks."""
    order = situation.order
    for name, value in (
        ("quantity", order.quantity),
        ("quoteOrderQty", order.quote_quantity),
        ("price", order.price),
    ):
        if value is not None and value <= 0:
            raise ApiError(-1013, f"Invalid {name}.")
    for rule in (*rules.filters, *exchange_filters):
        test = _TESTS.get(rule["filterType"])
        if test is not None and not test(rule, situation):
            raise filter_failure(rule["filterType"])


def _price_filter(rule: Filter, situation: Situation) -> bool:
    price = situation.order.price
    return price is None or _in_grid(price, rule["minPrice"], rule["maxPrice"], rule["tickSize"])


def _lot_size(rule: Filter, situation: Situation) -> bool:
    quantity = situation.order.quantity
    return quantity is None or _in_grid(quantity, rule["minQty"], rule["maxQty"], rule["stepSize"])


def _market_lot_size(rule: Filter, situation: Situation) -> bool:
    if not situation.is_market:
        return True
    if situation.order.quantity is None:
        return situation.quantity <= Decimal(rule["maxQty"]) or Decimal(rule["maxQty"]) == 0
    return _in_grid(situation.quantity, rule["minQty"], rule["maxQty"], rule["stepSize"])


def _in_grid(value: Decimal, low: str, high: str, step: str) -> bool:
    """Steps are counted from zero; a bound or step of 0 is switched off."""
    lowest, highest, size = Decimal(low), Decimal(high), Decimal(step)
    return not ((lowest and value < lowest) or (highest and value > highest) or (size and value % size != 0))


def _percent_price(rule: Filter, situation: Situation) -> bool:
    return _within(rule, situation, rule["multiplierDown"], rule["multiplierUp"])


def _percent_price_by_side(rule: Filter, situation: Situation) -> bool:
    side = "bid" if situation.order.is_buyer else "ask"
    return _within(rule, situation, rule[f"{side}MultiplierDown"], rule[f"{side}MultiplierUp"])


def _within(rule: Filter, situation: Situation, down: str, up: str) -> bool:
    price = situation.order.price
    if price is None:
        return True
    reference = situation.average(rule["avgPriceMins"])
    return reference * Decimal(down) <= price <= reference * Decimal(up)


def _min_notional(rule: Filter, situation: Situation) -> bool:
    if situation.is_market and not rule["applyToMarket"]:
        return True
    return situation.notional(rule) >= Decimal(rule["minNotional"])


def _notional(rule: Filter, situation: Situation) -> bool:
    value = situation.notional(rule)
    tests_low = rule["applyMinToMarket"] or not situation.is_market
    tests_high = rule["applyMaxToMarket"] or not situation.is_market
    return not (tests_low and value < Decimal(rule["minNotional"])) and not (
        tests_high and value > Decimal(rule["maxNotional"])
    )


def _max_num_orders(rule: Filter, situation: Situation) -> bool:
    return not situation.order.may_rest or situation.open_orders < int(rule["maxNumOrders"])


def _exchange_max_num_orders(rule: Filter, situation: Situation) -> bool:
    return not situation.order.may_rest or situation.all_open < int(rule["maxNumOrders"])


def _max_position(rule: Filter, situation: Situation) -> bool:
    """Whether the order itself counts is not quite clear from the documents; here it does, which refuses more."""
    is_buyer = situation.order.is_buyer
    return not is_buyer or situation.position + situation.quantity <= Decimal(rule["maxPosition"])


@exact
def check_liquidity(rules: SymbolRules, quantity: Decimal, is_book_empty: bool) -> None:
    """Raise ApiError -2010 if the book gives too little for an order by quoteOrderQty."""
    if is_book_empty:
        raise rejected("Order book liquidity is less than symbol minimum quantity.")
    for rule in rules.filters:
        if rule["filterType"] in ("LOT_SIZE", "MARKET_LOT_SIZE") and quantity < Decimal(rule["minQty"]):
            raise rejected(f"Order book liquidity is less than `{rule['filterType']}` filter minimum quantity.")
    if quantity <= 0:
        raise rejected("Order book liquidity is less than `LOT_SIZE` filter minimum quantity.")


# The other filters of exchangeInfo bound kinds of order that this exchange refuses as a whole (iceberg, stop, lists).
_TESTS: Mapping[str, Callable[[Filter, Situation], bool]] = {
    "PRICE_FILTER": _price_filter,
    "PERCENT_PRICE": _percent_price,
    "PERCENT_PRICE_BY_SIDE": _percent_price_by_side,
    "LOT_SIZE": _lot_size,
    "MARKET_LOT_SIZE": _market_lot_size,
    "MIN_NOTIONAL": _min_notional,
    "NOTIONAL": _notional,
    "MAX_NUM_ORDERS": _max_num_orders,
    "EXCHANGE_MAX_NUM_ORDERS": _exchange_max_num_orders,
    "MAX_POSITION": _max_position,
}
