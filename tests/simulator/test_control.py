"""The exchange's own paths: prices, faults of every kind, the state. Over real sockets where the wire matters."""

import http.client
import json
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
import websocket

from tests.simulator.support import NOW, ORDER, Desk, LiveClient, running

BUY = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.001"}
NO_REPLY = (http.client.RemoteDisconnected, ConnectionResetError)


@pytest.fixture
def fresh() -> Any:
    with running(symbols=("BTCUSDT",)) as client:
        yield client


def last_order(client: LiveClient, client_id: str) -> Any:
    return client.signed("GET", ORDER, symbol="BTCUSDT", origClientOrderId=client_id)


def test_the_next_update_closes_at_the_price(live: LiveClient) -> None:
    socket = live.socket("/ws/dogeusdt@kline_1m")
    for price in ("0.2", "0.19", "0.21"):
        before = live.clock.now_ms()
        assert live.control("price", symbol="DOGEUSDT", price=price).json == {}
        after = live.clock.now_ms()
        seen = socket.klines_until(lambda events, after=after: events[-1]["E"] > after)
        assert f"{Decimal(price):.8f}" in [event["k"]["c"] for event in seen if event["E"] >= before]
    socket.close()


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"symbol": "NOPE", "price": "1"}, "symbol 'NOPE' is not one of BTCUSDT, ETHUSDT, DOGEUSDT"),
        ({"symbol": "BTCUSDT", "price": "x"}, "price must be a number, not 'x'"),
        ({"symbol": "BTCUSDT", "price": "NaN"}, "price must be a number, not 'NaN'"),
        ({"symbol": "BTCUSDT", "price": -1}, "price must be above 0 and have at most 8 decimals, not -1"),
        ({"symbol": "BTCUSDT", "price": "1e-9"}, "price must be above 0 and have at most 8 decimals, not '1e-9'"),
        ({"symbol": "BTCUSDT"}, 'the body must be {"symbol": ..., "price": ...}'),
    ],
)
def test_bad_prices(live: LiveClient, values: dict[str, Any], line: str) -> None:
    answer = live.control("price", **values)
    assert (answer.status, answer.json) == (400, f"{line}\n")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "kind None is not one of"),
        ({"kind": "boom"}, "kind 'boom' is not one of"),
        ({"kind": "delay"}, "delay needs 'ms'"),
        ({"kind": "delay", "ms": -1}, "ms must not be negative, not -1"),
        ({"kind": "delay", "ms": "1"}, "ms must be a whole number, not '1'"),
        ({"kind": "delay", "ms": 1, "count": 0}, "count must be at least 1, not 0"),
        ({"kind": "delay", "ms": 1, "path": "x"}, "path must begin with /, not 'x'"),
        ({"kind": "ws_cut", "ms": 1}, "'ms' is not a field of ws_cut; it takes count"),
        ({"kind": "reply"}, "reply needs 'status'"),
        ({"kind": "reply", "status": 99}, "status must be an HTTP status, 200 to 599, not 99"),
        ({"kind": "reply", "status": 500, "headers": {"a": 1}}, "headers must be an object of strings"),
        ({"kind": "partial_fill", "fraction": "1"}, "fraction must be at least 0 and below 1, not '1'"),
        ({"kind": "ws_frame", "text": 1}, "text must be a string, not 1"),
    ],
)
def test_bad_faults(live: LiveClient, values: dict[str, Any], line: str) -> None:
    answer = live.control("fault", **values)
    assert answer.status == 400
    assert answer.json.startswith(line)
    assert answer.json.count("\n") == 1


def test_bad_bodies_and_paths(live: LiveClient) -> None:
    for body in ("", "{", "[]"):
        answer = live._send("POST", "/sim/fault", "", body, {})
        assert answer.status == 400
    assert live.get("/sim/nothing").status == 404
    assert live.control("next").json == ("the exchange was not started with --step: its klines come by themselves\n")


def test_executed_without_a_reply(fresh: LiveClient) -> None:
    fresh.control("fault", kind="order_executed_no_reply", count=2)
    for client_id in ("a", "b"):
        with pytest.raises(NO_REPLY):
            fresh.signed("POST", ORDER, **BUY, newClientOrderId=client_id)
        assert last_order(fresh, client_id).json["status"] == "FILLED"
    assert fresh.signed("POST", ORDER, **BUY).status == 200


