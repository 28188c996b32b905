"""Kline streams over a real socket: paths, control messages, pings, cuts."""

import json
from decimal import Decimal
from itertools import pairwise
from statistics import median
from typing import Any

import pytest
import websocket

from bot.supervision.testing import ManualClock
from tests.simulator.support import NOW, LiveClient, quick, running

METHODS = "`SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`, `SET_PROPERTY`, `GET_PROPERTY`"


def test_raw_stream(live: LiveClient) -> None:
    socket = live.socket("/ws/btcusdt@kline_1m")
    event = socket.read()
    socket.close()
    assert list(event) == ["e", "E", "s", "k"]
    kline = event["k"]
    assert list(kline) == ["t", "T", "s", "i", "f", "L", "o", "c", "h", "l", "v", "n", "x", "q", "V", "Q", "B"]
    assert (event["e"], event["s"], kline["s"], kline["i"], kline["B"]) == ("kline", "BTCUSDT", "BTCUSDT", "1m", "0")
    assert all(isinstance(kline[key], str) for key in "ochlvqVQ")
    assert all(isinstance(kline[key], int) for key in "tTfLn")
    assert kline["T"] == kline["t"] + 59_999
    assert kline["t"] <= event["E"] <= kline["T"] + 1000
    assert Decimal(kline["l"]) <= Decimal(kline["c"]) <= Decimal(kline["h"])


def test_several_in_one_raw_path(live: LiveClient) -> None:
    socket = live.socket("/ws/btcusdt@kline_1m/ethusdt@kline_5m")
    seen = {(e["s"], e["k"]["i"]) for e in (socket.read() for _ in range(6))}
    socket.close()
    assert seen == {("BTCUSDT", "1m"), ("ETHUSDT", "5m")}


@pytest.mark.parametrize(
    "path",
    ["/stream?streams=btcusdt@kline_1m/dogeusdt@kline_1h", "/stream?streams=btcusdt%40kline_1m/dogeusdt%40kline_1h"],
)
def test_combined(live: LiveClient, path: str) -> None:
    socket = live.socket(path)
    frames = [socket.read() for _ in range(6)]
    socket.close()
    assert {f["stream"] for f in frames} == {"btcusdt@kline_1m", "dogeusdt@kline_1h"}
    assert all(f["stream"] == f"{f['data']['s'].lower()}@kline_{f['data']['k']['i']}" for f in frames)


def test_all_intervals_at_once() -> None:
    intervals = ["1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M"]
    with running(symbols=("BTCUSDT",), clock=ManualClock(NOW)) as client:
        socket = client.socket("/stream")
        assert socket.ask(method="SUBSCRIBE", params=[f"btcusdt@kline_{i}" for i in intervals], id=1)["result"] is None
        seen: dict[str, Any] = {}
        while len(seen) < len(intervals):
            event = socket.read_kline()
            seen[event["k"]["i"]] = event["k"]
        socket.close()
    assert all(k["t"] <= seen["1m"]["t"] and k["T"] >= seen["1m"]["T"] for i, k in seen.items() if i != "1s")


def test_control_messages(live: LiveClient) -> None:
    socket = live.socket("/ws")
    name = "btcusdt@kline_1m"
    assert socket.ask(method="SUBSCRIBE", params=[name, "BTCUSDT@KLINE_1M"], id=1) == {"result": None, "id": 1}
    assert socket.read_kline()["s"] == "BTCUSDT"
    assert socket.ask(method="LIST_SUBSCRIPTIONS", id="three-3") == {
        "result": [name, "BTCUSDT@KLINE_1M"],
        "id": "three-3",
    }
    assert socket.ask(method="UNSUBSCRIBE", params=[name], id=None) == {"result": None, "id": None}
    assert socket.ask(method="LIST_SUBSCRIPTIONS", id=-4) == {"result": ["BTCUSDT@KLINE_1M"], "id": -4}
    socket.close()


