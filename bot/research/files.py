"""Kline files: every form of FILE, read into memory exactly, or refused with the line that is wrong.

A FILE is CSV in the column order of Binance's archive (header or none, times in ms or us), also `.csv.gz`, `.zip` with
one CSV inside, or `.parquet`. Each becomes text first and one parser with one set of rules reads it: a number goes from
its digits to `Decimal` and never through float.

The rules are the contract's: section 1 ("Messages", "History of several symbols"), section 2 (FILE, exit status 2).
"""

import csv
import gzip
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from operator import attrgetter, sub
from pathlib import Path
from typing import cast

import msgspec

from bot.domain.kline import INTERVALS_MS, Kline

COLUMNS = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time"),
    *("quote_volume", "count", "taker_buy_volume", "taker_buy_quote_volume", "ignore"),
)
_TIMES = frozenset({"open_time", "close_time"})
_PRICES = frozenset({"open", "high", "low", "close"})
_REQUIRED = COLUMNS[:6]
_SUFFIXES = (".csv.gz", ".csv", ".zip", ".parquet")

_UNITS_MS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000}
_MONTHS = frozenset({"1M", "1mo"})  # the stream's name and the archive's

# The archive counts us from 2025 on and only the size tells: 10^14 ms is the year 5138, and 10^17 us as well.
_FIRST_US = 10**14
_TIME_END = 10**17
_MAX_DIGITS = 40
_MAX_EXPONENT = 30

# A row as nearly all files have it: the row, open_time, close, close_time. It runs over many rows in one call; rows it
# does not match go to `_checked`, which has the last word. So it must never match what `_checked` refuses.
_T = r"[1-9]\d{0,16}"
_N = r"\d{1,20}(?:\.\d{1,20})?(?:[eE][+-]?[0-2]?\d)?"
_P = rf"(?=[0-9.]*[1-9]){_N}"
_ROW = re.compile(rf"^(({_T}),{_P},{_P},{_P},({_P}),{_N},({_T}|)(?:,(?:{_N})?){{5}})\r?$", re.ASCII | re.MULTILINE)
_TIME = re.compile(r"\d{1,17}", re.ASCII)
_NUMBER = re.compile(r"(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,9}))?", re.ASCII)
_CHUNK = 1 << 20  # characters: bounds what is held twice while it is parsed


class FileError(ValueError):
    """A file that is refused; `str(error)` is one line, `FILE:LINE: what is wrong; how to mend it`.

    LINE counts from 1 in the CSV as unpacked (in parquet: the row). It is left out where not the content but the file
    is at fault: it is absent, a directory, unreadable, or wrongly named.
    """


class HistoryRow(msgspec.Struct, frozen=True, gc=False):
    """One closed kline of a file; times in ms since the epoch, UTC, volume in the base asset.

    `text` is the row as 12 fields, every one validated when it was read. The values that a backtest does not look at
    are made from it on demand: made at once they would double the time and the memory of reading. `quote_volume` is
    None where the file does not say.
    """

    open_time: int
    close: Decimal
    close_time: int
    text: str

    def _decimal(self, column: int) -> Decimal:
        return Decimal(self.text.split(",", column + 1)[column])

    @property
    def open(self) -> Decimal:
        return self._decimal(1)

    @property
    def high(self) -> Decimal:
        return self._decimal(2)

    @property
    def low(self) -> Decimal:
        return self._decimal(3)

    @property
    def volume(self) -> Decimal:
        return self._decimal(5)

    @property
    def quote_volume(self) -> Decimal | None:
        value = self.text.split(",", 8)[7]
        return Decimal(value) if value else None

    def kline(self, symbol: str, interval: str) -> Kline:
        """Return the row as the closed kline message that it is, with event_time = close_time."""
        _, opened, high, low, _, volume, _, quote, _ = self.text.split(",", 8)
        prices = (Decimal(opened), Decimal(high), Decimal(low), self.close)
        known = Decimal(quote) if quote else None
        times = (self.open_time, self.close_time, self.close_time)
        return Kline(symbol, interval, *times, *prices, Decimal(volume), known, is_closed=True)