def test_a_refused_order_does_not_use_up_the_fault(fresh: LiveClient) -> None:
    fresh.control("fault", kind="order_executed_no_reply", count=1)
    assert fresh.signed("POST", ORDER, **{**BUY, "quantity": "0"}).status == 400
    with pytest.raises(NO_REPLY):
        fresh.signed("POST", ORDER, **BUY)


def test_lost_without_a_reply(fresh: LiveClient) -> None:
    fresh.control("fault", kind="order_lost_no_reply", count=1)
    with pytest.raises(NO_REPLY):
        fresh.signed("POST", ORDER, **BUY, newClientOrderId="lost")
    assert last_order(fresh, "lost").code == -2013
    assert fresh.state()["orders"] == []


def test_executed_with_5xx(fresh: LiveClient) -> None:
    fresh.control("fault", kind="order_executed_5xx", count=1)
    answer = fresh.signed("POST", ORDER, **BUY, newClientOrderId="x")
    assert answer.error == (
        504,
        -1007,
        "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
    )
    assert last_order(fresh, "x").json["status"] == "FILLED"


def test_a_given_reply(fresh: LiveClient) -> None:
    html = "<html>blocked</html>"
    fresh.control("fault", kind="reply", count=1, status=403, body=html, path=ORDER, headers={"X-Why": "waf"})
    assert fresh.get("/api/v3/ping").status == 200
    answer = fresh.signed("POST", ORDER, **BUY)
    assert (answer.status, answer.json, answer.headers["x-why"]) == (403, html, "waf")
    assert answer.headers["content-type"] == "text/html"
    assert fresh.state()["orders"] == []
    fresh.control("fault", kind="reply", status=429, body='{"code":-1003,"msg":"x"}', headers={"Retry-After": "3"})
    answer = fresh.get("/api/v3/time")
    assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, -1003, "3")
    assert answer.headers["content-type"].startswith("application/json")
    fresh.control("fault", kind="reply", status=200, body='{"serverTime":12')
    assert fresh.get("/api/v3/time").json == '{"serverTime":12'


def test_a_delay_holds_back_the_reply_of_an_order_that_is_executed(fresh: LiveClient) -> None:
    fresh.control("fault", kind="delay", ms=400, path=ORDER, count=1)
    reply = fresh.signed("POST", ORDER, **BUY, newClientOrderId="slow").json
    assert fresh.clock.now_ms() - reply["transactTime"] >= 390, "executed so long before"
    assert last_order(fresh, "slow").json["status"] == reply["status"] == "FILLED"


def test_clock_skew_of_some_requests() -> None:
    desk = Desk()
    desk.exchange.faults.add(read({"kind": "clock_skew", "ms": 6000, "count": 1}))
    assert desk.order(quantity="0.001").code == -1021
    assert desk.get("/api/v3/time").json["serverTime"] == NOW
    assert desk.order(quantity="0.001").status == 200
    desk.exchange.faults.add(read({"kind": "clock_skew", "ms": -2000, "count": 2}))
    assert desk.get("/api/v3/time").json["serverTime"] == NOW - 2000
    assert desk.order(quantity="0.001").msg == "Timestamp for this request was 1000ms ahead of the server's time."
    assert desk.order(quantity="0.001").status == 200


def test_clock_skew_without_a_count_stays() -> None:
    desk = Desk()
    desk.exchange.faults.add(read({"kind": "clock_skew", "ms": 6000}))
    for _ in range(3):
        assert desk.get("/api/v3/time").json["serverTime"] == NOW + 6000
    assert desk.order(quantity="0.001", timestamp=NOW + 6000).status == 200
    desk.exchange.faults.add(read({"kind": "clock_skew", "ms": 0}))
    assert desk.get("/api/v3/time").json["serverTime"] == NOW


def read(values: dict[str, Any]) -> Any:
    from bot.simulator.faults import read_fault

    return read_fault(values)


