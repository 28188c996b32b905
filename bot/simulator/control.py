"""Decides what the exchange's own paths /sim/... do: set a price, step, change rules, order a fault, show the books.

Source: contract, section 7; `docs/simulator.md` has an example of each. Beside the contract's there are:

* `POST /sim/symbol {"symbol", "status"?, "filters"?, "orderTypes"?, "permissionSets"?, "quoteOrderQtyMarketAllowed"?,
  "isSpotTradingAllowed"?}` changes the rules of a symbol as exchangeInfo shows them, until the process ends. A symbol
  that is not TRADING has no new prices and takes no order; cancels only in CANCEL_ONLY.
* `POST /sim/account {"canTrade"?, "canWithdraw"?, "canDeposit"?, "ipRestrict"?, "enableReading"?, "enableWithdrawals"?,
  "enableSpotAndMarginTrading"?, "permissions"?}` changes what the account and its API key may do.
* fault `error {"code", "message"?, "status"?, "retry_after"?, "path"?, "method"?, "executed"?}`: a request is answered
  with a documented code, its text and HTTP status; with `executed` after it was carried out, if it was not refused.

Where the contract leaves it open:

* `order_executed_*` wait for an order that is executed: one that is refused is answered and does not use them up.
* `delay` holds back the reply; the request is handled at once.
* `ws_cut`, `ws_silent` and `ws_frame` befall all connections, the first time at once if there is one, each further
  time when the next kline is to be sent to a connection that is not silent. A silent connection gets nothing at all, no
  ping and no reply; one that is opened meanwhile works.
* `ws_duplicate` and `ws_late` count updates of one stream; late is the update before, sent again after the newer one.
* `clock_skew` counts requests that read the clock (signed ones, time, exchangeInfo); without a `count` it stays until
  another replaces it, 0 ms ends it. Everything but the clock that a request sees goes by the true time.
* `server_shutdown` tells all websocket connections, each in its own form, and closes them `ms` later (0 if it is not
  given); it waits until there is one.
* `ws_*` are for market streams, `user_*` for the connections that carry user data: those of the WebSocket API that are
  subscribed, and those that listen by a listenKey.
* `user_cut`, `user_silent` and `user_frame` are to user data connections what `ws_cut`, `ws_silent` and `ws_frame` are
  to the others; a further time comes with the next change of the account.
* `user_lost` and `user_duplicate` count events: lost is never sent, duplicate is sent twice, with the same ids.
* Events leave before the reply to the request that caused them. `user_late` counts changes of the account (an order
  with all its events): they are held back that long, and what comes after waits behind them. With a `delay` of the
  reply the events come that much before it.
* Faults of orders befall `order.place` too. `ws_api_lost_no_reply` and `ws_api_executed_no_reply` are the same for
  `order.place` alone. `reply` and `delay` find a request of the WebSocket API under the path /ws-api/v3 and its method
  ("order.place"), or as the REST request that it stands for ("/api/v3/order", "POST"). A `reply` of JSON is sent as the
  result, or from status 400 on as the error, of a reply with that status; another text is sent as it is.
* `GET /sim/state` counts requests of the WebSocket API under their methods, and its connections under /ws-api/v3.
* `POST /sim/balance {"asset", "free"}` sets a free balance as a deposit or a withdrawal does. Answers `{}`.
"""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import msgspec

from bot.simulator.amounts import decimals
from bot.simulator.connections import Connections
from bot.simulator.errors import ApiError
from bot.simulator.exchange import Exchange
from bot.simulator.faults import ControlError, amount, read_fault
from bot.simulator.recorded import read_filters
from bot.simulator.rest import HttpRequest, Reply
from bot.simulator.streams import Frame, StreamHub
from bot.simulator.user_stream import UserStream

PRICE_DECIMALS = 8


