"""A sick symbol is its own trouble: the others decide as fast as before, and a trader that hung cannot order twice.

Six symbols trade with the real actors, a real store and a real journal; 200 klines a second come in by a stream that
the test feeds. Latency is the time from a kline's arrival at the stream to its decision, of the five healthy symbols.
Five quiet phases and two sick ones in one run: one trader raises at every kline, under the policy that the bot has, and
is released as soon as it is in quarantine, so that it goes on to crash; then it is blocked within an order call. In a
sick phase the p99 may be 10 % above the median of the quiet ones, or as high as the highest of those; every kline of
the healthy symbols has to be decided. Below FLOOR_MS nobody is blamed, since a shared machine moves a p99 of half a
millisecond by more than that; whether the rule held without the floor is printed. Such a machine also stalls for
100 ms now and then: a process beside this one watches the cores, and a kline that met a stall is left out, in quiet and
sick phases alike. The whole may be measured three times: what holds the others up does so each time.

A trader that is restarted forty times a second, as no policy of the bot's would have it, does cost the others some
milliseconds: each start reads all orders of the symbol. That is measured and printed, and only lost klines fail it.

The long form, 30 s a phase:

    BULKHEAD_ISOLATION_S=30 pytest tests/chaos/test_isolation.py -s
"""

import dataclasses
import os
import queue
import statistics
import sys
import threading
import time
from collections import defaultdict
from decimal import Decimal

import pytest
import structlog

from bot.actors import addresses
from bot.actors.feed import FeedSettings
from bot.actors.limits import ConnectionBudget
from bot.actors.persistence import PersistenceSettings
from bot.actors.portfolio import START_CASH_NOTE
from bot.actors.stream import StreamSettings
from bot.actors.supervisor import LANES, LiveParts, Memories, Parts, child_specs
from bot.actors.trader import TraderSettings
from bot.adapters.local_log import LocalLog
from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.app.publishing import BATCH_MS
from bot.domain.risk import RiskLimits
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters
from bot.gateway import OrderGateway
from bot.ports import StreamClosed
from bot.supervision import ActorSystem, Backoff, SystemClock
from tests.chaos.stepping import await_true
from tests.integration.processes import pause
from tests.support.builders import MINUTE_MS, NOON, a_kline, rules_of
from tests.support.doubles import NoHalt, ScriptedExchange
from tests.support.stalls import watched_stalls

PHASE_S = float(os.environ.get("BULKHEAD_ISOLATION_S", "2.5"))
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT", "LTCUSDT", "XRPUSDT", "SOLUSDT")
SICK, HEALTHY = SYMBOLS[-1], SYMBOLS[:-1]
RATE = 200
FLOOR_MS = 2.0
TRIES = 3
AFTER_STALL_S = 0.1
TRADES_EVERY = 15
"""Of so many klines of a symbol one falls by two percent and the next one rises again."""


class Wire:
    """A market stream that the test puts klines into, and the history of all that it was given."""

    def __init__(self):
        self._queues = {}
        self._given = defaultdict(list)

    def give(self, kline):
        self._given[kline.symbol].append(kline)
        self._queues[kline.symbol].put(kline)

    def connect(self, symbols, interval):
        own = queue.SimpleQueue()
        self._queues.update(dict.fromkeys(symbols, own))
        return Connection(own)

    def closed_klines(self, symbol, interval, start_time):
        return [kline for kline in self._given[symbol][-2000:] if kline.open_time >= start_time]

    @property
    def symbols(self):
        return set(self._queues)


class Connection:
    def __init__(self, own):
        self._own = own
        self.received_ns = 0

    def receive(self):
        kline = self._own.get()
        if kline is None:
            raise StreamClosed("closed")
        return kline

    def close(self):
        self._own.put(None)


class Timed(Scalping):
    """The scalping rule; it notes when each decision was made, and may be sick for one symbol."""

    def __init__(self):
        super().__init__(Decimal("0.01"), Decimal("0.01"))
        self.decided = {}
        self.raises = False

    def decide(self, state, kline, position):
        if self.raises and kline.symbol == SICK:
            raise ValueError("the strategy does not bear this symbol")
        self.decided[kline.symbol, kline.open_time] = time.monotonic()
        return super().decide(state, kline, position)


