"""Every documented error, answered by the simulated exchange to an order and to a read: what each becomes.

The left column is the exchange's documentation (errors), the right one what the bot has to do.
"""

import json

import pytest
import requests

from bot.adapters.binance import BinanceExchange
from bot.adapters.binance.errors import CODES, TEXTS
from bot.ports import (
    ConfigurationRefused,
    Consequence,
    ExchangeUnavailable,
    OrderInDoubt,
    OrderNotSent,
    OrderRejected,
)
from bot.simulator import SimulatedExchange, SimulatorConfig
from bot.supervision import SystemClock
from tests.support.builders import an_intent

ASK, NOT_SENT = OrderInDoubt, OrderNotSent
NOTHING, REFRESH, SYMBOL, HALT = Consequence
FIX_ONLY = range(-1191, -1168)

BY_CODE = [
    (500, -1000, "An unknown error occurred while processing the request.", ASK),
    (503, -1001, "Internal error; unable to process your request. Please try again.", ASK),
    (400, -1001, "Internal error; unable to process your request. Please try again.", ASK),
    (401, -1002, "You are not authorized to execute this request.", HALT),
    (429, -1003, "Too much request weight used; current limit is 6000 request weight per 1 MINUTE.", NOT_SENT),
    (418, -1003, "Way too much request weight used; IP banned until 1795557016000.", NOT_SENT),
    (400, -1003, "Too many requests queued.", NOT_SENT),
    (504, -1006, "An unexpected response was received from the message bus. Execution status unknown.", ASK),
    (504, -1007, "Timeout waiting for response from backend server. Send status unknown.", ASK),
    (503, -1008, "Server is currently overloaded with other requests.", ASK),
    (400, -1010, "ERROR_MSG_RECEIVED", NOTHING),
    (400, -1013, "Filter failure: LOT_SIZE", REFRESH),
    (400, -1013, "Filter failure: NOTIONAL", REFRESH),
    (400, -1013, "Invalid quantity.", REFRESH),
    (400, -1013, "This symbol does not allow the specified self-trade prevention mode.", NOTHING),
    (400, -1014, "Unsupported order combination.", NOTHING),
    (429, -1015, "Too many new orders; current limit is 100 orders per 10 SECOND.", NOT_SENT),
    (503, -1016, "This service is no longer available.", ASK),
    (400, -1020, "This operation is not supported.", NOTHING),
    (400, -1021, "Timestamp for this request is outside of the recvWindow.", NOT_SENT),
    (400, -1021, "Timestamp for this request was 1000ms ahead of the server's time.", NOT_SENT),
    (400, -1022, "Signature for this request is not valid.", HALT),
    *((400, code, "a limit of connections", NOT_SENT) for code in (-1033, -1034, -1035)),
    (400, -1111, "Parameter 'quantity' has too much precision.", REFRESH),
    (400, -1111, "Precision is over the maximum defined for this asset.", REFRESH),
    (400, -1112, "No orders on book for symbol.", NOTHING),
    (400, -1121, "Invalid symbol.", SYMBOL),
    (400, -2011, "Unknown order sent.", ASK),
    (400, -2013, "Order does not exist.", NOTHING),
    (401, -2014, "API-key format invalid.", HALT),
    (401, -2015, "Invalid API-key, IP, or permissions for action.", HALT),
    (400, -2016, "No trading window could be found for the symbol. Try ticker/24hrs instead.", NOTHING),
    (409, -2021, "Order cancel-replace partially failed.", ASK),
    (400, -2022, "Order cancel-replace failed.", ASK),
    (400, -2026, "Order was canceled or expired with no executed qty over 90 days ago.", NOTHING),
    (400, -2043, "This symbol doesn't have a reference price.", NOTHING),
    *(
        (400, code, "the request is wrong", NOTHING)
        for code in (
            *(-1099, -1100, -1101, -1102, -1103, -1104, -1105, -1106, -1108, -1114, -1115, -1116, -1117, -1118, -1119),
            *(-1120, -1122, -1125, -1127, -1128, -1130, -1131, -1134, -1135, -1136, -1139, -1145, -1151, -1152, -1153),
            *(-1155, -1158, -1160, -1161, -1165, -1166, -1168, -1194, -1196, -1197, -1198, -1199, -1210, -1211, -1220),
            *(-1221, -1222, -1223, -1224, -1225, -2010, -2035, -2036, -2038, -2039, -2042, *FIX_ONLY),
        )
    ),
]
BY_TEXT = [
    ("Account has insufficient balance for requested action.", NOTHING),
    ("Duplicate order sent.", ASK),
    ("Market is closed.", REFRESH),
    ("Order would trigger immediately.", NOTHING),
    ("Order would immediately match and take.", NOTHING),
    ("Price * QTY is zero or less.", NOTHING),
    ("IcebergQty exceeds QTY.", NOTHING),
    ("Unsupported order combination", NOTHING),
    ("Market orders are not supported for this symbol.", SYMBOL),
    ("Stop loss orders are not supported for this symbol.", NOTHING),
    ("Quote order qty market orders are not support for this symbol.", NOTHING),
    ("This action is disabled on this account.", HALT),
    ("This account may not place or cancel orders.", HALT),
    ("This symbol is not permitted for this account.", SYMBOL),
    ("This symbol is restricted for this account.", SYMBOL),
    ("Cancel order is invalid. Check origClOrdId and orderId.", NOTHING),
    ("The relationship of the prices for the orders is not correct.", NOTHING),
    ("Rest API trading is not enabled.", HALT),
    ("WebSocket API trading is not enabled.", HALT),
    ("Order book liquidity is less than `LOT_SIZE` filter minimum quantity.", NOTHING),
    ("Order book liquidity is less than `MARKET_LOT_SIZE` filter minimum quantity.", NOTHING),
    ("Order book liquidity is less than symbol minimum quantity.", NOTHING),
    ("Order book liquidity is too low for this pegged order.", NOTHING),
    ("The requested action would change no state; rejecting", NOTHING),
    ("This order type is not possible in this trading phase.", REFRESH),
    ("Limit orders require GTC for this phase.", REFRESH),
]
WITHOUT_CODE = [
    (403, "<html>forbidden by a firewall</html>", ASK),
    (404, "<html>no such page</html>", ASK),
    (409, "", ASK),
    (410, "<html>gone</html>", ASK),
    (413, "", ASK),
    (418, "", NOT_SENT),
    (429, "<html>slow down</html>", NOT_SENT),
    (451, "<html>not in your country</html>", HALT),
    (500, "", ASK),
    (502, "<html>bad gateway</html>", ASK),
    (503, "<html>unavailable</html>", ASK),
    (504, "{", ASK),
    (200, "", ASK),
    (200, "<html>fine</html>", ASK),
    (200, '{"symbol":"BTCUSDT","orderId":42,"clientOrd', ASK),
    (200, "{}", ASK),
    (200, "null", ASK),
    (202, "", ASK),
]
CASES = [
    *((status, json.dumps({"code": code, "msg": text}), expected) for status, code, text, expected in BY_CODE),
    *((400, json.dumps({"code": -2010, "msg": text}), expected) for text, expected in BY_TEXT),
    *WITHOUT_CODE,
]


