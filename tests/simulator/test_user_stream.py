"""The WebSocket API and the user data stream over real sockets: order of frames, faults, listenKeys, cuts."""

import json
import random
import select
import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import websocket

from bot.simulator.profiles import PROFILES
from bot.supervision.testing import ManualClock
from tests.simulator.support import NOW, PATIENCE_S, LiveClient, Socket, WsApiSocket, quick, running, ws_signed

ORDER = {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.0005"}
KEYS = "/api/v3/userDataStream"
CUT = (websocket.WebSocketConnectionClosedException, ConnectionError)


@pytest.fixture(scope="module")
def wide() -> Iterator[LiveClient]:
    """An exchange with money for all tests of the module."""
    with running(symbols=("BTCUSDT",)) as client:
        client.control("balance", asset="USDT", free="1000000")
        yield client


@pytest.fixture
def listener(wide: LiveClient) -> Iterator[WsApiSocket]:
    socket = wide.user_stream()
    yield socket
    socket.raw.shutdown()


def executions(events: list[Any]) -> list[str]:
    return [event["x"] for event in events if event["e"] == "executionReport"]


def is_quiet(socket: Socket, seconds: float = 0.15) -> bool:
    socket.raw.settimeout(seconds)
    try:
        socket.raw.recv()
    except websocket.WebSocketTimeoutException:
        return True
    finally:
        socket.raw.settimeout(PATIENCE_S)
    return False


def test_an_order_by_rest_is_told(wide: LiveClient, listener: WsApiSocket) -> None:
    placed = wide.order(quantity="0.0005", newClientOrderId="told").json
    events = listener.events_until("outboundAccountPosition")
    assert executions(events)[0] == "NEW"
    assert set(executions(events)[1:]) == {"TRADE"}
    assert {e["c"] for e in events[:-1]} == {"told"}
    assert [e["t"] for e in events[1:-1]] == [f["tradeId"] for f in placed["fills"]]
    free = {b["a"]: b["f"] for b in events[-1]["B"]}
    assert {asset: wide.state()["balances"][asset]["free"] for asset in free} == free


def test_an_order_by_the_websocket_api_is_told_before_its_reply(listener: WsApiSocket) -> None:
    reply = listener.signed("order.place", **ORDER)
    assert reply["result"]["status"] == "FILLED"
    kept = [frame["event"]["e"] for frame in listener._kept]
    assert kept[-1] == "outboundAccountPosition"
    assert set(kept[:-1]) == {"executionReport"}


def test_events_leave_before_the_reply_of_rest(wide: LiveClient, listener: WsApiSocket) -> None:
    for _ in range(20):
        wide.order(quantity="0.0005")
        readable, _, _ = select.select([listener.raw.sock], [], [], 0)
        assert readable
        listener.events_until("outboundAccountPosition")


def test_every_subscriber_is_told(wide: LiveClient, listener: WsApiSocket) -> None:
    other, stranger = wide.user_stream("?timeUnit=MICROSECOND"), wide.ws_api()
    wide.order(quantity="0.0005")
    assert executions(listener.events_until("outboundAccountPosition"))[0] == "NEW"
    in_micro = other.events_until("outboundAccountPosition")
    assert all(event["E"] > 10**15 for event in in_micro)
    assert all(event[key] > 10**15 for event in in_micro[:-1] for key in "TOW")
    assert is_quiet(stranger)
    assert other.request("userDataStream.unsubscribe")["result"] == {}
    assert other.event()["e"] == "eventStreamTerminated"
    wide.order(quantity="0.0005")
    assert is_quiet(other)
    other.close()
    stranger.close()


def test_the_stream_tells_the_whole_account() -> None:
    """Orders by both ways, some filled later by the market: what was told is what there is in the end."""
    rng = random.Random(5)
    with running(symbols=("BTCUSDT",), interval_ms=10) as client:
        listener, api = client.user_stream(), client.ws_api()
        told = {b["asset"]: (b["free"], b["locked"]) for b in client.signed("GET", "/api/v3/account").json["balances"]}
        for number in range(120):
            price = Decimal(client.get("/api/v3/ticker/price", symbol="BTCUSDT").json["price"])
            side = rng.choice(["BUY", "SELL"])
            order = {**ORDER, "side": side, "quantity": f"0.00{rng.randint(10, 90)}"}
            if rng.random() < 0.6:
                near = price * (1000 + rng.randint(-2, 8) * (-1 if side == "BUY" else 1)) / 1000
                order |= {"type": "LIMIT", "timeInForce": "GTC", "price": f"{near:.2f}"}
            if number % 2:
                client.order(**order)
            else:
                api.signed("order.place", **order)
        api.signed("openOrders.cancelAll", symbol="BTCUSDT")
        client.control("balance", asset="XRP", free="1")  # the last that is told
        trades: list[Any] = []
        makers = 0
        while "XRP" not in told:
            event = listener.event()
            if event["e"] == "outboundAccountPosition":
                told |= {b["a"]: (b["f"], b["l"]) for b in event["B"]}
            elif event.get("x") == "TRADE":
                trades.append([event[key] for key in ("t", "i", "L", "l", "n", "N")])
                makers += event["m"]
        account = client.signed("GET", "/api/v3/account").json["balances"]
        assert told == {b["asset"]: (b["free"], b["locked"]) for b in account}
        keys = ("id", "orderId", "price", "qty", "commission", "commissionAsset")
        fills = client.signed("GET", "/api/v3/myTrades", symbol="BTCUSDT", limit=1000).json
        assert trades == [[fill[key] for key in keys] for fill in fills]
        assert makers > 3
        api.close()
        listener.close()


def test_late_events_come_after_the_reply_and_in_order(wide: LiveClient, listener: WsApiSocket) -> None:
    wide.control("fault", kind="user_late", ms=500)
    began = time.monotonic()
    first = listener.signed("order.place", **ORDER)["result"]["orderId"]
    assert not listener._kept
    second = listener.signed("order.place", **ORDER)["result"]["orderId"]
    assert second not in [frame["event"].get("i") for frame in listener._kept]
    events = listener.events_until("outboundAccountPosition")
    assert time.monotonic() - began >= 0.5
    events += listener.events_until("outboundAccountPosition")
    ids = [event["i"] for event in events if "i" in event]
    assert ids == sorted(ids)
    assert set(ids) == {first, second}


def test_a_delayed_reply_comes_long_after_the_events(wide: LiveClient, listener: WsApiSocket) -> None:
    wide.control("fault", kind="delay", ms=200, path="/ws-api/v3", method="order.place")
    began = time.monotonic()
    listener.post("order.place", ws_signed(wide, dict(ORDER)))
    listener.events_until("outboundAccountPosition")
    assert listener.read()["status"] == 200
    assert time.monotonic() - began >= 0.19


def test_events_sent_twice_and_not_at_all(wide: LiveClient, listener: WsApiSocket) -> None:
    wide.control("fault", kind="user_duplicate", count=2)
    placed = wide.limit(quantity="0.01", price="20000").json
    events = [listener.event() for _ in range(4)]
    assert executions(events) == ["NEW", "NEW"]
    assert events[0] == events[1]
    assert events[2] == events[3]
    wide.control("fault", kind="user_lost", count=2)
    wide.signed("DELETE", "/api/v3/order", symbol="BTCUSDT", orderId=placed["orderId"])
    assert is_quiet(listener)


def test_user_data_is_cut_and_market_data_is_not(wide: LiveClient) -> None:
    listener, market, plain = wide.user_stream(), wide.socket("/ws/btcusdt@kline_1m"), wide.ws_api()
    wide.control("fault", kind="user_cut")
    with pytest.raises(CUT):
        listener.read()
    assert market.read()["e"] == "kline"
    assert plain.request("ping")["status"] == 200
    again = wide.user_stream()
    wide.control("fault", kind="ws_cut")
    with pytest.raises(CUT):
        market.drain()
    assert again.request("ping")["status"] == 200
    for socket in (plain, again):
        socket.close()


def test_user_data_falls_silent(wide: LiveClient, listener: WsApiSocket) -> None:
    began = time.monotonic()
    wide.control("fault", kind="user_silent", ms=500)
    wide.order(quantity="0.0005")
    while is_quiet(listener):
        assert time.monotonic() < began + 60, "it stays silent"
        wide.order(quantity="0.0005")
    assert time.monotonic() - began >= 0.49
    wide.order(quantity="0.0005", newClientOrderId="after")
    assert next(event for event in iter(listener.event, None) if event.get("c") == "after")["x"] == "NEW"


def test_a_foreign_frame(wide: LiveClient, listener: WsApiSocket) -> None:
    wide.control("fault", kind="user_frame", text="{]")
    assert listener.raw.recv() == "{]"


@pytest.mark.parametrize("kind", ["ws_api_lost_no_reply", "order_lost_no_reply"])
def test_an_order_is_lost_without_a_reply(wide: LiveClient, kind: str) -> None:
    before = len(wide.state()["orders"])
    wide.control("fault", kind=kind)
    socket = wide.ws_api()
    with pytest.raises(CUT):
        socket.signed("order.place", **ORDER)
    assert len(wide.state()["orders"]) == before


@pytest.mark.parametrize("kind", ["ws_api_executed_no_reply", "order_executed_no_reply"])
def test_an_order_is_executed_without_a_reply(wide: LiveClient, listener: WsApiSocket, kind: str) -> None:
    wide.control("fault", kind=kind)
    socket = wide.ws_api()
    with pytest.raises(CUT):
        socket.signed("order.place", **ORDER, newClientOrderId=kind)
    assert listener.events_until("outboundAccountPosition")[0]["c"] == kind
    again = wide.ws_api()
    found = again.signed("order.status", symbol="BTCUSDT", origClientOrderId=kind)["result"]
    assert found["status"] == "FILLED"
    again.close()


def test_a_connection_that_is_cut_hears_no_event_of_its_order(wide: LiveClient) -> None:
    socket = wide.user_stream()
    wide.control("fault", kind="ws_api_executed_no_reply")
    before = len(wide.state()["orders"])
    socket.post("order.place", ws_signed(wide, dict(ORDER)))
    with pytest.raises(CUT):
        socket.read()
    assert len(wide.state()["orders"]) == before + 1


def test_faults_of_the_websocket_api_alone_leave_rest_alone(wide: LiveClient) -> None:
    wide.control("fault", kind="ws_api_lost_no_reply")
    assert wide.order(quantity="0.0005").status == 200
    with pytest.raises(CUT):
        wide.ws_api().signed("order.place", **ORDER)


def test_an_order_is_executed_and_answered_with_5xx(wide: LiveClient) -> None:
    socket = wide.ws_api()
    wide.control("fault", kind="order_executed_5xx")
    reply = socket.signed("order.place", **ORDER, newClientOrderId="five")
    assert (reply["status"], reply["error"]["code"]) == (504, -1007)
    assert socket.signed("order.status", symbol="BTCUSDT", origClientOrderId="five")["result"]["status"] == "FILLED"
    wide.control("fault", kind="order_executed_5xx", status=503, body="<html>busy</html>")
    socket.post("order.place", ws_signed(wide, dict(ORDER)))
    assert socket.raw.recv() == "<html>busy</html>"
    socket.close()


def test_given_replies(wide: LiveClient) -> None:
    socket = wide.ws_api()
    body = '{"code":-1008,"msg":"Server is currently overloaded."}'
    wide.control("fault", kind="reply", status=503, body=body, path="/api/v3/order", method="POST")
    assert socket.signed("account.status")["status"] == 200
    assert socket.signed("order.place", **ORDER) == {"id": 1, "status": 503, "error": json.loads(body)}
    wide.control("fault", kind="reply", status=200, body='{"serverTime":1}', path="/ws-api/v3", method="time")
    assert socket.request("time") == {"id": 1, "status": 200, "result": {"serverTime": 1}}
    wide.control("fault", kind="reply", status=200, body="[", path="/ws-api/v3", method="time")
    socket.post("time", {})
    assert socket.raw.recv() == "["
    socket.close()


def test_the_clock_can_be_wrong(wide: LiveClient) -> None:
    socket = wide.ws_api()
    wide.control("fault", kind="clock_skew", ms=90_000, count=1)
    assert socket.signed("order.place", **ORDER)["error"]["code"] == -1021
    assert socket.signed("order.place", **ORDER)["status"] == 200
    socket.close()


def test_deposits_are_told(wide: LiveClient, listener: WsApiSocket) -> None:
    assert wide.control("balance", asset="XRP", free="12.5").json == {}
    update, position = listener.event(), listener.event()
    assert (update["e"], update["a"], update["d"]) == ("balanceUpdate", "XRP", "12.50000000")
    assert position["B"] == [{"a": "XRP", "f": "12.50000000", "l": "0.00000000"}]
    assert wide.balance("XRP") == (12.5, 0)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"asset": "BTC"}, "the body must be"),
        ({"asset": "btc", "free": "1"}, "upper-case"),
        ({"asset": "BTC", "free": "-1"}, "at least 0"),
        ({"asset": "BTC", "free": "1e-9"}, "at most 8 decimals"),
        ({"asset": "BTC", "free": "much"}, "must be a number"),
    ],
)
def test_bad_balances(wide: LiveClient, values: dict[str, str], says: str) -> None:
    answer = wide.control("balance", **values)
    assert answer.status == 400
    assert says in answer.json


