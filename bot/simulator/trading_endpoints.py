"""Decides what becomes of a new order and of a cancel: parameters, filters, what the engine refuses, the answer.

Source: Binance, trading endpoints.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from bot.simulator import filters
from bot.simulator.amounts import ZERO, text8
from bot.simulator.errors import (
    TEXTS,
    ApiError,
    bad_combination,
    both_missing,
    missing,
    not_required,
    not_valid,
    rejected,
    unsupported,
)
from bot.simulator.exchange import Exchange
from bot.simulator.market import Market
from bot.simulator.orders import OPEN_STATUSES, Ending, Order, OrderRequest
from bot.simulator.params import CLIENT_ORDER_ID, Params, check_precision
from bot.simulator.private_endpoints import commission_rates, order_key
from bot.simulator.profiles import STP_MODES, SymbolRules
from bot.simulator.public_endpoints import Action
from bot.simulator.replies import cancelled_reply, placed_reply

ORDER_KINDS = {
    "LIMIT": "Limit",
    "LIMIT_MAKER": "Limit maker",
    "MARKET": "Market",
    "STOP_LOSS": "Stop loss",
    "STOP_LOSS_LIMIT": "Stop loss limit",
    "TAKE_PROFIT": "Take profit",
    "TAKE_PROFIT_LIMIT": "Take profit limit",
}


def _check_trading_right(exchange: Exchange) -> None:
    """Raise ApiError -2015 if the API key has no right to trade."""
    if not exchange.rights.enable_spot_and_margin_trading:
        raise ApiError(-2015, TEXTS[-2015])


def new_order(exchange: Exchange, params: Params) -> Action:
    request, response_type = _order_request(params)

    def run(now: int) -> Any:
        market = _checked(exchange, request, exchange.order_limits.check)
        depth = market.depth()
        _check_engine(exchange, market.rules, params, request)
        if request.quote_quantity is not None:
            is_book_empty = not (depth.asks if request.is_buyer else depth.bids)
            filters.check_liquidity(market.rules, _quantity(request, market), is_book_empty)
        fault = exchange.faults.peek("partial_fill") or exchange.faults.peek("order_status")
        ending = Ending(fault.order_status or "EXPIRED", fault.fraction) if fault is not None else None
        exchange.note_requests()
        order, fills = exchange.books.place(
            market.rules, request, depth, exchange.now_ms(), market.trade_id + 1, ending
        )
        if fault is not None:
            exchange.faults.take(fault.kind)
        market.trade_id += len(fills)
        exchange.order_limits.placed(exchange.now_ms(), bool(fills))
        return placed_reply(order, fills, response_type)

    return run


def _checked(exchange: Exchange, request: OrderRequest, check_count: Callable[[int], None]) -> Market:
    """Check all that comes before the engine: right, symbol, precision, order count, filters. Raises ApiError."""
    _check_trading_right(exchange)
    market = exchange.market(request.symbol)
    info = market.rules.info
    check_precision("quantity", request.quantity, info["baseAssetPrecision"])
    check_precision("quoteOrderQty", request.quote_quantity, info["quoteAssetPrecision"])
    check_precision("price", request.price, info["quoteAssetPrecision"])
    check_count(exchange.now_ms())
    books = exchange.books
    resting = books.open_orders(request.symbol)
    balance = books.balances[market.rules.base]
    wanted = sum((order.left for order in resting if order.is_buyer), ZERO)
    situation = filters.Situation(
        request,
        _quantity(request, market),
        lambda minutes: exchange.average_price(market, minutes),
        len(resting),
        len(books.open_orders()),
        balance.free + balance.locked + wanted,
    )
    filters.check(market.rules, exchange.filters, situation)
    return market


def _quantity(request: OrderRequest, market: Market) -> Decimal:
    """Return the base quantity: as asked for, or what the book gives for quoteOrderQty."""
    if request.quantity is not None:
        return request.quantity
    assert request.quote_quantity is not None
    return market.depth().quantity_for(request.is_buyer, request.quote_quantity, market.rules.step)


def try_order(exchange: Exchange, params: Params) -> Action:
    """Check an order as far as the engine, which it does not reach. Source: Binance, POST /order/test."""
    request, _ = _order_request(params)
    shows_rates = exchange.profile.tests_commissions and bool(params.boolean("computeCommissionRates"))

    def run(now: int) -> Any:
        _checked(exchange, request, lambda moment: None)
        if not shows_rates:
            return {}
        rates, discount = commission_rates(exchange)
        return {
            "standardCommissionForOrder": {name: rates[name] for name in ("maker", "taker")},
            "specialCommissionForOrder": {name: text8(ZERO) for name in ("maker", "taker")},
            "taxCommissionForOrder": {name: text8(ZERO) for name in ("maker", "taker")},
            "discount": discount,
        }

    return run


def _order_request(params: Params) -> tuple[OrderRequest, str]:
    """Read the parameters of POST /order. Source: Binance, new order, the table of mandatory parameters."""
    symbol = params.required_symbol()
    params.required("side")
    side = params.one_of("side", ("BUY", "SELL"), ApiError(-1117, "Invalid side."))
    params.required("type")
    kind = params.one_of("type", tuple(ORDER_KINDS), ApiError(-1116, "Invalid orderType."))
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


def _check_engine(exchange: Exchange, rules: SymbolRules, params: Params, request: OrderRequest) -> None:
    """Refuse what the engine refuses by account, symbol and kind of order. Source: Binance, errors, engine messages."""
    info, rights = rules.info, exchange.rights
    if not rights.can_trade:
        raise rejected("This account may not place or cancel orders.")
    if not info["isSpotTradingAllowed"] or not _is_permitted(rights.permissions, info["permissionSets"]):
        raise rejected("This symbol is not permitted for this account.")
    if not rules.is_trading:
        raise rejected("Market is closed.")
    if request.type not in info["orderTypes"]:
        raise unsupported(ORDER_KINDS[request.type])
    if request.quote_quantity is not None and not info["quoteOrderQtyMarketAllowed"]:
        raise rejected("Quote order qty market orders are not support for this symbol.")
    for name, kind in (("icebergQty", "Iceberg"), ("trailingDelta", "Trailing stop"), ("pegPriceType", "Pegged")):
        if params.is_sent(name):
            raise unsupported(kind)
    for name in ("stopPrice", "pegOffsetType", "pegOffsetValue"):
        if params.is_sent(name):
            raise ApiError(-1014, "Unsupported order combination.")


def _is_permitted(held: tuple[str, ...], sets: list[list[str]]) -> bool:
    """Tell whether one of `held` is in each set. Source: Binance, exchangeInfo, permissionSets."""
    return all(set(held) & set(group) for group in sets)


def _check_may_cancel(exchange: Exchange, rules: SymbolRules) -> None:
    """Raise ApiError -2015 or -2011 if nothing may be cancelled.

    In which statuses cancels are taken is not documented: here in TRADING, and in CANCEL_ONLY as its name says.
    """
    _check_trading_right(exchange)
    if not exchange.rights.can_trade:
        raise ApiError(-2011, "This account may not place or cancel orders.")
    if not rules.is_trading and rules.info["status"] != "CANCEL_ONLY":
        raise ApiError(-2011, "Market is closed.")


def cancel_order(exchange: Exchange, params: Params) -> Action:
    symbol = params.required_symbol()
    order_id, client_id = order_key(params)
    cancel_id = params.matching("newClientOrderId", CLIENT_ORDER_ID)
    restrictions = params.one_of(
        "cancelRestrictions",
        ("ONLY_NEW", "ONLY_PARTIALLY_FILLED"),
        ApiError(-1145, "Invalid cancelRestrictions"),
    )

    def run(now: int) -> Any:
        market = exchange.market(symbol)
        _check_may_cancel(exchange, market.rules)
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


def cancel_all(exchange: Exchange, params: Params) -> Action:
    symbol = params.required_symbol()

    def run(now: int) -> Any:
        market = exchange.market(symbol)
        _check_may_cancel(exchange, market.rules)
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
