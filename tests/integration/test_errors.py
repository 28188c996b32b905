"""What a running bot does at each class of the exchange's errors, over the real protocol."""

import time
from decimal import Decimal

import pytest

from tests.integration.desk import desk
from tests.integration.processes import pause, wait_until

pytestmark = pytest.mark.slow

ORDER = {"path": "/api/v3/order", "method": "POST"}
NOT_PERMITTED = "This symbol is not permitted for this account."
HOLDS_MS = 7_000
"""So long that all that has to be seen within a hold is seen in time on a machine that stands still for seconds."""


def refusal_of_order(at, code, **more):
    at.fault("error", code=code, **ORDER, **more)


@pytest.mark.parametrize(
    ("code", "message"),
    [(-2015, None), (-1022, None), (-2014, None), (-2010, "This account may not place or cancel orders.")],
    ids=str,
)
def test_what_only_a_person_can_mend_halts_the_bot(tmp_path, code, message):
    with desk(tmp_path) as at, at.running_bot():
        more = {} if message is None else {"message": message}
        refusal_of_order(at, code, **more)
        at.refuses("BTCUSDT", "BUY", "REJECTED")
        line = at.hears("halted, no order leaves until `resume`")
        reason = at.status()["halted"]
        assert reason is not None
        assert reason.startswith("since the exchange said: ")
        assert (message or "").rstrip(".") in reason
        assert reason.removeprefix("since ") in line
        reached = len(at.orders())
        for symbol in ("BTCUSDT", "ETHUSDT", "DOGEUSDT"):
            assert "halted" in at.refuses(symbol, "BUY", "NOT_PLACED")["detail"]
        assert len(at.orders()) == reached == 1
        assert "resumed" in at.ask("resume")
        at.trades("BTCUSDT", "BUY")


def test_a_symbol_that_the_account_may_not_trade_stops_alone(tmp_path):
    with desk(tmp_path) as at, at.running_bot():
        at.trades("DOGEUSDT", "BUY")
        refusal_of_order(at, -1121)
        at.refuses("BTCUSDT", "BUY", "REJECTED")
        refusal_of_order(at, -2010, message=NOT_PERMITTED)
        at.refuses("ETHUSDT", "BUY", "REJECTED")
        stopped = at.status()["stopped"]
        assert set(stopped) == {"BTCUSDT", "ETHUSDT"}
        assert NOT_PERMITTED.rstrip(".") in stopped["ETHUSDT"]
        reached = len(at.orders())
        for symbol in stopped:
            assert f"{symbol} is stopped" in at.refuses(symbol, "BUY", "NOT_PLACED")["detail"]
        assert len(at.orders()) == reached
        at.trades("DOGEUSDT", "SELL")
        assert {symbol for symbol in stopped if symbol in at.run("check", "--mode", "testnet").stdout} == set(stopped)
        at.ask("reconcile", "ETHUSDT", "--accept")
        wait_until(lambda: set(at.status()["stopped"]) == {"BTCUSDT"}, 10, "ETHUSDT is free again")
        at.trades("ETHUSDT", "BUY")


def test_what_is_refused_for_good_or_for_now_is_one_order_less_and_nothing_more(tmp_path):
    """No stop, no halt, and what may have been executed is asked for."""
    with desk(tmp_path, BOT_EXCHANGE__RECV_WINDOW_MS="1000") as at, at.running_bot() as bot:
        for code, name in ((-1102, "REJECTED"), (-2010, "REJECTED"), (-1112, "REJECTED"), (-1007, "NOT_PLACED")):
            refusal_of_order(at, code)
            at.refuses("BTCUSDT", "BUY", name)
        refusal_of_order(at, -1000, executed=True)
        at.trades("BTCUSDT", "BUY")
        assert (at.status()["stopped"], at.status()["halted"], bot.events("SymbolStopped")) == ({}, None, [])


def test_rules_that_the_exchange_changed_are_read_again(tmp_path):
    """An order is refused; the next one is sized by the new rules."""
    changes = (
        ("BTCUSDT", "0.01", {}),
        ("ETHUSDT", "0.05", {"code": -1111}),
        ("DOGEUSDT", "100", {"code": -2010, "message": "Market is closed."}),
    )
    with desk(tmp_path) as at, at.running_bot():
        for symbol, step, refusal in changes:
            lot = {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "9000000", "stepSize": step}
            at.control("symbol", symbol=symbol, filters=[lot])
            if refusal:
                refusal_of_order(at, **refusal)
            refused = at.refuses(symbol, "BUY", "REJECTED")
            assert refusal or "LOT_SIZE" in refused["detail"]
            at.hears(f"the exchange changed the trading rules of {symbol}", 25)
            assert Decimal(at.trades(symbol, "BUY")["quantity"]) % Decimal(step) == 0
        assert [order.get("reject", 0) for order in at.orders()] == [-1013, 0, -1111, 0, -2010, 0]


@pytest.mark.parametrize(
    ("kind", "values", "held"),
    [
        ("rate_limit", {"ms": HOLDS_MS, "strikes": 1, "ban_ms": 60_000}, "all"),
        ("ban", {"ms": HOLDS_MS}, "all"),
        ("error", {"code": -1015, "retry_after": HOLDS_MS // 1000, **ORDER}, "orders"),
    ],
    ids=["429", "418", "-1015"],
)
def test_a_limit_is_obeyed_to_the_second(tmp_path, kind, values, held):
    """With one strike a single request too early would become a ban of a minute.

    No order waits for a price of the book, which could not be asked for either: that would be another refusal.
    """
    with desk(tmp_path, BOT_MAX_PRICE_DEVIATION="0") as at, at.running_bot():
        at.trades("BTCUSDT", "BUY")
        # The hold begins with a request after this, and before an order was held back.
        earliest_end = time.monotonic() + HOLDS_MS / 1000
        at.fault(kind, **values)
        at.refuses("ETHUSDT", "BUY", "NOT_PLACED")
        latest_end = time.monotonic() + HOLDS_MS / 1000
        before, orders = at.live.state()["requests"], len(at.orders())
        at.refuses("DOGEUSDT", "BUY", "NOT_PLACED")
        is_free = False
        while True:
            after, sent = at.live.state()["requests"], len(at.orders())
            if time.monotonic() > earliest_end:
                break
            assert sent == orders
            assert held == "orders" or after == before, "something left"
            is_free = is_free or after != before
            pause(0.05)
        assert held == "all" or is_free, "questions are free"
        pause(max(0.0, latest_end - time.monotonic()))
        at.trades("ETHUSDT", "BUY")


def test_a_clock_that_is_off_is_measured_anew_within_the_same_order(tmp_path):
    with desk(tmp_path) as at, at.running_bot():
        for skew, side in ((7_000, "BUY"), (-4_000, "SELL"), (0, "BUY")):
            at.fault("clock_skew", ms=skew)
            at.trades("BTCUSDT", side)
        orders = at.orders()
        assert [order["status"] for order in orders if "reject" not in order] == ["FILLED"] * 3
        refused = {order["clientOrderId"]: order["reject"] for order in orders if "reject" in order}
        assert set(refused.values()) == {-1021}
        assert set(refused) <= {order["clientOrderId"] for order in orders if "reject" not in order}
        assert (at.status()["stopped"], at.status()["halted"]) == ({}, None)