@dataclass(slots=True)
class Series:
    """All klines of one symbol, of one interval.

    `rows` are in the order of (close_time, open_time), each open_time once; `dropped` counts the rows whose open_time
    the files had given before. `interval` is Binance's name, or, where only the rows tell and Binance has no such
    interval, one made likewise (`10m`, `1500ms`): compute with `interval_ms`.
    """

    symbol: str
    interval: str
    interval_ms: int
    rows: list[HistoryRow]
    dropped: int


@dataclass(slots=True)
class _Pending:
    """What is known of a symbol while its files are read. A close_time of 0 is not given."""

    paths: list[Path] = field(default_factory=list)
    named: tuple[str, Path] | None = None  # the interval by a name or the argument, and the first file that has it
    unnamed: Path | None = None  # a file whose interval only its rows can tell
    open_times: list[int] = field(default_factory=list)
    closes: list[Decimal] = field(default_factory=list)
    close_times: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def interval_ms(interval: str) -> int:
    """Return the length in ms of one of Binance's kline intervals, `1s` to `1w`.

    Raises ValueError, one line with the legal ones, for any other text. The month is refused too: it has no fixed
    length, and close_time and max_gap are defined by one. Source: Binance, klines, intervals.
    """
    if interval in INTERVALS_MS:
        return INTERVALS_MS[interval]
    month = " (a month has no fixed length)" if interval in _MONTHS else ""
    raise ValueError(f"interval {_shown(interval)} is not supported{month}; use one of {', '.join(INTERVALS_MS)}")


