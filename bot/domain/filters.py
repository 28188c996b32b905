"""What the exchange lets one order of a symbol be. Source: Binance, filters; contract, section 1, Legality."""

from collections.abc import Iterator
from decimal import Decimal

import msgspec

from bot.domain.market import MarketView
from bot.domain.money import ONE, ZERO, add, is_multiple, multiply, plain, subtract
from bot.domain.order import Side

TRADING = "TRADING"
"""The status of a symbol whose market is open."""

NOTIONAL_MARGIN = Decimal("0.03")
"""How far a market order keeps from a notional bound. The exchange judges it by its own average price of the moment the
order arrives; ours is some seconds old, and a move with much volume shifts an average of five minutes by per cents."""


class Refusal(msgspec.Struct, frozen=True):
    """Why no order is sent: its one name, and a line for people."""

    name: str
    detail: str


class PlannedOrder(msgspec.Struct, frozen=True):
    """An order about to be sent: MARKET, or LIMIT IOC at `limit_price`. `close` is the deciding kline's."""

    side: Side
    quantity: Decimal
    close: Decimal
    limit_price: Decimal | None = None


class Lot(msgspec.Struct, frozen=True):
    """LOT_SIZE or MARKET_LOT_SIZE or both joined, in the base asset; a zero bound or step is off."""

    min_qty: Decimal
    max_qty: Decimal
    step_size: Decimal

    def allows(self, quantity: Decimal) -> bool:
        """Return whether a quantity is within the bounds and on the step; a quantity of zero never is."""
        return (
            quantity > 0
            and self.min_qty <= quantity
            and (not self.max_qty or quantity <= self.max_qty)
            and (not self.step_size or is_multiple(quantity, self.step_size))
        )


class PriceFilter(msgspec.Struct, frozen=True):
    """PRICE_FILTER, in the quote asset; a zero is off. It binds orders that name a price, not MARKET."""

    min_price: Decimal = ZERO
    max_price: Decimal = ZERO
    tick_size: Decimal = ZERO

    def allows(self, price: Decimal) -> bool:
        """Return whether a price is within the bounds and on the tick; a price of zero never is."""
        return (
            price > 0
            and self.min_price <= price
            and (not self.max_price or price <= self.max_price)
            and (not self.tick_size or is_multiple(price, self.tick_size))
        )


class PercentPrice(msgspec.Struct, frozen=True):
    """PERCENT_PRICE or PERCENT_PRICE_BY_SIDE: a price's bounds as factors of the reference price, for BUY and SELL.

    The reference is the average of the last `average_minutes`, or the last price where that is 0.
    """

    name: str
    bid_down: Decimal
    bid_up: Decimal
    ask_down: Decimal
    ask_up: Decimal
    average_minutes: int

    def bounds(self, order: PlannedOrder, market: MarketView) -> tuple[Decimal, Decimal]:
        """Return the lowest and the highest price of an order; by its close where no average is known."""
        reference = market.average_price if self.average_minutes and market.average_price else order.close
        down, up = (self.bid_down, self.bid_up) if order.side is Side.BUY else (self.ask_down, self.ask_up)
        return multiply(reference, down), multiply(reference, up)


class NotionalFilter(msgspec.Struct, frozen=True):
    """MIN_NOTIONAL or NOTIONAL: bounds of price * quantity in the quote asset; a maximum of zero is off.

    A market order is judged by the reference price, and only where the flags say so.
    """

    name: str
    minimum: Decimal
    maximum: Decimal
    min_binds_market: bool
    max_binds_market: bool
    average_minutes: int

    def allows(self, order: PlannedOrder, market: MarketView) -> bool:
        """Return whether the exchange will take the order's value.

        That of a market order is tested by the average price and by the close, both with NOTIONAL_MARGIN to spare,
        since either may be nearer to what the exchange will reckon with; by the close alone where no average is known.
        Where the exchange takes the last price itself (`average_minutes` 0) that is the close, and no margin is needed.
        """
        if order.limit_price is not None:
            value = multiply(order.quantity, order.limit_price)
            return value >= self.minimum and (not self.maximum or value <= self.maximum)
        margin = NOTIONAL_MARGIN if self.average_minutes else ZERO
        prices = [order.close]
        if self.average_minutes and market.average_price:
            prices.append(market.average_price)
        least = multiply(self.minimum, add(ONE, margin)) if self.min_binds_market else ZERO
        most = multiply(self.maximum, subtract(ONE, margin)) if self.max_binds_market else ZERO
        return all(
            value >= least and (not most or value <= most)
            for value in (multiply(order.quantity, price) for price in prices)
        )


