"""Decides prices: a seeded random market with jumps, a book of levels, and candles before the market's start."""

import math
import random
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Protocol

from bot.simulator.amounts import ZERO, exact, round8
from bot.simulator.candles import FIRST_DAY_MS, INTERVAL_MS, Candle, CandleSeries, bucket
from bot.simulator.depth import Depth, OrderBook
from bot.simulator.profiles import SymbolRules

MINUTE_SIGMA = 0.010  # of the made-up candles before the start


@dataclass
class PriceProcess:
    """A price that jumps by more than 1 % every few seconds and comes back to its anchor.

    `push_ms` is the time between two updates; a jump falls on one in every 2.5 to 6.5 seconds of updates, or on each if
    they are rarer. Sizes have a Pareto tail. The farther from the anchor, the likelier the way back, so that it neither
    dies nor explodes in a long run.
    """

    rng: random.Random
    push_ms: int
    anchor: float
    last_push: float
    _until_jump: int = field(default=1, init=False)
    _last_sign: int = field(default=1, init=False)

    def next_price(self, price: float, is_push: bool) -> float:
        """Return the price of the next update; `is_push` marks those that every stream sees."""
        if is_push:
            self._until_jump -= 1
            if self._until_jump <= 0:
                self._until_jump = max(1, round(self.rng.uniform(2500, 6500) / self.push_ms))
                self.last_push = self._jump(self.last_push)
                return self.last_push
        noise = self.rng.gauss(0, 0.0003) * (3 if self.rng.random() < 0.05 else 1)
        pulled = price * math.exp(noise - 0.002 * math.log(price / self.anchor))
        if is_push:
            self.last_push = pulled
        return pulled

    def _jump(self, price: float) -> float:
        size = min(0.08, 0.012 + 0.004 * (self.rng.paretovariate(3) - 1))
        upward = 0.5 - 1.5 * math.log(price / self.anchor) - 0.15 * self._last_sign
        self._last_sign = 1 if self.rng.random() < min(0.95, max(0.05, upward)) else -1
        return price * (1 + self._last_sign * size)


@dataclass
class HistoryMaker:
    """Candles of before the start, and seconds inside a minute: always the same for the same seed and symbol."""

    seed: str
    rules: SymbolRules
    grid: Decimal  # smallest difference of two prices
    anchor: Decimal

    @exact
    def older(self, interval: str, first_open: int, price: Decimal, count: int) -> list[Candle]:
        """Return up to `count` closed candles that end right before `first_open` (ms) at `price`, oldest first."""
        rng = random.Random(f"{self.seed}:{self.rules.symbol}:{interval}:{first_open}")
        sigma = min(0.06, MINUTE_SIGMA * math.sqrt(INTERVAL_MS[interval] / 60_000))
        anchor = math.log(float(self.anchor / self.grid))
        close, opened = max(1, int(price / self.grid)), first_open
        made: list[Candle] = []
        while len(made) < count and opened > FIRST_DAY_MS:
            opened, closed = bucket(opened - 1, interval)
            distance = math.log(close) - anchor
            begin = max(1, round(math.exp(anchor + 0.98 * distance + rng.gauss(0, sigma))))
            high = round(max(begin, close) * (1 + abs(rng.gauss(0, sigma)) * 0.3))
            low = max(1, round(min(begin, close) * (1 - min(0.5, abs(rng.gauss(0, sigma)) * 0.3))))
            middle = (begin + close + high + low) / 4 * float(self.grid)
            trades = int(rng.uniform(20, 60) * INTERVAL_MS[interval] / 60_000) + 1
            steps = max(1, int(trades * rng.lognormvariate(6.0, 0.5) / middle / float(self.rules.step)))
            volume = steps * self.rules.step
            quote = round8(volume * Decimal(round(middle / float(self.grid))) * self.grid)
            share = Decimal(rng.randint(30, 70)) / 100
            taker = steps * share // 1 * self.rules.step
            made.append(
                Candle(
                    opened,
                    closed,
                    begin * self.grid,
                    high * self.grid,
                    low * self.grid,
                    close * self.grid,
                    volume,
                    quote,
                    trades,
                    taker,
                    round8(quote * taker / volume),
                )
            )
            close = begin
        made.reverse()
        return made

    @exact
    def seconds(self, candle: Candle) -> list[Candle]:
        """Return the 1s candles of `candle`: together they have its prices and volumes exactly."""
        count = (candle.close_time + 1 - candle.open_time) // 1000
        split = [Decimal(round(1_000_000 / count)) / 1_000_000] * count
        made = []
        before = candle.open
        left = candle
        for number in range(count):
            after = path_price(candle, Decimal(number + 1) / count, self.grid)
            corners = [before, after, *corners_between(candle, number, count)]
            last = number == count - 1
            opened = candle.open_time + number * 1000
            part = Candle(opened, opened + 999, before, max(corners), min(corners), after)
            part.volume = left.volume if last else round8(candle.volume * split[number])
            part.quote_volume = left.quote_volume if last else round8(candle.quote_volume * split[number])
            part.taker_volume = left.taker_volume if last else round8(candle.taker_volume * split[number])
            part.taker_quote_volume = (
                left.taker_quote_volume if last else round8(candle.taker_quote_volume * split[number])
            )
            part.trades = candle.trades * (number + 1) // count - candle.trades * number // count
            left = _without(left, part)
            made.append(part)
            before = after
        return made


