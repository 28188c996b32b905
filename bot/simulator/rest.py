"""Decides what each REST request is answered: the checks in Binance's order, then the endpoint."""

import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from bot.simulator import filters
from bot.simulator.amounts import exact, text8
from bot.simulator.books import (
    OPEN_STATUSES,
    Order,
    OrderRequest,
    cancelled_reply,
    order_reply,
    placed_reply,
    trade_reply,
)
from bot.simulator.candles import Candle
from bot.simulator.errors import (
    ApiError,
    bad_combination,
    both_missing,
    illegal,
    missing,
    not_required,
    not_valid,
    unsupported,
)
from bot.simulator.exchange import Exchange
from bot.simulator.market import Market
from bot.simulator.params import CLIENT_ORDER_ID, Params, check_precision, is_symbol, parse_form
from bot.simulator.profiles import FREE_WHEN_SUCCESSFUL, MY_TRADES_OF_ORDER_WEIGHT, STP_MODES, WEIGHTS
from bot.simulator.signing import check_key, check_signature, check_timing, read_timing

JSON_TYPE = "application/json;charset=UTF-8"
ORDER_PATH = "/api/v3/order"
LONGEST_SPAN_MS = 86_400_000
TIME_MICROSECONDS_FROM = 10**14
NOT_FOUND = (
    b"<html><head><title>404 Not Found</title></head><body><center><h1>404 Not Found</h1></center></body></html>"
)
TIME_KEYS = frozenset({"serverTime", "transactTime", "time", "updateTime", "workingTime"})
UNSUPPORTED_TYPES = {
    "STOP_LOSS": "Stop loss",
    "STOP_LOSS_LIMIT": "Stop loss limit",
    "TAKE_PROFIT": "Take profit",
    "TAKE_PROFIT_LIMIT": "Take profit limit",
}
SYMBOLS = r'^\[("[\w\-._&&[^a-z]]{1,50}"(,"[\w\-._&&[^a-z]]{1,50}"){0,}){0,1}\]$'
TIME_ZONE = re.compile(r"([+-]?)(\d{1,2})(?::(\d{2}))?")

T = TypeVar("T")
Action = Callable[[int], Any]
Endpoint = Callable[[Exchange, Params], Action]


@dataclass(frozen=True)
class HttpRequest:
    """A request as it came over the wire. `query` and `body` are raw bytes; header names in lower case."""

    method: str
    path: str
    query: bytes = b""
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    address: str = "127.0.0.1"


