"""Orders whose reply or account events are lost, late, doubled or out of order, and orders that end in every way.

Each counts once: at the end journal, trades, cash, positions and commissions are the exchange's to the last decimal.
"""

import dataclasses
from decimal import Decimal

import pytest

from bot.simulator.profiles import PROFILES
from tests.integration.books import assert_same_books
from tests.integration.desk import desk

pytestmark = pytest.mark.slow

ORDER = "/api/v3/order"
POST = {"path": ORDER, "method": "POST"}
GET = {"path": ORDER, "method": "GET"}
MANY = 50
SHORT_WINDOW = {"BOT_EXCHANGE__RECV_WINDOW_MS": "1000"}

STREAM_TROUBLE = {
    "nothing": [],
    "the stream is cut": [("user_cut", {})],
    "the stream is silent": [("user_silent", {"ms": 2000})],
    "events come twice": [("user_duplicate", {"count": 5})],
    "events come late": [("user_late", {"ms": 1500})],
    "events are lost": [("user_lost", {"count": 5})],
    "the stream tells first": [("delay", {"ms": 1000, **POST})],
    "no reply": [("order_executed_no_reply", {})],
    "no reply, events come twice": [("order_executed_no_reply", {}), ("user_duplicate", {"count": 5})],
    "no reply, events come late": [("order_executed_no_reply", {}), ("user_late", {"ms": 2500})],
    "no reply and no events": [("order_executed_no_reply", {}), ("user_lost", {"count": 5})],
    "no reply and the stream is cut": [("user_cut", {}), ("order_executed_no_reply", {})],
    "status 504, executed": [("order_executed_5xx", {})],
    "an HTML page in place of the reply": [("order_executed_5xx", {"status": 502, "body": "<html>bad gateway</html>"})],
    "-1006, executed": [("error", {"code": -1006, "executed": True, **POST})],
}


def spent_in(state, asset):
    return sum(Decimal(fill["commission"]) for fill in state["fills"] if fill["commissionAsset"] == asset)


def check_books(at, assets=()):
    """The stopped bot's books are the exchange's; `assets` are those that only commissions moved."""
    state = at.live.state()
    for asset, had in assets:
        held = state["balances"].pop(asset)
        assert Decimal(held["free"]) == Decimal(had) - spent_in(state, asset)
        assert spent_in(state, asset) > 0
    return assert_same_books(state, at.data, "testnet")


def test_each_order_counts_once_whatever_becomes_of_its_news(tmp_path):
    with desk(tmp_path, **SHORT_WINDOW) as at:
        with at.running_bot() as bot:
            for number, (trouble, faults) in enumerate(STREAM_TROUBLE.items()):
                side = ("BUY", "SELL")[number % 2]
                for kind, values in faults:
                    at.fault(kind, **values)
                trade = at.trades("BTCUSDT", side)
                order = at.in_time("BTCUSDT")[-1]
                assert (len(at.in_time("BTCUSDT")), order["clientOrderId"]) == (number + 1, trade["client_order_id"]), (
                    trouble
                )
                assert Decimal(order["executedQty"]) == Decimal(trade["quantity"]), trouble
            # An order that never arrived: not made up for, and its money is free again.
            at.fault("order_lost_no_reply")
            at.refuses("ETHUSDT", "BUY", "NOT_PLACED")
            at.trades("ETHUSDT", "BUY")
            assert (at.status()["stopped"], len(at.in_time("ETHUSDT"))) == ({}, 1)
            assert bot.events("SymbolStopped") == []
        counts = check_books(at)
    assert counts == {"orders": len(STREAM_TROUBLE) + 1, "fills": counts["fills"], "intents never placed": 1}


@pytest.mark.parametrize("profile", ["com", "us without the signed stream"])
def test_the_stream_alone_settles_an_order(tmp_path, profile):
    """Its reply is lost, and the exchange answers no question about it."""
    us = dataclasses.replace(PROFILES["us"], subscribe_signature=False)
    with desk(tmp_path, "com" if profile == "com" else us) as at:
        with at.running_bot():
            asked = at.live.state()["requests"]
            assert ("/api/v3/userDataStream" in asked) == (profile != "com"), asked
            for side in ("BUY", "SELL"):
                at.fault("reply", status=503, body="", count=MANY, **GET)
                at.fault("order_executed_no_reply")
                before = at.live.state()["requests"].get(ORDER, 0)
                at.trades("BTCUSDT", side)
                assert at.live.state()["requests"][ORDER] - before <= 1 + MANY, "no question was answered"
        check_books(at)


@pytest.mark.parametrize("bound", ["", "20"], ids=["MARKET", "LIMIT IOC"])
def test_every_end_of_an_order_is_booked_with_the_commission_that_was_taken(tmp_path, bound):
    more = {"BOT_MAX_SLIPPAGE_BPS": bound} if bound else {}
    kind = ("LIMIT", "IOC") if bound else ("MARKET", "GTC")
    with desk(tmp_path, **more) as at:
        for asset in ("BNB", "USDC"):
            at.control("balance", asset=asset, free="3")
        with at.running_bot() as bot:

            def ends(side, status, part, symbol="BTCUSDT"):
                """`part` of the order is executed, as the exchange and the bot's trade have it."""
                trade = at.trades(symbol, side)
                order = at.orders(symbol)[-1]
                assert order["clientOrderId"] == trade["client_order_id"]
                assert (order["status"], order["type"], order["timeInForce"]) == (status, *kind)
                executed = Decimal(order["executedQty"])
                assert executed == Decimal(trade["quantity"])
                assert part(executed / Decimal(order["origQty"])), (executed, order["origQty"])
                return trade

            whole, some = Decimal(1).__eq__, lambda share: 0 < share < 1
            ends("BUY", "FILLED", whole)
            at.fault("partial_fill", fraction="0.3")
            ends("SELL", "EXPIRED", some)
            at.control("commission", mode="bnb", price="600")
            assert ends("BUY", "FILLED", whole)["commission"].endswith(" BNB")
            at.fault("order_status", status="EXPIRED_IN_MATCH", fraction="0.5")
            assert ends("SELL", "EXPIRED_IN_MATCH", some)["commission"].endswith(" BNB")
            at.control("commission", mode="asset", asset="USDC", price="1")
            assert ends("BUY", "FILLED", whole)["commission"].endswith(" USDC")
            at.fault("order_status", status="REJECTED")
            at.refuses("BTCUSDT", "SELL", "REJECTED")
            at.fault("order_status", status="EXPIRED_IN_MATCH")
            at.refuses("BTCUSDT", "BUY", "EXPIRED_IN_MATCH")
            at.fault("partial_fill", fraction="0.4")
            at.fault("order_executed_no_reply")
            ends("BUY", "EXPIRED", some)
            # A book so thin that an order of a tenth of the equity takes all of it.
            at.control("depth", symbol="ETHUSDT", thin=True)
            ends("BUY", "EXPIRED", some, "ETHUSDT")
            at.control("depth", symbol="ETHUSDT", thin=False)
            ends("SELL", "FILLED", whole, "ETHUSDT")
            assert (at.status()["stopped"], bot.events("SymbolStopped")) == ({}, [])
        check_books(at, [("BNB", 3), ("USDC", 3)])
