"""Which call answers a question about the account, and what its reply means for orders, fills and balances.

Source: Binance, REST API; contract, section 5.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal

from bot.adapters.binance.budget import Budget, Priority, order_priority
from bot.adapters.binance.client import RestClient
from bot.adapters.binance.errors import (
    ARCHIVED_ORDER,
    UNKNOWN_ORDER,
    CallFailed,
    order_error,
)
from bot.adapters.binance.public import PAGE, PublicCalls, fail_read
from bot.adapters.binance.replies import (
    AccountOrderReply,
    AccountReply,
    AccountTradeReply,
    KeyReply,
    OrderReply,
    TradeReply,
)
from bot.adapters.binance.user_stream import BinanceAccountStream
from bot.domain.account import AccountOrder, AccountTrade
from bot.domain.money import ZERO, add, multiply, plain
from bot.domain.order import Fill, OrderIntent, OrderReport, OrderStatus
from bot.ports import ConfigurationRefused, ExchangeUnavailable, Leave, OrderInDoubt, at_once
from bot.supervision import Clock

# The statuses that an exchange can give; two of ours it cannot.
_STATUSES = {s.value: s for s in OrderStatus if s not in (OrderStatus.RECORDED, OrderStatus.NOT_PLACED)}
DAY_MS = 86_400_000  # the longest span that allOrders takes


class BinanceExchange(PublicCalls):
    """An account at Binance: its orders, trades and balances. Thread-safe; the keys show nowhere.

    ConfigurationRefused is raised if `rest_url` or a key cannot be used at all. `budget` is shared by all who ask
    that host.
    """

    def __init__(
        self,
        rest_url: str,
        clock: Clock,
        api_key: str,
        api_secret: str,
        recv_window_ms: int = 3000,
        connect_timeout_ms: int = 2000,
        read_timeout_ms: int = 5000,
        profile: str = "com",
        budget: Budget | None = None,
    ) -> None:
        if not api_key or not api_secret:
            raise ConfigurationRefused("no API key: set BOT_API_KEY and BOT_API_SECRET")
        timeouts = (connect_timeout_ms, read_timeout_ms)
        super().__init__(RestClient(rest_url, clock, api_key, api_secret, recv_window_ms, *timeouts, profile, budget))
        self._recv_window_ms = recv_window_ms
        self._permissions: frozenset[str] | None = None
        self._told: AccountReply | None = None

        def new_stream(
            ws_api_url: str, on_bad_frame: Callable[[str], None], listen_key_ws_url: str
        ) -> BinanceAccountStream:
            return BinanceAccountStream(
                ws_api_url,
                self._client,
                clock,
                api_key,
                api_secret,
                recv_window_ms=recv_window_ms,
                on_bad_frame=on_bad_frame,
                listen_key_ws_url=listen_key_ws_url,
            )

        self._new_stream = new_stream  # whose repr shows nothing of the keys that it holds

    def stream(
        self, ws_api_url: str, on_bad_frame: Callable[[str], None], listen_key_ws_url: str = ""
    ) -> BinanceAccountStream:
        """Return the account's own stream; the arguments are those of BinanceAccountStream."""
        return self._new_stream(ws_api_url, on_bad_frame, listen_key_ws_url)

    @property
    def acceptance_window_ms(self) -> int:
        """How long after signing the exchange may accept a request: recvWindow, and 1 s that it may lie ahead."""
        return self._recv_window_ms + 1000

    def balances(self) -> dict[str, tuple[Decimal, Decimal]]:
        """Return what the account holds of each asset, as (free, locked). Raises as the port says of reads."""
        account = self._account()
        return {one.asset: (Decimal(one.free), Decimal(one.locked)) for one in account.balances}

    def free_balance(self, asset: str) -> Decimal:
        """Return the account's free amount of an asset, 0 if it has none. Raises as the port says."""
        free, _ = self.balances().get(asset, (ZERO, ZERO))
        return free

    def can_trade(self) -> bool:
        """Return whether the account may trade at all. Raises as the port says of reads."""
        return self._account().canTrade

    def permissions(self) -> frozenset[str] | None:
        """Return the account's permissions as it was last told with its balances or rights; None: not known."""
        return self._permissions

    def uid(self) -> int | None:
        """Return the exchange's number for the account, whatever its key; None where it gives none, as Binance US.

        Raises as the port says of reads.
        """
        account = self._told or self._account()
        return account.uid

    def may_withdraw(self) -> bool | None:
        """Return whether the key may take money out; None where the exchange does not tell, as the testnet.

        Raises as the port says of reads.
        """
        try:
            return self._client.get("/sapi/v1/account/apiRestrictions", {}, KeyReply, signed=True).enableWithdrawals
        except CallFailed as failed:
            if failed.status == 404:
                return None
            fail_read(failed)

    def open_orders(self, symbol: str | None = None) -> list[AccountOrder]:
        """Return the orders of a symbol, or of all, that are still open, whoever sent them.

        Raises as the port says of reads.
        """
        params = {} if symbol is None else {"symbol": symbol}
        return [_account_order(o) for o in self.read("openOrders", params, list[AccountOrderReply])]

    def orders_since(self, symbol: str, start_time: int) -> list[AccountOrder]:
        """Return all orders placed at or after `start_time` (ms), oldest first, whoever sent them.

        Asked a day at a time; from a day with more than a page of them on, page by page. Raises as the port says of
        reads.
        """
        orders: list[AccountOrderReply] = []
        now = self.now_ms()
        while start_time <= now:
            params = {
                "symbol": symbol,
                "startTime": str(start_time),
                "endTime": str(start_time + DAY_MS - 1),
                "limit": str(PAGE),
            }
            page = self.read("allOrders", params, list[AccountOrderReply])
            orders += page
            while len(page) == PAGE:
                params = {"symbol": symbol, "orderId": str(page[-1].orderId + 1), "limit": str(PAGE)}
                page = self.read("allOrders", params, list[AccountOrderReply])
                orders += page
                start_time = now  # these have no end: they go on to the last order
            start_time += DAY_MS
        return [_account_order(order) for order in orders]

    def order_by_id(self, symbol: str, order_id: int) -> AccountOrder | None:
        """Return an order by the exchange's id; None when the exchange says that there is none.

        Raises as the port says of reads.
        """
        params = {"symbol": symbol, "orderId": str(order_id)}
        try:
            order = self._client.get("order", params, AccountOrderReply, signed=True, priority=Priority.QUESTION)
        except CallFailed as failed:
            if failed.code in (UNKNOWN_ORDER, ARCHIVED_ORDER):
                return None
            fail_read(failed)
        if order.symbol != symbol or order.orderId != order_id:
            raise ExchangeUnavailable(f"asked for order {order_id} of {symbol}, told of {order.orderId}")
        return _account_order(order)

    def trades_since(
        self, symbol: str, *, from_id: int | None = None, start_time: int | None = None
    ) -> list[AccountTrade]:
        """Return all executions with trade id >= `from_id`, or at or after `start_time` (ms), oldest first.

        Exactly one of the two is given: the exchange takes no other pair. Raises as the port says of reads.
        """
        if (from_id is None) == (start_time is None):
            raise ValueError("give from_id or start_time, not both")
        trades: list[AccountTradeReply] = []
        params = {"fromId": str(from_id)} if from_id is not None else {"startTime": str(start_time)}
        while True:
            page = self.read("myTrades", {"symbol": symbol, "limit": str(PAGE), **params}, list[AccountTradeReply])
            trades += page
            if len(page) < PAGE:
                return [_account_trade(trade) for trade in trades]
            params = {"fromId": str(page[-1].id + 1)}

    def place(self, intent: OrderIntent, leave: Leave = at_once) -> OrderReport:
        """Send an order and return its final report with every fill as the exchange reported it.

        Raises what `leave` does, and then nothing was sent; OrderNotSent, OrderRejected, OrderInDoubt, the last also
        where the reply is not final or its fills are not all of the order.
        """
        params = {
            "symbol": intent.symbol,
            "side": intent.side.value,
            "type": "MARKET",
            "quantity": plain(intent.quantity),
            "newClientOrderId": intent.client_order_id,
            "newOrderRespType": "FULL",
        }
        if intent.limit_price is not None:
            params |= {"type": "LIMIT", "timeInForce": "IOC", "price": plain(intent.limit_price)}
        try:
            order = self._client.post_order(params, OrderReply, order_priority(intent.side), leave)
        except CallFailed as failed:
            raise order_error(failed) from None
        status = _final_status(order)
        fills = [
            _fill(intent, order.orderId, f.tradeId, f.price, f.qty, f.commission, f.commissionAsset, order.transactTime)
            for f in order.fills
        ]
        if not _is_answer(order, intent) or status is None or not _is_complete(order, fills):
            raise OrderInDoubt(f"the order's reply is not final: {order.status!r}, {order.executedQty} executed")
        return _report(intent, order, status, fills)

    def find(self, intent: OrderIntent) -> OrderReport | None:
        """Ask for an order by its client order id; None when the exchange says that there is none.

        A final order comes with all its fills, any other with its status alone.

        Raises ExchangeUnavailable, also while not all fills of a final order can be seen yet; ConfigurationRefused.
        """
        params = {"symbol": intent.symbol, "origClientOrderId": intent.client_order_id}
        try:
            order = self._client.get("order", params, OrderReply, signed=True, priority=Priority.QUESTION)
        except CallFailed as failed:
            if failed.code == UNKNOWN_ORDER:
                return None
            if failed.code == ARCHIVED_ORDER:
                # Cancelled or expired without a fill more than 90 days ago.
                return OrderReport(intent.client_order_id, 0, intent.symbol, OrderStatus.EXPIRED, detail="archived")
            fail_read(failed)
        if not _is_answer(order, intent):
            raise ExchangeUnavailable(f"asked for {intent.client_order_id}, told of {order.clientOrderId!r}")
        status = _final_status(order)
        if status is None:
            return _report(intent, order, _open_status(order), [])
        fills = self._trades_of(intent, order) if Decimal(order.executedQty) else []
        if not _is_complete(order, fills):
            raise ExchangeUnavailable(f"not all fills of {intent.client_order_id} can be seen yet")
        return _report(intent, order, status, fills)

    def _account(self) -> AccountReply:
        account = self.read("account", {}, AccountReply)
        self._permissions = frozenset(account.permissions) or None
        self._told = account
        return account

    def _trades_of(self, intent: OrderIntent, order: OrderReply) -> list[Fill]:
        fills: list[Fill] = []
        params = {"symbol": intent.symbol, "orderId": str(order.orderId), "limit": str(PAGE)}
        while True:
            try:
                page = self._client.get("myTrades", params, list[TradeReply], signed=True, priority=Priority.QUESTION)
            except CallFailed as failed:
                fail_read(failed)
            fills += [
                _fill(intent, order.orderId, t.id, t.price, t.qty, t.commission, t.commissionAsset, t.time)
                for t in page
                if t.orderId == order.orderId
            ]
            if len(page) < PAGE:
                return fills
            params["fromId"] = str(page[-1].id + 1)