@dataclass
class Reply:
    """What is sent back. `is_cut`: the connection is closed instead; `delay_ms`: how long it is held back."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = JSON_TYPE
    is_cut: bool = False
    delay_ms: int = 0


class RestApi:
    """Answers requests, one at a time, without waiting for anything."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @exact
    def respond(self, request: HttpRequest) -> Reply:
        """Return the reply to one request, faults included."""
        exchange = self._exchange
        exchange.requests[request.path] += 1
        fault = exchange.faults.take("reply", request.path, request.method)
        if fault is not None:
            is_json = fault.body.lstrip().startswith(("{", "["))
            headers = dict(fault.headers or {})
            chosen = [headers.pop(name) for name in list(headers) if name.lower() == "content-type"]
            content_type = chosen[0] if chosen else JSON_TYPE if is_json else "text/html"
            reply = Reply(fault.status, fault.body.encode(), headers, content_type)
        elif self._is_new_order(request) and exchange.faults.take("order_lost_no_reply"):
            reply = Reply(0, b"", is_cut=True)
        else:
            reply = self._handle(request)
        slow = exchange.faults.take("delay", request.path, request.method)
        if slow is not None:
            reply.delay_ms = slow.ms
        return reply

    @staticmethod
    def _is_new_order(request: HttpRequest) -> bool:
        return request.method == "POST" and request.path == ORDER_PATH

    def _handle(self, request: HttpRequest) -> Reply:
        exchange = self._exchange
        now = exchange.now_ms()
        key = f"{request.method} {request.path}"
        texts: dict[str, str] = {}
        weight = _weight(key, request)
        try:
            exchange.request_limits.admit(request.address, weight, now)
            endpoint = ENDPOINTS.get(key)
            if endpoint is None:
                return self._with_headers(Reply(404, NOT_FOUND, content_type="text/html"), request, now)
            body = self._run(endpoint, key, request, texts)
            if exchange.profile.free_successful_orders and key in FREE_WHEN_SUCCESSFUL:
                exchange.request_limits.refund(request.address, weight, now)
            reply = self._with_headers(Reply(200, msgspec.json.encode(body)), request, now)
            if self._is_new_order(request):
                reply = self._after_order(reply, now)
            return reply
        except ApiError as error:
            if self._is_new_order(request):
                exchange.note_requests()
                exchange.books.note_rejected(texts, error.code, now)
            reply = Reply(error.status, msgspec.json.encode(error.body()))
            if error.retry_after_s is not None:
                reply.headers["Retry-After"] = str(error.retry_after_s)
            return self._with_headers(reply, request, now)

    def _run(self, endpoint: Endpoint, key: str, request: HttpRequest, texts: dict[str, str]) -> Any:
        exchange = self._exchange
        is_signed = key in SIGNED
        if is_signed:
            check_key(request.headers.get("x-mbx-apikey"), exchange.api_key)
        unit = request.headers.get("x-mbx-time-unit", "MILLISECOND") if exchange.profile.microseconds else "MILLISECOND"
        if unit.upper() not in ("MICROSECOND", "MILLISECOND"):
            raise ApiError(-1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")
        texts.update(_values(request))
        params = Params(texts)
        action = endpoint(exchange, params)
        # The clock that this request sees may be a wrong one, by order of a fault.
        now = exchange.now_ms()
        if is_signed:
            timing = read_timing(params, exchange.profile.microseconds)
            sent = params.required("signature")
            params.finish()
            now += exchange.faults.skew_ms()
            check_timing(timing, now)
            check_signature(exchange.api_secret, request.query, request.body, sent)
        else:
            params.finish()
            if key in SHOWS_CLOCK:
                now += exchange.faults.skew_ms()
        body = action(now)
        return _in_microseconds(body) if unit.upper() == "MICROSECOND" else body

    def _after_order(self, reply: Reply, now: int) -> Reply:
        exchange = self._exchange
        limits = exchange.order_limits
        reply.headers["X-MBX-ORDER-COUNT-10S"] = str(limits.ten_seconds.count(now))
        reply.headers["X-MBX-ORDER-COUNT-1D"] = str(limits.day.count(now))
        broken = exchange.faults.take("order_executed_5xx")
        if broken is not None:
            unknown = ApiError(
                -1007,
                "Timeout waiting for response from backend server. Send status unknown; execution status unknown.",
            )
            body = broken.body.encode() if broken.body else msgspec.json.encode(unknown.body())
            kind = JSON_TYPE if body.startswith(b"{") else "text/html"
            return Reply(broken.status or unknown.status, body, reply.headers, kind)
        reply.is_cut = exchange.faults.take("order_executed_no_reply") is not None
        return reply

    def _with_headers(self, reply: Reply, request: HttpRequest, now: int) -> Reply:
        used = str(self._exchange.request_limits.used_weight(request.address, now))
        reply.headers["X-MBX-USED-WEIGHT"] = used
        reply.headers["X-MBX-USED-WEIGHT-1M"] = used
        reply.headers["x-mbx-uuid"] = secrets.token_hex(16)
        return reply


def _weight(key: str, request: HttpRequest) -> int:
    with_symbol, without = WEIGHTS.get(key, (1, 1))
    names = re.findall(rb"(?:^|[?&])(symbol|orderId)=", request.query)
    if key == "GET /api/v3/myTrades" and b"orderId" in names:
        return MY_TRADES_OF_ORDER_WEIGHT
    return with_symbol if b"symbol" in names else without


def _values(request: HttpRequest) -> dict[str, str]:
    """Return the parameters of query and body; of a name in both the query's value counts."""
    values = parse_form(request.query.decode("latin-1"))
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.body and content_type in ("", "application/x-www-form-urlencoded"):
        values = parse_form(request.body.decode("latin-1")) | values
    return values


def _in_microseconds(value: Any) -> Any:
    """Return a reply with its times in microseconds. Source: Binance, X-MBX-TIME-UNIT."""
    if isinstance(value, list):
        if len(value) == 12 and isinstance(value[0], int):
            return [value[0] * 1000, *value[1:6], (value[6] + 1) * 1000 - 1, *value[7:]]
        return [_in_microseconds(item) for item in value]
    if isinstance(value, dict):
        return {
            name: item * 1000 if name in TIME_KEYS and item >= 0 else _in_microseconds(item)
            for name, item in value.items()
        }
    return value


def _ping(exchange: Exchange, params: Params) -> Action:
    return lambda now: {}


def _time(exchange: Exchange, params: Params) -> Action:
    return lambda now: {"serverTime": now}


def _exchange_info(exchange: Exchange, params: Params) -> Action:
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
            "exchangeFilters": [],
            "symbols": shown,
        }

    return run


