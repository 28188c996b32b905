"""`copy`: klines and trades from the data directory to DynamoDB, or back. One that was killed goes on where it was.

How far it came is noted in the data directory after each batch; what is written twice is there once. Trades go first.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from bot.adapters.sqlite import SqliteStore
from bot.app.data_directory import REBUILT, DataDirectory, DataDirectoryError, Identity
from bot.app.dynamodb import open_history
from bot.config import ConfigError, Settings
from bot.domain.kline import Kline
from bot.domain.order import Trade
from bot.ports import History, ItemsRefused
from bot.supervision import Clock, SystemClock

if TYPE_CHECKING:
    from bot.adapters.dynamodb import DynamoHistory

Place = Literal["sqlite", "dynamodb"]
Progress = Callable[[int, int | None], None]
"""Hears how many klines and trades are done, and of how many in all where that is known."""

BATCH = 1_000
PATIENCE_MS = 120_000
"""How long a store that is busy is waited for; the same command goes on later."""
NOTES = "copy.json"
_ALL: Sequence[str | None] = (None,)


class CopyReport(msgspec.Struct, frozen=True):
    """What was copied: klines by symbol, and trades. `resumed`: an earlier copy was gone on with, its klines count too.

    `expired` open klines were left out, as old as they are not kept; `refused` says what can never be kept.
    """

    klines: dict[str, int]
    trades: int
    resumed: bool
    expired: int
    refused: tuple[str, ...]


def copy_history(
    settings: Settings,
    source: Place,
    target: Place,
    symbols: Sequence[str] | None = None,
    progress: Progress = lambda done, total: None,
    clock: Clock | None = None,
    batch: int = BATCH,
) -> CopyReport:
    """Copy what `source` has of `symbols` (None: all) to `target`.

    Raises ConfigError, DataDirectoryError, ConfigurationRefused, StoreError; StoreBusy after some minutes of it.
    """
    if source == target:
        raise ConfigError(f"--from {source} --to {target} is one store; name sqlite and dynamodb, in either order")
    clock = clock or SystemClock()
    directory = DataDirectory(settings.directory)
    with open_history(settings, clock, PATIENCE_MS) as far:
        for name in far.tables.names:
            far.tables.verify(name)
        what = (source, target, far.place, *far.tables.names, *(symbols or ()))
        if target == "dynamodb":
            from bot.adapters.dynamodb.items import expiry_s

            def expires(kline: Kline) -> bool:
                ends_s = expiry_s(kline.open_time, settings.keep_open_klines_days)
                return not kline.is_closed and ends_s * 1000 <= clock.now_ms()

            with _read(directory, far, symbols or ()) as store:
                total = sum(store.kline_count(symbol) for symbol in symbols or store.symbols())
                total += sum(map(store.trade_count, symbols or _ALL))
                return _Copy(store, far, _Notes(directory.path / NOTES, what), batch, expires).run(
                    symbols, lambda done: progress(done, total)
                )
        with _write(directory, far, symbols or ()) as store:
            return _Copy(far, store, _Notes(directory.path / NOTES, what), batch).run(
                symbols, lambda done: progress(done, None)
            )


@contextmanager
def _read(directory: DataDirectory, far: "DynamoHistory", symbols: Sequence[str]) -> Iterator[SqliteStore]:
    """Open the directory's store, beside a running bot too; the tables become its book's where they are nobody's."""
    identity = directory.identity()
    if identity is None or not directory.history.exists():
        raise DataDirectoryError(f"{directory.path} holds no history; name the --data-dir of a run")
    with SqliteStore.read_only(directory.history) as store:
        _refuse_unknown(store, symbols, f"in {directory.path}")
        far.tables.belong_to(**msgspec.structs.asdict(identity))
        yield store


@contextmanager
def _write(directory: DataDirectory, far: "DynamoHistory", symbols: Sequence[str]) -> Iterator[SqliteStore]:
    """Open the directory's store, on which no bot may run; a new directory becomes one to look at.

    It has no orders, so a bot that began on it would know nothing of its positions.
    """
    found = far.tables.identity()
    if found is None:
        raise DataDirectoryError(f"the tables {' and '.join(far.tables.names)} {far.place} hold no book")
    _refuse_unknown(far, symbols, far.place)
    identity = Identity(**found)
    directory.lock()
    try:
        known = directory.identity()
        if known is None or known.account == REBUILT:
            identity = msgspec.structs.replace(identity, account=REBUILT)
        directory.belong_to(identity)
        with SqliteStore(directory.history) as store:
            yield store
    finally:
        directory.release()


