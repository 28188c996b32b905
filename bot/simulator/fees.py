"""Decides what a trade costs: at which rate, and in which asset it is taken. Source: Binance, commission."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from bot.simulator.amounts import ceil8

RECEIVED, BNB, THIRD = "received", "bnb", "asset"
MODES = (RECEIVED, BNB, THIRD)
# What is shown and paid with the discount is not quite clear from the documents; live accounts pay 75 %.
BNB_RATE = Decimal("0.75")


@dataclass
class Fees:
    """The account's commission. `mode`: taken from what is received, or in BNB with a discount, or in `asset`.

    `price_in(asset, quote)` is what one of `asset` costs; `price`, where it is given, holds for every quote asset.
    """

    maker: Decimal
    taker: Decimal
    price_in: Callable[[str, str], Decimal]
    mode: str = RECEIVED
    asset: str = "BNB"
    price: Decimal | None = None

    def rate(self, is_maker: bool) -> Decimal:
        return self.maker if is_maker else self.taker

    def received(self, amount: Decimal, is_maker: bool) -> Decimal:
        """Return the commission on `amount` of the received asset, rounded up."""
        return ceil8(amount * self.rate(is_maker))

    def elsewhere(self, quote_amount: Decimal, quote: str, received: str, is_maker: bool) -> tuple[str, Decimal] | None:
        """Return asset and commission of a trade worth `quote_amount` of `quote`; None: it comes from what is received.

        `received`: the asset that is. Whoever asks must see whether the account has enough for it. Source: Binance,
        commission, BNB discount.
        """
        if self.mode == RECEIVED or (self.mode == THIRD and self.asset == received):
            return None
        asset = "BNB" if self.mode == BNB else self.asset
        price = Decimal(1) if asset == quote else self.price or self.price_in(asset, quote)
        share = BNB_RATE if self.mode == BNB else Decimal(1)
        return asset, ceil8(quote_amount * self.rate(is_maker) * share / price)
