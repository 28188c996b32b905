"""An oracle that knows only Binance's page of filters says of random orders and filters what the exchange must answer.

It computes with fractions, shares nothing with the exchange, and asks it for its reference price over its own paths.
"""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import cache
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.simulator.support import Answer, Desk

SYMBOL = "BTCUSDT"
PLACES = 8


def amounts(least: int, most: int, digits: int) -> st.SearchStrategy[str]:
    """Plain decimals of both kinds: round ones, which meet bounds, and odd ones."""
    odd = st.decimals(least, most, places=digits).map(lambda value: f"{value:f}")
    return st.one_of(odd, st.sampled_from(["0.001", "0.002", "0.003", "0.01", "0.015", "0.1", "1", "2.5"]))


quantities = amounts(0, 5, 4)
prices = st.one_of(
    st.sampled_from([20, 50, 90, 100, 110, 200, 500]).map(lambda percent: f"{640 * percent}"),
    st.integers(5, 200).map(lambda percent: f"{640 * percent}"),
    st.decimals(1, 200_000, places=2).map(lambda value: f"{value:f}"),
    st.sampled_from(["64000.001", "0.01", "1000000"]),
)
minutes = st.sampled_from([0, 5])
factors = st.sampled_from(["0.2", "0.5", "0.9", "1", "1.1", "2", "5"])
notionals = st.sampled_from(["0", "5", "63.5", "64", "65", "100", "1000", "100000"])


def grid(kind: str, *names: str) -> st.SearchStrategy[dict[str, Any]]:
    low, high, step = names
    lows = st.sampled_from(["0", "0.0001", "0.001", "0.003", "0.015", "1"])
    highs = st.sampled_from(["0", "0.01", "0.015", "2.5", "100000"])
    steps = st.sampled_from(["0", "0.0001", "0.001", "0.003", "0.01", "1"])
    return st.fixed_dictionaries({"filterType": st.just(kind), low: lows, high: highs, step: steps})


def rule(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"filterType": st.just(kind), **fields})


counts = st.integers(0, 3)
RULES = (
    grid("PRICE_FILTER", "minPrice", "maxPrice", "tickSize"),
    rule("PERCENT_PRICE", multiplierUp=factors, multiplierDown=factors, avgPriceMins=minutes),
    rule(
        "PERCENT_PRICE_BY_SIDE",
        bidMultiplierUp=factors,
        bidMultiplierDown=factors,
        askMultiplierUp=factors,
        askMultiplierDown=factors,
        avgPriceMins=minutes,
    ),
    grid("LOT_SIZE", "minQty", "maxQty", "stepSize"),
    grid("MARKET_LOT_SIZE", "minQty", "maxQty", "stepSize"),
    rule("MIN_NOTIONAL", minNotional=notionals, applyToMarket=st.booleans(), avgPriceMins=minutes),
    rule(
        "NOTIONAL",
        minNotional=notionals,
        maxNotional=notionals,
        applyMinToMarket=st.booleans(),
        applyMaxToMarket=st.booleans(),
        avgPriceMins=minutes,
    ),
    rule("MAX_NUM_ORDERS", maxNumOrders=counts),
    rule("MAX_POSITION", maxPosition=quantities),
    rule("TRAILING_DELTA", minTrailingAboveDelta=counts),
)
# Few at a time: with all ten, nearly every order fails at one of the first.
filter_lists = st.lists(st.one_of(*RULES), max_size=3, unique_by=lambda made: made["filterType"])
orders = st.one_of(
    st.fixed_dictionaries({"type": st.just("MARKET"), "quantity": quantities}),
    st.fixed_dictionaries({"type": st.just("MARKET"), "quoteOrderQty": amounts(0, 2000, 2)}),
    st.fixed_dictionaries({"type": st.just("LIMIT_MAKER"), "quantity": quantities, "price": prices}),
    st.fixed_dictionaries(
        {
            "type": st.just("LIMIT"),
            "quantity": quantities,
            "price": prices,
            "timeInForce": st.sampled_from(["GTC", "IOC", "FOK"]),
        }
    ),
)