def _refuse_unknown(source: History, symbols: Sequence[str], where: str) -> None:
    """Raise ConfigError for a symbol of which the source has nothing: most likely it is misspelt."""
    there = source.symbols()
    for symbol in symbols:
        if symbol not in there and next(source.trades(symbol), None) is None:
            known = ", ".join(there) or "none yet"
            raise ConfigError(f"--symbols: there is nothing of {symbol} {where}; symbols there: {known}")


class _Reached(msgspec.Struct):
    """Where a symbol's copy is: all klines before `open_time` (ms) are written, `before` of them."""

    open_time: int
    before: int


class _Noted(msgspec.Struct):
    what: tuple[str, ...]
    symbols: dict[str, _Reached]


_noted = msgspec.json.Decoder(_Noted)


class _Notes:
    """How far a copy came, in a file. One of another copy, or one that cannot be read, counts as none."""

    def __init__(self, path: Path, what: tuple[str, ...]) -> None:
        self._path = path
        self._noted = _Noted(what, {})
        try:
            noted = _noted.decode(path.read_bytes())
        except (OSError, msgspec.DecodeError):
            return
        if noted.what == what:
            self._noted = noted

    def reached(self, symbol: str) -> _Reached | None:
        return self._noted.symbols.get(symbol)

    def note(self, symbol: str, reached: _Reached) -> None:
        self._noted.symbols[symbol] = reached
        partial = self._path.with_suffix(".partial")
        try:
            partial.write_bytes(msgspec.json.encode(self._noted))
            partial.replace(self._path)
        except OSError as error:
            raise DataDirectoryError(f"{self._path}: {error.strerror}; make room or rights for it") from None

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


class _Copy:
    def __init__(
        self,
        source: History,
        target: History,
        notes: _Notes,
        batch: int,
        expires: Callable[[Kline], bool] = lambda kline: False,
    ) -> None:
        self._source, self._target, self._notes = source, target, notes
        self._batch, self._expires = batch, expires
        self._done, self._expired, self._resumed = 0, 0, False
        self._refused: list[str] = []

    def run(self, symbols: Sequence[str] | None, progress: Callable[[int], None]) -> CopyReport:
        found = map(self._source.trades, symbols or _ALL)
        trades = [trade for each in found for trade in each]
        for at in range(0, len(trades), self._batch):
            self._write([], trades[at : at + self._batch])
            progress(min(at + self._batch, len(trades)))
        self._done = len(trades)
        counts = {symbol: self._copy_klines(symbol, progress) for symbol in symbols or self._source.symbols()}
        self._notes.forget()
        return CopyReport(counts, len(trades), self._resumed, self._expired, tuple(self._refused))

    def _copy_klines(self, symbol: str, progress: Callable[[int], None]) -> int:
        """Copy a symbol's klines and return how many there are, with those of an earlier copy."""
        reached = self._start(symbol)
        total = reached.before
        self._done += total
        klines = self._source.klines(symbol, since=reached.open_time or None)
        while batch := list(islice(klines, self._batch)):
            self._write([kline for kline in batch if not self._is_left_out(kline)], [])
            total += len(batch)
            self._done += len(batch)
            last = batch[-1].open_time
            in_last = sum(kline.open_time == last for kline in batch)
            if last != reached.open_time:
                reached = _Reached(last, total - in_last)
            self._notes.note(symbol, reached)
            progress(self._done)
        return total

    def _start(self, symbol: str) -> _Reached:
        """Return where to begin: where an earlier copy was, unless its target has not got that far."""
        noted, there = self._notes.reached(symbol), self._target.last_klines(symbol, 1)
        if noted is None or not there or there[0].open_time < noted.open_time:
            return _Reached(0, 0)
        self._resumed = True
        return noted

    def _is_left_out(self, kline: Kline) -> bool:
        expired = self._expires(kline)
        self._expired += expired
        return expired

    def _write(self, klines: Sequence[Kline], trades: Sequence[Trade]) -> None:
        try:
            self._target.write(klines, trades)
        except ItemsRefused as error:
            self._refused.append(str(error))
