"""An order's life: the intent, what the exchange reported of it, its fills, and the trade it became."""

from collections.abc import Iterable
from decimal import Decimal
from enum import StrEnum

import msgspec

from bot.domain.money import ZERO, add, average_price


class Side(StrEnum):
    BUY = "BUY"
    SELL = "SELL"


class OrderStatus(StrEnum):
    """Binance's order statuses and two of ours: RECORDED (stored, fate unknown), NOT_PLACED (the exchange has none)."""

    RECORDED = "RECORDED"
    NEW = "NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    REJECTED = "REJECTED"
    EXPIRED = "EXPIRED"
    EXPIRED_IN_MATCH = "EXPIRED_IN_MATCH"
    NOT_PLACED = "NOT_PLACED"

    @property
    def is_final(self) -> bool:
        return self not in (OrderStatus.RECORDED, OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED)


class OrderIntent(msgspec.Struct, frozen=True):
    """An order that is to be sent, as it is journaled before it leaves.

    `quantity` is in the base asset; `close`, `open_time` and `event_time` (ms) are the deciding kline's;
    `quote_reserved` is the money set aside for it. With a `limit_price` (quote asset per base asset) it is a LIMIT IOC
    order, which fills no worse than that at once and lets the rest expire; without one it is a MARKET order.
    """

    client_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    close: Decimal
    open_time: int
    event_time: int
    reason: str
    quote_reserved: Decimal = ZERO
    limit_price: Decimal | None = None


class Fill(msgspec.Struct, frozen=True):
    """One execution. `quantity` is in the base asset, `quote_quantity` = price * quantity, `time` its own, ms."""

    client_order_id: str
    order_id: int
    trade_id: int
    symbol: str
    side: Side
    price: Decimal
    quantity: Decimal
    quote_quantity: Decimal
    commission: Decimal
    commission_asset: str
    time: int


class OrderReport(msgspec.Struct, frozen=True):
    """What the exchange says of an order. `fills` holds every execution once `status` is final."""

    client_order_id: str
    order_id: int
    symbol: str
    status: OrderStatus
    fills: tuple[Fill, ...] = ()
    detail: str = ""


class Trade(msgspec.Struct, frozen=True):
    """All fills of one order, as the contract's trade object; `time` is the deciding kline's event_time in ms.

    `commission` is in `commission_asset`; where several assets were charged, `commissions` holds each.
    """

    symbol: str
    side: Side
    time: int
    price: Decimal
    quantity: Decimal
    quote_quantity: Decimal
    commission: Decimal
    commission_asset: str
    close: Decimal
    order_id: int
    client_order_id: str
    mode: str
    bot_id: str
    reason: str = ""
    commissions: tuple[tuple[str, Decimal], ...] = ()


def trade_of(intent: OrderIntent, fills: Iterable[Fill], mode: str, bot_id: str) -> Trade | None:
    """Sum the fills of an order into its trade; None if nothing was filled."""
    fills = list(fills)
    if not fills:
        return None
    quantity, quote_quantity = ZERO, ZERO
    commissions: dict[str, Decimal] = {}
    for fill in fills:
        quantity = add(quantity, fill.quantity)
        quote_quantity = add(quote_quantity, fill.quote_quantity)
        commissions[fill.commission_asset] = add(commissions.get(fill.commission_asset, ZERO), fill.commission)
    asset = next(iter(commissions))
    return Trade(
        symbol=intent.symbol,
        side=intent.side,
        time=intent.event_time,
        price=average_price(quote_quantity, quantity),
        quantity=quantity,
        quote_quantity=quote_quantity,
        commission=commissions[asset],
        commission_asset=asset,
        close=intent.close,
        order_id=fills[0].order_id,
        client_order_id=intent.client_order_id,
        mode=mode,
        bot_id=bot_id,
        reason=intent.reason,
        commissions=tuple(commissions.items()) if len(commissions) > 1 else (),
    )
