"""Exact decimal arithmetic, the few roundings that the contract names, and how decimals are written.

A thread starts with a decimal context of 28 digits whatever the main thread had set, so nothing here or above
uses the operators `+ - * /` on money: the functions below carry their own context.
"""

from decimal import ROUND_CEILING, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from fractions import Fraction
from math import gcd

# 120 digits hold any product or sum of four values of 30 digits; a result that would still be rounded raises.
EXACT = Context(prec=120, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
ROUNDING = Context(prec=120, traps=[InvalidOperation, DivisionByZero, Overflow])
_LIMITS = Context(prec=40, traps=[InvalidOperation, DivisionByZero, Overflow])

ZERO = Decimal(0)
ONE = Decimal(1)
EIGHT_DECIMALS = Decimal("1E-8")

add = EXACT.add
subtract = EXACT.subtract
multiply = EXACT.multiply


def floor_to_step(quantity: Decimal, step_size: Decimal) -> Decimal:
    """Return the largest multiple of `step_size` that is not above `quantity`.

    Both are in the base asset; `quantity` is not negative. LOT_SIZE counts steps from zero, not from minQty.

    Raises ValueError if `step_size` is not positive. Source: Binance, filters, LOT_SIZE.
    """
    if step_size <= 0:
        raise ValueError(f"step size {step_size} is not positive")
    return multiply(EXACT.divide_int(quantity, step_size), step_size)


def ceil_to_step(amount: Decimal, step_size: Decimal) -> Decimal:
    """Return the smallest multiple of `step_size` that is not below `amount`, which is not negative.

    Raises ValueError if `step_size` is not positive.
    """
    floor = floor_to_step(amount, step_size)
    return floor if floor == amount else add(floor, step_size)


def floor_quotient_to_step(amount: Decimal, price: Decimal, step_size: Decimal) -> Decimal:
    """Return the largest multiple of `step_size` (base asset) that costs at most `amount` (quote asset) at `price`.

    Never divides first: a rounded quotient can lie a whole step above the exact one.

    Raises ValueError if `price` or `step_size` is not positive.
    """
    if price <= 0 or step_size <= 0:
        raise ValueError(f"price {price} and step size {step_size} must be positive")
    return multiply(EXACT.divide_int(amount, multiply(price, step_size)), step_size)


def is_multiple(quantity: Decimal, step_size: Decimal) -> bool:
    """Return whether `quantity` is a whole number of steps."""
    return EXACT.remainder(quantity, step_size) == 0


def common_step(first: Decimal, second: Decimal) -> Decimal:
    """Return the smallest step that is a multiple of both steps; a step of zero is no step.

    Raises ValueError if both are zero or one is negative.
    """
    if first < 0 or second < 0 or first == second == 0:
        raise ValueError(f"step sizes {first} and {second}: one must be positive, none negative")
    if first == 0 or second == 0:
        return first or second
    exponent = min(_exponent(first), _exponent(second))
    a, b = int(first.scaleb(-exponent, EXACT)), int(second.scaleb(-exponent, EXACT))
    return Decimal(a // gcd(a, b) * b).scaleb(exponent, EXACT)


def ceil8(amount: Decimal) -> Decimal:
    """Round up to 8 decimals, the way a commission is rounded. Source: contract, Money."""
    return amount.quantize(EIGHT_DECIMALS, rounding=ROUND_CEILING, context=ROUNDING)


def average_price(quote_quantity: Decimal, quantity: Decimal) -> Decimal:
    """Return `quote_quantity / quantity`: exact where the quotient ends, else rounded half even to 8 decimals.

    Raises ZeroDivisionError if `quantity` is zero. Source: contract, section 2, trade objects.
    """
    quotient = Fraction(quote_quantity) / Fraction(quantity)
    rest, twos, fives = quotient.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest == 1:
        places = max(twos, fives)
        return Decimal(int(quotient * 10**places)).scaleb(-places, EXACT)
    return Decimal(round(quotient * 10**8)).scaleb(-8, EXACT)


def mean_price(price: Decimal, quantity: Decimal, more_quote: Decimal, more_quantity: Decimal) -> Decimal:
    """Return the average price of a position of `quantity` at `price` after `more_quantity` came for `more_quote`.

    Kept at 60 significant digits: an exact fraction would grow with every trade. Bounds come from it by `limit_of`.
    """
    cost = ROUNDING.add(ROUNDING.multiply(price, quantity), more_quote)
    return ROUNDING.divide(cost, ROUNDING.add(quantity, more_quantity)).normalize(Context(prec=60))


def limit_of(mean: Decimal, factor: Decimal) -> Decimal:
    """Return `mean * factor` at 40 significant digits.

    A mean that does not end is rounded; its 20 digits more keep that from deciding whether a price is on the limit.
    """
    return _LIMITS.multiply(mean, factor)


def plain(value: Decimal) -> str:
    """Write a decimal without exponent and without trailing zeros: `1E-8` is `0.00000001`, `-0.0` is `0`."""
    if not value:
        return "0"
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _exponent(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise ValueError(f"{value} is not a finite number")
    return exponent
