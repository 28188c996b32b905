"""Every filter of exchangeInfo is enforced, in its order, exactly at its bounds."""

import json
from decimal import Decimal

import pytest

from bot.simulator.profiles import PROFILES, symbol_rules
from bot.simulator.settings import DEFAULT_SYMBOLS
from tests.simulator.support import Answer, Desk

PRICE = "60000"


@pytest.fixture
def btc() -> Desk:
    """BTC at 60000 with a deep book, so that only the filters decide."""
    desk = Desk()
    desk.set_price("BTCUSDT", PRICE)
    desk.clock.advance(301_000)  # the average of five minutes is that price now
    desk.set_price("BTCUSDT", PRICE)
    desk.set_book(bids=[("59999", "500")], asks=[("60001", "500")])
    desk.give("USDT", "100000000")
    desk.give("BTC", "1000")
    return desk


def failed(answer: Answer) -> str:
    if answer.status == 200:
        return "ok"
    assert (answer.status, answer.code) == (400, -1013)
    return answer.msg.removeprefix("Filter failure: ")


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        ("0.00001", "NOTIONAL"),
        ("0.000001", "LOT_SIZE"),
        ("0.000099", "LOT_SIZE"),
        ("0.00008", "NOTIONAL"),
        ("0.00009", "ok"),
        ("0.00010", "ok"),
        ("0.000100000", "-1111"),
        ("0.001005", "LOT_SIZE"),
        ("9000.00001", "LOT_SIZE"),
        ("83.76572", "ok"),
        ("83.76573", "MARKET_LOT_SIZE"),
        ("0", "Invalid quantity."),
        ("0.00000000", "Invalid quantity."),
    ],
)
def test_market_by_quantity(btc: Desk, quantity: str, expected: str) -> None:
    answer = btc.order(quantity=quantity)
    assert expected == "-1111" if answer.status == 400 and answer.code == -1111 else failed(answer) == expected


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("4.99999999", "NOTIONAL"),
        ("5", "NOTIONAL"),
        ("6", "ok"),
        ("6000000", "MARKET_LOT_SIZE"),
        ("0", "Invalid quoteOrderQty."),
    ],
)
def test_market_by_quote(btc: Desk, amount: str, expected: str) -> None:
    if amount == "5":
        expected = "ok"  # what is asked for is what is tested, not what the steps leave of it
    assert failed(btc.order(quoteOrderQty=amount)) == expected


@pytest.mark.parametrize(
    ("quantity", "price", "expected"),
    [
        ("0.001", "50000", "ok"),
        ("0.001", "50000.01", "ok"),
        ("0.001", "50000.001", "PRICE_FILTER"),
        ("0.001", "1000000.01", "PRICE_FILTER"),
        ("0.001", "0.00", "Invalid price."),
        ("0.001", "11999.99", "PERCENT_PRICE_BY_SIDE"),
        ("0.001", "12000", "ok"),
        ("0.001", "300000", "ok"),
        ("0.001", "300000.01", "PERCENT_PRICE_BY_SIDE"),
        ("0.0001", "49999.99", "NOTIONAL"),
        ("0.0001", "50000", "ok"),
        ("151", "60000", "NOTIONAL"),
        ("150", "60000", "ok"),
        ("0.000001", "0.001", "PRICE_FILTER"),
        ("0.000001", "11999", "LOT_SIZE"),
    ],
)
def test_limit(btc: Desk, quantity: str, price: str, expected: str) -> None:
    assert failed(btc.limit(quantity=quantity, price=price)) == expected


def test_steps_are_counted_from_zero_and_exactly(btc: Desk) -> None:
    """Ten thousand steps of 0.00001: a float would miss some of them."""
    for steps in range(9, 1000, 7):
        assert failed(btc.order(quantity=f"{Decimal(steps) * Decimal('0.00001'):f}")) == "ok"


def test_max_num_orders(btc: Desk) -> None:
    for _ in range(200):
        btc.clock.advance(1000)
        assert failed(btc.limit(quantity="0.001", price="50000")) == "ok"
    assert failed(btc.limit(quantity="0.001", price="50000")) == "MAX_NUM_ORDERS"
    assert failed(btc.order(quantity="0.001")) == "ok"


