"""What is known of a symbol's market and of the account beside the bot's own books, when an order is sized."""

from decimal import Decimal

import msgspec

from bot.domain.money import ROUNDING, ZERO, add

TWO = Decimal(2)


class MarketView(msgspec.Struct, frozen=True):
    """One symbol at the exchange that the orders go to; every field's default says that it is not known.

    `bid` and `ask` are the best prices of the book (0: nobody there), `average_price` the exchange's reference price
    (what GET avgPrice answers), in the quote asset; `as_of_ms` is when bid and ask were received, by the bot's clock.
    `held_base` is what the account holds of the base asset, free and locked, foreign coins included; `wanted_base` what
    its open BUY orders still want of it; `open_orders` counts the symbol's. `permissions` are the account's own.
    """

    bid: Decimal = ZERO
    ask: Decimal = ZERO
    average_price: Decimal = ZERO
    as_of_ms: int = 0
    held_base: Decimal = ZERO
    wanted_base: Decimal = ZERO
    open_orders: int = 0
    permissions: frozenset[str] | None = None

    def mid_price(self, now_ms: int, max_age_ms: int) -> Decimal | None:
        """Return the price between bid and ask; None if one of them is missing or they are older than `max_age_ms`."""
        if self.bid <= 0 or self.ask <= 0 or now_ms - self.as_of_ms > max_age_ms:
            return None
        return ROUNDING.divide(add(self.bid, self.ask), TWO)
