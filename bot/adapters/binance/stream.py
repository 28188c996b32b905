"""What a websocket frame says: a kline, nothing of interest, the end of the connection, or garbage.

Source: Binance, WebSocket streams.
"""

import threading
from collections.abc import Callable, Sequence
from decimal import Decimal
from urllib.parse import quote

import msgspec
import websocket

from bot.adapters.binance.errors import REGION_BLOCKED, without_secrets
from bot.adapters.binance.replies import SHOWN, NotNegative, Positive, Text, TimeMs, complaint
from bot.domain.kline import Kline
from bot.domain.throttle import Throttle
from bot.ports import ShutdownAnnounced, StreamClosed
from bot.supervision import Clock

SILENCE_MS = 60_000  # the exchange pings every 20 s and cuts after 60 s without a pong
CONNECT_TIMEOUT_MS = 5_000
COMPLAINTS, COMPLAINTS_MS = 10, 10_000  # so many bad frames are reported one by one in that time


class BadFrame(ValueError):
    """A frame that cannot be believed; the text is one line with the cause."""


class _Candle(msgspec.Struct, gc=False):
    t: TimeMs
    T: TimeMs
    s: Text
    i: Text
    o: Positive
    c: Positive
    h: Positive
    l: Positive  # noqa: E741 - the exchange's name
    v: NotNegative
    q: NotNegative
    x: bool


class _Event(msgspec.Struct):
    """An event of any kind; a kline has all four."""

    e: str = ""
    E: TimeMs | None = None
    s: str = ""
    k: _Candle | None = None


class _Frame(_Event):
    """A frame in raw form, or with the event under `data` (combined form)."""

    data: _Event | None = None


class _Kind(msgspec.Struct):
    """As much of any frame as tells a kline, an event of another kind, a reply and an error reply apart."""

    e: object = ""
    data: object = None
    result: object = msgspec.UNSET
    code: object = None
    msg: object = None
    error: object = None


_frames = msgspec.json.Decoder(_Frame)
_kinds = msgspec.json.Decoder(_Kind)


def decode_frame(frame: bytes) -> Kline | None:
    """Return a frame's kline, None for another event or a reply.

    Raises ShutdownAnnounced for the exchange's notice of it, BadFrame for anything that is no frame of Binance's.
    """
    try:
        event: _Event = _frames.decode(frame)
    except (ValueError, RecursionError) as error:
        _sort_out(frame, complaint(error))
        return None
    if event.e == "" and isinstance(event, _Frame) and event.data is not None:
        event = event.data
    if event.e != "kline":
        _sort_out(frame, "neither event nor reply")
        return None
    candle, time = event.k, event.E
    if candle is None or time is None:
        raise BadFrame(f"a kline without `{'k' if candle is None else 'E'}`")
    if candle.s != event.s or candle.t > candle.T:
        raise BadFrame("a kline that contradicts itself in symbol or times")
    return Kline(
        symbol=candle.s,
        interval=candle.i,
        open_time=candle.t,
        close_time=candle.T,
        event_time=candle.T if candle.x else time,
        open=Decimal(candle.o),
        high=Decimal(candle.h),
        low=Decimal(candle.l),
        close=Decimal(candle.c),
        volume=Decimal(candle.v),
        quote_volume=Decimal(candle.q),
        is_closed=candle.x,
        received_event_time=time,
    )


def _sort_out(frame: bytes, problem: str) -> None:
    """Sort a frame that is no good kline. Raises ShutdownAnnounced, BadFrame with `problem`.

    Returns for what is harmless.

    Decoding such a frame again keeps the fields of all other frames out of the hot path.
    """
    try:
        kind = _kinds.decode(frame)
    except (ValueError, RecursionError):
        raise BadFrame(problem) from None
    event = kind.data.get("e") if kind.e == "" and isinstance(kind.data, dict) else kind.e
    if event == "serverShutdown":
        raise ShutdownAnnounced("server shutdown announced")
    if isinstance(event, str) and event not in ("", "kline"):
        return
    if kind.error is not None or kind.msg is not None:
        raise BadFrame("the exchange answered with an error")
    if kind.result is msgspec.UNSET or event == "kline":
        raise BadFrame(problem)


