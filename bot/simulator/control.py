"""Decides what the exchange's own paths /sim/... do: set a price, step, change rules, order a fault, show the books.

Source: contract, section 7; `docs/simulator.md` has an example of each. Beside the contract's there are:

* `POST /sim/symbol {"symbol", "status"?, "filters"?, "orderTypes"?, "permissionSets"?, "quoteOrderQtyMarketAllowed"?,
  "isSpotTradingAllowed"?}` changes the rules of a symbol as exchangeInfo shows them, until the process ends. A symbol
  that is not TRADING has no new prices and takes no order; cancels only in CANCEL_ONLY.
* `POST /sim/account {"canTrade"?, "canWithdraw"?, "canDeposit"?, "ipRestrict"?, "enableReading"?, "enableWithdrawals"?,
  "enableSpotAndMarginTrading"?, "permissions"?}` changes what the account and its API key may do.
* `POST /sim/depth {"symbol", "levels": [[price, quantity], ...] | "bids"?, "asks"? | "thin"}`: levels below the last
  price are bids, the others asks; they stay, over moves of the price, until they are taken or replaced. `thin` true:
  three small levels a side that go with the price; false: the usual book.
* `POST /sim/commission {"mode"?: "received" | "bnb" | "asset", "asset"?, "price"?, "rate"?, "maker"?, "taker"?}`: what
  is not given stays. `price`: of BNB or the asset, in any quote asset; without it that of its market here, or a usual
  one.
* `POST /sim/reset`: orders and trades vanish, ids and balances begin anew; candles, faults and the rules above stay.
* fault `order_status {"status", "fraction"?}`: so much of a new order fills at most, the rest ends EXPIRED,
  EXPIRED_IN_MATCH, CANCELED, or REJECTED (without a fill).
* faults `waf` (403, HTML) and `region` (451), each `{"path"?, "method"?}`; websocket handshakes too.
* faults `rate_limit {"ms"?, "strikes"?, "ban_ms"?}` and `ban {"ms"?}` begin with the next request, for its address:
  429 with Retry-After for `ms` (else to the minute's end), after `strikes` of them 418 for `ban_ms`, doubled each time.
* fault `ws_gap {"closed"?}`: a kline update is not sent to anybody; `closed`: only a closing one.
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

from bot.simulator.connections import Connections
from bot.simulator.control_input import (
    ControlError,
    Reader,
    amount,
    asset,
    flag,
    fraction,
    levels,
    one_of,
    positive,
    read_fields,
    string,
    text_sets,
    texts,
)
from bot.simulator.depth import Depth
from bot.simulator.errors import ApiError
from bot.simulator.exchange import Exchange
from bot.simulator.faults import read_fault
from bot.simulator.fees import MODES, THIRD
from bot.simulator.recorded import read_filters
from bot.simulator.rest import HttpRequest, Reply
from bot.simulator.streams import Frame, StreamHub
from bot.simulator.user_stream import UserStream


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
            "POST /sim/depth": lambda: self._depth(request.body),
            "POST /sim/commission": lambda: self._commission(request.body),
            "POST /sim/reset": lambda: self._reset(request.body),
            "POST /sim/next": self._next,
        }
        action = actions.get(f"{request.method} {request.path}")
        if action is None:
            return _refusal(404, f"no such path; there are {', '.join(actions)}")
        try:
            return Reply(200, _encoded(action()))
        except (ControlError, BadFilters) as error:
            return _refusal(400, str(error))
        except ApiError as error:
            return _refusal(400, error.message)

    def _price(self, body: bytes) -> dict[str, Any]:
        values = _object(body)
        if set(values) != {"symbol", "price"}:
            raise ControlError('the body must be {"symbol": ..., "price": ...}')
        symbol = self._symbol(values)
        price: Decimal = read_fields({"price": values["price"]}, {"price": positive}, "price")["price"]
        self._exchange.set_price(symbol, price)
        return {}

    def _symbol(self, values: dict[str, Any]) -> str:
        symbol = values.get("symbol")
        if not isinstance(symbol, str) or symbol not in self._exchange.markets:
            raise ControlError(f"symbol {symbol!r} is not one of {', '.join(self._exchange.markets)}")
        return symbol

    def _symbol_rules(self, body: bytes) -> dict[str, Any]:
        values = _object(body)
        symbol = self._symbol(values)
        fields = read_fields(values, SYMBOL_FIELDS, "symbol")
        del fields["symbol"]
        self._exchange.set_symbol(symbol, fields.pop("status", None), fields.pop("filters", None), **fields)
        return {}

    def _account(self, body: bytes) -> dict[str, Any]:
        for name, value in read_fields(_object(body), ACCOUNT_FIELDS, "account").items():
            setattr(self._exchange.rights, ACCOUNT_NAMES[name], value)
        return {}

    def _depth(self, body: bytes) -> dict[str, Any]:
        values = _object(body)
        market = self._exchange.markets[self._symbol(values)]
        fields = read_fields(values, DEPTH_FIELDS, "depth")
        if len(fields) < 2 or ("thin" in fields and len(fields) > 2) or ("levels" in fields and len(fields) > 2):
            raise ControlError('the body must have one of "levels", "thin", or "bids" and "asks", beside "symbol"')
        if "thin" in fields:
            market.book.release(fields["thin"])
            return {}
        bids, asks = list(fields.get("bids", [])), list(fields.get("asks", []))
        for level in fields.get("levels", []):
            (bids if level[0] < market.price else asks).append(level)
        bids.sort(key=lambda level: level[0], reverse=True)
        asks.sort(key=lambda level: level[0])
        if bids and asks and bids[0][0] >= asks[0][0]:
            raise ControlError(f"the best bid {bids[0][0]} must be below the best ask {asks[0][0]}")
        market.book.set(Depth(bids, asks))
        return {}

    def _commission(self, body: bytes) -> dict[str, Any]:
        fields = read_fields(_object(body), COMMISSION_FIELDS, "commission")
        if fields.get("mode") == THIRD and "asset" not in fields:
            raise ControlError('mode "asset" needs "asset"')
        fees = self._exchange.books.fees
        rate = fields.pop("rate", None)
        if rate is not None:
            fees.maker = fees.taker = rate
        for name, value in fields.items():
            setattr(fees, name, value)
        return {}

    def _reset(self, body: bytes) -> dict[str, Any]:
        if body.strip() not in (b"", b"{}"):
            raise ControlError("reset takes no field")
        self._exchange.reset()
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
        fields = read_fields(values, {"asset": asset, "free": amount}, "balance")
        self._exchange.books.set_free(fields["asset"], fields["free"], self._exchange.now_ms())
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


def _filters(value: Any) -> tuple[Mapping[str, Any], ...]:
    try:
        return read_filters(value)
    except ValueError as error:
        raise BadFilters(str(error)) from None


class BadFilters(ValueError):
    """Filters whose trouble is told as it is."""


SYMBOL_FIELDS: Mapping[str, Reader] = {
    "symbol": string,
    "status": one_of("TRADING", "HALT", "BREAK", "END_OF_DAY", "CANCEL_ONLY"),
    "filters": _filters,
    "orderTypes": texts,
    "permissionSets": text_sets,
    "quoteOrderQtyMarketAllowed": flag,
    "isSpotTradingAllowed": flag,
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
ACCOUNT_FIELDS: Mapping[str, Reader] = {name: texts if name == "permissions" else flag for name in ACCOUNT_NAMES}
DEPTH_FIELDS: Mapping[str, Reader] = {"symbol": string, "levels": levels, "bids": levels, "asks": levels, "thin": flag}
COMMISSION_FIELDS: Mapping[str, Reader] = {
    "mode": one_of(*MODES),
    "asset": asset,
    "price": positive,
    "rate": fraction,
    "maker": fraction,
    "taker": fraction,
}


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