class Oracle:
    """Section 5, and nothing else. `reference(minutes)`: the price of the filters; `position`: without the order."""

    def __init__(
        self, order: dict[str, str], reference: Callable[[int], Fraction], resting: int, position: Fraction
    ) -> None:
        self.order = order
        self.is_buyer = order["side"] == "BUY"
        self.is_market = order["type"] == "MARKET"
        self.rests = order["type"] == "LIMIT_MAKER" or order.get("timeInForce") == "GTC"
        self.quantity, self.quote, self.price = (
            Fraction(order[name]) if name in order else None for name in ("quantity", "quoteOrderQty", "price")
        )
        self.reference = reference
        self.resting = resting
        self.position = position

    def verdict(self, filters: list[dict[str, Any]]) -> str:
        for name in ("quantity", "quoteOrderQty", "price"):
            if len(self.order.get(name, "").partition(".")[2]) > PLACES:
                return f"Parameter '{name}' has too much precision."
        for name, value in (("quantity", self.quantity), ("quoteOrderQty", self.quote), ("price", self.price)):
            if value == 0:
                return f"Invalid {name}."
        for each in filters:
            if not getattr(self, each["filterType"].lower(), lambda rule: True)(each):
                return f"Filter failure: {each['filterType']}"
        return "accepted"

    @staticmethod
    def fits(value: Fraction, low: str, high: str, step: str) -> bool:
        bottom, top, size = Fraction(low), Fraction(high), Fraction(step)
        if bottom and value < bottom:
            return False
        if top and value > top:
            return False
        return not size or (value / size).denominator == 1

    def price_filter(self, rule: dict[str, Any]) -> bool:
        return self.price is None or self.fits(self.price, rule["minPrice"], rule["maxPrice"], rule["tickSize"])

    def lot_size(self, rule: dict[str, Any]) -> bool:
        return self.quantity is None or self.fits(self.quantity, rule["minQty"], rule["maxQty"], rule["stepSize"])

    def market_lot_size(self, rule: dict[str, Any]) -> bool:
        if self.quantity is None:  # only the largest quantity counts there
            return not Fraction(rule["maxQty"]) or self.bought() <= Fraction(rule["maxQty"])
        return not self.is_market or self.lot_size(rule)

    def percent_price(self, rule: dict[str, Any]) -> bool:
        return self.near(rule, rule["multiplierDown"], rule["multiplierUp"])

    def percent_price_by_side(self, rule: dict[str, Any]) -> bool:
        side = "bid" if self.is_buyer else "ask"
        return self.near(rule, rule[side + "MultiplierDown"], rule[side + "MultiplierUp"])

    def near(self, rule: dict[str, Any], down: str, up: str) -> bool:
        if self.price is None:
            return True
        reference = self.reference(rule["avgPriceMins"])
        return reference * Fraction(down) <= self.price <= reference * Fraction(up)

    def value(self, rule: dict[str, Any]) -> Fraction:
        if self.quote is not None:
            return self.quote
        assert self.quantity is not None
        return self.quantity * (self.price if self.price is not None else self.reference(rule["avgPriceMins"]))

    def min_notional(self, rule: dict[str, Any]) -> bool:
        if self.is_market and not rule["applyToMarket"]:
            return True
        return self.value(rule) >= Fraction(rule["minNotional"])

    def notional(self, rule: dict[str, Any]) -> bool:
        value = self.value(rule)
        if (rule["applyMinToMarket"] or not self.is_market) and value < Fraction(rule["minNotional"]):
            return False
        return not ((rule["applyMaxToMarket"] or not self.is_market) and value > Fraction(rule["maxNotional"]))

    def max_num_orders(self, rule: dict[str, Any]) -> bool:
        return not self.rests or self.resting < rule["maxNumOrders"]

    def max_position(self, rule: dict[str, Any]) -> bool:
        if not self.is_buyer:
            return True
        quantity = self.quantity if self.quantity is not None else self.bought()
        return self.position + quantity <= Fraction(rule["maxPosition"])

    def bought(self) -> Fraction:
        """What quoteOrderQty buys or sells at the one price of the book's side, in steps of LOT_SIZE."""
        assert self.quote is not None
        return self.quote / (ASK if self.is_buyer else BID) // self.step * self.step

    step = Fraction("0.00001")


