"""What the actors need of the outside, as small Protocols. Adapters stand behind them; nothing here does anything."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

import msgspec

from bot.domain.account import AccountOrder, AccountTrade, BookPrice
from bot.domain.adjustment import Adjustment
from bot.domain.decision import Decision
from bot.domain.filters import SymbolRules
from bot.domain.kline import Kline
from bot.domain.market import MarketView
from bot.domain.metrics import Point
from bot.domain.order import Fill, OrderIntent, OrderReport, OrderStatus, Side, Trade
from bot.messages import BalanceMoved, BalancesReported, BookEvent, ExecutionReported, LogEntry


class ExchangeError(Exception):
    """The exchange could not be asked, or refused. Subclasses say what the caller should do."""


class ExchangeUnavailable(ExchangeError):
    """A read failed for now (no connection, 5xx, limit reached): nothing happened, ask again later."""


class ExchangeBusy(ExchangeUnavailable):
    """A limit of the exchange's is reached: it is there, and answers once the limit's time is over, within a minute."""


class OrderNotSent(ExchangeError):
    """An order's bytes never left, or were refused before the exchange looked at them: there is no such order."""


class OrderHeld(OrderNotSent):
    """An order was held back at the last moment: its bytes did not leave. The text is the reason."""


class Consequence(StrEnum):
    """What a refused order means beyond itself. Source: Binance, errors."""

    NOTHING = "NOTHING"
    REFRESH_RULES = "REFRESH_RULES"  # the rules we know are not the exchange's: read them again before the next order
    STOP_SYMBOL = "STOP_SYMBOL"  # this account cannot trade this symbol: no more orders for it
    HALT = "HALT"  # keys, permissions or the account are wrong: no more orders at all, a human is needed


class OrderRejected(ExchangeError):
    """The exchange refused the order for good; `code` is its error code, 0 where it gave none."""

    def __init__(self, code: int, message: str, consequence: Consequence = Consequence.NOTHING) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.consequence = consequence


class OrderInDoubt(ExchangeError):
    """The order may or may not have reached the exchange: ask by client order id before anything else."""


class ConfigurationRefused(ExchangeError):
    """Keys, permissions or symbols are wrong: no retry helps. The text is one line with the fix."""


class KeysUnavailable(Exception):
    """Whoever keeps the API keys could not be asked for now; the text is one line with the fix."""


class KlineConnection(Protocol):
    """One open stream of some symbols' klines, read by one thread."""

    def receive(self) -> Kline | None:
        """Wait for the next kline and return it; None for a frame that is none (a reply, a ping, garbage counted).

        Raises StreamClosed with the reason when the connection ended or fell silent, and ShutdownAnnounced while it
        still delivers.
        """

    @property
    def received_ns(self) -> int:
        """When the last kline's frame was there as a whole, not yet decoded, by `time.perf_counter_ns`."""

    def close(self) -> None:
        """End the connection from any thread; a waiting `receive` raises StreamClosed."""


class StreamClosed(Exception):
    """A stream ended; the text is the reason."""


class ShutdownAnnounced(Exception):
    """The exchange is about to end a stream, which still delivers; the text is the reason."""


class MarketStream(Protocol):
    """Live klines."""

    def connect(self, symbols: Sequence[str], interval: str) -> KlineConnection:
        """Open one stream of the klines of all `symbols`. Raises StreamClosed with the reason if that cannot be."""


class MarketHistory(Protocol):
    """Klines of the past, by REST."""

    def closed_klines(self, symbol: str, interval: str, start_time: int) -> list[Kline]:
        """Return all closed klines with open_time >= `start_time` (ms), oldest first.

        Raises ExchangeUnavailable.
        """


AccountEvent = ExecutionReported | BalancesReported | BalanceMoved
"""What the stream of an account tells."""


class AccountConnection(Protocol):
    """One open stream of the account's own events, read by one thread."""

    def receive(self) -> AccountEvent | None:
        """Wait for the next event and return it; None for a frame that is none.

        Raises StreamClosed with the reason when the connection ended or fell silent.
        """

    def close(self) -> None:
        """End the connection from any thread; a waiting `receive` raises StreamClosed."""