def _is_answer(order: OrderReply, intent: OrderIntent) -> bool:
    return order.clientOrderId == intent.client_order_id and order.symbol == intent.symbol


def _final_status(order: OrderReply) -> OrderStatus | None:
    """Return a status that nothing follows; None for one that will change, or that we do not know."""
    status = _STATUSES.get(order.status)
    return status if status is not None and status.is_final else None


def _open_status(order: OrderReply) -> OrderStatus:
    status = _STATUSES.get(order.status)
    if status is None:
        raise ExchangeUnavailable(f"order status {order.status!r} is not known: ask again")
    return status


def _is_complete(order: OrderReply, fills: Iterable[Fill]) -> bool:
    total = ZERO
    for fill in fills:
        total = add(total, fill.quantity)
    return total == Decimal(order.executedQty)


def _fill(
    intent: OrderIntent,
    order_id: int,
    trade_id: int,
    price: str,
    quantity: str,
    commission: str,
    commission_asset: str,
    time: int,
) -> Fill:
    """Return one execution; the commission and its asset are the exchange's words, never computed."""
    return Fill(
        client_order_id=intent.client_order_id,
        order_id=order_id,
        trade_id=trade_id,
        symbol=intent.symbol,
        side=intent.side,
        price=Decimal(price),
        quantity=Decimal(quantity),
        quote_quantity=multiply(Decimal(price), Decimal(quantity)),
        commission=Decimal(commission),
        commission_asset=commission_asset,
        time=time,
    )


