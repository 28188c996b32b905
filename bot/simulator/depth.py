"""Decides what stands in the book: levels made up around the price, thin ones, levels set by hand, what orders take."""

import random
from dataclasses import dataclass, field
from decimal import Decimal

from bot.simulator.amounts import ZERO

LEVELS = 20
THIN_LEVELS = 3
MOVES_PER_ID = 1000  # of lastUpdateId: between two moves there is room for what orders take


@dataclass
class Depth:
    """The offers of all others: [price, quantity] levels, best first. What is taken is gone until the next move."""

    bids: list[list[Decimal]]
    asks: list[list[Decimal]]
    changes: int = field(default=0, compare=False)

    def plan(self, is_buyer: bool, quantity: Decimal, limit: Decimal | None) -> list[tuple[Decimal, Decimal]]:
        """Return (price, quantity) per level that an order of `quantity` would take, at `limit` or better."""
        taken = []
        for price, available in self.asks if is_buyer else self.bids:
            if quantity <= 0 or (limit is not None and (price > limit if is_buyer else price < limit)):
                break
            share = min(available, quantity)
            if share > 0:
                taken.append((price, share))
                quantity -= share
        return taken

    def quantity_for(self, is_buyer: bool, quote_quantity: Decimal, step: Decimal) -> Decimal:
        """Return the largest multiple of `step` that costs, or yields, at most `quote_quantity` in this book.

        Source: Binance, POST /order, quoteOrderQty.
        """
        left, quantity = quote_quantity, ZERO
        for price, available in self.asks if is_buyer else self.bids:
            share = min(available, left / price)
            quantity += share
            left -= share * price
            if share < available:
                break
        return quantity // step * step

    def take(self, is_buyer: bool, taken: list[tuple[Decimal, Decimal]]) -> None:
        """Remove what `plan` returned."""
        levels = self.asks if is_buyer else self.bids
        for (_, share), level in zip(taken, levels, strict=False):
            level[1] -= share
        levels[:] = [level for level in levels if level[1] > 0]
        self.changes += 1


def unlimited_depth(price: Decimal) -> Depth:
    """Return a book without spread and without end."""
    endless = Decimal("Infinity")
    return Depth([[price, endless]], [[price, endless]])


def random_depth(rng: random.Random, price: Decimal, tick: Decimal, step: Decimal, is_thin: bool = False) -> Depth:
    """Return levels around `price`: the best some ticks away, each worth hundreds to thousands of the quote.

    `is_thin`: three a side, each worth some tens.
    """
    centre = int(price / tick)
    gap = max(1, round(centre * 0.00003))
    sides: list[list[list[Decimal]]] = []
    for sign in (-1, 1):
        levels = []
        ticks = centre
        for number in range(THIN_LEVELS if is_thin else LEVELS):
            ticks += sign * max(1, round(gap * rng.uniform(0.5, 1.5)))
            if ticks <= 0:
                break
            level_price = ticks * tick
            worth = rng.lognormvariate(3.0 if is_thin else 6.6, 0.7) * (1 + 0.25 * number)
            steps = max(1, int(worth / float(level_price * step)))
            levels.append([level_price, steps * step])
        sides.append(levels)
    bids, asks = sides
    return Depth(bids, asks)


class OrderBook:
    """The book of one market: the same for the same seed and the same moves, until it is set by hand."""

    def __init__(self, seed: str, is_endless: bool) -> None:
        """`is_endless`: without spread and end at the last price, for an exchange that is moved by hand."""
        self.is_thin = False
        self._seed = seed
        self._is_endless = is_endless
        self._moves = 0
        self._depth: Depth | None = None
        self._is_set = False

    @property
    def update_id(self) -> int:
        return self._moves * MOVES_PER_ID + (self._depth.changes if self._depth else 0)

    def moved(self) -> None:
        """Let the book be made anew around the next price; one that was set by hand stays."""
        self._moves += 1
        if not self._is_set:
            self._depth = None

    def set(self, depth: Depth, stays: bool = True) -> None:
        """Replace the book. `stays`: also over moves, taken levels gone for good, until `release`."""
        self._moves += 1
        self._depth, self._is_set = depth, stays

    def release(self, is_thin: bool) -> None:
        """Make the book up again, thin or not."""
        self._moves += 1
        self._depth, self._is_set, self.is_thin = None, False, is_thin

    def now(self, price: Decimal, tick: Decimal, step: Decimal) -> Depth:
        """Return the book of this moment, to be read and taken from."""
        if self._depth is not None:
            return self._depth
        if self._is_endless and not self.is_thin:
            return unlimited_depth(price)
        rng = random.Random(f"{self._seed}:{self._moves}")
        self._depth = random_depth(rng, price, tick, step, self.is_thin)
        return self._depth
