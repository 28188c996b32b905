"""Decides what each request of the WebSocket API is answered: its envelope, then the same endpoints as REST.

Source: Binance, WebSocket API. Texts of malformed requests, and that an HMAC key's logon is -4056: observed.
"""

import json
import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import msgspec

from bot.simulator.amounts import exact
from bot.simulator.errors import TEXTS, ApiError, missing
from bot.simulator.exchange import Exchange
from bot.simulator.faults import Fault
from bot.simulator.params import Params
from bot.simulator.profiles import FREE_WHEN_SUCCESSFUL
from bot.simulator.public_endpoints import Action
from bot.simulator.rest import (
    ENDPOINTS,
    KEY_ONLY,
    SHOWS_CLOCK,
    SIGNED,
    Endpoint,
    HttpRequest,
    documented,
    in_microseconds,
    perform,
    weight_of,
)
from bot.simulator.signing import check_key, sorted_payload

WS_API_PATH = "/ws-api/v3"
CONNECT_WEIGHT = 2
SESSION_WEIGHT = 2
LAST_SUBSCRIPTION = 65_535
PLACE = "order.place"
_ID = re.compile(r"[a-zA-Z0-9\-_]{1,36}")
# method -> the REST endpoint that it shares
METHODS: Mapping[str, str] = {
    "ping": "GET /api/v3/ping",
    "time": "GET /api/v3/time",
    "exchangeInfo": "GET /api/v3/exchangeInfo",
    "depth": "GET /api/v3/depth",
    "klines": "GET /api/v3/klines",
    "avgPrice": "GET /api/v3/avgPrice",
    "ticker.24hr": "GET /api/v3/ticker/24hr",
    "ticker.price": "GET /api/v3/ticker/price",
    "ticker.book": "GET /api/v3/ticker/bookTicker",
    PLACE: "POST /api/v3/order",
    "order.test": "POST /api/v3/order/test",
    "order.status": "GET /api/v3/order",
    "order.cancel": "DELETE /api/v3/order",
    "openOrders.status": "GET /api/v3/openOrders",
    "openOrders.cancelAll": "DELETE /api/v3/openOrders",
    "allOrders": "GET /api/v3/allOrders",
    "myTrades": "GET /api/v3/myTrades",
    "account.status": "GET /api/v3/account",
    "account.commission": "GET /api/v3/account/commission",
    "account.rateLimits.orders": "GET /api/v3/rateLimit/order",
    "myFilters": "GET /api/v3/myFilters",
    "userDataStream.start": "POST /api/v3/userDataStream",
    "userDataStream.ping": "PUT /api/v3/userDataStream",
    "userDataStream.stop": "DELETE /api/v3/userDataStream",
}
SIGNED_SESSION_METHODS = frozenset({"session.logon", "userDataStream.subscribe.signature"})


@dataclass
class Session:
    """What one connection has agreed upon. `subscription`: the id of its user data stream, if it has one."""

    address: str
    connected_since: int
    returns_limits: bool = True
    is_micro: bool = False
    subscription: int | None = None
    subscriptions: int = 0


@dataclass
class Answer:
    """Frames to send, in their order. `is_cut`: the connection is dropped instead; `closes`: it ends after them.

    `is_good`: the request was carried out.
    """

    frames: list[str]
    is_cut: bool = False
    closes: bool = False
    is_good: bool = True
    delay_ms: int = 0


@dataclass(frozen=True)
class _Call:
    id: int | str | None
    method: str
    texts: dict[str, str] = field(repr=False)

    @property
    def key(self) -> str:
        """The REST endpoint's method and path; empty where there is none."""
        return METHODS.get(self.method, "")


