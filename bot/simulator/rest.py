"""Decides what each REST request is answered: the checks in Binance's order, then the endpoint.

Source: the order of checks is assumed by the fact sheet, section 4.3; Binance does not document it.
"""

import contextlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from bot.simulator import private_endpoints as private
from bot.simulator import public_endpoints as public
from bot.simulator import trading_endpoints as trading
from bot.simulator.amounts import exact
from bot.simulator.errors import TEXTS, ApiError, banned
from bot.simulator.exchange import Exchange
from bot.simulator.faults import Fault
from bot.simulator.params import Params, parse_form
from bot.simulator.profiles import (
    DAY_TICKER_WEIGHTS,
    DEPTH_WEIGHTS,
    FREE_WHEN_SUCCESSFUL,
    MY_TRADES_OF_ORDER_WEIGHT,
    TEST_WITH_RATES_WEIGHT,
    WEIGHTS,
)
from bot.simulator.signing import check_key, check_signature, check_timing, read_timing, unsigned

Endpoint = Callable[[Exchange, Params], public.Action]
JSON_TYPE = "application/json;charset=UTF-8"
ORDER_PATH = "/api/v3/order"
NOT_FOUND = (
    b"<html><head><title>404 Not Found</title></head><body><center><h1>404 Not Found</h1></center></body></html>"
)
GONE = (
    b"<html>\r\n<head><title>410 Gone</title></head>\r\n<body>\r\n<center><h1>410 Gone</h1></center>\r\n"
    b"<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
FORBIDDEN = (
    b"<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n<center><h1>403 Forbidden</h1></center>\r\n"
    b"</body>\r\n</html>\r\n"
)
RESTRICTED = (
    "Service unavailable from a restricted location according to 'b. Eligibility' in https://www.binance.com/en/terms. "
    "Please contact customer service if you believe you received this message in error."
)
TIME_KEYS = frozenset(
    {"serverTime", "transactTime", "time", "updateTime", "workingTime", "openTime", "closeTime", "createTime"}
)


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
        given = canned(exchange, request.path, request.method)
        if given is not None:
            reply = given
        elif self._is_new_order(request) and exchange.faults.take("order_lost_no_reply"):
            reply = Reply(0, b"", is_cut=True)
        else:
            reply = self._answer(request)
        slow = exchange.faults.take("delay", request.path, request.method)
        if slow is not None:
            reply.delay_ms = slow.ms
        return reply

    def _answer(self, request: HttpRequest) -> Reply:
        """Handle a request, or answer it with the error that waits for it; `executed`: after carrying it out."""
        exchange = self._exchange
        fault = exchange.faults.peek("error", request.path, request.method)
        if fault is None:
            return self._handle(request)
        if not fault.executed:
            exchange.faults.take("error", request.path, request.method)
            return self._handle(request, fault)
        reply = self._handle(request)
        if reply.status != 200:
            return reply
        exchange.faults.take("error", request.path, request.method)
        error = documented(fault, exchange)
        return Reply(error.status, msgspec.json.encode(error.body()), {**reply.headers, **_retry_after(error)})

    @staticmethod
    def _is_new_order(request: HttpRequest) -> bool:
        return request.method == "POST" and request.path == ORDER_PATH

    def _handle(self, request: HttpRequest, refusal: Fault | None = None) -> Reply:
        exchange = self._exchange
        now = exchange.now_ms()
        key = f"{request.method} {request.path}"
        texts: dict[str, str] = {}
        weight = weight_of(key, request)
        try:
            exchange.request_limits.admit(request.address, weight, now)
            if refusal is not None:
                raise documented(refusal, exchange)
            endpoint = ENDPOINTS.get(key)
            if key in KEY_ONLY and not exchange.profile.listen_keys:
                return self._with_headers(Reply(410, GONE, content_type="text/html"), request, now)
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
            is_lost = refusal is not None and error.status >= 500
            if self._is_new_order(request) and not is_lost:
                if not texts:  # refused before its parameters were read
                    with contextlib.suppress(ApiError):
                        texts = _values(request)
                exchange.note_requests()
                exchange.books.note_rejected(texts, error.code, now)
            reply = Reply(error.status, msgspec.json.encode(error.body()), _retry_after(error))
            return self._with_headers(reply, request, now)

    def _run(self, endpoint: Endpoint, key: str, request: HttpRequest, texts: dict[str, str]) -> Any:
        exchange = self._exchange
        if key in SIGNED or key in KEY_ONLY:
            check_key(request.headers.get("x-mbx-apikey"), exchange.api_key)
        unit = request.headers.get("x-mbx-time-unit", "MILLISECOND") if exchange.profile.microseconds else "MILLISECOND"
        if unit.upper() not in ("MICROSECOND", "MILLISECOND"):
            raise ApiError(-1194, "Invalid value for time unit; expected either MICROSECOND or MILLISECOND.")
        texts.update(_values(request))
        payload = unsigned(request.query) + unsigned(request.body)
        body = perform(exchange, endpoint, Params(texts), key in SIGNED, payload, key in SHOWS_CLOCK)
        return in_microseconds(body) if unit.upper() == "MICROSECOND" else body

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


def documented(fault: Fault, exchange: Exchange) -> ApiError:
    """Return the error that a fault of kind `error` asks for: the code's text, HTTP status and Retry-After."""
    now, code = exchange.now_ms(), fault.code
    error = ApiError(code, fault.message or TEXTS[code], fault.status or None, fault.retry_after)
    if error.retry_after_s is None and error.status in (418, 429):
        if code == -1015 and exchange.profile.order_limit_sends_retry_after:
            error.retry_after_s = exchange.order_limits.ten_seconds.seconds_left(now)
        elif code != -1015:
            error.retry_after_s = exchange.request_limits.seconds_left(now)
    if error.status == 418 and fault.message is None:
        error.message = banned(now + 1000 * (error.retry_after_s or 0))
    return error


def _retry_after(error: ApiError) -> dict[str, str]:
    return {} if error.retry_after_s is None else {"Retry-After": str(error.retry_after_s)}


def canned(exchange: Exchange, path: str, method: str) -> Reply | None:
    """Return the reply that a fault gives instead of handling a request: reply, waf, region; None if none waits."""
    if exchange.faults.take("waf", path, method):
        return Reply(403, FORBIDDEN, content_type="text/html")
    if exchange.faults.take("region", path, method):
        return Reply(451, msgspec.json.encode({"code": 0, "msg": RESTRICTED}))
    fault = exchange.faults.take("reply", path, method)
    if fault is None:
        return None
    is_json = fault.body.lstrip().startswith(("{", "["))
    headers = dict(fault.headers or {})
    chosen = [headers.pop(name) for name in list(headers) if name.lower() == "content-type"]
    content_type = chosen[0] if chosen else JSON_TYPE if is_json else "text/html"
    return Reply(fault.status, fault.body.encode(), headers, content_type)


def perform(
    exchange: Exchange, endpoint: Endpoint, params: Params, is_signed: bool, payload: bytes, shows_clock: bool
) -> Any:
    """Read the parameters, check time and signature (of `payload`), act, and return the reply's body.

    `shows_clock`: an unsigned request that sees the clock, which may be a wrong one by order of a fault. Raises
    ApiError.
    """
    action = endpoint(exchange, params)
    now = exchange.now_ms()
    if is_signed:
        timing = read_timing(params, exchange.profile.microseconds)
        sent = params.required("signature")
        params.finish()
        now += exchange.faults.skew_ms()
        check_timing(timing, now)
        check_signature(exchange.api_secret, payload, sent)
    else:
        params.finish()
        if shows_clock:
            now += exchange.faults.skew_ms()
    return action(now)


def weight_of(key: str, request: HttpRequest) -> int:
    """Return what a request costs. Source: Binance, weights."""
    try:
        sent = _values(request)
    except ApiError:  # refused for that later
        sent = {}
    if key == "GET /api/v3/depth":
        limit = sent.get("limit", "100")
        return _step(DEPTH_WEIGHTS, min(int(limit), 5000) if limit.isdecimal() and len(limit) < 20 else 100)
    if key == "GET /api/v3/ticker/24hr":
        named = 1 if "symbol" in sent else sent["symbols"].count(",") + 1 if "symbols" in sent else 10**9
        return _step(DAY_TICKER_WEIGHTS, named)
    if key == "GET /api/v3/myTrades" and "orderId" in sent:
        return MY_TRADES_OF_ORDER_WEIGHT
    if key == "POST /api/v3/order/test" and sent.get("computeCommissionRates") == "true":
        return TEST_WITH_RATES_WEIGHT
    with_symbol, without = WEIGHTS.get(key, (1, 1))
    return with_symbol if "symbol" in sent else without


def _step(weights: tuple[tuple[int, int], ...], value: int) -> int:
    return next(weight for limit, weight in weights if value <= limit)


def _values(request: HttpRequest) -> dict[str, str]:
    """Return the parameters of query and body; of a name in both the query's value counts."""
    values = parse_form(request.query.decode("latin-1"))
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if request.body and content_type in ("", "application/x-www-form-urlencoded"):
        values = parse_form(request.body.decode("latin-1")) | values
    return values


def in_microseconds(value: Any) -> Any:
    """Return a reply with its times in microseconds. Source: Binance, X-MBX-TIME-UNIT."""
    if isinstance(value, list):
        if len(value) == 12 and isinstance(value[0], int):
            return [value[0] * 1000, *value[1:6], (value[6] + 1) * 1000 - 1, *value[7:]]
        return [in_microseconds(item) for item in value]
    if isinstance(value, dict):
        return {
            name: item * 1000 if name in TIME_KEYS and item >= 0 else in_microseconds(item)
            for name, item in value.items()
        }
    return value


ENDPOINTS: Mapping[str, Endpoint] = {
    "GET /api/v3/ping": public.ping,
    "GET /api/v3/time": public.time,
    "GET /api/v3/exchangeInfo": public.exchange_info,
    "GET /api/v3/klines": public.klines,
    "GET /api/v3/avgPrice": public.average_price,
    "GET /api/v3/depth": public.depth,
    "GET /api/v3/ticker/24hr": public.day_ticker,
    "GET /api/v3/ticker/price": public.ticker_price,
    "GET /api/v3/ticker/bookTicker": public.book_ticker,
    "GET /api/v3/account": private.account,
    "POST /api/v3/order": trading.new_order,
    "GET /api/v3/order": private.get_order,
    "DELETE /api/v3/order": trading.cancel_order,
    "GET /api/v3/openOrders": private.open_orders,
    "DELETE /api/v3/openOrders": trading.cancel_all,
    "GET /api/v3/allOrders": private.all_orders,
    "GET /api/v3/myTrades": private.my_trades,
    "GET /api/v3/rateLimit/order": private.order_counts,
    "POST /api/v3/order/test": trading.try_order,
    "GET /api/v3/account/commission": private.commission,
    "GET /api/v3/myFilters": private.my_filters,
    "GET /sapi/v1/account/apiRestrictions": private.api_restrictions,
    "GET /sapi/v1/system/status": public.system_status,
    "POST /api/v3/userDataStream": private.create_listen_key,
    "PUT /api/v3/userDataStream": private.extend_listen_key,
    "DELETE /api/v3/userDataStream": private.close_listen_key,
}
KEY_ONLY = frozenset(key for key in ENDPOINTS if key.endswith("/userDataStream"))  # the API key and no signature
SHOWS_CLOCK = frozenset({"GET /api/v3/time", "GET /api/v3/exchangeInfo"})
SIGNED = frozenset(key for key, endpoint in ENDPOINTS.items() if endpoint.__module__ != public.__name__) - KEY_ONLY
