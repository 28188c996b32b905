"""Which call answers a port's question, and what its reply means for klines, rules, orders and fills.

Source: Binance, REST API; contract, section 5.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import NoReturn

import msgspec

from bot.adapters.binance.client import RestClient
from bot.adapters.binance.errors import (
    ARCHIVED_ORDER,
    BAD_SYMBOL,
    ILLEGAL_CHARACTERS,
    ORDER_ERRORS,
    UNKNOWN_ORDER,
    CallFailed,
    Reaction,
)
from bot.adapters.binance.replies import AccountReply, KlineRow, OrderReply, TradeReply, kline_of_row
from bot.domain.filters import FilterError, SymbolRules, rules_from_exchange_info
from bot.domain.kline import Kline
from bot.domain.money import ZERO, add, multiply, plain
from bot.domain.order import Fill, OrderIntent, OrderReport, OrderStatus
from bot.ports import ConfigurationRefused, ExchangeUnavailable, OrderInDoubt, OrderRejected
from bot.supervision import Clock

# The statuses that an exchange can give; two of ours it cannot.
_STATUSES = {s.value: s for s in OrderStatus if s not in (OrderStatus.RECORDED, OrderStatus.NOT_PLACED)}
PAGE = 1000  # the most rows that klines and myTrades give at once
SYMBOLS_A_REQUEST = 100  # so that the address stays far below what servers accept


class _PublicCalls:
    """What Binance tells everybody: klines of the past, trading rules, its clock."""

    def __init__(self, client: RestClient) -> None:
        self._client = client

    def closed_klines(self, symbol: str, interval: str, start_time: int) -> list[Kline]:
        """Return all closed klines with open_time >= `start_time` (ms), oldest first.

        Raises ExchangeUnavailable, also where a row cannot be believed, and ConfigurationRefused.
        """
        klines: list[Kline] = []
        try:
            self._client.now_ms()  # whoever only reads history has its estimate measured here
            # Asked before the rows: a kline that ended after this may still have been open in its row.
            now = self._client.server_time()
            while True:
                params = {"symbol": symbol, "interval": interval, "startTime": start_time, "limit": PAGE}
                rows = self._client.get("klines", params, list[KlineRow])
                for row in rows:
                    if row[0] < start_time:
                        raise ExchangeUnavailable(f"klines of {symbol} do not come in the order of their times")
                    start_time = row[0] + 1
                    if row[6] < now:
                        klines.append(kline_of_row(symbol, interval, row))
                if len(rows) < PAGE:
                    return klines
        except CallFailed as failed:
            _fail_read(failed)

    def rules(self, symbols: Sequence[str]) -> dict[str, SymbolRules]:
        """Return the symbols' trading rules.

        Raises ExchangeUnavailable, and ConfigurationRefused naming a symbol that the exchange does not have.
        """
        rules: dict[str, SymbolRules] = {}
        for first in range(0, len(symbols), SYMBOLS_A_REQUEST):
            rules.update(self._rules_of(symbols[first : first + SYMBOLS_A_REQUEST]))
        return rules

    def now_ms(self) -> int:
        """Return the exchange's clock, measured every few minutes. Raises ExchangeUnavailable, ConfigurationRefused."""
        try:
            return self._client.now_ms()
        except CallFailed as failed:
            _fail_read(failed)

    def estimated_now_ms(self) -> int:
        """Return the exchange's clock as last measured, the machine's own before that. Never asks, never raises."""
        return self._client.estimate_ms()

    def _rules_of(self, symbols: Sequence[str]) -> dict[str, SymbolRules]:
        try:
            info = self._client.get("exchangeInfo", {"symbols": msgspec.json.encode(list(symbols)).decode()}, dict)
        except CallFailed as failed:
            if failed.code not in (BAD_SYMBOL, ILLEGAL_CHARACTERS):
                _fail_read(failed)
            if len(symbols) == 1:
                raise ConfigurationRefused(
                    f"{symbols[0]}: no such symbol at this exchange: mend `symbols` or exchange.profile"
                ) from None
            # The exchange refuses the whole list without a name: each alone tells which it was.
            return {symbol: rules for one in symbols for symbol, rules in self._rules_of([one]).items()}
        try:
            rules = rules_from_exchange_info(info, symbols)
        except FilterError as error:
            raise ConfigurationRefused(f"exchangeInfo: {error}") from None
        missing = [symbol for symbol in symbols if symbol not in rules]
        if missing:
            raise ExchangeUnavailable(f"exchangeInfo left out {', '.join(missing)}")
        return rules


class BinanceMarketHistory(_PublicCalls):
    """Klines of the past, trading rules and the exchange's clock, without a key. Thread-safe.

    `rest_url` is scheme, host and port; ConfigurationRefused is raised if it is not.
    """

    def __init__(
        self, rest_url: str, clock: Clock, connect_timeout_ms: int = 2000, read_timeout_ms: int = 5000
    ) -> None:
        super().__init__(
            RestClient(rest_url, clock, connect_timeout_ms=connect_timeout_ms, read_timeout_ms=read_timeout_ms)
        )