class AccountStream(Protocol):
    """Events of the account: orders' steps, balances. Missed ones are not sent again."""

    def connect(self) -> AccountConnection:
        """Open the stream. Raises StreamClosed with the reason when it cannot be opened."""


class MarketBook(Protocol):
    """The last known prices at the exchange that orders go to."""

    def view(self, symbol: str) -> MarketView:
        """Return what is known of a symbol now; never asks."""

    def look(self, symbol: str, close: Decimal, side: Side) -> None:
        """Make sure that a symbol's price is known well enough to judge `close` by it; may ask. Never raises.

        `side` is that of the order that waits: it is asked for as urgently as the order itself.
        """


Leave = Callable[[Callable[[], None]], None]
"""Lets an order's bytes leave: it calls what it is given, which sends them, or raises, and then nothing was sent."""


def at_once(send: Callable[[], None]) -> None:
    """The Leave of who has nothing to check."""
    send()


class Exchange(Protocol):
    """Where orders go. Calls block; every one has its own time-out, well under a trader's deadline."""

    def rules(self, symbols: Sequence[str]) -> dict[str, SymbolRules]:
        """Return the symbols' trading rules. Raises ExchangeUnavailable, ConfigurationRefused."""

    def now_ms(self) -> int:
        """Return the exchange's clock. Raises ExchangeUnavailable."""

    def free_balance(self, asset: str) -> Decimal:
        """Return the account's free amount of an asset. Raises ExchangeUnavailable, ConfigurationRefused."""

    def place(self, intent: OrderIntent, leave: Leave = at_once) -> OrderReport:
        """Send a market order, or a LIMIT IOC one where the intent has a limit_price; return the exchange's report.

        Raises OrderNotSent, OrderRejected, OrderInDoubt.
        """

    def find(self, intent: OrderIntent) -> OrderReport | None:
        """Ask for an order by its client order id; None when the exchange says that there is none.

        Raises ExchangeUnavailable, ConfigurationRefused.
        """

    @property
    def acceptance_window_ms(self) -> int:
        """How long after a request was signed the exchange may still accept it: recvWindow + 1 s."""


class Account(Protocol):
    """What an exchange says of an account and its markets beyond the bot's own orders. Times in ms, oldest first.

    Each call raises ExchangeUnavailable, ConfigurationRefused.
    """

    def rules(self, symbols: Sequence[str]) -> dict[str, SymbolRules]:
        """Return the symbols' trading rules."""

    def balances(self) -> dict[str, tuple[Decimal, Decimal]]:
        """Return what the account holds of each asset, as (free, locked)."""

    def open_orders(self, symbol: str | None = None) -> list[AccountOrder]:
        """Return the orders of a symbol, or of all, that are still open, whoever sent them."""

    def orders_since(self, symbol: str, start_time: int) -> list[AccountOrder]:
        """Return all orders placed at or after `start_time`, whoever sent them."""

    def order_by_id(self, symbol: str, order_id: int) -> AccountOrder | None:
        """Return an order by the exchange's id; None when the exchange says that there is none."""

    def trades_since(
        self, symbol: str, *, from_id: int | None = None, start_time: int | None = None
    ) -> list[AccountTrade]:
        """Return all executions with trade id >= `from_id`, or at or after `start_time`; one of the two is given."""

    def average_price(self, symbol: str) -> Decimal:
        """Return the average price of the last minutes, by which the notional of market orders is judged."""

    def book_prices(self, symbols: Sequence[str], waiting: Side | None = None) -> dict[str, BookPrice]:
        """Return the best bid and ask of each symbol; `waiting` is the side of an order that cannot do without."""

    def can_trade(self) -> bool:
        """Return whether the account may trade at all."""

    def permissions(self) -> frozenset[str] | None:
        """Return the account's permissions as last told with another answer; None: not known. Never asks."""

    def may_withdraw(self) -> bool | None:
        """Return whether the key may take money out; None where the exchange does not tell."""


class JournalEntry(Protocol):
    """One order as the journal knows it."""

    @property
    def intent(self) -> OrderIntent: ...

    @property
    def status(self) -> OrderStatus: ...

    @property
    def fills(self) -> tuple[Fill, ...]: ...

    @property
    def order_id(self) -> int | None:
        """The exchange's own id; None or 0 where it never told one."""

    @property
    def is_no_order(self) -> bool:
        """Certain that the exchange has no order of this intent: it never left, or was refused."""


