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
    Connect,
    ConnectionEnded,
    ConnectionOpened,
    ExecutionReported,
    Notice,
    ResolveOrders,
)
from bot.ports import StreamClosed
from bot.supervision.testing import ManualClock, RecordingContext
from tests.support.builders import NOON, a_fill

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


class Bench:
    def __init__(self):
        self.clock = ManualClock(NOON)
        self.stream = ScriptedStream()
        self.cell = Cell(AccountMemory())
        self.epoch = 0
        self.restart()

    def restart(self):
        self.epoch += 1
        self.context = RecordingContext(addresses.ACCOUNT, self.clock, self.epoch)
        settings = AccountSettings(prefix="bh-", symbols=("BTCUSDT", "ETHUSDT"))
        self.actor = AccountActor(self.context, settings, self.cell, self.stream)
        self.actor.started()

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
        assert bench.context.armed[-1] == (wait_ms, Connect())
        bench.take(Connect())
    bench.take(ConnectionOpened(4), ConnectionEnded(4, "cut"))
    assert bench.context.armed[-1][0] == 250
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
