"""Decides how orders and fills look in replies. Source: Binance, new order; querying and cancelling."""

from typing import Any

from bot.simulator.amounts import ZERO, text8
from bot.simulator.orders import Fill, Order


def order_reply(order: Order) -> dict[str, Any]:
    """Return an order as GET /order shows it. Source: Binance, querying orders."""
    reply: dict[str, Any] = {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": order.client_order_id,
        "price": text8(order.price),
        "origQty": text8(order.quantity),
        "executedQty": text8(order.executed),
        "cummulativeQuoteQty": text8(order.quote),
        "status": order.status,
        "timeInForce": order.time_in_force,
        "type": order.type,
        "side": order.side,
        "stopPrice": text8(ZERO),
        "icebergQty": text8(ZERO),
        "time": order.time,
        "updateTime": order.update_time,
        "isWorking": order.working_time >= 0,
        "workingTime": order.working_time,
        "origQuoteOrderQty": text8(order.quote_quantity),
        "selfTradePreventionMode": order.self_trade_prevention,
    }
    return reply | _conditional(order)


def placed_reply(order: Order, fills: list[Fill], response_type: str) -> dict[str, Any]:
    """Return the answer to POST /order in the form ACK, RESULT or FULL."""
    reply: dict[str, Any] = {
        "symbol": order.symbol,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": order.client_order_id,
        "transactTime": order.update_time,
    }
    if response_type == "ACK":
        return reply
    reply |= {
        "price": text8(order.price),
        "origQty": text8(order.quantity),
        "executedQty": text8(order.executed),
        "origQuoteOrderQty": text8(order.quote_quantity),
        "cummulativeQuoteQty": text8(order.quote),
        "status": order.status,
        "timeInForce": order.time_in_force,
        "type": order.type,
        "side": order.side,
        "workingTime": order.working_time,
    }
    if response_type == "FULL":
        reply["fills"] = [
            {
                "price": text8(fill.price),
                "qty": text8(fill.quantity),
                "commission": text8(fill.commission),
                "commissionAsset": fill.commission_asset,
                "tradeId": fill.trade_id,
            }
            for fill in fills
        ]
    reply["selfTradePreventionMode"] = order.self_trade_prevention
    return reply | _conditional(order)


def cancelled_reply(order: Order, original: str) -> dict[str, Any]:
    """Return the answer to DELETE /order: `clientOrderId` is the cancel's."""
    return {
        "symbol": order.symbol,
        "origClientOrderId": original,
        "orderId": order.order_id,
        "orderListId": -1,
        "clientOrderId": order.client_order_id,
        "transactTime": order.update_time,
        "price": text8(order.price),
        "origQty": text8(order.quantity),
        "executedQty": text8(order.executed),
        "origQuoteOrderQty": text8(order.quote_quantity),
        "cummulativeQuoteQty": text8(order.quote),
        "status": order.status,
        "timeInForce": order.time_in_force,
        "type": order.type,
        "side": order.side,
        "selfTradePreventionMode": order.self_trade_prevention,
    }


def trade_reply(fill: Fill) -> dict[str, Any]:
    """Return a fill as myTrades shows it."""
    return {
        "symbol": fill.symbol,
        "id": fill.trade_id,
        "orderId": fill.order_id,
        "orderListId": -1,
        "price": text8(fill.price),
        "qty": text8(fill.quantity),
        "quoteQty": text8(fill.quote),
        "commission": text8(fill.commission),
        "commissionAsset": fill.commission_asset,
        "time": fill.time,
        "isBuyer": fill.is_buyer,
        "isMaker": fill.is_maker,
        "isBestMatch": True,
    }


def _conditional(order: Order) -> dict[str, Any]:
    optional = {
        "expiryReason": order.expiry_reason,
        "preventedMatchId": order.prevented_match_id,
        "preventedQuantity": text8(order.prevented) if order.prevented else None,
        "strategyId": order.strategy_id,
        "strategyType": order.strategy_type,
    }
    return {name: value for name, value in optional.items() if value is not None}
