"""How large an order is, and why there is none. Source: contract, section 1, Size and Legality."""

from decimal import Decimal

import msgspec

from bot.domain.filters import Lot, PlannedOrder, Refusal, SymbolRules
from bot.domain.ledger import Ledger
from bot.domain.market import MarketView
from bot.domain.money import (
    ONE,
    ZERO,
    add,
    ceil8,
    ceil_to_step,
    floor_quotient_to_step,
    floor_to_step,
    multiply,
    plain,
    subtract,
)
from bot.domain.order import Fill, Side
from bot.domain.risk import RiskLimits
from bot.domain.strategy import Signal

BASIS_POINT = Decimal("0.0001")


class SizingParameters(msgspec.Struct, frozen=True):
    """Fractions of the contract's section 1; `slippage` moves fills of paper money against the trader.

    With `max_slippage_bps` (basis points) orders that go to an exchange are LIMIT IOC, without it MARKET.
    """

    fraction: Decimal = Decimal("0.1")
    sell_fraction: Decimal = ONE
    max_exposure: Decimal = ONE
    slippage: Decimal = ZERO
    fee: Decimal = Decimal("0.001")
    limits: RiskLimits = RiskLimits()
    max_slippage_bps: Decimal | None = None


class Sized(msgspec.Struct, frozen=True):
    """A legal order: `quantity` in the base asset, and the quote asset to set aside for it (0 for a SELL).

    With a `limit_price` it is LIMIT IOC, and what is set aside covers the whole quantity at that price.
    """

    quantity: Decimal
    quote_reserved: Decimal
    limit_price: Decimal | None = None


def size_order(
    ledger: Ledger,
    symbol: str,
    signal: Signal,
    close: Decimal,
    event_time: int,
    parameters: SizingParameters,
    market: MarketView | None = None,
    now_ms: int = 0,
    recent_orders: int = 0,
) -> Sized | Refusal:
    """Turn a signal into a legal order or into the one reason why there is none.

    The ledger must already carry this message's close as the symbol's mark. `event_time` is in ms. `market` is what is
    known of the exchange that the order goes to, by the bot's clock at `now_ms`; None where none is traded on
    (backtest, replay), and then the contract's section 1 alone decides. `recent_orders` are those of the last minute.

    The contract's reasons come first, so that a run against an exchange names them as a backtest does; then what the
    exchange would refuse (`SymbolRules.refusal`), then PRICE and ORDER_RATE. A person's command to sell all is a MARKET
    order at whatever price, of what the account holds where that is less than the position and can be sold.
    """
    rules, limit = ledger.rules[symbol], None
    if market is not None and parameters.max_slippage_bps is not None and not signal.is_flatten:
        limit = limit_price(rules, signal.side, close, parameters.max_slippage_bps, market)
    if signal.side is Side.SELL:
        sized = _size_sell(ledger, symbol, signal, close, parameters, limit, market)
    else:
        sized = _pause(ledger, symbol, event_time, parameters.limits) or _size_buy(
            ledger, symbol, close, parameters, limit
        )
    if market is None or isinstance(sized, Refusal):
        return sized
    order = PlannedOrder(signal.side, sized.quantity, close, limit)
    return (
        rules.refusal(order, market)
        or (None if signal.is_flatten else price_refusal(order, market, now_ms, parameters.limits))
        or _rate_refusal(signal.side, recent_orders, parameters.limits)
        or sized
    )


def limit_price(
    rules: SymbolRules, side: Side, close: Decimal, max_slippage_bps: Decimal, market: MarketView
) -> Decimal:
    """Return the worst price at which a LIMIT IOC order may fill: the close moved against the trader, on the tick.

    Rounding never exceeds the bound (BUY down, SELL up), nor does the price leave PRICE_FILTER or PERCENT_PRICE on the
    far side, where a nearer one is still within the bound. It may be 0, or outside of them on the near side: then no
    price is legal, and `SymbolRules.refusal` says so.
    """
    tick = rules.price_filter.tick_size or ONE.scaleb(-rules.quote_precision)
    share = multiply(max_slippage_bps, BASIS_POINT)
    bounds = [percent.bounds(PlannedOrder(side, ZERO, close), market) for percent in rules.percent_prices]
    if side is Side.BUY:
        highest = [multiply(close, add(ONE, share)), *(high for _, high in bounds)]
        if rules.price_filter.max_price:
            highest.append(rules.price_filter.max_price)
        return floor_to_step(min(highest), tick)
    lowest = [low for low, _ in bounds]
    return ceil_to_step(max(multiply(close, subtract(ONE, share)), rules.price_filter.min_price, *lowest), tick)


def price_refusal(order: PlannedOrder, market: MarketView, now_ms: int, limits: RiskLimits) -> Refusal | None:
    """Return why a kline's close is not believed, None if it is, or if no limit is set.

    An entry needs a book price younger than the limit, and a close near to it. An exit is held back only by a young
    book price that contradicts the close: a false kline must not sell, but a book of which nothing is heard must not
    keep a position for ever. A book that is no longer updated holds an exit back for the limit's age at most; one that
    is updated and still far away says that the klines are wrong, and then selling by them would be the mistake.
    """
    most = limits.max_price_deviation
    if most is None:
        return None
    middle = market.mid_price(now_ms, limits.max_quote_age_ms)
    if middle is None:
        if order.side is Side.SELL:
            return None
        return Refusal("PRICE", f"no price of the book younger than {limits.max_quote_age_ms} ms is known")
    distance = subtract(order.close, middle).copy_abs()
    if distance <= multiply(middle, most):
        return None
    line = f"the close {plain(order.close)} is more than {plain(most)} off the middle of the book, {plain(middle)}"
    return Refusal("PRICE", line)


