"""In which asset a trade is paid for, and at which rate; the testnet's reset."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bot.simulator.fees import Fees
from tests.simulator.support import ORDER, Desk, LiveClient, running

RATE = Decimal("0.001")


def fees(desk: Desk, **changes: Any) -> Fees:
    for name, value in changes.items():
        setattr(desk.exchange.books.fees, name, value)
    return desk.exchange.books.fees


def holding(desk: Desk, asset: str, amount: str) -> None:
    desk.exchange.books.set_free(asset, Decimal(amount), desk.clock.now_ms())


def test_in_bnb_with_the_discount(desk: Desk) -> None:
    fees(desk, mode="bnb", price=Decimal(500))
    holding(desk, "BNB", "1")
    desk.set_book(asks=[("64000", "0.01"), ("64100", "1")], bids=[("63900", "1")])
    bought = desk.order(quantity="0.02").json
    assert [(f["commission"], f["commissionAsset"]) for f in bought["fills"]] == [
        ("0.00096000", "BNB"),  # 640 * 0.001 * 0.75 / 500
        ("0.00096150", "BNB"),
    ]
    assert desk.balance("BTC")[0] == Decimal("0.02")
    sold = desk.order(side="SELL", quantity="0.02").json
    assert (sold["fills"][0]["commission"], sold["fills"][0]["commissionAsset"]) == ("0.00191700", "BNB")
    assert desk.balance("BNB")[0] == Decimal("1") - Decimal("0.0019215") - Decimal("0.001917")
    trades = desk.signed("GET", "/api/v3/myTrades", symbol="BTCUSDT").json
    assert {trade["commissionAsset"] for trade in trades} == {"BNB"}
    assert desk.signed("GET", "/api/v3/account/commission", symbol="BTCUSDT").json["discount"] == {
        "enabledForAccount": True,
        "enabledForSymbol": True,
        "discountAsset": "BNB",
        "discount": "0.75000000",
    }


def test_without_enough_bnb_the_received_asset_is_taken(desk: Desk) -> None:
    fees(desk, mode="bnb", price=Decimal(500))
    desk.set_book(asks=[("64000", "0.01"), ("64100", "1")])
    assert {f["commissionAsset"] for f in desk.order(quantity="0.01").json["fills"]} == {"BTC"}
    holding(desk, "BNB", "0.001")
    desk.set_book(asks=[("64000", "0.01"), ("64100", "1")])
    assert [f["commissionAsset"] for f in desk.order(quantity="0.02").json["fills"]] == ["BNB", "BTC"]
    assert desk.balance("BNB")[0] == Decimal("0.00004")


def test_the_price_of_bnb_is_that_of_its_market() -> None:
    desk = Desk(symbols=("BTCUSDT", "BNBUSDT"))
    fees(desk, mode="bnb")
    holding(desk, "BNB", "1")
    price = desk.exchange.markets["BNBUSDT"].price
    fill = desk.order(quantity="0.01").json["fills"][0]
    exact = Decimal(fill["price"]) * Decimal(fill["qty"]) * RATE * Decimal("0.75") / price
    assert 0 <= Decimal(fill["commission"]) - exact < Decimal("1e-8")


def test_all_money_can_be_spent_although_commission_is_taken_from_it_too(desk: Desk) -> None:
    """Commission in the asset that is paid with: never out of what the order's later trades need."""
    fees(desk, mode="asset", asset="USDT")
    desk.set_book(asks=[("50000", "0.1"), ("50000.01", "0.09999")])
    reply = desk.order(quantity="0.19999").json
    assert reply["status"] == "FILLED"
    assert [f["commissionAsset"] for f in reply["fills"]] == ["BTC", "BTC"]
    assert desk.balance("USDT")[0] >= 0
    desk.set_book(bids=[("50000", "0.1"), ("49999", "1")])
    sold = desk.order(side="SELL", quantity="0.15").json
    assert {f["commissionAsset"] for f in sold["fills"]} == {"USDT"}


