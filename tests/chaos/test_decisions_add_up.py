"""Over a long run of real actors every message is decided once: counts, store and messages delivered add up.

Actors are killed between messages and in the midst of an order, orders are rejected, lost and found again, the halt
comes and goes, the disk fills up and is freed, klines come late, after gaps and too old. The long form:

    BULKHEAD_DECISIONS=1000000 pytest tests/chaos/test_decisions_add_up.py -s --timeout 3600

`BULKHEAD_SEED=N` takes another seed; it is printed.
"""

import dataclasses
import logging
import os
import random
import sqlite3
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from decimal import Decimal

import msgspec
import pytest
import structlog

from bot.actors import addresses
from bot.actors.feed import FeedSettings
from bot.actors.persistence import PersistenceSettings
from bot.actors.portfolio import START_CASH_NOTE
from bot.actors.supervisor import LANES, Memories, Parts, child_specs
from bot.actors.trader import TraderSettings
from bot.adapters.local_log import LocalLog
from bot.adapters.paper import PaperExchange
from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.domain.decision import DERIVED
from bot.domain.kline import Kline
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters
from bot.gateway import OrderGateway
from bot.ports import OrderInDoubt, OrderNotSent, OrderRejected
from bot.supervision import (
    ActorFailed,
    ActorQuarantined,
    ActorSystem,
    Address,
    Backoff,
    DeadLetter,
    KillRefused,
    SystemClock,
)
from tests.support.builders import MINUTE_MS, NOON, a_kline, rules_of

MESSAGES = int(os.environ.get("BULKHEAD_DECISIONS", "20000"))
SEED = int(os.environ.get("BULKHEAD_SEED") or 1)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
PER_CANDLE, STEP_MS = 6, 10_000
AHEAD = 300
"""How many messages may be under way: what a feed cannot pass on would be no fault of the actors'."""
FAR_FUTURE = 10**15
MOVES, WEIGHTS = ("-0.013", "-0.004", "-0.001", "0", "0.001", "0.004", "0.0135"), (1, 5, 10, 2, 10, 5, 1)
EVERY = {"kill": 400, "halt": 700, "disk": 900, "late": 150, "gap": 300, "slow": 600}
FORGIVING = {
    "max_restarts": 10**9,
    "poison_attempts": 10**9,
    "backoff": Backoff(min_ms=10, max_ms=50, reset_after_ms=100),
}
WAYS_TO_DIE = ("ChaosKill", "SystemExit", "Died", "vanished")
NAMES = (*(f"{kind}/{s}" for kind in ("feed", "trader") for s in SYMBOLS), "portfolio", "bridge", "persistence")
EXPECTED = {"FIRST", "HOLD", "GAP", "STALE", "DROPPED", "BUY", "SELL", "IN_DOUBT", "HALTED", "CASH", "EXPOSURE"}

