"""All that actors say to one another. Every message is a frozen struct; times are ms UTC, money is Decimal.

Events are past tense, commands imperative. Messages about actors themselves live in `bot.supervision`.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import get_args

import msgspec

from bot.domain.adjustment import Adjustment
from bot.domain.decision import Decision
from bot.domain.filters import SymbolRules
from bot.domain.kline import Kline
from bot.domain.order import Fill, OrderReport, Side, Trade
from bot.domain.strategy import Signal
from bot.supervision import Event

__all__ = [
    "ENTRY_TYPES",
    "TOPICS",
    "Adjustment",
    "Backfilled",
    "BalanceMoved",
    "BalancesReported",
    "BookEvent",
    "BookOpened",
    "CatchUp",
    "Compare",
    "Compared",
    "Connect",
    "ConnectionEnded",
    "ConnectionEnding",
    "ConnectionOpened",
    "Decision",
    "DiskSpace",
    "ExecutionReported",
    "Fill",
    "Flatten",
    "Flush",
    "Freed",
    "Halt",
    "Kline",
    "LogEntries",
    "LogEntry",
    "Mark",
    "Notice",
    "OrderEnded",
    "OrderProposal",
    "OrderReport",
    "PointsPut",
    "ProposalTimeout",
    "Publish",
    "ReplayLog",
    "Reserved",
    "ResolveOrders",
    "RulesChanged",
    "Skipped",
    "Stored",
    "StreamDown",
    "StreamUp",
    "Subscribe",
    "Suspect",
    "SymbolStopped",
    "Taken",
    "Trade",
    "Watch",
]


class SymbolStopped(msgspec.Struct, frozen=True):
    """No order of a symbol leaves any more (no entry of any, where it is empty). Account to monitor and bridge.

    `name` is the trader's, or the account's where all entries are stopped.
    """

    name: str
    symbol: str
    reason: str
    time: int


class BookOpened(msgspec.Struct, frozen=True):
    """A process goes on with the book: whose it is, what it began with. The system to the bridge, at a start and daily.

    `start_cash` is in the quote asset; `rules` are the symbols' trading rules, in JSON. With it and the trades a book
    can be made again.
    """

    name: str
    mode: str
    exchange: str
    account: str
    bot_id: str
    start_cash: Decimal
    rules: str
    time: int


BookEvent = Event | SymbolStopped | BookOpened
"""What happened to an actor, a symbol or the book, worth to be kept."""

LogEntry = Kline | Trade | Decision | BookEvent
"""What the bridge's log takes."""

ENTRY_TYPES: tuple[type, ...] = get_args(LogEntry)
"""Each type of log entry. Those without a topic are for the store only and are published nowhere."""

TOPICS: Mapping[type, str] = {
    Kline: "KafkaStreams",
    Trade: "trades",
    **dict.fromkeys(get_args(BookEvent), "actor-events"),
}
"""The topic of each type of log entry that has one. Source: contract, section 4."""


class StreamUp(msgspec.Struct, frozen=True):
    """A stream delivers the klines of its symbols again; what closed before may be missing. Stream to feeds, monitor.

    `connection` counts the stream's connections.
    """

    stream: str
    connection: int
    symbols: tuple[str, ...]
    time: int


class StreamDown(msgspec.Struct, frozen=True):
    """A stream delivers nothing any more, for the reason given. Stream to the feeds of its symbols, monitor."""

    stream: str
    connection: int
    symbols: tuple[str, ...]
    reason: str
    time: int


class Subscribe(msgspec.Struct, frozen=True):
    """Say StreamUp if the stream is up. A new incarnation of a feed to its stream."""

    symbol: str


class Suspect(msgspec.Struct, frozen=True):
    """REST knows of trades of which the stream brought nothing. Feed to its stream."""

    symbol: str


class ConnectionOpened(msgspec.Struct, frozen=True):
    """A connection is open. Reader thread to the actor that owns it."""

    connection: int


class ConnectionEnding(msgspec.Struct, frozen=True):
    """The exchange will end the connection soon; it still delivers. Reader thread to the actor that owns it."""

    connection: int
    reason: str


class ConnectionEnded(msgspec.Struct, frozen=True):
    """A connection ended or could not be opened, for the reason given. Reader thread to the actor that owns it."""

    connection: int
    reason: str


class Connect(msgspec.Struct, frozen=True):
    """Open a connection. An actor's timer to itself."""


class Backfilled(msgspec.Struct, frozen=True):
    """Closed klines that REST had for a gap, oldest first, or the reason why it had none. History thread to feed.

    `epoch` is that of the incarnation that asked.
    """

    symbol: str
    epoch: int
    klines: tuple[Kline, ...]
    error: str = ""


class CatchUp(msgspec.Struct, frozen=True):
    """Ask REST for what is missing. A feed's timer to itself."""


class Watch(msgspec.Struct, frozen=True):
    """Look at what may have gone quiet or full. An actor's timer to itself."""


class Mark(msgspec.Struct, frozen=True):
    """A trader took a message that counts: its close is the symbol's last close. Trader to portfolio."""

    symbol: str
    close: Decimal
    event_time: int


class Taken(msgspec.Struct, frozen=True):
    """A trader is done with a kline, its order included: it may be stored. Trader to bridge.

    What is stored counts as taken after a restart of the process, so nothing is stored before. `decision` is None where
    it follows from what is stored anyway.
    """

    kline: Kline
    decision: Decision | None = None


