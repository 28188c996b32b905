"""exchangeInfo in all its forms, klines by their rules, prices."""

from decimal import Decimal

import pytest

from bot.simulator.candles import INTERVAL_MS, bucket
from bot.simulator.settings import DEFAULT_SYMBOLS
from tests.simulator.support import NOW, Desk

INFO = "/api/v3/exchangeInfo"
BAD_COMBINATION = (400, -1128, "Combination of optional parameters invalid.")


@pytest.fixture(scope="module")
def three() -> Desk:
    return Desk(symbols=DEFAULT_SYMBOLS)


def test_exchange_info_forms(three: Desk) -> None:
    def names(**params: str) -> list[str]:
        return [s["symbol"] for s in three.get(INFO, **params).json["symbols"]]

    assert names() == list(DEFAULT_SYMBOLS)
    assert names(symbol="ETHUSDT") == ["ETHUSDT"]
    assert names(symbols='["DOGEUSDT","BTCUSDT"]') == ["DOGEUSDT", "BTCUSDT"]
    assert names(permissions="SPOT") == list(DEFAULT_SYMBOLS)
    assert names(permissions='["LEVERAGED","SPOT"]') == list(DEFAULT_SYMBOLS)
    assert names(permissions="LEVERAGED") == []
    assert names(symbolStatus="TRADING") == list(DEFAULT_SYMBOLS)
    assert names(symbolStatus="HALT") == []
    assert three.get(INFO, showPermissionSets="false").json["symbols"][0]["permissionSets"] == []
    reply = three.get(INFO).json
    assert (reply["timezone"], reply["serverTime"], reply["exchangeFilters"]) == ("UTC", NOW, [])
    assert reply["symbols"][0]["orderTypes"] == ["LIMIT", "LIMIT_MAKER", "MARKET"]
    assert reply["symbols"][0]["permissions"] == []


def test_exchange_info_errors(three: Desk) -> None:
    assert three.get(INFO, symbol="NOPE").error == (400, -1121, "Invalid symbol.")
    assert three.get(INFO, symbols='["BTCUSDT","NOPE"]').code == -1121
    assert three.get(INFO, symbols='["BTCUSDT","BTCUSDT"]').code == -1151
    assert three.get(INFO, symbols="BTCUSDT").code == -1100
    assert three.get(INFO, symbols='["btcusdt"]').code == -1100
    assert three.get(INFO, symbol="BTCUSDT", symbols='["BTCUSDT"]').error == BAD_COMBINATION
    assert three.get(INFO, symbol="BTCUSDT", symbolStatus="TRADING").error == BAD_COMBINATION
    assert three.get(INFO, symbol="BTCUSDT", permissions="SPOT").error == BAD_COMBINATION
    assert three.get(INFO, symbolStatus="OPEN").error == (400, -1122, "Invalid symbolStatus.")
    assert three.get(INFO, showPermissionSets="yes").code == -1130


def test_ticker_price(three: Desk) -> None:
    path = "/api/v3/ticker/price"
    one = three.get(path, symbol="BTCUSDT").json
    assert one["symbol"] == "BTCUSDT"
    assert [p["symbol"] for p in three.get(path).json] == list(DEFAULT_SYMBOLS)
    assert three.get(path, symbols='["ETHUSDT"]').json[0]["symbol"] == "ETHUSDT"
    assert three.get(path, symbol="BTCUSDT", symbols='["ETHUSDT"]').error == BAD_COMBINATION
    assert three.get(path, symbol="BTCUSDT", symbolStatus="HALT").code == -1220


@pytest.mark.parametrize("interval", INTERVAL_MS)
def test_klines_of_every_interval(three: Desk, interval: str) -> None:
    rows = three.get("/api/v3/klines", symbol="BTCUSDT", interval=interval, limit=1000).json
    assert len(rows) == 1000 or interval in ("3d", "1w", "1M")  # the exchange opened in 2017
    assert rows[-1][0] <= NOW <= rows[-1][6]
    for before, row in zip([None, *rows], rows, strict=False):
        opened, o, h, low, c, _, closed = row[:7]
        assert (opened, closed) == bucket(opened, interval)
        assert float(low) <= min(float(o), float(c)) <= max(float(o), float(c)) <= float(h)
        assert before is None or before[6] + 1 == opened
        assert all(isinstance(row[i], str) and len(row[i].split(".")[-1]) == 8 for i in (1, 2, 3, 4, 5, 7, 9, 10))
        assert row[11] == "0"


