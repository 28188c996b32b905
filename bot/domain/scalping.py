"""The scalping rule: buy a drop, sell a rise, against the previous message. Source: contract, section 1, Signal."""

from decimal import Decimal

from bot.domain.kline import Kline
from bot.domain.money import ONE, ROUNDING, add, multiply, plain, subtract
from bot.domain.order import Side
from bot.domain.position import Position
from bot.domain.strategy import Signal, Thresholds


class Scalping:
    """State is the previous message's close (a Decimal), None before the first message.

    `buy_drop` and `sell_rise` are fractions: 0.01 is one per cent.

    Raises ValueError unless 0 < buy_drop < 1 and sell_rise > 0.
    """

    warmup = 1

    def __init__(self, buy_drop: Decimal, sell_rise: Decimal) -> None:
        if not 0 < buy_drop < 1:
            raise ValueError(f"buy_drop {buy_drop} is not between 0 and 1")
        if not sell_rise > 0:
            raise ValueError(f"sell_rise {sell_rise} is not above 0")
        self._buy_factor = subtract(ONE, buy_drop)
        self._sell_factor = add(ONE, sell_rise)

    def initial(self) -> Decimal | None:
        return None

    def decide(self, state: Decimal | None, kline: Kline, position: Position) -> tuple[Decimal | None, Signal | None]:
        close, previous = kline.close, state
        if previous is None:
            return close, None
        if close <= multiply(previous, self._buy_factor):
            return close, Signal(Side.BUY, _move(previous, close))
        if position.quantity > 0 and close >= multiply(previous, self._sell_factor):
            return close, Signal(Side.SELL, _move(previous, close))
        return close, None

    def observe(self, state: Decimal | None, kline: Kline) -> Decimal | None:
        return kline.close

    def thresholds(self, state: Decimal | None) -> Thresholds | None:
        """Return what the next close is measured against, None before the first message."""
        if state is None:
            return None
        return Thresholds(multiply(state, self._buy_factor), multiply(state, self._sell_factor))


def _move(previous: Decimal, close: Decimal) -> str:
    # A share of a price for people to read, so rounded; no decision depends on it.
    percent = ROUNDING.divide(multiply(subtract(close, previous), Decimal(100)), previous)
    return f"{'rose' if percent > 0 else 'fell'} {percent.copy_abs():.2f} % from {plain(previous)} to {plain(close)}"
