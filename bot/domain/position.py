"""What the bot holds of one symbol, and how a fill changes it."""

from collections.abc import Iterable, Sequence
from decimal import Decimal

import msgspec

from bot.domain.adjustment import Adjustment, in_order
from bot.domain.filters import SymbolRules
from bot.domain.money import ZERO, add, mean_price, multiply, subtract
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

    def adjusted(self, adjustment: Adjustment) -> "Position":
        """Return the position once a correction of its symbol is booked; its average price as `Adjustment` says."""
        average = self.average_price
        if adjustment.quantity > 0:
            cost = multiply(adjustment.quantity, adjustment.price)
            average = mean_price(average, max(self.quantity, ZERO), cost, adjustment.quantity)
        quantity = add(self.quantity, adjustment.quantity)
        return Position(
            quantity=quantity,
            average_price=average if quantity else ZERO,
            net_quote=add(self.net_quote, adjustment.quote),
        )

    def with_all(self, fills: Iterable[Fill], adjustments: Sequence[Adjustment], rules: SymbolRules) -> "Position":
        """Return the position once all fills and adjustments of its symbol are booked, in the order of `in_order`."""
        position = self
        for change in in_order(fills, adjustments):
            position = position.after(change, rules) if isinstance(change, Fill) else position.adjusted(change)
        return position


def quote_change(fill: Fill, quote_asset: str) -> Decimal:
    """Return what a fill adds to the cash in the quote asset; negative for a BUY."""
    amount = fill.quote_quantity if fill.side is Side.SELL else subtract(ZERO, fill.quote_quantity)
    return subtract(amount, fill.commission) if fill.commission_asset == quote_asset else amount
