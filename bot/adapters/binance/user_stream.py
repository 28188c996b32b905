"""What the account's own stream says: an order's step, balances, a deposit; by the WebSocket API or by a listenKey.

Source: Binance, WebSocket API (userDataStream.subscribe.signature, request security) and user data stream; binance.us
had the listenKey alone before its upgrade of 2026-08-31.
"""

import hashlib
import hmac
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated

import msgspec

from bot.adapters.binance.client import RestClient
from bot.adapters.binance.errors import CallFailed, describe, without_secrets
from bot.adapters.binance.replies import SHOWN, Id, NotNegative, Text, TimeMs, complaint
from bot.adapters.binance.sockets import Complaints, FrameSocket, StreamRefused
from bot.domain.money import multiply
from bot.domain.order import Fill, Side
from bot.messages import BalanceMoved, BalancesReported, ExecutionReported
from bot.ports import AccountEvent, StreamClosed
from bot.supervision import Clock

SILENCE_MS = 60_000  # the exchange pings every 20 s
CONNECT_TIMEOUT_MS = 5_000
RENEW_MS = 1_800_000  # half of a listenKey's life
CONNECT_WEIGHT = 4  # to connect and to subscribe, of the limits that REST has too
FRAMES_BEFORE_THE_REPLY = 20
SUBSCRIBE = "userDataStream.subscribe.signature"
SHOWN_AS = "the account's stream"  # a listenKey is in the address

_Change = Annotated[str, msgspec.Meta(pattern=r"\A-?[0-9]{1,20}(?:\.[0-9]{1,20})?\Z")]


class BadEvent(ValueError):
    """An event that cannot be believed; the text is one line with the cause."""


class _Wait(msgspec.Struct):
    """Unlike REST's Retry-After a time, ms by the exchange's clock."""

    retryAfter: TimeMs = 0  # noqa: N815


class _Error(msgspec.Struct):
    code: Id = 0
    msg: str = ""
    data: _Wait | None = None


class _Frame(msgspec.Struct):
    """An event as it is (listenKey), under `event` (WebSocket API) or `data` (combined form); a reply has a status."""

    e: str = ""
    event: msgspec.Raw = msgspec.Raw(b"")
    data: msgspec.Raw = msgspec.Raw(b"")
    status: Id | None = None
    error: _Error | None = None


class _Kind(msgspec.Struct):
    e: str = ""


class _Execution(msgspec.Struct):
    """An executionReport, as far as it is read. After a cancel `c` is the cancel's own id and `C` the order's."""

    s: Text
    c: str
    S: Side
    X: Text
    i: Id
    l: NotNegative  # noqa: E741 - the exchange's name
    z: NotNegative
    L: NotNegative
    T: TimeMs
    C: str = ""
    r: str = "NONE"
    eR: str = "NONE"  # noqa: N815
    n: NotNegative | None = "0"
    N: str | None = None
    t: Id = -1


class _Balance(msgspec.Struct):
    a: Text
    f: NotNegative
    l: NotNegative  # noqa: E741


class _Position(msgspec.Struct):
    """An outboundAccountPosition: what the account holds now, not what changed."""

    E: TimeMs
    B: list[_Balance]


class _Movement(msgspec.Struct):
    """A balanceUpdate: a deposit, withdrawal or transfer."""

    a: Text
    d: _Change
    T: TimeMs


_frames = msgspec.json.Decoder(_Frame)
_kinds = msgspec.json.Decoder(_Kind)
_executions = msgspec.json.Decoder(_Execution)
_positions = msgspec.json.Decoder(_Position)
_movements = msgspec.json.Decoder(_Movement)


