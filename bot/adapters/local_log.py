"""The event log within one process: what it holds, how much, and when it lets go."""

import threading

from bot.domain.kline import Kline
from bot.domain.order import Trade
from bot.ports import LogFull


class LocalLog:
    """`ports.EventLog` in memory, from offset 1 on. Thread-safe; what was not stored is lost with the process."""

    def __init__(self, bound: int = 100_000) -> None:
        """Make an empty log that holds at most `bound` entries. Raises ValueError if `bound` is not positive."""
        if bound < 1:
            raise ValueError(f"a log of {bound} entries holds nothing: give a bound of at least 1")
        self._bound = bound
        self._lock = threading.Lock()
        # A list, not a deque: readers cut slices from anywhere in a long backlog, and a deque is slow in its middle.
        self._entries: list[Kline | Trade] = []
        self._released = 0

    def append(self, entry: Kline | Trade) -> int:
        """Add an entry and return its offset; offsets rise by one. Raises LogFull."""
        with self._lock:
            if len(self._entries) >= self._bound:
                raise LogFull(
                    f"the log holds {self._bound} entries that are not stored yet: "
                    "see why persistence does not store them (disk space, locks, its last error)"
                )
            self._entries.append(entry)
            return self._released + len(self._entries)

    def read(self, after: int, limit: int) -> tuple[int, tuple[Kline | Trade, ...]]:
        """Return up to `limit` entries with offsets above `after`, and the offset of the last one returned.

        Released entries are skipped. Where there is nothing to return, the offset is the one to read after next time.
        """
        with self._lock:
            start = max(after - self._released, 0)
            entries = tuple(self._entries[start : start + max(limit, 0)])
            return max(after, self._released) + len(entries), entries

    def release(self, upto: int) -> None:
        """Forget entries up to and with this offset: they are stored. Releasing again changes nothing.

        Raises ValueError for an offset that was never given out: who says so stored something else.
        """
        with self._lock:
            if upto > self._released + len(self._entries):
                raise ValueError(
                    f"offset {upto} cannot be released, the last one is {self._released + len(self._entries)}"
                )
            if upto > self._released:
                del self._entries[: upto - self._released]
                self._released = upto

    @property
    def released(self) -> int:
        """The offset up to which entries were released; the next reader starts behind it."""
        with self._lock:
            return self._released

    @property
    def depth(self) -> int:
        """How many entries wait."""
        with self._lock:
            return len(self._entries)