def test_properties(live: LiveClient) -> None:
    socket = live.socket("/ws/btcusdt@kline_1m")
    assert socket.ask(method="GET_PROPERTY", params=["combined"], id=2) == {"result": False, "id": 2}
    assert socket.ask(method="SET_PROPERTY", params=["combined", True], id=5) == {"result": None, "id": 5}
    assert socket.read()["stream"] == "btcusdt@kline_1m"
    socket.close()
    combined = live.socket("/stream")
    assert combined.ask(method="GET_PROPERTY", params=["combined"], id=2)["result"] is True
    combined.close()


def column(text: str, part: str) -> int:
    return text.index(part) + len(part)


UNKNOWN = '{"method":"JUMP","params":["x"],"id":1}'
ERRORS = {
    '{"method":"GET_PROPERTY","params":["speed"],"id":9}': {"code": 0, "msg": "Unknown property", "id": 9},
    '{"method":"SET_PROPERTY","params":["combined","yes"],"id":9}': {
        "code": 1,
        "msg": "Invalid value type: expected Boolean",
    },
    '{"method":"SET_PROPERTY","params":[1,true],"id":9}': {
        "code": 2,
        "msg": "Invalid request: property name must be a string",
    },
    '{"method":"LIST_SUBSCRIPTIONS","id":1.5}': {
        "code": 2,
        "msg": "Invalid request: request ID must be an unsigned integer",
    },
    '{"method":"GET_PROPERTY","params":["combined",1],"id":9}': {
        "code": 2,
        "msg": "Invalid request: too many parameters",
    },
    '{"id":9}': {"code": 2, "msg": "Invalid request: missing field `method` at line 1 column 8"},
    UNKNOWN: {
        "code": 2,
        "msg": f"Invalid request: unknown variant JUMP, expected one of {METHODS} "
        f"at line 1 column {column(UNKNOWN, 'JUMP') + 1}",
    },
    "hello": {"code": 3, "msg": "Invalid JSON: expected value at line 1 column 1"},
}


@pytest.mark.parametrize("text", ERRORS)
def test_control_errors(live: LiveClient, text: str) -> None:
    socket = live.socket("/ws")
    assert socket.ask_text(text) == ERRORS[text]
    socket.close()


def test_a_client_ping_is_answered_and_the_sixth_message_in_a_second_ends_it(live: LiveClient) -> None:
    socket = live.socket("/ws")
    socket.raw.ping("abc")
    opcode, data = socket.raw.recv_data(control_frame=True)
    assert (opcode, data) == (websocket.ABNF.OPCODE_PONG, b"abc")
    for number in range(5):
        socket.raw.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
    for _ in range(4):
        assert socket.raw.recv_data(control_frame=True)[0] == websocket.ABNF.OPCODE_TEXT
    while (frame := socket.raw.recv_data(control_frame=True))[0] == websocket.ABNF.OPCODE_TEXT:
        socket.raw.send("{}")  # a pause of the machine let the second pass
    opcode, data = frame
    assert opcode == websocket.ABNF.OPCODE_CLOSE
    assert int.from_bytes(data[:2]) == 1008
    socket.close()


def test_server_pings_and_drops_who_does_not_answer() -> None:
    with running(quick(ping_every_ms=40), symbols=("BTCUSDT",)) as client:
        good = client.socket("/ws")
        for _ in range(3):
            opcode, data = good.raw.recv_data_frame(control_frame=True)  # answers pings itself
            assert opcode == websocket.ABNF.OPCODE_PING
        good.close()
    with running(quick(ping_every_ms=40, pong_within_ms=200), symbols=("BTCUSDT",)) as client:
        quiet = client.socket("/ws")
        quiet.raw.pong = lambda payload: None
        while True:
            opcode, data = quiet.raw.recv_data(control_frame=True)
            if opcode != websocket.ABNF.OPCODE_PING:
                break
        assert (opcode, int.from_bytes(data[:2])) == (websocket.ABNF.OPCODE_CLOSE, 1008)
        quiet.raw.shutdown()