def test_a_thousand_closed_candles_are_there_before_the_start(three: Desk) -> None:
    path = "/api/v3/klines"
    rows = three.get(path, symbol="DOGEUSDT", interval="1m", limit=1000, endTime=NOW - NOW % 60_000 - 1).json
    assert len(rows) == 1000
    assert rows[-1][6] < NOW


def test_start_end_and_limit(three: Desk) -> None:
    minute = NOW - NOW % 60_000

    def opens(**params: int) -> list[int]:
        rows = three.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", **params).json
        return [(row[0] - minute) // 60_000 for row in rows]

    assert opens(limit=3) == [-2, -1, 0]
    assert len(opens()) == 500
    assert len(opens(limit=5000)) == 1000
    start, end = minute - 600_000, minute - 300_000
    assert opens(startTime=start, limit=3) == [-10, -9, -8]
    assert opens(startTime=start + 1, limit=3) == [-9, -8, -7]
    assert opens(endTime=end, limit=3) == [-7, -6, -5]
    assert opens(endTime=end - 1, limit=3) == [-8, -7, -6]
    assert opens(startTime=start, endTime=end) == [-10, -9, -8, -7, -6, -5]
    assert opens(startTime=start, endTime=end, limit=2) == [-10, -9]
    assert opens(startTime=end, endTime=start) == []
    assert opens(startTime=minute + 60_000) == []
    assert opens(startTime=start * 1000, limit=1) == [-10]


def test_longer_candles_are_made_of_shorter_ones(three: Desk) -> None:
    minutes = three.get("/api/v3/klines", symbol="ETHUSDT", interval="1m", limit=1000).json
    hours = three.get("/api/v3/klines", symbol="ETHUSDT", interval="1h", limit=15).json
    for hour in hours[1:]:
        parts = [m for m in minutes if hour[0] <= m[0] <= hour[6]]
        assert hour[1] == parts[0][1]
        assert float(hour[2]) == max(float(p[2]) for p in parts)
        assert float(hour[3]) == min(float(p[3]) for p in parts)
        assert hour[4] == parts[-1][4]
        assert hour[8] == sum(p[8] for p in parts)
        assert abs(float(hour[5]) - sum(float(p[5]) for p in parts)) < 1e-6


def test_minutes_are_made_of_seconds(three: Desk) -> None:
    seconds = three.get("/api/v3/klines", symbol="ETHUSDT", interval="1s", limit=1000).json
    minutes = three.get("/api/v3/klines", symbol="ETHUSDT", interval="1m", limit=10).json
    for minute in minutes[:-1]:
        parts = [s for s in seconds if minute[0] <= s[0] <= minute[6]]
        assert len(parts) == 60
        assert (minute[1], minute[4]) == (parts[0][1], parts[-1][4])
        assert float(minute[2]) == max(float(p[2]) for p in parts)
        assert float(minute[3]) == min(float(p[3]) for p in parts)
        assert abs(float(minute[5]) - sum(float(p[5]) for p in parts)) < 1e-7
        assert minute[8] == sum(p[8] for p in parts)


def test_time_zone(three: Desk) -> None:
    rows = three.get("/api/v3/klines", symbol="BTCUSDT", interval="12h", limit=2, timeZone="5:45").json
    assert (rows[-1][0] + (5 * 60 + 45) * 60_000) % (12 * 3_600_000) == 0
    plain = three.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=2).json
    assert three.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=2, timeZone="8").json == plain
    for bad in ("15", "-12:30", "x", "8:60"):
        assert three.get("/api/v3/klines", symbol="BTCUSDT", interval="1d", timeZone=bad).code == -1130
    assert Desk("us").get("/api/v3/klines", symbol="BTCUSDT", interval="1d", timeZone="0").code == -1104


def test_weeks_begin_on_monday_and_months_on_the_first() -> None:
    assert bucket(NOW, "1w")[0] == 1_699_833_600_000  # 2023-11-13
    assert bucket(NOW, "1M") == (1_698_796_800_000, 1_701_388_799_999)
    assert bucket(1_703_980_800_000, "1M") == (1_701_388_800_000, 1_704_067_199_999)  # December


def test_average_price_is_that_of_five_minutes(desk: Desk) -> None:
    shown = desk.get("/api/v3/avgPrice", symbol="BTCUSDT").json
    average = desk.exchange.average_price(desk.exchange.markets["BTCUSDT"], 5)
    assert shown == {"mins": 5, "price": f"{average:.8f}", "closeTime": desk.clock.now_ms()}
    assert Decimal(shown["price"]) == average
    assert set(Desk("us").get("/api/v3/avgPrice", symbol="BTCUSDT").json) == {"mins", "price"}
    assert desk.get("/api/v3/avgPrice", symbol="NOPE").code == -1121
    assert desk.get("/api/v3/avgPrice").code == -1102