def decode_event(frame: bytes) -> AccountEvent | None:
    """Return a frame's event, None for one of no interest or a reply.

    Raises StreamClosed where the stream ends (its key or subscription is over, a shutdown is announced), BadEvent for
    what is no frame of Binance's.
    """
    try:
        outer = _frames.decode(frame)
        body = next((bytes(raw) for raw in (outer.event, outer.data) if bytes(raw)), frame)
        kind = _kinds.decode(body).e
        if kind == "executionReport":
            return _execution_of(_executions.decode(body))
        if kind == "outboundAccountPosition":
            position = _positions.decode(body)
            return BalancesReported(tuple((b.a, Decimal(b.f), Decimal(b.l)) for b in position.B), position.E)
        if kind == "balanceUpdate":
            moved = _movements.decode(body)
            return BalanceMoved(moved.a, Decimal(moved.d), moved.T)
    except (ValueError, RecursionError) as error:
        raise BadEvent(complaint(error)) from None
    if kind in ("serverShutdown", "eventStreamTerminated", "listenKeyExpired"):
        raise StreamClosed(f"the exchange ends it: {kind}")
    if outer.error is not None:
        raise StreamClosed(f"the exchange ends it: {describe(outer.status or 400, outer.error.code, outer.error.msg)}")
    if kind == "" and outer.status is None:
        raise BadEvent("neither event nor reply")
    return None


def _execution_of(event: _Execution) -> ExecutionReported:
    order_id, quantity, price = event.C or event.c, Decimal(event.l), Decimal(event.L)
    fill = None
    if event.t >= 0 and quantity > 0:
        fill = Fill(
            client_order_id=order_id,
            order_id=event.i,
            trade_id=event.t,
            symbol=event.s,
            side=event.S,
            price=price,
            quantity=quantity,
            quote_quantity=multiply(price, quantity),
            commission=Decimal(event.n or "0"),
            commission_asset=event.N or "",
            time=event.T,
        )
    return ExecutionReported(
        symbol=event.s,
        client_order_id=order_id,
        order_id=event.i,
        side=event.S,
        status=event.X,
        executed_quantity=Decimal(event.z),
        fill=fill,
        time=event.T,
        detail=", ".join(reason for reason in (event.r, event.eR) if reason != "NONE"),
    )


class BinanceAccountConnection:
    """One open stream, read by one thread; `close` may come from any. `renew` keeps a listenKey alive."""

    def __init__(
        self,
        socket: FrameSocket,
        clock: Clock,
        on_bad_frame: Callable[[str], None],
        renew: Callable[[], None] | None = None,
    ) -> None:
        self._socket = socket
        self._clock = clock
        self._on_bad_frame = on_bad_frame
        self._renew = renew
        self._renew_at = clock.monotonic_ms() + RENEW_MS

    def receive(self) -> AccountEvent | None:
        """Wait for the next frame; return its event, None if it has none. Raises StreamClosed with the reason."""
        if self._renew is not None and self._clock.monotonic_ms() >= self._renew_at:
            self._renew_at = self._clock.monotonic_ms() + RENEW_MS
            self._renew()
        frame = self._socket.receive()
        if frame is None:
            return None
        try:
            return decode_event(frame)
        except BadEvent as error:
            shown = ascii(without_secrets(frame[: 4 * SHOWN].decode("utf-8", "replace"))[:SHOWN])
            self._on_bad_frame(f"account: frame refused: {error}: {shown}")
            return None

    def close(self) -> None:
        """End the connection. A waiting `receive` raises StreamClosed at once. A second call does nothing."""
        self._socket.close()