class OrderJournal(Protocol):
    """The only authority on orders sent. Each write is durable against SIGKILL when the call returns. Thread-safe."""

    def record(self, intent: OrderIntent) -> bool:
        """Store an intent before its order leaves; False if the id is known already (then nothing changes)."""

    def settle(self, report: OrderReport, never_left: bool = False) -> None:
        """Store an order's final status and fills. The first settlement of an id stands; later ones change nothing.

        `never_left`: no byte of it left, so whatever the exchange has under its id is another one's.
        """

    def amend(self, client_order_id: str, fills: Sequence[Fill]) -> tuple[Fill, ...]:
        """Add fills that were found after the order was settled; return those that were not journaled before.

        A fill is known by its order and trade id, so the same ones again change nothing. The order's status stays.
        """

    def adjust(self, adjustment: Adjustment) -> bool:
        """Store a correction of the book; False if its id is known already (then nothing changes)."""

    def adjustments(self) -> Sequence[Adjustment]:
        """Return all corrections of the book, in the order in which they were stored."""

    def entry(self, client_order_id: str) -> JournalEntry | None:
        """Return what is known of one order, None if it was never recorded."""

    def unresolved(self, symbol: str | None = None) -> Sequence[JournalEntry]:
        """Return the orders whose fate is unknown, oldest first."""

    def changes(self, after: int) -> tuple[int, Sequence[JournalEntry]]:
        """Return the orders that ended, or got fills, since a mark, and the new mark; all that ended where it is 0.

        Marks are this object's own. An order may be among them once more than it changed.
        """

    def settled(self, symbol: str | None = None) -> Iterable[JournalEntry]:
        """Return all orders that ended, in the order in which they were recorded."""

    def get_note(self, key: str) -> str | None:
        """Return a remembered fact of the book (starting cash, trading day), None if there is none."""

    def set_note(self, key: str, value: str) -> None:
        """Remember a fact of the book."""


class Store(Protocol):
    """History: klines, trades, decisions, events. One writer (persistence), any number of readers. Thread-safe."""

    def write(
        self,
        klines: Sequence[Kline],
        trades: Sequence[Trade],
        decisions: Sequence[Decision] = (),
        events: Sequence[BookEvent] = (),
    ) -> None:
        """Store all in one transaction; the same item twice leaves one. Raises StoreError.

        A trade of more quantity replaces the one of its order (a fill was found late), never one of less.
        """

    def last_klines(self, symbol: str, count: int, closed_only: bool = False) -> list[Kline]:
        """Return the last `count` klines (or closed klines) of a symbol in message order, oldest first."""

    def traded(self, symbol: str) -> dict[str, Decimal]:
        """Return the quantities of a symbol's stored trades (base asset), by client order id."""

    def prune(self, before_ms: int, events_before_ms: int) -> int:
        """Delete unclosed klines with an open_time before `before_ms`; return how many went.

        What was decided at them goes too unless it came of a signal, and events from before `events_before_ms`.
        """


class StoreError(Exception):
    """The store did not take or give; the text is one line with the cause."""


class StoreBusy(StoreError):
    """A store elsewhere could not be asked or had too much to do: that passes by itself, so ask again later."""


class ItemsRefused(StoreError):
    """A store can never keep these items (too large, say); it has all others that it was given with them."""

    def __init__(self, text: str, items: Sequence[Kline | Trade]) -> None:
        super().__init__(text)
        self.items = tuple(items)


