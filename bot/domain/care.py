"""What is still decided for a symbol whose trader was quarantined. No entry is ever made."""

from bot.domain.kline import Kline
from bot.domain.order import Side
from bot.domain.position import Position
from bot.domain.strategy import Signal


class Bystander:
    """Decides nothing: only the limits that come before a strategy (stop loss, take profit) still act."""

    warmup = 0

    def initial(self) -> None:
        return None

    def observe(self, state: None, kline: Kline) -> None:
        return None

    def decide(self, state: None, kline: Kline, position: Position) -> tuple[None, Signal | None]:
        return None, None


class Liquidator(Bystander):
    """Sells the whole position at the next message; what cannot be sold is tried again at each."""

    def decide(self, state: None, kline: Kline, position: Position) -> tuple[None, Signal | None]:
        if position.quantity <= 0:
            return None, None
        return None, Signal(Side.SELL, "the trader is quarantined and its policy is to sell", sell_all=True)
