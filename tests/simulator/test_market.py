"""The made-up market: seeded, lively in both directions at any pace, never lost; candles built once and in order."""

import random
from decimal import Decimal
from itertools import pairwise

import pytest

from bot.simulator.depth import Depth, random_depth
from bot.simulator.market import HistoryMaker, PriceProcess
from bot.simulator.profiles import PROFILES, symbol_rules
from bot.supervision.testing import ManualClock
from tests.simulator.support import NOW, Desk


def closes(push_ms: int, seconds: int, seed: int = 1) -> list[float]:
    process = PriceProcess(random.Random(seed), push_ms, 100.0, 100.0)
    price, seen = 100.0, []
    for _ in range(seconds * 1000 // push_ms):
        price = process.next_price(price, True)
        seen.append(price)
    return seen


@pytest.mark.parametrize("push_ms", [10, 100, 1000, 2000, 5000, 30_000])
def test_moves_of_one_percent_come_every_few_seconds_at_any_interval(push_ms: int) -> None:
    seconds = max(600, push_ms // 10)
    seen = closes(push_ms, seconds)
    moves = [later / earlier for earlier, later in pairwise(seen)]
    down, up = sum(m <= 0.99 for m in moves), sum(m >= 1.01 for m in moves)
    every_s = seconds / (down + up)
    assert every_s <= max(8, push_ms / 1000 * 1.1)
    assert every_s >= 2
    assert 0.35 < down / (down + up) < 0.65


def test_it_neither_dies_nor_explodes_in_ten_days() -> None:
    seen = closes(2000, 10 * 86_400)
    assert 50 < min(seen) < max(seen) < 200


def test_jumps_have_a_fat_tail() -> None:
    seen = closes(2000, 50_000)
    sizes = sorted(abs(b / a - 1) for a, b in pairwise(seen))
    jumps = [size for size in sizes if size >= 0.0115]
    assert max(jumps) > 0.04
    assert sum(jumps) / len(jumps) < 0.018


def drive(desk: Desk, steps: int, step_ms: int) -> list[tuple[str, int, bool, Decimal]]:
    """Move BTC and return what a kline_1m subscriber would see: (open time, closed?, close)."""
    market = desk.exchange.markets["BTCUSDT"]
    seen = []
    for _ in range(steps):
        desk.clock.advance(step_ms)
        for interval, candle in desk.exchange.advance("BTCUSDT", True):
            seen.append((interval, candle.open_time, True, candle.close))
        current = market.series.current
        assert current is not None
        seen.append(("1m", current.open_time, False, current.close))
    return seen


def test_the_same_seed_makes_the_same_market() -> None:
    assert drive(Desk(seed=3), 200, 2000) == drive(Desk(seed=3), 200, 2000)
    assert drive(Desk(seed=3), 20, 2000) != drive(Desk(seed=4), 20, 2000)


def test_every_candle_is_closed_once_and_in_order() -> None:
    desk = Desk()
    desk.exchange.markets["BTCUSDT"].series.view("5m")
    seen = drive(desk, 400, 2000)
    minutes = [opened for interval, opened, is_closed, _ in seen if is_closed and interval == "1m"]
    assert minutes == list(range(minutes[0], minutes[0] + 60_000 * len(minutes), 60_000))
    assert len(minutes) == (5_000 + 800_000) // 60_000
    fives = [opened for interval, opened, is_closed, _ in seen if is_closed and interval == "5m"]
    assert fives == sorted(set(fives))
    assert len(fives) == 3
    boundaries = [n for n, (interval, *_) in enumerate(seen) if interval == "5m"]
    assert all(seen[n - 1][0] == "1m" and seen[n - 1][2] for n in boundaries)
    assert all(seen[n - 1][1] + 60_000 == seen[n][1] + 300_000 for n in boundaries)
    last_of: dict[int, Decimal] = {}
    for interval, opened, is_closed, close in seen:
        if interval != "1m":
            continue
        if is_closed:
            assert close == last_of.get(opened, close)
        last_of[opened] = close


def test_an_open_long_candle_holds_all_its_minutes() -> None:
    desk = Desk()
    series = desk.exchange.markets["BTCUSDT"].series
    for _ in range(150):
        drive(desk, 1, 2000)
        hour = series.view("1h")
        assert hour is not None
        minutes = series.klines("1m", hour.open_time, hour.close_time, 1000)
        assert hour.high == max(m.high for m in minutes)
        assert hour.low == min(m.low for m in minutes)
        assert (hour.open, hour.close) == (minutes[0].open, minutes[-1].close)
        assert hour.volume == sum(m.volume for m in minutes)
        assert hour.trades == sum(m.trades for m in minutes)


def test_a_pause_is_filled_with_candles_without_trades() -> None:
    desk = Desk()
    before = desk.exchange.markets["BTCUSDT"].price
    desk.clock.advance(10 * 60_000)
    desk.exchange.advance("BTCUSDT", True)
    rows = desk.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=10).json
    assert all(Decimal(x) == before for row in rows[:-1] for x in row[1:5])
    assert all(row[8] == 0 and row[5] == "0.00000000" for row in rows[1:-1])
    assert [b[0] - a[0] for a, b in pairwise(rows)] == [60_000] * 9


def test_a_long_pause_costs_no_time() -> None:
    desk = Desk()
    desk.clock.advance(400 * 86_400_000)
    desk.exchange.advance("BTCUSDT", True)
    rows = desk.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", limit=1000).json
    assert len(rows) == 1000
    assert rows[-1][6] >= desk.clock.now_ms()


def test_market_time_runs_by_the_speed_factor() -> None:
    desk = Desk(speed=Decimal(60))
    desk.clock.advance(1000)
    assert desk.exchange.market_ms() == NOW + 60_000
    assert desk.get("/api/v3/time").json["serverTime"] == NOW + 1000


def test_history_is_always_the_same_and_ends_at_the_price() -> None:
    rules = symbol_rules(PROFILES["com"], "BTCUSDT")
    maker = HistoryMaker("s", rules, rules.tick, rules.start_price)
    made = maker.older("1m", NOW - NOW % 60_000, rules.start_price, 100)
    assert made == HistoryMaker("s", rules, rules.tick, rules.start_price).older(
        "1m", NOW - NOW % 60_000, rules.start_price, 100
    )
    assert made[-1].close == rules.start_price
    assert all(a.close == b.open and a.close_time + 1 == b.open_time for a, b in pairwise(made))


@pytest.mark.parametrize("price", ["64010.01", "0.16123", "0.00001"])
def test_books_have_levels_on_the_tick(price: str) -> None:
    rules = symbol_rules(PROFILES["com"], "BTCUSDT" if price[0] == "6" else "DOGEUSDT")
    depth = random_depth(random.Random(1), Decimal(price), rules.tick, rules.step)
    asks, bids = [level[0] for level in depth.asks], [level[0] for level in depth.bids]
    assert asks == sorted(asks)
    assert bids == sorted(bids, reverse=True)
    assert len(asks) == 20
    assert asks[0] > Decimal(price)
    assert all(level[0] % rules.tick == 0 and level[1] % rules.step == 0 for level in depth.asks + depth.bids)
    assert all(bid < Decimal(price) for bid in bids)


def test_quantity_for_a_quote_amount_is_exact() -> None:
    depth = Depth([], [[Decimal("3"), Decimal("1")], [Decimal("7"), Decimal("10")]])
    step = Decimal("0.1")
    assert depth.quantity_for(True, Decimal("3"), step) == 1
    assert depth.quantity_for(True, Decimal("3.69"), step) == 1
    assert depth.quantity_for(True, Decimal("3.7"), step) == Decimal("1.1")
    assert depth.quantity_for(True, Decimal("1000"), step) == 11


def test_a_set_price_is_the_next_close_also_where_the_candle_ends() -> None:
    desk = Desk(clock=ManualClock(NOW - NOW % 60_000 + 59_000))
    desk.exchange.set_price("BTCUSDT", Decimal("50000.5"))
    desk.clock.advance(1_000)
    ((interval, candle),) = desk.exchange.close_only("BTCUSDT")[-1:]
    assert (interval, candle.close, candle.low) == ("1m", Decimal("50000.5"), Decimal("50000.5"))
    assert desk.exchange.markets["BTCUSDT"].price == Decimal("50000.5")
    desk.clock.advance(1)
    assert not desk.exchange.advance("BTCUSDT", True)
    assert abs(desk.exchange.markets["BTCUSDT"].price / Decimal("50000.5") - 1) < Decimal("0.09")


def test_a_set_price_closes_the_candle_that_a_move_ends() -> None:
    desk = Desk()
    desk.exchange.set_price("BTCUSDT", Decimal("50000.5"))
    desk.clock.advance(60_000)
    over = dict(desk.exchange.advance("BTCUSDT", True))
    assert over["1m"].close == Decimal("50000.5")
    assert desk.exchange.markets["BTCUSDT"].price == Decimal("50000.5")


def test_a_set_price_holds_until_every_stream_has_seen_it() -> None:
    desk = Desk()
    desk.exchange.set_price("BTCUSDT", Decimal("50000"))
    for is_push in (False, False, True):
        desk.clock.advance(1000)
        desk.exchange.advance("BTCUSDT", is_push)
        assert desk.exchange.markets["BTCUSDT"].price == 50000
    desk.clock.advance(1000)
    desk.exchange.advance("BTCUSDT", True)
    assert desk.exchange.markets["BTCUSDT"].price != 50000