def test_a_third_asset_and_no_commission_at_all(desk: Desk) -> None:
    fees(desk, mode="asset", asset="ETH", price=Decimal(3000))
    holding(desk, "ETH", "1")
    fill = desk.order(quantity="0.01").json["fills"][0]
    assert fill["commissionAsset"] == "ETH"
    assert Decimal(fill["commission"]) < Decimal("0.0003")
    fees(desk, maker=Decimal(0), taker=Decimal(0))
    fill = desk.order(quantity="0.01").json["fills"][0]
    assert (fill["commission"], fill["commissionAsset"]) == ("0.00000000", "BTC")
    assert desk.signed("GET", "/api/v3/account").json["commissionRates"]["taker"] == "0.00000000"


def test_makers_and_takers_pay_their_own_rate(desk: Desk) -> None:
    fees(desk, maker=Decimal("0.0002"), taker=Decimal("0.0004"))
    desk.set_book(asks=[("64000", "1")])
    assert desk.order(quantity="0.01").json["fills"][0]["commission"] == "0.00000400"
    resting = desk.limit(quantity="0.01", price="50000").json["orderId"]
    desk.set_price("BTCUSDT", "49000")
    trade = desk.signed("GET", "/api/v3/myTrades", symbol="BTCUSDT", orderId=resting).json[0]
    assert (trade["isMaker"], trade["commission"]) == (True, "0.00000200")
    shown = desk.signed("GET", "/api/v3/account").json
    assert (shown["makerCommission"], shown["takerCommission"]) == (2, 4)


@pytest.fixture(scope="module")
def client() -> Any:
    with running(symbols=("BTCUSDT",)) as live:
        yield live


def test_over_the_control_interface(client: LiveClient) -> None:
    assert client.control("commission", mode="asset", asset="USDC", price="1", rate="0.002").json == {}
    assert client.control("balance", asset="USDC", free="10").json == {}
    fill = client.order(quantity="0.001").json["fills"][0]
    assert fill["commissionAsset"] == "USDC"
    assert client.control("commission", mode="received", rate="0.001").json == {}
    assert client.order(quantity="0.001").json["fills"][0]["commissionAsset"] == "BTC"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"mode": "free"}, "mode must be one of received, bnb, asset, not 'free'"),
        ({"mode": "asset"}, 'mode "asset" needs "asset"'),
        ({"rate": "1"}, "rate must be at least 0 and below 1, not '1'"),
        ({"price": "0"}, "price must be above 0 and have at most 8 decimals, not '0'"),
        ({"asset": "eth"}, "asset must be upper-case letters and digits, not 'eth'"),
    ],
)
def test_bad_commissions(client: LiveClient, values: dict[str, Any], line: str) -> None:
    answer = client.control("commission", **values)
    assert (answer.status, answer.json) == (400, f"{line}\n")


def test_a_reset_begins_anew_and_survives_the_process(tmp_path: Path) -> None:
    desk = Desk(data_dir=tmp_path)
    first = desk.order(quantity="0.01", newClientOrderId="a").json
    desk.limit(quantity="0.01", price="30000")
    holding(desk, "BNB", "3")
    desk.exchange.reset()
    state = desk.exchange.state()
    assert (state["orders"], state["fills"]) == ([], [])
    assert state["balances"] == {
        "USDT": {"free": "10000.00000000", "locked": "0.00000000"},
        "BTC": {"free": "0.00000000", "locked": "0.00000000"},
    }
    assert desk.signed("GET", ORDER, symbol="BTCUSDT", origClientOrderId="a").code == -2013
    assert desk.signed("GET", "/api/v3/openOrders").json == []
    again = desk.order(quantity="0.01", newClientOrderId="a").json
    assert again["orderId"] == first["orderId"]
    assert again["fills"][0]["tradeId"] <= first["fills"][0]["tradeId"]
    assert state["reused_client_order_ids"] == 0
    after = desk.exchange.state()
    desk.exchange.close()
    kept = Desk(data_dir=tmp_path)
    assert kept.exchange.state()["orders"] == after["orders"]
    assert kept.exchange.state()["balances"] == after["balances"]
    kept.exchange.close()


def test_reset_takes_no_field(client: LiveClient) -> None:
    assert client.control("reset", hard=True).json == "reset takes no field\n"
    assert client.control("reset").json == {}
    assert client.state()["orders"] == []