class BinanceKlineConnection:
    """One open stream, read by one thread; `close` may come from any. `bad_frames` counts what was refused."""

    def __init__(self, socket: websocket.WebSocket, name: str, on_bad_frame: Callable[[str], None]) -> None:
        self._socket = socket
        self._name = name
        self._on_bad_frame = on_bad_frame
        self._reading = threading.Lock()
        self._is_closed = False
        self.bad_frames = 0

    def receive(self) -> Kline | None:
        """Wait for the next frame; return its kline, None if it has none.

        Raises StreamClosed with the reason, ShutdownAnnounced while frames still come.
        """
        with self._reading:
            try:
                return self._next_kline()
            except StreamClosed as closed:
                self._free()
                if self._is_closed:
                    # Whatever the socket said: it was our own doing.
                    raise StreamClosed("closed by us") from None
                raise closed from None

    def close(self) -> None:
        """End the connection. A waiting `receive` raises StreamClosed at once. A second call does nothing."""
        self._is_closed = True
        self._socket.abort()  # type: ignore[no-untyped-call]  # ends a waiting read at once
        # A reader frees the socket itself: freed under its feet, the number could be another connection's by then.
        if self._reading.acquire(blocking=False):
            try:
                self._free()
            finally:
                self._reading.release()

    def _free(self) -> None:
        self._socket.shutdown()  # type: ignore[no-untyped-call]

    def _next_kline(self) -> Kline | None:
        if self._is_closed:
            raise StreamClosed("closed by us")
        try:
            opcode, frame = self._socket.recv_data_frame(control_frame=True)
        except websocket.WebSocketTimeoutException:
            raise StreamClosed(f"silent: neither data nor ping for {self._socket.gettimeout():g} s") from None
        except (websocket.WebSocketException, OSError, ValueError, AttributeError) as error:
            # AttributeError: the library meets its own socket closed by another thread.
            raise StreamClosed(f"connection lost: {_one_line(error)}") from None
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            code, reason = int.from_bytes(frame.data[:2], "big"), frame.data[2:].decode("utf-8", "replace")
            raise StreamClosed(f"closed by the exchange: {code} {without_secrets(reason)}".rstrip())
        if opcode not in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY):
            return None  # a ping, already answered with its own payload, or a pong
        try:
            return decode_frame(frame.data)
        except BadFrame as error:
            self.bad_frames += 1
            shown = ascii(without_secrets(frame.data[: 4 * SHOWN].decode("utf-8", "replace"))[:SHOWN])
            self._on_bad_frame(f"{self._name}: frame refused: {error}: {shown}")
            return None


class BinanceMarketStream:
    """Live klines, one combined connection for any number of symbols. Thread-safe.

    `ws_url` is scheme, host and port. `on_bad_frame` gets one line for each frame that was refused, in the reading
    thread; in a storm of them a few, and how many were left out. A connection with neither data nor a ping for
    `silence_ms` is taken for dead. Nothing is sent but the pongs that the exchange asks for, one every 20 s, so that
    its limit of five messages a second is never near: the streams wanted stand in the address.
    """

    def __init__(
        self,
        ws_url: str,
        on_bad_frame: Callable[[str], None],
        clock: Clock,
        silence_ms: int = SILENCE_MS,
        connect_timeout_ms: int = CONNECT_TIMEOUT_MS,
    ) -> None:
        self._ws_url = ws_url.rstrip("/")
        self._on_bad_frame = on_bad_frame
        self._clock = clock
        self._silence_ms = silence_ms
        self._connect_timeout_ms = connect_timeout_ms
        self._throttle = Throttle(COMPLAINTS, COMPLAINTS_MS)
        self._lock = threading.Lock()

    def connect(self, symbols: Sequence[str], interval: str) -> BinanceKlineConnection:
        """Open one stream of all symbols' klines. Raises StreamClosed with the reason when it cannot be opened."""
        # The combined form: also where a single symbol is wanted, since some hosts (the testnet) know no other.
        names = "/".join(f"{quote(symbol.lower(), safe='')}@kline_{interval}" for symbol in symbols)
        try:
            # The decoder checks UTF-8 itself; the library's own check costs six times the rest of its work.
            socket = websocket.create_connection(
                f"{self._ws_url}/stream?streams={names}",
                timeout=self._connect_timeout_ms / 1000,
                skip_utf8_validation=True,
            )
        except websocket.WebSocketBadStatusException as error:
            if error.status_code == 451:
                raise StreamClosed(REGION_BLOCKED) from None
            raise StreamClosed(f"{self._ws_url} refused the stream: HTTP {error.status_code}") from None
        except (websocket.WebSocketException, OSError, ValueError) as error:
            raise StreamClosed(f"cannot connect to {self._ws_url}: {_one_line(error)}") from None
        socket.settimeout(self._silence_ms / 1000)
        more = f" and {len(symbols) - 1} more" if len(symbols) > 1 else ""
        return BinanceKlineConnection(socket, f"{symbols[0]}{more}", self._complain)

    def _complain(self, line: str) -> None:
        with self._lock:
            held_back = self._throttle.admit(self._clock.monotonic_ms())
        if held_back is not None:
            self._on_bad_frame(f"{line} ({held_back} more before it)" if held_back else line)


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200] or type(error).__name__