def read_series(
    paths: Sequence[Path], interval: str | None = None, progress: Callable[[int, int], None] | None = None
) -> list[Series]:
    """Read all files and return one series per symbol, in the order in which the symbols are first given.

    The interval is the file name's second part (`SYMBOL-INTERVAL-...`) where that is an interval, else `interval`, else
    the smallest step between the symbol's rows, else the length that a single row's close_time tells. Of rows with the
    same open_time the first in the files' order counts. `progress` gets (bytes done, bytes of all files on disk).

    Raises FileError for a file that cannot be taken whole, ValueError if `interval` is none that `interval_ms` knows.
    """
    if interval is not None:
        interval_ms(interval)
    pending: dict[str, _Pending] = {}
    files: list[tuple[Path, _Pending, int]] = []
    for path in paths:  # names first: a wrong one is told before minutes of reading
        size = _size(path)
        symbol, name = _parts_of_name(path)
        known = pending.setdefault(symbol, _Pending())
        known.paths.append(path)
        files.append((path, known, size))
        _note_interval(known, path, name or interval)
    total = sum(size for _, _, size in files)
    done = 0
    for path, known, size in files:
        text, is_csv = _text_of(path)
        before = len(known.texts)
        for end in _parse(path, text, is_csv, known):
            if progress is not None:
                progress(done + size * end // len(text), total)
        if len(known.texts) == before:
            raise _error(path, 1, "there is no row in it; give a file with klines")
        done += size
    return [_series(symbol, known) for symbol, known in pending.items()]


def merged(series: Sequence[Series]) -> Iterator[tuple[Series, HistoryRow]]:
    """Yield all rows by close_time, ties in the order of `series`, then by open_time, each with its series."""
    pairs = [(one, row) for one in series for row in one.rows]
    if len(series) > 1:
        # A stable sort of sorted runs: linear, and ties keep the order of `series` and, within one, of open_time.
        pairs.sort(key=lambda pair: pair[1].close_time)
    return iter(pairs)


def _shown(text: str) -> str:
    """Return foreign text as it may stand in a one-line message."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _place(path: Path) -> str:
    return str(path) if str(path).isprintable() else repr(str(path))  # a line break in a name must not break the line


def _error(path: Path, line: int | None, problem: str) -> FileError:
    return FileError(f"{_place(path)}: {problem}" if line is None else f"{_place(path)}:{line}: {problem}")


def _suffix_of(path: Path) -> str | None:
    return next((s for s in _SUFFIXES if path.name.lower().endswith(s)), None)


def _parts_of_name(path: Path) -> tuple[str, str | None]:
    """Return the symbol and, where the name has one, the interval."""
    suffix = _suffix_of(path)
    if suffix is None:
        raise _error(path, None, f"unknown kind of file; give one that ends in {', '.join(_SUFFIXES)}")
    symbol, _, rest = path.name[: -len(suffix)].partition("-")
    # Binance lists symbols in other scripts, which have no case.
    if not symbol.isalnum() or symbol != symbol.upper():
        problem = (
            f"the name begins with {_shown(symbol)}, which is no symbol; name the file as SYMBOL-INTERVAL-DATES{suffix}"
        )
        raise _error(path, None, problem + ", SYMBOL in upper case letters and digits")
    name = rest.partition("-")[0]
    if name in _MONTHS:
        raise _error(path, None, f"klines of a month ({name}) have no fixed length; give files of 1s to 1w")
    return symbol, name if name in INTERVALS_MS else None


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            raise _error(path, None, "is a directory; give the files in it")
        return path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> FileError:
    reason = error.strerror or type(error).__name__
    return _error(path, None, f"cannot be read ({reason}); check the path and its permissions")


def _note_interval(known: _Pending, path: Path, name: str | None) -> None:
    if name is None:
        known.unnamed = known.unnamed or path
    elif known.named is None:
        known.named = (name, path)
    elif known.named[0] != name:
        raise _two_intervals(path, name, known.named)


def _two_intervals(path: Path, name: str, other: tuple[str, Path]) -> FileError:
    problem = (
        f"its interval is {name} and that of {_place(other[1])} is {other[0]}, but a symbol's files are one series"
    )
    return _error(path, None, problem + "; give files of one interval")


def _text_of(path: Path) -> tuple[str, bool]:
    """Return the file as CSV text, and whether it was CSV (which may have a header) rather than parquet.

    The content decides, whatever the extension says: downloads are often unpacked, or packed, on the way.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if data.startswith(b"PAR1"):
        return _parquet_as_csv(path, data), False
    if data.startswith(b"\x1f\x8b"):
        data = _unpacked(path, lambda: gzip.GzipFile(fileobj=io.BytesIO(data)))
    elif data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        data = _zip_member(path, data)
    try:
        return data.decode("utf-8-sig"), True
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _error(path, line, "is neither text in UTF-8 nor gzip, zip or parquet; export it again") from error


def _unpacked(path: Path, opened: Callable[[], io.BufferedIOBase]) -> bytes:
    try:
        with opened() as stream:
            return stream.read()
    except Exception as error:  # on garbage these libraries raise what comes: zlib, struct, OS, EOF, value errors
        line = 1
        # Once more in small pieces, to say how far it is whole.
        with suppress(Exception), opened() as stream:
            while piece := stream.read1(256):
                line += piece.count(b"\n")
        reason = _shown(str(error))
        raise _error(path, line, f"cannot be unpacked further ({reason}); download it again") from error


def _zip_member(path: Path, data: bytes) -> bytes:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:  # as above
        raise _error(path, 1, f"is no whole zip file ({_shown(str(error))}); download it again") from error
    with archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1 or not members[0].filename.lower().endswith(".csv"):
            names = ", ".join(_shown(member.filename) for member in members[:3]) or "nothing"
            more = f" and {len(members) - 3} more" if len(members) > 3 else ""
            raise _error(path, 1, f"the zip holds {names}{more}; it must hold one .csv and nothing else")
        return _unpacked(path, lambda: cast("io.BufferedIOBase", archive.open(members[0])))


def _parquet_as_csv(path: Path, data: bytes) -> str:
    import polars as pl  # 0.4 s, for those who read parquet only

    try:
        frame = pl.read_parquet(io.BytesIO(data))
        if not set(_REQUIRED) <= set(frame.columns):
            if len(frame.columns) != len(COLUMNS) or _misplaced(frame.columns):
                problem = f"lacks columns; they must be named, or be 12 in this order: {', '.join(COLUMNS)}"
                raise _error(path, 1, problem)
            frame = frame.rename(dict(zip(frame.columns, COLUMNS, strict=True)))
        texts = []
        for name in COLUMNS:
            column = pl.col(name) if name in frame.columns else pl.lit(None, pl.String).alias(name)
            if isinstance(frame.schema.get(name), pl.Datetime):
                column = column.dt.epoch("ms")
            # Of a float this makes the shortest text that reads back as the same float.
            texts.append(column.cast(pl.String))
        return frame.select(texts).write_csv(include_header=False)
    except FileError:
        raise
    except (Exception, pl.exceptions.PanicException) as error:
        reason = _shown(str(error).partition("\n")[0])
        raise _error(path, 1, f"cannot be read as parquet ({reason}); export it again") from error


def _misplaced(names: Sequence[str]) -> str | None:
    """Return a column of the archive that does not stand where the archive has it."""
    plain = [name.strip().lower() for name in names]
    return next((name for at, name in enumerate(plain) if name in COLUMNS and COLUMNS.index(name) != at), None)


def _parse(path: Path, text: str, is_csv: bool, known: _Pending) -> Iterator[int]:
    """Append the rows of `text` to `known`; yield after each part how many characters are done."""
    start, line = (0, 1) if not is_csv else _after_header(path, text)
    while start < len(text):
        end = text.find("\n", start + _CHUNK) + 1 or len(text)
        lines = text.count("\n", start, end) + (not text.endswith("\n", start, end))
        rows = _ROW.findall(text, start, end)
        if len(rows) != lines or not _append(rows, known):
            # Something is unusual: line by line, to take it or to name it.
            parts = enumerate(text[start:end].split("\n"), line)
            _append([_checked(path, number, part) for number, part in parts if part.strip()], known)
        start, line = end, line + lines
        yield end


def _append(rows: list[tuple[str, str, str, str]], known: _Pending) -> bool:
    """Take rows of well-formed fields; nothing is taken, and False returned, if a kline ends before it begins."""
    if not rows:
        return True
    texts, opens, closes, ends = zip(*rows, strict=True)
    open_times = [_ms(value) for value in opens]
    close_times = [_ms(value) if value else 0 for value in ends] if any(ends) else [0] * len(rows)
    if any(0 < ended < began for began, ended in zip(open_times, close_times, strict=True)):
        return False
    known.open_times += open_times
    known.closes += map(Decimal, closes)
    known.close_times += close_times
    known.texts += texts
    return True


def _ms(value: str) -> int:
    time = int(value)
    return time if time < _FIRST_US else time // 1000


def _after_header(path: Path, text: str) -> tuple[int, int]:
    """Return where the rows begin, as position and line, past blank lines and a header."""
    start, line = 0, 1
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        if text[start:end].strip():
            fields = _fields(path, line, text[start:end].rstrip("\n"))
            if not _is_name(fields[0]):
                break
            if wrong := _misplaced(fields):
                problem = f"the header has {wrong} in another place than the archive; the order is {', '.join(COLUMNS)}"
                raise _error(path, line, problem)
            return end, line + 1
        start, line = end, line + 1
    return start, line


def _is_name(text: str) -> bool:
    try:
        float(text)  # also NaN, Infinity and -1: bad first rows, not headers
    except ValueError:
        return text.strip()[:1].isalpha()
    return False


def _fields(path: Path, line: int, text: str) -> list[str]:
    text = text.removesuffix("\r")
    fields = text.split(",")
    if '"' in text:
        try:
            fields = next(csv.reader([text], strict=True))
        except csv.Error as error:
            raise _error(path, line, f"is no CSV ({error}); mend the quotes") from error
    if len(fields) != len(COLUMNS):
        problem = f"has {len(fields)} field{'s' * (len(fields) != 1)}, not 12: {_shown(text)}"
        raise _error(path, line, problem + f"; is the line cut? It must be {','.join(COLUMNS)}")
    return fields


def _checked(path: Path, line: int, text: str) -> tuple[str, str, str, str]:
    """Return what `_ROW` finds, of a row that may have quotes or unusual numbers; raises FileError if it is wrong."""
    fields = _fields(path, line, text)
    for column, value in zip(COLUMNS, fields, strict=True):
        if value or column in _REQUIRED:
            problem = _time_problem(value) if column in _TIMES else _number_problem(value, column in _PRICES)
            if problem:
                raise _error(path, line, f"{column} {_shown(value)} {problem}")
    began, ended = fields[0], fields[6]
    if ended and _ms(ended) < _ms(began):
        raise _error(path, line, f"close_time {ended} is before open_time {began}; mend one of them")
    return ",".join(fields), began, fields[4], ended


def _time_problem(value: str) -> str | None:
    if not _TIME.fullmatch(value) or not 0 < int(value) < _TIME_END:
        return "is no time; give a whole number of ms or us since 1970, above 0"
    return None


def _number_problem(value: str, is_price: bool) -> str | None:
    match = _NUMBER.fullmatch(value)
    if match is None and value.startswith("-") and _NUMBER.fullmatch(value[1:]):
        bound = "is no price; it must be above 0" if is_price else "is below 0; it must be 0 or more"
        return f"{bound}, so mend the row or remove it"
    if match is None:
        return "is no plain decimal number; write it like 0.125, without sign, spaces or other marks"
    whole, fraction, exponent = match.groups()
    # Bounds what exact arithmetic with it can cost later.
    if len(whole) + len(fraction or "") > _MAX_DIGITS or abs(int(exponent or 0)) > _MAX_EXPONENT:
        return f"has more than {_MAX_DIGITS} digits or an exponent beyond {_MAX_EXPONENT}; write it shorter"
    if is_price and not Decimal(value):
        return "is no price; it must be above 0, so mend the row or remove it"
    return None


def _series(symbol: str, known: _Pending) -> Series:
    count = len(known.open_times)
    # Backwards, so that of each open_time the first index is the one that stays.
    first = dict(zip(reversed(known.open_times), range(count - 1, -1, -1), strict=True))
    interval, step = _interval_of(known, sorted(first), first)
    close_times = [e or b + step - 1 for b, e in zip(known.open_times, known.close_times, strict=True)]
    rows = list(map(HistoryRow, known.open_times, known.closes, close_times, known.texts))
    if len(first) < count:
        rows = [rows[index] for index in first.values()]
    rows.sort(key=attrgetter("close_time", "open_time"))
    return Series(symbol, interval, step, rows, count - len(first))


def _interval_of(known: _Pending, times: list[int], first: dict[int, int]) -> tuple[str, int]:
    """Return the name and the length in ms; `times` are the open times, sorted, `first` gives each one's index."""
    smallest = min(map(sub, times[1:], times), default=0)
    if known.named is not None:
        name = known.named[0]
        step = INTERVALS_MS[name]
        # A larger smallest step is no contradiction: rows may be missing.
        if known.unnamed is not None and 0 < smallest < step:
            raise _two_intervals(known.unnamed, _interval_name(smallest), known.named)
        return name, step
    ended = known.close_times[first[times[0]]]
    step = smallest or (ended - times[0] + 1 if ended else 0)
    if not step:
        path = known.paths[0]
        suffix = _suffix_of(path) or ""
        symbol = path.name[: -len(suffix)].partition("-")[0]
        problem = "a single row without close_time does not tell the interval; say it with --interval"
        raise _error(path, 1, problem + f", or name the file {symbol}-1m-DATES{suffix}")
    return _interval_name(step), step


def _interval_name(step: int) -> str:
    for unit, length in _UNITS_MS.items():
        if step % length == 0:
            return f"{step // length}{unit}"
    return f"{step}ms"
