"""Decides how a websocket connection lives: frames wait their turn, pings must be answered, a day is the most.

Source: Binance, connection rules of WebSocket streams and of the WebSocket API.
"""

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from aiohttp import WSMessage, WSMsgType, web

from bot.simulator.exchange import Exchange
from bot.simulator.faults import Fault

PING, PONG, CLOSE, TEXT = "ping", "pong", "close", "text"
OUTBOX = 5000  # frames; a client that reads slower than this is cut
POLICY_VIOLATION = 1008
GOING_AWAY = 1001
LONGEST_MESSAGE = 65_536
UNITS = ("MICROSECOND", "microsecond", "MILLISECOND", "millisecond")


class Connection:
    """One client's socket and what waits to be sent. `is_micro`: times are told in microseconds."""

    def __init__(self, socket: web.WebSocketResponse, request: web.BaseRequest, is_micro: bool) -> None:
        loop = asyncio.get_running_loop()
        self.is_micro = is_micro
        self.opened = loop.time()
        self.silent_until = 0.0
        self.pinged: float | None = None  # when the oldest ping without a pong was sent
        self.last_ping = self.opened
        self.ping_payload = b""
        self.address = request.remote or ""
        self._socket = socket
        self._request = request
        self._loop = loop
        self._outbox: deque[tuple[str, str | bytes]] = deque()
        self._waiting = asyncio.Event()

    @property
    def is_silent(self) -> bool:
        return self._loop.time() < self.silent_until

    def send(self, kind: str, content: str | bytes) -> None:
        """Let a frame be sent; nothing is, not even a pong, while the connection is silent by order of a fault."""
        if self.is_silent and kind != CLOSE:
            return
        if len(self._outbox) >= OUTBOX:
            self.cut()
            return
        self._outbox.append((kind, content))
        self._waiting.set()

    def cut(self) -> None:
        """Drop the connection without a close frame; what waited is lost."""
        if self._request.transport is not None:
            self._request.transport.abort()

    def wrapped(self, event: dict[str, Any]) -> str:
        """Return an event that concerns the connection itself, as this kind of connection writes it."""
        raise NotImplementedError

    async def serve(self, on_message: Callable[[WSMessage], None]) -> None:
        """Hand each message to `on_message` and send what waits, until the connection ends."""
        writer = asyncio.create_task(self._write())
        try:
            while True:
                message = await self._socket.receive()
                if message.type not in (WSMsgType.TEXT, WSMsgType.PING, WSMsgType.PONG):
                    return
                on_message(message)
        finally:
            writer.cancel()

    async def _write(self) -> None:
        """Send what waits, until a close frame or a broken connection."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            while True:
                await self._waiting.wait()
                self._waiting.clear()
                while self._outbox:
                    kind, content = self._outbox.popleft()
                    if kind == TEXT:
                        await self._socket.send_str(str(content))
                    elif kind == CLOSE:
                        code, _, reason = str(content).partition(" ")
                        await self._socket.close(code=int(code), message=reason.encode())
                        return
                    elif isinstance(content, bytes):
                        await (self._socket.ping(content) if kind == PING else self._socket.pong(content))


def new_socket(request: web.BaseRequest) -> web.WebSocketResponse | None:
    """Return a socket ready to be prepared; None if the request is no websocket handshake."""
    socket = web.WebSocketResponse(autoping=False, compress=False, timeout=0.5, max_msg_size=LONGEST_MESSAGE)
    socket.headers["x-mbx-uuid"] = secrets.token_hex(16)
    return socket if socket.can_prepare(request).ok else None


def no_handshake() -> web.Response:
    return web.Response(status=400, text="a websocket handshake was expected\n")


def in_microseconds(exchange: Exchange, request: web.BaseRequest) -> bool:
    """Tell whether the URL asks for microseconds and this exchange has them."""
    unit = request.query.get("timeUnit", "MILLISECOND")
    return exchange.profile.microseconds and unit in UNITS and unit.upper() == "MICROSECOND"


class Connections:
    """All open websocket connections, whatever they carry. Belongs to the exchange's loop."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._open: set[Connection] = set()

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._open))

    def add(self, connection: Connection) -> None:
        self._open.add(connection)

    def discard(self, connection: Connection) -> None:
        self._open.discard(connection)

    def fault_added(self) -> None:
        """Announce a shutdown that waits, if somebody is there: all are told, and closed after the fault's time."""
        fault = self._exchange.faults.take("server_shutdown") if self._open else None
        if fault is None:
            return
        now = self._exchange.now_ms()
        told = list(self._open)
        for connection in told:
            event = {"e": "serverShutdown", "E": now * 1000 if connection.is_micro else now}
            connection.send(TEXT, connection.wrapped(event))
        asyncio.get_running_loop().call_later(fault.ms / 1000, close, told)

    async def keep_alive(self) -> None:
        """Ping every connection in time; drop those that do not answer, and those that are a day old."""
        profile = self._exchange.profile
        times = (profile.ping_every_ms, profile.pong_within_ms, profile.connection_life_ms)
        pause = min(1000, *(ms / 4 for ms in times)) / 1000
        while True:
            await asyncio.sleep(pause)
            self.fault_added()
            now = asyncio.get_running_loop().time()
            for connection in self:
                if now - connection.opened >= profile.connection_life_ms / 1000:
                    connection.send(CLOSE, f"{GOING_AWAY} 24 hours")
                elif connection.pinged is not None and now - connection.pinged >= profile.pong_within_ms / 1000:
                    connection.send(CLOSE, f"{POLICY_VIOLATION} Pong timeout")
                elif now - connection.last_ping >= profile.ping_every_ms / 1000:
                    connection.last_ping = now
                    connection.pinged = connection.pinged if connection.pinged is not None else now
                    connection.ping_payload = str(self._exchange.now_ms()).encode()
                    connection.send(PING, connection.ping_payload)

    def close_all(self) -> None:
        close(self)


def close(connections: Iterable[Connection]) -> None:
    for connection in connections:
        connection.send(CLOSE, f"{GOING_AWAY} shutdown")


def answer_control_frame(connection: Connection, message: WSMessage) -> bool:
    """Answer a ping, note a pong; False if the message is neither. A pong counts only with the last ping's payload."""
    if message.type == WSMsgType.PING:
        connection.send(PONG, bytes(message.data))
    elif message.type == WSMsgType.PONG:
        if bytes(message.data) == connection.ping_payload:
            connection.pinged = None
    else:
        return False
    return True


def send_foreign(connections: Iterable[Connection], fault: Fault) -> None:
    for connection in connections:
        connection.send(TEXT, fault.text)


def fall_silent(connections: Iterable[Connection], fault: Fault) -> None:
    """Let connections stay open without a frame for the fault's time."""
    until = asyncio.get_running_loop().time() + fault.ms / 1000
    for connection in connections:
        connection.silent_until = until
