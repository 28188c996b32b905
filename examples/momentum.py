"""An example of a strategy: buy after two closes in a row that rose, sell everything after one that fell.

Chosen in bot.toml:

    [strategy]
    path = "examples.momentum:Momentum"
    parameters = { rise = 0.005, fall = 0.005 }
"""

from decimal import Decimal

from bot.domain.kline import Kline
from bot.domain.money import ONE, add, multiply, subtract
from bot.domain.order import Side
from bot.domain.position import Position
from bot.domain.strategy import Signal


class Momentum:
    """State: the last closes, oldest first, at most two. `rise` and `fall` are fractions, 0.005 is half a per cent."""

    warmup = 2

    def __init__(self, rise: Decimal, fall: Decimal) -> None:
        self._rose = add(ONE, rise)
        self._fell = subtract(ONE, fall)

    def initial(self) -> tuple[Decimal, ...]:
        return ()

    def observe(self, state: tuple[Decimal, ...], kline: Kline) -> tuple[Decimal, ...]:
        return (*state, kline.close)[-2:]

    def decide(
        self, state: tuple[Decimal, ...], kline: Kline, position: Position
    ) -> tuple[tuple[Decimal, ...], Signal | None]:
        after = self.observe(state, kline)
        if not state:
            return after, None
        if position.quantity > 0 and kline.close <= multiply(state[-1], self._fell):
            return after, Signal(Side.SELL, "the last close fell", sell_all=True)
        rising = len(state) == 2 and state[1] >= multiply(state[0], self._rose)
        if rising and kline.close >= multiply(state[1], self._rose):
            return after, Signal(Side.BUY, "two closes rose in a row")
        return after, None