class Control:
    """Answers the paths /sim/...; they count no weight."""

    def __init__(self, exchange: Exchange, connections: Connections, hub: StreamHub, user_stream: UserStream) -> None:
        self._exchange = exchange
        self._connections = connections
        self._hub = hub
        self._user_stream = user_stream

    def respond(self, request: HttpRequest) -> Reply:
        """Return the reply; bad input gets 400 with one clear line of plain text."""
        actions: dict[str, Callable[[], Any]] = {
            "GET /sim/state": self._exchange.state,
            "POST /sim/price": lambda: self._price(request.body),
            "POST /sim/fault": lambda: self._fault(request.body),
            "POST /sim/symbol": lambda: self._symbol_rules(request.body),
            "POST /sim/account": lambda: self._account(request.body),
            "POST /sim/balance": lambda: self._balance(request.body),
            "POST /sim/next": self._next,
        }
        action = actions.get(f"{request.method} {request.path}")
        if action is None:
            return _refusal(404, f"no such path; there are {', '.join(actions)}")
        try:
            return Reply(200, _encoded(action()))
        except ControlError as error:
            return _refusal(400, str(error))
        except ApiError as error:
            return _refusal(400, error.message)

    def _price(self, body: bytes) -> dict[str, Any]:
        values = _object(body)
        unknown = set(values) - {"symbol", "price"}
        if unknown or set(values) != {"symbol", "price"}:
            raise ControlError('the body must be {"symbol": ..., "price": ...}')
        symbol = self._symbol(values)
        try:
            price = amount(values["price"])
        except ControlError as error:
            raise ControlError(f"price {error}, not {values['price']!r}") from None
        if price <= 0 or decimals(price) > PRICE_DECIMALS or price.adjusted() > 12:
            raise ControlError(f"price must be above 0 and have at most {PRICE_DECIMALS} decimals, not {price}")
        self._exchange.set_price(symbol, price)
        return {}

    def _symbol(self, values: dict[str, Any]) -> str:
        symbol = values.get("symbol")
        if not isinstance(symbol, str) or symbol not in self._exchange.markets:
            raise ControlError(f"symbol {symbol!r} is not one of {', '.join(self._exchange.markets)}")
        return symbol

    def _symbol_rules(self, body: bytes) -> dict[str, Any]:
        values = _fields(_object(body), {"symbol": None, **SYMBOL_FIELDS})
        symbol = self._symbol(values)
        status, filters = values.get("status"), values.get("filters")
        if status not in (None, *SYMBOL_STATUSES):
            raise ControlError(f"status {status!r} is not one of {', '.join(SYMBOL_STATUSES)}")
        try:
            read = None if filters is None else read_filters(filters)
        except ValueError as error:
            raise ControlError(str(error)) from None
        more = {name: values.get(name) for name in SYMBOL_FIELDS if name not in ("status", "filters")}
        self._exchange.set_symbol(symbol, status, read, **more)
        return {}

    def _account(self, body: bytes) -> dict[str, Any]:
        for name, value in _fields(_object(body), ACCOUNT_FIELDS).items():
            setattr(self._exchange.rights, ACCOUNT_NAMES[name], tuple(value) if isinstance(value, list) else value)
        return {}

    def _fault(self, body: bytes) -> dict[str, Any]:
        self._exchange.faults.add(read_fault(_object(body)))
        self._connections.fault_added()
        self._hub.fault_added()
        self._user_stream.fault_added()
        return {}

    def _balance(self, body: bytes) -> dict[str, Any]:
        values = _object(body)
        if set(values) != {"asset", "free"}:
            raise ControlError('the body must be {"asset": ..., "free": ...}')
        asset = values["asset"]
        if not isinstance(asset, str) or not asset.isascii() or not asset.isalnum() or asset != asset.upper():
            raise ControlError(f"asset must be upper-case letters and digits, not {asset!r}")
        try:
            free = amount(values["free"])
        except ControlError as error:
            raise ControlError(f"free {error}, not {values['free']!r}") from None
        if free < 0 or decimals(free) > PRICE_DECIMALS or free.adjusted() > 15:
            raise ControlError(f"free must be at least 0 and have at most {PRICE_DECIMALS} decimals, not {free}")
        self._exchange.books.set_free(asset, free, self._exchange.now_ms())
        return {}

    def _next(self) -> Any:
        if not self._exchange.config.step:
            raise ControlError("the exchange was not started with --step: its klines come by themselves")
        served = self._exchange.next_step()
        if served is None:
            return None
        symbol, interval, candle = served
        event_ms = candle.close_time + 1
        self._hub.publish(symbol, interval, candle, True, event_ms)
        frame = Frame("", symbol, interval, candle, True, event_ms)
        return msgspec.Raw(frame.text(is_combined=False, is_micro=False).encode())


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "must be true or false"


def _texts(value: Any) -> str | None:
    fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
    return None if fits else "must be an array of strings"


def _sets(value: Any) -> str | None:
    fits = isinstance(value, list) and all(_texts(group) is None for group in value)
    return None if fits else "must be an array of arrays of strings"


_Check = Callable[[Any], str | None]
SYMBOL_STATUSES = ("TRADING", "HALT", "BREAK", "END_OF_DAY", "CANCEL_ONLY")
SYMBOL_FIELDS: Mapping[str, _Check | None] = {
    "status": None,
    "filters": None,
    "orderTypes": _texts,
    "permissionSets": _sets,
    "quoteOrderQtyMarketAllowed": _flag,
    "isSpotTradingAllowed": _flag,
}
ACCOUNT_NAMES: Mapping[str, str] = {
    "canTrade": "can_trade",
    "canWithdraw": "can_withdraw",
    "canDeposit": "can_deposit",
    "ipRestrict": "ip_restrict",
    "enableReading": "enable_reading",
    "enableWithdrawals": "enable_withdrawals",
    "enableSpotAndMarginTrading": "enable_spot_and_margin_trading",
    "permissions": "permissions",
}
ACCOUNT_FIELDS: Mapping[str, _Check | None] = {
    name: _texts if name == "permissions" else _flag for name in ACCOUNT_NAMES
}


def _fields(values: dict[str, Any], checks: Mapping[str, _Check | None]) -> dict[str, Any]:
    """Return `values`, each field known and fit; None stands for a check made elsewhere. Raises ControlError."""
    for name, value in values.items():
        if name not in checks:
            raise ControlError(f"{name!r} is not one of the fields {', '.join(checks)}")
        check = checks[name]
        trouble = check(value) if check is not None else None
        if trouble is not None:
            raise ControlError(f"{name} {trouble}, not {value!r}")
    return values


def _object(body: bytes) -> dict[str, Any]:
    try:
        values = json.loads(body, parse_float=Decimal)
    except ValueError:
        raise ControlError("the body is not JSON") from None
    if not isinstance(values, dict):
        raise ControlError("the body must be a JSON object")
    return values


def _encoded(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _refusal(status: int, line: str) -> Reply:
    return Reply(status, f"{line}\n".encode(), content_type="text/plain")
