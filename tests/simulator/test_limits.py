"""Weights and order counts on clock-aligned windows, 429 with Retry-After, and 418 for going on."""

import pytest

from tests.simulator.support import NOW, ORDER, Desk, quick


def used(desk: Desk) -> int:
    return int(desk.last.headers["X-MBX-USED-WEIGHT-1M"])


@pytest.mark.parametrize(
    ("method", "path", "params", "weight"),
    [
        ("GET", "ping", {}, 1),
        ("GET", "time", {}, 1),
        ("GET", "exchangeInfo", {}, 20),
        ("GET", "klines", {"symbol": "BTCUSDT", "interval": "1m"}, 2),
        ("GET", "ticker/price", {"symbol": "BTCUSDT"}, 2),
        ("GET", "ticker/price", {}, 4),
        ("GET", "avgPrice", {"symbol": "BTCUSDT"}, 2),
        ("GET", "ticker/bookTicker", {"symbol": "BTCUSDT"}, 2),
        ("GET", "ticker/bookTicker", {}, 4),
        ("GET", "ticker/24hr", {"symbol": "BTCUSDT"}, 2),
        ("GET", "ticker/24hr", {"symbols": '["BTCUSDT"]'}, 2),
        ("GET", "ticker/24hr", {}, 80),
        ("GET", "depth", {"symbol": "BTCUSDT"}, 5),
        ("GET", "depth", {"symbol": "BTCUSDT", "limit": "100"}, 5),
        ("GET", "depth", {"symbol": "BTCUSDT", "limit": "101"}, 25),
        ("GET", "depth", {"symbol": "BTCUSDT", "limit": "1000"}, 50),
        ("GET", "depth", {"symbol": "BTCUSDT", "limit": "9000"}, 250),
    ],
)
def test_public_weights(desk: Desk, method: str, path: str, params: dict[str, str], weight: int) -> None:
    desk.get(f"/api/v3/{path}", **params)
    assert used(desk) == weight
    assert desk.last.headers["X-MBX-USED-WEIGHT"] == str(weight)


@pytest.mark.parametrize(
    ("method", "path", "params", "weight"),
    [
        ("GET", "account", {}, 20),
        ("GET", "order", {"symbol": "BTCUSDT", "orderId": 1}, 4),
        ("GET", "openOrders", {"symbol": "BTCUSDT"}, 6),
        ("GET", "openOrders", {}, 80),
        ("GET", "allOrders", {"symbol": "BTCUSDT"}, 20),
        ("GET", "myTrades", {"symbol": "BTCUSDT"}, 20),
        ("GET", "myTrades", {"symbol": "BTCUSDT", "orderId": 1}, 5),
        ("GET", "rateLimit/order", {}, 40),
        ("GET", "account/commission", {"symbol": "BTCUSDT"}, 20),
        ("GET", "myFilters", {"symbol": "BTCUSDT"}, 40),
        ("POST", "order/test", {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.001"}, 1),
        ("POST", "order/test", {"symbol": "BTCUSDT", "computeCommissionRates": "true"}, 20),
        ("POST", "order", {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0.001"}, 0),
        ("POST", "order", {"symbol": "BTCUSDT", "side": "BUY", "type": "MARKET", "quantity": "0"}, 1),
        ("DELETE", "order", {"symbol": "BTCUSDT", "orderId": 1}, 1),
    ],
)
def test_signed_weights(desk: Desk, method: str, path: str, params: dict[str, str], weight: int) -> None:
    desk.signed(method, f"/api/v3/{path}", **params)
    assert used(desk) == weight


def test_orders_cost_weight_on_us() -> None:
    desk = Desk("us")
    desk.order(quantity="0.001")
    assert used(desk) == 1


def test_429_with_retry_after_then_418_then_free() -> None:
    desk = Desk(quick(weight_per_minute=10, strikes_before_ban=3))
    for _ in range(10):
        assert desk.get("/api/v3/ping").status == 200
    refused = desk.get("/api/v3/ping")
    assert refused.error == (
        429,
        -1003,
        "Too much request weight used; current limit is 10 request weight per 1 MINUTE. "
        "Please use WebSocket Streams for live updates to avoid polling the API.",
    )
    seconds = (60_000 - NOW % 60_000) // 1000
    assert refused.headers["Retry-After"] == str(seconds)
    assert [desk.get("/api/v3/ping").status for _ in range(2)] == [429, 429]
    banned = desk.get("/api/v3/ping")
    assert (banned.status, banned.code) == (418, -1003)
    assert banned.msg == (
        f"Way too much request weight used; IP banned until {NOW + 120_000}. "
        "Please use WebSocket Streams for live updates to avoid bans."
    )
    assert banned.headers["Retry-After"] == "120"
    desk.clock.advance(119_999)
    assert desk.get("/api/v3/ping").status == 418
    desk.clock.advance(1)
    assert desk.get("/api/v3/ping").status == 200
    for _ in range(13):
        desk.get("/api/v3/ping")
    assert desk.get("/api/v3/ping").headers["Retry-After"] == "240"


def test_waiting_for_the_window_is_enough() -> None:
    desk = Desk(quick(weight_per_minute=1))
    desk.get("/api/v3/ping")
    assert desk.get("/api/v3/ping").status == 429
    desk.clock.advance(60_000 - NOW % 60_000)
    assert desk.get("/api/v3/ping").status == 200
    assert used(desk) == 1


def test_weights_are_counted_by_address(desk: Desk) -> None:
    desk._send("GET", "/api/v3/exchangeInfo", "", "", {}, address="10.0.0.1")
    desk._send("GET", "/api/v3/ping", "", "", {}, address="10.0.0.2")
    assert used(desk) == 1


def test_unfilled_orders_are_counted_and_refused() -> None:
    desk = Desk(quick(orders_per_10_seconds=3))
    for count in (1, 2, 3):
        answer = desk.limit(quantity="0.001", price="50000")
        assert answer.headers["X-MBX-ORDER-COUNT-10S"] == str(count)
        assert answer.headers["X-MBX-ORDER-COUNT-1D"] == str(count)
    refused = desk.limit(quantity="0.001", price="50000")
    assert refused.error == (429, -1015, "Too many new orders; current limit is 3 orders per 10 SECOND.")
    assert refused.headers["Retry-After"] == "5"
    counts = desk.signed("GET", "/api/v3/rateLimit/order").json
    assert [c["count"] for c in counts] == [3, 3]
    desk.clock.advance(5000)
    assert desk.limit(quantity="0.001", price="50000").headers["X-MBX-ORDER-COUNT-10S"] == "1"


def test_filled_orders_give_their_count_back() -> None:
    desk = Desk(quick(orders_per_10_seconds=1))
    for _ in range(5):
        assert desk.order(quantity="0.001").headers["X-MBX-ORDER-COUNT-10S"] == "0"


def test_the_order_count_comes_before_the_filters() -> None:
    desk = Desk(quick(orders_per_10_seconds=0))
    assert desk.order(quantity="0.000001").code == -1015
    assert desk.order(quantity="0.0000000001").code == -1111
    assert desk.send("POST", ORDER).code == -2014


def test_limits_are_told(desk: Desk) -> None:
    limits = desk.get("/api/v3/exchangeInfo").json["rateLimits"]
    assert [(x["rateLimitType"], x["interval"], x["intervalNum"], x["limit"]) for x in limits] == [
        ("REQUEST_WEIGHT", "MINUTE", 1, 6000),
        ("ORDERS", "SECOND", 10, 100),
        ("ORDERS", "DAY", 1, 200000),
        ("RAW_REQUESTS", "MINUTE", 5, 300000),
    ]
