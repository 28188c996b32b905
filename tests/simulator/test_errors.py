"""Every documented error can be had: its code, text and HTTP status, before or after the request is carried out."""

from typing import Any

import pytest

from bot.simulator.errors import TEXTS
from bot.simulator.faults import read_fault
from tests.simulator.support import ORDER, Desk

BUY = {"quantity": "0.001"}
STATUSES = {
    401: (-1002, -2014, -2015),
    409: (-2021,),
    429: (-1003, -1015),
    500: (-1000,),
    503: (-1001, -1008, -1016),
    504: (-1006, -1007),
}


def fail(desk: Desk, **fault: Any) -> None:
    desk.exchange.faults.add(read_fault({"kind": "error", **fault}))


def test_more_than_sixty_codes_are_documented() -> None:
    assert len(TEXTS) > 80


@pytest.mark.parametrize("code", TEXTS)
def test_any_code_with_its_status_and_text(desk: Desk, code: int) -> None:
    fail(desk, code=code)
    expected = next((status for status, codes in STATUSES.items() if code in codes), 400)
    answer = desk.order(**BUY)
    assert answer.error == (expected, code, TEXTS[code])
    assert ("Retry-After" in answer.headers) == (expected == 429)
    assert answer.headers["X-MBX-USED-WEIGHT-1M"] == "1"
    assert desk.exchange.books.fills == []
    assert desk.order(**BUY).status == 200


def test_a_refused_order_is_shown_and_one_whose_fate_is_unknown_is_not(desk: Desk) -> None:
    for code in (-2010, -1007, -1008):
        fail(desk, code=code)
        desk.order(**BUY)
    assert [order.get("reject") for order in desk.exchange.state()["orders"]] == [-2010]


def test_executed_first(desk: Desk) -> None:
    fail(desk, code=-1006, executed=True)
    assert desk.order(quantity="0").code == -1013  # a refused one does not use it up
    assert desk.order(**BUY, newClientOrderId="done").error == (504, -1006, TEXTS[-1006])
    assert desk.signed("GET", ORDER, symbol="BTCUSDT", origClientOrderId="done").json["status"] == "FILLED"


def test_of_one_path_and_method_and_as_often_as_told(desk: Desk) -> None:
    fail(desk, code=-1021, path=ORDER, method="GET", count=2)
    assert desk.order(**BUY, newClientOrderId="a").status == 200
    ask = {"symbol": "BTCUSDT", "origClientOrderId": "a"}
    assert [desk.signed("GET", ORDER, **ask).status for _ in range(3)] == [400, 400, 200]


def test_message_status_and_retry_after_can_be_given(desk: Desk) -> None:
    fail(desk, code=-2010, message="Order would trigger immediately.")
    assert desk.order(**BUY).error == (400, -2010, "Order would trigger immediately.")
    fail(desk, code=-1003, status=418, retry_after=7)
    answer = desk.get("/api/v3/time")
    until = desk.clock.now_ms() + 7000
    assert answer.error[:2] == (418, -1003)
    assert answer.msg.startswith(f"Way too much request weight used; IP banned until {until}.")
    assert answer.headers["Retry-After"] == "7"
    assert desk.get("/api/v3/time").status == 200


def test_without_a_number_retry_after_is_the_windows_end() -> None:
    desk = Desk()  # 25 s into the minute, 5 s into the ten seconds
    fail(desk, code=-1003)
    fail(desk, code=-1015)
    assert [desk.get("/api/v3/time").headers["Retry-After"] for _ in range(2)] == ["35", "5"]
    us = Desk("us")
    fail(us, code=-1015)
    assert "Retry-After" not in us.get("/api/v3/time").headers
