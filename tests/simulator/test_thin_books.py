"""Books set by hand or thin: several fills, what the book cannot give expires, and orders end as a fault tells."""

from decimal import Decimal
from typing import Any

import pytest

from bot.simulator.faults import read_fault
from tests.simulator.support import ORDER, Desk, LiveClient, running

SYMBOL = {"symbol": "BTCUSDT"}


def fault(desk: Desk, **values: Any) -> None:
    desk.exchange.faults.add(read_fault(values))


@pytest.fixture(scope="module")
def live_thin() -> Any:
    with running(symbols=("BTCUSDT",)) as client:
        yield client


def test_market_orders_in_levels_set_by_hand(live_thin: LiveClient) -> None:
    levels = [["63000", "0.5"], ["70002", "0.002"], ["70001", "0.001"], ["62999", "0.1"]]
    socket = live_thin.socket("/ws/btcusdt@kline_1m")
    socket.read()
    assert live_thin.control("price", symbol="BTCUSDT", price="65000").json == {}
    while socket.read_kline()["k"]["c"] != "65000.00000000":
        pass
    assert live_thin.control("depth", symbol="BTCUSDT", levels=levels).json == {}
    shown = live_thin.get("/api/v3/depth", **SYMBOL).json
    assert [p for p, _ in shown["asks"]] == ["70001.00000000", "70002.00000000"]
    assert [p for p, _ in shown["bids"]] == ["63000.00000000", "62999.00000000"]
    socket.read_kline()
    socket.read_kline()  # the market has moved on, the book stays
    socket.close()
    reply = live_thin.order(quantity="0.005").json
    assert (reply["status"], reply["executedQty"], reply["origQty"]) == ("EXPIRED", "0.00300000", "0.00500000")
    assert reply["expiryReason"] == "INSUFFICIENT_LIQUIDITY"
    assert [(f["price"], f["qty"]) for f in reply["fills"]] == [
        ("70001.00000000", "0.00100000"),
        ("70002.00000000", "0.00200000"),
    ]
    assert live_thin.order(quantity="0.001").json["executedQty"] == "0.00000000"
    assert live_thin.control("depth", symbol="BTCUSDT", thin=False).json == {}
    assert live_thin.order(quantity="0.001").json["status"] == "FILLED"


def test_a_thin_book(live_thin: LiveClient) -> None:
    live_thin.control("depth", symbol="BTCUSDT", thin=True)
    shown = live_thin.get("/api/v3/depth", **SYMBOL).json
    assert len(shown["asks"]) == len(shown["bids"]) == 3
    reply = live_thin.order(quantity="0.05").json
    assert reply["status"] == "EXPIRED"
    assert 1 <= len(reply["fills"]) <= 3
    assert 0 < Decimal(reply["executedQty"]) < Decimal("0.05")
    live_thin.control("depth", symbol="BTCUSDT", thin=False)


@pytest.mark.parametrize(
    ("force", "executed", "reason"),
    [("IOC", "0.00300000", "UNFILLED_IOC_QUANTITY_EXPIRED"), ("FOK", "0.00000000", "UNFILLED_FOK_ORDER_EXPIRED")],
)
def test_bounded_orders_that_the_book_cannot_fill(desk: Desk, force: str, executed: str, reason: str) -> None:
    desk.set_book(asks=[("64000", "0.001"), ("64001", "0.002"), ("64010", "1")])
    reply = desk.limit(quantity="0.005", price="64005", timeInForce=force).json
    assert (reply["status"], reply["executedQty"], reply["expiryReason"]) == ("EXPIRED", executed, reason)
    shown = desk.signed("GET", ORDER, orderId=reply["orderId"], **SYMBOL).json
    assert (shown["status"], shown["expiryReason"]) == ("EXPIRED", reason)
    assert desk.balance("USDT")[1] == 0


def test_a_thin_book_in_step_mode() -> None:
    desk = Desk(step=True)
    assert desk.order(quantity="0.05").json["status"] == "FILLED"
    desk.exchange.markets["BTCUSDT"].book.release(is_thin=True)
    assert desk.order(quantity="0.05").json["status"] == "EXPIRED"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, 'the body must have one of "levels", "thin", or "bids" and "asks", beside "symbol"'),
        ({"levels": [], "thin": True}, "the body must have one of"),
        ({"levels": [["1"]]}, "levels must be an array of [price, quantity] pairs, not [['1']]"),
        ({"levels": [["1", "0"]]}, "levels must be above 0 and have at most 8 decimals"),
        ({"bids": [["10", "1"]], "asks": [["9", "1"]]}, "the best bid 10 must be below the best ask 9"),
        ({"thin": 1}, "thin must be true or false, not 1"),
    ],
)
def test_bad_depths(live_thin: LiveClient, values: dict[str, Any], line: str) -> None:
    answer = live_thin.control("depth", symbol="BTCUSDT", **values)
    assert answer.status == 400
    assert answer.json.startswith(line)
    assert answer.json.count("\n") == 1


@pytest.mark.parametrize(
    ("status", "reason"),
    [("EXPIRED_IN_MATCH", None), ("CANCELED", "EXCHANGE_CANCELED"), ("EXPIRED", "INSUFFICIENT_LIQUIDITY")],
)
def test_an_order_ends_as_told_with_a_part_filled(desk: Desk, status: str, reason: str | None) -> None:
    fault(desk, kind="order_status", status=status, fraction="0.25")
    reply = desk.order(quantity="0.004").json
    assert (reply["status"], reply["executedQty"], reply.get("expiryReason")) == (status, "0.00100000", reason)
    assert reply.get("preventedQuantity") == ("0.00300000" if status == "EXPIRED_IN_MATCH" else None)
    assert ("preventedMatchId" in reply) == (status == "EXPIRED_IN_MATCH")
    shown = desk.signed("GET", ORDER, orderId=reply["orderId"], **SYMBOL).json
    assert shown["status"] == status
    assert desk.signed("GET", "/api/v3/openOrders", **SYMBOL).json == []
    assert desk.order(quantity="0.001").json["status"] == "FILLED"


def test_a_rejected_order_has_nothing_filled(desk: Desk) -> None:
    fault(desk, kind="order_status", status="REJECTED")
    reply = desk.limit(quantity="0.004", price="90000").json
    assert (reply["status"], reply["executedQty"], reply["fills"]) == ("REJECTED", "0.00000000", [])
    assert (reply["expiryReason"], reply["workingTime"]) == ("REJECTED", -1)
    assert desk.balance("USDT") == (Decimal(10000), Decimal(0))
    with pytest.raises(ValueError, match="a REJECTED order has no fill: leave fraction out"):
        fault(desk, kind="order_status", status="REJECTED", fraction="0.5")


@pytest.mark.parametrize(
    ("status", "execution"),
    [("EXPIRED_IN_MATCH", "TRADE_PREVENTION"), ("CANCELED", "CANCELED"), ("REJECTED", "REJECTED")],
)
def test_the_stream_tells_how_it_ended(desk: Desk, status: str, execution: str) -> None:
    seen: list[list[dict[str, Any]]] = []
    desk.exchange.account_events.sink = seen.append
    fault(desk, kind="order_status", status=status)
    desk.order(quantity="0.004")
    reports = [event for event in seen[0] if event["e"] == "executionReport"]
    assert (reports[-1]["x"], reports[-1]["X"], reports[-1]["z"]) == (execution, status, "0.00000000")
    assert len(reports) == (1 if status == "REJECTED" else 2)
    assert reports[-1].get("A") == ("0.00400000" if status == "EXPIRED_IN_MATCH" else None)