class SymbolRules(msgspec.Struct, frozen=True):
    """A symbol's trading rules. Quantities are in the base asset, notionals in the quote asset; a zero bound is off.

    `step_size`, `min_qty`, `max_qty` join LOT_SIZE and MARKET_LOT_SIZE: a quantity legal here is legal for both.
    `notional_filter` is the name of the filter that sets `min_notional`: MIN_NOTIONAL or NOTIONAL. These make the
    contract's legality, everywhere. The others are the exchange's own, as it listed them, and are off by default:
    `lot_size` is LOT_SIZE alone, which binds LIMIT orders; an empty `order_types` or `permission_sets` allows all.
    """

    symbol: str
    base_asset: str
    quote_asset: str
    step_size: Decimal
    min_qty: Decimal
    max_qty: Decimal
    min_notional: Decimal
    notional_filter: str = "MIN_NOTIONAL"
    max_notional: Decimal = ZERO
    status: str = TRADING
    lot_size: Lot | None = None
    price_filter: PriceFilter = PriceFilter()
    percent_prices: tuple[PercentPrice, ...] = ()
    notionals: tuple[NotionalFilter, ...] = ()
    max_num_orders: int = 0
    max_position: Decimal = ZERO
    base_precision: int = 8
    quote_precision: int = 8
    order_types: tuple[str, ...] = ()
    is_spot_trading_allowed: bool = True
    permission_sets: tuple[tuple[str, ...], ...] = ()

    def lot(self, is_limit: bool = False) -> Lot:
        """Return the lot of a MARKET order (both filters joined), or of a LIMIT order (LOT_SIZE alone)."""
        if not is_limit or self.lot_size is None:
            return Lot(self.min_qty, self.max_qty, self.step_size)
        step = self.lot_size.step_size or ONE.scaleb(-self.base_precision)
        return msgspec.structs.replace(self.lot_size, step_size=step)

    def broken_by(self, quantity: Decimal, price: Decimal, is_limit: bool = False) -> str | None:
        """Return the first filter that an order of `quantity` breaks at `price`, None if it is legal.

        LOT_SIZE comes before the notional filter. A quantity of zero breaks LOT_SIZE. Source: contract, Legality.
        """
        if not self.lot(is_limit).allows(quantity):
            return "LOT_SIZE"
        notional = multiply(quantity, price)
        if notional < self.min_notional or (self.max_notional and notional > self.max_notional):
            return self.notional_filter
        return None

    def refusal(self, order: PlannedOrder, market: MarketView) -> Refusal | None:
        """Return the first reason for which the exchange would refuse an order by its own rules, None if it takes it.

        Names are the exchange's filters (PERCENT_PRICE also for the one by side, LOT_SIZE also for the market's and for
        too many decimals), and MARKET_CLOSED, PERMISSION, ORDER_TYPE. What `market` does not know is not tested.
        """
        return next(self._refusals(order, market), None)

    def _refusals(self, order: PlannedOrder, market: MarketView) -> Iterator[Refusal]:
        price, quantity = order.limit_price, order.quantity
        if self.status != TRADING:
            yield Refusal("MARKET_CLOSED", f"{self.symbol}: its status is {self.status}, not {TRADING}")
        if not self.is_spot_trading_allowed:
            yield Refusal("MARKET_CLOSED", f"{self.symbol}: the exchange allows no spot trading of it")
        if market.permissions is not None and not all(market.permissions.intersection(s) for s in self.permission_sets):
            yield Refusal("PERMISSION", f"{self.symbol}: the account lacks a permission that it asks for")
        kind = "MARKET" if price is None else "LIMIT"
        if self.order_types and kind not in self.order_types:
            yield Refusal("ORDER_TYPE", f"{self.symbol}: {kind} is none of {', '.join(self.order_types)}")
        lot = self.lot(price is not None)
        if not lot.allows(quantity) or _decimals(quantity) > self.base_precision:
            yield Refusal("LOT_SIZE", f"{plain(quantity)} {self.base_asset}: {self._lot_in_words(lot)}")
        if price is not None:
            if not self.price_filter.allows(price) or _decimals(price) > self.quote_precision:
                yield Refusal("PRICE_FILTER", f"limit price {plain(price)}: {self._prices_in_words()}")
            for percent in self.percent_prices:
                low, high = percent.bounds(order, market)
                if not low <= price <= high:
                    bounds = f"{percent.name} allows {plain(low)} to {plain(high)}"
                    yield Refusal("PERCENT_PRICE", f"limit price {plain(price)}: {bounds}")
        for notional in self.notionals:
            if not notional.allows(order, market):
                yield Refusal(notional.name, self._notional_in_words(notional, order, market))
        if order.side is Side.BUY and self.max_position:
            held = add(market.held_base, market.wanted_base)
            if add(held, quantity) > self.max_position:
                line = f"{plain(held)} held and wanted and {plain(quantity)} more: at most {plain(self.max_position)}"
                yield Refusal("MAX_POSITION", f"{line} {self.base_asset}")
        # A market order never rests in the book, whatever else is open there.
        if price is not None and self.max_num_orders and market.open_orders >= self.max_num_orders:
            line = f"{market.open_orders} orders of {self.symbol} are open, at most {self.max_num_orders} may be"
            yield Refusal("MAX_NUM_ORDERS", line)

    def bound_in_words(self, broken: str, is_limit: bool = False) -> str:
        """Return what a filter named by `broken_by` asks for."""
        if broken == "LOT_SIZE":
            return self._lot_in_words(self.lot(is_limit))
        most = f", at most {plain(self.max_notional)}" if self.max_notional else ""
        return f"worth at least {plain(self.min_notional)} {self.quote_asset}{most}"

    def _lot_in_words(self, lot: Lot) -> str:
        return f"at least {plain(lot.min_qty)} in steps of {plain(lot.step_size)}"

    def _prices_in_words(self) -> str:
        bounds = self.price_filter
        most = f" to {plain(bounds.max_price)}" if bounds.max_price else ""
        return f"from {plain(bounds.min_price)}{most} in ticks of {plain(bounds.tick_size)}"

    def _notional_in_words(self, notional: NotionalFilter, order: PlannedOrder, market: MarketView) -> str:
        most = f", at most {plain(notional.maximum)}" if notional.maximum else ""
        bounds = f"worth at least {plain(notional.minimum)} {self.quote_asset}{most}"
        what = f"{plain(order.quantity)} {self.base_asset}"
        if order.limit_price is not None:
            return f"{what} at the limit price {plain(order.limit_price)}: {bounds}"
        average = f" and at the average {plain(market.average_price)}" if market.average_price else ""
        margin = f", by {NOTIONAL_MARGIN:%} to spare" if notional.average_minutes else ""
        return f"{what} at {plain(order.close)}{average}: {bounds}{margin}"


def default_rules(symbol: str) -> SymbolRules | None:
    """Return the contract's offline rules of BTCUSDT, ETHUSDT or DOGEUSDT; None for any other symbol."""
    lot = {
        "BTCUSDT": ("BTC", "0.00001", "9000"),
        "ETHUSDT": ("ETH", "0.00001", "9000"),
        "DOGEUSDT": ("DOGE", "1", "9000000"),
    }.get(symbol)
    if lot is None:
        return None
    base_asset, step, max_qty = lot
    return SymbolRules(
        symbol=symbol,
        base_asset=base_asset,
        quote_asset="USDT",
        step_size=Decimal(step),
        min_qty=Decimal(step),
        max_qty=Decimal(max_qty),
        min_notional=Decimal(10),
    )


def _decimals(value: Decimal) -> int:
    text = plain(value)
    return len(text) - text.index(".") - 1 if "." in text else 0
