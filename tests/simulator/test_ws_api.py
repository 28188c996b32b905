"""The WebSocket API: its envelope, and that each method does what its REST endpoint does."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.simulator.faults import Fault
from bot.simulator.signing import signature, sorted_payload
from bot.simulator.ws_api import METHODS, SIGNED_SESSION_METHODS
from tests.simulator.support import NOW, ORDER, Desk, quick, ws_signed

WEIGHT = {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000}
ORDERS = [
    {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
    {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": 200_000},
]
FUZZED = Desk(quick(weight_per_minute=10**9, raw_per_5_minutes=10**9))
MARKET_BUY = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.001"}
RESTING = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.001"}


def test_documented_signature() -> None:
    values = {
        "symbol": "BTCUSDT",
        "side": "SELL",
        "type": "LIMIT",
        "timeInForce": "GTC",
        "quantity": "0.01000000",
        "price": "52000.00",
        "recvWindow": "100",
        "timestamp": "1645423376532",
        "apiKey": "vmPUZE6mv9SD5VNHk4HlWFsOr6aKE2zvsw0MuIgwCIPy6utIco14y7Ju91duEh8A",
        "signature": "left out",
    }
    secret = "NhqPtmdSJYdKjVHjA7PZj4Mge3R5YNiP1e3UZjInClVN65XAbvqqM6A7H5fATj0j"
    expected = "aa1b5712c094bc4e57c05a1a5c1fd8d88dcd628338ea863fec7b88e59fe2db24"
    assert signature(secret, sorted_payload(values)) == expected


@pytest.mark.parametrize("request_id", [1, -5, "e2a85d9f-07a5-4f94-8d5f-789dc3deb097", "a" * 36, None])
def test_the_id_comes_back(desk: Desk, request_id: Any) -> None:
    answer = desk.ws_text(json.dumps({"id": request_id, "method": "ping"}))
    assert json.loads(answer.frames[0]) == {
        "id": request_id,
        "status": 200,
        "result": {},
        "rateLimits": [{**WEIGHT, "count": 1}],
    }


def test_a_method_may_carry_the_version(desk: Desk) -> None:
    assert desk.ws("v3/time")["result"] == {"serverTime": NOW}


BAD_ID = "Invalid 'id' in JSON request; expected an integer, a string matching '^[a-zA-Z0-9-_]{1,36}$', or null."
MALFORMED = {
    "": "Invalid JSON Request",
    "hello": "Invalid JSON Request",
    "[1]": "Invalid JSON Request",
    '{"id":1,"method":"ping"': "Invalid JSON Request",
    '{"id":1,"method":"ping","params":{"x":NaN}}': "Invalid JSON Request",
    "[" * 60_000: "Invalid JSON Request",
    '{"id":1.5,"method":"ping"}': BAD_ID,
    '{"id":true,"method":"ping"}': BAD_ID,
    '{"id":"a b","method":"ping"}': BAD_ID,
    '{"id":"%s","method":"ping"}' % ("a" * 37): BAD_ID,
    '{"id":9223372036854775808,"method":"ping"}': BAD_ID,
    '{"id":1}': "Invalid 'method' in JSON request; expected a string.",
    '{"id":1,"method":7}': "Invalid 'method' in JSON request; expected a string.",
    '{"id":1,"method":"ping","params":[]}': "Invalid 'params' in JSON request; expected an object.",
}


@pytest.mark.parametrize("text", MALFORMED, ids=range(len(MALFORMED)))
def test_malformed_frames(desk: Desk, text: str) -> None:
    frame = json.loads(desk.ws_text(text).frames[0])
    assert (frame["id"], frame["status"]) == (None, 400)
    assert frame["error"] == {"code": -1135, "msg": MALFORMED[text]}
    assert frame["rateLimits"] == [{**WEIGHT, "count": 1}]


def refusal(frame: Any) -> tuple[int, int, str]:
    return frame["status"], frame["error"]["code"], frame["error"]["msg"]


def test_unknown_methods_and_parameters(desk: Desk) -> None:
    assert refusal(desk.ws("order.jump")) == (400, -5000, "Method order.jump is invalid")
    assert refusal(desk.ws("ping", x=1))[1] in (-1101, -1104)
    assert refusal(desk.ws("klines", symbol="BTCUSDT", interval="1m", limit=""))[1] == -1105
    assert refusal(desk.ws("klines", symbol={"a": 1}, interval="1m"))[1] == -1102
    assert refusal(desk.ws("ticker.price", symbols=[1.5]))[1] == -1102
    assert refusal(desk.ws("klines", symbol="NOPE", interval="1m")) == (400, -1121, "Invalid symbol.")
    twice = desk.ws_text('{"id":1,"method":"ticker.price","params":{"symbol":"BTCUSDT","symbol":"BTCUSDT"}}')
    assert json.loads(twice.frames[0])["error"]["code"] == -1101


@pytest.mark.parametrize(
    ("method", "path", "params"),
    [
        ("exchangeInfo", "exchangeInfo", {"symbol": "BTCUSDT"}),
        ("klines", "klines", {"symbol": "BTCUSDT", "interval": "1m", "limit": 3}),
        ("ticker.price", "ticker/price", {"symbol": "BTCUSDT"}),
        ("ticker.book", "ticker/bookTicker", {"symbol": "BTCUSDT"}),
        ("ticker.24hr", "ticker/24hr", {"symbols": '["BTCUSDT"]'}),
        ("depth", "depth", {"symbol": "BTCUSDT", "limit": 101}),
        ("avgPrice", "avgPrice", {"symbol": "BTCUSDT"}),
        ("time", "time", {}),
        ("ping", "ping", {}),
    ],
)
def test_public_methods_answer_as_rest(desk: Desk, method: str, path: str, params: dict[str, Any]) -> None:
    rest = desk.get(f"/api/v3/{path}", **params)
    used = int(rest.headers["X-MBX-USED-WEIGHT-1M"])
    frame = desk.ws(method, **params)
    assert frame["result"] == rest.json
    assert frame["rateLimits"] == [{**WEIGHT, "count": 2 * used}]
    assert desk.ws(method, apiKey=desk.key, **params)["status"] == 200  # harmless where it is not needed


def test_a_list_is_taken_for_symbols(desk: Desk) -> None:
    frame = desk.ws("ticker.price", symbols=["BTCUSDT"])
    assert [item["symbol"] for item in frame["result"]] == ["BTCUSDT"]


def test_place_ask_cancel(desk: Desk) -> None:
    placed = desk.ws_signed("order.place", **RESTING, price="30000", newClientOrderId="one", newOrderRespType="ACK")
    assert placed["status"] == 200
    assert list(placed["result"]) == ["symbol", "orderId", "orderListId", "clientOrderId", "transactTime"]
    assert placed["rateLimits"] == [{**ORDERS[0], "count": 1}, {**ORDERS[1], "count": 1}, {**WEIGHT, "count": 0}]
    key = {"symbol": "BTCUSDT", "origClientOrderId": "one"}
    asked = desk.ws_signed("order.status", **key)
    assert asked["result"] == desk.signed("GET", ORDER, **key).json
    assert asked["result"]["status"] == "NEW"
    assert asked["rateLimits"] == [{**WEIGHT, "count": 4}]
    assert [o["clientOrderId"] for o in desk.ws_signed("openOrders.status", symbol="BTCUSDT")["result"]] == ["one"]
    assert refusal(desk.ws_signed("order.place", **RESTING, price="30000", newClientOrderId="one")) == (
        400,
        -2010,
        "Duplicate order sent.",
    )
    cancelled = desk.ws_signed("order.cancel", **key)["result"]
    assert (cancelled["status"], cancelled["origClientOrderId"]) == ("CANCELED", "one")
    assert refusal(desk.ws_signed("order.cancel", **key)) == (400, -2011, "Unknown order sent.")
    desk.ws_signed("order.place", **RESTING, price="30000")
    assert len(desk.ws_signed("openOrders.cancelAll", symbol="BTCUSDT")["result"]) == 1
    assert len(desk.ws_signed("allOrders", symbol="BTCUSDT")["result"]) == 2


def test_account_trades_and_counts(desk: Desk) -> None:
    placed = desk.ws_signed("order.place", **MARKET_BUY)["result"]
    assert placed["status"] == "FILLED"
    trades = desk.ws_signed("myTrades", symbol="BTCUSDT")["result"]
    assert [t["id"] for t in trades] == [f["tradeId"] for f in placed["fills"]]
    for method, path in {"account.commission": "account/commission", "myFilters": "myFilters"}.items():
        assert desk.ws_signed(method, symbol="BTCUSDT")["result"] == (
            desk.signed("GET", f"/api/v3/{path}", symbol="BTCUSDT").json
        )
    assert desk.ws_signed("account.status")["result"] == desk.signed("GET", "/api/v3/account").json
    counts = desk.ws_signed("account.rateLimits.orders")["result"]
    assert counts == desk.signed("GET", "/api/v3/rateLimit/order").json


def test_the_same_checks_as_rest(desk: Desk) -> None:
    assert refusal(desk.ws("order.place", **MARKET_BUY))[1] == -1102  # no apiKey
    good = ws_signed(desk, MARKET_BUY)
    assert refusal(desk.ws("order.place", **{**good, "apiKey": "short"}))[:2] == (401, -2014)
    assert refusal(desk.ws("order.place", **{**good, "apiKey": "x" * 64}))[:2] == (401, -2015)
    assert refusal(desk.ws("order.place", **{**good, "quantity": "0.002"}))[:2] == (400, -1022)
    assert refusal(desk.ws_signed("order.place", **MARKET_BUY, timestamp=NOW - 5001))[1] == -1021
    assert refusal(desk.ws_signed("order.place", **MARKET_BUY, timestamp=NOW + 1000))[1] == -1021
    assert refusal(desk.ws_signed("order.place", **MARKET_BUY, mood="good"))[1] == -1104
    assert refusal(desk.ws_signed("order.place", **{**MARKET_BUY, "quantity": "1e-05"}))[1] == -1100
    assert refusal(desk.ws_signed("order.place", **{**MARKET_BUY, "quantity": "0.000001"}))[2] == (
        "Filter failure: LOT_SIZE"
    )
    assert desk.exchange.books.balances["BTC"].free == 0
    state = desk.exchange.state()
    assert [o["reject"] for o in state["orders"]] == [-1102, -2014, -2015, -1022, -1021, -1021, -1104, -1100, -1013]
    assert state["requests"] == {"order.place": 9}


def test_a_number_with_an_exponent_stays_one(desk: Desk) -> None:
    """A client that sends 0.00001 as a JSON number writes 1e-05, and that is what the exchange reads."""
    frame = desk.ws_text(
        '{"id":1,"method":"order.place","params":{"symbol":"BTCUSDT","side":"BUY","type":"MARKET","quantity":1e-05,'
        f'"apiKey":"{desk.key}","timestamp":{NOW},"signature":"x"}}}}'
    ).frames[0]
    assert json.loads(frame)["error"]["code"] == -1100


def test_limits_can_be_left_out(desk: Desk) -> None:
    assert "rateLimits" not in desk.ws("ping", returnRateLimits=False)
    assert "rateLimits" in desk.ws("ping")
    desk.session.returns_limits = False
    assert "rateLimits" not in desk.ws("ping")
    assert "rateLimits" in desk.ws("ping", returnRateLimits=True)
    assert "rateLimits" not in desk.ws_signed("order.status", symbol="BTCUSDT", orderId=1)
    assert refusal(desk.ws("ping", returnRateLimits="perhaps"))[1] == -1130


def test_429_then_418_in_epoch_milliseconds() -> None:
    desk = Desk(quick(weight_per_minute=3, strikes_before_ban=1, free_successful_orders=False))
    for _ in range(3):
        assert desk.ws("ping")["status"] == 200
    limited = desk.ws("ping")
    assert limited["error"]["data"] == {"serverTime": NOW, "retryAfter": NOW + 35_000}
    assert (limited["status"], limited["error"]["code"]) == (429, -1003)
    assert limited["rateLimits"] == [{**WEIGHT, "limit": 3, "count": 4}]
    answer = desk.ws_text('{"id":2,"method":"ping"}')
    banned = json.loads(answer.frames[0])
    assert (banned["status"], banned["error"]["code"], answer.closes) == (418, -1003, True)
    assert banned["error"]["data"]["retryAfter"] == NOW + 120_000


def test_too_many_orders() -> None:
    desk = Desk(quick(orders_per_10_seconds=1))
    assert desk.ws_signed("order.place", **RESTING, price="30000")["status"] == 200
    refused = desk.ws_signed("order.place", **RESTING, price="30000")
    assert (refused["status"], refused["error"]["code"]) == (429, -1015)
    assert refused["error"]["data"] == {"serverTime": NOW, "retryAfter": NOW + 5000}


def test_microseconds(desk: Desk) -> None:
    desk.session.is_micro = True
    assert desk.ws("time")["result"]["serverTime"] == NOW * 1000
    assert desk.ws_signed("order.place", **MARKET_BUY)["result"]["transactTime"] == NOW * 1000
    assert desk.ws("session.status")["result"]["connectedSince"] == NOW * 1000


def test_sessions_need_ed25519(desk: Desk) -> None:
    assert refusal(desk.ws_signed("session.logon")) == (400, -4056, "HMAC_SHA256 API key is not supported.")
    status = {
        "apiKey": None,
        "authorizedSince": None,
        "connectedSince": NOW,
        "returnRateLimits": True,
        "serverTime": NOW,
        "userDataStream": False,
    }
    assert desk.ws("session.status")["result"] == status
    assert desk.ws("session.logout")["result"] == status
    assert refusal(desk.ws("userDataStream.subscribe"))[:2] == (401, -2015)
    assert desk.ws("session.status")["rateLimits"][0]["count"] == 10


def test_one_subscription_a_connection(desk: Desk) -> None:
    subscribe = "userDataStream.subscribe.signature"
    assert refusal(desk.ws(subscribe))[1] == -1102
    assert desk.ws_signed(subscribe)["result"] == {"subscriptionId": 0}
    assert desk.ws("session.subscriptions")["result"] == [{"subscriptionId": 0}]
    assert desk.ws("session.status")["result"]["userDataStream"] is True
    assert refusal(desk.ws_signed(subscribe)) == (400, -2035, "User Data Stream subscription already active.")
    assert refusal(desk.ws("userDataStream.unsubscribe", subscriptionId=1))[1] == -2036
    answer = desk.ws_text('{"id":1,"method":"userDataStream.unsubscribe","params":{"subscriptionId":0}}')
    reply, ended = (json.loads(frame) for frame in answer.frames)
    assert reply["result"] == {}
    assert ended == {"subscriptionId": 0, "event": {"e": "eventStreamTerminated", "E": NOW}}
    inactive = (400, -2036, "User Data Stream subscription not active.")
    assert refusal(desk.ws("userDataStream.unsubscribe")) == inactive
    assert desk.ws("session.subscriptions")["result"] == []
    assert desk.ws_signed(subscribe)["result"] == {"subscriptionId": 1}
    desk.ws("userDataStream.unsubscribe")
    desk.session.subscriptions = 65_536
    assert refusal(desk.ws_signed(subscribe))[:2] == (400, -2042)


def test_what_us_offers() -> None:
    desk = Desk("us")
    assert desk.ws_signed("userDataStream.subscribe.signature")["result"] == {"subscriptionId": 0}
    for method in ("session.logon", "session.status", "session.logout", "userDataStream.subscribe"):
        assert desk.ws(method)["error"]["code"] == -5000
    key = desk.ws("userDataStream.start", apiKey=desk.key)["result"]["listenKey"]
    assert desk.ws("userDataStream.ping", apiKey=desk.key, listenKey=key)["result"] == {}
    assert desk.ws("userDataStream.stop", apiKey=desk.key, listenKey=key)["result"] == {}
    assert refusal(desk.ws("userDataStream.ping", apiKey=desk.key, listenKey=key))[1] == -1125
    assert Desk("com").ws("userDataStream.start", apiKey=desk.key)["error"]["code"] == -5000


def test_subscribing_can_be_switched_off() -> None:
    desk = Desk(quick(subscribe_signature=False))
    assert desk.ws_signed("userDataStream.subscribe.signature")["error"]["code"] == -5000


def test_documented_errors_on_order(desk: Desk) -> None:
    desk.exchange.faults.add(Fault("error", 1, code=-1003, status=418, retry_after=7, path="/api/v3/order"))
    refused = desk.ws_signed("order.place", **MARKET_BUY)
    assert (refused["status"], refused["error"]["code"]) == (418, -1003)
    assert refused["error"]["data"]["retryAfter"] == NOW + 7000
    desk.exchange.faults.add(Fault("error", 1, code=-1006, method="order.place", path="/ws-api/v3", executed=True))
    assert desk.ws_signed("account.status")["status"] == 200
    assert refusal(desk.ws_signed("order.place", **{**MARKET_BUY, "quantity": "0.000001"}))[1] == -1013
    assert refusal(desk.ws_signed("order.place", **MARKET_BUY, newClientOrderId="done"))[:2] == (504, -1006)
    found = desk.ws_signed("order.status", symbol="BTCUSDT", origClientOrderId="done")["result"]
    assert found["status"] == "FILLED"


words = st.sampled_from(
    [
        "order.place",
        "klines",
        "symbol",
        "BTCUSDT",
        "1m",
        "timestamp",
        "apiKey",
        "signature",
        "\ud800",
        "",
        "x" * 64,
        "1e-05",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | st.text(), inner, max_size=3),
    max_leaves=8,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers() | values,
        "method": st.sampled_from([*METHODS, *SIGNED_SESSION_METHODS, "session.status"]) | values,
        "params": st.dictionaries(st.sampled_from(["symbol", "interval", "limit"]) | words, values) | values,
    },
)


@settings(max_examples=400, deadline=None)
@given(requests.map(json.dumps) | values.map(json.dumps) | st.text())
def test_any_frame_is_answered(text: str) -> None:
    """Whatever is sent, one frame of the envelope's form comes back, and nothing is bought."""
    answer = FUZZED.ws_text(text)
    frame = json.loads(answer.frames[0])
    assert {"id", "status"} <= set(frame)
    assert ("error" in frame) == (frame["status"] != 200)
    assert not FUZZED.events


def test_order_test_reaches_no_book(desk: Desk) -> None:
    tested = desk.ws_signed("order.test", **{**MARKET_BUY, "quantity": "1"})
    assert (tested["status"], tested["result"]) == (200, {})
    assert refusal(desk.ws_signed("order.test", **{**MARKET_BUY, "quantity": "0.000001"}))[1] == -1013
    assert desk.exchange.state()["orders"] == []
    assert not desk.events
