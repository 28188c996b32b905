"""Whole bots for benchmarks.kafka: what a kline takes of each actor, and an order's path with publishing."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.kafka_parts import SYMBOLS, a_kline, kafka_stream, quietly, settings_of
from bot.actors import addresses
from bot.actors.feed import FeedSettings
from bot.actors.limits import ConnectionBudget
from bot.actors.persistence import PersistenceSettings
from bot.actors.portfolio import START_CASH_NOTE
from bot.actors.stream import StreamSettings
from bot.actors.supervisor import LANES, LiveParts, Memories, Parts, PublishingParts, child_specs
from bot.actors.trader import TraderSettings
from bot.adapters.kafka.codec import Codec
from bot.adapters.kafka.publisher import KafkaPublisher
from bot.adapters.local_log import LocalLog
from bot.adapters.paper import PaperExchange
from bot.adapters.sqlite import SqliteJournal, SqliteOutbox, SqliteStore
from bot.app.data_directory import DataDirectory
from bot.app.publishing import BATCH_MS
from bot.domain.filters import default_rules
from bot.domain.kline import Kline
from bot.domain.order import OrderIntent, OrderReport
from bot.domain.position import Position
from bot.domain.risk import RiskLimits
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters
from bot.gateway import OrderGateway
from bot.ports import MarketStream, Publisher, at_once
from bot.supervision import ActorSystem, SystemClock

YEAR_MS = 31_536_000_000
ON_THE_WAY = 400
"""A source of whole bots keeps no more of a symbol's klines under way: fewer than its mailboxes hold."""
WARM_UP = 10
"""So many orders of a turn are left out."""


# What it takes


def cpu_of_threads() -> Counter[str]:
    """Return the seconds of CPU that each thread took so far, by its actor's kind; librdkafka's own in one."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    taken: Counter[str] = Counter()
    for task in Path("/proc/self/task").iterdir():
        try:
            name = names.get(int(task.name)) or (task / "comm").read_text().strip()
            ran_ns = int((task / "schedstat").read_text().split()[0])
        except OSError:
            continue  # it ended just now
        taken[_kind(name)] += ran_ns / 1e9
    return taken


def _kind(name: str) -> str:
    if "reader" in name:
        return "reader"
    return "librdkafka" if name.startswith("rdk:") else name.partition("/")[0]


class Stopwatch:
    """Adds up the CPU that calls take in their thread; for those that come a few times a batch, not a kline."""

    def __init__(self) -> None:
        self.taken: Counter[str] = Counter()

    def watch(self, target: Any, thread: str, **stages: str) -> None:
        for method, stage in stages.items():
            setattr(target, method, self._timed(f"{thread}: {stage}", getattr(target, method)))

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return call(*arguments)
            finally:
                self.taken[name] += time.thread_time() - began

        return timed


# A bot


class Source:
    """A market stream of made klines: `count` as fast as they are taken, or at `rate` a second."""

    def __init__(self, count: int, rate: float = 0, trades: bool = False) -> None:
        self.count, self.rate, self.trades = count, rate, trades
        self.memories: Memories | None = None
        self.stamps: dict[tuple[str, int], int] = {}
        self.number = 0
        self.received_ns = 0
        self._begins: float | None = None

    def of(self, bot: "Bot") -> "Source":
        self.memories = bot.memories
        return self

    def connect(self, symbols: Sequence[str], interval: str) -> "Source":
        return self

    def receive(self) -> Kline | None:
        if self.number >= self.count or self._begins is None:
            time.sleep(0.005)
            return None
        number = self.number
        if self.rate:
            time.sleep(max(0.0, self._begins + number / self.rate - time.perf_counter()))
        else:
            assert self.memories is not None
            memory = self.memories.traders[SYMBOLS[number % len(SYMBOLS)]]
            while number // len(SYMBOLS) - memory.value.taken > ON_THE_WAY:
                time.sleep(0.001)
        self.number += 1
        self.received_ns = time.perf_counter_ns()
        kline = a_kline(number, time.time_ns(), trades=self.trades)
        if self.trades:
            self.stamps[kline.symbol, kline.open_time] = int(kline.quote_volume or 0)
        return kline

    def begin(self, late_s: float = 0) -> None:
        self._begins = time.perf_counter() + late_s

    def close(self) -> None:
        self.count = 0


class Timed(Scalping):
    """The rule; notes how long after its stamp each kline was decided."""

    def __init__(self, keep: int) -> None:
        super().__init__(Decimal("0.01"), Decimal("0.01"))
        self.after_ns: deque[int] = deque(maxlen=keep)

    def decide(self, state: Any, kline: Kline, position: Position) -> Any:
        if kline.quote_volume:
            self.after_ns.append(time.time_ns() - int(kline.quote_volume))
        return super().decide(state, kline, position)


class Placed(PaperExchange):
    """Paper; notes how many ns after its kline's stamp each order was placed."""

    stamps: dict[tuple[str, int], int]

    def place(self, intent: OrderIntent, leave: Any = at_once) -> OrderReport:
        self.after_ns[intent.symbol, intent.open_time] = time.time_ns() - self.stamps[intent.symbol, intent.open_time]
        return super().place(intent, leave)

    def note(self, stamps: dict[tuple[str, int], int]) -> None:
        self.stamps, self.after_ns = stamps, dict[tuple[str, int], int]()


