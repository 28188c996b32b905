"""Decides when nothing is going on: counts the mailboxes that hold or handle a message, not the messages."""

import threading


class Gauge:
    """How many mailboxes are busy. One rises before its sender falls, so the count is zero only in real rest."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._busy = 0

    def rise(self) -> None:
        """One more is busy."""
        with self._changed:
            self._busy += 1

    def fall(self) -> None:
        """One is at rest."""
        with self._changed:
            self._busy -= 1
            if not self._busy:
                self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Wait until none is busy; False if that takes longer than `timeout_s` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._busy, timeout_s)
