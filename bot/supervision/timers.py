"""Decides what supervision asks of time; any clock of this shape will do, also one that a test moves by hand."""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger("supervision")


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Make sure that the call is not begun after this returns; no error if it already ran."""


class Clock(Protocol):
    """UTC milliseconds, milliseconds that never go back, and calls due later on a thread of the clock's own."""

    def now_ms(self) -> int: ...

    def monotonic_ms(self) -> int: ...

    def call_later(self, delay_ms: int, action: Callable[[], None]) -> Timer: ...


class _Call:
    __slots__ = ("action", "cancelled")

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class SystemClock:
    """The machine's clock, for those who bring none. One daemon thread, made at the first `call_later`."""

    def __init__(self) -> None:
        self._due: list[tuple[int, int, _Call]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def now_ms(self) -> int:
        """Return milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Return milliseconds since some moment, never going back."""
        return time.monotonic_ns() // 1_000_000

    def call_later(self, delay_ms: int, action: Callable[[], None]) -> Timer:
        """Run `action`, which must be short and must not raise, `delay_ms` from now."""
        call = _Call(action)
        with self._changed:
            heapq.heappush(self._due, (self.monotonic_ms() + max(0, delay_ms), next(self._order), call))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="supervision timers", daemon=True)
                self._thread.start()
            if self._due[0][2] is call:
                self._changed.notify()
        return call

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > self.monotonic_ms():
                    wait_s = (self._due[0][0] - self.monotonic_ms()) / 1000 if self._due else None
                    self._changed.wait(wait_s)
                call = heapq.heappop(self._due)[2]
            if not call.cancelled:
                try:
                    call.action()
                except BaseException:
                    logger.exception("an action of a timer failed")
