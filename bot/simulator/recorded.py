"""Decides what of a recorded exchangeInfo, or of filters set by hand, is taken: every filter checked field by field.

Source: Binance, filters.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from bot.simulator.errors import SimulatorError

Filter = Mapping[str, Any]


def _amount(value: Any) -> bool:
    try:
        number = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        return False
    return number is not None and number.is_finite() and number >= 0 and -number.adjusted() <= 20


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


_Test = Callable[[Any], bool]
_KINDS: Mapping[_Test, str] = {
    _amount: 'a string of decimals such as "0.01"',
    _count: "a whole number",
    _flag: "true or false",
}
_GRID: Mapping[str, _Test] = {"minQty": _amount, "maxQty": _amount, "stepSize": _amount}
# The fields without which a filter cannot be enforced; other types are shown to the client and not enforced.
FIELDS: Mapping[str, Mapping[str, _Test]] = {
    "PRICE_FILTER": {"minPrice": _amount, "maxPrice": _amount, "tickSize": _amount},
    "PERCENT_PRICE": {"multiplierUp": _amount, "multiplierDown": _amount, "avgPriceMins": _count},
    "PERCENT_PRICE_BY_SIDE": {
        "bidMultiplierUp": _amount,
        "bidMultiplierDown": _amount,
        "askMultiplierUp": _amount,
        "askMultiplierDown": _amount,
        "avgPriceMins": _count,
    },
    "LOT_SIZE": _GRID,
    "MARKET_LOT_SIZE": _GRID,
    "MIN_NOTIONAL": {"minNotional": _amount, "applyToMarket": _flag, "avgPriceMins": _count},
    "NOTIONAL": {
        "minNotional": _amount,
        "applyMinToMarket": _flag,
        "maxNotional": _amount,
        "applyMaxToMarket": _flag,
        "avgPriceMins": _count,
    },
    "MAX_NUM_ORDERS": {"maxNumOrders": _count},
    "MAX_POSITION": {"maxPosition": _amount},
    "EXCHANGE_MAX_NUM_ORDERS": {"maxNumOrders": _count},
}


def read_filters(value: Any) -> tuple[Filter, ...]:
    """Return the filters of a JSON array, as they stand. Raises ValueError with one line about the first bad field."""
    if not isinstance(value, list) or not all(isinstance(rule, dict) for rule in value):
        raise ValueError("filters must be an array of objects")
    for rule in value:
        kind = rule.get("filterType")
        if not isinstance(kind, str):
            raise ValueError("a filter has no filterType")
        for name, test in FIELDS.get(kind, {}).items():
            if name not in rule:
                raise ValueError(f"filter {kind} has no {name}")
            if not test(rule[name]):
                raise ValueError(f"filter {kind}: {name} must be {_KINDS[test]}, not {rule[name]!r}")
    kinds = [rule["filterType"] for rule in value]
    if len(set(kinds)) < len(kinds):
        raise ValueError("a filterType stands twice")
    return tuple(value)


@dataclass(frozen=True)
class Recorded:
    """An exchangeInfo that somebody kept: each symbol's object by its name, and the filters of the whole exchange."""

    symbols: Mapping[str, Mapping[str, Any]]
    filters: tuple[Filter, ...]


_TEXTS = ("status", "baseAsset", "quoteAsset")
_COUNTS = ("baseAssetPrecision", "quoteAssetPrecision")
_FLAGS = ("quoteOrderQtyMarketAllowed", "isSpotTradingAllowed")


def read_exchange_info(path: Path) -> Recorded:
    """Read a file with an answer of GET /exchangeInfo. Raises SimulatorError with one line that names the place."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise SimulatorError(f"{path}: cannot be read ({reason})") from error
    except ValueError as error:
        raise SimulatorError(f"{path}: not JSON ({error})") from error
    listed = content.get("symbols") if isinstance(content, dict) else None
    if not isinstance(listed, list) or not listed or not all(isinstance(info, dict) for info in listed):
        raise SimulatorError(f"{path}: no answer of GET /api/v3/exchangeInfo: it has no array of symbols")
    symbols = {}
    for info in listed:
        name = info.get("symbol")
        try:
            symbols[str(name)] = _checked(info)
        except ValueError as error:
            raise SimulatorError(f"{path}: symbol {name}: {error}") from None
    try:
        return Recorded(symbols, read_filters(content.get("exchangeFilters", [])))
    except ValueError as error:
        raise SimulatorError(f"{path}: exchangeFilters: {error}") from None


def _checked(info: Mapping[str, Any]) -> Mapping[str, Any]:
    for names, kind, text in ((_TEXTS, str, "a string"), (_COUNTS, int, "a whole number"), (_FLAGS, bool, "a flag")):
        for name in names:
            if not isinstance(info.get(name), kind):
                raise ValueError(f"{name} must be {text}, not {info.get(name)!r}")
    sets = info.get("permissionSets", [])
    if not isinstance(sets, list) or not all(isinstance(group, list) for group in sets):
        raise ValueError("permissionSets must be an array of arrays")
    if not isinstance(info.get("orderTypes"), list):
        raise ValueError("orderTypes must be an array")
    return {**info, "filters": list(read_filters(info.get("filters")))}