@pytest.fixture(scope="module", params=["com", "us"])
def ends(request):
    running = SimulatedExchange(SimulatorConfig(profile=request.param, seed=7))
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture
def exchange(ends):
    return BinanceExchange(ends.rest_url, SystemClock(), ends.api_key, ends.api_secret)


def answer(ends, path, status, body):
    """Have the next request for a path answered; a wrong clock is told twice, as it is tried twice."""
    fault = {"kind": "reply", "path": path, "status": status, "body": body, "count": 2 if "-1021" in body else 1}
    assert requests.post(ends.rest_url + "/sim/fault", json=fault, timeout=5).status_code == 200


@pytest.mark.parametrize(("status", "body", "expected"), CASES)
def test_what_an_order_becomes(ends, exchange, status, body, expected):
    exchange.now_ms()
    answer(ends, "/api/v3/order", status, body)
    kind = expected if isinstance(expected, type) else OrderRejected
    with pytest.raises(kind) as raised:
        exchange.place(an_intent())
    if kind is OrderRejected:
        assert raised.value.consequence is expected
        assert raised.value.code == (json.loads(body)["code"] if body.startswith("{") else 0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("status", "body", "expected"), CASES)
def test_what_a_read_becomes(ends, exchange, status, body, expected):
    exchange.now_ms()
    answer(ends, "/api/v3/account", status, body)
    with pytest.raises(ConfigurationRefused if expected is HALT else ExchangeUnavailable) as raised:
        exchange.free_balance("USDT")
    assert "\n" not in str(raised.value)


def test_every_row_of_the_table_was_answered():
    assert {code for _, code, _, _ in BY_CODE} == set(CODES)
    assert {text for text, _ in BY_TEXT} | {text for _, _, text, _ in BY_CODE} >= set(TEXTS)
