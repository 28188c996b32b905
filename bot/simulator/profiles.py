"""Decides in which numbers and features binance.com and binance.us differ: tables of data, no behaviour.

Source: Binance, sections "weights", "limits", "filters" and "binance.us against binance.com" of the fact sheet.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from bot.simulator.amounts import plain, text8
from bot.simulator.errors import SimulatorError

MINUTE_INTERVALS = ("1m", "3m", "5m", "15m", "30m")
LONG_INTERVALS = ("1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
ORDER_TYPES = ("LIMIT", "LIMIT_MAKER", "MARKET")
_NOT_SIMULATED = (
    "icebergAllowed", "ocoAllowed", "otoAllowed", "opoAllowed", "allowTrailingStop", "cancelReplaceAllowed",
    "amendAllowed", "pegInstructionsAllowed",
)  # fmt: skip
STP_MODES = ("EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT", "TRANSFER")
QUOTES = ("FDUSD", "USDT", "USDC", "BUSD", "TUSD", "USD", "EUR", "BTC", "ETH", "BNB")

# method and path -> (weight, weight without `symbol`); an order that succeeds costs 0 (ORDER_PATHS).
WEIGHTS: Mapping[str, tuple[int, int]] = {
    "GET /api/v3/ping": (1, 1),
    "GET /api/v3/time": (1, 1),
    "GET /api/v3/exchangeInfo": (20, 20),
    "GET /api/v3/klines": (2, 2),
    "GET /api/v3/avgPrice": (2, 2),
    "GET /api/v3/ticker/price": (2, 4),
    "GET /api/v3/ticker/bookTicker": (2, 4),
    "GET /api/v3/account": (20, 20),
    "GET /api/v3/order": (4, 4),
    "POST /api/v3/order": (1, 1),
    "DELETE /api/v3/order": (1, 1),
    "GET /api/v3/openOrders": (6, 80),
    "DELETE /api/v3/openOrders": (1, 1),
    "GET /api/v3/allOrders": (20, 20),
    "GET /api/v3/myTrades": (20, 20),
    "GET /api/v3/rateLimit/order": (40, 40),
    "GET /api/v3/account/commission": (20, 20),
    "GET /api/v3/myFilters": (40, 40),
    "POST /api/v3/userDataStream": (2, 2),
    "PUT /api/v3/userDataStream": (2, 2),
    "DELETE /api/v3/userDataStream": (2, 2),
}
MY_TRADES_OF_ORDER_WEIGHT = 5
TEST_WITH_RATES_WEIGHT = 20
# (largest limit, or number of symbols; weight), the first that fits
DEPTH_WEIGHTS = ((100, 5), (500, 25), (1000, 50), (5000, 250))
DAY_TICKER_WEIGHTS = ((20, 2), (100, 40), (10**9, 80))
FREE_WHEN_SUCCESSFUL = frozenset({"POST /api/v3/order", "DELETE /api/v3/order", "DELETE /api/v3/openOrders"})


@dataclass(frozen=True)
class Profile:
    """One exchange's numbers. Times in ms; limits are counts per clock-aligned window."""

    name: str
    intervals: tuple[str, ...]
    microseconds: bool
    time_zones: bool
    omit_zero_balances: bool
    account_has_uid: bool
    signed_stream_ids: bool
    order_limit_sends_retry_after: bool
    free_successful_orders: bool
    average_has_close_time: bool
    tests_commissions: bool  # order/test takes computeCommissionRates
    status_has_text: bool  # of /sapi/v1/system/status
    sessions: bool  # session.* and userDataStream.subscribe of the WebSocket API
    listen_keys: bool  # the older way to the user data stream
    subscribe_signature: bool = True
    listen_key_life_ms: int = 3_600_000
    weight_per_minute: int = 6000
    raw_per_5_minutes: int = 300_000
    orders_per_10_seconds: int = 100
    orders_per_day: int = 200_000
    connections_per_5_minutes: int = 300
    strikes_before_ban: int = 10
    first_ban_ms: int = 120_000
    longest_ban_ms: int = 3 * 86_400_000
    messages_per_second: int = 5
    streams_per_connection: int = 1024
    ping_every_ms: int = 20_000
    pong_within_ms: int = 60_000
    connection_life_ms: int = 86_400_000
    commission_rate: Decimal = Decimal("0.001")
    permission_sets: tuple[tuple[str, ...], ...] = (("SPOT",),)


