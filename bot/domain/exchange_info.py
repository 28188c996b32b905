"""Binance's exchangeInfo read into trading rules. Source: Binance, filters and exchangeInfo."""

import re
from collections.abc import Collection, Mapping
from decimal import Decimal

from bot.domain.filters import Lot, NotionalFilter, PercentPrice, PriceFilter, SymbolRules
from bot.domain.money import ZERO, common_step

DEFAULT_PRECISION = 8
DEFAULT_AVERAGE_MINUTES = 5

Fields = Mapping[str, object]


class FilterError(ValueError):
    """An exchangeInfo that cannot be used; the text names the symbol and the field."""

    def __init__(self, text: str) -> None:
        line = " ".join(text.split())  # it may hold a value as the exchange sent it
        super().__init__(line if len(line) <= 400 else f"{line[:200]} ... {line[-150:]}")


def rules_from_exchange_info(info: object, wanted: Collection[str]) -> dict[str, SymbolRules]:
    """Read Binance's own exchangeInfo JSON into the rules of those `wanted` symbols that it lists.

    Raises FilterError that names the symbol and field where something is missing or of the wrong kind.
    """
    symbols = info.get("symbols") if isinstance(info, Mapping) else None
    if not isinstance(symbols, list):
        raise FilterError('no list "symbols"')
    rules = {}
    for entry in symbols:
        if not isinstance(entry, Mapping):
            raise FilterError('an entry of "symbols" is not an object')
        symbol = _text(entry, "symbol", "symbols")
        if symbol in wanted:
            rules[symbol] = _symbol_rules(symbol, entry)
    return rules


def _symbol_rules(symbol: str, entry: Fields) -> SymbolRules:
    listed = entry.get("filters")
    if not isinstance(listed, list):
        raise FilterError(f'{symbol}: no list "filters"')
    filters: dict[str, Fields] = {str(f.get("filterType")): f for f in listed if isinstance(f, Mapping)}
    if "LOT_SIZE" not in filters:
        raise FilterError(f"{symbol}: no LOT_SIZE filter")
    lot = _lot(filters["LOT_SIZE"], symbol)
    market = _lot(filters["MARKET_LOT_SIZE"], symbol) if "MARKET_LOT_SIZE" in filters else Lot(ZERO, ZERO, ZERO)
    if lot.step_size == market.step_size == 0:
        raise FilterError(f"{symbol}: LOT_SIZE has no stepSize above 0")
    notionals = _notionals(filters, symbol)
    market_maxima = [n.maximum for n in notionals if n.maximum and n.max_binds_market]
    return SymbolRules(
        symbol=symbol,
        base_asset=_text(entry, "baseAsset", symbol),
        quote_asset=_text(entry, "quoteAsset", symbol),
        step_size=common_step(lot.step_size, market.step_size),
        min_qty=max(lot.min_qty, market.min_qty),
        max_qty=min((m for m in (lot.max_qty, market.max_qty) if m), default=ZERO),
        min_notional=max((n.minimum for n in notionals), default=ZERO),
        notional_filter="NOTIONAL" if "NOTIONAL" in filters else "MIN_NOTIONAL",
        max_notional=min(market_maxima, default=ZERO),
        status=str(entry.get("status", "TRADING")),
        lot_size=lot,
        price_filter=_price_filter(filters, symbol),
        percent_prices=_percent_prices(filters, symbol),
        notionals=notionals,
        max_num_orders=_whole(filters.get("MAX_NUM_ORDERS", {}), "maxNumOrders", symbol, 0),
        max_position=_number(filters["MAX_POSITION"], "maxPosition", symbol) if "MAX_POSITION" in filters else ZERO,
        base_precision=_whole(entry, "baseAssetPrecision", symbol, DEFAULT_PRECISION),
        quote_precision=_whole(
            entry, "quoteAssetPrecision", symbol, _whole(entry, "quotePrecision", symbol, DEFAULT_PRECISION)
        ),
        order_types=_texts(entry.get("orderTypes", []), "orderTypes", symbol),
        is_spot_trading_allowed=_flag(entry, "isSpotTradingAllowed", symbol, True),
        permission_sets=_permission_sets(entry, symbol),
    )


