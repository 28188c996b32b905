"""A symbol's status and rules, and the account's rights: changed while running, shown, and enforced."""

from decimal import Decimal
from typing import Any

import pytest

from tests.simulator.support import ORDER, Desk, LiveClient, running

BUY = {"quantity": "0.001"}
SYMBOL = {"symbol": "BTCUSDT"}


def info(desk: Desk) -> Any:
    return desk.get("/api/v3/exchangeInfo", **SYMBOL).json["symbols"][0]


@pytest.mark.parametrize("status", ["HALT", "BREAK", "END_OF_DAY", "CANCEL_ONLY"])
def test_a_symbol_that_is_not_trading(desk: Desk, status: str) -> None:
    resting = desk.limit(quantity="0.001", price="30000").json
    desk.exchange.set_symbol("BTCUSDT", status)
    assert info(desk)["status"] == status
    assert desk.order(**BUY).error == (400, -2010, "Market is closed.")
    assert desk.limit(quantity="0.000001", price="30000").msg == "Filter failure: LOT_SIZE"  # filters come first
    desk.set_price("BTCUSDT", "20000")
    assert desk.signed("GET", ORDER, orderId=resting["orderId"], **SYMBOL).json["status"] == "NEW"
    cancel = desk.signed("DELETE", ORDER, orderId=resting["orderId"], **SYMBOL)
    if status == "CANCEL_ONLY":
        assert cancel.json["status"] == "CANCELED"
    else:
        assert cancel.error == (400, -2011, "Market is closed.")
        assert desk.signed("DELETE", "/api/v3/openOrders", **SYMBOL).msg == "Market is closed."
    desk.exchange.set_symbol("BTCUSDT", "TRADING")
    assert desk.order(**BUY).json["status"] == "FILLED"


def test_a_halted_symbols_price_stands_still(desk: Desk) -> None:
    desk.exchange.set_symbol("BTCUSDT", "HALT")
    before = desk.get("/api/v3/ticker/price", **SYMBOL).json
    for _ in range(100):
        desk.clock.advance(2000)
        desk.exchange.advance("BTCUSDT", is_push=True)
    assert desk.get("/api/v3/ticker/price", **SYMBOL).json == before
    last = desk.get("/api/v3/klines", interval="1m", limit=2, **SYMBOL).json[0]
    assert last[1] == last[2] == last[3] == last[4] == before["price"]
    assert (last[5], last[8]) == ("0.00000000", 0)
    assert desk.get("/api/v3/ticker/bookTicker", symbolStatus="TRADING").json == []


def test_a_halted_symbols_orders_rest_also_in_step_mode() -> None:
    desk = Desk(step=True)
    resting = desk.limit(quantity="0.001", price="50000").json["orderId"]
    desk.exchange.set_symbol("BTCUSDT", "HALT")
    for expected in ("NEW", "FILLED"):
        desk.exchange.set_price("BTCUSDT", Decimal(49000))
        desk.exchange.next_step()
        assert desk.signed("GET", ORDER, orderId=resting, **SYMBOL).json["status"] == expected
        desk.exchange.set_symbol("BTCUSDT", "TRADING")


@pytest.mark.parametrize(
    ("change", "order", "message"),
    [
        ({"orderTypes": ["LIMIT"]}, BUY, "Market orders are not supported for this symbol."),
        (
            {"orderTypes": ["MARKET"]},
            {"type": "LIMIT", "timeInForce": "IOC", "quantity": "0.001", "price": "64000"},
            "Limit orders are not supported for this symbol.",
        ),
        (
            {"quoteOrderQtyMarketAllowed": False},
            {"quoteOrderQty": "50"},
            "Quote order qty market orders are not support for this symbol.",
        ),
        ({"isSpotTradingAllowed": False}, BUY, "This symbol is not permitted for this account."),
        ({"permissionSets": [["MARGIN"]]}, BUY, "This symbol is not permitted for this account."),
        ({"permissionSets": [["SPOT"], ["TRD_GRP_004"]]}, BUY, "This symbol is not permitted for this account."),
    ],
)  # fmt: skip
def test_what_a_symbol_does_not_allow(desk: Desk, change: dict[str, Any], order: dict[str, Any], message: str) -> None:
    desk.exchange.set_symbol("BTCUSDT", **change)
    assert info(desk).items() >= change.items()
    assert desk.order(**order).error == (400, -2010, message)