class History(Protocol):
    """Klines and trades in a store that may be far away. Thread-safe. Each method raises StoreError, StoreBusy.

    A plain StoreError needs a person (no such table, no permission, no credentials), and then it goes on.
    """

    def write(self, klines: Sequence[Kline], trades: Sequence[Trade]) -> None:
        """Store trades, then klines; the same item twice leaves one, so all may be given again after a failure.

        A trade of more quantity replaces the one of its order (a fill was found late), never one of less.
        Returns or raises within seconds. Raises ItemsRefused.
        """

    def klines(
        self,
        symbol: str | None = None,
        interval: str | None = None,
        since: int | None = None,
        limit: int | None = None,
    ) -> Iterator[Kline]:
        """Iterate over klines by (open_time, is_closed, event_time), oldest first; of several symbols, merged.

        `since` is the smallest open_time in ms; `limit` keeps the newest so many.
        """

    def last_klines(self, symbol: str, count: int, closed_only: bool = False) -> list[Kline]:
        """Return the last `count` klines (or closed klines) of a symbol in message order, oldest first."""

    def trades(self, symbol: str | None = None) -> Iterator[Trade]:
        """Iterate over all trades by (time, client_order_id), oldest first."""

    def traded(self, symbol: str) -> dict[str, Decimal]:
        """Return the quantities of a symbol's stored trades (base asset), by client order id."""

    def trade(self, symbol: str, client_order_id: str) -> Trade | None:
        """Return the trade that an order made, None if it made none or it is not stored."""

    def symbols(self) -> list[str]:
        """Return the symbols that have klines or trades, sorted."""

    def close(self) -> None:
        """Let go of connections; nothing that was written needs it."""


class EventLog(Protocol):
    """The bridge's log of klines, trades and events about actors, until whoever stores them has them. Thread-safe.

    What a log holds in memory is bounded, whatever waits in it.
    """

    def append(self, entry: LogEntry) -> int:
        """Add an entry and return its offset; offsets rise by one. Raises LogFull, and then nothing was added."""

    def read(self, after: int, limit: int) -> tuple[int, tuple[LogEntry, ...]]:
        """Return up to `limit` entries with offsets above `after`, and the offset of the last one returned.

        A reader far ahead of what is released may get none until more is released; the next one behind `released`
        is always to be had. Raises LogDamaged.
        """

    def release(self, upto: int) -> None:
        """Forget entries up to and with this offset: they are stored."""

    @property
    def released(self) -> int:
        """The offset up to which entries were released; the next reader starts behind it."""

    @property
    def depth(self) -> int:
        """How many entries wait."""

    @property
    def spilled_bytes(self) -> int:
        """How much of what waits was too much for memory and is on disk; 0 in ordinary times."""


class OutboxState(msgspec.Struct, frozen=True):
    """What waits in an outbox: entries, their bytes on disk, since when the oldest one waits (ms UTC).

    `dropped` counts the open klines that had to go, ever.
    """

    depth: int
    bytes: int
    oldest_ms: int | None
    dropped: int = 0


class Outbox(Protocol):
    """What is to go elsewhere (a broker, another store), from before it is stored until it is there. One process.

    Each write is durable against SIGKILL when the call returns. Only what is stored may go, and all that is stored
    goes: so readers there see what readers of the store see. Thread-safe. Each method raises StoreError.
    """

    def add(self, upto: int, entries: Sequence[LogEntry], now_ms: int) -> None:
        """Keep log entries, the last of which is at the log's offset `upto`; those added before are left out."""

    def confirm(self) -> None:
        """All that was added is stored: it may go."""

    def unconfirmed(self) -> list[LogEntry]:
        """Return what an earlier process added and did not confirm, in order: the store may lack some of it."""

    def complete(self, entries: Sequence[LogEntry], now_ms: int) -> None:
        """Keep also what an earlier process gave to another outbox and did not confirm; what is here is left out."""

    @property
    def newest(self) -> int:
        """The place of the last entry that may go; 0 if there was none yet."""

    @property
    def depth(self) -> int:
        """How many entries wait."""

    def read(self, after: int, limit: int, kind: type | None = None) -> list[tuple[int, LogEntry]]:
        """Return up to `limit` stored entries (of a kind) behind the place `after`, each with its place, in order."""

    def delivered(self, upto: int, kind: type | None = None) -> None:
        """Forget the entries (of a kind) up to a place: they went."""

    def state(self) -> OutboxState:
        """Return how much waits, for how long, and what had to go."""


class LogFull(Exception):
    """The log holds as much as it may; the text says in one line how much and what to mend."""


class LogDamaged(Exception):
    """What the log held on disk cannot be read back; the text says in one line which file and why."""


