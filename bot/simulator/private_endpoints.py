"""Decides what the account is told of itself: rights, balances, orders, trades. Source: Binance, account endpoints."""

from collections.abc import Callable
from typing import Any, TypeVar

from bot.simulator.amounts import ZERO, text8
from bot.simulator.errors import (
    ApiError,
    bad_combination,
    both_missing,
)
from bot.simulator.exchange import Exchange
from bot.simulator.fees import BNB, BNB_RATE
from bot.simulator.params import Params, time_param
from bot.simulator.public_endpoints import Action, order_rate_limits
from bot.simulator.replies import order_reply, trade_reply

LONGEST_SPAN_MS = 86_400_000
T = TypeVar("T")


def account(exchange: Exchange, params: Params) -> Action:
    omits = bool(params.boolean("omitZeroBalances")) if exchange.profile.omit_zero_balances else False

    def run(now: int) -> Any:
        rights, fees = exchange.rights, exchange.books.fees
        balances = [
            {"asset": asset, "free": text8(balance.free), "locked": text8(balance.locked)}
            for asset, balance in exchange.books.balances.items()
            if not omits or balance.free or balance.locked
        ]
        reply: dict[str, Any] = {
            "makerCommission": int(fees.maker * 10_000),
            "takerCommission": int(fees.taker * 10_000),
            "buyerCommission": 0,
            "sellerCommission": 0,
            "commissionRates": commission_rates(exchange)[0],
            "canTrade": rights.can_trade,
            "canWithdraw": rights.can_withdraw,
            "canDeposit": rights.can_deposit,
            "brokered": False,
            "requireSelfTradePrevention": False,
            "preventSor": False,
            "updateTime": exchange.books.update_time,
            "accountType": "SPOT",
            "balances": balances,
            "permissions": list(rights.permissions),
        }
        if exchange.profile.account_has_uid:
            reply["uid"] = int(exchange.api_key.encode().hex()[:8], 16)
        return reply

    return run


def api_restrictions(exchange: Exchange, params: Params) -> Action:
    """What the API key may do. Source: Binance, wallet endpoints, "API key permission"."""

    def run(now: int) -> Any:
        rights = exchange.rights
        return {
            "ipRestrict": rights.ip_restrict,
            "createTime": exchange.created_ms,
            "enableReading": rights.enable_reading,
            "enableWithdrawals": rights.enable_withdrawals,
            "enableInternalTransfer": False,
            "enableMargin": False,
            "enableFutures": False,
            "permitsUniversalTransfer": False,
            "enableVanillaOptions": False,
            "enableFixApiTrade": False,
            "enableFixReadOnly": False,
            "enableSpotAndMarginTrading": rights.enable_spot_and_margin_trading,
            "enablePortfolioMarginTrading": False,
        }

    return run


def commission(exchange: Exchange, params: Params) -> Action:
    symbol = params.required_symbol()

    def run(now: int) -> Any:
        exchange.market(symbol)
        rates, discount = commission_rates(exchange)
        nothing = dict.fromkeys(rates, text8(ZERO))
        return {
            "symbol": symbol,
            "standardCommission": rates,
            "specialCommission": nothing,
            "taxCommission": nothing,
            "discount": discount,
        }

    return run


def commission_rates(exchange: Exchange) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the standard rates and the discount as they are shown."""
    fees = exchange.books.fees
    rates = {"maker": text8(fees.maker), "taker": text8(fees.taker), "buyer": text8(ZERO), "seller": text8(ZERO)}
    discount = {
        "enabledForAccount": fees.mode == BNB,
        "enabledForSymbol": True,
        "discountAsset": "BNB",
        "discount": text8(BNB_RATE),
    }
    return rates, discount


def my_filters(exchange: Exchange, params: Params) -> Action:
    """The filters that are the account's own: none. Source: Binance, GET /myFilters."""
    symbol = params.required_symbol()

    def run(now: int) -> Any:
        exchange.market(symbol)
        return {"exchangeFilters": [], "symbolFilters": [], "assetFilters": []}

    return run


def get_order(exchange: Exchange, params: Params) -> Action:
    symbol = params.required_symbol()
    order_id, client_id = order_key(params)

    def run(now: int) -> Any:
        exchange.market(symbol)
        order = exchange.books.find(symbol, order_id, client_id)
        if order is None:
            raise ApiError(-2013, "Order does not exist.")
        if client_id is not None and client_id not in (order.client_order_id, order.original_client_order_id):
            raise ApiError(-2039, "Client order ID is not correct for this order ID.")
        return order_reply(order)

    return run


def order_key(params: Params) -> tuple[int | None, str | None]:
    order_id = params.integer("orderId")
    client_id = params.text("origClientOrderId")
    if order_id is None and client_id is None:
        raise both_missing("origClientOrderId", "orderId")
    return order_id, client_id


def open_orders(exchange: Exchange, params: Params) -> Action:
    symbol = params.symbol()

    def run(now: int) -> Any:
        if symbol is not None:
            exchange.market(symbol)
        return [order_reply(order) for order in exchange.books.open_orders(symbol)]

    return run


def _span(params: Params) -> tuple[int | None, int | None]:
    start, end = time_param(params, "startTime"), time_param(params, "endTime")
    if start is not None and end is not None and end - start > LONGEST_SPAN_MS:
        raise ApiError(-1127, "More than 24 hours between startTime and endTime.")
    return start, end


def _newest_or_first(items: list[T], from_first: bool, limit: int) -> list[T]:
    """Return the first `limit` items of a list that has a beginning asked for, else the last ones."""
    return items[:limit] if from_first else items[-limit:]


def all_orders(exchange: Exchange, params: Params) -> Action:
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


def my_trades(exchange: Exchange, params: Params) -> Action:
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


def order_counts(exchange: Exchange, params: Params) -> Action:
    def run(now: int) -> Any:
        limits = exchange.order_limits
        moment = exchange.now_ms()
        counts = (limits.ten_seconds.count(moment), limits.day.count(moment))
        return [{**shown, "count": count} for shown, count in zip(order_rate_limits(exchange), counts, strict=True)]

    return run


def create_listen_key(exchange: Exchange, params: Params) -> Action:
    return lambda now: {"listenKey": exchange.listen_keys.create(exchange.now_ms())}


def extend_listen_key(exchange: Exchange, params: Params) -> Action:
    return _with_listen_key(exchange, params, exchange.listen_keys.extend)


def close_listen_key(exchange: Exchange, params: Params) -> Action:
    return _with_listen_key(exchange, params, exchange.listen_keys.close)


def _with_listen_key(exchange: Exchange, params: Params, change: Callable[[str, int], bool]) -> Action:
    listen_key = params.required("listenKey")

    def run(now: int) -> Any:
        if not change(listen_key, exchange.now_ms()):
            raise ApiError(-1125, "This listenKey does not exist.")
        return {}

    return run