PROFILES: Mapping[str, Profile] = {
    "com": Profile(
        name="com",
        intervals=("1s", *MINUTE_INTERVALS, *LONG_INTERVALS),
        microseconds=True,
        time_zones=True,
        omit_zero_balances=True,
        account_has_uid=True,
        signed_stream_ids=True,
        order_limit_sends_retry_after=True,
        free_successful_orders=True,
        average_has_close_time=True,
        tests_commissions=True,
        status_has_text=True,
        sessions=True,
        listen_keys=False,
        permission_sets=(("SPOT", "MARGIN"),),
    ),
    "us": Profile(
        name="us",
        intervals=(*MINUTE_INTERVALS, *LONG_INTERVALS),
        microseconds=False,
        time_zones=False,
        omit_zero_balances=False,
        account_has_uid=False,
        signed_stream_ids=False,
        order_limit_sends_retry_after=False,
        free_successful_orders=False,
        average_has_close_time=False,
        tests_commissions=False,
        status_has_text=False,
        sessions=False,
        listen_keys=True,
    ),
}


@dataclass(frozen=True)
class SymbolRules:
    """One tradable pair: its assets, its filters as exchangeInfo shows them, and where a made-up market begins."""

    symbol: str
    base: str
    quote: str
    start_price: Decimal
    tick: Decimal
    step: Decimal
    filters: tuple[Mapping[str, Any], ...]
    info: Mapping[str, Any] = field(repr=False)

    @property
    def is_trading(self) -> bool:
        return bool(self.info["status"] == "TRADING")

    def changed(
        self, status: str | None = None, filters: tuple[Mapping[str, Any], ...] | None = None, **info: Any
    ) -> "SymbolRules":
        """Return these rules with another status, other filters, other fields of exchangeInfo; None: as it was."""
        filters = self.filters if filters is None else filters
        values = {**self.info, **{name: value for name, value in info.items() if value is not None}}
        values |= {"status": status or self.info["status"], "filters": list(filters)}
        by_type = {rule["filterType"]: rule for rule in filters}
        tick = Decimal(by_type.get("PRICE_FILTER", {}).get("tickSize", "0"))
        step = Decimal(by_type.get("LOT_SIZE", {}).get("stepSize", "0"))
        return replace(self, tick=tick or self.tick, step=step or self.step, filters=filters, info=values)


@dataclass(frozen=True)
class _Listing:
    price: str
    tick: str
    max_price: str
    step: str
    max_quantity: str
    market_max: Mapping[str, str]


_LISTINGS: Mapping[str, _Listing] = {
    "BTCUSDT": _Listing("64010.01", "0.01", "1000000", "0.00001", "9000", {"com": "83.76572430", "us": "24.60517579"}),
    "ETHUSDT": _Listing("3410.50", "0.01", "1000000", "0.0001", "9000", {"com": "3277.55", "us": "500"}),
    "DOGEUSDT": _Listing("0.16123", "0.00001", "1000", "1", "9000000", {"com": "5000000", "us": "2000000"}),
    "LTCUSDT": _Listing("84.37", "0.01", "100000", "0.001", "90000", {"com": "20716.23", "us": "5000"}),
}
_USUAL_PRICES: Mapping[str, str] = {
    "BNB": "610.5", "SOL": "152.3", "XRP": "0.6102", "ADA": "0.4521", "DOT": "6.214", "LINK": "14.72", "AVAX": "28.4",
}  # fmt: skip