def test_partial_fill() -> None:
    desk = Desk()
    desk.exchange.faults.add(read({"kind": "partial_fill", "fraction": "0.25", "count": 1}))
    refused = desk.order(quantity="1000000")
    assert refused.status == 400
    reply = desk.order(quantity="0.00203").json
    assert (reply["status"], reply["executedQty"], reply["origQty"]) == ("EXPIRED", "0.00050000", "0.00203000")
    desk.exchange.faults.add(read({"kind": "partial_fill", "fraction": 0}))
    limit = desk.limit(quantity="0.001", price="100000").json
    assert (limit["status"], limit["executedQty"], limit["fills"]) == ("EXPIRED", "0.00000000", [])
    assert desk.balance("USDT")[1] == 0
    assert desk.order(quantity="0.001").json["status"] == "FILLED"


def test_ws_cut_at_once_and_again(fresh: LiveClient) -> None:
    one, two = fresh.socket("/ws/btcusdt@kline_1m"), fresh.socket("/stream")
    one.read()
    fresh.control("fault", kind="ws_cut", count=2)
    for socket in (one, two):
        with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionResetError)):
            socket.drain()
        socket.raw.shutdown()
    three = fresh.socket("/ws/btcusdt@kline_1m")
    with pytest.raises((websocket.WebSocketConnectionClosedException, ConnectionResetError)):
        three.read()
    three.raw.shutdown()
    four = fresh.socket("/ws/btcusdt@kline_1m")
    four.read()
    four.close()


def test_ws_silent_is_open_without_data_while_new_connections_work(fresh: LiveClient) -> None:
    socket = fresh.socket("/ws/btcusdt@kline_1m")
    socket.read()
    before = fresh.clock.now_ms()
    fresh.control("fault", kind="ws_silent", ms=2500, count=1)
    after = fresh.clock.now_ms()
    other = fresh.socket("/ws/btcusdt@kline_1m")
    meanwhile = other.read()
    seen = socket.klines_until(lambda events: events[-1]["E"] > after)
    assert seen[-1]["E"] >= before + 2490, "it goes on when the time is over"
    assert meanwhile["E"] < seen[-1]["E"]
    socket.close()
    other.close()


def test_ws_frame_is_sent_as_it_is(fresh: LiveClient) -> None:
    fresh.control("fault", kind="ws_frame", text="{not json", count=2)
    socket = fresh.socket("/ws/btcusdt@kline_1m")
    seen = [socket.raw.recv() for _ in range(5)]
    socket.close()
    assert seen.count("{not json") == 2
    assert json.loads(seen[-1])["e"] == "kline"


def test_ws_duplicate_and_late(fresh: LiveClient) -> None:
    socket = fresh.socket("/ws/btcusdt@kline_1m")
    earlier = [socket.read(), socket.read()]
    fresh.control("fault", kind="ws_duplicate", count=1)
    after = fresh.clock.now_ms()
    seen = socket.klines_until(lambda events: sum(event["E"] > after for event in events) >= 4)
    assert sum(a == b for a, b in pairwise(seen)) == 1
    fresh.control("fault", kind="ws_late", count=1)
    after = fresh.clock.now_ms()
    events = socket.klines_until(lambda events: sum(event["E"] > after for event in events) >= 4)
    late = [b for a, b in pairwise(events) if b["E"] < a["E"]]
    assert len(late) == 1
    assert late[0] in [*earlier, *seen, *events]
    socket.close()


def test_state(fresh: LiveClient) -> None:
    fresh.signed("POST", ORDER, **BUY, newClientOrderId="good")
    fresh.signed("POST", ORDER, **{**BUY, "quantity": "0.000001"}, newClientOrderId="bad")
    fresh.get("/api/v3/ping")
    fresh.socket("/ws/btcusdt@kline_1m").close()
    state = fresh.state()
    assert set(state) == {"orders", "fills", "balances", "requests", "reused_client_order_ids"}
    good, bad = state["orders"]
    assert good == last_order(fresh, "good").json
    assert (bad["clientOrderId"], bad["status"], bad["reject"], bad["origQty"]) == (
        "bad",
        "REJECTED",
        -1013,
        "0.00000100",
    )
    trades = fresh.signed("GET", "/api/v3/myTrades", symbol="BTCUSDT").json
    assert state["fills"] == [{**trade, "clientOrderId": "good"} for trade in trades]
    assert state["fills"][0]["isBuyer"] is True
    assert set(state["balances"]) == {"USDT", "BTC"}
    assert state["requests"] == {"/api/v3/order": 2, "/api/v3/ping": 1, "/ws": 1}
