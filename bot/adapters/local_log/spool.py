"""Decides how entries wait on disk: in files, each written once from front to end, read once, and deleted.

A file is a row of frames: length and CRC-32 of the body, and the body: a byte for the entry's type, then its msgpack.
It is not synced to the disk: nobody reads it once the process has ended.
"""

import os
import shutil
import struct
import zlib
from collections import deque
from contextlib import suppress
from pathlib import Path

import msgspec

from bot.messages import ENTRY_TYPES, LogEntry
from bot.ports import LogDamaged, LogFull

SUFFIX = ".spool"
CHUNK = 64 * 1024
_HEADER = struct.Struct("<II")
_MARKS = {kind: bytes([number]) for number, kind in enumerate(ENTRY_TYPES)}


class _Segment:
    """One file, and the end of it that is not written yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = 0
        self.bytes = 0
        self.unwritten = bytearray()
        self._file: int | None = None

    def add(self, frame: bytes) -> None:
        self.unwritten += frame
        self.entries += 1
        self.bytes += len(frame)

    def write(self) -> None:
        """Write what is not written yet. Raises OSError; what was not written then stays for another try."""
        while self.unwritten:
            if self._file is None:
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            del self.unwritten[: os.write(self._file, self.unwritten)]

    def read(self) -> bytes:
        """Return all that was added. Raises OSError."""
        written = self.path.read_bytes() if self.bytes > len(self.unwritten) else b""
        return written + self.unwritten

    def seal(self) -> None:
        """Write the rest; nothing more will be added. Raises OSError."""
        self.write()
        self._close()

    def delete(self) -> None:
        self._close()
        _unlink(self.path)

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _unlink(path: Path) -> None:
    """Delete a file. One that cannot be deleted is in nobody's way; the next start tries again."""
    with suppress(OSError):
        path.unlink()


class Spool:
    """A queue of log entries on disk. In memory it keeps at most CHUNK bytes and a frame. Not thread-safe."""

    def __init__(self, directory: Path, disk_bytes: int, reserve_bytes: int, segment_entries: int) -> None:
        """Make an empty queue of at most `disk_bytes` in files of `segment_entries` entries; touches no file yet.

        No file is begun with less than `reserve_bytes` of the disk free.
        """
        self.entries = 0
        self.bytes = 0
        self._directory = directory
        self._disk_bytes = disk_bytes
        self._reserve_bytes = reserve_bytes
        self._segment_entries = segment_entries
        self._segments: deque[_Segment] = deque()
        self._begun = 0
        self._encode = msgspec.msgpack.Encoder().encode
        self._decoders: list[msgspec.msgpack.Decoder[LogEntry]] = [
            msgspec.msgpack.Decoder(kind) for kind in ENTRY_TYPES
        ]

    def append(self, entry: LogEntry) -> None:
        """Add an entry. Raises LogFull where bound or disk leave no room, and then nothing was added."""
        body = _MARKS[type(entry)] + self._encode(entry)
        frame = _HEADER.pack(len(body), zlib.crc32(body)) + body
        if self.bytes + len(frame) > self._disk_bytes:
            raise LogFull(
                f"{self._directory} holds {self.bytes // 1_000_000} MB that are not stored yet, as much as it may: "
                "see why persistence does not store them (disk space, locks, its last error)"
            )
        try:
            segment = self._newest()
            if len(segment.unwritten) >= CHUNK:
                segment.write()
        except OSError as error:
            raise LogFull(
                f"{self._directory} takes no more of what is not stored yet: {error.strerror}; "
                "make room on that disk, and see why persistence does not store"
            ) from None
        segment.add(frame)
        self.entries += 1
        self.bytes += len(frame)

    def _newest(self) -> _Segment:
        if self._segments:
            segment = self._segments[-1]
            if segment.entries < self._segment_entries:
                return segment
            segment.seal()
        self._directory.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self._directory).free
        if free < self._reserve_bytes:
            raise OSError(0, f"only {free // 1_000_000} MB are free, and the journal of orders needs them")
        self._begun += 1
        segment = _Segment(self._directory / f"{self._begun:08}{SUFFIX}")
        self._segments.append(segment)
        return segment

    @property
    def next_entries(self) -> int:
        """How many entries the next `take` returns."""
        return self._segments[0].entries if self._segments else 0

    def take(self) -> list[LogEntry]:
        """Remove the oldest segment and return its entries. Raises LogDamaged, and then nothing was removed."""
        segment = self._segments[0]
        try:
            entries = self._decode(segment.read())
        except OSError as error:
            raise LogDamaged(f"{segment.path}: {error.strerror}; start again: what it held is fetched anew") from None
        if len(entries) != segment.entries:
            raise LogDamaged(f"{segment.path} is not as it was written; start again: what it held is fetched anew")
        self._segments.popleft()
        self.entries -= segment.entries
        self.bytes -= segment.bytes
        segment.delete()
        return entries

    def _decode(self, data: bytes) -> list[LogEntry]:
        """Return the entries up to the first frame that is not whole."""
        entries: list[LogEntry] = []
        view, at = memoryview(data), 0
        while at + _HEADER.size <= len(view):
            length, crc = _HEADER.unpack_from(view, at)
            at += _HEADER.size
            body = view[at : at + length]
            if len(body) != length or zlib.crc32(body) != crc:
                break
            entries.append(self._decoders[body[0]].decode(body[1:]))
            at += length
        return entries

    def remove_leftovers(self) -> None:
        """Delete the files that an earlier process left."""
        for path in self._directory.glob(f"*{SUFFIX}"):
            _unlink(path)

    def close(self) -> None:
        """Delete all that is left."""
        while self._segments:
            self._segments.popleft().delete()
        self.entries = self.bytes = 0