def test_limits_can_be_left_out_by_url(wide: LiveClient) -> None:
    socket = wide.ws_api("?returnRateLimits=false")
    assert socket.request("ping") == {"id": 1, "status": 200, "result": {}}
    socket.close()


def test_connecting_has_its_weight_and_its_limit() -> None:
    with running(quick(connections_per_5_minutes=2), clock=ManualClock(NOW), symbols=("BTCUSDT",)) as client:
        socket = client.ws_api()
        assert socket.request("ping")["rateLimits"][0]["count"] == 3
        client.ws_api().close()
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            client.ws_api()
        assert refused.value.status_code == 429
        assert client.state()["requests"] == {"/ws-api/v3": 3, "ping": 1}
        socket.close()


def test_many_messages_are_no_offence_here(wide: LiveClient) -> None:
    socket = wide.ws_api()
    for number in range(30):
        socket.post("ping", {}, number)
    assert [socket.read()["id"] for _ in range(30)] == list(range(30))
    socket.raw.ping("abc")
    assert socket.raw.recv_data(control_frame=True) == (websocket.ABNF.OPCODE_PONG, b"abc")
    socket.close()


def test_pings_pongs_and_the_last_day() -> None:
    with running(quick(ping_every_ms=40, pong_within_ms=150), symbols=("BTCUSDT",)) as client:
        quiet = client.ws_api()
        quiet.raw.pong = lambda payload: None
        opcode = websocket.ABNF.OPCODE_PING
        while opcode == websocket.ABNF.OPCODE_PING:
            opcode, data = quiet.raw.recv_data(control_frame=True)
        assert (opcode, data[2:]) == (websocket.ABNF.OPCODE_CLOSE, b"Pong timeout")
        quiet.raw.shutdown()
    with running(quick(connection_life_ms=100), symbols=("BTCUSDT",)) as client:
        opcode, data = client.ws_api().raw.recv_data(control_frame=True)
        assert (opcode, data[2:]) == (websocket.ABNF.OPCODE_CLOSE, b"24 hours")


