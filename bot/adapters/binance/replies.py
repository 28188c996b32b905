"""What Binance's JSON may look like to be believed: numbers as plain decimal strings, times in ms.

Decimals stay text until they passed their pattern, since a decoder for Decimal also takes `NaN`, `1_000` and `1e400`.
Source: Binance, REST API and WebSocket streams, payloads.
"""

from decimal import Decimal
from typing import Annotated

import msgspec

from bot.adapters.binance.errors import without_secrets
from bot.domain.kline import Kline
from bot.domain.order import Side

_NUMBER = r"[0-9]{1,20}(?:\.[0-9]{1,20})?\Z"
Number = Annotated[str, msgspec.Meta(pattern=rf"\A-?{_NUMBER}")]
NotNegative = Annotated[str, msgspec.Meta(pattern=rf"\A{_NUMBER}")]
Positive = Annotated[str, msgspec.Meta(pattern=rf"\A(?=[0.]*[1-9]){_NUMBER}")]
# Before the year 5138; a time in microseconds is above it and refused.
TimeMs = Annotated[int, msgspec.Meta(ge=0, lt=10**14)]
# What a database can hold.
Id = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
SHOWN = 160  # characters of what an exchange sent that are reported
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class ErrorReply(msgspec.Struct):
    """The body of a reply that is no success."""

    code: Id
    msg: str = ""


class TimeReply(msgspec.Struct):
    serverTime: TimeMs  # noqa: N815 - the exchange's name


# open time, open, high, low, close, volume, close time, quote volume, then what nobody here reads
KlineRow = tuple[
    TimeMs, Positive, Positive, Positive, Positive, NotNegative, TimeMs, NotNegative, object, object, object, object
]


class FillReply(msgspec.Struct):
    """One execution in the reply to an order."""

    price: Positive
    qty: Positive
    commission: NotNegative
    commissionAsset: Text  # noqa: N815
    tradeId: Id  # noqa: N815


class OrderReply(msgspec.Struct):
    """The reply to a new order (`transactTime`, `fills`), or to a question about one (neither)."""

    symbol: Text
    orderId: Id  # noqa: N815
    clientOrderId: Text  # noqa: N815
    executedQty: NotNegative  # noqa: N815
    status: Text
    transactTime: TimeMs = 0  # noqa: N815
    fills: list[FillReply] = []
    expiryReason: str = ""  # noqa: N815


class TradeReply(msgspec.Struct, kw_only=True):
    """One execution in the account's list of trades."""

    id: Id
    orderId: Id  # noqa: N815
    price: Positive
    qty: Positive
    commission: NotNegative
    commissionAsset: Text  # noqa: N815
    time: TimeMs


class AccountOrderReply(msgspec.Struct):
    """One order in a list of the account's."""

    symbol: Text
    orderId: Id  # noqa: N815
    clientOrderId: Text  # noqa: N815
    side: Side
    status: Text
    origQty: NotNegative  # noqa: N815
    executedQty: NotNegative  # noqa: N815
    time: TimeMs
    cummulativeQuoteQty: Number = "-1"  # noqa: N815 - negative: not known


class AccountTradeReply(TradeReply, kw_only=True):
    """The same list, read for the whole account."""

    symbol: Text
    quoteQty: NotNegative  # noqa: N815
    isBuyer: bool  # noqa: N815


class AveragePriceReply(msgspec.Struct):
    price: Positive


class BookTickerReply(msgspec.Struct):
    """The best prices of a book; zero where nobody stands on that side."""

    symbol: Text
    bidPrice: NotNegative  # noqa: N815
    askPrice: NotNegative  # noqa: N815


class ListenKeyReply(msgspec.Struct):
    listenKey: Text  # noqa: N815


class BalanceReply(msgspec.Struct):
    asset: Text
    free: NotNegative
    locked: NotNegative


class AccountReply(msgspec.Struct):
    balances: list[BalanceReply]
    canTrade: bool = True  # noqa: N815
    permissions: list[Text] = []
    uid: Id | None = None


class KeyReply(msgspec.Struct):
    """What a key may do."""

    enableWithdrawals: bool  # noqa: N815


def complaint(error: Exception) -> str:
    """Return a decoder's complaint as people say it, in one line: what is wrong, and at which place."""
    what, at, where = str(error).rpartition(" - at ")
    if not at:
        what, where = where, ""
    if "matching regex" in what:
        what = "not a plain decimal in range"
    # It may hold a value as the exchange sent it.
    what = without_secrets(" ".join(what.split()))[:SHOWN]
    return f"{what} at {where}" if where else what


def kline_of_row(symbol: str, interval: str, row: KlineRow) -> Kline:
    """Return a closed kline from a row of GET /klines."""
    return Kline(
        symbol=symbol,
        interval=interval,
        open_time=row[0],
        close_time=row[6],
        event_time=row[6],
        open=Decimal(row[1]),
        high=Decimal(row[2]),
        low=Decimal(row[3]),
        close=Decimal(row[4]),
        volume=Decimal(row[5]),
        quote_volume=Decimal(row[7]),
        is_closed=True,
    )
