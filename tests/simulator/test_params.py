"""Which parameters are taken, and with which code and text the others are refused."""

from typing import Any

import pytest

from tests.simulator.support import NOW, ORDER, Desk, sign

DECIMAL = r"^([0-9]{1,20})(\.[0-9]{1,20})?$"
MANDATORY = "Mandatory parameter '{}' was not sent, was empty/null, or malformed."
LIMIT = {"type": "LIMIT", "timeInForce": "GTC", "quantity": "0.001", "price": "60000"}
MARKET = {"type": "MARKET", "quantity": "0.001"}


def illegal(name: str, pattern: str = DECIMAL) -> str:
    return f"Illegal characters found in parameter '{name}'; legal range is '{pattern}'."


@pytest.mark.parametrize(
    "text", ["1e-05", "0,001", "+5", "-1", ".5", "5.", "NaN", "Infinity", "0x1", " 1", "1_000", "٣"]
)
@pytest.mark.parametrize("name", ["quantity", "price"])
def test_decimals_must_be_plain(desk: Desk, name: str, text: str) -> None:
    assert desk.order(**{**LIMIT, name: text}).error == (400, -1100, illegal(name))


@pytest.mark.parametrize(
    ("params", "code", "text"),
    [
        ({**LIMIT, "timeInForce": None}, -1102, MANDATORY.format("timeInForce")),
        ({**LIMIT, "price": None}, -1102, MANDATORY.format("price")),
        ({**LIMIT, "quantity": None}, -1102, MANDATORY.format("quantity")),
        ({**MARKET, "symbol": None}, -1102, MANDATORY.format("symbol")),
        ({**MARKET, "side": None}, -1102, MANDATORY.format("side")),
        ({**MARKET, "type": None}, -1102, MANDATORY.format("type")),
        ({**MARKET, "symbol": ""}, -1105, "Parameter 'symbol' was empty."),
        ({**MARKET, "quantity": ""}, -1105, "Parameter 'quantity' was empty."),
        ({**MARKET, "newClientOrderId": ""}, -1105, "Parameter 'newClientOrderId' was empty."),
        ({**MARKET, "side": "buy"}, -1117, "Invalid side."),
        ({**MARKET, "type": "market"}, -1116, "Invalid orderType."),
        ({**LIMIT, "timeInForce": "GTX"}, -1115, "Invalid timeInForce."),
        ({**MARKET, "newOrderRespType": "full"}, -1136, "Invalid newOrderRespType."),
        ({**MARKET, "timeInForce": "GTC"}, -1106, "Parameter 'timeInForce' sent when not required."),
        ({**MARKET, "price": "1"}, -1106, "Parameter 'price' sent when not required."),
        ({**LIMIT, "quoteOrderQty": "5"}, -1106, "Parameter 'quoteOrderQty' sent when not required."),
        (
            {**LIMIT, "type": "LIMIT_MAKER"},
            -1106,
            "Parameter 'timeInForce' sent when not required.",
        ),
        ({**MARKET, "quoteOrderQty": "10"}, -1128, "Combination of optional parameters invalid."),
        (
            {"type": "MARKET"},
            -1102,
            "Param 'quantity' or 'quoteOrderQty' must be sent, but both were empty/null!",
        ),
        ({**MARKET, "symbol": "btcusdt"}, -1100, illegal("symbol", r"^[\w\-._&&[^a-z]]{1,50}$")),
        ({**MARKET, "symbol": "BTCUSDC"}, -1121, "Invalid symbol."),
        ({**MARKET, "newClientOrderId": "a b"}, -1100, illegal("newClientOrderId", "^[a-zA-Z0-9-_]{1,36}$")),
        ({**MARKET, "newClientOrderId": "a" * 37}, -1100, illegal("newClientOrderId", "^[a-zA-Z0-9-_]{1,36}$")),
        (
            {**MARKET, "foo": "1"},
            -1104,
            "Not all sent parameters were read; read '6' parameter(s) but was sent '7'.",
        ),
        ({**MARKET, "quantity": "0.123456789"}, -1111, "Parameter 'quantity' has too much precision."),
        ({**LIMIT, "price": "1.123456789"}, -1111, "Parameter 'price' has too much precision."),
        ({**MARKET, "strategyType": "999999"}, -1134, "strategyType was less than 1000000."),
        (
            {**MARKET, "selfTradePreventionMode": "NONE"},
            -1013,
            "This symbol does not allow the specified self-trade prevention mode.",
        ),
        (
            {**MARKET, "type": "STOP_LOSS", "stopPrice": "1"},
            -2010,
            "Stop loss orders are not supported for this symbol.",
        ),
        (
            {**LIMIT, "icebergQty": "0.0005"},
            -2010,
            "Iceberg orders are not supported for this symbol.",
        ),
    ],
)
def test_refusals_of_a_new_order(desk: Desk, params: dict[str, Any], code: int, text: str) -> None:
    sent = {"symbol": "BTCUSDT", "side": "BUY", **params}
    answer = desk.signed("POST", ORDER, **{name: value for name, value in sent.items() if value is not None})
    assert answer.error == (400, code, text)
    assert desk.exchange.state()["orders"][-1]["reject"] == code


def test_a_parameter_twice_is_refused(desk: Desk) -> None:
    query = f"symbol=BTCUSDT&symbol=BTCUSDT&timestamp={NOW}"
    answer = desk.send(
        "GET", "/api/v3/openOrders", f"{query}&signature={sign(desk.secret, query)}", x_mbx_apikey=desk.key
    )
    assert answer.error == (400, -1101, "Duplicate values for a parameter detected.")


def test_of_a_name_in_query_and_body_the_query_wins(desk: Desk) -> None:
    query, body = "symbol=BTCUSDT&side=BUY&type=MARKET", f"symbol=NOPE&quantity=0.001&timestamp={NOW}"
    body += f"&signature={sign(desk.secret, query + body)}"
    answer = desk.send(
        "POST", ORDER, query, body, x_mbx_apikey=desk.key, content_type="application/x-www-form-urlencoded"
    )
    assert answer.json["symbol"] == "BTCUSDT"


def test_parameters_of_public_endpoints(desk: Desk) -> None:
    assert desk.get("/api/v3/ping", x="1").error == (400, -1101, "Too many parameters; expected '0' and received '1'.")
    assert desk.get("/api/v3/time", x="1").code == -1101
    klines = {"symbol": "BTCUSDT", "interval": "1m"}
    assert desk.get("/api/v3/klines", **{**klines, "interval": "7m"}).error == (400, -1120, "Invalid interval.")
    assert desk.get("/api/v3/klines", **{**klines, "symbol": "NOPE"}).error == (400, -1121, "Invalid symbol.")
    assert desk.get("/api/v3/klines", symbol="BTCUSDT").msg == MANDATORY.format("interval")
    assert desk.get("/api/v3/klines", **klines, limit="x").code == -1100
    assert desk.get("/api/v3/klines", **klines, limit="0").code == -1130
    assert desk.get("/api/v3/klines", **klines, y="1").code == -1104
    assert desk.get("/api/v3/klines", **klines, startTime="9" * 20).code == -1108
    assert Desk("us").get("/api/v3/klines", symbol="BTCUSDT", interval="1s").code == -1120


def test_unknown_routes_are_html_404(desk: Desk) -> None:
    answer = desk.send("GET", "/api/v3/nothing", "symbol=BTCUSDT")
    assert (answer.status, answer.json) == (404, None)
    assert desk.send("PUT", ORDER).status == 404
