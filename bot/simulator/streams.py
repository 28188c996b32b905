"""Decides what websocket clients get: kline frames, answers to control messages, pings, and when they are cut off.

Source: Binance, WebSocket streams.
"""

import asyncio
import json
import re
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Any

from aiohttp import WSMessage, web

from bot.simulator.amounts import text8
from bot.simulator.candles import Candle
from bot.simulator.connections import (
    CLOSE,
    POLICY_VIOLATION,
    TEXT,
    Connection,
    Connections,
    answer_control_frame,
    fall_silent,
    in_microseconds,
    new_socket,
    no_handshake,
    send_foreign,
)
from bot.simulator.exchange import Exchange
from bot.simulator.user_events import Event, told
from bot.simulator.user_stream import Receiver

METHODS = ("SUBSCRIBE", "UNSUBSCRIBE", "LIST_SUBSCRIPTIONS", "SET_PROPERTY", "GET_PROPERTY")
_ID = re.compile(r"[a-zA-Z0-9\-_]{1,36}")


class Frame:
    """One kline update as text, in the form that each kind of connection wants, written once each."""

    def __init__(self, stream: str, symbol: str, interval: str, candle: Candle, is_closed: bool, event_ms: int) -> None:
        self._stream = stream
        self._fields = (symbol, interval, candle, is_closed, event_ms)
        self._texts: dict[tuple[bool, bool], str] = {}
        self.text(is_combined=False, is_micro=False)  # the candle may change later

    def text(self, is_combined: bool, is_micro: bool) -> str:
        known = self._texts.get((is_combined, is_micro))
        if known is None:
            raw = self._raw(is_micro)
            known = f'{{"stream":"{self._stream}","data":{raw}}}' if is_combined else raw
            self._texts[is_combined, is_micro] = known
        return known

    def _raw(self, is_micro: bool) -> str:
        symbol, interval, c, is_closed, event = self._fields
        opened, closed = c.open_time, c.close_time
        if is_micro:
            event, opened, closed = event * 1000, opened * 1000, (closed + 1) * 1000 - 1
        return (
            f'{{"e":"kline","E":{event},"s":"{symbol}","k":{{"t":{opened},"T":{closed},"s":"{symbol}",'
            f'"i":"{interval}","f":{c.first_trade_id},"L":{c.last_trade_id},"o":"{text8(c.open)}",'
            f'"c":"{text8(c.close)}","h":"{text8(c.high)}","l":"{text8(c.low)}","v":"{text8(c.volume)}",'
            f'"n":{c.trades},"x":{"true" if is_closed else "false"},"q":"{text8(c.quote_volume)}",'
            f'"V":"{text8(c.taker_volume)}","Q":"{text8(c.taker_quote_volume)}","B":"0"}}}}'
        )


class ControlMessage(Exception):
    """A control message that is answered with an error; `reply` is the answer."""

    def __init__(self, code: int, text: str, **more: Any) -> None:
        super().__init__(text)
        self.reply = {"code": code, "msg": text, **more}


class StreamConnection(Connection):
    """A client of market streams: what it subscribed to and when it last sent something."""

    def __init__(
        self, socket: web.WebSocketResponse, request: web.BaseRequest, is_combined: bool, is_micro: bool
    ) -> None:
        super().__init__(socket, request, is_micro)
        self.streams: dict[str, None] = {}
        self.is_combined = is_combined
        self.received: deque[float] = deque(maxlen=64)

    def wrapped(self, event: Event) -> str:
        return _compact({"stream": f"!{event['e']}", "data": event} if self.is_combined else event)