def path_corners(candle: Candle) -> list[tuple[Decimal, Decimal]]:
    """Return (share of time, price) that a candle's price goes through: open, both extremes, close."""
    first, second = (candle.low, candle.high) if candle.close >= candle.open else (candle.high, candle.low)
    third = Decimal(1) / 3
    return [(ZERO, candle.open), (third, first), (2 * third, second), (Decimal(1), candle.close)]


def path_price(candle: Candle, share: Decimal, grid: Decimal) -> Decimal:
    """Return the price after `share` (0 to 1) of a candle's time, on the straight lines between its corners."""
    corners = path_corners(candle)
    for (since, begin), (until, end) in pairwise(corners):
        if share < until:
            exact_price = begin + (end - begin) * (share - since) / (until - since)
            return exact_price // grid * grid
    return candle.close


def corners_between(candle: Candle, number: int, count: int) -> list[Decimal]:
    """Return the extremes that lie in part `number` of `count` equal parts of the candle's time."""
    low, high = Decimal(number) / count, Decimal(number + 1) / count
    return [price for share, price in path_corners(candle)[1:3] if low <= share < high]


def _without(candle: Candle, part: Candle) -> Candle:
    rest = Candle(candle.open_time, candle.close_time, candle.open, candle.high, candle.low, candle.close)
    rest.volume = candle.volume - part.volume
    rest.quote_volume = candle.quote_volume - part.quote_volume
    rest.taker_volume = candle.taker_volume - part.taker_volume
    rest.taker_quote_volume = candle.taker_quote_volume - part.taker_quote_volume
    return rest


class Market(Protocol):
    """One symbol's market, moved by whoever holds the clock. `forced` is the next update's close, set from outside."""

    rules: SymbolRules
    series: CandleSeries
    forced: Decimal | None
    trade_id: int
    book: OrderBook

    @property
    def price(self) -> Decimal:
        """The last price."""

    def advance(self, now_ms: int, is_push: bool) -> list[tuple[str, Candle]]:
        """Move the market to `now_ms` (market time); return the candles that closed on the way, in order."""

    def close_only(self, now_ms: int) -> list[tuple[str, Candle]]:
        """Close what is over at `now_ms` (market time), without a move."""

    def due(self) -> int | None:
        """Return the market time at which a candle must be closed even between updates; None: never."""

    def depth(self) -> Depth:
        """Return the book of this moment."""