class StallingExchange(ScriptedExchange):
    """Fills every order; calls for the sick symbol hang while `is_stalling`, before or after the order is executed."""

    def __init__(self, clock, rules):
        super().__init__(clock, rules)
        self.is_stalling = False
        self.stalls_after = False
        self.gate = threading.Event()
        self.inside = 0
        self._lock = threading.Lock()

    def place(self, intent, leave):
        stalls = self.is_stalling and intent.symbol == SICK
        if stalls and not self.stalls_after:
            self._stall()
        with self._lock:
            report = super().place(intent, leave)
        if stalls and self.stalls_after:
            self._stall()
        return report

    def _stall(self):
        self.inside += 1
        self.gate.wait(120)
        self.inside -= 1


class SlowGateway(OrderGateway):
    """A gateway in which the first order of the sick symbol hangs before anything is stored, if it is told to."""

    stalls_first = False

    def submit(self, intent, fence, **options):
        if self.stalls_first and intent.symbol == SICK:
            self.stalls_first = False
            self.exchange._stall()
        return super().submit(intent, fence, **options)


class World:
    """All actors of six symbols; no process beside this one."""

    def __init__(self, folder, handler_deadline_ms, publishing=None, **policy):
        """`policy` is the sick trader's, where it is not to be the bot's."""
        self.clock = SystemClock()
        self.rules = {symbol: rules_of(symbol) for symbol in SYMBOLS}
        self.exchange = StallingExchange(self.clock, self.rules)
        self.strategy = Timed()
        self.wire = Wire()
        self.memories = Memories(SYMBOLS)
        self.store = SqliteStore(folder / "history.db")
        self.journal = SqliteJournal(folder / "orders.db")
        self.journal.set_note(START_CASH_NOTE, "1000000")
        self.gateway = SlowGateway(self.exchange, self.journal, NoHalt())
        self.gateway.exchange = self.exchange
        self.injected = {}
        self.released = 0
        self._next = dict.fromkeys(SYMBOLS, 0)
        self.system = ActorSystem(self.clock, lanes=LANES, on_event=self._hear, check_ms=50)
        limits, sizing = RiskLimits(), SizingParameters(fraction=Decimal("0.01"))
        parts = Parts(
            feeds=tuple(FeedSettings(symbol, "1m") for symbol in SYMBOLS),
            traders=tuple(TraderSettings(symbol=s, mode="test", bot_id="bot", limits=limits) for s in SYMBOLS),
            persistence=PersistenceSettings() if publishing is None else PersistenceSettings(batch_ms=BATCH_MS),
            rules=self.rules,
            strategy=self.strategy,
            sizing=sizing,
            mode="test",
            live=LiveParts(
                market=self.wire,
                streams=tuple(
                    StreamSettings(number, (symbol,), "1m", update_ms=600_000, max_silence_ms=600_000)
                    for number, symbol in enumerate(SYMBOLS)
                ),
                budget=ConnectionBudget(self.clock),
            ),
            history=self.wire,
            gateway=self.gateway,
            journal=self.journal,
            store=self.store,
            log=LocalLog(),
            free_bytes=lambda: 10**12,
            now_ms=self.clock.now_ms,
            exchange_now_ms=self.clock.now_ms,
            memories=self.memories,
            handler_deadline_ms=handler_deadline_ms,
            halt=NoHalt().halt,
            publishing=publishing,
        )
        self.system.start(
            [
                dataclasses.replace(spec, **policy) if spec.address == addresses.trader(SICK) else spec
                for spec in child_specs(parts)
            ]
        )
        feeds = self.memories.feeds
        await_true(lambda: all(cell.value.connected for cell in feeds.values()), 30, "feeds are connected")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.exchange.gate.set()
        self.system.stop()
        self.store.close()
        self.journal.close()

    def _hear(self, event):
        self.system.tell(addresses.MONITOR, event)

    def inject(self, symbol, close=None):
        """Give the stream one kline; with a close of its own it trades or not as the caller likes."""
        number = self._next[symbol]
        self._next[symbol] = number + 1
        if close is None:
            close = "98" if number % TRADES_EVERY == TRADES_EVERY - 1 else "100"
        kline = a_kline(close, symbol=symbol, open_time=NOON + number * MINUTE_MS)
        self.injected[symbol, kline.open_time] = time.monotonic()
        self.wire.give(kline)
        return symbol, kline.open_time

    def phase(self, seconds):
        """Inject at the rate; once all of theirs are decided, return from when to when the healthy symbols' took."""
        keys = []
        due = time.perf_counter()
        for number in range(int(seconds * RATE)):
            pause(max(0.0, due - time.perf_counter()))
            keys.append(self.inject(SYMBOLS[number % len(SYMBOLS)]))
            if self.strategy.raises and number % 20 == 0 and self.sick_status().state == "quarantined":
                self.released += self.system.release(addresses.trader(SICK))
            due += 1 / RATE
        mine = [key for key in keys if key[0] != SICK]
        decided = self.strategy.decided
        await_true(lambda: all(key in decided for key in mine), 30, "every kline of the healthy symbols is decided")
        return [(self.injected[key], decided[key]) for key in mine]

    def sick_status(self):
        return next(status for status in self.system.tree() if status.name == f"trader/{SICK}")


