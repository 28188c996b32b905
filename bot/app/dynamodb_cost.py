"""What a month of klines in DynamoDB costs: items by the exchange's pace, units by their size, money by a price list.

All is an upper bound: a candle without trades has no updates. Trades are too few to show.
"""

from decimal import Decimal
from math import ceil

import msgspec

from bot.adapters.dynamodb.items import DAY_S, item_bytes, kline_item
from bot.domain.kline import INTERVALS_MS, Kline

UPDATE_MS = {"1s": 1_000}
UPDATE_MS_ELSE = 2_000
"""Between two updates of a symbol's kline, on both exchanges; one more closes it. Source: Binance, kline stream."""

HOURS = 730
MONTH_S = HOURS * 3_600
_GB = 10**9
_ITEM_OVERHEAD = 100
"""What DynamoDB adds to an item that is stored. Source: DynamoDB, item sizes and formats."""
_HEADROOM = Decimal("1.2")
"""Provisioned units are for the busiest seconds: all symbols close their candles at once."""

# As the exchange sends them: 8 decimals, the busiest symbol.
_TYPICAL = Kline(
    symbol="BTCUSDT",
    interval="1m",
    open_time=1_795_556_940_000,
    close_time=1_795_556_999_999,
    event_time=1_795_556_961_569,
    open=Decimal("64010.01"),
    high=Decimal("64020.07"),
    low=Decimal("64008.43"),
    close=Decimal("64012.53"),
    volume=Decimal("31.84029175"),
    quote_volume=Decimal("2038110.11231467"),
    is_closed=False,
    received_event_time=1_795_556_961_570,
)


class Prices(msgspec.Struct, frozen=True):
    """A price list, US dollars."""

    region: str
    source: str
    million_writes: Decimal
    write_unit_hour: Decimal
    gb_month: Decimal
    free_gb: int
    recovery_gb_month: Decimal


PRICES = Prices(
    region="us-east-1",
    source="aws.amazon.com/dynamodb/pricing, since November 2024",
    million_writes=Decimal("0.625"),
    write_unit_hour=Decimal("0.00065"),
    gb_month=Decimal("0.25"),
    free_gb=25,
    recovery_gb_month=Decimal("0.20"),
)


class Month(msgspec.Struct, frozen=True):
    """A month of `symbols` symbols. Money is in US dollars; `gb` is what is stored after a year, `storage` its price.

    `storage` and `recovery` (point-in-time recovery) are what a month costs after a year.
    """

    symbols: int
    item_bytes: int
    items_a_second: Decimal
    write_units: int
    on_demand: Decimal
    provisioned_units: int
    provisioned: Decimal
    gb: Decimal
    storage: Decimal
    recovery: Decimal


def month_of(symbols: int, interval: str, closed_only: bool, keep_open_days: int, prices: Prices = PRICES) -> Month:
    """Return what a month costs; open klines are kept for `keep_open_days` unless none is stored (`closed_only`)."""
    size = item_bytes(kline_item(msgspec.structs.replace(_TYPICAL, interval=interval), keep_open_days))
    candle_s = Decimal(INTERVALS_MS[interval]) / 1000
    updates = 0 if closed_only else INTERVALS_MS[interval] // UPDATE_MS.get(interval, UPDATE_MS_ELSE)
    closed, opened = symbols / candle_s, symbols * updates / candle_s
    units = ceil((closed + opened) * MONTH_S * ceil(size / 1024))
    provisioned = ceil((closed + opened) * _HEADROOM * ceil(size / 1024))
    kept = opened * keep_open_days * DAY_S + closed * 12 * MONTH_S
    gb = kept * (size + _ITEM_OVERHEAD) / _GB
    return Month(
        symbols=symbols,
        item_bytes=size,
        items_a_second=closed + opened,
        write_units=units,
        on_demand=units * prices.million_writes / 1_000_000,
        provisioned_units=provisioned,
        provisioned=provisioned * prices.write_unit_hour * HOURS,
        gb=gb,
        storage=max(gb - prices.free_gb, Decimal(0)) * prices.gb_month,
        recovery=gb * prices.recovery_gb_month,
    )


def in_words(month: Month, prices: Prices = PRICES) -> str:
    """Return a month in one line."""
    return (
        f"at most {month.items_a_second:.2f} items of {month.item_bytes} bytes a second, "
        f"{Decimal(month.write_units) / 1_000_000:.2f} million write units: {month.on_demand:.2f} USD on demand, or "
        f"{month.provisioned:.2f} USD for {month.provisioned_units} provisioned; after a year {month.gb:.1f} GB stored "
        f"for {month.storage:.2f} USD, and {month.recovery:.2f} USD with point-in-time recovery ({prices.region}, "
        f"{prices.source})"
    )