class SyntheticMarket:
    """A made-up market of one symbol: deterministic for the same seed and the same calls."""

    def __init__(
        self, rules: SymbolRules, series: CandleSeries, process: PriceProcess, seed: str, unlimited: bool
    ) -> None:
        self.rules = rules
        self.series = series
        self.forced: Decimal | None = None
        self.trade_id = 0
        self.book = OrderBook(f"{seed}:{rules.symbol}:book", unlimited)
        self._process = process
        self._rng = process.rng

    @property
    def price(self) -> Decimal:
        return self.series.last_close

    @property
    def anchor(self) -> float:
        return self._process.anchor

    @exact
    def advance(self, now_ms: int, is_push: bool) -> list[tuple[str, Candle]]:
        current = self.series.current
        self.book.moved()
        if self.forced is not None and current is not None and current.close_time < now_ms:
            # The closing update is the next one that is sent: it carries the price, and the new candle stands on it.
            self._trade_at(current.close_time, self._accept_forced())
            return self.series.roll(now_ms)
        over = self.series.roll(now_ms)
        if self.forced is not None:
            price = self.forced
            if is_push:
                price = self._accept_forced()
            self._trade_at(now_ms, price)
        else:
            before = float(self.series.last_close)
            self._trade_to(now_ms, before, self._process.next_price(before, is_push))
        return over

    def close_only(self, now_ms: int) -> list[tuple[str, Candle]]:
        """Close what is over at `now_ms`, without a new price."""
        current = self.series.current
        if self.forced is not None and current is not None and current.close_time < now_ms:
            self.book.moved()
            self._trade_at(current.close_time, self._accept_forced())
        return self.series.roll(now_ms)

    def due(self) -> int | None:
        current = self.series.current
        return current.close_time + 1 if current is not None else None

    @exact
    def next_candle(self, opened: int, closed: int) -> Candle:
        """Return the next whole candle, for an exchange that is moved by hand: about a dozen trades."""
        candle: Candle | None = None
        for number in range(4):
            before = float(candle.close if candle else self.price)
            is_last = number == 3
            target = self._process.next_price(before, is_last)
            price = self.forced if is_last and self.forced is not None else self._on_grid(target)
            if is_last and self.forced is not None:
                self._accept_forced()
            steps = self._quantity_steps(price)
            self.trade_id += 1
            trade = Candle(opened, closed, price, price, price, price, steps * self.rules.step)
            trade.quote_volume = round8(trade.volume * price)
            trade.trades, trade.first_trade_id, trade.last_trade_id = 1, self.trade_id, self.trade_id
            if self._rng.random() < 0.5:
                trade.taker_volume, trade.taker_quote_volume = trade.volume, trade.quote_volume
            candle = candle.merged(trade) if candle else trade
        assert candle is not None
        self.book.moved()
        return candle

    @exact
    def depth(self) -> Depth:
        return self.book.now(self.price, self.rules.tick, self.rules.step)

    def _accept_forced(self) -> Decimal:
        assert self.forced is not None
        price, self.forced = self.forced, None
        self._process.anchor = self._process.last_push = float(price)
        return price

    def _on_grid(self, price: float) -> Decimal:
        return max(1, round(price / float(self.rules.tick))) * self.rules.tick

    def _quantity_steps(self, price: Decimal) -> int:
        return max(1, int(self._rng.lognormvariate(6.0, 0.8) / float(price * self.rules.step)))

    def _trade_at(self, now_ms: int, price: Decimal) -> None:
        self.trade_id += 1
        quantity = self._quantity_steps(price) * self.rules.step
        self.series.trade(now_ms, price, quantity, self._rng.random() < 0.5, self.trade_id)

    def _trade_to(self, now_ms: int, before: float, after: float) -> None:
        count = self._rng.randint(2, 4)
        for number in range(1, count):
            wobble = 1 + self._rng.gauss(0, 0.0001)
            self._trade_at(now_ms, self._on_grid((before + (after - before) * number / count) * wobble))
        self._trade_at(now_ms, self._on_grid(after))