def test_new_filters_are_shown_and_enforced(desk: Desk) -> None:
    rule = {"filterType": "LOT_SIZE", "minQty": "0.00200000", "maxQty": "1.00000000", "stepSize": "0.00200000"}
    desk.exchange.set_symbol("BTCUSDT", filters=(rule,))
    assert info(desk)["filters"] == [rule]
    assert [desk.order(quantity=q).status for q in ("0.001", "0.002", "0.003", "0.004", "1.002")] == [
        400,
        200,
        400,
        200,
        400,
    ]


def test_precisions_are_the_symbols(desk: Desk) -> None:
    desk.exchange.set_symbol("BTCUSDT", baseAssetPrecision=5, quoteAssetPrecision=2)
    assert desk.order(quantity="0.001000").error == (400, -1111, "Parameter 'quantity' has too much precision.")
    assert desk.limit(quantity="0.001", price="30000.001").msg == "Parameter 'price' has too much precision."
    assert desk.order(quantity="0.00100").status == 200


def test_what_the_account_and_its_key_may_not(desk: Desk) -> None:
    rights = desk.exchange.rights
    path = "/sapi/v1/account/apiRestrictions"
    shown = desk.signed("GET", path).json
    assert (shown["enableReading"], shown["enableSpotAndMarginTrading"], shown["enableWithdrawals"]) == (
        True,
        True,
        False,
    )
    assert (shown["ipRestrict"], shown["createTime"]) == (False, desk.clock.now_ms())
    assert desk.get(path).code == -2014
    rights.enable_spot_and_margin_trading = False
    refused = (401, -2015, "Invalid API-key, IP, or permissions for action.")
    assert desk.order(**BUY).error == refused
    assert desk.signed("DELETE", ORDER, orderId=1, **SYMBOL).error == refused
    assert desk.signed("GET", path).json["enableSpotAndMarginTrading"] is False
    rights.enable_spot_and_margin_trading, rights.can_trade = True, False
    assert desk.order(**BUY).error == (400, -2010, "This account may not place or cancel orders.")
    assert desk.signed("DELETE", ORDER, orderId=1, **SYMBOL).code == -2011
    assert desk.signed("GET", "/api/v3/account").json["canTrade"] is False


@pytest.fixture(scope="module")
def control() -> Any:
    with running(enable_withdrawals=True) as client:
        yield client


def test_over_the_control_interface(control: LiveClient) -> None:
    path = "/sapi/v1/account/apiRestrictions"
    assert control.signed("GET", path).json["enableWithdrawals"] is True
    assert control.control("account", enableWithdrawals=False, ipRestrict=True).json == {}
    shown = control.signed("GET", path).json
    assert (shown["enableWithdrawals"], shown["ipRestrict"]) == (False, True)
    rule = {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 0}
    assert control.control("symbol", symbol="ETHUSDT", status="BREAK", filters=[rule]).json == {}
    seen = control.get("/api/v3/exchangeInfo", symbol="ETHUSDT").json["symbols"][0]
    assert (seen["status"], seen["filters"]) == ("BREAK", [rule])


@pytest.mark.parametrize(
    ("path", "values", "line"),
    [
        ("symbol", {}, "symbol None is not one of BTCUSDT, ETHUSDT, DOGEUSDT"),
        ("symbol", {"symbol": "BTCUSDT", "status": "OPEN"}, "status must be one of TRADING, HALT"),
        ("symbol", {"symbol": "BTCUSDT", "filters": {}}, "filters must be an array of objects"),
        ("symbol", {"symbol": "BTCUSDT", "filters": [{"filterType": "LOT_SIZE"}]}, "filter LOT_SIZE has no minQty"),
        (
            "symbol",
            {"symbol": "BTCUSDT", "filters": [{"filterType": "MAX_POSITION", "maxPosition": 3}]},
            'filter MAX_POSITION: maxPosition must be a string of decimals such as "0.01", not 3',
        ),
        ("symbol", {"symbol": "BTCUSDT", "colour": 1}, "'colour' is not a field of symbol; it takes symbol, status"),
        (
            "symbol",
            {"symbol": "BTCUSDT", "permissionSets": ["SPOT"]},
            "permissionSets must be an array of arrays of strings",
        ),
        ("account", {"canTrade": "yes"}, "canTrade must be true or false, not 'yes'"),
        ("account", {"admin": True}, "'admin' is not a field of account; it takes canTrade"),
        ("fault", {"kind": "error", "code": -4000}, "code must be one of Binance's documented codes, such as -1007"),
    ],
)
def test_bad_control_input(control: LiveClient, path: str, values: dict[str, Any], line: str) -> None:
    answer = control.control(path, **values)
    assert answer.status == 400
    assert answer.json.startswith(line)
    assert answer.json.count("\n") == 1
