"""What an actor knows that outlives its incarnation but not the process: one writer, any number of readers.

Only immutable values are put in, so that a reader on another thread sees a whole one.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Generic, TypeVar

import msgspec

from bot.domain.decision import Decision
from bot.domain.filters import SymbolRules
from bot.domain.kline import Kline
from bot.domain.ledger import Reservation, TradingDay
from bot.domain.money import ZERO
from bot.domain.order import OrderIntent
from bot.domain.position import Position
from bot.domain.strategy import Signal
from bot.messages import Taken

T = TypeVar("T")


class Cell(Generic[T]):
    """One value, replaced whole."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value


class Pending(msgspec.Struct, frozen=True):
    """A message whose signal waits for its order's end; `decision` is what will be said of it but for its outcome.

    An order that no message decided (flatten) has the last kline, and no decision.
    """

    kline: Kline
    signal: Signal
    client_order_id: str
    decision: Decision | None = None


class TraderMemory(msgspec.Struct, frozen=True):
    """What a trader knows after a message: where the next incarnation goes on.

    `last` is the last kline taken, `close` the last one that counted, `previous_close` the one before it. `pending`
    and `waiting` are set while an order is under way. `doubts` are the orders of unknown fate, and those whose end may
    not have been told yet. `is_warm` says that the store was asked for what came before; only the process's first
    incarnation does. `in_care` says that a stand-in took the last message, which keeps no strategy's state. `gaps`,
    `stale` and `dropped` count messages, the same one told again among the last. While `is_flattening` all is to be
    sold: `flatten_order` is the order under way or the last one for that, `flatten_failures` how many in a row sold
    nothing, `flattened` how often that was done with. `recalled` is the order that decided the last kline, while that
    is all that is left of it: it is decided, but not stored yet.

    `decisions` counts the decided messages by name: with `pending` and `waiting` it adds up to all that came, whatever
    died meanwhile. `signals` counts those of klines by side, whatever became of them. `untold` is what the bridge may
    not have been told yet of messages that are done.
    """

    last: Kline | None = None
    state: Any = None
    close: Decimal | None = None
    previous_close: Decimal | None = None
    position: Position = Position()
    pending: Pending | None = None
    waiting: tuple[Kline, ...] = ()
    is_flattening: bool = False
    flatten_order: str = ""
    flatten_failures: int = 0
    flattened: int = 0
    recalled: OrderIntent | None = None
    doubts: tuple[OrderIntent, ...] = ()
    is_warm: bool = False
    taken: int = 0
    dropped: int = 0
    gaps: int = 0
    stale: int = 0
    in_care: bool = False
    decisions: Mapping[str, int] = {}
    signals: Mapping[str, int] = {}
    untold: tuple[Taken | Decision, ...] = ()


class FeedMemory(msgspec.Struct, frozen=True):
    """The last kline that a feed passed on, and how many it passed.

    `dropped` counts those that were not newer, not its own or not to be believed, `refused` those that the trader had
    no room for. `connected` says that its stream is up.
    """

    last: Kline | None = None
    passed: int = 0
    dropped: int = 0
    refused: int = 0
    connected: bool = False


class StreamMemory(msgspec.Struct, frozen=True):
    """How many connections a stream has tried, of all incarnations so that no number comes twice, and if it is up."""

    connections: int = 0
    is_up: bool = False


class AccountMemory(msgspec.Struct, frozen=True):
    """What the account at the exchange was last known to hold, as (asset, free, locked), and how that is known.

    `is_up` says that the account's stream tells of changes; `connections` counts those of all incarnations.
    `compared_ms` is when the book was last compared with the account; 0: not yet.
    """

    balances: tuple[tuple[str, Decimal, Decimal], ...] = ()
    is_up: bool = False
    connections: int = 0
    compared_ms: int = 0


class PublisherMemory(msgspec.Struct, frozen=True):
    """What is known of the broker, how many entries it acknowledged since the process started, and the last outage.

    `down_ms` is since when it cannot be reached (ms UTC), None while it can. `outages` counts; the last one took
    `outage_ms`, and then `waited` entries were to be published, which took `caught_up_ms` from when it was back (None:
    they still wait).
    """

    link: str = "connecting"
    reason: str = ""
    published: int = 0
    down_ms: int | None = None
    outages: int = 0
    outage_ms: int = 0
    waited: int = 0
    caught_up_ms: int | None = None


class ArchiveMemory(msgspec.Struct, frozen=True):
    """What is known of the store elsewhere, how many entries it took since the process started, and the last outage.

    `link` and `reason` are those of its last answer. `refused` counts items that it can never keep, `failures` writes
    that failed; `is_alarm` says that too much waits, or for too long. The others are as the publisher's.
    """

    link: str = "connecting"
    reason: str = ""
    archived: int = 0
    refused: int = 0
    failures: int = 0
    is_alarm: bool = False
    down_ms: int | None = None
    outages: int = 0
    outage_ms: int = 0
    waited: int = 0
    caught_up_ms: int | None = None


class MetricsMemory(msgspec.Struct, frozen=True):
    """How many points of metrics were taken and how many were dropped since the process started.

    `waiting` points wait; `error` is why they do, empty where nothing is wrong.
    """

    taken: int = 0
    dropped: int = 0
    waiting: int = 0
    error: str = ""


class PortfolioMemory(msgspec.Struct, frozen=True):
    """The wallet as last booked, in the quote asset, what is set aside in it by order, and the trading day's limit.

    `positions` (base asset) are what it was booked with: cash and they belong together at any moment.
    `rules` are the symbols' trading rules as last told.
    """

    cash: Decimal = ZERO
    free_cash: Decimal = ZERO
    start_cash: Decimal = ZERO
    day: TradingDay = TradingDay()
    disk_low: bool = False
    reservations: tuple[tuple[str, Reservation], ...] = ()
    rules: tuple[SymbolRules, ...] = ()
    positions: Mapping[str, Decimal] = {}
