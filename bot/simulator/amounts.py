"""Decides how amounts are computed and written: exact decimals, eight places in replies, commissions rounded up."""

import functools
from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, ROUND_UP, Context, Decimal, DivisionByZero, InvalidOperation, localcontext
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# A parameter may carry 20 digits on either side of the point: a product of two needs 80.
EXACT = Context(prec=100, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation, DivisionByZero])
ZERO = Decimal(0)
EIGHT = Decimal("0.00000001")


def exact(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function` with enough decimal digits, whatever the thread was set to: a new thread starts with 28."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with localcontext(EXACT):
            return function(*args, **kwargs)

    return run


def text8(value: Decimal) -> str:
    """Return `value` as the exchange writes amounts: plain, with eight decimals."""
    return f"{value:.8f}"


def round8(value: Decimal) -> Decimal:
    """Return `value` with eight decimals, ties to even."""
    return value.quantize(EIGHT, ROUND_HALF_EVEN, EXACT)


def ceil8(value: Decimal) -> Decimal:
    """Return `value` with eight decimals, rounded up.

    Source: the direction of Binance's rounding of commissions is not documented; contract, section 1, rounds up.
    """
    return value.quantize(EIGHT, ROUND_UP, EXACT)


@exact
def floor_to(value: Decimal, step: Decimal) -> Decimal:
    """Return the largest multiple of `step` (> 0) that is not above `value` (>= 0)."""
    return value // step * step


def plain(value: Decimal) -> str:
    """Return `value` without an exponent and without zeros at the end of its decimals."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def decimals(value: Decimal) -> int:
    """Return with how many decimals the finite `value` was written."""
    exponent = value.as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0
