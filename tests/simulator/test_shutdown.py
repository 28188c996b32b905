"""The announced shutdown in its three forms, gaps in a stream, and connections that live and ping faster than a day."""

import contextlib
import json
import time
from itertools import pairwise
from typing import Any

import pytest
import websocket

from tests.simulator.support import LiveClient, running

CLOSED = (websocket.WebSocketConnectionClosedException, ConnectionResetError)
STREAM = "btcusdt@kline_1m"


@pytest.fixture
def fresh() -> Any:
    with running(symbols=("BTCUSDT",)) as client:
        yield client


def until_closed(socket: Any) -> None:
    """Read until the server closes, with a close frame or without."""
    with contextlib.suppress(*CLOSED):
        while socket.raw.recv():
            pass
    socket.raw.shutdown()


def until_notice(socket: Any) -> Any:
    while "serverShutdown" not in (text := json.dumps(frame := socket.read())):
        assert "kline" in text
    return frame


def test_a_shutdown_is_announced_in_the_form_of_each_connection_and_then_cuts(fresh: LiveClient) -> None:
    raw, combined = fresh.socket(f"/ws/{STREAM}"), fresh.socket(f"/stream?streams={STREAM}")
    api = fresh.socket("/ws-api/v3")
    micro = fresh.socket(f"/ws/{STREAM}?timeUnit=MICROSECOND")
    begin = time.monotonic()
    now = fresh.clock.now_ms()
    fresh.control("fault", kind="server_shutdown", ms=400)
    notices = [until_notice(socket) for socket in (raw, combined, api, micro)]
    event = notices[0]
    assert event == {"e": "serverShutdown", "E": event["E"]}
    assert abs(event["E"] - now) < 60_000
    assert notices[1] == {"stream": "!serverShutdown", "data": event}
    assert notices[2] == {"event": event}
    assert notices[3]["E"] == event["E"] * 1000
    raw.read_kline()  # it goes on until then
    later = fresh.socket(f"/ws/{STREAM}")
    for socket in (raw, combined, micro, api):
        until_closed(socket)
    assert time.monotonic() - begin >= 0.4
    later.read_kline()  # one that was opened in time lives on
    later.close()


def test_a_shutdown_waits_for_the_first_connection(fresh: LiveClient) -> None:
    fresh.control("fault", kind="server_shutdown", ms=0)
    socket = fresh.socket(f"/ws/{STREAM}")
    until_notice(socket)
    until_closed(socket)


def test_a_gap_leaves_updates_out(fresh: LiveClient) -> None:
    socket = fresh.socket(f"/ws/{STREAM}")
    events = [socket.read_kline()]
    fresh.control("fault", kind="ws_gap", count=10)
    after = fresh.clock.now_ms()
    events += socket.klines_until(lambda more: more[-1]["E"] > after)
    assert max(b["E"] - a["E"] for a, b in pairwise(events)) >= 350  # updates come every 40 ms
    socket.close()


def test_a_gap_of_closed_candles_only() -> None:
    with running(symbols=("BTCUSDT",), interval_ms=20, profile_name="com") as client:
        socket = client.socket("/ws/btcusdt@kline_1s")
        socket.read_kline()
        client.control("fault", kind="ws_gap", count=1, closed=True)

        def left_open(events: list[Any]) -> list[int]:
            """The candles, of those that another one followed, that were not seen to close."""
            closed = {event["k"]["t"] for event in events if event["k"]["x"]}
            return [t for t in list(dict.fromkeys(event["k"]["t"] for event in events))[:-1] if t not in closed]

        events = socket.klines_until(lambda events: left_open(events) != [])
        (missed,) = left_open(events)
        events += socket.klines_until(lambda more: more[-1]["k"]["t"] >= missed + 3_000)
        assert left_open(events) == [missed]
        socket.close()


def test_connections_can_be_made_to_live_and_ping_faster() -> None:
    with running(symbols=("BTCUSDT",), connection_life_ms=2400, ping_every_ms=250, pong_within_ms=60_000) as client:
        begin = time.monotonic()
        socket = client.socket("/ws")
        pings = 0
        while True:
            code, data = socket.raw.recv_data(control_frame=True)
            if code == websocket.ABNF.OPCODE_CLOSE:
                break
            pings += code == websocket.ABNF.OPCODE_PING
        assert data[2:] == b"24 hours"
        assert 2.4 <= time.monotonic() - begin < 60  # a day, else
        assert pings >= 3
        socket.raw.shutdown()


def test_a_pong_that_does_not_come_in_time() -> None:
    with running(symbols=("BTCUSDT",), ping_every_ms=100, pong_within_ms=200) as client:
        begin = time.monotonic()
        socket = client.socket("/ws")
        socket.raw.pong = lambda payload: None  # type: ignore[method-assign]
        until_closed(socket)
        assert 0.3 <= time.monotonic() - begin < 60  # two minutes, else