def test_book_ticker_shows_what_an_order_would_meet() -> None:
    desk = Desk(symbols=("BTCUSDT", "ETHUSDT"))
    desk.set_book(bids=[("63999", "2")], asks=[("64001", "0.5"), ("64002", "3")])
    one = {"symbol": "BTCUSDT", "bidPrice": "63999.00000000", "bidQty": "2.00000000"}
    one |= {"askPrice": "64001.00000000", "askQty": "0.50000000"}
    path = "/api/v3/ticker/bookTicker"
    assert desk.get(path, symbol="BTCUSDT").json == one
    assert desk.get(path, symbols='["BTCUSDT"]').json == [one]
    assert [ticker["symbol"] for ticker in desk.get(path).json] == ["BTCUSDT", "ETHUSDT"]
    assert desk.get(path, symbol="BTCUSDT", symbols='["ETHUSDT"]').code == -1128
    assert desk.order(quantity="0.001").json["fills"][0]["price"] == "64001.00000000"


def test_book_ticker_of_an_endless_book_is_a_number() -> None:
    shown = Desk(step=True).get("/api/v3/ticker/bookTicker", symbol="BTCUSDT").json
    assert shown["bidPrice"] == shown["askPrice"]
    assert Decimal(shown["askQty"]).is_finite()


def test_depth_is_the_book_that_orders_meet(desk: Desk) -> None:
    shown = desk.get("/api/v3/depth", symbol="BTCUSDT").json
    bids, asks = ([(Decimal(p), Decimal(q)) for p, q in shown[side]] for side in ("bids", "asks"))
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids[0][0] < asks[0][0]
    filled = desk.order(quantity="0.05").json
    assert filled["fills"][0]["price"] == shown["asks"][0][0]
    later = desk.get("/api/v3/depth", symbol="BTCUSDT").json
    assert later["lastUpdateId"] > shown["lastUpdateId"]
    assert sum(Decimal(q) for _, q in later["asks"]) == sum(q for _, q in asks) - Decimal("0.05")
    assert later["bids"] == shown["bids"]
    assert Desk().get("/api/v3/depth", symbol="BTCUSDT").json == shown  # the same seed, the same book
    assert Desk(seed=8).get("/api/v3/depth", symbol="BTCUSDT").json != shown


def test_depth_takes_a_limit(desk: Desk) -> None:
    for limit, expected in ((5, 5), (20, 20), (9999, 20)):
        assert len(desk.get("/api/v3/depth", symbol="BTCUSDT", limit=limit).json["bids"]) == expected
    assert desk.get("/api/v3/depth", symbol="BTCUSDT", limit="x").code == -1100
    assert desk.get("/api/v3/depth", symbol="NOPE").code == -1121
    assert desk.get("/api/v3/depth", symbol="BTCUSDT", symbolStatus="HALT").code == -1220
    assert desk.get("/api/v3/depth", limit=5).code == -1102


def test_day_ticker() -> None:
    desk = Desk(symbols=("BTCUSDT", "ETHUSDT"))
    path = "/api/v3/ticker/24hr"
    shown = desk.get(path, symbol="BTCUSDT").json
    rows = desk.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=1000).json
    assert shown["lastPrice"] == rows[-1][4]
    assert Decimal(shown["highPrice"]) >= max(Decimal(row[2]) for row in rows)
    assert Decimal(shown["volume"]) >= sum(Decimal(row[5]) for row in rows[-1000:])
    assert Decimal(shown["priceChange"]) == Decimal(shown["lastPrice"]) - Decimal(shown["openPrice"])
    assert [t["symbol"] for t in desk.get(path, symbols='["ETHUSDT"]').json] == ["ETHUSDT"]
    short = desk.get(path, type="MINI").json
    assert len(short) == 2
    assert len(short[0]) == 12
    assert desk.get(path, type="HUGE").error == (400, -1139, "Invalid ticker type.")


def test_system_status() -> None:
    assert Desk().get("/sapi/v1/system/status").json == {"status": 0, "msg": "normal"}
    us = Desk("us")
    assert us.signed("GET", "/sapi/v1/system/status").json == us.get("/sapi/v1/system/status").json == {"status": 0}
