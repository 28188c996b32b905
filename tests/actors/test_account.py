"""AccountActor: what the account's stream tells reaches whom it concerns, once and whole."""

from decimal import Decimal

import pytest

from bot.actors import addresses
from bot.actors.account import KEPT_ORDERS, AccountActor, AccountSettings
from bot.actors.cells import AccountMemory, Cell
from bot.domain.order import OrderReport, OrderStatus, Side
from bot.messages import (
    BalanceMoved,
    BalancesReported,
    Compare,
    Compared,
    Connect,
    ConnectionEnded,
    ConnectionOpened,
    ExecutionReported,
    Freed,
    Notice,
    OrderEnded,
    ResolveOrders,
    SymbolStopped,
)
from bot.ports import StreamClosed
from bot.supervision.testing import ManualClock, RecordingContext
from tests.support.builders import NOON, a_fill, an_adjustment

ORDER = "bh-1"
TRADER = addresses.trader("BTCUSDT")


class ScriptedConnection:
    """Events, then the end."""

    def __init__(self, *events):
        self.events = list(events)
        self.closings = 0

    def receive(self):
        if self.closings or not self.events:
            raise StreamClosed("the script ended")
        return self.events.pop(0)

    def close(self):
        self.closings += 1


class ScriptedStream:
    def __init__(self):
        self.next = []

    def connect(self):
        if not self.next:
            raise StreamClosed("nobody there")
        return self.next.pop(0)


class Stops:
    def __init__(self):
        self.reasons = {}

    def stopped_symbols(self):
        return dict(self.reasons)

    def stop_symbol(self, symbol, reason):
        self.reasons.setdefault(symbol, reason)

    def free_symbol(self, symbol):
        return self.reasons.pop(symbol, None) is not None


class Bench:
    def __init__(self):
        self.clock = ManualClock(NOON)
        self.stream = ScriptedStream()
        self.cell = Cell(AccountMemory())
        self.comparisons = []
        self.compared = 0
        self.stops = Stops()
        self.epoch = 0
        self.restart()

    def restart(self):
        self.epoch += 1
        self.context = RecordingContext(addresses.ACCOUNT, self.clock, self.epoch)
        settings = AccountSettings(prefix="bh-", symbols=("BTCUSDT", "ETHUSDT"))
        self.actor = AccountActor(self.context, settings, self.cell, self.stream, self.compare, self.stops)
        self.actor.started()

    def compare(self):
        self.compared += 1
        return self.comparisons.pop(0) if self.comparisons else Compared()

    def take(self, *messages):
        for message in messages:
            self.actor.handle(message)

    def read(self, *events):
        """A connection that brings these events, and then ends."""
        connection = ScriptedConnection(*events)
        self.stream.next.append(connection)
        self.read_thread()
        return connection

    def read_thread(self):
        for _, target in self.context.threads:
            target()
        self.context.threads.clear()
        self.take(*self.told(addresses.ACCOUNT))

    def ring(self, ms):
        self.clock.advance(ms)
        due, self.context.due = self.context.due, []
        self.take(*due)
        self.read_thread()

    def told(self, to=TRADER):
        sent = self.context.sent_to(to)
        self.context.sent = [(a, m) for a, m in self.context.sent if a != to]
        return sent

    def notices(self):
        return [message.text for message in self.told(addresses.MONITOR) if isinstance(message, Notice)]


@pytest.fixture
def bench():
    return Bench()


def step(status="FILLED", executed="0", fill=None, order_id=ORDER, symbol="BTCUSDT", detail=""):
    return ExecutionReported(symbol, order_id, 7, Side.BUY, status, Decimal(executed), fill, NOON, detail)


def fill(number, quantity="1"):
    return a_fill(client_order_id=ORDER, quantity=quantity, trade_id=number)


def test_the_end_of_an_order_is_told_with_all_its_fills(bench):
    one, two = fill(1), fill(2)
    bench.take(step("NEW"), step("PARTIALLY_FILLED", "1", one))
    assert bench.told() == []
    bench.take(step("FILLED", "2", two))
    assert bench.told() == [OrderReport(ORDER, 7, "BTCUSDT", OrderStatus.FILLED, (one, two))]


def test_steps_that_come_twice_count_once(bench):
    one, two = fill(1), fill(2)
    bench.take(step("PARTIALLY_FILLED", "1", one), step("PARTIALLY_FILLED", "1", one), step("FILLED", "2", two))
    assert bench.told()[0].fills == (one, two)


