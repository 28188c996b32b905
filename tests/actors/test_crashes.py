"""Traders, portfolio, gateway and journal together, dying at every effect and at random; the books must not mind.

The judge is the scripted exchange: what it executed is what every book has to say, and no id came to it twice.
"""

import tempfile
from collections import Counter
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from bot.actors import addresses
from bot.adapters.sqlite import SqliteJournal
from bot.domain.decision import DERIVED
from bot.domain.ledger import Ledger
from bot.domain.order import OrderReport, OrderStatus
from bot.domain.sizing import SizingParameters, paper_fill
from bot.messages import Trade
from tests.support.builders import MINUTE_MS, NOON, a_kline, klines_of
from tests.support.pump import Pump

CASH = Decimal(10_000)
PATH = ("100", "98", "97.9", "96", "98.5", "98.6", "100", "100")
STEPS = ("fill", "executed_no_reply", "lost_no_reply", "reject", "not_sent", "partial", "unfinished", "late")


def healed(pump):
    """Let the exchange answer again and all fates be learnt."""
    pump.faults.countdown = None
    pump.exchange.is_away = False
    pump.run()
    pump.exchange.deliver()
    pump.advance(20_000)


def assert_books_are_the_exchanges(pump):
    exchange = pump.exchange
    assert len(set(exchange.placed)) == len(exchange.placed), "an id came to the exchange twice"
    book = Ledger(CASH, pump.rules)
    for fill in exchange.fills:
        book.book(fill, 0)
    wallet = pump.wallet.value
    assert (wallet.cash, wallet.free_cash) == (book.cash, book.cash)
    for symbol, cell in pump.traders.items():
        memory = cell.value
        assert memory.position.quantity == book.positions[symbol].quantity
        assert (memory.pending, memory.waiting, memory.doubts) == (None, (), ())
    executed = {fill.client_order_id for fill in exchange.fills}
    assert {trade.client_order_id for trade in pump.to_bridge if isinstance(trade, Trade)} == executed
    assert {e.intent.client_order_id for e in pump.raw_journal.settled() if e.fills} == executed
    assert list(pump.raw_journal.unresolved()) == []
    assert book.cash >= 0


def assert_every_message_has_one_decision(pump):
    """Counts add up to what was delivered, and the store has what is counted, message by message."""
    for symbol, cell in pump.traders.items():
        counts = dict(cell.value.decisions)
        delivered = {(k.open_time, k.is_closed, k.event_time) for k in pump.delivered if k.symbol == symbol}
        stored = Counter(decision.name for decision in pump.store.decisions.values() if decision.symbol == symbol)
        assert sum(counts.values()) == len(delivered)
        assert stored == {name: count for name, count in counts.items() if name not in DERIVED}


def a_day(pump):
    for kline in klines_of(*PATH):
        pump.kline(kline)
        pump.run()
        pump.advance(1_000)
    healed(pump)


def a_fresh_pump(folder, **settings):
    journal = SqliteJournal(Path(folder) / "orders.db")
    return Pump(journal, cash=str(CASH), **settings), journal


def test_without_a_crash_the_day_makes_its_trades(new_pump):
    pump = new_pump()
    a_day(pump)
    assert [fill.side for fill in pump.exchange.fills] == ["BUY", "BUY", "SELL"]
    assert pump.crashes == []
    assert_books_are_the_exchanges(pump)


@pytest.mark.parametrize("process", [False, True], ids=["actor", "process"])
@pytest.mark.parametrize("step", ["fill", "executed_no_reply", "lost_no_reply"])
def test_a_crash_at_any_effect_leaves_one_order_and_right_books(tmp_path, step, process):
    """Every effect of the life of one order in turn: proposal, reservation, intent, order, settlement, tellings."""

    def life(number, countdown):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        pump, journal = a_fresh_pump(folder)
        with journal:
            pump.exchange.plan.append(step)
            first, drop, after = klines_of("100", "98", "98.1")
            pump.kline(first)
            pump.run()
            pump.faults.passed.clear()
            pump.faults.countdown = countdown
            for kline in (drop, after):
                pump.kline(kline)
                pump.run()
                if process and pump.crashes:
                    pump.start_process()
            pump.advance(6_000)
            points = len(pump.faults.passed)
            healed(pump)
            if countdown is not None:
                assert len(pump.crashes) == 1
            assert len(pump.exchange.executed) <= 1
            if not process:
                assert_every_message_has_one_decision(pump)
            if step != "lost_no_reply":
                decided = pump.exchange.executed or pump.raw_journal.settled() or pump.crashes
                assert decided
            assert_books_are_the_exchanges(pump)
            return points, len(pump.exchange.executed)

    points, executed = life("calm", None)
    assert executed == (step != "lost_no_reply")
    outcomes = [life(number, number)[1] for number in range(points)]
    if step == "fill" and not process:
        # What died before it sent is asked for and found missing; everything else was executed.
        assert outcomes.count(0) <= 6