class Link(StrEnum):
    """How a broker can be reached."""

    CONNECTING = "connecting"  # nothing is known yet
    UP = "up"
    AWAY = "away"  # no connection for now; it is tried again by itself
    REFUSED = "refused"  # the broker answers and does not take what it is given: a person is needed, then it goes on


class LinkState(msgspec.Struct, frozen=True):
    """What a publisher or reader knows of its broker: `reason` is one line with the fix, empty while it is up.

    The numbers count messages since its start: acknowledged, given back by the broker, sent again by the client;
    `queued` is how many wait to be acknowledged now.
    """

    link: Link
    reason: str = ""
    delivered: int = 0
    failed: int = 0
    retried: int = 0
    queued: int = 0


class Publisher(Protocol):
    """Puts log entries on their topics, each entry at least once and a key's entries in order. For one thread.

    No call raises or waits for a broker that is absent or refuses; `state` tells.
    """

    @property
    def taken(self) -> int:
        """The offset of the last entry taken. It falls back to `delivered` where the broker refused one.

        The next `publish` starts behind it.
        """

    @property
    def delivered(self) -> int:
        """The offset up to which every entry is acknowledged by the broker, or of a type that has no topic."""

    def publish(self, upto: int, entries: Sequence[LogEntry]) -> int:
        """Take consecutive entries, the last at offset `upto`, the first behind `taken`; return the new `taken`.

        It takes as many as there is room for, maybe none. Raises ValueError where the first one is not the next.
        """

    def poll(self, timeout_s: float = 0) -> None:
        """Take in what the broker acknowledged, waiting at most so long for the first of it. To be called often."""

    def state(self) -> LinkState:
        """Return what is known of the broker; never asks."""

    def close(self, timeout_s: float) -> None:
        """Wait at most so long for what was taken to be acknowledged, then let go of the broker."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One message of a topic as the broker has it. `time` is when it was published, ms UTC."""

    topic: str
    partition: int
    offset: int
    time: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class TopicReader(Protocol):
    """Reads topics as a member of a group, from where the group committed last. For one thread.

    A record that was not committed comes again to whoever reads next. No call raises for a broker that is absent.
    """

    def poll(self, limit: int, timeout_s: float) -> list[Record]:
        """Return up to `limit` records in each partition's order, waiting at most so long; empty where none came."""

    def commit(self, records: Iterable[Record]) -> bool:
        """Say that all up to these records is done with; False where the broker did not take it: they come again."""

    def ends(self) -> Mapping[tuple[str, int], int]:
        """Return the offset behind the last record of each partition (topic, number) read here; never asks.

        What the broker told last; a partition of which it told nothing yet is left out.
        """

    def state(self) -> LinkState:
        """Return what is known of the broker; never asks. Of the numbers only `failed` (polls) is counted."""

    def close(self) -> None:
        """Leave the group; what was not committed comes again."""


class PointsNotTaken(Exception):
    """Metrics were not taken for now, and may be given again; the text is one line with the cause and the fix."""


class PointsRefused(PointsNotTaken):
    """The first `count` points can never be taken."""

    def __init__(self, count: int, text: str) -> None:
        super().__init__(text)
        self.count = count


class MetricSink(Protocol):
    """Keeps points of metrics elsewhere. For one thread at a time; a call may take long."""

    def put(self, points: Sequence[Point]) -> int:
        """Give points, the oldest first; return how many of the first ones were taken, one at least.

        Raises PointsNotTaken, PointsRefused.
        """


class HaltSwitch(Protocol):
    """The kill switch, for all symbols or for one, kept over restarts."""

    def refusal(self, symbol: str, side: Side) -> str | None:
        """Return the reason why no order of this side may leave for a symbol, None if orders may."""

    def stop_symbol(self, symbol: str, reason: str) -> None:
        """Let no order of a symbol leave, or no entry of any if it is empty; the first reason stands."""

    def free_symbol(self, symbol: str) -> bool:
        """Let orders of a symbol leave again, or all entries; False if they were not stopped."""

    def stopped_symbols(self) -> dict[str, str]:
        """Return why each stopped symbol was stopped; the empty one stands for all entries."""
