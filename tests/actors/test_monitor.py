"""MonitorActor: what is counted, and what comes a second time."""

from decimal import Decimal

import pytest

from bot.actors import addresses
from bot.actors.cells import Cell
from bot.actors.monitor import KEPT, MOST_REASONS, MonitorActor, MonitorMemory
from bot.domain.order import Side, trade_of
from bot.messages import Notice, OrderEnded, Skipped, StreamDown, StreamUp
from bot.supervision import ActorFailed, ActorQuarantined, ActorRestarted, ActorStarted, ActorStopped, DeadLetter
from bot.supervision.testing import ManualClock, RecordingContext
from tests.support.builders import NOON, a_fill, an_intent


@pytest.fixture
def monitor():
    actor = MonitorActor(RecordingContext(addresses.MONITOR, ManualClock(NOON)), Cell(MonitorMemory()), "test")
    actor.started()
    return actor


def a_trade(order_id):
    return trade_of(an_intent(client_order_id=order_id), [a_fill(client_order_id=order_id)], "test", "bot")


def a_refusal(order_id, name="CASH"):
    return Skipped(order_id, "BTCUSDT", Side.BUY, name, "too little", NOON)


def test_what_is_told_again_counts_once(monitor):
    ended = OrderEnded("bh-3", "BTCUSDT", "REJECTED", (), NOON, "-2010")
    for message in (a_trade("bh-1"), a_refusal("bh-2"), ended) * 2:
        monitor.handle(message)
    memory = monitor._cell.value
    assert (memory.trade_count, len(memory.trades)) == (1, 1)
    assert dict(memory.skipped) == {"CASH": 1, "REJECTED": 1}
    assert [r.name for r in memory.refusals] == ["CASH", "REJECTED"]


def test_a_trade_with_a_fill_found_late_is_told_anew_and_counts_once(monitor):
    part, late = (a_fill(client_order_id="bh-1", trade_id=number) for number in (1, 2))
    for fills in ([part], [part, late], [part], [part, late]):
        monitor.handle(trade_of(an_intent(client_order_id="bh-1"), fills, "test", "bot"))
    memory = monitor._cell.value
    assert (memory.trade_count, [trade.quantity for trade in memory.trades]) == (1, [Decimal(2)])


def test_each_decision_counts(monitor):
    for number in range(KEPT + 10):
        monitor.handle(a_trade(f"bh-{number}"))
        monitor.handle(a_refusal(f"bh-s{number}", "LOT_SIZE"))
    memory = monitor._cell.value
    assert (memory.trade_count, len(memory.trades), dict(memory.skipped)) == (KEPT + 10, KEPT, {"LOT_SIZE": KEPT + 10})
    assert memory.trades[-1].quantity == Decimal(1)


def test_every_message_that_it_may_get_is_borne(monitor):
    for message in (
        StreamUp("stream/0", 1, ("BTCUSDT",), NOON),
        StreamDown("stream/0", 1, ("BTCUSDT", "A", "B", "C"), "cut", NOON),
        Notice("feed/BTCUSDT", "error", "a line", NOON),
        ActorStarted("bridge", 1, "bridge", NOON),
        ActorStopped("bridge", 1, "bridge", NOON),
        ActorFailed("bridge", 1, "handle", "Kline", "ValueError: x", NOON),
        ActorRestarted("bridge", 2, 1, 100, NOON),
        ActorQuarantined("bridge", "too often", NOON),
        DeadLetter("bridge", "Kline", "ValueError: x", 2, NOON),
    ):
        monitor.handle(message)
    texts = [n.text for n in monitor._cell.value.notices]
    assert texts[:2] == ["stream of BTCUSDT and 3 more down: cut", "a line"]
    assert any("too often" in text for text in texts)


def test_metrics_are_counted_by_name_and_reason_each_order_once(monitor):
    refused = OrderEnded("bh-3", "BTCUSDT", "REJECTED", (), NOON, "-1013: Filter failure: NOTIONAL")
    nameless = OrderEnded("bh-4", "BTCUSDT", "REJECTED", (), NOON, "who knows")
    expired = OrderEnded("bh-5", "BTCUSDT", "EXPIRED", (), NOON)
    letter = DeadLetter("bridge", "Kline", "ValueError: x", 2, NOON)
    for message in (a_trade("bh-1"), a_refusal("bh-2"), refused, nameless, expired) * 2:
        monitor.handle(message)
    monitor.handle(letter)
    assert monitor._cell.value.counts == {
        ("orders_filled", "BTCUSDT", "BUY"): 1,
        ("signals_skipped", "CASH"): 1,
        ("orders_rejected", "-1013"): 1,
        ("orders_rejected", "none"): 1,
        ("orders_unfilled", "EXPIRED"): 1,
        ("dead_letters",): 1,
    }


def test_reasons_without_end_are_a_bounded_number_of_series(monitor):
    for number in range(10 * MOST_REASONS):
        ended = OrderEnded(f"bh-{number}", "BTCUSDT", "REJECTED", (), NOON, f"-{number}: x")
        monitor.handle(ended)
        monitor.handle(a_trade(f"bh-t{number}"))
    counts = monitor._cell.value.counts
    assert len(counts) == MOST_REASONS + 2
    assert counts["orders_rejected", "other"] == 9 * MOST_REASONS
    assert counts["orders_filled", "BTCUSDT", "BUY"] == 10 * MOST_REASONS
