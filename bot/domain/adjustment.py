"""Changes of the book that no order of the bot made, and their place among its fills."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

import msgspec

from bot.domain.money import ZERO
from bot.domain.order import Fill


class Adjustment(msgspec.Struct, frozen=True):
    """A recorded correction of the book, applied once by `adjustment_id`.

    `quantity` is the change of the symbol's position in the base asset, `quote` the change of the cash; `symbol` is
    empty where only cash changes. Coins that are added come at `price` (quote asset per coin), which moves the average
    price and no cash; coins that are removed leave the average price. Cash never grows by a correction: the bot's may
    be no more than its capital and what it earned. `time` is in ms.

    Raises ValueError for coins without a symbol, for added coins without a price, and for added cash.
    """

    adjustment_id: str
    symbol: str
    quantity: Decimal
    quote: Decimal
    reason: str
    time: int
    price: Decimal = ZERO

    def __post_init__(self) -> None:
        if self.quantity and not self.symbol:
            raise ValueError(f"adjustment {self.adjustment_id} moves coins of no symbol: name it")
        if self.quantity > 0 and self.price <= 0:
            raise ValueError(f"adjustment {self.adjustment_id} adds coins without a price: give the price they come at")
        if self.quote > 0:
            raise ValueError(f"adjustment {self.adjustment_id} adds cash, which only trades may: raise capital instead")


def in_order(fills: Iterable[Fill], adjustments: Sequence[Adjustment]) -> Iterator[Fill | Adjustment]:
    """Give a book's fills, in their own order, with each adjustment before the first fill that is later than it.

    The order decides the average price alone: coins that were removed must not weigh on coins bought afterwards.
    """
    waiting = deque(sorted(adjustments, key=lambda adjustment: adjustment.time))
    for fill in fills:
        while waiting and waiting[0].time < fill.time:
            yield waiting.popleft()
        yield fill
    yield from waiting