def _report(intent: OrderIntent, order: OrderReply, status: OrderStatus, fills: Iterable[Fill]) -> OrderReport:
    return OrderReport(
        client_order_id=intent.client_order_id,
        order_id=order.orderId,
        symbol=intent.symbol,
        status=status,
        fills=tuple(fills),
        detail="" if order.expiryReason == "NONE" else order.expiryReason,
    )


def _account_order(order: AccountOrderReply) -> AccountOrder:
    quote_quantity = Decimal(order.cummulativeQuoteQty)
    return AccountOrder(
        order_id=order.orderId,
        client_order_id=order.clientOrderId,
        symbol=order.symbol,
        side=order.side,
        status=_STATUSES.get(order.status),
        quantity=Decimal(order.origQty),
        executed_quantity=Decimal(order.executedQty),
        quote_quantity=None if quote_quantity < 0 else quote_quantity,
        time=order.time,
    )


def _account_trade(trade: AccountTradeReply) -> AccountTrade:
    return AccountTrade(
        trade_id=trade.id,
        order_id=trade.orderId,
        symbol=trade.symbol,
        price=Decimal(trade.price),
        quantity=Decimal(trade.qty),
        quote_quantity=Decimal(trade.quoteQty),
        commission=Decimal(trade.commission),
        commission_asset=trade.commissionAsset,
        is_buyer=trade.isBuyer,
        time=trade.time,
    )