@pytest.fixture
def quiet(tmp_path, caplog):
    """What actors say goes to a file; threads take turns as in a real run."""
    caplog.set_level(100)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    with (tmp_path / "log").open("w") as log:
        structlog.configure(logger_factory=structlog.PrintLoggerFactory(log))
        yield
        structlog.reset_defaults()
    sys.setswitchinterval(interval)


@pytest.mark.alone
@pytest.mark.chaos
@pytest.mark.usefixtures("quiet")
@pytest.mark.timeout(180 + TRIES * 12 * PHASE_S)
def test_a_sick_symbol_does_not_hold_up_the_others(tmp_path):
    for number in range(TRIES):
        folder = tmp_path / str(number)
        folder.mkdir()
        found, allowed = measure(folder)
        bad = {name: p99(values) for name, values in found.items() if p99(values) > allowed}
        if not bad:
            return
    raise AssertionError(f"the others were held up in each of {TRIES} runs: p99 {bad} ms, allowed {allowed:.2f}")


def measure(folder):
    """Return the latencies of the two sick phases, and the p99 that they may have."""
    quiet, sick = [], {}
    with watched_stalls() as stalls, World(folder, handler_deadline_ms=120_000) as world:
        world.phase(1)  # whatever is made at first use

        def rest():
            quiet.append(world.phase(PHASE_S))

        rest()
        rest()
        before = world.sick_status().restarts
        world.strategy.raises = True
        sick["crash loop"] = world.phase(PHASE_S)
        world.strategy.raises = False
        crashes = world.sick_status().restarts - before
        assert crashes >= PHASE_S, "it did crash all the time"
        if world.sick_status().state == "quarantined":
            assert world.system.release(addresses.trader(SICK))
        await_true(lambda: world.sick_status().state == "running", 20, "it is well again")
        rest()
        world.exchange.is_stalling = True
        world.inject(SICK, "50")
        await_true(lambda: world.exchange.inside == 1, 30, "the trader is stalled in its order call")
        sick["stall"] = world.phase(PHASE_S)
        assert world.exchange.inside == 1
        taken = world.memories.traders[SICK].value.taken
        world.exchange.is_stalling = False
        world.exchange.gate.set()
        await_true(lambda: world.memories.traders[SICK].value.taken > taken, 30, "it goes on")
        rest()
        rest()
        quiet = [latencies(spans, stalls) for spans in quiet]
        sick = {name: latencies(spans, stalls) for name, spans in sick.items()}
    quiet_p99 = [p99(values) for values in quiet]
    strict = max(1.1 * statistics.median(quiet_p99), *quiet_p99)
    print(f"\n{RATE} klines/s, phases of {PHASE_S:g} s, {crashes} restarts, released {world.released} times; ms:")
    show({**{f"quiet {number + 1}": values for number, values in enumerate(quiet)}, **sick})
    held = {name: "held" if p99(values) <= strict else "broken" for name, values in sick.items()}
    print(f"  rule {strict:.3f}, {held}; floor {FLOOR_MS}")
    return sick, max(strict, FLOOR_MS)


