"""What the account is told beside balances and orders: test orders, commission rates, its own filters."""

from decimal import Decimal

import pytest

from tests.simulator.support import Desk

TEST = "/api/v3/order/test"
BUY = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET"}
NOTHING = {"maker": "0.00000000", "taker": "0.00000000"}


def test_a_test_order_is_checked_and_not_placed(desk: Desk) -> None:
    assert desk.signed("POST", TEST, **BUY, quantity="0.001").json == {}
    assert desk.signed("POST", TEST, **BUY, quantity="5").json == {}  # no balance is looked at
    assert desk.signed("POST", TEST, **BUY, quantity="0.000001").msg == "Filter failure: LOT_SIZE"
    assert desk.signed("POST", TEST, **BUY, quantity="1e-05").code == -1100
    assert desk.signed("POST", TEST, **{**BUY, "symbol": "NOPE"}, quantity="1").code == -1121
    desk.secret = "0" * 64
    assert desk.signed("POST", TEST, **BUY, quantity="1").code == -1022
    desk.secret = desk.exchange.api_secret
    assert desk.exchange.state()["orders"] == []
    counts = desk.signed("GET", "/api/v3/rateLimit/order").json
    assert [row["count"] for row in counts] == [0, 0]


def test_a_test_order_tells_its_commission_rates(desk: Desk) -> None:
    shown = desk.signed("POST", TEST, **BUY, quantity="0.001", computeCommissionRates="true").json
    assert shown["standardCommissionForOrder"] == {"maker": "0.00100000", "taker": "0.00100000"}
    assert shown["specialCommissionForOrder"] == shown["taxCommissionForOrder"] == NOTHING
    assert Desk("us").signed("POST", TEST, **BUY, quantity="0.001", computeCommissionRates="true").code == -1104


def test_commission_rates(desk: Desk) -> None:
    shown = desk.signed("GET", "/api/v3/account/commission", symbol="BTCUSDT").json
    assert shown["symbol"] == "BTCUSDT"
    assert shown["standardCommission"] == {
        "maker": "0.00100000",
        "taker": "0.00100000",
        "buyer": "0.00000000",
        "seller": "0.00000000",
    }
    assert shown["discount"]["discountAsset"] == "BNB"
    assert desk.signed("GET", "/api/v3/account/commission", symbol="NOPE").code == -1121
    assert desk.get("/api/v3/account/commission", symbol="BTCUSDT").code == -2014


@pytest.mark.parametrize("profile", ["com", "us"])
def test_own_filters_are_none(profile: str) -> None:
    shown = Desk(profile).signed("GET", "/api/v3/myFilters", symbol="BTCUSDT").json
    assert shown == {"exchangeFilters": [], "symbolFilters": [], "assetFilters": []}


def test_max_position_counts_balances_open_orders_and_the_order(desk: Desk) -> None:
    rules = desk.exchange.markets["BTCUSDT"].rules
    desk.exchange.set_symbol("BTCUSDT", filters=({"filterType": "MAX_POSITION", "maxPosition": "0.01000000"},))
    desk.give("BTC", "0.004")
    assert desk.limit(quantity="0.002", price="30000").status == 200
    assert desk.limit(side="SELL", quantity="0.003", price="300000").status == 200  # locked coins count
    assert desk.order(quantity="0.00401").msg == "Filter failure: MAX_POSITION"
    assert desk.order(quantity="0.004").status == 200
    assert desk.order(side="SELL", quantity="0.001").status == 200
    assert rules.filters != desk.exchange.markets["BTCUSDT"].rules.filters


def test_quote_orders_in_books_too_thin_for_the_least_quantity(desk: Desk) -> None:
    desk.set_book(asks=[("64000", "0.000004")])
    text = "Order book liquidity is less than `LOT_SIZE` filter minimum quantity."
    assert desk.order(quoteOrderQty="50").error == (400, -2010, text)
    desk.set_book(asks=[("64000", "0.003")])
    rules = desk.exchange.markets["BTCUSDT"].rules
    least = [
        {**rule, "minQty": "0.01000000"} if rule["filterType"] == "MARKET_LOT_SIZE" else rule for rule in rules.filters
    ]
    desk.exchange.set_symbol("BTCUSDT", filters=tuple(least))
    assert desk.order(quoteOrderQty="50").msg == text.replace("LOT", "MARKET_LOT")
    desk.set_book()
    assert desk.order(quoteOrderQty="50").msg == "Order book liquidity is less than symbol minimum quantity."
    assert desk.order(quantity="0.01").json["status"] == "EXPIRED"
    assert desk.balance("USDT") == (Decimal(10000), Decimal(0))
