"""Decides who is connected to the WebSocket API, and in which order frames leave each connection."""

import asyncio
from collections.abc import Iterator
from functools import partial

from aiohttp import WSMessage, web

from bot.simulator.connections import (
    CLOSE,
    POLICY_VIOLATION,
    TEXT,
    Connection,
    Connections,
    answer_control_frame,
    in_microseconds,
    new_socket,
    no_handshake,
)
from bot.simulator.exchange import Exchange
from bot.simulator.user_events import Event, told
from bot.simulator.user_stream import Receiver
from bot.simulator.ws_api import Answer, Session, WsApi, encoded


class WsApiConnection(Connection):
    """A client of the WebSocket API."""

    def wrapped(self, event: Event) -> str:
        return encoded({"event": event})


class WsApiHub:
    """The websocket connections of the WebSocket API. Its methods belong to the exchange's loop."""

    def __init__(self, exchange: Exchange, connections: Connections) -> None:
        self._exchange = exchange
        self._api = WsApi(exchange)
        self._all = connections
        self._sessions: dict[Connection, Session] = {}

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one websocket handshake and stay until the connection ends."""
        socket = new_socket(request)
        if socket is None:
            return no_handshake()
        exchange = self._exchange
        await socket.prepare(request)
        connection = WsApiConnection(socket, request, in_microseconds(exchange, request))
        session = Session(
            connection.address,
            exchange.now_ms(),
            request.query.get("returnRateLimits", "true") != "false",
            connection.is_micro,
        )
        self._sessions[connection] = session
        self._all.add(connection)
        try:
            await connection.serve(partial(self._received, connection, session))
        finally:
            self._all.discard(connection)
            self._sessions.pop(connection, None)
        return socket

    def user_receivers(self) -> Iterator[Receiver]:
        """Yield the connections that are subscribed to the account."""
        for connection, session in list(self._sessions.items()):
            if session.subscription is not None:
                yield connection, partial(_event_frame, connection, session.subscription)

    def _received(self, connection: Connection, session: Session, message: WSMessage) -> None:
        if answer_control_frame(connection, message):
            return
        answer = self._api.respond(session, str(message.data))
        if answer.delay_ms:
            asyncio.get_running_loop().call_later(answer.delay_ms / 1000, self._send, connection, answer)
        else:
            self._send(connection, answer)

    def _send(self, connection: Connection, answer: Answer) -> None:
        if answer.is_cut:
            self._sessions.pop(connection, None)
            connection.cut()
            return
        for frame in answer.frames:
            connection.send(TEXT, frame)
        if answer.closes:
            self.disconnect(connection.address)

    def disconnect(self, address: str) -> None:
        """Close the connections of an address that is banned."""
        for connection in list(self._sessions):
            if connection.address == address:
                connection.send(CLOSE, f"{POLICY_VIOLATION} disconnected")


def _event_frame(connection: Connection, subscription: int, event: Event) -> str:
    return encoded({"subscriptionId": subscription, "event": told(event, connection.is_micro)})
