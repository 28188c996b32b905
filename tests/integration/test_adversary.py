"""Attempts to make the bot take what is not its own for its own, or trade where it must not."""

from decimal import Decimal

import pytest

from tests.integration.desk import desk
from tests.integration.processes import wait_until

pytestmark = pytest.mark.slow


def test_another_order_under_an_id_of_the_bots_is_not_the_bots(tmp_path):
    """Binance takes an id again once its order is filled: a second worker's order, or anybody's."""
    with desk(tmp_path, BOT_CAPITAL="3000") as at:
        with at.running_bot():
            bought = at.trades("BTCUSDT", "BUY")
            book = at.book
            twin = at.live.order(quantity="0.01", newClientOrderId=bought["client_order_id"])
            assert twin.json["status"] == "FILLED"
            stop = at.stop_of("BTCUSDT")
            assert at.book == book
            assert bought["client_order_id"] in stop["reason"]
            assert f"order {twin.json['orderId']}" in stop["reason"]
            at.refuses("BTCUSDT", "SELL", "NOT_PLACED")
            at.ask("reconcile", "BTCUSDT", "--accept")
            wait_until(lambda: not at.status()["stopped"], 10, "it is free again")
            assert at.book == book
            sold = at.trades("BTCUSDT", "SELL")
            assert Decimal(sold["quantity"]) <= book["BTC"]
            assert at.total("BTC") - at.book["BTC"] == Decimal("0.00999")
        assert at.told("trades")[0]["quantity"] == bought["quantity"]


def test_an_order_with_the_bots_mark_that_it_never_made_stops_its_symbol_at_once(tmp_path):
    with desk(tmp_path, BOT_CAPITAL="3000") as at, at.running_bot():
        bought = at.trades("BTCUSDT", "BUY")
        book = at.book
        forged = bought["client_order_id"][:10] + "0" * 22
        assert at.live.order(symbol="ETHUSDT", quantity="0.1", newClientOrderId=forged).json["status"] == "FILLED"
        assert forged in at.stop_of("ETHUSDT")["reason"]
        assert at.book == book
        at.trades("BTCUSDT", "SELL")


def test_money_spent_by_hand_stops_entries_and_lets_exits_go(tmp_path):
    with desk(tmp_path) as at:
        with at.running_bot():
            at.trades("BTCUSDT", "BUY")
            assert at.live.order(symbol="ETHUSDT", quantity="0.5").json["status"] == "FILLED"
            assert "all entries: the account holds" in at.stop_of("")["reason"]
            orders = len(at.orders())
            assert "all entries are stopped" in at.refuses("DOGEUSDT", "BUY", "NOT_PLACED")["detail"]
            assert len(at.orders()) == orders
            at.trades("BTCUSDT", "SELL")
            assert at.book["ETH"] == 0
            at.ask("reconcile", "--accept")
            wait_until(lambda: not at.status()["stopped"], 10, "entries are free again")
            assert at.book["USDT"] == at.total("USDT")
            at.trades("DOGEUSDT", "BUY")
        assert at.book["USDT"] == at.total("USDT")
        assert (at.book["ETH"], at.total("ETH")) == (0, Decimal("0.4995"))
