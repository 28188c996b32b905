"""Rebuild: klines, trades, events and the book they make, from the topics into an empty data directory.

Klines, trades, events about actors and the cash that the book began with are on the topics, so that these are the
original ones, as far as topics are kept. The journal, and with it position and cash, is made of the trades: one fill
each, of all that its order filled. Nowhere on the topics are decisions, orders that filled nothing, and what `reconcile
--accept` booked: a book with such an adjustment is found unequal, which says so.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import chain, zip_longest
from typing import Any

import msgspec

from bot.actors.persistence import by_table
from bot.actors.portfolio import START_CASH_NOTE
from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.app.data_directory import REBUILT, DataDirectory, DataDirectoryError, Identity
from bot.app.snapshot import stored_snapshot
from bot.app.trading import RULES_NOTE
from bot.config import ConfigError, Settings
from bot.domain.kline import Kline, kline_key
from bot.domain.money import ZERO, plain
from bot.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, Trade
from bot.messages import BookOpened, LogEntry
from bot.ports import Record

BATCH = 5_000


class RebuildError(Exception):
    """The topics cannot be read, or do not make one book; the text is one line with the fix."""


class RebuildReport(msgspec.Struct, frozen=True):
    """What was rebuilt. `duplicates` were on the topics more than once. `digests` are SHA-256 over all rows in order.

    `difference` is the first one to the original, None where it is equal or none was given.
    """

    mode: str
    klines: int
    trades: int
    events: int
    duplicates: int
    digests: Mapping[str, str]
    wallet: Mapping[str, Any]
    original: str | None = None
    difference: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return it as an object for `--json`."""
        return msgspec.structs.asdict(self)