def latencies(spans, stalls):
    """In ms, of the klines that met no stall of the machine, nor what was left to do after one; of all if most did."""
    undisturbed = [(first, last) for first, last in spans if not stalls.within(first - AFTER_STALL_S, last)]
    return in_ms(undisturbed if len(undisturbed) > len(spans) // 2 else spans)


def in_ms(spans):
    return [1000 * (last - first) for first, last in spans]


def show(phases):
    for name, values in phases.items():
        print(
            f"  {name:11} median {statistics.median(values):6.3f}  p99 {p99(values):7.3f}  "
            f"max {max(values):8.3f}  of {len(values)}, none lost"
        )


def p99(values):
    return sorted(values)[int(len(values) * 0.99)]


@pytest.mark.alone
@pytest.mark.chaos
@pytest.mark.usefixtures("quiet")
@pytest.mark.timeout(180 + 3 * PHASE_S)
def test_a_trader_restarted_without_end_costs_no_kline(tmp_path):
    restless = {"max_restarts": 1_000_000, "backoff": Backoff(min_ms=5, max_ms=20)}
    with World(tmp_path, handler_deadline_ms=120_000, **restless) as world:
        world.phase(1)
        phases = {"quiet": in_ms(world.phase(PHASE_S))}
        world.strategy.raises = True
        phases["restless"] = in_ms(world.phase(PHASE_S))
        restarts = world.sick_status().restarts
        world.strategy.raises = False
    print(f"\n{restarts} restarts in {PHASE_S:g} s; ms:")
    show(phases)
    assert restarts >= 10 * PHASE_S


@pytest.mark.chaos
@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("where", ["before its intent is stored", "before its bytes leave", "before its reply comes"])
def test_a_trader_that_hangs_in_its_order_call_cannot_order_twice(tmp_path, where):
    with World(tmp_path, handler_deadline_ms=300) as world:
        world.gateway.stalls_first = where == "before its intent is stored"
        world.exchange.is_stalling = not world.gateway.stalls_first
        world.exchange.stalls_after = where == "before its reply comes"
        cell, placed = world.memories.traders[SICK], world.exchange.placed
        for close in ("100", "90"):
            world.inject(SICK, close)
        await_true(lambda: world.exchange.inside == 1, 30, "it hangs")
        await_true(lambda: world.sick_status().restarts >= 1 and world.sick_status().busy_ms == 0, 30, "it is replaced")
        # The next one does what can be done while the other still hangs: order, wait for its order, or book it.
        world.exchange.is_stalling = False
        if where == "before its bytes leave":
            world.inject(SICK, "80")
            await_true(lambda: cell.value.taken == 3, 30, "the next kline is taken")
            assert placed == [], "nothing is sent while the fate of the first is open"
        else:
            await_true(lambda: cell.value.position.quantity > 0, 30, "the order is booked")
        refused = world.system.refused_effects
        world.exchange.gate.set()
        await_true(lambda: world.exchange.inside == 0, 30, "it wakes up")
        await_true(lambda: world.system.refused_effects > refused, 30, "what it tries then is refused and counted")
        if where == "before its bytes leave":
            # Its epoch is looked at again where they would leave, so they never do.
            await_true(lambda: not cell.value.doubts, 30, "the order is known not to be placed")
            assert (placed, world.journal.unresolved()) == ([], [])
            assert world.memories.portfolio.value.cash == 1_000_000
            return
        await_true(lambda: cell.value.position.quantity > 0 and not cell.value.doubts, 30, "the order is booked")
        assert world.system.wait_settled(5)
        assert len(placed) == 1
        entries = list(world.journal.settled(SICK))
        assert [entry.intent.client_order_id for entry in entries] == placed
        assert world.journal.unresolved() == []
        assert cell.value.position.quantity == entries[0].fills[0].quantity - entries[0].fills[0].commission
        portfolio = world.memories.portfolio.value
        assert portfolio.cash == 1_000_000 - entries[0].fills[0].quote_quantity
        assert portfolio.reservations == ()
