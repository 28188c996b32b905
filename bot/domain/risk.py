"""Exits and pauses that come before the strategy's own signals. Source: contract, section 1, Money, Exits."""

from decimal import Decimal

import msgspec

from bot.domain.kline import Kline
from bot.domain.money import ONE, add, limit_of, plain, subtract
from bot.domain.order import Side
from bot.domain.position import Position
from bot.domain.strategy import Signal

DAY_MS = 86_400_000
MINUTE_MS = 60_000


class RiskLimits(msgspec.Struct, frozen=True):
    """All off by default. Fractions but for `cooldown_ms`, which is in ms of event_time.

    The last three act only where an exchange is traded on: how far a close may be from the middle of the book (a
    fraction of that), how old the book's price may be, and how many orders may be made in a minute of event_time.
    """

    stop_loss: Decimal | None = None
    take_profit: Decimal | None = None
    cooldown_ms: int = 0
    max_daily_loss: Decimal | None = None
    max_price_deviation: Decimal | None = None
    max_quote_age_ms: int = 15_000
    max_orders_per_minute: int | None = None


def exit_signal(limits: RiskLimits, position: Position, kline: Kline) -> Signal | None:
    """Return the signal that closes the whole position at this message, None if no exit is due.

    Both limits are measured from the position's average price, commissions excluded.
    """
    if position.quantity <= 0:
        return None
    average, close = position.average_price, kline.close
    if limits.stop_loss is not None and close <= limit_of(average, subtract(ONE, limits.stop_loss)):
        return Signal(Side.SELL, f"stop loss: {plain(close)} against {average:.8g} paid", sell_all=True)
    if limits.take_profit is not None and close >= limit_of(average, add(ONE, limits.take_profit)):
        return Signal(Side.SELL, f"take profit: {plain(close)} against {average:.8g} paid", sell_all=True)
    return None
