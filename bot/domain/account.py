"""What an exchange says of an account and a market beyond the bot's own orders: the matter of reconciliation."""

from decimal import Decimal

import msgspec

from bot.domain.order import OrderStatus, Side


class AccountOrder(msgspec.Struct, frozen=True):
    """Any order of the account, whoever sent it. Quantities are in the base asset; `time` is when it was placed, ms.

    `quote_quantity` is what was paid or got so far; None where the exchange does not know it (very old orders).
    `status` is None for one that this program does not know.
    """

    order_id: int
    client_order_id: str
    symbol: str
    side: Side
    status: OrderStatus | None
    quantity: Decimal
    executed_quantity: Decimal
    quote_quantity: Decimal | None
    time: int


class AccountTrade(msgspec.Struct, frozen=True):
    """Any execution of the account. Price is quote per base asset, `time` ms; the commission as reported."""

    trade_id: int
    order_id: int
    symbol: str
    price: Decimal
    quantity: Decimal
    quote_quantity: Decimal
    commission: Decimal
    commission_asset: str
    is_buyer: bool
    time: int


class BookPrice(msgspec.Struct, frozen=True):
    """The best prices of a symbol's book; 0 for a side with nobody on it."""

    symbol: str
    bid: Decimal
    ask: Decimal