def _rate_limits(exchange: Exchange) -> list[dict[str, Any]]:
    profile = exchange.profile
    return [
        _rate_limit("REQUEST_WEIGHT", "MINUTE", 1, profile.weight_per_minute),
        *_order_rate_limits(exchange),
        _rate_limit("RAW_REQUESTS", "MINUTE", 5, profile.raw_per_5_minutes),
    ]


def _order_rate_limits(exchange: Exchange) -> list[dict[str, Any]]:
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


def _klines(exchange: Exchange, params: Params) -> Action:
    symbol = params.required_symbol()
    interval = params.required("interval")
    start, end = _time_param(params, "startTime"), _time_param(params, "endTime")
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


def _time_param(params: Params, name: str) -> int | None:
    """Read a time in ms; microseconds are taken too. Source: Binance, general information on endpoints."""
    value = params.integer(name)
    return value // 1000 if value is not None and value >= TIME_MICROSECONDS_FROM else value


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


def _ticker_price(exchange: Exchange, params: Params) -> Action:
    symbol = params.symbol()
    symbols = _symbols(params)
    status = _symbol_status(params)
    if symbol is not None and symbols is not None:
        raise bad_combination()

    def run(now: int) -> Any:
        if symbol is not None:
            return _price(exchange.market(symbol), status, is_alone=True)
        markets = [exchange.market(name) for name in symbols] if symbols is not None else exchange.markets.values()
        prices = [_price(market, status, is_alone=symbols is not None) for market in markets]
        return [price for price in prices if price is not None]

    return run


def _price(market: Market, status: str | None, is_alone: bool) -> dict[str, str] | None:
    if status not in (None, market.rules.info["status"]):
        if is_alone:
            raise ApiError(-1220, "The symbol's status does not match the requested symbolStatus.")
        return None
    return {"symbol": market.rules.symbol, "price": text8(market.price)}


def _account(exchange: Exchange, params: Params) -> Action:
    omits = bool(params.boolean("omitZeroBalances")) if exchange.profile.omit_zero_balances else False

    def run(now: int) -> Any:
        rate = exchange.profile.commission_rate
        points = int(rate * 10_000)
        balances = [
            {"asset": asset, "free": text8(balance.free), "locked": text8(balance.locked)}
            for asset, balance in exchange.books.balances.items()
            if not omits or balance.free or balance.locked
        ]
        reply: dict[str, Any] = {
            "makerCommission": points,
            "takerCommission": points,
            "buyerCommission": 0,
            "sellerCommission": 0,
            "commissionRates": {
                "maker": text8(rate),
                "taker": text8(rate),
                "buyer": text8(Decimal(0)),
                "seller": text8(Decimal(0)),
            },
            "canTrade": True,
            "canWithdraw": True,
            "canDeposit": True,
            "brokered": False,
            "requireSelfTradePrevention": False,
            "preventSor": False,
            "updateTime": exchange.books.update_time,
            "accountType": "SPOT",
            "balances": balances,
            "permissions": ["SPOT"],
        }
        if exchange.profile.account_has_uid:
            reply["uid"] = int(exchange.api_key.encode().hex()[:8], 16)
        return reply

    return run