def test_a_shutdown_is_announced_to_each_in_its_form_and_then_it_ends(wide: LiveClient) -> None:
    raw, combined, api = wide.socket("/ws"), wide.socket("/stream"), wide.ws_api("?timeUnit=MICROSECOND")
    began = time.monotonic()
    wide.control("fault", kind="server_shutdown", ms=200)
    bare = raw.read()
    assert bare == {"e": "serverShutdown", "E": bare["E"]}
    assert combined.read() == {"stream": "!serverShutdown", "data": bare}
    assert api.read() == {"event": {"e": "serverShutdown", "E": bare["E"] * 1000}}
    for socket in (raw, combined, api):
        opcode, data = socket.raw.recv_data(control_frame=True)
        assert (opcode, int.from_bytes(data[:2])) == (websocket.ABNF.OPCODE_CLOSE, 1001)
    assert time.monotonic() - began >= 0.2
    again = wide.ws_api()
    assert again.request("ping")["status"] == 200
    again.close()


def test_a_banned_address_is_disconnected() -> None:
    limits = quick(weight_per_minute=10, strikes_before_ban=1)
    with running(limits, clock=ManualClock(NOW), symbols=("BTCUSDT",)) as client:
        socket, other = client.ws_api(), client.ws_api()
        statuses = [socket.request("ping")["status"] for _ in range(8)]
        assert statuses == [200] * 6 + [429, 418]
        for each in (socket, other):
            opcode, _ = each.raw.recv_data(control_frame=True)
            assert opcode == websocket.ABNF.OPCODE_CLOSE
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            client.ws_api()
        assert refused.value.status_code == 418


