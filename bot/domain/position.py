"""What the bot holds of one symbol, and how a fill changes it."""

from decimal import Decimal

import msgspec

from bot.domain.filters import SymbolRules
from bot.domain.money import ZERO, add, mean_price, subtract
from bot.domain.order import Fill, Side


class Position(msgspec.Struct, frozen=True):
    """A symbol's holding: `quantity` in the base asset (dust included), `average_price` in the quote asset.

    The average price leaves commissions out. `net_quote` is what all trades of the symbol brought less what they
    cost, commissions in the quote asset included, so that net_quote + quantity * price is the profit so far.
    """

    quantity: Decimal = ZERO
    average_price: Decimal = ZERO
    net_quote: Decimal = ZERO

    def after(self, fill: Fill, rules: SymbolRules) -> "Position":
        """Return the position once `fill` is booked. A commission in a third asset changes neither side."""
        quantity, average = self.quantity, self.average_price
        if fill.side is Side.BUY:
            # Below zero while a SELL's fill came before the BUY's: what is short has no price.
            average = mean_price(average, max(quantity, ZERO), fill.quote_quantity, fill.quantity)
            quantity = add(quantity, fill.quantity)
        else:
            quantity = subtract(quantity, fill.quantity)
        if fill.commission_asset == rules.base_asset:
            quantity = subtract(quantity, fill.commission)
        return Position(
            quantity=quantity,
            average_price=average if quantity else ZERO,
            net_quote=add(self.net_quote, quote_change(fill, rules.quote_asset)),
        )


def quote_change(fill: Fill, quote_asset: str) -> Decimal:
    """Return what a fill adds to the cash in the quote asset; negative for a BUY."""
    amount = fill.quote_quantity if fill.side is Side.SELL else subtract(ZERO, fill.quote_quantity)
    return subtract(amount, fill.commission) if fill.commission_asset == quote_asset else amount
