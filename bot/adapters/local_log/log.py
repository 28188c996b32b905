"""Decides where an entry of the event log waits: in memory while there is room, behind that on disk, in order."""

import threading
from pathlib import Path

from bot.adapters.local_log.spool import Spool
from bot.messages import LogEntry
from bot.ports import LogFull

SEGMENT_ENTRIES = 4_000


class LocalLog:
    """`ports.EventLog` of one process, from offset 1 on. Thread-safe; what was not stored is lost with the process.

    It need not outlive the process: the journal tells trades again, closed klines are fetched again from the last
    stored one on. Readers see the front, in memory; once that is full, what comes goes to the spool, and comes from
    there to the front, a segment at a time, as the front is released.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        memory_entries: int = 25_000,
        disk_bytes: int = 2_000_000_000,
        reserve_bytes: int = 100_000_000,
    ) -> None:
        """Make an empty log; no file is touched yet.

        At most `memory_entries` wait in memory and `disk_bytes` in files of `directory`, or none where that is None.
        Of the disk `reserve_bytes` stay free: the journal of orders needs them more. Raises ValueError if
        `memory_entries` is not positive.
        """
        if memory_entries < 1:
            raise ValueError(f"a log of {memory_entries} entries holds nothing: give a bound of at least 1")
        self._memory_entries = memory_entries
        self._lock = threading.Lock()
        self._spool = (
            None
            if directory is None
            else Spool(directory, disk_bytes, reserve_bytes, min(SEGMENT_ENTRIES, memory_entries))
        )
        # A list, not a deque: readers cut slices from anywhere in it, and a deque is slow in its middle.
        self._front: list[LogEntry] = []
        self._released = 0

    def append(self, entry: LogEntry) -> int:
        """Add an entry and return its offset; offsets rise by one. Raises LogFull, and then nothing was added."""
        with self._lock:
            spool = self._spool
            if (spool is None or not spool.entries) and len(self._front) < self._memory_entries:
                self._front.append(entry)
            elif spool is not None:
                spool.append(entry)
            else:
                raise LogFull(
                    f"the log holds {self._memory_entries} entries that are not stored yet: "
                    "see why persistence does not store them (disk space, locks, its last error)"
                )
            return self._last

    def read(self, after: int, limit: int) -> tuple[int, tuple[LogEntry, ...]]:
        """Return up to `limit` entries with offsets above `after`, and the offset of the last one returned.

        Released entries are skipped. Where there is nothing to return, the offset is the one to read after next time.
        A reader that is a front ahead of what is released gets nothing before more is. Raises LogDamaged.
        """
        with self._lock:
            start = max(after - self._released, 0)
            end = start + max(limit, 0)
            self._refill(end)
            entries = tuple(self._front[start:end])
            return max(after, self._released) + len(entries), entries

    def _refill(self, wanted: int) -> None:
        """Bring segments to the front while it holds fewer than `wanted` entries and has room for a whole one."""
        spool = self._spool
        while spool is not None and spool.entries and len(self._front) < wanted:
            if self._front and len(self._front) + spool.next_entries > self._memory_entries:
                return
            self._front += spool.take()

    def release(self, upto: int) -> None:
        """Forget entries up to and with this offset: they are stored. Releasing again changes nothing.

        Raises ValueError for an offset that nobody can have read: who says so stored something else.
        """
        with self._lock:
            readable = self._released + len(self._front)
            if upto > readable:
                raise ValueError(f"offset {upto} cannot be released, the last one that was to be read is {readable}")
            if upto > self._released:
                del self._front[: upto - self._released]
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
            return self._last - self._released

    @property
    def spilled_bytes(self) -> int:
        """How much of what waits was too much for memory and is on disk; 0 in ordinary times."""
        with self._lock:
            return 0 if self._spool is None else self._spool.bytes

    @property
    def _last(self) -> int:
        return self._released + len(self._front) + (0 if self._spool is None else self._spool.entries)

    def remove_leftovers(self) -> None:
        """Delete the files of a process that was killed. Only for who has claimed the directory, before any `append`.

        They are not taken over: what that process had in memory, before and behind what is in its files, is gone
        with it, so start and backfill have to do without the log anyway, and they do. Nor need a release read what
        another one wrote.
        """
        if self._spool is not None:
            self._spool.remove_leftovers()

    def close(self) -> None:
        """Delete what is on disk; it is not to be read afterwards."""
        with self._lock:
            if self._spool is not None:
                self._spool.close()