def usual_price(asset: str) -> Decimal:
    """Return about what one of `asset` costs in US dollars; 10 for one that is not known."""
    listing = _LISTINGS.get(f"{asset}USDT")
    return Decimal(listing.price if listing is not None else _USUAL_PRICES.get(asset, "10"))


def split_symbol(symbol: str) -> tuple[str, str]:
    """Return base and quote asset of an upper-case `symbol`. Raises SimulatorError if no known quote asset ends it."""
    for quote in QUOTES:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return symbol[: -len(quote)], quote
    raise SimulatorError(f"symbol {symbol!r} does not end with a quote asset ({', '.join(QUOTES)})")


def symbol_rules(
    profile: Profile,
    symbol: str,
    price: Decimal | None = None,
    step_mode: bool = False,
    recorded: Mapping[str, Any] | None = None,
) -> SymbolRules:
    """Return the rules of `symbol`; `price`, the first of a kline file, replaces the table's.

    `recorded`: the symbol's object of an exchangeInfo, which replaces all but the kinds of order that are not
    simulated. In step mode avgPriceMins is 0, so that a MARKET order's notional is tested with the last close and not
    with an average: Binance's own way to say so. Raises SimulatorError if the symbol cannot be split into assets.
    """
    if recorded is not None:
        return _recorded_rules(symbol, price, step_mode, recorded)
    base, quote = split_symbol(symbol)
    listing = _LISTINGS.get(symbol) or _generic_listing(price or Decimal(_USUAL_PRICES.get(base, "10")))
    filters = _filters(profile.name, listing, 0 if step_mode else 5)
    return SymbolRules(
        symbol=symbol,
        base=base,
        quote=quote,
        start_price=price or Decimal(listing.price),
        tick=Decimal(listing.tick),
        step=Decimal(listing.step),
        filters=filters,
        info=_exchange_info(profile, symbol, base, quote, filters),
    )


def _recorded_rules(symbol: str, price: Decimal | None, step_mode: bool, recorded: Mapping[str, Any]) -> SymbolRules:
    base, quote = recorded["baseAsset"], recorded["quoteAsset"]
    listing = _LISTINGS.get(symbol) or _generic_listing(price or Decimal(_USUAL_PRICES.get(base, "10")))
    filters = tuple(
        {**rule, "avgPriceMins": 0} if step_mode and "avgPriceMins" in rule else rule for rule in recorded["filters"]
    )
    info = {
        **recorded,
        **dict.fromkeys(_NOT_SIMULATED, False),
        "orderTypes": [kind for kind in ORDER_TYPES if kind in recorded["orderTypes"]],
        "permissionSets": recorded.get("permissionSets", []),
    }
    plain_rules = SymbolRules(
        symbol=symbol,
        base=base,
        quote=quote,
        start_price=price or Decimal(listing.price),
        tick=Decimal(listing.tick),
        step=Decimal(listing.step),
        filters=filters,
        info=info,
    )
    return plain_rules.changed(filters=filters)


def _generic_listing(price: Decimal) -> _Listing:
    """Five digits of price, a step worth about 0.1 to 1 of the quote asset, together never more than eight decimals."""
    magnitude = price.adjusted()
    tick_decimals = min(8, max(0, 4 - magnitude))
    step_decimals = min(8 - tick_decimals, max(0, magnitude + 1))
    return _Listing(
        price=plain(price),
        tick=plain(Decimal(1).scaleb(-tick_decimals)),
        max_price=plain(Decimal(1).scaleb(magnitude + 4)),
        step=plain(Decimal(1).scaleb(-step_decimals)),
        max_quantity=plain(Decimal(9).scaleb(max(3, 6 - magnitude))),
        market_max={name: plain(Decimal(2).scaleb(max(2, 5 - magnitude))) for name in PROFILES},
    )


