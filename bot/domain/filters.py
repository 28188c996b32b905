"""What the exchange lets one order of a symbol be. Source: Binance, filters; contract, section 1, Legality."""

import re
from collections.abc import Collection, Mapping
from decimal import Decimal

import msgspec

from bot.domain.money import ZERO, common_step, is_multiple, multiply


class FilterError(ValueError):
    """An exchangeInfo that cannot be used; the text names the symbol and the field."""


class SymbolRules(msgspec.Struct, frozen=True):
    """A symbol's trading rules. Quantities are in the base asset, notionals in the quote asset; a zero bound is off.

    `step_size`, `min_qty`, `max_qty` join LOT_SIZE and MARKET_LOT_SIZE: a quantity legal here is legal for both.
    `notional_filter` is the name of the filter that sets `min_notional`: MIN_NOTIONAL or NOTIONAL.
    """

    symbol: str
    base_asset: str
    quote_asset: str
    step_size: Decimal
    min_qty: Decimal
    max_qty: Decimal
    min_notional: Decimal
    notional_filter: str = "MIN_NOTIONAL"
    max_notional: Decimal = ZERO
    status: str = "TRADING"

    def broken_by(self, quantity: Decimal, price: Decimal) -> str | None:
        """Return the first filter that a market order of `quantity` breaks at `price`, None if it is legal.

        LOT_SIZE comes before the notional filter. A quantity of zero breaks LOT_SIZE.
        """
        if quantity <= 0 or quantity < self.min_qty or not is_multiple(quantity, self.step_size):
            return "LOT_SIZE"
        if self.max_qty and quantity > self.max_qty:
            return "LOT_SIZE"
        notional = multiply(quantity, price)
        if notional < self.min_notional or (self.max_notional and notional > self.max_notional):
            return self.notional_filter
        return None


def default_rules(symbol: str) -> SymbolRules | None:
    """Return the contract's offline rules of BTCUSDT, ETHUSDT or DOGEUSDT; None for any other symbol."""
    lot = {
        "BTCUSDT": ("BTC", "0.00001", "9000"),
        "ETHUSDT": ("ETH", "0.00001", "9000"),
        "DOGEUSDT": ("DOGE", "1", "9000000"),
    }.get(symbol)
    if lot is None:
        return None
    base_asset, step, max_qty = lot
    return SymbolRules(
        symbol=symbol,
        base_asset=base_asset,
        quote_asset="USDT",
        step_size=Decimal(step),
        min_qty=Decimal(step),
        max_qty=Decimal(max_qty),
        min_notional=Decimal(10),
    )


def rules_from_exchange_info(info: object, wanted: Collection[str]) -> dict[str, SymbolRules]:
    """Read Binance's own exchangeInfo JSON into the rules of those `wanted` symbols that it lists.

    Raises FilterError that names the symbol and field where something is missing or no number.
    """
    symbols = info.get("symbols") if isinstance(info, Mapping) else None
    if not isinstance(symbols, list):
        raise FilterError('no list "symbols": give the JSON that GET /api/v3/exchangeInfo answers')
    rules = {}
    for entry in symbols:
        if not isinstance(entry, Mapping):
            raise FilterError('an entry of "symbols" is not an object')
        symbol = _text(entry, "symbol", "symbols")
        if symbol in wanted:
            rules[symbol] = _symbol_rules(symbol, entry)
    return rules


def _symbol_rules(symbol: str, entry: Mapping[str, object]) -> SymbolRules:
    listed = entry.get("filters")
    if not isinstance(listed, list):
        raise FilterError(f'{symbol}: no list "filters"')
    filters = {str(f.get("filterType")): f for f in listed if isinstance(f, Mapping)}
    lot = filters.get("LOT_SIZE")
    if lot is None:
        raise FilterError(f"{symbol}: no LOT_SIZE filter")
    market: Mapping[str, object] = filters.get("MARKET_LOT_SIZE", {"minQty": "0", "maxQty": "0", "stepSize": "0"})
    lot_step, market_step = _number(lot, "stepSize", symbol), _number(market, "stepSize", symbol)
    if lot_step == market_step == 0:
        raise FilterError(f"{symbol}: LOT_SIZE has no stepSize above 0")
    lot_max, market_max = _number(lot, "maxQty", symbol), _number(market, "maxQty", symbol)
    notional_filter = "NOTIONAL" if "NOTIONAL" in filters else "MIN_NOTIONAL"
    minima = [_number(filters[n], "minNotional", symbol) for n in ("MIN_NOTIONAL", "NOTIONAL") if n in filters]
    notional = filters.get("NOTIONAL", {})
    return SymbolRules(
        symbol=symbol,
        base_asset=_text(entry, "baseAsset", symbol),
        quote_asset=_text(entry, "quoteAsset", symbol),
        step_size=common_step(lot_step, market_step),
        min_qty=max(_number(lot, "minQty", symbol), _number(market, "minQty", symbol)),
        max_qty=min((m for m in (lot_max, market_max) if m), default=ZERO),
        min_notional=max(minima, default=ZERO),
        notional_filter=notional_filter,
        max_notional=_number(notional, "maxNotional", symbol) if notional.get("applyMaxToMarket") else ZERO,
        status=str(entry.get("status", "TRADING")),
    )


def _text(entry: Mapping[str, object], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise FilterError(f'{where}: no text "{key}"')
    return value


_PLAIN_NUMBER = re.compile(r"\d{1,30}(\.\d{1,30})?", re.ASCII)


def _number(entry: Mapping[str, object], key: str, symbol: str) -> Decimal:
    value = entry.get(key)
    if not isinstance(value, str) or not _PLAIN_NUMBER.fullmatch(value):
        raise FilterError(f'{symbol}: {entry.get("filterType", "filter")} "{key}" is {value!r}, not a decimal string')
    return Decimal(value)
