"""Decides how actors are tested without threads: a context that records, and a clock moved by hand."""

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import TypeVar

from .address import Address
from .errors import Fenced, MailboxFull
from .timers import Clock, Timer

T = TypeVar("T")

_SOMEBODY = Address("actor", "test")


class _Call:
    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class ManualClock:
    """A clock that stands still until `advance`, which runs what falls due, in time order, on the caller's thread."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = self._start_ms = now_ms
        self._due: list[tuple[int, int, _Call]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        """Return milliseconds since 1970, UTC."""
        return self._now_ms

    def monotonic_ms(self) -> int:
        """Return milliseconds since the clock was made."""
        return self._now_ms - self._start_ms

    def call_later(self, delay_ms: int, action: Callable[[], None]) -> Timer:
        """Run `action` once the clock was moved by `delay_ms`."""
        call = _Call(action)
        with self._lock:
            heapq.heappush(self._due, (self._now_ms + max(0, delay_ms), next(self._order), call))
        return call

    def advance(self, delta_ms: int) -> None:
        """Move the clock forward by `delta_ms`."""
        end = self._now_ms + delta_ms
        while True:
            with self._lock:
                if not self._due or self._due[0][0] > end:
                    self._now_ms = end
                    return
                due, _, call = heapq.heappop(self._due)
                self._now_ms = max(self._now_ms, due)
            if not call.cancelled:
                call.action()


class RecordingContext:
    """A Context that starts nothing and keeps everything, for tests that call `actor.handle(message)`.

    `sent` holds what was told, `refusing` names that answer False, `full` names whose must lane is full, `due` the
    messages of timers that rang (advance `clock`), `threads` the targets of threads that were wished for,
    `watched` the watched names, `state` the last visible state, `refused` the count of fenced attempts.
    """

    def __init__(self, address: Address = _SOMEBODY, clock: Clock | None = None, epoch: int = 1) -> None:
        self.address = address
        self.epoch = epoch
        self.clock: Clock = ManualClock() if clock is None else clock
        self.current = True
        self.sent: list[tuple[Address, object]] = []
        self.refusing: set[Address] = set()
        self.full: set[Address] = set()
        self.armed: list[tuple[int, object]] = []
        self.due: list[object] = []
        self.threads: list[tuple[str, Callable[[], None]]] = []
        self.watched: list[Address] = []
        self.state = "running"
        self.refused = 0
        self._endings: list[Callable[[], None]] = []

    def sent_to(self, to: Address) -> list[object]:
        """Return what was told to `to`, in order."""
        return [message for address, message in self.sent if address == to]

    def end_epoch(self) -> None:
        """End the epoch, as supervision does with an incarnation that failed."""
        self.current = False
        while self._endings:
            self._endings.pop(0)()

    def tell(self, to: Address, message: object) -> bool:
        self.check_fence()
        if to in self.full:
            raise MailboxFull(str(to))
        if to in self.refusing:
            return False
        self.sent.append((to, message))
        return True

    def after(self, delay_ms: int, message: object) -> Timer:
        self.check_fence()
        self.armed.append((delay_ms, message))
        return self.clock.call_later(delay_ms, lambda: self._ring(message))

    def _ring(self, message: object) -> None:
        if self.current:
            self.due.append(message)

    def is_current(self) -> bool:
        return self.current

    def check_fence(self) -> None:
        if not self.current:
            self.refused += 1
            raise Fenced(f"epoch {self.epoch} of {self.address} is over")

    def run_fenced(self, effect: Callable[[], T]) -> T:
        self.check_fence()
        return effect()

    def spawn_thread(self, name: str, target: Callable[[], None]) -> threading.Thread:
        """Record the wish; the thread that is returned was not started."""
        self.check_fence()
        self.threads.append((name, target))
        return threading.Thread(target=target, name=f"{self.address}:{name}", daemon=True)

    def watch(self, address: Address) -> None:
        self.check_fence()
        self.watched.append(address)

    def on_epoch_end(self, action: Callable[[], None]) -> None:
        if self.current:
            self._endings.append(action)
        else:
            action()

    def set_state(self, state: str) -> None:
        self.state = state
