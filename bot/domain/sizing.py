"""How large an order is, and why there is none. Source: contract, section 1, Size and Legality."""

from decimal import Decimal

import msgspec

from bot.domain.filters import SymbolRules
from bot.domain.ledger import Ledger
from bot.domain.money import (
    ONE,
    ZERO,
    add,
    ceil8,
    floor_quotient_to_step,
    floor_to_step,
    multiply,
    plain,
    subtract,
)
from bot.domain.order import Fill, Side
from bot.domain.risk import RiskLimits
from bot.domain.strategy import Signal


class SizingParameters(msgspec.Struct, frozen=True):
    """Fractions of the contract's section 1; `slippage` moves fills of paper money against the trader."""

    fraction: Decimal = Decimal("0.1")
    sell_fraction: Decimal = ONE
    max_exposure: Decimal = ONE
    slippage: Decimal = ZERO
    fee: Decimal = Decimal("0.001")
    limits: RiskLimits = RiskLimits()


class Sized(msgspec.Struct, frozen=True):
    """A legal order: `quantity` in the base asset, and the quote asset to set aside for it (0 for a SELL)."""

    quantity: Decimal
    quote_reserved: Decimal


class Refusal(msgspec.Struct, frozen=True):
    """Why no order is sent: the contract's one name, and a line for people."""

    name: str
    detail: str


def size_order(
    ledger: Ledger, symbol: str, signal: Signal, close: Decimal, event_time: int, parameters: SizingParameters
) -> Sized | Refusal:
    """Turn a signal into a legal order or into the one reason why there is none.

    The ledger must already carry this message's close as the symbol's mark. `event_time` is in ms.
    """
    if signal.side is Side.SELL:
        return _size_sell(ledger, symbol, signal, close, parameters)
    return _pause(ledger, symbol, event_time, parameters.limits) or _size_buy(ledger, symbol, close, parameters)


def _pause(ledger: Ledger, symbol: str, event_time: int, limits: RiskLimits) -> Refusal | None:
    last = ledger.last_trade_time.get(symbol)
    if limits.cooldown_ms and last is not None and event_time - last < limits.cooldown_ms:
        rest = limits.cooldown_ms - (event_time - last)
        return Refusal("COOLDOWN", f"{rest} ms of the cooldown after the last trade are left")
    if ledger.day.lost:
        return Refusal("DAILY_LOSS", f"the day's loss reached {limits.max_daily_loss} of its first equity")
    return None


def _size_buy(ledger: Ledger, symbol: str, close: Decimal, parameters: SizingParameters) -> Sized | Refusal:
    rules = ledger.rules[symbol]
    equity, cash = ledger.equity(), ledger.free_cash()
    wanted = multiply(parameters.fraction, equity)
    position_value = multiply(ledger.positions[symbol].quantity, close)
    exposure_left = subtract(multiply(parameters.max_exposure, equity), position_value)
    budget = max(ZERO, min(wanted, cash, exposure_left))
    price = multiply(close, add(ONE, parameters.slippage))
    quantity = _capped(floor_quotient_to_step(budget, price, rules.step_size), rules)
    broken = rules.broken_by(quantity, close)
    if broken is None:
        return Sized(quantity, multiply(quantity, price))
    what = f"{plain(quantity)} {rules.base_asset} at {plain(close)}"
    if cash < wanted and cash <= exposure_left:
        return Refusal("CASH", f"{what}: only {cash:.2f} {rules.quote_asset} free of {wanted:.2f} wanted")
    if exposure_left < wanted and exposure_left < cash:
        return Refusal("EXPOSURE", f"{what}: only {exposure_left:.2f} {rules.quote_asset} of exposure left")
    return Refusal(broken, f"{what}: {_bound(rules, broken)}")


def _size_sell(
    ledger: Ledger, symbol: str, signal: Signal, close: Decimal, parameters: SizingParameters
) -> Sized | Refusal:
    rules = ledger.rules[symbol]
    share = ONE if signal.sell_all else parameters.sell_fraction
    position = ledger.positions[symbol].quantity
    quantity = _capped(floor_to_step(multiply(share, max(ZERO, position)), rules.step_size), rules)
    broken = rules.broken_by(quantity, close)
    if broken is None:
        return Sized(quantity, ZERO)
    what = f"{plain(quantity)} of {plain(position)} {rules.base_asset} at {plain(close)}"
    return Refusal(broken, f"{what}: {_bound(rules, broken)}")


def _capped(quantity: Decimal, rules: SymbolRules) -> Decimal:
    if rules.max_qty and quantity > rules.max_qty:
        return floor_to_step(rules.max_qty, rules.step_size)
    return quantity


def _bound(rules: SymbolRules, broken: str) -> str:
    if broken == "LOT_SIZE":
        return f"at least {plain(rules.min_qty)} in steps of {plain(rules.step_size)}"
    most = f", at most {plain(rules.max_notional)}" if rules.max_notional else ""
    return f"worth at least {plain(rules.min_notional)} {rules.quote_asset}{most}"


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
