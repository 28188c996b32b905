"""Decides what anyone is told: time, exchangeInfo, klines, prices. Source: Binance, public endpoints.

An endpoint reads its parameters and returns what to do once the request is found genuine, given the clock in ms.
"""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from bot.simulator.amounts import ZERO, exact, text8
from bot.simulator.candles import Candle
from bot.simulator.errors import ApiError, bad_combination, illegal, missing, not_valid
from bot.simulator.exchange import Exchange
from bot.simulator.market import Market
from bot.simulator.params import Params, is_symbol, time_param

SYMBOLS = r'^\[("[\w\-._&&[^a-z]]{1,50}"(,"[\w\-._&&[^a-z]]{1,50}"){0,}){0,1}\]$'
AVERAGE_MINUTES = 5
DAY_MS = 86_400_000
SHORT_DAY_FIELDS = (
    "symbol", "openPrice", "highPrice", "lowPrice", "lastPrice", "volume", "quoteVolume", "openTime", "closeTime",
    "firstId", "lastId", "count",
)  # fmt: skip
MOST_SHOWN = Decimal(9_000_000_000)
TIME_ZONE = re.compile(r"([+-]?)(\d{1,2})(?::(\d{2}))?")


Action = Callable[[int], Any]


def ping(exchange: Exchange, params: Params) -> Action:
    return lambda now: {}


def time(exchange: Exchange, params: Params) -> Action:
    return lambda now: {"serverTime": now}


def exchange_info(exchange: Exchange, params: Params) -> Action:
    symbol = params.symbol()
    symbols = _symbols(params)
    permissions = _permissions(params)
    shows_sets = params.boolean("showPermissionSets")
    status = _symbol_status(params)
    if sum(given is not None for given in (symbol, symbols, permissions)) > 1 or (
        status is not None and (symbol is not None or symbols is not None)
    ):
        raise bad_combination()
    names = [symbol] if symbol is not None else symbols

    def run(now: int) -> Any:
        markets = [exchange.market(name) for name in names] if names is not None else list(exchange.markets.values())
        shown = []
        for market in markets:
            info = dict(market.rules.info)
            granted = {name for group in info["permissionSets"] for name in group}
            if (permissions is not None and not granted & set(permissions)) or status not in (None, info["status"]):
                continue
            if shows_sets is False:
                info["permissionSets"] = []
            shown.append(info)
        return {
            "timezone": "UTC",
            "serverTime": now,
            "rateLimits": _rate_limits(exchange),
            "exchangeFilters": list(exchange.filters),
            "symbols": shown,
        }

    return run


def _rate_limits(exchange: Exchange) -> list[dict[str, Any]]:
    profile = exchange.profile
    return [
        _rate_limit("REQUEST_WEIGHT", "MINUTE", 1, profile.weight_per_minute),
        *order_rate_limits(exchange),
        _rate_limit("RAW_REQUESTS", "MINUTE", 5, profile.raw_per_5_minutes),
    ]


def order_rate_limits(exchange: Exchange) -> list[dict[str, Any]]:
    profile = exchange.profile
    return [
        _rate_limit("ORDERS", "SECOND", 10, profile.orders_per_10_seconds),
        _rate_limit("ORDERS", "DAY", 1, profile.orders_per_day),
    ]


def _rate_limit(kind: str, interval: str, number: int, limit: int) -> dict[str, Any]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}


def _symbols(params: Params) -> list[str] | None:
    """Read `symbols`, a JSON array without spaces. Raises ApiError -1100, -1151 for a symbol named twice."""
    text = params.text("symbols")
    if text is None:
        return None
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) and is_symbol(name) for name in names):
        raise illegal("symbols", SYMBOLS)
    if not names:
        raise missing("symbols")
    if len(set(names)) < len(names):
        raise ApiError(-1151, "Symbol is present multiple times in the list.")
    return names


def _permissions(params: Params) -> list[str] | None:
    text = params.text("permissions")
    if text is None:
        return None
    try:
        names = json.loads(text) if text.startswith("[") else [text]
    except ValueError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and n.isascii() for n in names):
        raise not_valid("permissions")
    return names


def _symbol_status(params: Params) -> str | None:
    statuses = ("TRADING", "HALT", "BREAK", "END_OF_DAY", "CANCEL_ONLY")
    return params.one_of("symbolStatus", statuses, ApiError(-1122, "Invalid symbolStatus."))


def klines(exchange: Exchange, params: Params) -> Action:
    symbol = params.required_symbol()
    interval = params.required("interval")
    start, end = time_param(params, "startTime"), time_param(params, "endTime")
    offset_ms = _time_zone(params) if exchange.profile.time_zones else 0
    limit = params.limit(500, 1000)
    if interval not in exchange.profile.intervals:
        raise ApiError(-1120, "Invalid interval.")

    def run(now: int) -> Any:
        series = exchange.market(symbol).series
        if interval not in series.intervals:
            return []
        return [_kline_row(candle) for candle in series.klines(interval, start, end, limit, offset_ms)]

    return run


def _kline_row(candle: Candle) -> list[Any]:
    return [
        candle.open_time,
        text8(candle.open),
        text8(candle.high),
        text8(candle.low),
        text8(candle.close),
        text8(candle.volume),
        candle.close_time,
        text8(candle.quote_volume),
        candle.trades,
        text8(candle.taker_volume),
        text8(candle.taker_quote_volume),
        "0",
    ]


