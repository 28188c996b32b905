"""The tree as data: which actors there are, in which order they start, and what happens when one fails.

Started in this order, stopped in the reverse one: streams stop first, then feeds, persistence and monitor last. Most
of a stop's eight seconds (`bot.app.system`) are the traders': an order in flight may take six to be answered.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from bot.actors import addresses
from bot.actors.account import AccountActor, AccountSettings
from bot.actors.archive import ArchiveActor, ArchiveSettings
from bot.actors.cells import (
    AccountMemory,
    ArchiveMemory,
    Cell,
    FeedMemory,
    MetricsMemory,
    PortfolioMemory,
    PublisherMemory,
    StreamMemory,
    TraderMemory,
)
from bot.actors.feed import FeedActor, FeedSettings
from bot.actors.kafka_bridge import KafkaBridgeActor
from bot.actors.limits import BackfillGate, ConnectionBudget
from bot.actors.metrics import MetricsActor, MetricsSettings
from bot.actors.monitor import MonitorActor, MonitorMemory
from bot.actors.order_meter import OrderMeter
from bot.actors.persistence import Outlet, PersistenceActor, PersistenceSettings
from bot.actors.portfolio import PortfolioActor
from bot.actors.publisher import PublisherActor, PublisherSettings
from bot.actors.stream import StreamActor, StreamSettings
from bot.actors.trader import TraderActor, TraderSettings
from bot.domain.adjustment import Adjustment
from bot.domain.care import Bystander, Liquidator
from bot.domain.filters import SymbolRules
from bot.domain.kline import Kline
from bot.domain.metrics import Point
from bot.domain.order import OrderReport, Trade
from bot.domain.risk import RiskLimits
from bot.domain.sizing import SizingParameters
from bot.domain.strategy import Strategy
from bot.gateway import OrderGateway
from bot.messages import (
    Backfilled,
    BalanceMoved,
    BalancesReported,
    BookOpened,
    Compared,
    ConnectionEnded,
    ConnectionEnding,
    ConnectionOpened,
    Decision,
    DiskSpace,
    ExecutionReported,
    Flatten,
    Freed,
    Halt,
    LogEntries,
    Mark,
    Notice,
    OrderEnded,
    OrderProposal,
    PointsPut,
    Publish,
    ReplayLog,
    Reserved,
    RulesChanged,
    Skipped,
    Stored,
    StreamDown,
    StreamUp,
    Subscribe,
    Suspect,
    SymbolStopped,
    Taken,
)
from bot.ports import (
    AccountStream,
    EventLog,
    HaltSwitch,
    History,
    MarketBook,
    MarketHistory,
    MarketStream,
    MetricSink,
    OrderJournal,
    Outbox,
    Publisher,
    Store,
)
from bot.supervision import Actor, Address, ChildSpec, Context, Exceeded, Lane

ARCHIVE_STOP_MS = 2_500
"""So that a write in hand may end in order where the network answers nothing."""
FEEDS_STOP_BY_MS, TRADERS_STOP_BY_MS, BOOKS_STOP_BY_MS = 1_500, 6_300, 7_000
"""Until when after the beginning of a stop they may last; what then is left is persistence's and its followers'."""

LANES: dict[type, Lane] = {
    Kline: Lane.STREAM,
    Decision: Lane.MUST,
    OrderProposal: Lane.MUST,
    OrderEnded: Lane.MUST,
    Adjustment: Lane.MUST,
    Trade: Lane.MUST,
    Mark: Lane.MUST,
    Taken: Lane.MUST,
    Backfilled: Lane.MUST,
    LogEntries: Lane.MUST,
    Reserved: Lane.CONTROL,
    Skipped: Lane.CONTROL,
    ExecutionReported: Lane.MUST,
    OrderReport: Lane.MUST,
    BalancesReported: Lane.CONTROL,
    BalanceMoved: Lane.CONTROL,
    ConnectionOpened: Lane.CONTROL,
    Compared: Lane.CONTROL,
    SymbolStopped: Lane.CONTROL,
    BookOpened: Lane.CONTROL,
    ConnectionEnded: Lane.CONTROL,
    Flatten: Lane.CONTROL,
    Freed: Lane.MUST,
    Halt: Lane.CONTROL,
    Stored: Lane.CONTROL,
    ReplayLog: Lane.CONTROL,
    StreamUp: Lane.CONTROL,
    StreamDown: Lane.CONTROL,
    ConnectionEnding: Lane.CONTROL,
    Subscribe: Lane.CONTROL,
    Suspect: Lane.CONTROL,
    DiskSpace: Lane.CONTROL,
    RulesChanged: Lane.CONTROL,
    Notice: Lane.CONTROL,
    PointsPut: Lane.CONTROL,
    Publish: Lane.CONTROL,
}


class Memories:
    """The cells of all actors of one process, by symbol where there is one actor a symbol."""

    def __init__(self, symbols: tuple[str, ...]) -> None:
        self.feeds = {symbol: Cell(FeedMemory()) for symbol in symbols}
        self.traders = {symbol: Cell(TraderMemory()) for symbol in symbols}
        self.portfolio = Cell(PortfolioMemory())
        self.account = Cell(AccountMemory())
        self.publisher = Cell(PublisherMemory())
        self.archive = Cell(ArchiveMemory())
        self.monitor = Cell(MonitorMemory())
        self.metrics = Cell(MetricsMemory())
        self.orders = {symbol: OrderMeter() for symbol in symbols}


class AccountParts(msgspec.Struct, frozen=True):
    """The account at the exchange; `stream` is None where nothing tells of its changes.

    `compare` compares the book with it, `stops` is where symbols are stopped.
    """

    settings: AccountSettings
    stream: AccountStream | None
    compare: Callable[[], Compared]
    stops: HaltSwitch


class LiveParts(msgspec.Struct, frozen=True):
    """Where live klines come from; `budget` is shared by all streams, and by whoever else opens connections."""

    market: MarketStream
    streams: tuple[StreamSettings, ...]
    budget: ConnectionBudget


class PublishingParts(msgspec.Struct, frozen=True):
    """The broker: what waits for it, what makes a new connection to it, why nothing may be published if that is so."""

    outbox: Outbox
    connect: Callable[[], Publisher]
    hold: Callable[[], str | None] = lambda: None
    settings: PublisherSettings = PublisherSettings()


class ArchivingParts(msgspec.Struct, frozen=True):
    """The store elsewhere: what waits for it, what reaches it and makes sure that it may be written."""

    outbox: Outbox
    connect: Callable[[], History]
    settings: ArchiveSettings = ArchiveSettings()


class MetricsParts(msgspec.Struct, frozen=True):
    """Metrics: `look` takes notice of what lies between points; `sink` keeps the points, None where nobody does."""

    look: Callable[[], None]
    take_points: Callable[[int], Sequence[Point]]
    sink: MetricSink | None
    settings: MetricsSettings = MetricsSettings()


class Parts(msgspec.Struct, frozen=True):
    """All that the actors are made of; `live` and `history` are None where klines are injected.

    `market` gives what is known of the exchange that orders go to; None where none is traded on. `halt` lets no order
    leave any more, for the reason given. `publishing` is None where there is no broker, `archiving` where nothing
    is stored elsewhere, `metrics` where nobody looks at them.

    `handler_deadline_ms`: how long one message may take before its actor counts as hung. `on_quarantine`: what becomes
    of the position of a quarantined trader: "limits" (stop loss and take profit act on), "sell" (at once) or "hold".
    """

    feeds: tuple[FeedSettings, ...]
    traders: tuple[TraderSettings, ...]
    persistence: PersistenceSettings
    rules: Mapping[str, SymbolRules]
    strategy: Strategy
    sizing: SizingParameters
    mode: str
    live: LiveParts | None
    history: MarketHistory | None
    gateway: OrderGateway
    journal: OrderJournal
    store: Store
    log: EventLog
    free_bytes: Callable[[], int]
    now_ms: Callable[[], int]
    exchange_now_ms: Callable[[], int]
    memories: Memories
    handler_deadline_ms: int
    halt: Callable[[str], None]
    market: MarketBook | None = None
    on_quarantine: str = "limits"
    account: AccountParts | None = None
    publishing: PublishingParts | None = None
    archiving: ArchivingParts | None = None
    metrics: MetricsParts | None = None

    @property
    def outlets(self) -> tuple[Outlet, ...]:
        """Where else all goes that is stored, in one order in every process."""
        found: list[Outlet] = []
        if self.publishing is not None:
            found.append(Outlet(self.publishing.outbox, addresses.PUBLISHER))
        if self.archiving is not None:
            found.append(Outlet(self.archiving.outbox, addresses.ARCHIVE))
        return tuple(found)


def child_specs(parts: Parts) -> tuple[ChildSpec, ...]:
    """Return the children in dependency order."""
    memories, store = parts.memories, parts.store

    streams = parts.live.streams if parts.live is not None else ()
    stream_of = {symbol: addresses.stream(s.number) for s in streams for symbol in s.symbols}
    gate = BackfillGate()
    only_closed = {settings.symbol for settings in parts.traders if settings.only_closed}

    def last_stored(symbol: str) -> Kline | None:
        klines = store.last_klines(symbol, 1)
        return klines[0] if klines else None

    def last_counted(symbol: str) -> Kline | None:
        klines = store.last_klines(symbol, 1, symbol in only_closed)
        return klines[0] if klines else None

    def monitor(context: Context) -> MonitorActor:
        return MonitorActor(context, memories.monitor, parts.mode)

    def persistence(context: Context) -> PersistenceActor:
        return PersistenceActor(context, parts.persistence, store, parts.free_bytes, parts.now_ms, parts.outlets)

    def publisher(to: PublishingParts) -> Callable[[Context], PublisherActor]:
        return lambda context: PublisherActor(context, to.settings, memories.publisher, to.outbox, to.connect, to.hold)

    def archive(to: ArchivingParts) -> Callable[[Context], ArchiveActor]:
        args = (to.settings, memories.archive, to.outbox, to.connect, random.Random())
        return lambda context: ArchiveActor(context, *args)

    def metrics(of: MetricsParts) -> Callable[[Context], MetricsActor]:
        return lambda context: MetricsActor(context, of.settings, memories.metrics, of.look, of.take_points, of.sink)

    def bridge(context: Context) -> KafkaBridgeActor:
        return KafkaBridgeActor(context, parts.log)

    def portfolio(context: Context) -> PortfolioActor:
        return PortfolioActor(
            context,
            parts.sizing,
            parts.rules,
            parts.journal,
            memories.portfolio,
            memories.traders,
            last_counted,
            parts.market.view if parts.market is not None else lambda symbol: None,
            parts.halt,
        )

    def account(at: AccountParts) -> Callable[[Context], AccountActor]:
        return lambda context: AccountActor(context, at.settings, memories.account, at.stream, at.compare, at.stops)

    def stand_in(settings: TraderSettings) -> Callable[[Context], TraderActor]:
        strategy = Liquidator() if parts.on_quarantine == "sell" else Bystander()
        limits = settings.limits if parts.on_quarantine == "limits" else RiskLimits()
        return trader(msgspec.structs.replace(settings, in_care=True, limits=limits), strategy)

    def trader(settings: TraderSettings, strategy: Strategy) -> Callable[[Context], TraderActor]:
        return lambda context: TraderActor(
            context,
            settings,
            parts.rules[settings.symbol],
            strategy,
            parts.gateway,
            parts.journal,
            store,
            memories.traders[settings.symbol],
            parts.exchange_now_ms,
            parts.market,
        )

    def feed(settings: FeedSettings) -> Callable[[Context], FeedActor]:
        return lambda context: FeedActor(
            context,
            settings,
            memories.feeds[settings.symbol],
            stream_of.get(settings.symbol),
            parts.history,
            gate,
            lambda: last_stored(settings.symbol),
            parts.exchange_now_ms,
        )

    def stream(settings: StreamSettings) -> Callable[[Context], StreamActor]:
        assert parts.live is not None
        market, budget, memory = parts.live.market, parts.live.budget, Cell(StreamMemory())
        return lambda context: StreamActor(context, settings, memory, market, budget, random.Random(), memories.orders)

    def spec(address: Address, factory: Callable[[Context], Actor], **policy: Any) -> ChildSpec:
        return ChildSpec(address, factory, handler_deadline_ms=parts.handler_deadline_ms, **policy)

    whole = {"on_exceeded": Exceeded.ESCALATE}
    books = {"stop_by_ms": BOOKS_STOP_BY_MS}
    markets = {"stop_deadline_ms": 1_000, "stop_by_ms": FEEDS_STOP_BY_MS}
    return (
        spec(addresses.MONITOR, monitor, tracked=False, **whole),
        # Stopped after persistence, so that they hear of the last batch.
        *(
            spec(addresses.ARCHIVE, archive(to), tracked=False, stop_deadline_ms=ARCHIVE_STOP_MS)
            for to in (parts.archiving,)
            if to is not None
        ),
        *(spec(addresses.PUBLISHER, publisher(to), tracked=False) for to in (parts.publishing,) if to is not None),
        spec(addresses.PERSISTENCE, persistence, tracked=False, **whole),
        spec(addresses.BRIDGE, bridge, tracked=False, **whole, **books),
        spec(addresses.PORTFOLIO, portfolio, **whole, **books),
        *(
            spec(addresses.METRICS, metrics(of), tracked=False, stop_deadline_ms=500)
            for of in (parts.metrics,)
            if of is not None
        ),
        *(
            spec(addresses.ACCOUNT, account(at), start_deadline_ms=30_000, stop_deadline_ms=500, **books)
            for at in (parts.account,)
            if at is not None
        ),
        # Recovery asks the exchange about every order of unknown fate, one after another.
        *(
            spec(
                addresses.trader(s.symbol),
                trader(s, parts.strategy),
                start_deadline_ms=30_000,
                stop_deadline_ms=TRADERS_STOP_BY_MS,
                stop_by_ms=TRADERS_STOP_BY_MS,
                stand_in=stand_in(s),
            )
            for s in parts.traders
        ),
        *(spec(addresses.feed(s.symbol), feed(s), **markets) for s in parts.feeds),
        *(spec(addresses.stream(s.number), stream(s), **markets) for s in streams),
    )