class BinanceExchange(_PublicCalls):
    """An account at Binance: balances and market orders. Thread-safe; the keys show nowhere.

    ConfigurationRefused is raised if `rest_url` or a key cannot be used at all.
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
    ) -> None:
        if not api_key or not api_secret:
            raise ConfigurationRefused("no API key: set BOT_API_KEY and BOT_API_SECRET")
        super().__init__(
            RestClient(rest_url, clock, api_key, api_secret, recv_window_ms, connect_timeout_ms, read_timeout_ms)
        )
        self._recv_window_ms = recv_window_ms

    @property
    def acceptance_window_ms(self) -> int:
        """How long after signing the exchange may accept a request: recvWindow, and 1 s that it may lie ahead."""
        return self._recv_window_ms + 1000

    def balances(self) -> dict[str, tuple[Decimal, Decimal]]:
        """Return what the account holds of each asset, as (free, locked). Raises as the port says of reads."""
        try:
            account = self._client.get("account", {}, AccountReply, signed=True)
        except CallFailed as failed:
            _fail_read(failed)
        return {one.asset: (Decimal(one.free), Decimal(one.locked)) for one in account.balances}

    def free_balance(self, asset: str) -> Decimal:
        """Return the account's free amount of an asset, 0 if it has none. Raises as the port says."""
        free, _ = self.balances().get(asset, (ZERO, ZERO))
        return free

    def place(self, intent: OrderIntent) -> OrderReport:
        """Send a market order and return its final report with every fill as the exchange reported it.

        Raises OrderNotSent, OrderRejected, OrderInDoubt; the last also where the reply is not final or its fills are
        not all of the order.
        """
        params = {
            "symbol": intent.symbol,
            "side": intent.side.value,
            "type": "MARKET",
            "quantity": plain(intent.quantity),
            "newClientOrderId": intent.client_order_id,
            "newOrderRespType": "FULL",
        }
        try:
            order = self._client.post("order", params, OrderReply)
        except CallFailed as failed:
            raised = ORDER_ERRORS.get(failed.reaction)
            raise (raised(str(failed)) if raised else OrderRejected(failed.code, str(failed))) from None
        status = _final_status(order)
        fills = [
            _fill(intent, order.orderId, f.tradeId, f.price, f.qty, f.commission, f.commissionAsset, order.transactTime)
            for f in order.fills
        ]
        if not _is_answer(order, intent) or status is None or not _is_complete(order, fills):
            raise OrderInDoubt(f"the order's reply is not final: {order.status}, {order.executedQty} executed")
        return _report(intent, order, status, fills)

    def find(self, intent: OrderIntent) -> OrderReport | None:
        """Ask for an order by its client order id; None when the exchange says that there is none.

        A final order comes with all its fills, any other with its status alone.

        Raises ExchangeUnavailable, also while not all fills of a final order can be seen yet; ConfigurationRefused.
        """
        params = {"symbol": intent.symbol, "origClientOrderId": intent.client_order_id}
        try:
            order = self._client.get("order", params, OrderReply, signed=True)
        except CallFailed as failed:
            if failed.code == UNKNOWN_ORDER:
                return None
            if failed.code == ARCHIVED_ORDER:
                # Cancelled or expired without a fill more than 90 days ago.
                return OrderReport(intent.client_order_id, 0, intent.symbol, OrderStatus.EXPIRED, detail="archived")
            _fail_read(failed)
        if not _is_answer(order, intent):
            raise ExchangeUnavailable(f"asked for {intent.client_order_id}, told of {order.clientOrderId}")
        status = _final_status(order)
        if status is None:
            return _report(intent, order, _open_status(order), [])
        fills = self._trades_of(intent, order) if Decimal(order.executedQty) else []
        if not _is_complete(order, fills):
            raise ExchangeUnavailable(f"not all fills of {intent.client_order_id} can be seen yet")
        return _report(intent, order, status, fills)

    def _trades_of(self, intent: OrderIntent, order: OrderReply) -> list[Fill]:
        fills: list[Fill] = []
        params: dict[str, object] = {"symbol": intent.symbol, "orderId": order.orderId, "limit": PAGE}
        while True:
            try:
                page = self._client.get("myTrades", params, list[TradeReply], signed=True)
            except CallFailed as failed:
                _fail_read(failed)
            fills += [
                _fill(intent, order.orderId, t.id, t.price, t.qty, t.commission, t.commissionAsset, t.time)
                for t in page
                if t.orderId == order.orderId
            ]
            if len(page) < PAGE:
                return fills
            params["fromId"] = page[-1].id + 1


def _fail_read(failed: CallFailed) -> NoReturn:
    if failed.reaction is Reaction.HALT:
        raise ConfigurationRefused(str(failed)) from None
    raise ExchangeUnavailable(str(failed)) from None


def _is_answer(order: OrderReply, intent: OrderIntent) -> bool:
    return order.clientOrderId == intent.client_order_id and order.symbol == intent.symbol


def _final_status(order: OrderReply) -> OrderStatus | None:
    """Return a status that nothing follows; None for one that will change, or that we do not know."""
    status = _STATUSES.get(order.status)
    return status if status is not None and status.is_final else None


def _open_status(order: OrderReply) -> OrderStatus:
    status = _STATUSES.get(order.status)
    if status is None:
        raise ExchangeUnavailable(f"order status {order.status} is not known: ask again")
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