def _new_order(exchange: Exchange, params: Params) -> Action:
    request, response_type = _order_request(params)

    def run(now: int) -> Any:
        market = exchange.market(request.symbol)
        for name, value in (
            ("quantity", request.quantity),
            ("quoteOrderQty", request.quote_quantity),
            ("price", request.price),
        ):
            check_precision(name, value)
        exchange.order_limits.check(now)
        depth = market.depth()
        quantity = request.quantity
        if quantity is None:
            assert request.quote_quantity is not None
            quantity = depth.quantity_for(request.is_buyer, request.quote_quantity, market.rules.step)
        situation = filters.Situation(
            request,
            quantity,
            lambda minutes: exchange.average_price(market, minutes),
            len(exchange.books.open_orders(request.symbol)),
        )
        filters.check(market.rules, situation)
        _check_supported(params, request)
        cut = exchange.faults.peek("partial_fill")
        exchange.note_requests()
        order, fills = exchange.books.place(
            market.rules, request, depth, exchange.now_ms(), market.trade_id + 1, cut.fraction if cut else None
        )
        if cut is not None:
            exchange.faults.take("partial_fill")
        market.trade_id += len(fills)
        exchange.order_limits.placed(exchange.now_ms(), bool(fills))
        return placed_reply(order, fills, response_type)

    return run


def _order_request(params: Params) -> tuple[OrderRequest, str]:
    """Read the parameters of POST /order. Source: Binance, new order, the table of mandatory parameters."""
    symbol = params.required_symbol()
    params.required("side")
    side = params.one_of("side", ("BUY", "SELL"), ApiError(-1117, "Invalid side."))
    params.required("type")
    types = ("LIMIT", "LIMIT_MAKER", "MARKET", *UNSUPPORTED_TYPES)
    kind = params.one_of("type", types, ApiError(-1116, "Invalid orderType."))
    assert side is not None
    assert kind is not None
    force = params.one_of("timeInForce", ("GTC", "IOC", "FOK"), ApiError(-1115, "Invalid timeInForce."))
    quantity = params.decimal("quantity")
    quote_quantity = params.decimal("quoteOrderQty")
    price = params.decimal("price")
    client_id = params.matching("newClientOrderId", CLIENT_ORDER_ID)
    strategy_id = params.integer("strategyId")
    strategy_type = params.integer("strategyType")
    for name in ("stopPrice", "icebergQty"):
        params.decimal(name)
    params.integer("trailingDelta")
    params.ignore("pegPriceType", "pegOffsetType", "pegOffsetValue")
    answer = params.one_of("newOrderRespType", ("ACK", "RESULT", "FULL"), ApiError(-1136, "Invalid newOrderRespType."))
    prevention = params.one_of(
        "selfTradePreventionMode",
        ("NONE", *STP_MODES),
        not_valid("selfTradePreventionMode"),
    )
    if strategy_type is not None and strategy_type < 1_000_000:
        raise ApiError(-1134, "strategyType was less than 1000000.")
    _check_combination(kind, force, quantity, quote_quantity, price)
    if prevention == "NONE":
        raise ApiError(-1013, "This symbol does not allow the specified self-trade prevention mode.")
    request = OrderRequest(
        symbol=symbol,
        side=side,
        type=kind,
        time_in_force=force or "GTC",
        quantity=quantity,
        quote_quantity=quote_quantity,
        price=price,
        client_order_id=client_id,
        self_trade_prevention=prevention or "EXPIRE_MAKER",
        strategy_id=strategy_id,
        strategy_type=strategy_type,
    )
    return request, answer or ("FULL" if kind in ("MARKET", "LIMIT") else "ACK")