def test_an_order_that_expired_in_part_says_why(bench):
    bench.take(step("PARTIALLY_FILLED", "1", fill(1)), step("EXPIRED", "1", detail="INSUFFICIENT_LIQUIDITY"))
    (report,) = bench.told()
    assert (report.status, report.fills, report.detail) == (OrderStatus.EXPIRED, (fill(1),), "INSUFFICIENT_LIQUIDITY")


def test_where_a_step_was_missed_the_trader_asks(bench):
    bench.take(step("FILLED", "2", fill(2)))
    assert bench.told() == [ResolveOrders()]


@pytest.mark.parametrize("foreign", [{"order_id": "web_1"}, {"symbol": "LTCUSDT"}])
def test_orders_of_others_concern_no_trader(bench, foreign):
    bench.take(step("FILLED", "0", **foreign))
    assert bench.told() == bench.told(addresses.trader("LTCUSDT")) == []


def test_the_steps_of_orders_that_never_end_are_forgotten(bench):
    for number in range(KEPT_ORDERS + 5):
        bench.take(step("NEW", order_id=f"bh-{number}"))
    assert len(bench.actor._fills) <= KEPT_ORDERS


def test_balances_are_as_last_told(bench):
    bench.take(BalancesReported((("BTC", Decimal(1), Decimal(0)), ("USDT", Decimal(5), Decimal(0))), NOON))
    bench.take(BalancesReported((("BTC", Decimal(2), Decimal(1)),), NOON))
    assert bench.cell.value.balances == (("BTC", Decimal(2), Decimal(1)), ("USDT", Decimal(5), Decimal(0)))


def test_a_transfer_is_told_to_people(bench):
    bench.take(BalanceMoved("BTC", Decimal("-0.5"), NOON))
    assert any("-0.5 BTC" in text for text in bench.notices())


def test_a_reader_passes_on_what_comes_until_the_stream_ends(bench):
    connection = bench.read(step("FILLED", "1", fill(1)), None)
    assert [report.status for report in bench.told() if isinstance(report, OrderReport)] == ["FILLED"]
    assert (connection.closings, bench.cell.value.is_up) == (1, False)
    assert any("the script ended" in text for text in bench.notices())


def test_once_it_is_open_every_trader_asks_what_it_missed(bench):
    bench.take(ConnectionOpened(1))
    assert bench.cell.value.is_up
    assert bench.told() == bench.told(addresses.trader("ETHUSDT")) == [ResolveOrders()]


def test_it_is_opened_again_after_a_wait_that_grows(bench):
    for number, wait_ms in enumerate((250, 500, 1_000), start=1):
        bench.take(ConnectionEnded(number, "cut"))
        assert [armed for armed in bench.context.armed if armed[1] == Connect()][-1] == (wait_ms, Connect())
        bench.take(Connect())
    bench.take(ConnectionOpened(4), ConnectionEnded(4, "cut"))
    assert [ms for ms, message in bench.context.armed if message == Connect()][-1] == 250
    assert len(bench.notices()) == 2, "one for each time that it was lost, none for attempts that failed"


def test_the_end_of_an_older_connection_changes_nothing(bench):
    bench.take(ConnectionEnded(1, "cut"), Connect(), ConnectionOpened(2), ConnectionEnded(1, "cut"))
    assert bench.cell.value.is_up


def test_the_next_incarnation_connects_anew_and_closes_the_last_ones(bench):
    bench.take(ConnectionOpened(1))
    bench.restart()
    assert (bench.cell.value.is_up, bench.cell.value.connections) == (False, 2)
    bench.context.end_epoch()
    connection = ScriptedConnection(step())
    bench.stream.next.append(connection)
    for _, target in bench.context.threads:
        target()
    assert connection.closings > 0


# The book against the account


MISSING = ("BTCUSDT", "BTCUSDT: the account holds 1 BTC, 0.5 less than the bot's 1.5")


def test_the_books_are_compared_before_anything_else_and_every_five_minutes(bench):
    assert (bench.compared, bench.cell.value.compared_ms) == (1, NOON)
    assert bench.context.armed[0] == (300_000, Compare())
    bench.ring(300_000)
    assert bench.compared == 2


def test_coins_that_are_missing_twice_in_a_row_stop_their_symbol_once(bench):
    for _ in range(3):
        bench.take(Compared(stops=(MISSING,), lines=(MISSING[1],)))
    assert bench.stops.reasons == dict([MISSING])
    stopped = SymbolStopped("trader/BTCUSDT", *MISSING, NOON)
    assert bench.told(addresses.BRIDGE) == [stopped]
    assert bench.told(addresses.MONITOR).count(stopped) == 1