def _time_zone(params: Params) -> int:
    """Return `timeZone` as ms to add to UTC. Raises ApiError -1130 outside -12:00 to +14:00."""
    text = params.text("timeZone")
    if text is None:
        return 0
    found = TIME_ZONE.fullmatch(text)
    if found is None:
        raise not_valid("timeZone")
    minutes = int(found[2]) * 60 + int(found[3] or 0)
    minutes = -minutes if found[1] == "-" else minutes
    if not -12 * 60 <= minutes <= 14 * 60 or int(found[3] or 0) > 59:
        raise not_valid("timeZone")
    return minutes * 60_000


def average_price(exchange: Exchange, params: Params) -> Action:
    symbol = params.required_symbol()

    def run(now: int) -> Any:
        price = exchange.average_price(exchange.market(symbol), AVERAGE_MINUTES)
        reply = {"mins": AVERAGE_MINUTES, "price": text8(price)}
        return reply | {"closeTime": now} if exchange.profile.average_has_close_time else reply

    return run


def system_status(exchange: Exchange, params: Params) -> Action:
    """Source: Binance, wallet endpoints, system status; signed in old reports on US, so the names are taken there."""
    if not exchange.profile.status_has_text:
        params.ignore("timestamp", "recvWindow", "signature")
    return lambda now: {"status": 0, "msg": "normal"} if exchange.profile.status_has_text else {"status": 0}


def depth(exchange: Exchange, params: Params) -> Action:
    symbol = params.required_symbol()
    limit = params.limit(100, 5000)
    status = _symbol_status(params)

    def run(now: int) -> Any:
        market = exchange.market(symbol)
        _check_status(market, status)
        book = market.depth()
        sides = {
            name: [[text8(price), _quantity_text(quantity)] for price, quantity in side[:limit]]
            for name, side in (("bids", book.bids), ("asks", book.asks))
        }
        return {"lastUpdateId": market.book.update_id, **sides}

    return run


def _check_status(market: Market, status: str | None) -> None:
    if status not in (None, market.rules.info["status"]):
        raise ApiError(-1220, "The symbol's status does not match the requested symbolStatus.")


def ticker_price(exchange: Exchange, params: Params) -> Action:
    return _ticker(exchange, params, _price)


def book_ticker(exchange: Exchange, params: Params) -> Action:
    return _ticker(exchange, params, _best)


def day_ticker(exchange: Exchange, params: Params) -> Action:
    kind = params.one_of("type", ("FULL", "MINI"), ApiError(-1139, "Invalid ticker type."))
    return _ticker(exchange, params, lambda market: _day(market, exchange.market_ms(), kind == "MINI"))


def _ticker(exchange: Exchange, params: Params, show: Callable[[Market], dict[str, Any]]) -> Action:
    """Answer for one symbol with an object, for several or all with an array."""
    symbol = params.symbol()
    symbols = _symbols(params)
    status = _symbol_status(params)
    if symbol is not None and symbols is not None:
        raise bad_combination()
    names = [symbol] if symbol is not None else symbols

    def run(now: int) -> Any:
        if names is None:
            return [show(m) for m in exchange.markets.values() if status in (None, m.rules.info["status"])]
        markets = [exchange.market(name) for name in names]
        for market in markets:
            _check_status(market, status)
        return show(markets[0]) if symbol is not None else [show(market) for market in markets]

    return run


def _price(market: Market) -> dict[str, Any]:
    return {"symbol": market.rules.symbol, "price": text8(market.price)}


def _best(market: Market) -> dict[str, Any]:
    """Return the best bid and ask with their quantities; zeros on a side without offers."""
    depth = market.depth()
    (bid, bid_quantity), (ask, ask_quantity) = (side[0] if side else [ZERO, ZERO] for side in (depth.bids, depth.asks))
    return {
        "symbol": market.rules.symbol,
        "bidPrice": text8(bid),
        "bidQty": _quantity_text(bid_quantity),
        "askPrice": text8(ask),
        "askQty": _quantity_text(ask_quantity),
    }


@exact
def _day(market: Market, now_ms: int, is_short: bool) -> dict[str, Any]:
    """Return the statistics of the last 24 hours, made of whole minutes. Source: Binance, ticker/24hr."""
    series = market.series
    candles = series.klines(series.base, now_ms - DAY_MS, None, 2 * DAY_MS // 60_000) or [series.last_closed]
    first, last = candles[0], market.price
    volume = sum((candle.volume for candle in candles), ZERO)
    quote_volume = sum((candle.quote_volume for candle in candles), ZERO)
    traded = [candle for candle in candles if candle.trades and candle.first_trade_id >= 0]
    best = _best(market)
    change = last - first.open
    full: dict[str, Any] = {
        "symbol": market.rules.symbol,
        "priceChange": text8(change),
        "priceChangePercent": f"{change / first.open * 100:.3f}",
        "weightedAvgPrice": text8(quote_volume / volume if volume else last),
        "prevClosePrice": text8(first.open),
        "lastPrice": text8(last),
        "lastQty": text8(market.rules.step),
        **{name: value for name, value in best.items() if name != "symbol"},
        "openPrice": text8(first.open),
        "highPrice": text8(max(candle.high for candle in candles)),
        "lowPrice": text8(min(candle.low for candle in candles)),
        "volume": text8(volume),
        "quoteVolume": text8(quote_volume),
        "openTime": first.open_time,
        "closeTime": now_ms,
        "firstId": traded[0].first_trade_id if traded else -1,
        "lastId": traded[-1].last_trade_id if traded else -1,
        "count": sum(candle.trades for candle in candles),
    }
    return {name: full[name] for name in SHORT_DAY_FIELDS} if is_short else full


def _quantity_text(quantity: Decimal) -> str:
    """Return a level's quantity; the endless book of step mode shows a large one."""
    return text8(min(quantity, MOST_SHOWN))
