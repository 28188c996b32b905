"""How klines and trades stand in DynamoDB: items of `Crypto_Table` and `Crypto_Trades` of contract section 3.

Numbers are of type N, which keeps 38 digits; a number with more, or beyond N's range, is the same plain digits as text
(S). What is empty or unknown has no attribute. An open kline has `expires_at`, seconds UTC, for DynamoDB's TTL.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from bot.domain.kline import Kline, kline_key
from bot.domain.money import plain
from bot.domain.order import Side, Trade

Item = dict[str, dict[str, Any]]
"""An item as DynamoDB's API writes it: {"symbol": {"S": "BTCUSDT"}, "close": {"N": "64012.5"}}."""

MAX_ITEM_BYTES = 400 * 1024
"""Source: DynamoDB, quotas, item size."""
EXPIRES_AT = "expires_at"
DAY_S = 86_400

_DIGITS = 38
_LOWEST, _HIGHEST = -130, 125
"""Powers of ten of an N. Source: DynamoDB, data types, number."""
_FIRST_MS, _END_MS = 10**12, 10**13
"""Between them a time has 13 digits, so that keys made of times sort as the times do: 2001 to 2286."""
_PRICES = ("open", "high", "low", "close", "volume")
_TIMES = ("open_time", "close_time", "event_time")
_commissions = msgspec.json.Decoder(tuple[tuple[str, Decimal], ...])


class UnfitItem(Exception):
    """What DynamoDB can never keep; the text says why."""


def kline_item(kline: Kline, keep_open_days: int) -> Item:
    """Return a kline's item; an open one expires `keep_open_days` after its open_time. Raises UnfitItem."""
    if not _FIRST_MS <= kline.open_time < _END_MS or not _FIRST_MS <= kline.event_time < _END_MS:
        raise UnfitItem(f"a kline of {kline.symbol} at {kline.open_time} ms is not of the years 2001 to 2286")
    item: Item = {
        "symbol": {"S": kline.symbol},
        "kline_key": {"S": kline_key(kline)},
        "interval": {"S": kline.interval},
        "is_closed": {"BOOL": kline.is_closed},
    }
    for name in _TIMES:
        item[name] = {"N": str(getattr(kline, name))}
    for name in _PRICES:
        item[name] = number(getattr(kline, name))
    if kline.quote_volume is not None:
        item["quote_volume"] = number(kline.quote_volume)
    if kline.received_event_time is not None:
        item["received_event_time"] = {"N": str(kline.received_event_time)}
    if not kline.is_closed:
        item[EXPIRES_AT] = {"N": str(expiry_s(kline.open_time, keep_open_days))}
    return item


def expiry_s(open_time: int, keep_open_days: int) -> int:
    """Return when an open kline of an `open_time` (ms) expires, in seconds UTC."""
    return open_time // 1000 + keep_open_days * DAY_S


def kline_of(item: Mapping[str, Mapping[str, Any]]) -> Kline:
    """Return the kline that an item holds. Raises KeyError, ValueError for an item that is none."""
    received = item.get("received_event_time")
    quote_volume = item.get("quote_volume")
    return Kline(
        symbol=item["symbol"]["S"],
        interval=item["interval"]["S"],
        open_time=int(item["open_time"]["N"]),
        close_time=int(item["close_time"]["N"]),
        event_time=int(item["event_time"]["N"]),
        open=decimal_of(item["open"]),
        high=decimal_of(item["high"]),
        low=decimal_of(item["low"]),
        close=decimal_of(item["close"]),
        volume=decimal_of(item["volume"]),
        quote_volume=None if quote_volume is None else decimal_of(quote_volume),
        is_closed=item["is_closed"]["BOOL"],
        received_event_time=None if received is None else int(received["N"]),
    )


def trade_item(trade: Trade) -> Item:
    """Return a trade's item."""
    item = {
        "symbol": {"S": trade.symbol},
        "client_order_id": {"S": trade.client_order_id},
        "side": {"S": trade.side.value},
        "close": number(trade.close),
        "sale_price": number(trade.price),
        "quantity": number(trade.quantity),
        "volume": number(trade.quote_quantity),
        "commission": number(trade.commission),
        "ticker": {"S": trade.symbol},
        "order_id": {"N": str(trade.order_id)},
        "time": {"N": str(trade.time)},
    }
    texts = {
        "commission_asset": trade.commission_asset,
        "mode": trade.mode,
        "bot_id": trade.bot_id,
        "reason": trade.reason,
    }
    if trade.commissions:
        pairs = [(asset, plain(amount)) for asset, amount in trade.commissions]
        texts["commissions"] = msgspec.json.encode(pairs).decode()
    return item | {name: {"S": text} for name, text in texts.items() if text}


def trade_of(item: Mapping[str, Mapping[str, Any]]) -> Trade:
    """Return the trade that an item holds. Raises KeyError, ValueError for an item that is none."""

    def text(name: str) -> str:
        return str(item[name]["S"]) if name in item else ""

    return Trade(
        symbol=item["symbol"]["S"],
        side=Side(item["side"]["S"]),
        time=int(item["time"]["N"]),
        price=decimal_of(item["sale_price"]),
        quantity=decimal_of(item["quantity"]),
        quote_quantity=decimal_of(item["volume"]),
        commission=decimal_of(item["commission"]),
        commission_asset=text("commission_asset"),
        close=decimal_of(item["close"]),
        order_id=int(item["order_id"]["N"]),
        client_order_id=item["client_order_id"]["S"],
        mode=text("mode"),
        bot_id=text("bot_id"),
        reason=text("reason"),
        commissions=_commissions.decode(text("commissions")) if "commissions" in item else (),
    )


def number(value: Decimal) -> dict[str, str]:
    """Return a decimal as N where that keeps every digit, else as S. Raises UnfitItem for one that is not finite."""
    if not value.is_finite():
        raise UnfitItem(f"{value} is no number")
    digits = plain(value)
    significant = digits.lstrip("-").replace(".", "").strip("0")
    fits = len(significant) <= _DIGITS and (not value or _LOWEST <= value.adjusted() <= _HIGHEST)
    return {"N" if fits else "S": digits}


def decimal_of(attribute: Mapping[str, str]) -> Decimal:
    """Return what `number` kept. Raises KeyError for an attribute of another type."""
    return Decimal(attribute["N"] if "N" in attribute else attribute["S"])


def item_bytes(item: Item) -> int:
    """Return an item's size as DynamoDB counts it: names and values. Source: DynamoDB, item sizes and formats."""
    return sum(len(name.encode()) + _value_bytes(value) for name, value in item.items())


def _value_bytes(attribute: Mapping[str, Any]) -> int:
    ((kind, value),) = attribute.items()
    if kind == "S":
        return len(value.encode())
    if kind == "N":  # about a byte for two significant digits, and one more
        digits = value.lstrip("-").replace(".", "").strip("0")
        return (len(digits) + 1) // 2 + 1 + int(value.startswith("-"))
    return 1
