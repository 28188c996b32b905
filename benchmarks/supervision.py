"""What supervision costs and how fast it mends, beside stock pykka, in one run.

    python -m benchmarks.supervision [tell|hop|restart|trader|burst ...]

Times depend on the machine and on what else it does: quote the ratios, or the load beside the times.
"""

import argparse
import gc
import itertools
import logging
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pykka
import structlog
from rich.console import Console
from rich.table import Table

from bot.actors import addresses
from bot.actors.feed import FeedSettings
from bot.actors.persistence import PersistenceSettings
from bot.actors.portfolio import START_CASH_NOTE
from bot.actors.supervisor import LANES, Memories, Parts, child_specs
from bot.actors.trader import TraderSettings
from bot.adapters.local_log import LocalLog
from bot.adapters.paper import PaperExchange
from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.app.data_directory import DataDirectory
from bot.domain.filters import SymbolRules
from bot.domain.kline import Kline
from bot.domain.position import Position
from bot.domain.risk import RiskLimits
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters
from bot.domain.strategy import Signal
from bot.gateway import OrderGateway
from bot.supervision import Actor, ActorSystem, Address, Backoff, ChildSpec, Context, Lane, LaneBounds, SystemClock

ROUNDS = 5
TELLS = 50_000
HOPS = 10_000
RESTARTS = 500
TRADER_ORDERS = 200
TRADER_RESTARTS = 100
BURST_SYMBOLS = 100
BURSTS = 50
WARM_BURSTS = 5
WAIT_S = 60.0
NEVER_MS = 3_600_000
AT_ONCE = Backoff(min_ms=0, max_ms=0)
ALWAYS: dict[str, Any] = {"backoff": AT_ONCE, "max_restarts": 10**9}
NOON = 1_621_425_600_000
MINUTE_MS = 60_000


class Row(NamedTuple):
    """One line of the result: `theirs` is stock pykka's figure, `aim` what the figure is held to."""

    what: str
    ours: float
    unit: str
    theirs: float | None = None
    aim: str = ""


class Message(NamedTuple):
    """What is told; every figure is about the way, not the contents."""

    n: int


def median_and_p99(times: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(times)
    return statistics.median(ordered), ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]


