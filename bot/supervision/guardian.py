"""Decides when the whole process is to stop: the last resort above the supervisor, outside of every actor."""

import logging
import threading
import time
from collections.abc import Callable

from .incarnation import Down, Incarnation, Up
from .timers import Clock

logger = logging.getLogger("supervision")


class Guardian:
    """Escalates once, on a thread of its own. Watches the supervisor by real time, whatever clock it works by.

    The clock itself too: nobody would look for hung actors if its timers no longer rang. One that stands still is not
    late; one that went on by the deadline without `ticked`, and then has the deadline in real time as well, is.
    """

    def __init__(
        self,
        on_escalate: Callable[[str], None] | None,
        beats: Callable[[], int],
        deadline_ms: int,
        clock: Clock,
        tick_ms: int,
    ) -> None:
        self._on_escalate = on_escalate
        self._beats = beats
        self._deadline_s = deadline_ms / 1000
        self._clock = clock
        self._patience_ms = tick_ms + deadline_ms
        self._ticked_at = clock.monotonic_ms()
        self._lock = threading.Lock()
        self._done = threading.Event()
        self.reason: str | None = None

    def watch(self, supervisor: Incarnation) -> None:
        """Watch `supervisor`, and the clock, until `dismiss`."""
        self.ticked()
        threading.Thread(target=self._watch, args=(supervisor,), name="guardian", daemon=True).start()

    def ticked(self) -> None:
        """Note that a timer rang that is armed again and again."""
        self._ticked_at = self._clock.monotonic_ms()

    def dismiss(self) -> None:
        """Watch no longer."""
        self._done.set()

    def report(self, report: Up | Down) -> None:
        """Take the supervisor's own reports: its end is everybody's, unless it was told to stop."""
        if isinstance(report, Down) and not self._done.is_set():
            self.escalate(f"the supervisor ended: {report.error or 'stopped'}")

    def escalate(self, reason: str) -> None:
        """Have the process stop, once."""
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
        logger.critical("escalated: %s", reason)
        if self._on_escalate is not None:
            # Not on the caller's thread: who is told will stop the system, and with it the caller.
            threading.Thread(target=self._on_escalate, args=(reason,), name="escalation", daemon=True).start()

    def _watch(self, supervisor: Incarnation) -> None:
        beats, since = -1, time.monotonic()
        silent_since: float | None = None
        while not self._done.wait(min(0.25, self._deadline_s / 4)):
            if supervisor.lost_thread() and supervisor.is_current():
                self.escalate("the supervisor's thread vanished")
                return
            now = time.monotonic()
            if supervisor.seat.source is None or self._beats() != beats:
                beats, since = self._beats(), now
            elif now - since >= self._deadline_s:
                self.escalate(f"the supervisor hangs for {now - since:.1f} s")
                return
            silent_ms = self._clock.monotonic_ms() - self._ticked_at
            if silent_ms < self._patience_ms:
                silent_since = None
            elif silent_since is None:
                silent_since = now
            elif now - silent_since >= self._deadline_s:
                self.escalate(f"the clock's timers have not rung for {silent_ms} ms")
                return
