"""What is known of the market that orders go to, and when the exchange is asked for it."""

from decimal import Decimal

import msgspec
import pytest

from bot.actors.cells import AccountMemory, Cell
from bot.app.market_watch import BOOK_EVERY_MS, RULES_AGAIN_MS, RULES_EVERY_MS, MarketWatch
from bot.domain.account import AccountOrder, BookPrice
from bot.domain.order import OrderStatus, Side
from bot.domain.risk import RiskLimits
from bot.ports import ExchangeUnavailable
from bot.supervision.testing import ManualClock
from tests.support.builders import NOON, rules_of

LIMITS = RiskLimits(max_price_deviation=Decimal("0.05"), max_quote_age_ms=15_000)


class ScriptedMarket:
    def __init__(self, symbols):
        self.known = {symbol: rules_of(symbol) for symbol in symbols}
        self.price = Decimal(100)
        self.is_away = False
        self.open = {}
        self.asked = []

    def _ask(self, *question):
        if self.is_away:
            raise ExchangeUnavailable("away")
        self.asked.append(question)

    def book_prices(self, symbols, waiting=None):
        self._ask("book", *symbols, *filter(None, [waiting]))
        return {symbol: BookPrice(symbol, self.price - 1, self.price + 1) for symbol in symbols}

    def average_price(self, symbol):
        self._ask("average", symbol)
        return self.price

    def open_orders(self, symbol):
        self._ask("open", symbol)
        return self.open.get(symbol, [])

    def permissions(self):
        return frozenset({"SPOT"})

    def rules(self, symbols):
        self._ask("rules", *symbols)
        return {symbol: self.known[symbol] for symbol in symbols}

    def count(self, kind):
        return sum(question[0] == kind for question in self.asked)


class Bench:
    def __init__(self, symbols=("BTCUSDT", "ETHUSDT")):
        self.clock = ManualClock(NOON)
        self.market = ScriptedMarket(symbols)
        self.balances = Cell(AccountMemory())
        self.changed = []
        self.watch = MarketWatch(
            self.market, dict(self.market.known), symbols, self.balances, self.clock, self.changed.append, LIMITS
        )

    def tick(self, ms=1_000):
        self.clock.advance(ms)
        self.watch.tick()


@pytest.fixture
def bench():
    return Bench()


def test_what_was_asked_is_seen_with_what_the_account_holds(bench):
    assert bench.watch.view("BTCUSDT").as_of_ms == 0
    bench.tick()
    bench.balances.value = AccountMemory(
        balances=(("BTC", Decimal(2), Decimal("0.5")), ("USDT", Decimal(9), Decimal(0)))
    )
    view = bench.watch.view("BTCUSDT")
    assert (view.bid, view.ask, view.average_price) == (99, 101, 100)
    assert (view.as_of_ms, view.held_base) == (NOON + 1_000, Decimal("2.5"))


def an_open_order(side, quantity, executed="0", symbol="BTCUSDT"):
    amounts = (Decimal(quantity), Decimal(executed), None)
    return AccountOrder(1, "foreign", symbol, Side(side), OrderStatus.NEW, *amounts, NOON)


def test_open_orders_are_asked_for_only_while_balances_are_locked_and_a_rule_counts_them(bench):
    limits = {"BTCUSDT": {"max_position": Decimal(9)}, "ETHUSDT": {"max_num_orders": 200}}
    for symbol, rule in limits.items():
        bench.watch._rules[symbol] = msgspec.structs.replace(rules_of(symbol), **rule)
    bench.market.open["BTCUSDT"] = [an_open_order("BUY", "2", "0.5"), an_open_order("SELL", "1")]
    bench.tick()
    assert bench.market.count("open") == 0
    assert bench.watch.view("BTCUSDT").permissions == {"SPOT"}

    bench.balances.value = AccountMemory(balances=(("USDT", Decimal(9), Decimal(7)),))
    for _ in range(4):
        bench.tick()
    assert bench.market.count("open") == 4, "one symbol a tick"
    view = bench.watch.view("BTCUSDT")
    assert (view.wanted_base, view.open_orders) == (Decimal("1.5"), 2)
    assert bench.watch.view("ETHUSDT").open_orders == 0

    bench.balances.value = AccountMemory(balances=(("USDT", Decimal(9), Decimal(0)),))
    bench.tick()
    assert bench.market.count("open") == 4
    assert bench.watch.view("BTCUSDT").wanted_base == 0