def _check_combination(
    kind: str, force: str | None, quantity: Decimal | None, quote_quantity: Decimal | None, price: Decimal | None
) -> None:
    is_limit = kind.endswith("LIMIT")
    if is_limit and force is None:
        raise missing("timeInForce")
    if not is_limit and force is not None:
        raise not_required("timeInForce")
    if kind == "MARKET":
        if quantity is None and quote_quantity is None:
            raise both_missing("quantity", "quoteOrderQty")
        if quantity is not None and quote_quantity is not None:
            raise bad_combination()
    else:
        if quantity is None:
            raise missing("quantity")
        if quote_quantity is not None:
            raise not_required("quoteOrderQty")
    has_price = is_limit or kind == "LIMIT_MAKER"
    if has_price and price is None:
        raise missing("price")
    if not has_price and price is not None:
        raise not_required("price")


def _check_supported(params: Params, request: OrderRequest) -> None:
    """Refuse the kinds of order that this exchange does not list, with the engine's texts."""
    if request.type in UNSUPPORTED_TYPES:
        raise unsupported(UNSUPPORTED_TYPES[request.type])
    for name, kind in (("icebergQty", "Iceberg"), ("trailingDelta", "Trailing stop"), ("pegPriceType", "Pegged")):
        if params.is_sent(name):
            raise unsupported(kind)
    for name in ("stopPrice", "pegOffsetType", "pegOffsetValue"):
        if params.is_sent(name):
            raise ApiError(-1014, "Unsupported order combination.")


def _get_order(exchange: Exchange, params: Params) -> Action:
    symbol = params.required_symbol()
    order_id, client_id = _order_key(params)

    def run(now: int) -> Any:
        exchange.market(symbol)
        order = exchange.books.find(symbol, order_id, client_id)
        if order is None:
            raise ApiError(-2013, "Order does not exist.")
        if client_id is not None and client_id not in (order.client_order_id, order.original_client_order_id):
            raise ApiError(-2039, "Client order ID is not correct for this order ID.")
        return order_reply(order)

    return run


def _order_key(params: Params) -> tuple[int | None, str | None]:
    order_id = params.integer("orderId")
    client_id = params.text("origClientOrderId")
    if order_id is None and client_id is None:
        raise both_missing("origClientOrderId", "orderId")
    return order_id, client_id


def _cancel_order(exchange: Exchange, params: Params) -> Action:
    symbol = params.required_symbol()
    order_id, client_id = _order_key(params)
    cancel_id = params.matching("newClientOrderId", CLIENT_ORDER_ID)
    restrictions = params.one_of(
        "cancelRestrictions",
        ("ONLY_NEW", "ONLY_PARTIALLY_FILLED"),
        ApiError(-1145, "Invalid cancelRestrictions"),
    )

    def run(now: int) -> Any:
        market = exchange.market(symbol)
        order = exchange.books.find(symbol, order_id, client_id)
        is_other = order is not None and client_id is not None and client_id != order.client_order_id
        if order is None or order.status not in OPEN_STATUSES or (is_other and exchange.profile.name != "us"):
            raise ApiError(-2011, "Unknown order sent.")
        allowed = {"ONLY_NEW": "NEW", "ONLY_PARTIALLY_FILLED": "PARTIALLY_FILLED"}
        if restrictions is not None and order.status != allowed[restrictions]:
            raise ApiError(-2011, "Order was not canceled due to cancel restrictions.")
        exchange.note_requests()
        original = exchange.books.cancel(market.rules, order, cancel_id, exchange.now_ms())
        return cancelled_reply(order, original)

    return run


def _open_orders(exchange: Exchange, params: Params) -> Action:
    symbol = params.symbol()

    def run(now: int) -> Any:
        if symbol is not None:
            exchange.market(symbol)
        return [order_reply(order) for order in exchange.books.open_orders(symbol)]

    return run


def _cancel_all(exchange: Exchange, params: Params) -> Action:
    symbol = params.required_symbol()

    def run(now: int) -> Any:
        market = exchange.market(symbol)
        orders = exchange.books.open_orders(symbol)
        if not orders:
            raise ApiError(-2011, "Unknown order sent.")
        exchange.note_requests()
        moment = exchange.now_ms()
        cancelled: list[tuple[Order, str]] = [
            (order, exchange.books.cancel(market.rules, order, None, moment)) for order in orders
        ]
        return [cancelled_reply(order, original) for order, original in cancelled]

    return run