class OrderProposal(msgspec.Struct, frozen=True):
    """A trader's signal, to be sized by the one who owns the money. It carries the message's mark too."""

    client_order_id: str
    symbol: str
    signal: Signal
    close: Decimal
    event_time: int


class Reserved(msgspec.Struct, frozen=True):
    """The order may be sent: `quantity` in the base asset, money set aside for it. Portfolio to trader.

    It is a LIMIT IOC order where it has a `limit_price`, else a MARKET order.
    """

    client_order_id: str
    quantity: Decimal
    quote_reserved: Decimal
    limit_price: Decimal | None = None


class Skipped(msgspec.Struct, frozen=True):
    """A signal that became no order, under the contract's one name. Portfolio to trader; decider to monitor."""

    client_order_id: str
    symbol: str
    side: Side
    name: str
    detail: str
    event_time: int


class OrderEnded(msgspec.Struct, frozen=True):
    """An order is final; what it did not spend is free again. `status` is an OrderStatus. Trader to portfolio, monitor.

    `event_time` is the deciding kline's; `fills` are all executions, empty where there was none.
    """

    client_order_id: str
    symbol: str
    status: str
    fills: tuple[Fill, ...]
    event_time: int
    detail: str = ""


class RulesChanged(msgspec.Struct, frozen=True):
    """The exchange changed the trading rules of these symbols. Whoever asked it to portfolio and traders."""

    rules: tuple[SymbolRules, ...]


class ExecutionReported(msgspec.Struct, frozen=True):
    """The exchange's stream tells of one step of an order, of this bot or not. Reader thread to account.

    `fill` is the execution that this step was, if it was one; `executed_quantity` (base asset) is the order's so far.
    """

    symbol: str
    client_order_id: str
    order_id: int
    side: Side
    status: str
    executed_quantity: Decimal
    fill: Fill | None
    time: int
    detail: str = ""


class BalancesReported(msgspec.Struct, frozen=True):
    """What the account holds now of the assets named, as (asset, free, locked). Reader thread to account."""

    balances: tuple[tuple[str, Decimal, Decimal], ...]
    time: int


class BalanceMoved(msgspec.Struct, frozen=True):
    """A deposit, withdrawal or transfer changed an asset by `delta`. Reader thread to account."""

    asset: str
    delta: Decimal
    time: int


class Compare(msgspec.Struct, frozen=True):
    """Compare the book with the account: now (the account's timer to itself), or soon (a trader to the account)."""

    soon: bool = False


class Compared(msgspec.Struct, frozen=True):
    """The book was compared with the account; what could be explained is in the journal. Thread to account.

    `reports` hold executions found late, by their orders, and `adjustments` corrections: those who keep books take
    them. `stops` say why which symbols must not trade on (an empty symbol: all entries), `freed` are those whose
    differences a person accepted. `lines` tell each finding; `error` is why there was no comparison.
    """

    reports: tuple[OrderReport, ...] = ()
    adjustments: tuple[Adjustment, ...] = ()
    stops: tuple[tuple[str, str], ...] = ()
    freed: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()
    error: str = ""


class Halt(msgspec.Struct, frozen=True):
    """Let no order leave from now on, over restarts too, until a person resumes. Anyone to portfolio."""

    reason: str


class Freed(msgspec.Struct, frozen=True):
    """A person accepted a symbol's differences (an empty one: those of the quote asset), and they are booked.

    Account to the symbol's trader, or to the portfolio, and back once what was told before is booked there: only then
    orders may leave again, since one that was sized by the old book would sell what is not the bot's.
    """

    symbol: str


class Flatten(msgspec.Struct, frozen=True):
    """Sell all that the bot holds of a symbol, also while orders are halted. A person's command, to a trader."""


class ProposalTimeout(msgspec.Struct, frozen=True):
    """No answer came to a proposal. A trader's timer to itself."""

    client_order_id: str


class ResolveOrders(msgspec.Struct, frozen=True):
    """Ask the exchange about orders of unknown fate. A trader's timer to itself."""


class Notice(msgspec.Struct, frozen=True):
    """Something a person should know, in one line. Any actor to monitor; `level` is info, warning or error."""

    source: str
    level: str
    text: str
    time: int


class LogEntries(msgspec.Struct, frozen=True):
    """Consecutive entries of the event log, the last one at `upto`. Bridge to persistence."""

    upto: int
    entries: tuple[LogEntry, ...]


class Stored(msgspec.Struct, frozen=True):
    """Everything up to log offset `upto` that belongs in the store is there. Persistence to bridge."""

    upto: int


class ReplayLog(msgspec.Struct, frozen=True):
    """Send again what is not stored yet. A new incarnation of persistence to the bridge."""


class Flush(msgspec.Struct, frozen=True):
    """Write what waits. Persistence's timer to itself."""


class Publish(msgspec.Struct, frozen=True):
    """There may be something in the outbox, or to hear of. Persistence, or its own timer, to publisher and archive."""

    is_timer: bool = False


class DiskSpace(msgspec.Struct, frozen=True):
    """The data directory's free space crossed the limit. Persistence to portfolio and monitor."""

    free_bytes: int
    is_low: bool


class PointsPut(msgspec.Struct, frozen=True):
    """A call to whoever keeps metrics ended: so many points were taken, so many can never be. Thread to metrics.

    `error` is why not all were taken, empty where they were.
    """

    taken: int = 0
    refused: int = 0
    error: str = ""