def test_at_the_start_what_is_missing_is_looked_for_twice_at_once(bench):
    bench.comparisons = [Compared(stops=(MISSING,))] * 2
    bench.restart()
    assert bench.stops.reasons == dict([MISSING])


def test_what_was_missing_only_once_stops_nothing(bench):
    bench.take(Compared(stops=(MISSING,)))
    assert bench.context.armed[-1] == (2_000, Compare()), "looked at again soon"
    bench.take(Compared())
    bench.take(Compared(stops=(MISSING,)))
    assert bench.stops.reasons == {}


def test_missing_quote_stops_all_entries(bench):
    missing = ("", "all entries: the account holds 5 USDT, 3 less than the bot's 8")
    bench.take(Compared(stops=(missing,)), Compared(stops=(missing,)))
    assert bench.told(addresses.BRIDGE)[0].name == "account"
    assert bench.stops.reasons == dict([missing])


def test_what_a_person_accepted_is_freed_once_it_is_booked(bench):
    """An order that was sized by the old book must not leave in between."""
    bench.take(Compared(stops=(MISSING,)), Compared(stops=(MISSING,)))
    booked = an_adjustment("-0.5")
    bench.take(Compared(adjustments=(booked,), freed=("BTCUSDT",)))
    assert bench.told() == [booked, Freed("BTCUSDT")]
    assert set(bench.stops.reasons) == {"BTCUSDT"}
    bench.take(Freed("BTCUSDT"))
    assert bench.stops.reasons == {}


def test_missing_quote_is_freed_by_the_portfolio_and_a_symbol_without_a_trader_at_once(bench):
    bench.stops.reasons.update({"": "quote is missing", "LTCUSDT": "coins are missing"})
    bench.take(Compared(adjustments=(an_adjustment("0", quote="-5", symbol=""),), freed=("", "LTCUSDT")))
    assert set(bench.stops.reasons) == {""}
    assert bench.told(addresses.PORTFOLIO)[-1] == Freed("")
    bench.take(Freed(""))
    assert bench.stops.reasons == {}


def test_however_often_somebody_asks_for_a_comparison_it_is_made_once_and_soon(bench):
    bench.take(Compared())
    bench.comparisons = [Compared(lines=(f"look {number}",)) for number in range(3)]
    for _ in range(20):
        bench.take(Compare(soon=True))
    bench.ring(1_999)
    assert len(bench.comparisons) == 3
    bench.ring(1)
    assert len(bench.comparisons) == 2


def test_corrections_reach_those_who_keep_books(bench):
    ours, idle = an_adjustment(), an_adjustment(symbol="LTCUSDT", adjustment_id="adj-2")
    cash = an_adjustment("0", quote="-5", symbol="", adjustment_id="adj-3")
    bench.take(Compared(adjustments=(ours, idle, cash)))
    assert bench.told(addresses.PORTFOLIO) == [ours, idle, cash]
    assert bench.told() == [ours]


def test_late_executions_are_booked_by_their_trader_and_without_one_by_the_portfolio(bench):
    report = OrderReport(ORDER, 7, "BTCUSDT", OrderStatus.EXPIRED, (fill(1),))
    idle = OrderReport("bh-2", 8, "LTCUSDT", OrderStatus.EXPIRED, (fill(2),))
    bench.take(Compared(reports=(report, idle)))
    assert bench.told() == [report]
    assert bench.told(addresses.PORTFOLIO) == [OrderEnded("bh-2", "LTCUSDT", "EXPIRED", (fill(2),), 0)]


def test_a_finding_is_said_once_while_it_lasts(bench):
    for _ in range(3):
        bench.take(Compared(lines=("1 BTC is locked",)))
    assert bench.notices() == ["1 BTC is locked"]


@pytest.mark.parametrize(
    "sign",
    [step(order_id="web_1"), BalanceMoved("BTC", Decimal(1), NOON), ConnectionOpened(1)],
    ids=lambda s: type(s).__name__,
)
def test_a_sign_of_something_foreign_brings_the_comparison_forward_once(bench, sign):
    bench.take(sign, sign)
    bench.ring(2_000)
    bench.ring(100_000)
    assert bench.compared == 2


def test_where_the_exchange_did_not_answer_it_is_asked_again_soon(bench):
    bench.take(Compared(error="away"))
    assert bench.context.armed[-1] == (2_000, Compare())
    assert any("not compared yet: away" in text for text in bench.notices())


def test_why_nothing_was_compared_is_said_once_while_it_lasts(bench):
    whys = ("away", "away", "banned", "banned", "", "away")
    bench.take(*(Compared(error=why) for why in whys))
    assert [text.rpartition(": ")[2] for text in bench.notices()] == ["away", "banned", "away"]