class Bot:
    """All actors over real files, on a market stream; publishing where it is given a prefix."""

    def __init__(self, folder: Path, market: Callable[["Bot"], MarketStream], publish: tuple[str, str] | None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.memories = Memories(SYMBOLS)
        self.watch = Stopwatch()
        self.store = SqliteStore(folder / "history.db")
        self.watch.watch(self.store, "persistence", write="store")
        self.journal = SqliteJournal(folder / "orders.db")
        self.journal.set_note(START_CASH_NOTE, "1000000")
        self.outbox = SqliteOutbox(folder / "outbox.db", 10**10) if publish else None
        self.strategy = Timed(200_000)
        self.log = LocalLog(folder / "spool")
        clock = SystemClock()
        rules = {symbol: rule for symbol in SYMBOLS if (rule := default_rules(symbol)) is not None}
        sizing = SizingParameters(fraction=Decimal("0.001"))
        self.exchange = Placed(rules, sizing, clock, next_trade_id=1)
        directory = DataDirectory(folder)
        publishing = None
        if publish and self.outbox:
            servers, prefix = publish
            settings, codec = settings_of(servers, prefix), Codec("paper", prefix)

            def connect() -> Publisher:
                publisher = KafkaPublisher(settings, codec, clock)
                self.watch.watch(publisher, "publisher", publish="write JSON, produce", poll="delivery reports")
                return publisher

            publishing = PublishingParts(self.outbox, connect)
            self.watch.watch(self.outbox, "persistence", add="outbox, before", confirm="outbox, after")
            self.watch.watch(self.outbox, "publisher", read="read the outbox", delivered="forget in the outbox")
        forever = {"update_ms": YEAR_MS, "max_silence_ms": YEAR_MS, "life_ms": YEAR_MS}
        parts = Parts(
            feeds=tuple(FeedSettings(symbol, "1m") for symbol in SYMBOLS),
            traders=tuple(TraderSettings(symbol=s, mode="paper", bot_id="b", limits=RiskLimits()) for s in SYMBOLS),
            persistence=PersistenceSettings(batch_ms=BATCH_MS),
            rules=rules,
            strategy=self.strategy,
            sizing=sizing,
            mode="paper",
            live=LiveParts(market(self), (StreamSettings(0, SYMBOLS, "1m", **forever),), ConnectionBudget(clock)),
            history=None,
            gateway=OrderGateway(self.exchange, self.journal, directory),
            journal=self.journal,
            store=self.store,
            log=self.log,
            free_bytes=lambda: 10**12,
            now_ms=clock.now_ms,
            exchange_now_ms=clock.now_ms,
            memories=self.memories,
            handler_deadline_ms=120_000,
            halt=lambda *_: None,
            publishing=publishing,
        )
        self.system = ActorSystem(clock, lanes=LANES, on_event=self._hear)
        self.system.start(child_specs(parts))

    def _hear(self, event: object) -> None:
        self.system.tell(addresses.MONITOR, event)

    def last_stored(self, symbol: str) -> Kline | None:
        klines = self.store.last_klines(symbol, 1)
        return klines[0] if klines else None

    @property
    def taken(self) -> int:
        return sum(cell.value.taken for cell in self.memories.traders.values())

    def is_done(self, count: int) -> bool:
        return self.taken >= count and self.log.depth == 0 and (self.outbox is None or self.outbox.state().depth == 0)

    def run(self, count: int) -> dict[str, float]:
        """Wait until it is done with `count` klines; return what each took, in us of CPU, by thread and stage."""
        before = cpu_of_threads() + self.watch.taken
        while not self.is_done(count):
            time.sleep(0.02)
        after = cpu_of_threads() + self.watch.taken
        return {name: (taken - before[name]) / count * 1e6 for name, taken in after.items()}

    def stop(self) -> None:
        self.system.stop()
        for database in (self.store, self.journal, self.outbox):
            if database is not None:
                database.close()
        self.log.close()


# Ends of a measurement


def first_bot(servers: str, prefix: str, folder: Path, count: int, rate: float, pipe: Connection) -> None:
    """A bot on made klines that publishes, if there is a prefix; tells what a kline took once the broker has all."""
    source = Source(count, rate)
    with quietly(folder):
        bot = Bot(folder, source.of, (servers, prefix) if prefix else None)
        pipe.send("ready")
        pipe.recv()
        source.begin()
        pipe.send((bot.run(count), []))
        bot.stop()


def second_bot(servers: str, prefix: str, folder: Path, count: int, pipe: Connection) -> None:
    """A bot on what the first one publishes; tells what a kline took and the latencies in ns."""
    with quietly(folder):
        bot = Bot(folder, lambda made: kafka_stream(servers, prefix, made.last_stored), None)
        feeds = bot.memories.feeds.values()
        while not all(cell.value.connected for cell in feeds):
            time.sleep(0.02)
        pipe.send("ready")
        pipe.recv()
        pipe.send((bot.run(count), list(bot.strategy.after_ns)))
        bot.stop()


def order_paths(servers: str, prefix: str, folder: Path, turns: int, count: int, rate: float, pipe: Connection) -> None:
    """Two bots side by side, one of which publishes, get their klines alternately; then each alone, in turns.

    What one does after its order must be done before the other's next kline, which would pay for it: `rate` is low.
    Tells the ns from kline to order, side by side in pairs, alone by turns; and by turns the us of CPU that a kline
    took of the threads that an order passes.
    """
    kinds: dict[str, tuple[str, str] | None] = {"without": None, "with": (servers, prefix)}
    beside: list[tuple[int, int]] = []
    alone: dict[str, list[list[int]]] = {kind: [] for kind in kinds}
    cpu: dict[str, list[float]] = {kind: [] for kind in kinds}
    with quietly(folder):
        for turn in range(turns):
            # Which of them is first in the other's wake changes from turn to turn.
            late = {kind: (number + turn) % 2 / 2 / rate for number, kind in enumerate(kinds)}
            bots = {kind: _trading(folder / f"{kind}{turn}", count, rate, publish) for kind, publish in kinds.items()}
            for kind, (_, source) in bots.items():
                source.begin(late[kind])
            for bot, _ in bots.values():
                bot.run(count)
                bot.stop()
            one, other = (bot.exchange.after_ns for bot, _ in bots.values())
            beside += [(one[key], other[key]) for key in list(one)[WARM_UP:] if key in other]
            for kind, publish in kinds.items():
                bot, source = _trading(folder / f"{kind}{turn}alone", count, rate, publish)
                source.begin()
                taken = bot.run(count)
                bot.stop()
                alone[kind].append(list(bot.exchange.after_ns.values())[WARM_UP:])
                cpu[kind].append(sum(taken[name] for name in ("reader", "feed", "trader", "portfolio")))
    pipe.send((beside, alone, cpu))


def _trading(folder: Path, count: int, rate: float, publish: tuple[str, str] | None) -> tuple[Bot, Source]:
    source = Source(count, rate, trades=True)
    bot = Bot(folder, source.of, publish)
    bot.exchange.note(source.stamps)
    return bot, source
