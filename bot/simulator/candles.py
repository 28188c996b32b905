"""Decides what a symbol's candles are: built from trades on aligned open times, closed once, merged upwards."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from operator import attrgetter

import msgspec

from bot.simulator.amounts import ZERO

MINUTE_MS = 60_000
DAY_MS = 86_400_000
FIRST_DAY_MS = 1_502_928_000_000  # 2017-08-17, when the exchange opened: no candle is older
FIRST_MONDAY_MS = 4 * DAY_MS  # the epoch was a Thursday
KEPT = 3000  # closed candles an interval
HISTORY = 1200  # closed candles before the market's start; the contract asks for 1000
LONGEST_FILL = 1500  # candles without trades that are made up after the market stood still

INTERVAL_MS = {
    "1s": 1000, "1m": MINUTE_MS, "3m": 3 * MINUTE_MS, "5m": 5 * MINUTE_MS, "15m": 15 * MINUTE_MS, "30m": 30 * MINUTE_MS,
    "1h": 60 * MINUTE_MS, "2h": 120 * MINUTE_MS, "4h": 240 * MINUTE_MS, "6h": 360 * MINUTE_MS, "8h": 480 * MINUTE_MS,
    "12h": 720 * MINUTE_MS, "1d": DAY_MS, "3d": 3 * DAY_MS, "1w": 7 * DAY_MS, "1M": 30 * DAY_MS,
}  # fmt: skip
_open_time = attrgetter("open_time")


class Candle(msgspec.Struct):
    """One candle. Times in ms, `close_time` the next open - 1; prices in the quote asset, volumes in base and quote."""

    open_time: int
    close_time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal = ZERO
    quote_volume: Decimal = ZERO
    trades: int = 0
    taker_volume: Decimal = ZERO
    taker_quote_volume: Decimal = ZERO
    first_trade_id: int = -1
    last_trade_id: int = -1

    def merged(self, later: "Candle") -> "Candle":
        """Return this candle with what `later` adds; the times stay."""
        return Candle(
            self.open_time,
            self.close_time,
            self.open,
            max(self.high, later.high),
            min(self.low, later.low),
            later.close,
            self.volume + later.volume,
            self.quote_volume + later.quote_volume,
            self.trades + later.trades,
            self.taker_volume + later.taker_volume,
            self.taker_quote_volume + later.taker_quote_volume,
            self.first_trade_id if self.first_trade_id >= 0 else later.first_trade_id,
            later.last_trade_id if later.last_trade_id >= 0 else self.last_trade_id,
        )


class StoredCandle(msgspec.Struct):
    """A candle as the books keep it. `merged_until`: close time of the last base candle that it contains."""

    interval: str
    candle: Candle
    is_closed: bool
    merged_until: int


def bucket(time_ms: int, interval: str, offset_ms: int = 0) -> tuple[int, int]:
    """Return open and close time of the candle of `interval` that holds `time_ms`; weeks begin on Monday, UTC.

    `offset_ms` shifts the boundaries of days and hours to another time zone.
    """
    local = time_ms + offset_ms
    if interval == "1M":
        day = datetime.fromtimestamp(local / 1000, UTC)
        first = datetime(day.year, day.month, 1, tzinfo=UTC)
        following = datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC)
        opened, closed = int(first.timestamp()) * 1000, int(following.timestamp()) * 1000
    else:
        length = INTERVAL_MS[interval]
        origin = FIRST_MONDAY_MS if interval == "1w" else 0
        opened = (local - origin) // length * length + origin
        closed = opened + length
    return opened - offset_ms, closed - offset_ms - 1


def flat(opened: int, closed: int, price: Decimal) -> Candle:
    """Return a candle without a trade: it repeats the price before it."""
    return Candle(opened, closed, price, price, price, price)


class CandleSeries:
    """All candles of one symbol. The base interval is fed; longer ones are merged from it, once somebody asks for them.

    `older(interval, first_open, price, count)` makes up closed candles before `first_open`, ending at `price`;
    `seconds(candle)` splits a base candle into 1s candles. What has changed waits in `changes` until it is stored.
    """

    def __init__(
        self,
        base: str,
        intervals: Sequence[str],
        closed: list[Candle],
        older: Callable[[str, int, Decimal, int], list[Candle]],
        seconds: Callable[[Candle], list[Candle]] | None = None,
        stored: Callable[[str], list[StoredCandle]] | None = None,
    ) -> None:
        self.base = base
        self.intervals = tuple(i for i in intervals if INTERVAL_MS[i] >= INTERVAL_MS[base] or i == "1s")
        if seconds is None or base != "1m":
            self.intervals = tuple(i for i in self.intervals if i != "1s" or base == "1s")
        self._closed: dict[str, list[Candle]] = {base: closed}
        self._older = older
        self._seconds = seconds
        self._stored = stored
        self._partial: dict[str, Candle | None] = {}
        self._merged_until: dict[str, int] = {}
        self.current: Candle | None = None
        self._second: Candle | None = None
        self._has_seconds = "1s" in self.intervals and base != "1s"
        self._from_seconds: list[Candle] = []
        self.changes: dict[tuple[str, int], StoredCandle] = {}

    @property
    def last_close(self) -> Decimal:
        return self.current.close if self.current else self._closed[self.base][-1].close

    @property
    def last_closed(self) -> Candle:
        return self._closed[self.base][-1]

    @property
    def length_ms(self) -> int:
        return INTERVAL_MS[self.base]

    def resume(self, candle: Candle) -> None:
        """Go on with a candle that was open when the books were last written."""
        self.current = candle

    def trade(self, time_ms: int, price: Decimal, quantity: Decimal, taker_buys: bool, trade_id: int) -> None:
        """Add one trade to the open candles; call `roll` with the same time first."""
        quote = price * quantity
        current = self.current or self._opened(time_ms, self.base)
        self.current = current
        _add(current, price, quantity, quote, taker_buys, trade_id)
        if self._has_seconds:
            second = self._second or self._opened(time_ms, "1s")
            self._second = second
            _add(second, price, quantity, quote, taker_buys, trade_id)

    def roll(self, now_ms: int) -> list[tuple[str, Candle]]:
        """Close every candle whose time is over at `now_ms`, and return them, short intervals first.

        A time without trades gives candles that repeat the last price; of a long one only the last part is made up.
        """
        over: list[tuple[str, Candle]] = []
        if self._has_seconds:
            if self._second is None:
                self._second = self._opened(now_ms, "1s")
            over += [("1s", candle) for candle in self._roll_seconds(now_ms, self._second)]
        if self.current is None:
            self.current = self._opened(now_ms, self.base)
        length = INTERVAL_MS[self.base]
        if now_ms - self.current.close_time > LONGEST_FILL * length:
            over += self.close_current()
            resumed = bucket(now_ms - (LONGEST_FILL - 1) * length, self.base)
            self.current = flat(*resumed, self.last_close)
        while self.current.close_time < now_ms:
            price = self.current.close
            following = bucket(self.current.close_time + 1, self.base)
            over += self.close_current()
            self.current = flat(*following, price)
        return over

    def close_current(self) -> list[tuple[str, Candle]]:
        """Close the base candle as it is, merge it upwards, and return what was closed by that."""
        candle = self.current
        if candle is None:
            return []
        self.current = None
        self._keep(self.base, candle, candle.close_time)
        over = [(self.base, candle)]
        for interval in self._partial:
            over += [(interval, longer) for longer in self._merge(interval, candle)]
        return over

    def append_closed(self, candle: Candle) -> list[tuple[str, Candle]]:
        """Take `candle` as the next closed base candle, whatever was open."""
        self.current = candle
        return self.close_current()

    def view(self, interval: str) -> Candle | None:
        """Return the open candle of `interval` as it stands; None if there is none now."""
        if interval == self.base:
            return self.current
        if interval == "1s":
            return self._second
        self._ensure(interval)
        partial = self._partial[interval]
        if self.current is None:
            return partial
        opened, closed = bucket(self.current.open_time, interval)
        if partial is not None and partial.open_time == opened:
            return partial.merged(self.current)
        return _stretched(self.current, opened, closed)

    def klines(self, interval: str, start: int | None, end: int | None, limit: int, offset_ms: int = 0) -> list[Candle]:
        """Return at most `limit` candles with `start` <= open time <= `end`, oldest first, the open one last.

        Without `start` the newest ones. Source: Binance, klines and the order of lists.
        """
        candles = self._all(interval, offset_ms)
        low = bisect_left(candles, start, key=_open_time) if start is not None else 0
        high = bisect_right(candles, end, key=_open_time) if end is not None else len(candles)
        if start is None:
            low = max(low, high - limit)
        return candles[low : min(high, low + limit)]

    def average_price(self, minutes: int) -> Decimal:
        """Return the volume-weighted average of the last `minutes`; the last price if there was no trade in them."""
        base_minutes = max(1, INTERVAL_MS[self.base] // MINUTE_MS)
        count = max(1, -(-minutes // base_minutes))
        recent = self._closed[self.base][-count:]
        if self.current is not None:
            recent = [*recent[1:], self.current]
        volume = sum((candle.volume for candle in recent), ZERO)
        return sum((candle.quote_volume for candle in recent), ZERO) / volume if volume else self.last_close

    def kept(self, interval: str) -> list[Candle]:
        """Return the closed candles that are in memory, oldest first; empty if nobody asked for the interval yet."""
        return self._closed.get(interval, [])

    def snapshot(self) -> None:
        """Put the open base candle among the changes, so that a kill loses nothing older than the last call."""
        if self.current is not None:
            self._note(self.base, self.current, False, self.current.close_time)

    def _all(self, interval: str, offset_ms: int) -> list[Candle]:
        if offset_ms and any(bucket(t, interval, offset_ms) != bucket(t, interval) for t in (0, 17 * MINUTE_MS)):
            base = [*self._closed[self.base], *([self.current] if self.current else [])]
            return _merged_all(base, interval, offset_ms)
        self._ensure(interval)
        last = self.view(interval)
        return [*self._closed[interval], *([last] if last else [])]

    def _ensure(self, interval: str) -> None:
        if interval in self._closed:
            return
        base = self._closed[self.base]
        if interval == "1s":
            self._ensure_seconds()
            return
        rows = self._stored(interval) if self._stored else []
        self._closed[interval] = [row.candle for row in rows if row.is_closed]
        unfinished = [row for row in rows if not row.is_closed]
        self._partial[interval] = unfinished[-1].candle if unfinished else None
        self._merged_until[interval] = rows[-1].merged_until if rows else -1
        for candle in base:
            self._merge(interval, candle)
        closed = self._closed[interval]
        first = closed[0] if closed else self._partial[interval]
        if first is not None and len(closed) < HISTORY:
            made_up = self._older(interval, first.open_time, first.open, HISTORY - len(closed))
            for candle in made_up:
                self._note(interval, candle, True, candle.close_time)
            self._closed[interval] = made_up + closed

    def _ensure_seconds(self) -> None:
        """Split the closed base candles before the first live second; the rest of that minute had no trades."""
        assert self._seconds is not None
        live = self._from_seconds[0] if self._from_seconds else self._second
        until = live.open_time if live is not None else self._closed[self.base][-1].close_time + 1
        minutes = [c for c in self._closed[self.base][-(KEPT // 60) :] if c.close_time < until]
        seconds = [second for candle in minutes for second in self._seconds(candle)]
        if seconds and live is not None:
            for opened in range(max(seconds[-1].close_time + 1, until - MINUTE_MS), until, 1000):
                seconds.append(flat(opened, opened + 999, live.open))
        self._closed["1s"] = seconds + self._from_seconds

    def _roll_seconds(self, now_ms: int, second: Candle) -> list[Candle]:
        over = []
        kept = self._closed.get("1s", self._from_seconds)
        if now_ms - second.close_time > LONGEST_FILL * 1000:
            kept.append(second)
            second = flat(*bucket(now_ms - (LONGEST_FILL - 1) * 1000, "1s"), second.close)
        while second.close_time < now_ms:
            over.append(second)
            kept.append(second)
            second = flat(second.close_time + 1, second.close_time + 1000, second.close)
        if len(kept) > 2 * KEPT:
            del kept[:-KEPT]
        self._second = second
        return over

    def _merge(self, interval: str, candle: Candle) -> list[Candle]:
        """Add a closed base candle to `interval`; return the candles that this closed."""
        if candle.close_time <= self._merged_until[interval]:
            return []
        self._merged_until[interval] = candle.close_time
        over = []
        opened, closed = bucket(candle.open_time, interval)
        partial = self._partial[interval]
        if partial is not None and partial.open_time != opened:
            over.append(partial)
            partial = None
        partial = partial.merged(candle) if partial is not None else _stretched(candle, opened, closed)
        self._partial[interval] = partial
        if candle.close_time >= closed:
            over.append(partial)
            self._partial[interval] = None
        else:
            self._note(interval, partial, False, candle.close_time)
        for longer in over:
            self._keep(interval, longer, candle.close_time)
        return over

    def _keep(self, interval: str, candle: Candle, merged_until: int) -> None:
        kept = self._closed[interval]
        kept.append(candle)
        if len(kept) > 2 * KEPT:
            del kept[:-KEPT]
        self._note(interval, candle, True, merged_until)

    def _note(self, interval: str, candle: Candle, is_closed: bool, merged_until: int) -> None:
        self.changes[interval, candle.open_time] = StoredCandle(interval, candle, is_closed, merged_until)

    def _opened(self, time_ms: int, interval: str) -> Candle:
        return flat(*bucket(time_ms, interval), self.last_close)


def _add(candle: Candle, price: Decimal, quantity: Decimal, quote: Decimal, taker_buys: bool, trade_id: int) -> None:
    if candle.trades == 0:
        candle.open = candle.high = candle.low = price
        candle.first_trade_id = trade_id
    elif price > candle.high:
        candle.high = price
    elif price < candle.low:
        candle.low = price
    candle.close = price
    candle.volume += quantity
    candle.quote_volume += quote
    candle.trades += 1
    candle.last_trade_id = trade_id
    if taker_buys:
        candle.taker_volume += quantity
        candle.taker_quote_volume += quote


def _stretched(candle: Candle, opened: int, closed: int) -> Candle:
    longer = msgspec.structs.replace(candle)
    longer.open_time, longer.close_time = opened, closed
    return longer


def _merged_all(base: list[Candle], interval: str, offset_ms: int) -> list[Candle]:
    merged: list[Candle] = []
    for candle in base:
        opened, closed = bucket(candle.open_time, interval, offset_ms)
        if merged and merged[-1].open_time == opened:
            merged[-1] = merged[-1].merged(candle)
        else:
            merged.append(_stretched(candle, opened, closed))
    return merged
