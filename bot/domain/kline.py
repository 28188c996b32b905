"""A kline message and the order of one symbol's messages. Source: contract, section 1, Messages."""

from decimal import Decimal

import msgspec


class Kline(msgspec.Struct, frozen=True, gc=False):
    """One kline update of one symbol. Times are ms UTC, prices in the quote asset, `volume` in the base asset.

    `event_time` of a closed kline is its `close_time`, whatever its source, and no open kline has that one: (symbol,
    open_time, event_time) names a message. `received_event_time` is the stream's own event time, None for klines that
    came from REST or a file. `quote_volume` is None where it is unknown.
    """

    symbol: str
    interval: str
    open_time: int
    close_time: int
    event_time: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal | None
    is_closed: bool
    received_event_time: int | None = None


def is_newer(kline: Kline, last: Kline | None) -> bool:
    """Return whether `kline` comes after `last`, the last one taken of the same symbol.

    Messages are ordered by (open_time, is_closed, event_time); a closed kline ends its open_time.
    """
    if last is None or kline.open_time > last.open_time:
        return True
    if kline.open_time < last.open_time or last.is_closed:
        return False
    return kline.is_closed or kline.event_time > last.event_time


def leaves_gap(kline: Kline, last: Kline) -> bool:
    """Return whether a closed kline is missing between `last`, the last one taken, and `kline`, which is newer."""
    return kline.open_time > last.close_time + 1 if last.is_closed else kline.open_time != last.open_time


def next_close(last: Kline) -> int:
    """Return the close_time (ms UTC) of the closed kline that follows `last`, the last one taken."""
    return 2 * last.close_time + 1 - last.open_time if last.is_closed else last.close_time


MAX_LEAP_MS = 86_400_000


def implausible(kline: Kline, last: Kline | None, now_ms: int) -> str | None:
    """Return in words why a live kline cannot be true, None if it may be; `now_ms` is UTC, the exchange's.

    One taken from the far future would make every true one after it count as late. A day ahead of both the clock and
    the last kline is left, since a test exchange may serve history ahead of time, with the gaps it has.
    """
    length = kline.close_time - kline.open_time + 1
    if length > INTERVALS_MS.get(kline.interval, length):
        return f"its candle of {length} ms is longer than {kline.interval}"
    if length <= 0 or not kline.open_time - length <= kline.event_time <= kline.close_time + length:
        return f"its event time {kline.event_time} does not fit its candle from {kline.open_time}"
    known = now_ms if last is None else max(now_ms, last.open_time)
    if kline.open_time - known > max(MAX_LEAP_MS, 3 * length):
        return f"its candle begins {(kline.open_time - known) // 1000} s in the future"
    return None


def kline_key(kline: Kline) -> str:
    """Return a kline's sort key: `INTERVAL#open_time#event_time`, of a closed one `INTERVAL#open_time#closed`."""
    return f"{kline.interval}#{kline.open_time}#{'closed' if kline.is_closed else kline.event_time}"


INTERVALS_MS = {
    "1s": 1_000,
    "1m": 60_000,
    "3m": 180_000,
    "5m": 300_000,
    "15m": 900_000,
    "30m": 1_800_000,
    "1h": 3_600_000,
    "2h": 7_200_000,
    "4h": 14_400_000,
    "6h": 21_600_000,
    "8h": 28_800_000,
    "12h": 43_200_000,
    "1d": 86_400_000,
    "3d": 259_200_000,
    "1w": 604_800_000,
}