def test_a_crash_while_a_process_starts_leaves_right_books(tmp_path):
    """It finds an order of unknown fate, learns it, and dies at every effect of that in turn."""

    def life(number, countdown):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        pump, journal = a_fresh_pump(folder)
        with journal:
            pump.exchange.plan.append("executed_no_reply")
            pump.exchange.is_away = True
            for kline in klines_of("100", "98"):
                pump.kline(kline)
                pump.run()
            pump.exchange.is_away = False
            pump.faults.passed.clear()
            pump.faults.countdown = countdown
            pump.start_process()
            points = len(pump.faults.passed)
            healed(pump)
            assert len(pump.crashes) == (countdown is not None)
            assert len(pump.exchange.executed) == 1
            assert_books_are_the_exchanges(pump)
            return points

    for number in range(life("calm", None)):
        life(number, number)


def test_a_portfolio_that_restarts_between_two_proposals_spends_no_dollar_twice(new_pump):
    pump = new_pump(symbols=("BTCUSDT", "ETHUSDT"), sizing=SizingParameters(fraction=Decimal("0.6")))
    first, drop = klines_of("100", "98")
    for symbol in pump.rules:
        pump.kline(msgspec.structs.replace(first, symbol=symbol))
    pump.run()
    for symbol in pump.rules:
        pump.kline(msgspec.structs.replace(drop, symbol=symbol))
        pump.step(addresses.trader(symbol))
        assert pump.step(addresses.PORTFOLIO)
        pump.restart(addresses.PORTFOLIO)
    healed(pump)
    assert len(pump.exchange.fills) == 2
    assert_books_are_the_exchanges(pump)


class Trading(RuleBasedStateMachine):
    """Random prices, replies, losses, crashes in two symbols that share one wallet."""

    @initialize(fraction=st.sampled_from(["0.1", "0.6", "1"]), max_gap=st.sampled_from([None, 2 * MINUTE_MS]))
    def begin(self, fraction, max_gap):
        self.folder = tempfile.TemporaryDirectory()
        symbols = ("BTCUSDT", "ETHUSDT")
        sizing = SizingParameters(fraction=Decimal(fraction))
        self.pump, self.journal = a_fresh_pump(self.folder.name, symbols=symbols, sizing=sizing, max_gap_ms=max_gap)
        self.prices = dict.fromkeys(symbols, Decimal(100))
        self.minutes = dict.fromkeys(symbols, 0)
        self.sent = []
        self.twins = 0

    @rule(
        symbol=st.sampled_from(["BTCUSDT", "ETHUSDT"]),
        percent=st.sampled_from([-3, -1, 0, 1, 2]),
        runs=st.booleans(),
    )
    def price(self, symbol, percent, runs):
        self.prices[symbol] = (self.prices[symbol] * (100 + percent) / 100).quantize(Decimal("0.01"))
        self.minutes[symbol] += 1
        kline = a_kline(self.prices[symbol], symbol=symbol, open_time=NOON + self.minutes[symbol] * MINUTE_MS)
        self.sent.append(kline)
        self.pump.kline(kline)
        if runs:
            self.pump.run()

    @rule(index=st.integers(0, 5))
    def again(self, index):
        for kline in self.sent[-index:][:1]:
            self.pump.kline(kline)

    @rule(steps=st.lists(st.sampled_from(STEPS), max_size=3))
    def replies(self, steps):
        self.pump.exchange.plan.extend(steps)

    @rule(countdown=st.integers(0, 40))
    def crash_soon(self, countdown):
        self.pump.faults.countdown = countdown

    @rule(address=st.sampled_from([addresses.PORTFOLIO, *(addresses.trader(s) for s in ("BTCUSDT", "ETHUSDT"))]))
    def one_step(self, address):
        self.pump.step(address)

    @rule(address=st.sampled_from([addresses.PORTFOLIO, *(addresses.trader(s) for s in ("BTCUSDT", "ETHUSDT"))]))
    def restart(self, address):
        self.pump.restart(address)

    @rule()
    def new_process(self):
        self.pump.start_process()

    @rule(is_away=st.booleans())
    def exchange_goes(self, is_away):
        self.pump.exchange.is_away = is_away

    @rule(reason=st.sampled_from([None, "a test"]))
    def halts(self, reason):
        self.pump.halt.reason = reason

    @rule()
    def late_requests_arrive(self):
        self.pump.exchange.deliver()

    @rule(symbol=st.sampled_from(["BTCUSDT", "ETHUSDT"]), step=st.sampled_from(["not_sent", "reject"]))
    def only_a_twins_order_leaves(self, symbol, step):
        """Another bot of the same bot_id, on the same account, has every order filled that never was one of ours."""
        self.pump.exchange.plan.appendleft(step)
        self.price(symbol, -3, runs=True)
        for intent in [entry.intent for entry in self.journal.settled() if entry.is_no_order]:
            self.twins += 1
            number = 1_000_000 + self.twins
            args = (self.pump.rules[intent.symbol], intent.side, intent.quantity, intent.close, intent.event_time)
            fill = paper_fill(intent.client_order_id, number, *args, self.pump.sizing)
            report = OrderReport(intent.client_order_id, number, intent.symbol, OrderStatus.FILLED, (fill,))
            self.pump.route(addresses.trader(intent.symbol), report)
        if self.twins:
            event("a twin traded")

    @rule(ms=st.sampled_from([500, 2_000, 6_000]))
    def time_passes(self, ms):
        self.pump.advance(ms)

    def teardown(self):
        if hasattr(self, "pump"):
            with self.journal:
                healed(self.pump)
                assert_books_are_the_exchanges(self.pump)
            self.folder.cleanup()


Trading.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_random_trading = pytest.mark.slow(Trading.TestCase)
