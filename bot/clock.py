"""Time as the program sees it: UTC milliseconds, a monotonic clock and call-backs, all replaceable in tests."""

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None:
        """Make sure that the call is not begun after this returns; no error if it already ran."""


class Clock(Protocol):
    """What the rest of the program may ask of time."""

    def now_ms(self) -> int:
        """Return milliseconds since the epoch, UTC."""

    def monotonic_ms(self) -> int:
        """Return milliseconds that never go back, from an arbitrary start."""

    def call_later(self, delay_ms: int, action: Callable[[], None]) -> Timer:
        """Run `action` once, `delay_ms` from now, on the clock's own thread. It must be short and must not raise."""


class _Entry:
    __slots__ = ("action", "cancelled")

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class SystemClock:
    """The machine's clock. One daemon thread, started at the first `call_later`, runs what is due."""

    def __init__(self) -> None:
        self._due: list[tuple[int, int, _Entry]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def call_later(self, delay_ms: int, action: Callable[[], None]) -> Timer:
        entry = _Entry(action)
        with self._changed:
            due = self.monotonic_ms() + max(0, delay_ms)
            heapq.heappush(self._due, (due, next(self._order), entry))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="timers", daemon=True)
                self._thread.start()
            if self._due[0][2] is entry:
                self._changed.notify()
        return entry

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > self.monotonic_ms():
                    wait_s = (self._due[0][0] - self.monotonic_ms()) / 1000 if self._due else None
                    self._changed.wait(wait_s)
                entry = heapq.heappop(self._due)[2]
            if not entry.cancelled:
                entry.action()


class ManualClock:
    """A clock that stands still until a test moves it. Thread-safe; call-backs run in the thread that advances."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms
        self._start_ms = now_ms
        self._due: list[tuple[int, int, _Entry]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_ms(self) -> int:
        return self._now_ms - self._start_ms

    def call_later(self, delay_ms: int, action: Callable[[], None]) -> Timer:
        entry = _Entry(action)
        with self._lock:
            heapq.heappush(self._due, (self._now_ms + max(0, delay_ms), next(self._order), entry))
        return entry

    def advance(self, delta_ms: int) -> None:
        """Move time by `delta_ms` and run what falls due on the way, in time order.

        Raises ValueError if `delta_ms` is negative.
        """
        if delta_ms < 0:
            raise ValueError(f"time cannot go back by {-delta_ms} ms")
        end = self._now_ms + delta_ms
        while True:
            with self._lock:
                if not self._due or self._due[0][0] > end:
                    self._now_ms = end
                    return
                due, _, entry = heapq.heappop(self._due)
                self._now_ms = max(self._now_ms, due)
            if not entry.cancelled:
                entry.action()