def _lot(rule: Fields, symbol: str) -> Lot:
    return Lot(*(_number(rule, key, symbol) for key in ("minQty", "maxQty", "stepSize")))


def _price_filter(filters: Mapping[str, Fields], symbol: str) -> PriceFilter:
    rule = filters.get("PRICE_FILTER")
    if rule is None:
        return PriceFilter()
    return PriceFilter(*(_number(rule, key, symbol) for key in ("minPrice", "maxPrice", "tickSize")))


_MULTIPLIERS = {
    "PERCENT_PRICE": ("multiplierDown", "multiplierUp", "multiplierDown", "multiplierUp"),
    "PERCENT_PRICE_BY_SIDE": ("bidMultiplierDown", "bidMultiplierUp", "askMultiplierDown", "askMultiplierUp"),
}


def _percent_prices(filters: Mapping[str, Fields], symbol: str) -> tuple[PercentPrice, ...]:
    found = []
    for name, keys in _MULTIPLIERS.items():
        rule = filters.get(name)
        if rule is not None:
            bid_down, bid_up, ask_down, ask_up = (_number(rule, key, symbol) for key in keys)
            minutes = _whole(rule, "avgPriceMins", symbol, DEFAULT_AVERAGE_MINUTES)
            found.append(PercentPrice(name, bid_down, bid_up, ask_down, ask_up, minutes))
    return tuple(found)


def _notionals(filters: Mapping[str, Fields], symbol: str) -> tuple[NotionalFilter, ...]:
    """Return the notional filters. A flag that is missing binds by the minimum and not by the maximum."""
    found = []
    for name, min_flag in (("MIN_NOTIONAL", "applyToMarket"), ("NOTIONAL", "applyMinToMarket")):
        rule = filters.get(name)
        if rule is not None:
            found.append(
                NotionalFilter(
                    name=name,
                    minimum=_number(rule, "minNotional", symbol),
                    maximum=_number(rule, "maxNotional", symbol) if "maxNotional" in rule else ZERO,
                    min_binds_market=_flag(rule, min_flag, symbol, True),
                    max_binds_market=_flag(rule, "applyMaxToMarket", symbol, False),
                    average_minutes=_whole(rule, "avgPriceMins", symbol, DEFAULT_AVERAGE_MINUTES),
                )
            )
    return tuple(found)


def _permission_sets(entry: Fields, symbol: str) -> tuple[tuple[str, ...], ...]:
    """Return the sets of which the account needs one each; the older flat list is one set."""
    sets = entry.get("permissionSets")
    if sets is None:
        flat = _texts(entry.get("permissions", []), "permissions", symbol)
        return (flat,) if flat else ()
    if not isinstance(sets, list):
        raise FilterError(f'{symbol}: "permissionSets" is not a list of lists')
    return tuple(_texts(one, "permissionSets", symbol) for one in sets if one)


def _text(entry: Fields, key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise FilterError(f'{where}: no text "{key}"')
    return value


def _texts(value: object, key: str, symbol: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise FilterError(f'{symbol}: "{key}" is not a list of texts')
    return tuple(value)


def _flag(entry: Fields, key: str, symbol: str, default: bool) -> bool:
    value = entry.get(key, default)
    if not isinstance(value, bool):
        raise FilterError(f'{symbol}: {entry.get("filterType", "symbol")} "{key}" is {value!r}, not true or false')
    return value


def _whole(entry: Fields, key: str, symbol: str, default: int) -> int:
    value = entry.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise FilterError(f'{symbol}: {entry.get("filterType", "symbol")} "{key}" is {value!r}, not a whole number')
    return value


_PLAIN_NUMBER = re.compile(r"\d{1,30}(\.\d{1,30})?", re.ASCII)


def _number(entry: Fields, key: str, symbol: str) -> Decimal:
    value = entry.get(key)
    if not isinstance(value, str) or not _PLAIN_NUMBER.fullmatch(value):
        raise FilterError(f'{symbol}: {entry.get("filterType", "filter")} "{key}" is {value!r}, not a decimal string')
    return Decimal(value)
