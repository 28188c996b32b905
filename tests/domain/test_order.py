"""An order's statuses, and the trade that its fills make: one trade an order."""

from decimal import Decimal

import pytest

from bot.domain.order import OrderStatus, Side, trade_of
from tests.support.builders import a_fill, an_intent


@pytest.mark.parametrize(
    ("status", "final"),
    [
        ("RECORDED", False),
        ("NEW", False),
        ("PARTIALLY_FILLED", False),
        ("FILLED", True),
        ("CANCELED", True),
        ("REJECTED", True),
        ("EXPIRED", True),
        ("EXPIRED_IN_MATCH", True),
        ("NOT_PLACED", True),
    ],
)
def test_final_statuses(status, final):
    assert OrderStatus(status).is_final is final


def test_every_status_is_tested_above():
    assert len(OrderStatus) == 9


def test_no_fill_is_no_trade():
    assert trade_of(an_intent(), [], "paper", "b") is None


def test_the_trade_of_one_fill():
    intent = an_intent("BUY", "2", "100", client_order_id="bh-7")
    trade = trade_of(intent, [a_fill("BUY", "2", "100.5", commission="0.002", order_id=9)], "paper", "b")
    assert (trade.symbol, trade.side, trade.time) == ("BTCUSDT", Side.BUY, intent.event_time)
    assert (trade.price, trade.quantity, trade.quote_quantity) == (Decimal("100.5"), 2, 201)
    assert (trade.commission, trade.commission_asset, trade.commissions) == (Decimal("0.002"), "BTC", ())
    assert (trade.close, trade.order_id, trade.client_order_id) == (100, 9, "bh-7")
    assert (trade.mode, trade.bot_id, trade.reason) == ("paper", "b", intent.reason)


def test_the_time_is_the_deciding_klines_not_the_fills():
    intent = an_intent()
    assert trade_of(intent, [a_fill(time=intent.event_time + 5000)], "live", "b").time == intent.event_time


def test_several_fills_are_one_trade_at_their_average_price():
    fills = [
        a_fill("BUY", "1", "100", trade_id=1, commission="0.001"),
        a_fill("BUY", "2", "101", trade_id=2, commission="0.002"),
    ]
    trade = trade_of(an_intent("BUY", "3"), iter(fills), "live", "b")
    assert (trade.quantity, trade.quote_quantity) == (3, 302)
    assert trade.price == Decimal("100.66666667")
    assert trade.commission == Decimal("0.003")
    assert trade.commissions == ()


def test_a_commission_in_several_assets_is_told_by_asset():
    fills = [
        a_fill(trade_id=1, commission="0.1", commission_asset="BNB"),
        a_fill(trade_id=2, commission="0.001"),
        a_fill(trade_id=3, commission="0.2", commission_asset="BNB"),
    ]
    trade = trade_of(an_intent("BUY", "3"), fills, "live", "b")
    assert dict(trade.commissions) == {"BNB": Decimal("0.3"), "BTC": Decimal("0.001")}
    assert trade.commission == dict(trade.commissions)[trade.commission_asset]
