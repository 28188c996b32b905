"""Decides how kline files are played: read and checked once, moved in time so that they begin now, served exactly."""

import gzip
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from pathlib import Path

import msgspec

from bot.simulator.amounts import ZERO, decimals, exact, round8
from bot.simulator.candles import INTERVAL_MS, LONGEST_FILL, Candle, CandleSeries, bucket, flat
from bot.simulator.depth import Depth, OrderBook
from bot.simulator.errors import SimulatorError
from bot.simulator.market import path_corners, path_price
from bot.simulator.profiles import SymbolRules

MICROSECONDS_FROM = 10**14
COLUMNS = 6  # open_time, open, high, low, close, volume must be there; the others may be empty or absent


@dataclass(frozen=True)
class Tape:
    """The rows of one symbol's files, oldest first, kept as text: a month of minutes as numbers would take 100 MB."""

    symbol: str
    interval: str
    lines: tuple[str, ...]
    grid: Decimal  # the smallest difference of two prices that the files can show

    def __len__(self) -> int:
        return len(self.lines)

    def row(self, number: int) -> Candle:
        """Return row `number`, with its original times; without a close time in the file it ends with its interval."""
        candle = _candle(self.lines[number].split(","))
        if candle.close_time <= candle.open_time:
            candle.close_time = _end(candle.open_time, self.interval)
        return candle


def read_tapes(files: tuple[Path, ...]) -> list[Tape]:
    """Read kline files (.csv, .csv.gz, .zip; archive column order) into one tape a symbol, in the files' order.

    Rows may stand in any order; of rows with the same open time the first one counts. Raises SimulatorError, with file
    and line, for what cannot be read.
    """
    taken: dict[str, dict[int, str]] = {}
    intervals: dict[str, tuple[str, Path]] = {}
    places: dict[str, int] = {}
    for path in files:
        parts = path.name.split(".")[0].split("-")
        symbol = parts[0].upper()
        rows = taken.setdefault(symbol, {})
        opens = []
        for candle, line in _read_rows(path):
            opens.append(candle.open_time)
            rows.setdefault(candle.open_time, line)
            shown = max(map(decimals, (candle.open, candle.high, candle.low, candle.close)))
            places[symbol] = max(places.get(symbol, 0), shown)
        if not opens:
            raise SimulatorError(f"{path}: no rows")
        interval = parts[1] if len(parts) > 1 else ""
        interval = {"1mo": "1M"}.get(interval, interval)
        if interval not in INTERVAL_MS:
            interval = _interval_of(path, opens)
        known, first = intervals.setdefault(symbol, (interval, path))
        if known != interval:
            raise SimulatorError(f"{path}: its interval is {interval}, that of {first} is {known}; one series has one")
    return [
        Tape(
            symbol,
            intervals[symbol][0],
            tuple(line for _, line in sorted(rows.items())),
            Decimal(1).scaleb(-places[symbol]),
        )
        for symbol, rows in taken.items()
    ]


def _end(open_time: int, interval: str) -> int:
    return bucket(open_time, interval)[1] if interval == "1M" else open_time + INTERVAL_MS[interval] - 1


def _read_rows(path: Path) -> Iterator[tuple[Candle, str]]:
    for number, text in enumerate(_lines(path), start=1):
        line = text.strip()
        fields = line.split(",")
        if not line or (number == 1 and not fields[0].strip().lstrip("-").isdigit()):
            continue
        try:
            yield _candle(fields), line
        except (ValueError, InvalidOperation) as error:
            reason = str(error) if isinstance(error, ValueError) else "a number is none"
            raise SimulatorError(f"{path}:{number}: not a kline row ({reason}): {line[:80]}") from error


