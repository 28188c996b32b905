"""What all streams and feeds of a process share, so that together they stay within what the exchange accepts."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bot.supervision import Clock

ATTEMPTS = 240
WINDOW_MS = 300_000
"""Connection attempts in any five minutes: of the 300 that an address has, 60 are left to user data and orders.

Source: Binance, WebSocket streams, connection rules.
"""

BACKFILLS_AT_ONCE = 4
"""A feed's questions weigh 3 of the 6,000 a minute; four at a time, at 20 ms or more each, leave most to trading."""

_LOOK_S = 0.5


class ConnectionBudget:
    """Connection attempts that may still be made. Thread-safe."""

    def __init__(self, clock: Clock, attempts: int = ATTEMPTS, window_ms: int = WINDOW_MS) -> None:
        self._clock = clock
        self._window_ms = window_ms
        self._made: deque[int] = deque(maxlen=attempts)
        self._lock = threading.Lock()

    def claim(self) -> int:
        """Take one attempt and return 0, or take none and return in how many ms there will be one."""
        with self._lock:
            now, made = self._clock.monotonic_ms(), self._made
            if len(made) == made.maxlen and now - made[0] < self._window_ms:
                return self._window_ms - (now - made[0])
            made.append(now)
            return 0


class BackfillGate:
    """Lets so many ask REST for missed klines at a time; the others wait on their own threads. Thread-safe."""

    def __init__(self, at_once: int = BACKFILLS_AT_ONCE) -> None:
        self._slots = threading.Semaphore(at_once)

    @contextmanager
    def entered(self, is_wanted: Callable[[], bool]) -> Iterator[bool]:
        """Wait for a slot and hold it within the block; the value is False if it was no longer wanted by then."""
        while not (has_slot := self._slots.acquire(timeout=_LOOK_S)):
            if not is_wanted():
                break
        try:
            yield has_slot and is_wanted()
        finally:
            if has_slot:
                self._slots.release()