def middle(runs: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the median over runs of each run's median, and of each run's p99."""
    medians, p99s = zip(*map(median_and_p99, runs), strict=True)
    return statistics.median(medians), statistics.median(p99s)


@contextmanager
def quiet_gc() -> Iterator[None]:
    """Collect before, not amid, what is measured: both sides make the same garbage, none of it cyclic."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


# Tell

Road = tuple[Callable[[object], object], threading.Event, Callable[[], object]]
"""How to tell, what says that all was handled, how to stop."""
Maker = Callable[[threading.Event], Road]


class Counter(Actor):
    """Handles nothing before `go`, then counts until `target`."""

    def __init__(self, context: Context, go: threading.Event, target: int) -> None:
        super().__init__(context)
        self.go, self.target = go, target
        self.seen = 0
        self.done = threading.Event()

    def handle(self, message: object) -> None:
        if not self.seen:
            self.go.wait()
        self.seen += 1
        if self.seen == self.target:
            self.done.set()


class StockCounter(pykka.ThreadingActor):
    """The same on pykka alone."""

    use_daemon_thread = True

    def __init__(self, go: threading.Event, target: int) -> None:
        super().__init__()
        self.go, self.target = go, target
        self.seen = 0
        self.done = threading.Event()

    def on_receive(self, message: object) -> None:
        if not self.seen:
            self.go.wait()
        self.seen += 1
        if self.seen == self.target:
            self.done.set()


class Costs(NamedTuple):
    """Microseconds a message: the sender's without a reader, the reader's then; the sender's beside one, and all."""

    tell: float
    read: float
    beside: float
    both: float


def tell_all(tell: Callable[[object], object]) -> float:
    """Tell TELLS messages; return the sender's microseconds a message."""
    messages = [Message(n) for n in range(TELLS)]
    begun = time.perf_counter()
    for message in messages:
        tell(message)
    return (time.perf_counter() - begun) / TELLS * 1e6


def measure(make: Maker) -> Costs:
    with quiet_gc():
        go = threading.Event()
        tell, done, stop = make(go)
        sender = tell_all(tell)
        begun = time.perf_counter()
        go.set()
        assert done.wait(WAIT_S)
        reader = (time.perf_counter() - begun) / TELLS * 1e6
        stop()
        go = threading.Event()
        go.set()
        tell, done, stop = make(go)
        begun = time.perf_counter()
        beside = tell_all(tell)
        assert done.wait(WAIT_S)
        both = (time.perf_counter() - begun) / TELLS * 1e6
        stop()
    return Costs(sender, reader, beside, both)


def ours_by_lane(lane: Lane) -> Maker:
    """Return a maker of a sender's `tell`: fenced by its epoch, into a bounded lane of another actor."""

    def make(go: threading.Event) -> Road:
        made: list[Actor] = []

        def counter(context: Context) -> Actor:
            made.append(Counter(context, go, TELLS))
            return made[-1]

        def sender(context: Context) -> Actor:
            made.append(Actor(context))
            return made[-1]

        system = ActorSystem(SystemClock(), lanes={Message: lane})
        to = Address("counter", "one")
        bounds = LaneBounds(must=TELLS + 1, stream=TELLS + 1)
        system.start(
            [
                ChildSpec(to, counter, handler_deadline_ms=NEVER_MS, lane_bounds=bounds),
                ChildSpec(Address("sender"), sender),
            ]
        )
        assert isinstance(made[0], Counter)
        return partial(made[1].context.tell, to), made[0].done, system.stop

    return make


def stock(go: threading.Event) -> Road:
    ref = StockCounter.start(go, TELLS)
    actor = ref._actor_weakref()
    assert actor is not None
    return ref.tell, actor.done, ref.stop


def bench_tell() -> list[Row]:
    makers = {"stock": stock, "must": ours_by_lane(Lane.MUST), "stream": ours_by_lane(Lane.STREAM)}
    found: dict[str, list[Costs]] = {name: [] for name in makers}
    for _ in range(ROUNDS):
        for name, make in makers.items():
            found[name].append(measure(make))
    by_name = {name: Costs(*(statistics.median(c) for c in zip(*all_, strict=True))) for name, all_ in found.items()}
    theirs = by_name["stock"]
    return [
        Row("tell, must lane, reader stalled", by_name["must"].tell, "us", theirs.tell, "<= 1.0x, better 0.5x"),
        Row("tell, stream lane, reader stalled", by_name["stream"].tell, "us", theirs.tell, "<= 1.0x, better 0.5x"),
        Row("read and handle what waits, in batches", by_name["must"].read, "us", theirs.read),
        Row("tell, must lane, reader reads along", by_name["must"].beside, "us", theirs.beside, "<= 1.0x, better 0.5x"),
        Row("tell to handled, must lane, reader reads along", by_name["must"].both, "us", theirs.both, "<= 1.0x"),
    ]


# Hops


def bench_hop() -> list[Row]:
    ours, theirs = [], []
    for _ in range(ROUNDS):
        with quiet_gc():
            ours.append(ping_pong())
            theirs.append(stock_ping_pong())
    (median, p99), (stock_median, stock_p99) = middle(ours), middle(theirs)
    return [
        Row("hop to a sleeping actor, median", median, "us", stock_median),
        Row("hop to a sleeping actor, p99", p99, "us", stock_p99),
    ]


class Rally:
    """Notes the time of each return; a hop is half of the way there and back."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.done = threading.Event()

    def goes_on(self) -> bool:
        self.times.append(time.perf_counter())
        if len(self.times) > HOPS:
            self.done.set()
        return not self.done.is_set()

    def hops(self) -> list[float]:
        assert self.done.wait(WAIT_S)
        return [(after - before) / 2 * 1e6 for before, after in itertools.pairwise(self.times[1:])]


class Player(Actor):
    def __init__(self, context: Context, other: Address, rally: Rally | None) -> None:
        super().__init__(context)
        self.other, self.rally = other, rally

    def handle(self, message: object) -> None:
        if self.rally is None or self.rally.goes_on():
            self.context.tell(self.other, message)


class StockPlayer(pykka.ThreadingActor):
    use_daemon_thread = True

    def __init__(self, rally: Rally | None) -> None:
        super().__init__()
        self.rally = rally
        self.other: pykka.ActorRef[Any] | None = None

    def on_receive(self, message: object) -> None:
        if self.other is None:
            assert isinstance(message, pykka.ActorRef)
            self.other = message
        elif self.rally is None or self.rally.goes_on():
            self.other.tell(message)


def ping_pong() -> list[float]:
    rally, ping, pong = Rally(), Address("ping"), Address("pong")
    system = ActorSystem(SystemClock())
    system.start(
        [
            ChildSpec(ping, lambda context: Player(context, pong, rally)),
            ChildSpec(pong, lambda context: Player(context, ping, None)),
        ]
    )
    system.tell(ping, Message(0))
    hops = rally.hops()
    system.stop()
    return hops


def stock_ping_pong() -> list[float]:
    rally = Rally()
    ping, pong = StockPlayer.start(rally), StockPlayer.start(None)
    ping.tell(pong)
    pong.tell(ping)
    ping.tell(Message(0))
    hops = rally.hops()
    pykka.ActorRegistry.stop_all()
    return hops


# Restarts


class Mortal(Actor):
    """Dies of every message with an odd number, and notes how long that was before the next one is handled."""

    died_at = 0.0
    gaps: list[float]

    def handle(self, message: object) -> None:
        now = time.perf_counter()
        cls = type(self)
        if cls.died_at:
            cls.gaps.append((now - cls.died_at) * 1e3)
            cls.died_at = 0.0
        if isinstance(message, Message) and message.n % 2:
            cls.died_at = time.perf_counter()
            raise RuntimeError("a failure that is part of the benchmark")


def bench_restart() -> list[Row]:
    runs = []
    for _ in range(ROUNDS):
        Mortal.gaps = []
        address = Address("mortal")
        system = ActorSystem(SystemClock(), lanes={})
        system.start([ChildSpec(address, Mortal, poison_attempts=1, **ALWAYS)])
        for n in range(RESTARTS):
            system.tell(address, Message(2 * n + 1))
            system.tell(address, Message(2 * n))
            assert system.wait_settled(WAIT_S)
        system.stop()
        assert len(Mortal.gaps) == RESTARTS
        runs.append(Mortal.gaps)
    median, p99 = middle(runs)
    return [
        Row("failure to the next message handled, median", median, "ms", aim="< 5"),
        Row("failure to the next message handled, p99", p99, "ms"),
    ]


# The bot's own actors


class Watched(Scalping):
    """The scalping rule, which notes when it decides and raises at the first sight of a `mine`."""

    def __init__(self) -> None:
        super().__init__(Decimal("0.01"), Decimal("0.01"))
        self.mines: set[int] = set()
        self.died_at = 0.0
        self.gaps: list[float] = []
        self.decided: list[float] = []

    def decide(self, state: Decimal | None, kline: Kline, position: Position) -> tuple[Decimal | None, Signal | None]:
        decided = super().decide(state, kline, position)
        if kline.event_time in self.mines:
            self.mines.discard(kline.event_time)
            self.died_at = time.perf_counter()
            raise RuntimeError("a failure that is part of the benchmark")
        now = time.perf_counter()
        if self.died_at:
            self.gaps.append((now - self.died_at) * 1e3)
            self.died_at = 0.0
        self.decided.append(now)
        return decided


def a_rule(symbol: str) -> SymbolRules:
    return SymbolRules(
        symbol=symbol,
        base_asset=symbol.removesuffix("USDT"),
        quote_asset="USDT",
        step_size=Decimal("0.00001"),
        min_qty=Decimal("0.00001"),
        max_qty=Decimal(9000),
        min_notional=Decimal(10),
        notional_filter="MIN_NOTIONAL",
        max_notional=Decimal(0),
    )


def a_kline(symbol: str, minute: int, close: str) -> Kline:
    opened, price = NOON + minute * MINUTE_MS, Decimal(close)
    closed = opened + MINUTE_MS - 1
    return Kline(symbol, "1m", opened, closed, closed, price, price, price, price, Decimal(1), price, is_closed=True)


class Bot:
    """All actors of a bot but the streams, with journal and store in files and paper money."""

    def __init__(self, folder: Path, symbols: Sequence[str]) -> None:
        directory = DataDirectory(folder)
        folder.mkdir(parents=True, exist_ok=True)
        clock, sizing = SystemClock(), SizingParameters()
        rules = {symbol: a_rule(symbol) for symbol in symbols}
        self.strategy = Watched()
        self.journal, self.store = SqliteJournal(directory.orders), SqliteStore(directory.history)
        self.journal.set_note(START_CASH_NOTE, "1000000")
        self.log = LocalLog(folder / "spool")
        self.memories = Memories(tuple(symbols))
        self.system = ActorSystem(clock, lanes=LANES)
        parts = Parts(
            feeds=tuple(FeedSettings(symbol, "1m") for symbol in symbols),
            traders=tuple(TraderSettings(symbol=s, mode="paper", bot_id="bench", limits=RiskLimits()) for s in symbols),
            persistence=PersistenceSettings(),
            rules=rules,
            strategy=self.strategy,
            sizing=sizing,
            mode="paper",
            stream=None,
            history=None,
            gateway=OrderGateway(PaperExchange(rules, sizing, clock, next_trade_id=1), self.journal, directory),
            journal=self.journal,
            store=self.store,
            log=self.log,
            free_bytes=directory.free_bytes,
            now_ms=clock.now_ms,
            exchange_now_ms=clock.now_ms,
            memories=self.memories,
            handler_deadline_ms=30_000,
        )
        self.system.start([replace(spec, **ALWAYS) for spec in child_specs(parts)])

    def take(self, *klines: Kline, by: Callable[[str], Address] = addresses.feed) -> float:
        """Tell klines at once and wait for all that they cause; return when the first was told."""
        begun = time.perf_counter()
        for kline in klines:
            assert self.system.tell(by(kline.symbol), kline)
        assert self.system.wait_settled(WAIT_S)
        return begun

    def stop(self) -> None:
        assert self.system.stop() == ()
        self.log.close()
        self.journal.close()
        self.store.close()


def bench_trader() -> list[Row]:
    runs = []
    symbol = "BTCUSDT"
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            bot = Bot(Path(folder), [symbol])
            minutes = itertools.count()
            prices = itertools.cycle(["100", "102"])  # each falls or rises by more than a percent: all trade
            for _ in range(TRADER_ORDERS + 1):
                bot.take(a_kline(symbol, next(minutes), next(prices)))
            orders = len(bot.journal.settled(symbol))
            assert orders >= TRADER_ORDERS - 1, orders
            for _ in range(TRADER_RESTARTS):
                kline = a_kline(symbol, next(minutes), "100.5")
                bot.strategy.mines.add(kline.event_time)
                bot.take(kline)
            assert len(bot.strategy.gaps) == TRADER_RESTARTS
            runs.append(bot.strategy.gaps)
            bot.stop()
    median, p99 = middle(runs)
    return [
        Row(
            f"trader with {TRADER_ORDERS} orders in its journal: failure to its kline decided, median",
            median,
            "ms",
            aim="< 50",
        ),
        Row(
            f"trader with {TRADER_ORDERS} orders in its journal: failure to its kline decided, p99",
            p99,
            "ms",
            aim="< 250",
        ),
    ]


def bench_burst() -> list[Row]:
    symbols = [f"C{n:02}USDT" for n in range(BURST_SYMBOLS)]
    ways = {"its trader": addresses.trader, "its feed": addresses.feed}
    runs: dict[str, list[list[float]]] = {way: [] for way in ways}
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            bot = Bot(Path(folder), symbols)
            minutes = itertools.count()
            for way, by in ways.items():
                last = []
                for _ in range(WARM_BURSTS + BURSTS):
                    minute = next(minutes)
                    klines = [a_kline(symbol, minute, "100") for symbol in symbols]
                    bot.strategy.decided.clear()
                    begun = bot.take(*klines, by=by)
                    assert len(bot.strategy.decided) == BURST_SYMBOLS
                    last.append((max(bot.strategy.decided) - begun) * 1e3)
                runs[way].append(last[WARM_BURSTS:])
            bot.stop()
    rows = []
    for way, all_ in runs.items():
        median, p99 = middle(all_)
        what = f"{BURST_SYMBOLS} klines at once, each told to {way}: the last one decided"
        rows += [Row(f"{what}, median", median, "ms"), Row(f"{what}, p99", p99, "ms")]
    return rows


BENCHES: dict[str, Callable[[], list[Row]]] = {
    "tell": bench_tell,
    "hop": bench_hop,
    "restart": bench_restart,
    "trader": bench_trader,
    "burst": bench_burst,
}


def surroundings() -> str:
    """Return what a time depends on, as one line."""
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"Python {platform.python_version()}, pykka {version('pykka')}, {os.cpu_count()} cores, load {load}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "benches", nargs="*", metavar="BENCH", help=f"some of {', '.join(BENCHES)}; all if none is named"
    )
    chosen = parser.parse_args().benches or list(BENCHES)
    if unknown := set(chosen) - set(BENCHES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    # The failures are meant; where their tracebacks would be printed is no part of the time.
    logging.basicConfig(handlers=[logging.NullHandler()])
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.setswitchinterval(0.0005)  # as the bot has it
    console = Console(width=None if sys.stdout.isatty() else 120)
    begun = time.monotonic()
    table = Table(title=f"Supervision\n{surroundings()}", title_justify="left")
    for column, justify in (
        ("", "left"),
        ("ours", "right"),
        ("stock pykka", "right"),
        ("ratio", "right"),
        ("aim", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for name in chosen:
        for row in BENCHES[name]():
            theirs = "" if row.theirs is None else f"{row.theirs:.2f} {row.unit}"
            ratio = "" if row.theirs is None else f"{row.ours / row.theirs:.2f}x"
            table.add_row(row.what, f"{row.ours:.2f} {row.unit}", theirs, ratio, row.aim)
        table.add_section()
    console.print(table)
    console.print(f"{time.monotonic() - begun:.0f} s; load at the end {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