def _lines(path: Path) -> list[str]:
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = [name for name in archive.namelist() if name.endswith(".csv")]
                if len(names) != 1:
                    raise SimulatorError(f"{path}: holds {len(names)} csv files, not one")
                return io.TextIOWrapper(io.BytesIO(archive.read(names[0])), "utf-8-sig").readlines()
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8-sig") as stream:
                return stream.readlines()
        return path.read_text("utf-8-sig").splitlines()
    except (OSError, EOFError, UnicodeDecodeError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SimulatorError(f"{path}: cannot be read ({reason})") from error


def _candle(fields: list[str]) -> Candle:
    if len(fields) < COLUMNS:
        raise ValueError(f"{len(fields)} columns")
    open_time = _milliseconds(fields[0])
    close_text = fields[6].strip() if len(fields) > 6 else ""
    prices = [Decimal(text) for text in fields[1:5]]
    volumes = [Decimal(text) if text.strip() else None for text in (fields[5], *fields[7:8], *fields[9:11])]
    volumes += [None] * (4 - len(volumes))
    if not all(price.is_finite() and price > 0 and decimals(price) <= 8 for price in prices):
        raise ValueError("a price is not positive, or has more than 8 decimals")
    if any(volume is not None and not (volume.is_finite() and volume >= 0) for volume in volumes):
        raise ValueError("a volume is negative or no number")
    opened, high, low, close = prices
    if high < max(opened, close) or low > min(opened, close):
        raise ValueError("high or low lies inside open and close")
    volume, quote, taker, taker_quote = volumes
    volume = round8(volume or ZERO)
    count = fields[8].strip() if len(fields) > 8 else ""
    return Candle(
        open_time,
        _milliseconds(close_text) if close_text else open_time,
        opened,
        high,
        low,
        close,
        volume,
        round8(quote if quote is not None else volume * close),
        int(count or 0),
        round8(taker or ZERO),
        round8(taker_quote or ZERO),
    )


def _milliseconds(text: str) -> int:
    value = int(text)
    return value // 1000 if value >= MICROSECONDS_FROM else value


def _interval_of(path: Path, times: list[int]) -> str:
    ordered = sorted(set(times))
    smallest = min((later - earlier for earlier, later in pairwise(ordered)), default=0)
    for interval, length in INTERVAL_MS.items():
        if length == smallest:
            return interval
    raise SimulatorError(f"{path}: neither its name (SYMBOL-INTERVAL-...) nor its rows tell the interval")


def shift_for(tapes: list[Tape], positions: dict[str, int], begin_ms: int, round_up: bool) -> int:
    """Return the whole-interval shift (ms) that makes the first row still to be played begin at `begin_ms`, aligned.

    `round_up`: at the next boundary instead of the one before.
    """
    length = max(INTERVAL_MS[tape.interval] for tape in tapes)
    firsts = [tape.row(positions[t]).open_time for tape in tapes if positions[t := tape.symbol] < len(tape)]
    if not firsts:
        return 0
    aligned = -(-begin_ms // length) * length if round_up else begin_ms // length * length
    return aligned - min(firsts) // length * length


class ReplayMarket:
    """A market that plays a tape. Between two closes the price runs through open, the extremes and close of its row.

    `position` is the row that is played next or now. `by_hand`: rows are served by `next_candle` only, and the book is
    endless at the last close.
    """

    def __init__(
        self,
        rules: SymbolRules,
        series: CandleSeries,
        tape: Tape,
        position: int,
        shift_ms: int,
        seed: str,
        by_hand: bool,
    ) -> None:
        self.rules = rules
        self.series = series
        self.forced: Decimal | None = None
        self.trade_id = 0
        self.position = position
        self._tape = tape
        self._grid = tape.grid
        self._shift_ms = shift_ms
        self.book = OrderBook(f"{seed}:{rules.symbol}:book:{position}", by_hand)
        self._next: Candle | None = None

    @property
    def price(self) -> Decimal:
        return self.series.last_close

    def peek(self) -> Candle | None:
        """Return the row that comes next, in market time; None at the end."""
        if self._next is None and self.position < len(self._tape):
            row = self._tape.row(self.position)
            row.open_time += self._shift_ms
            row.close_time += self._shift_ms
            self._next = row
        return self._next

    def next_candle(self) -> Candle | None:
        """Take the next row, its close replaced where a price is set."""
        row = self.peek()
        if row is None:
            return None
        self.position += 1
        self._next = None
        self.book.moved()
        close, self.forced = self.forced, None
        return self._with_ids(_ending(row, close) if close is not None else row)

    @exact
    def advance(self, now_ms: int, is_push: bool) -> list[tuple[str, Candle]]:
        over = self.close_only(now_ms)
        row = self.peek()
        self.book.moved()
        if row is None or row.open_time > now_ms:
            return over
        share = Decimal(now_ms - row.open_time) / (row.close_time + 1 - row.open_time)
        partial = self._partial(row, share)
        if self.forced is not None:
            partial = _ending(partial, self.forced)
            if is_push:
                self.forced = None
        self.series.current = partial
        return over

    @exact
    def close_only(self, now_ms: int) -> list[tuple[str, Candle]]:
        over: list[tuple[str, Candle]] = []
        row = self.peek()
        while row is not None and row.close_time < now_ms:
            candle = self.next_candle()
            assert candle is not None
            over += self.series.append_closed(candle)
            row = self.peek()
        return over

    def due(self) -> int | None:
        row = self.peek()
        return row.close_time + 1 if row is not None else None

    @exact
    def depth(self) -> Depth:
        return self.book.now(self.price, self._grid, self.rules.step)

    def fill_pause(self) -> None:
        """Put candles without trades between the last stored one and the row to come, after a restart."""
        row = self.peek()
        if row is None:
            return
        self.series.close_current()
        opened = max(self.series.last_closed.close_time + 1, row.open_time - LONGEST_FILL * self.series.length_ms)
        while opened < row.open_time:
            idle = flat(*bucket(opened, self.series.base), self.price)
            self.series.append_closed(idle)
            opened = idle.close_time + 1

    def _with_ids(self, candle: Candle) -> Candle:
        if candle.trades:
            candle.first_trade_id = self.trade_id + 1
            self.trade_id += candle.trades
            candle.last_trade_id = self.trade_id
        return candle

    def _partial(self, row: Candle, share: Decimal) -> Candle:
        price = path_price(row, share, self._grid)
        seen = [price, *(corner for since, corner in path_corners(row) if since <= share)]
        trades = int(row.trades * share)
        return Candle(
            row.open_time,
            row.close_time,
            row.open,
            max(seen),
            min(seen),
            price,
            round8(row.volume * share),
            round8(row.quote_volume * share),
            trades,
            round8(row.taker_volume * share),
            round8(row.taker_quote_volume * share),
            self.trade_id + 1 if trades else -1,
            self.trade_id + trades if trades else -1,
        )


def _ending(candle: Candle, close: Decimal) -> Candle:
    return msgspec.structs.replace(candle, close=close, high=max(candle.high, close), low=min(candle.low, close))