def test_where_no_rule_counts_open_orders_they_are_never_asked_for(bench):
    bench.balances.value = AccountMemory(balances=(("BTC", Decimal(9), Decimal(7)),))
    for _ in range(4):
        bench.tick()
    assert bench.market.count("open") == 0


def test_the_book_of_all_symbols_is_one_question_every_two_seconds(bench):
    for _ in range(10):
        bench.tick()
    assert bench.market.count("book") == 10_000 // BOOK_EVERY_MS
    assert bench.market.asked[0] == ("book", "BTCUSDT", "ETHUSDT")


def test_average_prices_are_asked_in_turn_and_never_many_at_once():
    bench = Bench(tuple(f"C{number}USDT" for number in range(200)))
    for _ in range(40):
        before = bench.market.count("average")
        bench.tick()
        assert bench.market.count("average") - before == 5
    assert len({question for question in bench.market.asked if question[0] == "average"}) == 200


def test_what_was_not_answered_is_asked_again(bench):
    bench.market.is_away = True
    bench.tick()
    bench.market.is_away = False
    bench.tick()
    assert bench.watch.view("BTCUSDT").bid == 99


@pytest.mark.parametrize(("close", "asks"), [("104", False), ("106", True), ("94", True)])
def test_a_close_far_from_the_book_has_the_book_asked_anew(bench, close, asks):
    bench.tick()
    bench.market.asked.clear()
    bench.watch.look("BTCUSDT", Decimal(close), Side.SELL)
    assert bench.market.asked == ([("book", "BTCUSDT", Side.SELL)] if asks else [])


def test_an_old_price_is_asked_anew_and_an_exchange_that_is_away_is_no_error(bench):
    bench.tick()
    bench.clock.advance(15_001)
    bench.market.asked.clear()
    bench.watch.look("BTCUSDT", Decimal(100), Side.BUY)
    assert bench.market.asked == [("book", "BTCUSDT", Side.BUY)]
    bench.clock.advance(15_001)
    bench.market.is_away = True
    bench.watch.look("BTCUSDT", Decimal(100), Side.BUY)


def test_rules_are_read_every_hour_and_changes_are_told_once(bench):
    bench.tick()
    new = msgspec.structs.replace(bench.market.known["ETHUSDT"], min_notional=Decimal(20))
    bench.market.known["ETHUSDT"] = new
    assert bench.changed == []
    bench.tick(RULES_EVERY_MS)
    bench.tick(RULES_EVERY_MS)
    assert bench.changed == [{"ETHUSDT": new}]
    assert bench.market.count("rules") == 2


def test_refused_rules_are_read_again_soon_but_not_once_a_refusal(bench):
    bench.watch.read_rules_soon()
    bench.tick()
    assert bench.market.count("rules") == 0
    bench.tick(RULES_AGAIN_MS)
    for _ in range(5):
        bench.watch.read_rules_soon()
        bench.tick()
    assert bench.market.count("rules") == 1
    bench.tick(RULES_AGAIN_MS)
    assert bench.market.count("rules") == 2


def test_a_market_that_is_closed_is_looked_at_until_it_opens_and_no_other_is(bench):
    bench.tick()
    bench.market.known["ETHUSDT"] = msgspec.structs.replace(rules_of("ETHUSDT"), status="HALT")
    bench.watch.read_rules_soon()
    bench.tick(RULES_AGAIN_MS)
    bench.market.asked.clear()
    for _ in range(30):
        bench.tick()
    asked = [question for question in bench.market.asked if question[0] == "rules"]
    assert asked == [("rules", "ETHUSDT")] * 3
    bench.market.known["ETHUSDT"] = rules_of("ETHUSDT")
    for _ in range(30):
        bench.tick()
    assert [changed["ETHUSDT"].status for changed in bench.changed] == ["HALT", "TRADING"]
    assert bench.market.count("rules") == 4
