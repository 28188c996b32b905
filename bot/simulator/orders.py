"""Decides what is kept of an order: what was asked for, how it stands, its trades; and who is told of changes."""

import random
import string
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

import msgspec

from bot.simulator.amounts import ZERO

OPEN_STATUSES = frozenset({"NEW", "PARTIALLY_FILLED"})
_ALPHANUMERIC = string.ascii_letters + string.digits


@dataclass(frozen=True)
class OrderRequest:
    """A new order as asked for, its parameters already legal. Quantities in base or quote asset as named."""

    symbol: str
    side: str
    type: str
    time_in_force: str = "GTC"
    quantity: Decimal | None = None
    quote_quantity: Decimal | None = None
    price: Decimal | None = None
    client_order_id: str | None = None
    self_trade_prevention: str = "EXPIRE_MAKER"
    strategy_id: int | None = None
    strategy_type: int | None = None

    @property
    def is_buyer(self) -> bool:
        return self.side == "BUY"

    @property
    def may_rest(self) -> bool:
        return self.type == "LIMIT_MAKER" or (self.type == "LIMIT" and self.time_in_force == "GTC")


@dataclass(frozen=True)
class Ending:
    """How an order must end, by order of a fault: `fraction` of it filled at most, then `status`."""

    status: str
    fraction: Decimal


class Order(msgspec.Struct):
    """An order in the books, or one that was refused (`reject`: the error's code). Times in ms."""

    number: int
    symbol: str
    order_id: int
    client_order_id: str
    side: str
    type: str
    time_in_force: str
    price: Decimal
    quantity: Decimal
    quote_quantity: Decimal
    status: str
    time: int
    update_time: int
    working_time: int = -1
    executed: Decimal = ZERO
    quote: Decimal = ZERO
    self_trade_prevention: str = "EXPIRE_MAKER"
    expiry_reason: str | None = None
    strategy_id: int | None = None
    strategy_type: int | None = None
    original_client_order_id: str | None = None
    reject: int | None = None
    prevented: Decimal = ZERO
    prevented_match_id: int | None = None

    @property
    def is_open(self) -> bool:
        return self.status in OPEN_STATUSES

    @property
    def is_buyer(self) -> bool:
        return self.side == "BUY"

    @property
    def left(self) -> Decimal:
        return self.quantity - self.executed


class Fill(msgspec.Struct):
    """One trade of the account. `commission` is already taken from what was received."""

    number: int
    symbol: str
    trade_id: int
    order_id: int
    client_order_id: str
    price: Decimal
    quantity: Decimal
    quote: Decimal
    commission: Decimal
    commission_asset: str
    time: int
    is_buyer: bool
    is_maker: bool


class Balance(msgspec.Struct):
    free: Decimal = ZERO
    locked: Decimal = ZERO


class Witness(Protocol):
    """Is told of every change of the account, once it is in the journal."""

    def placed(self, order: Order, fills: list[Fill]) -> None: ...

    def matched(self, order: Order, fill: Fill) -> None: ...

    def cancelled(self, order: Order) -> None: ...

    def transferred(self, asset: str, delta: Decimal) -> None: ...


def new_client_order_id() -> str:
    """Return 22 random alphanumerics, as the exchange gives to an order without an id."""
    return "".join(random.choices(_ALPHANUMERIC, k=22))