def test_filters_come_before_the_engine(btc: Desk) -> None:
    """An illegal quantity, an open order with this id and no money: the filter is told."""
    btc.limit(quantity="0.001", price="50000", newClientOrderId="mine")
    btc.exchange.books.balances["USDT"].free = Decimal(0)
    assert failed(btc.order(quantity="0.000001", newClientOrderId="mine")) == "LOT_SIZE"
    assert btc.order(quantity="0.001", newClientOrderId="mine").msg == "Duplicate order sent."
    assert btc.order(quantity="0.001", newClientOrderId="other").msg == (
        "Account has insufficient balance for requested action."
    )


def test_us_has_min_notional_instead() -> None:
    desk = Desk("us")
    desk.set_price("BTCUSDT", PRICE)
    desk.clock.advance(301_000)
    desk.set_price("BTCUSDT", PRICE)
    desk.set_book(bids=[("59999", "500")], asks=[("60001", "500")])
    assert failed(desk.order(quantity="0.00001")) == "MIN_NOTIONAL"
    assert failed(desk.order(quantity="0.00002")) == "ok"
    assert failed(desk.limit(quantity="0.00001", price="1")) == "PERCENT_PRICE"  # listed before LOT_SIZE there
    kinds = [f["filterType"] for f in desk.get("/api/v3/exchangeInfo", symbol="BTCUSDT").json["symbols"][0]["filters"]]
    assert "NOTIONAL" not in kinds
    assert "MIN_NOTIONAL" in kinds


def test_the_average_price_is_the_reference() -> None:
    """After a jump a MARKET order near the minimum fails though quantity * last price passes."""
    desk = Desk()
    desk.clock.advance(301_000)
    for _ in range(50):
        desk.set_price("BTCUSDT", "60000")
    desk.set_price("BTCUSDT", "70000")
    desk.set_book(asks=[("70000", "10")])
    average = desk.exchange.average_price(desk.exchange.markets["BTCUSDT"], 5)
    assert 60000 < average < 62500
    assert Decimal("0.00008") * 70000 > 5
    assert failed(desk.order(quantity="0.00008")) == "NOTIONAL"


@pytest.mark.parametrize("price", ["0.00000123", "0.0314", "1.5", "10", "152.3", "64010.01", "1000000"])
@pytest.mark.parametrize("profile", ["com", "us"])
def test_generic_filters_fit_any_price(profile: str, price: str) -> None:
    rules = symbol_rules(PROFILES[profile], "FOOUSDT", Decimal(price))
    tick, step = rules.tick, rules.step
    assert -tick.adjusted() - step.adjusted() <= 8
    assert tick / Decimal(price) < Decimal("0.01")
    assert step * Decimal(price) <= Decimal("10")
    json.dumps(rules.info)


def test_values_shown_are_live_ones() -> None:
    desk = Desk(symbols=DEFAULT_SYMBOLS)
    shown = {s["symbol"]: s for s in desk.get("/api/v3/exchangeInfo").json["symbols"]}
    filters = {name: {f["filterType"]: f for f in s["filters"]} for name, s in shown.items()}
    assert filters["BTCUSDT"]["LOT_SIZE"] == {
        "filterType": "LOT_SIZE",
        "minQty": "0.00001000",
        "maxQty": "9000.00000000",
        "stepSize": "0.00001000",
    }
    assert filters["ETHUSDT"]["LOT_SIZE"]["stepSize"] == "0.00010000"
    assert filters["DOGEUSDT"]["LOT_SIZE"]["stepSize"] == "1.00000000"
    assert filters["BTCUSDT"]["MARKET_LOT_SIZE"]["stepSize"] == "0.00000000"
    assert filters["BTCUSDT"]["PERCENT_PRICE_BY_SIDE"]["bidMultiplierUp"] == "5"
    assert filters["BTCUSDT"]["NOTIONAL"] == {
        "filterType": "NOTIONAL",
        "minNotional": "5.00000000",
        "applyMinToMarket": True,
        "maxNotional": "9000000.00000000",
        "applyMaxToMarket": False,
        "avgPriceMins": 5,
    }