def _span(params: Params) -> tuple[int | None, int | None]:
    start, end = _time_param(params, "startTime"), _time_param(params, "endTime")
    if start is not None and end is not None and end - start > LONGEST_SPAN_MS:
        raise ApiError(-1127, "More than 24 hours between startTime and endTime.")
    return start, end


def _newest_or_first(items: list[T], from_first: bool, limit: int) -> list[T]:
    """Return the first `limit` items of a list that has a beginning asked for, else the last ones."""
    return items[:limit] if from_first else items[-limit:]


def _all_orders(exchange: Exchange, params: Params) -> Action:
    symbol = params.required_symbol()
    order_id = params.integer("orderId")
    start, end = _span(params)
    limit = params.limit(500, 1000)

    def run(now: int) -> Any:
        exchange.market(symbol)
        orders = [
            order
            for order in exchange.books.orders(symbol)
            if (order_id is None or order.order_id >= order_id)
            and (start is None or order.time >= start)
            and (end is None or order.time <= end)
        ]
        chosen = _newest_or_first(orders, order_id is not None or start is not None, limit)
        return [order_reply(order) for order in chosen]

    return run


MY_TRADES_SETS: tuple[set[str], ...] = (
    set(), {"orderId"}, {"startTime"}, {"endTime"}, {"fromId"}, {"startTime", "endTime"}, {"orderId", "fromId"}
)  # fmt: skip


def _my_trades(exchange: Exchange, params: Params) -> Action:
    symbol = params.required_symbol()
    order_id = params.integer("orderId")
    start, end = _span(params)
    from_id = params.integer("fromId")
    limit = params.limit(500, 1000)
    if {name for name in ("orderId", "startTime", "endTime", "fromId") if params.is_sent(name)} not in MY_TRADES_SETS:
        raise bad_combination()

    def run(now: int) -> Any:
        exchange.market(symbol)
        fills = [
            fill
            for fill in exchange.books.fills
            if fill.symbol == symbol
            and (order_id is None or fill.order_id == order_id)
            and (from_id is None or fill.trade_id >= from_id)
            and (start is None or fill.time >= start)
            and (end is None or fill.time <= end)
        ]
        return [trade_reply(f) for f in _newest_or_first(fills, from_id is not None or start is not None, limit)]

    return run


def _order_counts(exchange: Exchange, params: Params) -> Action:
    def run(now: int) -> Any:
        limits = exchange.order_limits
        moment = exchange.now_ms()
        counts = (limits.ten_seconds.count(moment), limits.day.count(moment))
        return [{**shown, "count": count} for shown, count in zip(_order_rate_limits(exchange), counts, strict=True)]

    return run


ENDPOINTS: Mapping[str, Endpoint] = {
    "GET /api/v3/ping": _ping,
    "GET /api/v3/time": _time,
    "GET /api/v3/exchangeInfo": _exchange_info,
    "GET /api/v3/klines": _klines,
    "GET /api/v3/ticker/price": _ticker_price,
    "GET /api/v3/account": _account,
    "POST /api/v3/order": _new_order,
    "GET /api/v3/order": _get_order,
    "DELETE /api/v3/order": _cancel_order,
    "GET /api/v3/openOrders": _open_orders,
    "DELETE /api/v3/openOrders": _cancel_all,
    "GET /api/v3/allOrders": _all_orders,
    "GET /api/v3/myTrades": _my_trades,
    "GET /api/v3/rateLimit/order": _order_counts,
}
SHOWS_CLOCK = frozenset({"GET /api/v3/time", "GET /api/v3/exchangeInfo"})
SIGNED = frozenset(ENDPOINTS) - {
    "GET /api/v3/ping", "GET /api/v3/time", "GET /api/v3/exchangeInfo", "GET /api/v3/klines", "GET /api/v3/ticker/price"
}  # fmt: skip