pytestmark = [pytest.mark.chaos, pytest.mark.slow, pytest.mark.timeout(max(600, MESSAGES // 300))]


class Died(BaseException):
    """What kills a trader in the midst of an order."""


class World:
    """The outside as the driver has it: the exchange's clock, the halt, the disk, and an exchange that errs."""

    acceptance_window_ms = 30

    def __init__(self, rng, rules, sizing):
        self.rng = rng
        self.is_slow = False
        self.reason = None
        self.free = 10**12
        self.clock = SystemClock()
        self._paper = PaperExchange(rules, sizing, self.clock, next_trade_id=1)
        self.deaths = 0

    def refusal(self, symbol, side):
        return self.reason

    def now_ms(self):
        return self.clock.now_ms()

    def place(self, intent, leave):
        fate = self.rng.random()
        self.deaths += fate > 0.96
        if fate > 0.98:
            raise Died("before it was sent")
        if fate < 0.03:
            raise OrderNotSent("no connection")
        if fate < 0.10:
            leave(lambda: None)
            raise OrderRejected(-2010, "Account has insufficient balance") if fate < 0.06 else OrderInDoubt("lost")
        report = self._paper.place(intent, leave)
        if fate > 0.96:
            raise Died("after it was executed")
        if fate < 0.20:
            raise OrderInDoubt("the reply was lost")
        return report

    def find(self, intent):
        return self._paper.find(intent)


class ToldLog(LocalLog):
    """Whoever waits for `moved` is woken when an entry came, which is after its decision, and when some were stored."""

    def __init__(self, directory):
        super().__init__(directory)
        self.moved = threading.Condition()

    def append(self, entry):
        offset = super().append(entry)
        self._tell()
        return offset

    def release(self, upto):
        super().release(upto)
        self._tell()

    def _tell(self):
        with self.moved:
            self.moved.notify_all()


class Driver:
    """Feeds three symbols and makes trouble; `delivered` counts messages by symbol, `late` those told past the feed."""

    def __init__(self, folder, rng):
        self.rng = rng
        self.rules = {symbol: rules_of(symbol) for symbol in SYMBOLS}
        sizing = SizingParameters(fraction=Decimal("0.4"), max_exposure=Decimal("0.5"), sell_fraction=Decimal("0.7"))
        self.world = World(rng, self.rules, sizing)
        self.path = folder / "history.db"
        self.store = SqliteStore(self.path)
        self.journal = SqliteJournal(folder / "orders.db")
        self.journal.set_note(START_CASH_NOTE, "10000")
        self.memories = Memories(SYMBOLS)
        self.log = ToldLog(folder / "spool")
        self.lost = []
        self.kills = 0
        self.delivered, self.late = Counter(), Counter()
        self.opened = dict.fromkeys(SYMBOLS, NOON)
        self.places = dict.fromkeys(SYMBOLS, 0)
        self.prices = dict.fromkeys(SYMBOLS, Decimal(100))
        self.system = ActorSystem(self.world.clock, lanes=LANES, on_event=self._on_event, on_escalate=self.lost.append)
        self.system.start(tuple(dataclasses.replace(spec, **FORGIVING) for spec in child_specs(self._parts(sizing))))

    def _parts(self, sizing):
        world = self.world
        return Parts(
            feeds=tuple(FeedSettings(symbol, "1m") for symbol in SYMBOLS),
            traders=tuple(
                TraderSettings(
                    symbol=symbol,
                    mode="test",
                    bot_id="bot",
                    limits=sizing.limits,
                    max_gap_ms=2 * MINUTE_MS,
                    max_age_ms=10_000,
                    proposal_timeout_ms=60,
                    resolve_ms=10,
                )
                for symbol in SYMBOLS
            ),
            persistence=PersistenceSettings(watch_ms=5),
            rules=self.rules,
            strategy=Scalping(Decimal("0.01"), Decimal("0.01")),
            sizing=sizing,
            mode="test",
            live=None,
            history=None,
            gateway=OrderGateway(world, self.journal, world),
            journal=self.journal,
            store=self.store,
            log=self.log,
            free_bytes=lambda: world.free,
            now_ms=lambda: NOON,
            # Long after every kline while all is slow, long before every one else.
            exchange_now_ms=lambda: FAR_FUTURE if world.is_slow else 0,
            memories=self.memories,
            handler_deadline_ms=10_000,
            halt=self.lost.append,
        )

    def _on_event(self, event):
        # Either would leave out a message that nobody decided.
        if (
            isinstance(event, ActorQuarantined)
            or (isinstance(event, DeadLetter) and event.attempts)
            or (isinstance(event, ActorFailed) and not any(way in event.error for way in WAYS_TO_DIE))
        ):
            self.lost.append(event)
        self.system.tell(addresses.MONITOR, event)
        self.system.tell(addresses.BRIDGE, event)

    def decided(self):
        return sum(sum(cell.value.decisions.values()) for cell in self.memories.traders.values())

    def play(self, messages):
        for number in range(messages):
            symbol = SYMBOLS[number % len(SYMBOLS)]
            self._trouble(number, symbol)
            kline = self._next(symbol)
            self._tell(addresses.feed(symbol), kline)
            self.delivered[symbol] += 1
            if number % 50 == 0:
                self._await(AHEAD)
        self.world.reason = None
        self._await(0)

    def _trouble(self, number, symbol):
        rng, world = self.rng, self.world
        due = {what for what, every in EVERY.items() if rng.randrange(every) == 0}
        if "kill" in due:
            with suppress(KillRefused):
                self.system.kill(Address.parse(rng.choice(NAMES)), rng.choice(("raise", "exit", "vanish")))
                self.kills += 1
        if "halt" in due or (world.reason and rng.random() < 0.02):
            world.reason = None if world.reason else "halted: a test"
        if "disk" in due or (world.free == 0 and rng.random() < 0.02):
            world.free = 0 if world.free else 10**12
        if "gap" in due:
            self.opened[symbol] += 5 * MINUTE_MS
            self.places[symbol] = 0
        if "slow" in due or (world.is_slow and rng.random() < 0.05):
            world.is_slow = not world.is_slow
        if "late" in due and self.memories.traders[symbol].value.last is not None:
            # Of a candle long past and at a time of its own, so that no other message is the same.
            past = NOON - MINUTE_MS * (1 + number)
            self._tell(addresses.trader(symbol), a_kline("1", symbol=symbol, open_time=past))
            self.late[symbol] += 1

    def _next(self, symbol) -> Kline:
        (move,) = self.rng.choices(MOVES, WEIGHTS)
        price = self.prices[symbol] * (1 + Decimal(move))
        self.prices[symbol] = price = min(max(price, Decimal(20)), Decimal(500)).quantize(Decimal("0.0001"))
        opened, place = self.opened[symbol], self.places[symbol]
        is_closed = place == PER_CANDLE - 1
        self.places[symbol] = 0 if is_closed else place + 1
        if is_closed:
            self.opened[symbol] += MINUTE_MS
        event_time = None if is_closed else opened + STEP_MS * place
        return a_kline(str(price), symbol=symbol, open_time=opened, event_time=event_time, is_closed=is_closed)

    def _tell(self, address, message):
        assert self.system.tell(address, message), f"{address} takes nothing more; {self._state()}"

    def _await(self, most):
        """Wait until at most so many messages are not decided yet."""
        wanted = self.delivered.total() + self.late.total() - most
        with self.log.moved:
            assert self.log.moved.wait_for(lambda: self.lost or self.decided() >= wanted, 60), self._state()
        assert not self.lost

    def _state(self):
        cells = {s: msgspec.structs.replace(c.value, untold=()) for s, c in self.memories.traders.items()}
        return f"seed {SEED}: {self.delivered} and {self.late} came, {cells}, {self.system.tree()}"

    def end(self):
        with self.log.moved:
            assert self.log.moved.wait_for(lambda: not self.log.depth, 60), f"{self.log.depth} entries are not stored"
        abandoned = self.system.stop()
        self.log.close()
        self.journal.close()
        self.store.close()
        assert not abandoned


def rows_of(path, query):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def quiet(caplog):
    # What pytest would keep of every death, its traceback's frames included, is all that the dead actor held.
    caplog.set_level(logging.CRITICAL + 1)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("quiet")
def test_every_message_is_decided_once_and_all_counts_add_up(tmp_path):
    begun = time.monotonic()
    driver = Driver(tmp_path, random.Random(SEED))
    driver.play(MESSAGES)
    driver.end()
    assert driver.lost == []
    counts = {symbol: dict(cell.value.decisions) for symbol, cell in driver.memories.traders.items()}
    total = sum((Counter(one) for one in counts.values()), Counter())
    said = {str(name): count for name, count in total.most_common()}
    deaths, seconds = driver.world.deaths, time.monotonic() - begun
    print(
        f"seed {SEED}: {MESSAGES} messages, {driver.kills} kills, {deaths} deaths in an order, {seconds:.0f} s: {said}"
    )

    for symbol, cell in driver.memories.traders.items():
        memory = cell.value
        assert (memory.pending, memory.waiting) == (None, ())
        assert sum(counts[symbol].values()) == driver.delivered[symbol] + driver.late[symbol]
        assert memory.taken == driver.delivered[symbol]
        assert counts[symbol]["DROPPED"] == driver.late[symbol]

    stored = Counter({(s, n): count for s, n, count in rows_of(driver.path, STORED_BY_NAME)})
    assert stored == {
        (symbol, name): count for symbol in SYMBOLS for name, count in counts[symbol].items() if name not in DERIVED
    }
    assert dict(rows_of(driver.path, "SELECT symbol, count(*) FROM Crypto_Table GROUP BY symbol")) == driver.delivered
    # What an order is decided by is what the journal has of it, and the other way round.
    decided = {order_id for (order_id,) in rows_of(driver.path, MADE)}
    sent = {order_id for (order_id,) in rows_of(tmp_path / "orders.db", "SELECT client_order_id FROM intents")}
    halted = {order_id for (order_id,) in rows_of(driver.path, REFUSED_AT_THE_GATE)}
    assert sent == decided | halted
    assert total.keys() >= EXPECTED, f"seed {SEED}: this run did not meet {EXPECTED - total.keys()}"
    assert driver.kills > MESSAGES // 1_000


STORED_BY_NAME = "SELECT symbol, name, count(*) FROM decisions GROUP BY symbol, name"
MADE = "SELECT client_order_id FROM decisions WHERE name IN ('BUY', 'SELL')"
REFUSED_AT_THE_GATE = "SELECT client_order_id FROM decisions WHERE name = 'HALTED'"