def rebuild(
    settings: Settings,
    directory: DataDirectory,
    since_ms: int | None = None,
    original: DataDirectory | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> RebuildReport:
    """Read the topics that the settings name and fill `directory`; compare with the store in `original`.

    Klines and events from `since_ms` (open_time, time) on; trades always all, since positions are made of them.
    `progress` hears the number of messages so far.

    Raises ConfigError, DataDirectoryError, RebuildError, ConfigurationRefused, StoreError.
    """
    if not settings.kafka.bootstrap_servers:
        raise ConfigError("kafka.bootstrap_servers is empty: name the broker (BOT_KAFKA__BOOTSTRAP_SERVERS)")
    if directory.identity() is not None:
        raise DataDirectoryError(f"{directory.path} holds a book already; rebuild into an empty --data-dir")
    # Nothing is written yet: whose book it is stands in the topics.
    directory.claim(Identity(mode="", exchange="", account="", bot_id=""))
    try:
        return _Rebuild(settings, directory, since_ms).run(original, progress)
    except BaseException:
        # Half a book would be in the way of the next attempt.
        directory.discard()
        raise
    finally:
        directory.release()


class _Rebuild:
    def __init__(self, settings: Settings, directory: DataDirectory, since_ms: int | None) -> None:
        # Imported only now: whoever has no broker needs no client.
        from bot.adapters.kafka.codec import Codec, CodecError
        from bot.adapters.kafka.reader import read_through

        self._settings, self._directory, self._since_ms = settings, directory, since_ms
        self._decode, self._unreadable = Codec("", settings.kafka.topic_prefix).decode, CodecError
        self._read_through = read_through
        self._modes: dict[str, str] = {}
        self._book: BookOpened | None = None
        self._read = {Kline: 0, Trade: 0, object: 0}

    def run(self, original: DataDirectory | None, progress: Callable[[int], None]) -> RebuildReport:
        directory = self._directory
        directory.belong_to(self._identity())
        with SqliteStore(directory.history) as store, SqliteJournal(directory.orders) as journal:
            batch: list[LogEntry] = []
            for done, entry in enumerate(self._entries(), 1):
                batch.append(entry)
                if len(batch) == BATCH:
                    store.write(*by_table(batch))
                    batch.clear()
                    progress(done)
            store.write(*by_table(batch))
            self._fill_journal(store, journal)
        with SqliteStore.read_only(directory.history) as store:
            klines, trades, events = store.kline_count(), store.trade_count(), store.reasons.event_count()
            report = RebuildReport(
                mode=self._mode,
                klines=klines,
                trades=trades,
                events=events,
                duplicates=sum(self._read.values()) - klines - trades - events,
                digests={"klines": _digest(store.klines()), "trades": _digest(store.trades())},
                wallet=stored_snapshot(directory).wallet_json(),
            )
            if original is None:
                return report
            difference = self._difference(store, original, report.wallet)
        return msgspec.structs.replace(report, original=str(original.path), difference=difference)

    # The topics

    def _entries(self) -> Iterator[LogEntry]:
        since_ms = self._since_ms or 0
        for record in chain(self._records("KafkaStreams", self._since_ms), self._records("trades", None)):
            entry = self._entry(record)
            if isinstance(entry, Trade) or (isinstance(entry, Kline) and entry.open_time >= since_ms):
                self._read[type(entry)] += 1
                yield entry
        for record in self._records("actor-events", None):
            entry = self._entry(record)
            if getattr(entry, "time", 0) >= since_ms:
                self._read[object] += 1
                yield entry

    def _records(self, topic: str, since_ms: int | None) -> Iterator[Record]:
        settings = self._settings
        try:
            yield from self._read_through(settings.kafka, [topic], since_ms, settings.aws.region)
        except ConnectionError as error:
            raise RebuildError(str(error)) from None

    def _entry(self, record: Record) -> LogEntry:
        try:
            entry = self._decode(record)
        except self._unreadable as error:
            raise RebuildError(str(error)) from None
        mode = (dict(record.headers).get("mode") or b"").decode("ascii", "replace")
        self._modes.setdefault(mode, f"{record.topic} [{record.partition}] at offset {record.offset}")
        if len(self._modes) > 1:
            (one, here), (other, there) = list(self._modes.items())[:2]
            raise RebuildError(
                f"the topics hold messages of mode {one} ({here}) and of mode {other} ({there}); "
                "name those of one bot with kafka.topic_prefix"
            )
        return entry

    def _take_book(self, book: BookOpened) -> None:
        known = self._book
        if known is not None and (known.exchange, known.bot_id) != (book.exchange, book.bot_id):
            raise RebuildError(
                f"the topics hold the books of {known.bot_id} at {known.exchange} and of {book.bot_id} at "
                f"{book.exchange}; name those of one bot with kafka.topic_prefix"
            )
        if known is None or book.time >= known.time:
            self._book = book

    # The book

    @property
    def _mode(self) -> str:
        return next(iter(self._modes))

    def _identity(self) -> Identity:
        """Return whose book the topics hold. Raises RebuildError where they do not tell."""
        for record in self._records("actor-events", None):
            entry = self._entry(record)
            if isinstance(entry, BookOpened):
                self._take_book(entry)
        book = self._book
        if book is None:
            topic = f"{self._settings.kafka.topic_prefix}actor-events"
            raise RebuildError(
                f"{topic} has no BookOpened, so whose book it is and what it began with is not known; name the topics "
                "of a bot with kafka.topic_prefix, and keep that one longer (kafka.actor_events.retention_hours)"
            )
        return Identity(book.mode, book.exchange, book.account if book.mode == "paper" else REBUILT, book.bot_id)

    def _fill_journal(self, store: SqliteStore, journal: SqliteJournal) -> None:
        assert self._book is not None
        journal.set_note(START_CASH_NOTE, plain(self._book.start_cash))
        journal.set_note(RULES_NOTE, self._book.rules)
        for trade in store.trades():
            kline = store.kline_at(trade.symbol, trade.time)
            is_there = kline is not None and kline.event_time == trade.time
            intent = OrderIntent(
                client_order_id=trade.client_order_id,
                symbol=trade.symbol,
                side=trade.side,
                quantity=trade.quantity,
                close=trade.close,
                open_time=kline.open_time if kline is not None and is_there else trade.time,
                event_time=trade.time,
                reason=trade.reason,
            )
            journal.record(intent)
            fills = tuple(_fills(trade))
            report = OrderReport(trade.client_order_id, trade.order_id, trade.symbol, OrderStatus.FILLED, fills)
            journal.settle(report)

    # The proof

    def _difference(self, store: SqliteStore, original: DataDirectory, wallet: Mapping[str, Any]) -> str | None:
        """Return the first difference to the original store in one line, None if there is none."""
        since_ms = self._since_ms
        with SqliteStore.read_only(original.history) as other:
            # What the original pruned of its open klines is still on the topics.
            oldest = {symbol: other.oldest_open_kline(symbol) for symbol in other.symbols()}

            def kept(klines: Iterator[Kline]) -> Iterator[Kline]:
                for kline in klines:
                    since = oldest.get(kline.symbol)
                    if kline.is_closed or (since is not None and kline.open_time >= since):
                        yield kline

            for symbol in sorted({*store.symbols(), *other.symbols()}):
                mine, theirs = kept(store.klines(symbol, since=since_ms)), other.klines(symbol, since=since_ms)
                for one, two in zip_longest(mine, theirs):
                    if one != two:
                        keys = (None if kline is None else kline_key(kline) for kline in (one, two))
                        return _told(f"klines of {symbol}", *keys)
            for trade, its in zip_longest(store.trades(), other.trades()):
                if trade != its:
                    return _told("trades", *(None if one is None else one.client_order_id for one in (trade, its)))
        theirs_wallet = stored_snapshot(original).wallet_json()
        for key in ("cash", "positions"):
            if wallet[key] != theirs_wallet[key]:
                told = f"{key}: {wallet[key]} rebuilt, {theirs_wallet[key]} in the original"
                with SqliteJournal.read_only(original.orders) as journal:
                    adjustments = len(journal.adjustments())
                return f"{told}, {adjustments} of whose corrections are on no topic" if adjustments else told
        return None


def _told(what: str, mine: str | None, theirs: str | None) -> str:
    if mine == theirs:
        return f"{what}: {mine} is not the same in both"
    return f"{what}: {mine or 'none'} rebuilt, {theirs or 'none'} in the original at the same place"


def _fills(trade: Trade) -> Iterator[Fill]:
    """Give fills that add up to the trade, with every commission; the first has a paper fill's own trade id."""
    commissions = trade.commissions or ((trade.commission_asset, trade.commission),)
    for number, (asset, amount) in enumerate(commissions):
        is_first = number == 0
        yield Fill(
            client_order_id=trade.client_order_id,
            order_id=trade.order_id,
            trade_id=trade.order_id + number,
            symbol=trade.symbol,
            side=trade.side,
            price=trade.price,
            quantity=trade.quantity if is_first else ZERO,
            quote_quantity=trade.quote_quantity if is_first else ZERO,
            commission=amount,
            commission_asset=asset,
            time=trade.time,
        )


def _digest(rows: Iterator[Any]) -> str:
    sha = hashlib.sha256()
    encode = msgspec.json.Encoder(enc_hook=str, decimal_format="string").encode
    for row in rows:
        sha.update(encode({name: _text(value) for name, value in msgspec.structs.asdict(row).items()}))
    return sha.hexdigest()


def _text(value: Any) -> Any:
    return plain(value) if isinstance(value, Decimal) else value