class WsApi:
    """Answers requests, one at a time, without waiting for anything."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    @exact
    def respond(self, session: Session, text: str) -> Answer:
        """Return the answer to one text frame, faults included."""
        try:
            call = _read(text)
        except ApiError as malformed:
            return self._refused(session, None, self._charged(session, malformed), session.returns_limits)
        try:
            return self._respond(session, call)
        except sqlite3.Error:  # a full disk; what was asked may or may not be in the books
            return self._refused(session, call, ApiError(-1000, TEXTS[-1000]), session.returns_limits)

    def _charged(self, session: Session, malformed: ApiError) -> ApiError:
        try:
            self._exchange.request_limits.admit(session.address, 1, self._exchange.now_ms())
        except ApiError as limited:
            return limited
        return malformed

    def _respond(self, session: Session, call: _Call) -> Answer:
        faults = self._exchange.faults
        if self._is_offered(call.method):
            self._exchange.requests[call.method] += 1
        given = self._take("reply", call)
        if given is not None:
            answer = Answer([_given_frame(call, given)])
        elif call.method == PLACE and (faults.take("ws_api_lost_no_reply") or faults.take("order_lost_no_reply")):
            answer = Answer([], is_cut=True)
        else:
            answer = self._answer(session, call)
        slow = self._take("delay", call)
        if slow is not None:
            answer.delay_ms = slow.ms
        return answer

    def _answer(self, session: Session, call: _Call) -> Answer:
        """Handle a request, or answer it with the error that waits for it; `executed`: after carrying it out."""
        fault = self._peek("error", call)
        if fault is None:
            return self._handle(session, call)
        if not fault.executed:
            self._take("error", call)
            return self._handle(session, call, fault)
        answer = self._handle(session, call)
        if not answer.is_good:
            return answer
        self._take("error", call)
        return self._refused(session, call, documented(fault, self._exchange), session.returns_limits)

    def _peek(self, kind: str, call: _Call) -> Fault | None:
        """Return a waiting fault that names this request as the WebSocket API does, or else as REST does."""
        faults = self._exchange.faults
        method, _, path = call.key.partition(" ")
        return faults.peek(kind, WS_API_PATH, call.method) or (faults.peek(kind, path, method) if path else None)

    def _take(self, kind: str, call: _Call) -> Fault | None:
        fault = self._peek(kind, call)
        return fault and self._exchange.faults.take(kind, fault.path, fault.method)

    def _is_offered(self, method: str) -> bool:
        profile = self._exchange.profile
        key = METHODS.get(method)
        if key is not None:
            return key not in KEY_ONLY or profile.listen_keys
        if method in ("session.logon", "session.status", "session.logout", "userDataStream.subscribe"):
            return profile.sessions
        streams = ("userDataStream.subscribe.signature", "userDataStream.unsubscribe", "session.subscriptions")
        return method in streams and profile.subscribe_signature

    def _handle(self, session: Session, call: _Call, refusal: Fault | None = None) -> Answer:
        exchange = self._exchange
        now = exchange.now_ms()
        shows_limits = session.returns_limits
        weight = self._weight(call)
        try:
            exchange.request_limits.admit(session.address, weight, now)
            if refusal is not None:
                raise documented(refusal, exchange)
            params = Params(call.texts)
            wish = params.boolean("returnRateLimits")
            shows_limits = shows_limits if wish is None else wish
            before = session.subscription
            result = self._run(session, call, params)
            if exchange.profile.free_successful_orders and call.key in FREE_WHEN_SUCCESSFUL:
                exchange.request_limits.refund(session.address, weight, now)
        except ApiError as error:
            is_lost = refusal is not None and error.status >= 500
            if call.method == PLACE and not is_lost:
                exchange.note_requests()
                exchange.books.note_rejected(call.texts, error.code, now)
            return self._refused(session, call, error, shows_limits)
        if session.is_micro:
            result = in_microseconds(result)
        answer = Answer([self._frame(session, call, 200, {"result": result}, shows_limits)])
        if before is not None and session.subscription is None and exchange.profile.sessions:
            ended = {"e": "eventStreamTerminated", "E": now * 1000 if session.is_micro else now}
            answer.frames.append(encoded({"subscriptionId": before, "event": ended}))
        return self._after_order(session, call, answer, shows_limits) if call.method == PLACE else answer

    def _weight(self, call: _Call) -> int:
        method, _, path = call.key.partition(" ")
        if not path:
            return SESSION_WEIGHT if self._is_offered(call.method) else 1
        query = urlencode(call.texts, errors="replace").encode()
        return weight_of(call.key, HttpRequest(method, path, query))

    def _run(self, session: Session, call: _Call, params: Params) -> Any:
        exchange = self._exchange
        if not self._is_offered(call.method):
            # Source: observed on Binance's futures; what spot says is not documented.
            raise ApiError(-5000, f"Method {call.method} is invalid")
        is_signed = call.key in SIGNED or call.method in SIGNED_SESSION_METHODS
        if is_signed or call.key in KEY_ONLY:
            if not params.is_sent("apiKey"):
                raise missing("apiKey")
            check_key(params.text("apiKey"), exchange.api_key)
        else:
            params.ignore("apiKey")
        endpoint = ENDPOINTS[call.key] if call.key else _session_endpoint(session, call.method)
        return perform(exchange, endpoint, params, is_signed, sorted_payload(call.texts), call.key in SHOWS_CLOCK)

    def _after_order(self, session: Session, call: _Call, answer: Answer, shows_limits: bool) -> Answer:
        faults = self._exchange.faults
        broken = faults.take("order_executed_5xx")
        if broken is not None:
            unknown = ApiError(-1007, TEXTS[-1007])
            if not broken.body:
                unknown.status = broken.status or unknown.status
                return self._refused(session, call, unknown, shows_limits)
            return Answer([_given_frame(call, broken)])
        answer.is_cut = bool(faults.take("ws_api_executed_no_reply") or faults.take("order_executed_no_reply"))
        return answer

    def _refused(self, session: Session, call: _Call | None, error: ApiError, shows_limits: bool) -> Answer:
        body = error.body()
        if error.retry_after_s is not None:
            now = self._exchange.now_ms()
            until = now + error.retry_after_s * 1000
            # Windows end with a second; a ban ends within the last one counted.
            body["data"] = {"serverTime": now, "retryAfter": until // 1000 * 1000 if error.status == 429 else until}
        frame = self._frame(session, call, error.status, {"error": body}, shows_limits)
        return Answer([frame], closes=error.status == 418, is_good=False)

    def _frame(
        self, session: Session, call: _Call | None, status: int, content: Mapping[str, Any], shows_limits: bool
    ) -> str:
        frame = {"id": call.id if call is not None else None, "status": status, **content}
        if shows_limits:
            frame["rateLimits"] = self._limits(session, call is not None and call.method == PLACE)
        return encoded(frame)

    def _limits(self, session: Session, is_order: bool) -> list[dict[str, Any]]:
        exchange = self._exchange
        now = exchange.now_ms()
        shown = ENDPOINTS["GET /api/v3/rateLimit/order"](exchange, Params({}))(now) if is_order else []
        weight = {
            "rateLimitType": "REQUEST_WEIGHT",
            "interval": "MINUTE",
            "intervalNum": 1,
            "limit": exchange.profile.weight_per_minute,
            "count": exchange.request_limits.used_weight(session.address, now),
        }
        return [*shown, weight]


def encoded(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _given_frame(call: _Call, fault: Fault) -> str:
    """Return a fault's body as the result or the error of a reply, or as it is where it is no JSON."""
    try:
        body = json.loads(fault.body)
    except ValueError:
        return fault.body
    return encoded({"id": call.id, "status": fault.status, "result" if fault.status < 400 else "error": body})