class BinanceAccountStream:
    """The account's events. Thread-safe; the keys show nowhere.

    Asks the WebSocket API first; `listen_key_ws_url` (scheme, host and port) is where the listenKey is tried when the
    exchange does not know that method, empty where there is none. `on_bad_frame` gets one line for each frame that was
    refused, in the reading thread; in a storm of them a few, and how many were left out.
    """

    def __init__(
        self,
        ws_api_url: str,
        client: RestClient,
        clock: Clock,
        api_key: str,
        api_secret: str,
        recv_window_ms: int,
        on_bad_frame: Callable[[str], None],
        listen_key_ws_url: str = "",
    ) -> None:
        self._ws_api_url = ws_api_url
        self._client = client
        self._clock = clock
        self._api_key = api_key
        self._secret = api_secret.encode()
        self._recv_window_ms = recv_window_ms
        self._listen_key_ws_url = listen_key_ws_url.rstrip("/")
        self._complain = Complaints(on_bad_frame, clock)

    def __repr__(self) -> str:
        return f"BinanceAccountStream({self._ws_api_url!r})"

    def connect(self) -> BinanceAccountConnection:
        """Open the stream. Raises StreamClosed with the reason when it cannot be opened."""
        try:
            self._client.spend(CONNECT_WEIGHT)
        except CallFailed as failed:
            raise StreamClosed(f"{SHOWN_AS}: {failed}") from None
        socket = self._open(self._ws_api_url)
        try:
            refusal = self._subscribe(socket)
        except StreamClosed:
            socket.close()
            raise
        if refusal is None:
            socket.expect_every(SILENCE_MS)
            return BinanceAccountConnection(socket, self._clock, self._complain)
        socket.close()
        if not self._listen_key_ws_url or refusal.code in (-1021, -1022, -2014, -2015):
            raise StreamClosed(f"{SUBSCRIBE}: {describe(400, refusal.code, refusal.msg)}")
        return self._connect_by_listen_key()

    def _subscribe(self, socket: FrameSocket) -> _Error | None:
        """Ask for the account's events; return the exchange's refusal, None once they come. Raises StreamClosed."""
        params: dict[str, object] = {
            "apiKey": self._api_key,
            "recvWindow": self._recv_window_ms,
            "timestamp": self._client.estimate_ms(),
        }
        # Sorted by name, as they stand; not percent-encoded here, unlike REST.
        payload = "&".join(f"{name}={params[name]}" for name in sorted(params))
        params["signature"] = hmac.new(self._secret, payload.encode(), hashlib.sha256).hexdigest()
        request = msgspec.json.encode({"id": "account", "method": SUBSCRIBE, "params": params})
        socket.send(request)
        for _ in range(FRAMES_BEFORE_THE_REPLY):
            frame = socket.receive()
            if frame is None:
                continue
            try:
                reply = _frames.decode(frame)
            except (ValueError, RecursionError):
                raise StreamClosed(f"{SUBSCRIBE}: reply not understood") from None
            if reply.status is not None:
                return None if reply.status == 200 else self._heed(reply.status, reply.error or _Error())
        raise StreamClosed(f"{SUBSCRIBE}: no reply")

    def _heed(self, status: int, refusal: _Error) -> _Error:
        wait_ms = refusal.data.retryAfter - self._client.estimate_ms() if refusal.data is not None else 0
        self._client.heed(status, refusal.code, refusal.msg, str(-(-wait_ms // 1000)) if wait_ms > 0 else None)
        return refusal

    def _open(self, url: str) -> FrameSocket:
        try:
            return FrameSocket.open(url, SHOWN_AS, CONNECT_TIMEOUT_MS)
        except StreamRefused as refused:
            if url == self._ws_api_url:  # the limits of REST's host; a listenKey's stream is at another one
                self._client.heed(refused.status, 0, "", refused.retry_after)
            raise

    def _connect_by_listen_key(self) -> BinanceAccountConnection:
        try:
            key = self._client.new_listen_key()
        except CallFailed as failed:
            raise StreamClosed(f"no listenKey: {failed}") from None

        def renew() -> None:
            try:
                self._client.keep_listen_key(key)
            except CallFailed as failed:
                raise StreamClosed(f"the listenKey is not renewed: {failed}") from None

        socket = self._open(f"{self._listen_key_ws_url}/ws/{key}")
        socket.expect_every(SILENCE_MS)
        return BinanceAccountConnection(socket, self._clock, self._complain, renew)
