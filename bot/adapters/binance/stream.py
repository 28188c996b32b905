"""What a websocket frame says: a kline, nothing of interest, the end of the connection, or garbage.

Source: Binance, WebSocket streams.
"""

import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from urllib.parse import quote

import msgspec

from bot.adapters.binance.errors import without_secrets
from bot.adapters.binance.replies import SHOWN, NotNegative, Positive, Text, TimeMs, complaint
from bot.adapters.binance.sockets import Complaints, FrameSocket
from bot.domain.kline import Kline
from bot.ports import ShutdownAnnounced
from bot.supervision import Clock

SILENCE_MS = 60_000  # the exchange pings every 20 s and cuts after 60 s without a pong
CONNECT_TIMEOUT_MS = 5_000


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
    # An open one never has the closed one's, by which readers and order ids tell that from all others of its open_time.
    event_time_if_open = time - (time == candle.T)
    return Kline(
        symbol=candle.s,
        interval=candle.i,
        open_time=candle.t,
        close_time=candle.T,
        event_time=candle.T if candle.x else event_time_if_open,
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

    def __init__(self, socket: FrameSocket, name: str, on_bad_frame: Callable[[str], None]) -> None:
        self._socket = socket
        self._name = name
        self._on_bad_frame = on_bad_frame
        self.bad_frames = 0
        self.received_ns = 0

    def receive(self) -> Kline | None:
        """Wait for the next frame; return its kline, None if it has none.

        Raises StreamClosed with the reason, ShutdownAnnounced while frames still come.
        """
        frame = self._socket.receive()
        if frame is None:
            return None
        self.received_ns = time.perf_counter_ns()
        try:
            return decode_frame(frame)
        except BadFrame as error:
            self.bad_frames += 1
            shown = ascii(without_secrets(frame[: 4 * SHOWN].decode("utf-8", "replace"))[:SHOWN])
            self._on_bad_frame(f"{self._name}: frame refused: {error}: {shown}")
            return None

    def close(self) -> None:
        """End the connection. A waiting `receive` raises StreamClosed at once. A second call does nothing."""
        self._socket.close()


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
        self._complain = Complaints(on_bad_frame, clock)
        self._silence_ms = silence_ms
        self._connect_timeout_ms = connect_timeout_ms

    def connect(self, symbols: Sequence[str], interval: str) -> BinanceKlineConnection:
        """Open one stream of all symbols' klines. Raises StreamClosed with the reason when it cannot be opened."""
        # The combined form: also where a single symbol is wanted, since some hosts (the testnet) know no other.
        names = "/".join(f"{quote(symbol.lower(), safe='')}@kline_{interval}" for symbol in symbols)
        url = f"{self._ws_url}/stream?streams={names}"
        socket = FrameSocket.open(url, self._ws_url, self._connect_timeout_ms)
        socket.expect_every(self._silence_ms)
        more = f" and {len(symbols) - 1} more" if len(symbols) > 1 else ""
        return BinanceKlineConnection(socket, f"{symbols[0]}{more}", self._complain)