class StreamHub:
    """The websocket connections of market streams. Its methods belong to the exchange's loop."""

    def __init__(self, exchange: Exchange, connections: Connections) -> None:
        self._exchange = exchange
        self._profile = exchange.profile
        self._all = connections
        self._connections: set[StreamConnection] = set()
        self._subscribers: dict[str, set[StreamConnection]] = {}
        self._last_frames: dict[str, Frame] = {}

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one websocket handshake and stay until the connection ends."""
        socket = new_socket(request)
        if socket is None:
            return no_handshake()
        path = request.path  # percent-decoded
        is_combined = path.rstrip("/") == "/stream"
        names = request.query.get("streams", "") if is_combined else path.removeprefix("/ws")
        await socket.prepare(request)
        connection = StreamConnection(socket, request, is_combined, in_microseconds(self._exchange, request))
        self._connections.add(connection)
        self._all.add(connection)
        try:
            self._subscribe(connection, [name for name in names.split("/") if name])
            await connection.serve(partial(self._received, connection))
        finally:
            self._all.discard(connection)
            self._connections.discard(connection)
            self._unsubscribe(connection, list(connection.streams))
        return socket

    def user_receivers(self) -> Iterator[Receiver]:
        """Yield those who listen to the account by a listenKey that is good."""
        key = self._exchange.listen_keys.active(self._exchange.now_ms())
        if key is not None:
            yield from self.listeners(key)

    def listeners(self, key: str) -> Iterator[Receiver]:
        """Yield the connections subscribed to `key`, with how an event is written to each."""
        for connection in list(self._subscribers.get(key, ())):
            yield connection, partial(_listen_key_frame, connection, key)

    async def watch_listen_keys(self) -> None:
        """Tell those who listen by a listenKey that it has run out."""
        exchange = self._exchange
        while True:
            await asyncio.sleep(min(1000, self._profile.listen_key_life_ms / 4) / 1000)
            now = exchange.now_ms()
            for key in exchange.listen_keys.take_expired(now):
                for connection, written in self.listeners(key):
                    connection.send(TEXT, written({"e": "listenKeyExpired", "E": now, "listenKey": key}))

    def publish(self, symbol: str, interval: str, candle: Candle, is_closed: bool, event_ms: int) -> None:
        """Send one kline update to those who subscribed to it. `event_ms`: market time."""
        stream = f"{symbol.lower()}@kline_{interval}"
        if not self._subscribers.get(stream):
            return
        self._fire_faults()
        receivers = list(self._subscribers.get(stream, ()))
        if not receivers:
            return
        faults = self._exchange.faults
        gap = faults.peek("ws_gap")
        if gap is not None and (is_closed or not gap.closed):
            faults.take("ws_gap")
            return
        frame = Frame(stream, symbol, interval, candle, is_closed, event_ms)
        frames = [frame]
        if faults.take("ws_duplicate"):
            frames.append(frame)
        earlier = self._last_frames.get(stream)
        if earlier is not None and faults.take("ws_late"):
            frames.append(earlier)
        self._last_frames[stream] = frame
        for connection in receivers:
            for each in frames:
                connection.send(TEXT, each.text(connection.is_combined, connection.is_micro))

    def subscribed(self, symbol: str) -> list[str]:
        """Return the intervals of `symbol` that somebody listens to."""
        prefix = f"{symbol.lower()}@kline_"
        return [
            name.removeprefix(prefix) for name, those in self._subscribers.items() if those and name.startswith(prefix)
        ]

    def fault_added(self) -> None:
        """Let a fault that waits for websocket connections happen now, if there are any."""
        if any(not connection.is_silent for connection in self._market_connections()):
            self._fire_faults()

    def _market_connections(self) -> list[StreamConnection]:
        """Return the connections that are no user data streams: those have faults of their own."""
        keys = self._exchange.listen_keys
        return [c for c in self._connections if not any(keys.was_given(name) for name in c.streams)]

    def _fire_faults(self) -> None:
        """Let one of each waiting kind happen to all open connections: cut, fall silent, or get a foreign frame."""
        faults = self._exchange.faults
        foreign = faults.take("ws_frame")
        if foreign is not None:
            send_foreign(self._market_connections(), foreign)
        silent = faults.take("ws_silent")
        if silent is not None:
            fall_silent(self._market_connections(), silent)
        if faults.take("ws_cut"):
            for connection in self._market_connections():
                connection.cut()
                self._unsubscribe(connection, list(connection.streams))

    def _received(self, connection: StreamConnection, message: WSMessage) -> None:
        now = asyncio.get_running_loop().time()
        received = connection.received
        while received and now - received[0] >= 1:
            received.popleft()
        received.append(now)
        if len(received) > self._profile.messages_per_second:
            connection.send(CLOSE, f"{POLICY_VIOLATION} Too many requests")
        elif not answer_control_frame(connection, message):
            try:
                reply = self._control(connection, str(message.data))
            except ControlMessage as refused:
                reply = refused.reply
            connection.send(TEXT, _compact(reply))

    def _control(self, connection: StreamConnection, text: str) -> dict[str, Any]:
        """Return the reply to one control message. Raises ControlMessage with the exact error."""
        try:
            message = json.loads(text)
        except json.JSONDecodeError as error:
            raise ControlMessage(
                3, f"Invalid JSON: expected value at line {error.lineno} column {error.colno}"
            ) from None
        if not isinstance(message, dict) or "method" not in message:
            raise ControlMessage(2, f"Invalid request: missing field `method` at line 1 column {len(text)}")
        method = message["method"]
        if method not in METHODS:
            named = re.search(r'"method"\s*:\s*"(?:[^"\\]|\\.)*"', text)
            expected = ", ".join(f"`{name}`" for name in METHODS)
            raise ControlMessage(
                2,
                f"Invalid request: unknown variant {method}, expected one of {expected} "
                f"at line 1 column {named.end() if named else len(text)}",
            )
        request_id = message.get("id")
        if not self._is_id(request_id):
            raise ControlMessage(2, "Invalid request: request ID must be an unsigned integer")
        params = message.get("params", [])
        if not isinstance(params, list):
            raise ControlMessage(2, f"Invalid request: missing field `params` at line 1 column {len(text)}")
        return {"result": self._perform(connection, method, params, request_id, text), "id": request_id}

    def _is_id(self, value: Any) -> bool:
        if isinstance(value, bool):
            return False
        if isinstance(value, int):
            return (-(2**63) if self._profile.signed_stream_ids else 0) <= value < 2**63
        return self._profile.signed_stream_ids and (
            value is None or (isinstance(value, str) and _ID.fullmatch(value) is not None)
        )

    def _perform(self, connection: StreamConnection, method: str, params: list[Any], request_id: Any, text: str) -> Any:
        if method == "LIST_SUBSCRIPTIONS":
            return list(connection.streams)
        if method in ("SUBSCRIBE", "UNSUBSCRIBE"):
            if not params or not all(isinstance(name, str) for name in params):
                raise ControlMessage(2, f"Invalid request: missing field `params` at line 1 column {len(text)}")
            if method == "UNSUBSCRIBE":
                self._unsubscribe(connection, params)
            elif len(connection.streams.keys() | set(params)) > self._profile.streams_per_connection:
                raise ControlMessage(2, "Invalid request: too many parameters")
            else:
                self._subscribe(connection, params)
            return None
        wanted = 2 if method == "SET_PROPERTY" else 1
        if len(params) > wanted:
            raise ControlMessage(2, "Invalid request: too many parameters")
        if not params or not isinstance(params[0], str):
            raise ControlMessage(2, "Invalid request: property name must be a string")
        if params[0] != "combined":
            raise ControlMessage(0, "Unknown property", id=request_id)
        if method == "GET_PROPERTY":
            return connection.is_combined
        if len(params) < 2 or not isinstance(params[1], bool):
            raise ControlMessage(1, "Invalid value type: expected Boolean")
        connection.is_combined = params[1]
        return None

    def _subscribe(self, connection: StreamConnection, names: list[str]) -> None:
        """Unknown names are taken and stay silent. Source: Binance, WebSocket streams; observed."""
        for name in names:
            symbol, _, interval = name.partition("@kline_")
            market = self._exchange.markets.get(symbol.upper())
            if market is not None and interval in market.series.intervals:
                market.series.view(interval)  # from now on its candles are built, so that each is seen to close
            connection.streams[name] = None
            self._subscribers.setdefault(name, set()).add(connection)

    def _unsubscribe(self, connection: StreamConnection, names: list[str]) -> None:
        for name in names:
            connection.streams.pop(name, None)
            those = self._subscribers.get(name, set())
            those.discard(connection)
            if not those:
                self._subscribers.pop(name, None)


def _listen_key_frame(connection: StreamConnection, key: str, event: Event) -> str:
    shown = told(event, connection.is_micro)
    return _compact({"stream": key, "data": shown} if connection.is_combined else shown)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def is_stream_path(path: str) -> bool:
    return path in ("/ws", "/stream", "/stream/") or path.startswith("/ws/")


def count_path(path: str) -> str:
    """Return under which name a request is counted: every raw stream path as /ws."""
    return "/ws" if path.startswith("/ws/") else "/stream" if path == "/stream/" else path