def _filters(name: str, listing: _Listing, average_minutes: int) -> tuple[Mapping[str, Any], ...]:
    by_type: dict[str, dict[str, Any]] = {
        "PRICE_FILTER": {"minPrice": listing.tick, "maxPrice": listing.max_price, "tickSize": listing.tick},
        "PERCENT_PRICE": {"multiplierUp": "5", "multiplierDown": "0.2"},
        "LOT_SIZE": {"minQty": listing.step, "maxQty": listing.max_quantity, "stepSize": listing.step},
        "MIN_NOTIONAL": {"minNotional": "1", "applyToMarket": True},
        "ICEBERG_PARTS": {"limit": 100 if name == "com" else 10},
        "MARKET_LOT_SIZE": {"minQty": "0", "maxQty": listing.market_max[name], "stepSize": "0"},
        "TRAILING_DELTA": {
            "minTrailingAboveDelta": 10,
            "maxTrailingAboveDelta": 2000,
            "minTrailingBelowDelta": 10,
            "maxTrailingBelowDelta": 2000,
        },
        "PERCENT_PRICE_BY_SIDE": {
            "bidMultiplierUp": "5",
            "bidMultiplierDown": "0.2",
            "askMultiplierUp": "5",
            "askMultiplierDown": "0.2",
        },
        "NOTIONAL": {
            "minNotional": "5",
            "applyMinToMarket": True,
            "maxNotional": "9000000",
            "applyMaxToMarket": False,
        },
        "MAX_NUM_ORDERS": {"maxNumOrders": 200},
        "MAX_NUM_ORDER_LISTS": {"maxNumOrderLists": 20},
        "MAX_NUM_ALGO_ORDERS": {"maxNumAlgoOrders": 5},
        "MAX_NUM_ORDER_AMENDS": {"maxNumOrderAmends": 10},
    }
    for filter_type in ("PERCENT_PRICE", "PERCENT_PRICE_BY_SIDE", "MIN_NOTIONAL", "NOTIONAL"):
        by_type[filter_type]["avgPriceMins"] = average_minutes
    shown = []
    for filter_type in _FILTER_ORDER[name]:
        fields = {
            key: text8(Decimal(value)) if isinstance(value, str) and "multiplier" not in key.lower() else value
            for key, value in by_type[filter_type].items()
        }
        shown.append({"filterType": filter_type, **fields})
    return tuple(shown)


_FILTER_ORDER: Mapping[str, tuple[str, ...]] = {
    "com": (
        "PRICE_FILTER", "LOT_SIZE", "ICEBERG_PARTS", "MARKET_LOT_SIZE", "TRAILING_DELTA", "PERCENT_PRICE_BY_SIDE",
        "NOTIONAL", "MAX_NUM_ORDERS", "MAX_NUM_ORDER_LISTS", "MAX_NUM_ALGO_ORDERS", "MAX_NUM_ORDER_AMENDS",
    ),
    "us": (
        "PRICE_FILTER", "PERCENT_PRICE", "LOT_SIZE", "MIN_NOTIONAL", "ICEBERG_PARTS", "MARKET_LOT_SIZE",
        "TRAILING_DELTA", "PERCENT_PRICE_BY_SIDE", "MAX_NUM_ORDERS", "MAX_NUM_ORDER_LISTS", "MAX_NUM_ALGO_ORDERS",
        "MAX_NUM_ORDER_AMENDS",
    ),
}  # fmt: skip


def _exchange_info(
    profile: Profile, symbol: str, base: str, quote: str, filters: tuple[Mapping[str, Any], ...]
) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "status": "TRADING",
        "baseAsset": base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": list(ORDER_TYPES),
        **dict.fromkeys(_NOT_SIMULATED, False),
        "quoteOrderQtyMarketAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": any("MARGIN" in group for group in profile.permission_sets),
        "filters": list(filters),
        "permissions": [],
        "permissionSets": [list(group) for group in profile.permission_sets],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": list(STP_MODES),
    }
