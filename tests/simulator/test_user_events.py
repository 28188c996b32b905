"""Which events the account's changes cause, in which order, and with which keys."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.simulator.faults import Fault
from tests.simulator.support import NOW, Desk
from tests.simulator.test_conservation import SYMBOLS, act, orders

BOOKED = ["e", "E", "s", "c", "S", "o", "f", "q", "p", "P", "F", "g", "C", "x", "X", "r", "i", "l", "z", "L", "n", "N"]
BOOKED += ["T", "t", "I", "w", "m", "M", "O", "Z", "Y", "Q", "W", "V"]


def told(desk: Desk) -> list[Any]:
    """Return (execution, status, on the book, filled so far) of each report, and positions by their assets."""
    shown: list[Any] = []
    for event in desk.events:
        if event["e"] == "executionReport":
            shown.append((event["x"], event["X"], event["w"], event["z"]))
        else:
            shown.append({b["a"]: (b["f"], b["l"]) for b in event["B"]})
    return shown


@pytest.fixture
def book(desk: Desk) -> Desk:
    desk.give("USDT", "990000")
    desk.set_book(asks=[("60000", "1"), ("61000", "1")], bids=[("59000", "1")])
    return desk


def test_market_order_filled(book: Desk) -> None:
    reply = book.order(quantity="1.5", newClientOrderId="one").json
    assert told(book) == [
        ("NEW", "NEW", True, "0.00000000"),
        ("TRADE", "PARTIALLY_FILLED", True, "1.00000000"),
        ("TRADE", "FILLED", False, "1.50000000"),
        {"BTC": ("1.49850000", "0.00000000"), "USDT": ("909500.00000000", "0.00000000")},
    ]
    new, first, last, position = book.events
    for report in (new, first, last):
        assert list(report) == BOOKED
        assert all(type(report[key]) is str for key in "escSofqpPFCxXrlzLnZYQV")
        assert all(type(report[key]) is int for key in "EgiTtIOW")
        assert (report["c"], report["C"], report["s"], report["S"]) == ("one", "", "BTCUSDT", "BUY")
        assert (report["o"], report["f"], report["q"]) == ("MARKET", "GTC", "1.50000000")
        assert (report["E"], report["T"], report["O"], report["W"]) == (NOW, NOW, NOW, NOW)
        assert report["i"] == reply["orderId"]
    assert (new["n"], new["N"], new["t"], new["M"], new["l"]) == ("0", None, -1, False, "0.00000000")
    assert (last["l"], last["L"], last["Y"], last["Z"]) == (
        "0.50000000",
        "61000.00000000",
        "30500.00000000",
        "90500.00000000",
    )
    assert (last["n"], last["N"], last["m"], last["M"]) == ("0.00050000", "BTC", False, True)
    assert [first["t"], last["t"]] == [fill["tradeId"] for fill in reply["fills"]]
    assert new["I"] < first["I"] < last["I"]
    assert position == {"e": "outboundAccountPosition", "E": NOW, "u": NOW, "B": position["B"]}


def test_market_order_that_empties_the_book(book: Desk) -> None:
    book.order(quantity="3")
    assert told(book)[:-1] == [
        ("NEW", "NEW", True, "0.00000000"),
        ("TRADE", "PARTIALLY_FILLED", True, "1.00000000"),
        ("TRADE", "PARTIALLY_FILLED", True, "2.00000000"),
        ("EXPIRED", "EXPIRED", False, "2.00000000"),
    ]
    expired = book.events[-2]
    assert (expired["eR"], expired["l"], expired["L"], expired["n"], expired["t"]) == (
        "INSUFFICIENT_LIQUIDITY",
        "0.00000000",
        "0.00000000",
        "0",
        -1,
    )
    assert expired["Z"] == "121000.00000000"


@pytest.mark.parametrize(
    ("force", "reason", "filled"),
    [("IOC", "UNFILLED_IOC_QUANTITY_EXPIRED", "1.00000000"), ("FOK", "UNFILLED_FOK_ORDER_EXPIRED", "0.00000000")],
)
def test_limit_orders_that_do_not_rest(book: Desk, force: str, reason: str, filled: str) -> None:
    book.limit(timeInForce=force, quantity="2", price="60000")
    expired = book.events[-2]
    assert (expired["x"], expired["z"], expired["eR"], expired["f"]) == ("EXPIRED", filled, reason, force)


def test_a_resting_order_is_locked_matched_and_cancelled(book: Desk) -> None:
    book.limit(quantity="2", price="59500", newClientOrderId="rest", strategyId=7, strategyType=1_000_001)
    assert told(book) == [
        ("NEW", "NEW", True, "0.00000000"),
        {"BTC": ("0.00000000", "0.00000000"), "USDT": ("881000.00000000", "119000.00000000")},
    ]
    assert (book.events[0]["j"], book.events[0]["J"]) == (7, 1_000_001)
    book.events.clear()
    book.clock.advance(1000)
    book.set_book(asks=[("59400", "0.5")])
    book.exchange.match_resting(book.exchange.markets["BTCUSDT"])
    assert told(book) == [
        ("TRADE", "PARTIALLY_FILLED", True, "0.50000000"),
        {"BTC": ("0.49950000", "0.00000000"), "USDT": ("881000.00000000", "89250.00000000")},
    ]
    trade = book.events[0]
    assert (trade["m"], trade["L"], trade["O"], trade["T"]) == (True, "59500.00000000", NOW, NOW + 1000)
    book.events.clear()
    book.signed("DELETE", "/api/v3/order", symbol="BTCUSDT", origClientOrderId="rest", newClientOrderId="stop")
    assert told(book) == [
        ("CANCELED", "CANCELED", False, "0.50000000"),
        {"BTC": ("0.49950000", "0.00000000"), "USDT": ("970250.00000000", "0.00000000")},
    ]
    assert (book.events[0]["c"], book.events[0]["C"]) == ("stop", "rest")


def test_orders_of_the_websocket_api_are_told_too(book: Desk) -> None:
    book.ws_signed("order.place", symbol="BTCUSDT", side="BUY", type="MARKET", quantity="1")
    assert [e.get("X") for e in book.events] == ["NEW", "FILLED", None]


def test_a_refused_order_is_not_told(book: Desk) -> None:
    assert book.order(quantity="0.000001").status == 400
    assert book.order(side="SELL", quantity="1").status == 400
    assert book.events == []


def test_a_partial_fill_by_order(book: Desk) -> None:
    book.exchange.faults.add(Fault("partial_fill", 1, fraction=Decimal("0.5")))
    book.order(quantity="1")
    assert [(e.get("x"), e.get("z")) for e in book.events[:-1]] == [
        ("NEW", "0.00000000"),
        ("TRADE", "0.50000000"),
        ("EXPIRED", "0.50000000"),
    ]


def test_deposits_and_withdrawals(desk: Desk) -> None:
    desk.exchange.books.set_free("USDT", Decimal("10050.5"), NOW)
    desk.exchange.books.set_free("XRP", Decimal(3), NOW)
    desk.exchange.books.set_free("USDT", Decimal(10), NOW)
    desk.exchange.books.set_free("USDT", Decimal(10), NOW)
    updates = [e for e in desk.events if e["e"] == "balanceUpdate"]
    assert updates[0] == {"e": "balanceUpdate", "E": NOW, "a": "USDT", "d": "50.50000000", "T": NOW}
    assert [(e["a"], e["d"]) for e in updates[1:]] == [("XRP", "3.00000000"), ("USDT", "-10040.50000000")]
    assert [e["B"][0]["f"] for e in desk.events if "B" in e] == ["10050.50000000", "3.00000000", "10.00000000"]
    assert desk.balance("XRP") == (3, 0)


def test_execution_ids_are_new_after_a_restart(tmp_path: Any) -> None:
    ids: list[int] = []
    for _ in range(2):
        desk = Desk(data_dir=tmp_path)
        desk.order(quantity="0.001")
        ids += [e["I"] for e in desk.events if "I" in e]
        desk.exchange.close()
    assert len(set(ids)) == len(ids)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(orders, min_size=1, max_size=25), st.integers(0, 3))
def test_events_tell_the_account(actions: list[dict[str, Any]], deposit_every: int) -> None:
    """The balances told, applied in order, are the account's; the trades told are myTrades; each status its order's."""
    desk = Desk(symbols=SYMBOLS)
    balances = {b["asset"]: (b["free"], b["locked"]) for b in account(desk)}
    for number, action in enumerate(actions):
        act(desk, action)
        if deposit_every and number % deposit_every == 0:
            asset = ("USDT", "BTC", "DOGE")[number % 3]
            free = desk.exchange.books.balances[asset].free
            desk.exchange.books.set_free(asset, free + 10, desk.clock.now_ms())
    status: dict[int, tuple[str, str, str]] = {}
    trades: dict[str, list[Any]] = {symbol: [] for symbol in SYMBOLS}
    for event in desk.events:
        if event["e"] == "outboundAccountPosition":
            balances |= {b["a"]: (b["f"], b["l"]) for b in event["B"]}
        elif event["e"] == "executionReport":
            known = status.get(event["i"], ("", "0", "0"))
            assert Decimal(event["z"]) - Decimal(known[1]) == Decimal(event["l"])
            assert Decimal(event["Z"]) - Decimal(known[2]) == Decimal(event["Y"])
            status[event["i"]] = (event["X"], event["z"], event["Z"])
            if event["x"] == "TRADE":
                trades[event["s"]].append([event[key] for key in ("t", "i", "L", "l", "Y", "n", "N", "T", "m")])
    assert balances == {b["asset"]: (b["free"], b["locked"]) for b in account(desk)}
    keys = ("id", "orderId", "price", "qty", "quoteQty", "commission", "commissionAsset", "time", "isMaker")
    for symbol in SYMBOLS:
        fills = desk.signed("GET", "/api/v3/myTrades", symbol=symbol, limit=1000).json
        assert trades[symbol] == [[fill[key] for key in keys] for fill in fills]
        for order in desk.signed("GET", "/api/v3/allOrders", symbol=symbol, limit=1000).json:
            shown = (order["status"], order["executedQty"], order["cummulativeQuoteQty"])
            assert status.pop(order["orderId"]) == shown
    assert status == {}
    ids = [event["I"] for event in desk.events if "I" in event]
    assert len(set(ids)) == len(ids)


def account(desk: Desk) -> list[dict[str, str]]:
    return desk.signed("GET", "/api/v3/account").json["balances"]