def test_a_ban_by_rest_disconnects_too() -> None:
    with running(symbols=("BTCUSDT",)) as client:
        socket = client.ws_api()
        client.control("fault", kind="error", code=-1003, status=418, retry_after=1)
        assert client.get("/api/v3/ping").status == 418
        opcode, _ = socket.raw.recv_data(control_frame=True)
        assert opcode == websocket.ABNF.OPCODE_CLOSE


def test_listen_keys_of_us() -> None:
    profile, clock = replace(PROFILES["us"], listen_key_life_ms=1500), ManualClock(NOW)
    with running(profile, profile_name="us", clock=clock, symbols=("BTCUSDT",)) as client:

        def ask(method: str, key: str | None = None) -> Any:
            query = f"listenKey={key}" if key is not None else ""
            return client._send(method, KEYS, query, "", {"x-mbx-apikey": client.key})

        key = ask("POST").json["listenKey"]
        assert len(key) == 64
        assert ask("POST").json == {"listenKey": key}
        raw, combined = client.socket(f"/ws/{key}"), client.socket(f"/stream?streams={key}/btcusdt@kline_1m")
        late = client.socket("/ws")
        assert late.ask(method="SUBSCRIBE", params=[key], id=1)["result"] is None
        by_ws_api = client.user_stream()
        client.order(quantity="0.0005")
        event = raw.read()
        assert (event["e"], event["x"]) == ("executionReport", "NEW")
        assert late.read() == event
        assert by_ws_api.event() == event
        frame = combined.read()
        while frame["stream"] != key:
            frame = combined.read()
        assert frame == {"stream": key, "data": event}
        clock.advance(1000)
        assert ask("PUT", key).json == {}
        clock.advance(1000)
        assert ask("PUT", key).json == {}
        clock.advance(1500)
        while (event := raw.read())["e"] != "listenKeyExpired":
            pass
        assert event["listenKey"] == key
        assert ask("PUT", key).error == (400, -1125, "This listenKey does not exist.")
        assert ask("DELETE", key).code == -1125
        fresh = ask("POST").json["listenKey"]
        assert fresh != key
        assert ask("DELETE", fresh).json == {}
        client.order(quantity="0.0005")
        assert is_quiet(raw)
        assert ask("PUT").code == -1102
        assert client._send("POST", KEYS, "", "", {}).code == -2014
        cut = client.socket(f"/ws/{ask('POST').json['listenKey']}")
        client.control("fault", kind="user_cut")
        with pytest.raises(CUT):
            cut.read()
        assert client.state()["requests"]["/ws"] == 3
        for socket in (raw, combined, late):
            socket.raw.shutdown()


def test_listen_keys_are_gone_on_com(wide: LiveClient) -> None:
    for method in ("POST", "PUT", "DELETE"):
        gone = wide._send(method, KEYS, "", "", {"x-mbx-apikey": wide.key})
        assert gone.status == 410
        assert gone.headers["content-type"].startswith("text/html")
        assert "<center>nginx</center>" in gone.json


def test_a_plain_request_is_no_handshake(wide: LiveClient) -> None:
    assert wide.get("/ws-api/v3").status == 400