class _Number(str):
    """A JSON number that is no integer, as it was written."""


def _read(text: str) -> _Call:
    """Return the request that a frame holds. Raises ApiError -1135, -1101 for a name that stands in it twice."""
    try:
        message = json.loads(text, parse_float=_Number, parse_constant=_refuse_constant, object_pairs_hook=_pairs)
        if "\\u" in text:
            json.dumps(message, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        raise ApiError(-1135, "Invalid JSON Request") from None
    if not isinstance(message, dict):
        raise ApiError(-1135, "Invalid JSON Request")
    request_id, method, params = message.get("id"), message.get("method"), message.get("params", {})
    is_name = isinstance(request_id, str) and not isinstance(request_id, _Number) and _ID.fullmatch(request_id)
    is_number = isinstance(request_id, int) and not isinstance(request_id, bool) and -(2**63) <= request_id < 2**63
    if not (request_id is None or is_name or is_number):
        raise ApiError(
            -1135,
            "Invalid 'id' in JSON request; expected an integer, a string matching '^[a-zA-Z0-9-_]{1,36}$', or null.",
        )
    if not isinstance(method, str) or isinstance(method, _Number):
        raise ApiError(-1135, "Invalid 'method' in JSON request; expected a string.")
    if not isinstance(params, dict):
        raise ApiError(-1135, "Invalid 'params' in JSON request; expected an object.")
    texts = {name: _param_text(name, value) for name, value in params.items()}
    return _Call(request_id, method.removeprefix("v3/"), texts)


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ApiError(-1101, "Duplicate values for a parameter detected.")
    return found


def _param_text(name: str, value: Any) -> str:
    """Return a parameter as REST would carry it. A list is a JSON array there."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | str():
            return str(value)
        case list() if all(type(item) is str for item in value):
            return encoded(value)
        case None:
            return ""
        case _:
            raise missing(name)


def _session_endpoint(session: Session, method: str) -> Endpoint:
    """Return what a method does that concerns the connection itself."""
    endpoints: Mapping[str, Endpoint] = {
        "session.logon": lambda exchange, params: _refuse_logon,
        "session.status": lambda exchange, params: lambda now: _status(session, exchange),
        "session.logout": lambda exchange, params: lambda now: _status(session, exchange),
        "session.subscriptions": lambda exchange, params: lambda now: _subscriptions(session),
        "userDataStream.subscribe": lambda exchange, params: _refuse_subscribe,
        "userDataStream.subscribe.signature": lambda exchange, params: lambda now: _subscribe(session),
        "userDataStream.unsubscribe": lambda exchange, params: _unsubscribe(session, params),
    }
    return endpoints[method]


def _refuse_logon(now: int) -> Any:
    raise ApiError(-4056, "HMAC_SHA256 API key is not supported.")


def _refuse_subscribe(now: int) -> Any:
    """No session is ever logged on here, since the account's key is HMAC. Source: the code is not documented."""
    raise ApiError(-2015, "Invalid API-key, IP, or permissions for action.")


def _status(session: Session, exchange: Exchange) -> dict[str, Any]:
    scale = 1000 if session.is_micro else 1  # serverTime is scaled with the whole reply
    return {
        "apiKey": None,
        "authorizedSince": None,
        "connectedSince": session.connected_since * scale,
        "returnRateLimits": session.returns_limits,
        "serverTime": exchange.now_ms(),
        "userDataStream": session.subscription is not None,
    }


def _subscriptions(session: Session) -> list[dict[str, int]]:
    return [{"subscriptionId": session.subscription}] if session.subscription is not None else []


def _subscribe(session: Session) -> dict[str, int]:
    if session.subscription is not None:
        raise ApiError(-2035, "User Data Stream subscription already active.")
    if session.subscriptions > LAST_SUBSCRIPTION:
        raise ApiError(-2042, "Maximum subscription ID reached for this connection.")
    session.subscription = session.subscriptions
    session.subscriptions += 1
    return {"subscriptionId": session.subscription}


def _unsubscribe(session: Session, params: Params) -> Action:
    wanted = params.integer("subscriptionId")

    def run(now: int) -> Any:
        if session.subscription is None or wanted not in (None, session.subscription):
            raise ApiError(-2036, "User Data Stream subscription not active.")
        session.subscription = None
        return {}

    return run