@cache
def the_desk() -> Desk:
    desk = Desk()
    for price in ("64000", "70000"):
        desk.set_price(SYMBOL, price)
        desk.clock.advance(61_000)
    for price in ("50000", "50000", "64000"):  # the last price is neither the average nor that of the open candle
        desk.set_price(SYMBOL, price)
    return desk


ASK, BID = Fraction(64001), Fraction(63999)


def prepared(filters: list[dict[str, Any]], resting: int, held: str) -> tuple[Desk, Fraction]:
    """Return the desk with these filters, coins and open BUY orders, one deep level a side; and its position."""
    desk = the_desk()
    desk.clock.advance(61_000)
    desk.exchange.set_symbol(SYMBOL, filters=())
    desk.signed("DELETE", "/api/v3/openOrders", symbol=SYMBOL)
    desk.set_book(bids=[("63999", "100000")], asks=[("64001", "100000")])
    for asset, amount in (("USDT", 10**9), ("BTC", held)):
        desk.exchange.books.balances[asset].free = Decimal(amount)
    for _ in range(resting):
        assert desk.limit(quantity="0.1", price="1").status == 200
    desk.exchange.set_symbol(SYMBOL, filters=tuple(filters))
    return desk, Fraction(held) + resting * Fraction("0.1")


def reference_of(desk: Desk) -> Callable[[int], Fraction]:
    average = desk.get("/api/v3/avgPrice", symbol=SYMBOL).json["price"]
    last = desk.get("/api/v3/ticker/price", symbol=SYMBOL).json["price"]
    assert average != last
    return lambda minutes: Fraction(average if minutes else last)


def told(answer: Answer) -> str:
    if answer.status == 200:
        return "accepted"
    if answer.msg == "Order would immediately match and take.":  # the engine's word: the filters let it pass
        return "accepted"
    assert answer.code in (-1013, -1111)
    return answer.msg


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(filter_lists, orders, st.sampled_from(["BUY", "SELL"]), st.integers(0, 2))
@example(
    [{"filterType": "LOT_SIZE", "minQty": "0.001", "maxQty": "0", "stepSize": "0.003"}],
    {"type": "MARKET", "quantity": "0.004"},
    "BUY",
    0,
)
@example([], {"type": "MARKET", "quantity": "0.001000000"}, "SELL", 0)
@example([], {"type": "LIMIT", "quantity": "0.0", "price": "0", "timeInForce": "GTC"}, "BUY", 0)
@example([], {"type": "LIMIT", "quantity": "1", "price": "0", "timeInForce": "IOC"}, "BUY", 0)
@example([], {"type": "MARKET", "quoteOrderQty": "0.00"}, "BUY", 0)
@example(
    [{"filterType": "MARKET_LOT_SIZE", "minQty": "0", "maxQty": "0.01", "stepSize": "0.001"}],
    {"type": "MARKET", "quoteOrderQty": "1988.97"},
    "SELL",
    0,
)
def test_the_exchange_answers_what_the_page_says(
    filters: list[dict[str, Any]], order: dict[str, str], side: str, resting: int
) -> None:
    desk, position = prepared(filters, resting, "0.5" if side == "BUY" else "1000")
    order = {**order, "side": side}
    oracle = Oracle(order, reference_of(desk), resting, position)
    sizes = [Fraction(each["stepSize"]) for each in filters if each["filterType"] == "LOT_SIZE"]
    # Without a step in force the engine keeps to the last one.
    oracle.step = next((size for size in sizes if size), Fraction(desk.exchange.markets[SYMBOL].rules.step))
    expected = oracle.verdict(filters)
    tested = desk.signed("POST", "/api/v3/order/test", symbol=SYMBOL, **order)
    assert told(tested) == expected
    answer = desk.order(**order)
    if answer.code_is(-2010, "Order book liquidity is less than"):
        return  # a quantity that the book's steps make too small: the engine's word
    assert told(answer) == expected