def _rate_refusal(side: Side, recent_orders: int, limits: RiskLimits) -> Refusal | None:
    most = limits.max_orders_per_minute
    if most is None or side is Side.SELL or recent_orders < most:
        return None
    return Refusal("ORDER_RATE", f"{recent_orders} orders in the last minute, at most {most} before an entry")


def _pause(ledger: Ledger, symbol: str, event_time: int, limits: RiskLimits) -> Refusal | None:
    last = ledger.last_trade_time.get(symbol)
    if limits.cooldown_ms and last is not None and event_time - last < limits.cooldown_ms:
        rest = limits.cooldown_ms - (event_time - last)
        return Refusal("COOLDOWN", f"{rest} ms of the cooldown after the last trade are left")
    if ledger.day.lost:
        return Refusal("DAILY_LOSS", f"the day's loss reached {limits.max_daily_loss} of its first equity")
    return None


def _size_buy(
    ledger: Ledger, symbol: str, close: Decimal, parameters: SizingParameters, limit: Decimal | None
) -> Sized | Refusal:
    rules = ledger.rules[symbol]
    lot = rules.lot(limit is not None)
    equity, cash = ledger.equity(), ledger.free_cash()
    wanted = multiply(parameters.fraction, equity)
    position_value = multiply(ledger.positions[symbol].quantity, close)
    exposure_left = subtract(multiply(parameters.max_exposure, equity), position_value)
    budget = max(ZERO, min(wanted, cash, exposure_left))
    price = multiply(close, add(ONE, parameters.slippage))
    quantity = _capped(floor_quotient_to_step(budget, price, lot.step_size), lot)
    # The whole of it may fill at the limit price, and that much must be free.
    is_cut = False
    if limit:
        affordable = floor_quotient_to_step(max(ZERO, cash), limit, lot.step_size)
        is_cut, quantity = affordable < quantity, min(affordable, quantity)
    broken = rules.broken_by(quantity, close, limit is not None)
    if broken is None:
        return Sized(quantity, multiply(quantity, price if limit is None else limit), limit)
    what = f"{plain(quantity)} {rules.base_asset} at {plain(close)}"
    if is_cut or (cash < wanted and cash <= exposure_left):
        return Refusal("CASH", f"{what}: only {cash:.2f} {rules.quote_asset} free of {wanted:.2f} wanted")
    if exposure_left < wanted and exposure_left < cash:
        return Refusal("EXPOSURE", f"{what}: only {exposure_left:.2f} {rules.quote_asset} of exposure left")
    return Refusal(broken, f"{what}: {rules.bound_in_words(broken, limit is not None)}")


def _size_sell(
    ledger: Ledger,
    symbol: str,
    signal: Signal,
    close: Decimal,
    parameters: SizingParameters,
    limit: Decimal | None,
    market: MarketView | None,
) -> Sized | Refusal:
    rules = ledger.rules[symbol]
    lot = rules.lot(limit is not None)
    share = ONE if signal.sell_all else parameters.sell_fraction
    position = ledger.positions[symbol].quantity

    def sold_of(held: Decimal) -> Decimal:
        return _capped(floor_to_step(multiply(share, max(ZERO, held)), lot.step_size), lot)

    quantity = sold_of(position)
    if signal.is_flatten and market is not None and ZERO < market.held_base < position:
        # Somebody took coins of the bot's: what is left of them is sold, where an order for all would be refused. Too
        # little to be sold may be what was held before the last buy, of whose coins the account has not told yet.
        left = sold_of(market.held_base)
        if rules.broken_by(left, close, limit is not None) is None:
            quantity = left
    broken = rules.broken_by(quantity, close, limit is not None)
    if broken is None:
        return Sized(quantity, ZERO, limit)
    what = f"{plain(quantity)} of {plain(position)} {rules.base_asset} at {plain(close)}"
    return Refusal(broken, f"{what}: {rules.bound_in_words(broken, limit is not None)}")


def _capped(quantity: Decimal, lot: Lot) -> Decimal:
    if lot.max_qty and quantity > lot.max_qty:
        return floor_to_step(lot.max_qty, lot.step_size)
    return quantity


def paper_fill(
    client_order_id: str,
    trade_id: int,
    rules: SymbolRules,
    side: Side,
    quantity: Decimal,
    close: Decimal,
    time: int,
    parameters: SizingParameters,
) -> Fill:
    """Return the fill of backtest, replay and paper: at `close` moved against the trader by the slippage.

    Commission is taken of a BUY in the base asset, of a SELL in the quote asset, rounded up to 8 decimals.
    Source: contract, section 1, Money.
    """
    moved = add(ONE, parameters.slippage) if side is Side.BUY else subtract(ONE, parameters.slippage)
    price = multiply(close, moved)
    quote_quantity = multiply(quantity, price)
    received, asset = (quantity, rules.base_asset) if side is Side.BUY else (quote_quantity, rules.quote_asset)
    return Fill(
        client_order_id=client_order_id,
        order_id=trade_id,
        trade_id=trade_id,
        symbol=rules.symbol,
        side=side,
        price=price,
        quantity=quantity,
        quote_quantity=quote_quantity,
        commission=ceil8(multiply(received, parameters.fee)),
        commission_asset=asset,
        time=time,
    )