def test_unsolicited_pongs_do_not_keep_alive() -> None:
    with running(quick(ping_every_ms=250, pong_within_ms=600), symbols=("BTCUSDT",)) as client:
        socket = client.socket("/ws")
        answer = socket.raw.pong
        socket.raw.pong = lambda payload: answer(b"")
        opcode = websocket.ABNF.OPCODE_PING
        while opcode == websocket.ABNF.OPCODE_PING:
            opcode, data = socket.raw.recv_data(control_frame=True)
        assert (opcode, data[2:]) == (websocket.ABNF.OPCODE_CLOSE, b"Pong timeout")
        socket.raw.shutdown()


def test_a_connection_is_cut_after_its_life() -> None:
    with running(quick(connection_life_ms=150), symbols=("BTCUSDT",)) as client:
        socket = client.socket("/ws")
        opcode, _ = socket.raw.recv_data(control_frame=True)
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        socket.raw.shutdown()


def test_too_many_streams_and_connections() -> None:
    limits = quick(streams_per_connection=2, connections_per_5_minutes=2)
    with running(limits, clock=ManualClock(NOW), symbols=("BTCUSDT",)) as client:
        socket = client.socket("/ws")
        assert socket.ask(method="SUBSCRIBE", params=["a", "b", "c"], id=1)["code"] == 2
        assert socket.ask(method="SUBSCRIBE", params=["a", "b"], id=1)["result"] is None
        client.socket("/ws").close()
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            client.socket("/ws")
        assert refused.value.status_code == 429
        socket.close()


def test_microseconds(live: LiveClient) -> None:
    socket = live.socket("/ws/btcusdt@kline_1m?timeUnit=MICROSECOND")
    event = socket.read()
    socket.close()
    assert event["E"] > 10**15
    assert event["k"]["T"] - event["k"]["t"] == 60_000_000 - 1


def test_us_ids_are_unsigned_integers_and_1s_is_silent() -> None:
    with running(profile_name="us", symbols=("BTCUSDT",)) as client:
        socket = client.socket("/ws/btcusdt@kline_1s")
        for bad in ("x", None, -1):
            assert socket.ask(method="LIST_SUBSCRIPTIONS", id=bad)["code"] == 2
        socket.raw.settimeout(0.3)
        with pytest.raises(websocket.WebSocketTimeoutException):
            socket.read()
        socket.raw.shutdown()


def test_closed_once_then_the_next_candle() -> None:
    """At 600 times the speed of the clock a minute passes in 0.1 s."""
    with running(symbols=("BTCUSDT",), speed=Decimal(600), interval_ms=10) as client:
        socket = client.socket("/ws/btcusdt@kline_1m/btcusdt@kline_5m")
        events = [socket.read() for _ in range(150)]
        socket.close()
        rows = client.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=1000).json
    ones = [e for e in events if e["k"]["i"] == "1m"]
    closed = [e["k"]["t"] for e in ones if e["k"]["x"]]
    assert len(closed) > 5
    assert len(set(closed)) == len(closed)
    keys = [(e["k"]["t"], e["k"]["x"], e["E"]) for e in ones]
    assert keys == sorted(keys)
    assert [b - a for a, b in pairwise(closed)] == [60_000] * (len(closed) - 1)
    by_open = {row[0]: row for row in rows}
    for event in ones:
        k = event["k"]
        if k["x"]:
            row = by_open[k["t"]]
            assert [k["o"], k["h"], k["l"], k["c"], k["v"], k["T"], k["q"], k["n"]] == row[1:9]
    assert any(e["k"]["x"] for e in events if e["k"]["i"] == "5m")


def test_the_stream_goes_at_its_pace(live: LiveClient) -> None:
    socket = live.socket("/ws/ethusdt@kline_1m")
    events = [socket.read() for _ in range(40)]
    socket.close()
    steps = [b["E"] - a["E"] for a, b in pairwise(events)]
    assert 20 <= median(steps) <= 20 * 40, "whatever pauses the machine makes"
