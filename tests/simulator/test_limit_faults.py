"""What a client must bear from in front of the exchange: blocked regions, firewalls, limits, bans that grow."""

from typing import Any

import pytest
import websocket

from bot.simulator.faults import read_fault
from tests.simulator.support import ORDER, Desk, running

TIME = "/api/v3/time"


def fault(desk: Desk, **values: Any) -> None:
    desk.exchange.faults.add(read_fault(values))


def test_a_firewall_answers_html(desk: Desk) -> None:
    fault(desk, kind="waf", path=ORDER, method="POST")
    assert desk.get(TIME).status == 200
    answer = desk.order(quantity="0.001")
    assert (answer.status, answer.json, desk.last.content_type) == (403, None, "text/html")
    assert b"403 Forbidden" in desk.last.body
    assert desk.exchange.state()["orders"] == []


def test_a_blocked_region(desk: Desk) -> None:
    fault(desk, kind="region", count=2)
    for _ in range(2):
        answer = desk.get(TIME)
        assert (answer.status, answer.code) == (451, 0)
        assert answer.msg.startswith("Service unavailable from a restricted location")
    assert desk.get(TIME).status == 200


def test_a_blocked_region_has_no_websocket_either() -> None:
    with running() as client:
        client.control("fault", kind="region")
        with pytest.raises(websocket.WebSocketBadStatusException) as error:
            client.socket("/ws")
        assert error.value.status_code == 451


def test_over_the_limit_until_the_time_told_and_banned_for_going_on(desk: Desk) -> None:
    fault(desk, kind="rate_limit", ms=3000, strikes=2, ban_ms=5000)
    for _ in range(2):
        answer = desk.get(TIME)
        assert (answer.status, answer.code, answer.headers["Retry-After"]) == (429, -1003, "3")
    answer = desk.get(TIME)
    assert (answer.status, answer.headers["Retry-After"]) == (418, "5")
    assert f"banned until {desk.clock.now_ms() + 5000}." in answer.msg
    desk.clock.advance(4999)
    assert desk.get(TIME).status == 418
    desk.clock.advance(1)
    assert desk.get(TIME).status == 200


def test_who_obeys_is_let_in_to_the_second(desk: Desk) -> None:
    fault(desk, kind="rate_limit")
    assert desk.get(TIME).headers["Retry-After"] == "35"  # 25 s into a minute
    desk.clock.advance(35_000)
    assert desk.get(TIME).status == 200


def test_bans_grow(desk: Desk) -> None:
    lengths = []
    for _ in range(4):
        fault(desk, kind="ban", ms=1000)
        answer = desk.get(TIME)
        assert (answer.status, answer.code) == (418, -1003)
        lengths.append(int(answer.headers["Retry-After"]))
        desk.clock.advance(1000 * lengths[-1])
    assert lengths == [1, 2, 4, 8]
    assert desk.get(TIME).status == 200


def test_the_three_days_are_the_longest_ban(desk: Desk) -> None:
    for _ in range(20):
        fault(desk, kind="ban")
        length = int(desk.get(TIME).headers["Retry-After"])
        desk.clock.advance(1000 * length)
    assert length == 3 * 86_400
