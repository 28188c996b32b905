"""One websocket of the exchange's: opened, read by one thread, ended by any, with the reason in one line.

The only file that imports websocket-client.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

import websocket

from bot.adapters.binance.errors import REGION_BLOCKED, without_secrets
from bot.domain.throttle import Throttle
from bot.ports import StreamClosed
from bot.supervision import Clock

CONNECT_STEPS = 3
"""TCP, TLS and the handshake: opening a connection may take so many times what one of them may wait for a piece."""


COMPLAINTS, COMPLAINTS_MS = 10, 10_000  # so many bad frames are reported one by one in that time


class Complaints:
    """Lines about refused frames, passed on; in a storm of them a few, and how many were left out. Thread-safe."""

    def __init__(self, say: Callable[[str], None], clock: Clock) -> None:
        self._say = say
        self._clock = clock
        self._throttle = Throttle(COMPLAINTS, COMPLAINTS_MS)
        self._lock = threading.Lock()

    def __call__(self, line: str) -> None:
        with self._lock:
            held_back = self._throttle.admit(self._clock.monotonic_ms())
        if held_back is not None:
            self._say(f"{line} ({held_back} more before it)" if held_back else line)


class StreamRefused(StreamClosed):
    """A connection was refused; `status` is HTTP's, `retry_after` the header of that name in seconds, if there is."""

    def __init__(self, text: str, status: int, retry_after: str | None) -> None:
        super().__init__(text)
        self.status = status
        self.retry_after = retry_after


class FrameSocket:
    """An open connection, read by one thread; `close` may come from any."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket = socket
        self._reading = threading.Lock()
        self._is_closed = False

    @classmethod
    def open(cls, url: str, shown: str, connect_timeout_ms: int) -> "FrameSocket":
        """Connect. `shown` stands for the address in what is said, since there may be a key in it.

        Raises StreamClosed with the reason when the connection cannot be opened, StreamRefused where it was refused.
        """
        # Who decodes the frames checks UTF-8 too; the library's own check costs six times the rest of its work.
        made = websocket.WebSocket(skip_utf8_validation=True)
        # The time-out is for each piece that is read: an answer that comes byte by byte would be waited for for ever.
        limit_s = CONNECT_STEPS * connect_timeout_ms / 1000
        is_over, is_late = threading.Event(), threading.Event()
        threading.Thread(target=_end, args=(made, limit_s, is_over, is_late), name="handshake", daemon=True).start()
        try:
            made.connect(url, timeout=connect_timeout_ms / 1000)  # type: ignore[no-untyped-call]
        except websocket.WebSocketBadStatusException as error:
            status, headers = error.status_code, error.resp_headers or {}
            text = REGION_BLOCKED if status == 451 else f"{shown} refused the stream: HTTP {status}"
            raise StreamRefused(text, status, headers.get("retry-after")) from None
        except (websocket.WebSocketException, OSError, ValueError) as error:
            cause = f"no handshake within {limit_s:g} s" if is_late.is_set() else _one_line(error)
            raise StreamClosed(f"cannot connect to {shown}: {cause}") from None
        finally:
            is_over.set()
        return cls(made)

    def expect_every(self, silence_ms: int) -> None:
        """Take the connection for dead when neither data nor a ping came for so long."""
        self._socket.settimeout(silence_ms / 1000)

    def send(self, text: bytes) -> None:
        """Send one text frame. Raises StreamClosed."""
        try:
            self._socket.send(text)
        except (websocket.WebSocketException, OSError, AttributeError) as error:
            raise StreamClosed(f"connection lost: {_one_line(error)}") from None

    def receive(self) -> bytes | None:
        """Wait for the next frame; return its data, None for a ping (already answered) or a pong.

        Raises StreamClosed with the reason when the connection ended or fell silent; it is freed then.
        """
        with self._reading:
            try:
                return self._next_frame()
            except StreamClosed as closed:
                self._free()
                # Whatever the socket said of an end of our own doing.
                raise StreamClosed("closed by us") if self._is_closed else closed from None

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

    def _next_frame(self) -> bytes | None:
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
        return bytes(frame.data) if opcode in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY) else None


def _end(connecting: websocket.WebSocket, limit_s: float, is_over: threading.Event, is_late: threading.Event) -> None:
    """End a connection that is still being opened after `limit_s`: who waits for its handshake gets an error."""
    while not is_over.wait(limit_s):
        opened = connecting.sock
        if opened is not None:  # else a name is looked up, or TCP or TLS under way: what ends them says why
            is_late.set()
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)


def _one_line(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return without_secrets(" ".join(text.split()))[:200] or type(error).__name__
