"""Decides what an order does: balances, matching against a book, fills with commission, the life of an order."""

from decimal import Decimal

import msgspec

from bot.simulator.amounts import ZERO, exact, floor_to, round8
from bot.simulator.depth import Depth
from bot.simulator.errors import ApiError, insufficient_balance, rejected
from bot.simulator.fees import Fees
from bot.simulator.journal import Journal
from bot.simulator.orders import Balance, Ending, Fill, Order, OrderRequest, Witness, new_client_order_id
from bot.simulator.profiles import SymbolRules

FIRST_ORDER_ID = 4_281_001
START_CASH = Decimal(10000)


_orders = msgspec.json.Decoder(Order)
_fills = msgspec.json.Decoder(Fill)
_balances = msgspec.json.Decoder(dict[str, Balance])


class Books:
    """One account: balances, orders and fills. Every change is in the journal before the call returns."""

    def __init__(self, journal: Journal, fees: Fees, assets: list[str], cash_asset: str) -> None:
        """Take up the journal's books, or begin with 10000 of `cash_asset` and nothing of the other `assets`."""
        self.fees = fees
        self.witness: Witness | None = None
        self._journal = journal
        self._assets = [*dict.fromkeys([cash_asset, *assets])]
        self.balances: dict[str, Balance] = {}
        self.placements: list[Order] = []
        self.fills: list[Fill] = []
        self.reused_ids = 0
        self._by_id: dict[int, Order] = {}
        self._open: dict[str, dict[int, Order]] = {}
        self._by_client_id: dict[tuple[str, str], Order] = {}
        self._trade_ids: dict[str, int] = {}
        self.update_time = 0
        self._load(cash_asset)
        for asset in assets:
            self.balances.setdefault(asset, Balance())

    def _load(self, cash_asset: str) -> None:
        stored = self._journal.fact("balances")
        if stored is None:
            self.balances[cash_asset] = Balance(START_CASH)
            self._journal.set_fact("balances", msgspec.json.encode(self.balances).decode())
        else:
            self.balances = _balances.decode(stored)
        for body in self._journal.bodies("placements"):
            order = _orders.decode(body)
            self.placements.append(order)
            if order.reject is None:
                self._index(order)
        self.fills = [_fills.decode(body) for body in self._journal.bodies("fills")]
        for fill in self.fills:
            self._trade_ids[fill.symbol] = max(fill.trade_id, self._trade_ids.get(fill.symbol, 0))
        self.reused_ids = int(self._journal.fact("reused_client_order_ids") or 0)
        self.update_time = max((order.update_time for order in self.placements), default=0)

    def reset(self) -> None:
        """Begin anew, as the testnet does every month: no order, no trade, ids from the start, the first balances."""
        self.placements.clear()
        self.fills.clear()
        for index in (self._by_id, self._open, self._by_client_id, self._trade_ids):
            index.clear()
        self.reused_ids = self.update_time = 0
        self.balances.clear()
        self.balances |= {asset: Balance() for asset in self._assets}
        self.balances[self._assets[0]].free = START_CASH
        self._journal.forget_books()
        self._journal.set_fact("reused_client_order_ids", "0")
        self._journal.set_fact("balances", msgspec.json.encode(self.balances).decode())
        self._journal.commit()

    def _index(self, order: Order) -> None:
        self._by_id[order.order_id] = order
        for client_id in {order.client_order_id, order.original_client_order_id} - {None}:
            self._by_client_id[order.symbol, str(client_id)] = order
        if order.is_open:
            self._open.setdefault(order.symbol, {})[order.order_id] = order

    def last_trade_id(self, symbol: str) -> int:
        """Return the account's highest trade id of `symbol`; 0 without a trade."""
        return self._trade_ids.get(symbol, 0)

    def open_orders(self, symbol: str | None = None) -> list[Order]:
        """Return open orders, oldest first."""
        if symbol is not None:
            return list(self._open.get(symbol, {}).values())
        return sorted((o for orders in self._open.values() for o in orders.values()), key=lambda o: o.order_id)

    def orders(self, symbol: str) -> list[Order]:
        """Return all orders of `symbol` that reached the books, oldest first."""
        return [order for order in self.placements if order.symbol == symbol and order.reject is None]

    def find(self, symbol: str, order_id: int | None, client_order_id: str | None) -> Order | None:
        """Return the order by its id, or else the newest one that has or had this client order id."""
        if order_id is not None:
            order = self._by_id.get(order_id)
            return order if order is not None and order.symbol == symbol else None
        return self._by_client_id.get((symbol, client_order_id or ""))

    @exact
    def place(
        self,
        rules: SymbolRules,
        request: OrderRequest,
        depth: Depth,
        now_ms: int,
        next_trade_id: int,
        ending: Ending | None = None,
    ) -> tuple[Order, list[Fill]]:
        """Execute a new order against `depth` and return it with its fills.

        Raises ApiError -2010 as the engine does, and then nothing has changed.
        """
        self._check_duplicate(request)
        quantity = self._quantity(rules, request, depth)
        is_buyer = request.is_buyer
        taken = depth.plan(is_buyer, quantity, request.price)
        if request.type == "LIMIT_MAKER" and taken:
            raise rejected("Order would immediately match and take.")
        self._check_balance(rules, request, quantity, taken)
        order = self._new_order(request, quantity, now_ms)
        if ending is not None:
            taken = depth.plan(is_buyer, floor_to(quantity * ending.fraction, rules.step), request.price)
        elif request.time_in_force == "FOK" and sum((share for _, share in taken), ZERO) < quantity:
            taken = []
        if request.price is not None:
            self._lock(rules, order, order.quantity)
        fills = []
        for number, (price, share) in enumerate(taken):
            # What the rest of an order without a price still needs is not there to pay commission.
            rest = [] if order.price else taken[number + 1 :]
            needed = sum((round8(p * q) if is_buyer else q for p, q in rest), ZERO)
            fills.append(self._fill(rules, order, price, share, now_ms, next_trade_id + number, needed=needed))
        depth.take(is_buyer, taken)
        self._settle_status(rules, order, request, ending)
        self._index(order)
        self._save(order, fills)
        if self.witness is not None:
            self.witness.placed(order, fills)
        return order, fills

    def _check_duplicate(self, request: OrderRequest) -> None:
        if request.client_order_id is None:
            return
        known = self._by_client_id.get((request.symbol, request.client_order_id))
        if known is None:
            return
        if known.is_open:
            raise rejected("Duplicate order sent.")

    def _quantity(self, rules: SymbolRules, request: OrderRequest, depth: Depth) -> Decimal:
        if request.quantity is not None:
            return request.quantity
        assert request.quote_quantity is not None
        return depth.quantity_for(request.is_buyer, request.quote_quantity, rules.step)

    def _check_balance(
        self, rules: SymbolRules, request: OrderRequest, quantity: Decimal, taken: list[tuple[Decimal, Decimal]]
    ) -> None:
        if not request.is_buyer:
            needed, asset = quantity, rules.base
        elif request.price is not None:
            needed, asset = request.price * quantity, rules.quote
        elif request.quote_quantity is not None:
            needed, asset = request.quote_quantity, rules.quote
        else:
            needed, asset = sum((round8(price * share) for price, share in taken), ZERO), rules.quote
        if needed > self.balances[asset].free:
            raise insufficient_balance()

    def _new_order(self, request: OrderRequest, quantity: Decimal, now_ms: int) -> Order:
        client_id = request.client_order_id or new_client_order_id()
        if (request.symbol, client_id) in self._by_client_id:
            self.reused_ids += 1
            self._journal.set_fact("reused_client_order_ids", str(self.reused_ids))
        order = Order(
            number=len(self.placements) + 1,
            symbol=request.symbol,
            order_id=FIRST_ORDER_ID + len(self.placements),
            client_order_id=client_id,
            side=request.side,
            type=request.type,
            time_in_force=request.time_in_force,
            price=request.price or ZERO,
            quantity=quantity,
            quote_quantity=request.quote_quantity or ZERO,
            status="NEW",
            time=now_ms,
            update_time=now_ms,
            working_time=now_ms,
            self_trade_prevention=request.self_trade_prevention,
            strategy_id=request.strategy_id,
            strategy_type=request.strategy_type,
        )
        self.placements.append(order)
        return order

    def _settle_status(self, rules: SymbolRules, order: Order, request: OrderRequest, ending: Ending | None) -> None:
        if order.left <= 0:
            order.status = "FILLED"
            return
        if request.may_rest and ending is None:
            order.status = "PARTIALLY_FILLED" if order.executed else "NEW"
            return
        if request.price is not None:
            self._lock(rules, order, -order.left)
        order.status = ending.status if ending is not None else "EXPIRED"
        if order.status == "EXPIRED":
            reasons = {"IOC": "UNFILLED_IOC_QUANTITY_EXPIRED", "FOK": "UNFILLED_FOK_ORDER_EXPIRED"}
            order.expiry_reason = reasons.get(order.time_in_force, "INSUFFICIENT_LIQUIDITY")
        elif order.status == "EXPIRED_IN_MATCH":
            order.prevented, order.prevented_match_id = order.left, order.number
        else:
            order.expiry_reason = {"REJECTED": "REJECTED", "CANCELED": "EXCHANGE_CANCELED"}[order.status]
        if order.status == "REJECTED":
            order.working_time = -1

    def _lock(self, rules: SymbolRules, order: Order, quantity: Decimal) -> None:
        """Move what `quantity` of a priced order needs from free to locked; a negative quantity moves it back."""
        asset, amount = (rules.quote, round8(order.price * quantity)) if order.is_buyer else (rules.base, quantity)
        self.balances[asset].free -= amount
        self.balances[asset].locked += amount

    def _fill(
        self,
        rules: SymbolRules,
        order: Order,
        price: Decimal,
        quantity: Decimal,
        now_ms: int,
        trade_id: int,
        is_maker: bool = False,
        needed: Decimal = ZERO,
    ) -> Fill:
        """Book one trade. `needed`: of the asset that is paid with, what later trades of the order will take."""
        quote = round8(price * quantity)
        if order.price:
            self._lock(rules, order, -quantity)
        base, money = self.balances[rules.base], self.balances[rules.quote]
        sign = 1 if order.is_buyer else -1
        money.free -= sign * quote
        base.free += sign * quantity
        asset, commission = self._commission(rules, order, quantity, quote, is_maker, needed)
        self.balances[asset].free -= commission
        order.executed += quantity
        order.quote += quote
        order.update_time = now_ms
        fill = Fill(
            number=len(self.fills) + 1,
            symbol=order.symbol,
            trade_id=trade_id,
            order_id=order.order_id,
            client_order_id=order.client_order_id,
            price=price,
            quantity=quantity,
            quote=quote,
            commission=commission,
            commission_asset=asset,
            time=now_ms,
            is_buyer=order.is_buyer,
            is_maker=is_maker,
        )
        self.fills.append(fill)
        self._trade_ids[order.symbol] = trade_id
        return fill

    def _commission(
        self, rules: SymbolRules, order: Order, quantity: Decimal, quote: Decimal, is_maker: bool, needed: Decimal
    ) -> tuple[str, Decimal]:
        """Return from which asset how much is taken: the chosen one if there is enough of it, else the received one."""
        received, paid = (rules.base, rules.quote) if order.is_buyer else (rules.quote, rules.base)
        elsewhere = self.fees.elsewhere(quote, rules.quote, received, is_maker)
        if elsewhere is not None:
            asset, commission = elsewhere
            free = self.balances[asset].free if asset in self.balances else ZERO
            if 0 < commission <= free - (needed if asset == paid else ZERO):
                return asset, commission
        return received, self.fees.received(quantity if order.is_buyer else quote, is_maker)

    @exact
    def match_resting(
        self, rules: SymbolRules, depth: Depth, now_ms: int, next_trade_id: int
    ) -> list[tuple[Order, Fill]]:
        """Fill resting orders that the book now reaches, at their own price; return each with its fill."""
        matched = []
        for order in self.open_orders(rules.symbol):
            taken = depth.plan(order.is_buyer, order.left, order.price)
            quantity = sum((share for _, share in taken), ZERO)
            if quantity <= 0:
                continue
            depth.take(order.is_buyer, taken)
            fill = self._fill(rules, order, order.price, quantity, now_ms, next_trade_id, is_maker=True)
            next_trade_id += 1
            order.status = "PARTIALLY_FILLED" if order.left > 0 else "FILLED"
            if not order.is_open:
                del self._open[order.symbol][order.order_id]
            self._save(order, [fill])
            if self.witness is not None:
                self.witness.matched(order, fill)
            matched.append((order, fill))
        return matched

    @exact
    def cancel(self, rules: SymbolRules, order: Order, cancel_id: str | None, now_ms: int) -> str:
        """Cancel an open order and return the client order id that it had; it now carries the cancel's id.

        Source: Binance, client order ids. By which of the two ids a cancelled order is found is not
        documented: here by both.
        """
        if not order.is_open:
            raise ApiError(-2011, "Unknown order sent.")
        original = order.client_order_id
        self._lock(rules, order, -order.left)
        order.status = "CANCELED"
        order.update_time = now_ms
        order.original_client_order_id = original
        order.client_order_id = cancel_id or new_client_order_id()
        del self._open[order.symbol][order.order_id]
        self._index(order)
        self._save(order, [])
        if self.witness is not None:
            self.witness.cancelled(order)
        return original

    @exact
    def set_free(self, asset: str, free: Decimal, now_ms: int) -> None:
        """Let a deposit or a withdrawal bring the free balance of `asset`, also a new one, to `free`."""
        balance = self.balances.setdefault(asset, Balance())
        delta, balance.free = free - balance.free, free
        self.update_time = max(self.update_time, now_ms)
        self._journal.set_fact("balances", msgspec.json.encode(self.balances).decode())
        self._journal.commit()
        if delta and self.witness is not None:
            self.witness.transferred(asset, delta)

    def note_rejected(self, texts: dict[str, str], code: int, now_ms: int) -> None:
        """Keep a refused order beside the others, as far as its parameters can be read."""
        number = len(self.placements) + 1
        order = Order(
            number=number,
            symbol=texts.get("symbol", ""),
            order_id=-1,
            client_order_id=texts.get("newClientOrderId", ""),
            side=texts.get("side", ""),
            type=texts.get("type", ""),
            time_in_force=texts.get("timeInForce", "GTC"),
            price=_readable(texts.get("price")),
            quantity=_readable(texts.get("quantity")),
            quote_quantity=_readable(texts.get("quoteOrderQty")),
            status="REJECTED",
            time=now_ms,
            update_time=now_ms,
            reject=code,
        )
        self.placements.append(order)
        self._save(order, [])

    def _save(self, order: Order, fills: list[Fill]) -> None:
        self.update_time = max(self.update_time, order.update_time)
        self._journal.set_body("placements", order.number, msgspec.json.encode(order))
        for fill in fills:
            self._journal.set_body("fills", fill.number, msgspec.json.encode(fill))
        if fills or order.reject is None:
            self._journal.set_fact("balances", msgspec.json.encode(self.balances).decode())
        self._journal.commit()


def _readable(text: str | None) -> Decimal:
    """Return a refused order's amount where it is one; 0 for what cannot be read."""
    if text is None or not text.isascii() or not text.replace(".", "", 1).isdigit() or len(text) > 40:
        return ZERO
    return Decimal(text)
