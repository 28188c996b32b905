"""Exact arithmetic: floors against fractions, and the few roundings that the contract names."""

from decimal import Decimal, Inexact
from fractions import Fraction
from math import ceil, floor

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bot.domain.money import (
    add,
    average_price,
    ceil8,
    common_step,
    floor_quotient_to_step,
    floor_to_step,
    is_multiple,
    limit_of,
    mean_price,
    multiply,
    plain,
    subtract,
)


def decimals(least="0", most="1e12", places=12):
    return st.decimals(Decimal(least), Decimal(most), places=places, allow_nan=False, allow_infinity=False)


AMOUNTS = decimals()
PRICES = st.builds(
    lambda digits, exponent: Decimal(digits).scaleb(exponent), st.integers(1, 10**12), st.integers(-14, 3)
)
STEPS = st.one_of(
    st.sampled_from([Decimal(s) for s in ("0.00001", "1", "0.00003", "0.00002", "10", "0.5", "1E-8", "0.00007", "7")]),
    st.builds(lambda digits, exponent: Decimal(digits).scaleb(exponent), st.integers(1, 999), st.integers(-10, 2)),
)


@given(AMOUNTS, STEPS)
def test_floor_to_step_is_the_fractions(quantity, step):
    whole = floor(Fraction(quantity) / Fraction(step))
    assert Fraction(floor_to_step(quantity, step)) == whole * Fraction(step)


@given(AMOUNTS, PRICES, STEPS)
def test_floor_quotient_to_step_is_the_fractions(amount, price, step):
    whole = floor(Fraction(amount) / (Fraction(price) * Fraction(step)))
    assert Fraction(floor_quotient_to_step(amount, price, step)) == whole * Fraction(step)


@given(PRICES, STEPS, st.integers(0, 10**9), st.sampled_from([-1, 0, 1]))
def test_floor_quotient_to_step_beside_a_whole_number_of_steps(price, step, steps, beside):
    """Where a rounded quotient goes wrong: an amount that buys exactly so many steps, or the least bit less or more."""
    amount = add(multiply(multiply(price, step), Decimal(steps)), Decimal(beside).scaleb(-40))
    assume(amount >= 0)
    expected = steps - (beside < 0)
    assert floor_quotient_to_step(amount, price, step) == multiply(step, Decimal(expected))


@pytest.mark.parametrize("nines", [29, 130])
def test_a_budget_of_nines_buys_no_whole_coin(nines):
    """One digit more than a context holds, and a quotient rounds up to the next coin."""
    budget = Decimal("0." + "9" * nines)
    assert floor_quotient_to_step(budget, Decimal(1), Decimal(1)) == 0
    assert floor_to_step(budget, Decimal(1)) == 0


@given(AMOUNTS, STEPS)
def test_a_floor_keeps_the_steps_exponent(quantity, step):
    assert floor_to_step(quantity, step).as_tuple().exponent == step.as_tuple().exponent
    assert is_multiple(floor_to_step(quantity, step), step)


@given(AMOUNTS, STEPS)
def test_is_multiple_is_the_fractions(quantity, step):
    assert is_multiple(quantity, step) is (Fraction(quantity) % Fraction(step) == 0)


@pytest.mark.parametrize("step", ["0", "-0.1"])
def test_a_step_must_be_positive(step):
    with pytest.raises(ValueError, match="step"):
        floor_to_step(Decimal(1), Decimal(step))
    with pytest.raises(ValueError, match="step"):
        floor_quotient_to_step(Decimal(1), Decimal(1), Decimal(step))


@pytest.mark.parametrize("price", ["0", "-1"])
def test_a_price_must_be_positive(price):
    with pytest.raises(ValueError, match="price"):
        floor_quotient_to_step(Decimal(1), Decimal(price), Decimal(1))


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("0.00003", "0.00002", "0.00006"),
        ("0.00001", "0", "0.00001"),
        ("0", "0.5", "0.5"),
        ("1", "0.00001", "1"),
        ("0.00001000", "0.00001", "0.00001"),
        ("4", "6", "12"),
        ("1E+2", "0.3", "300"),
    ],
)
def test_common_step(first, second, expected):
    assert common_step(Decimal(first), Decimal(second)) == Decimal(expected)


@given(STEPS, STEPS)
def test_common_step_is_the_smallest_step_that_is_a_multiple_of_both(first, second):
    step = Fraction(common_step(first, second))
    counts = step / Fraction(first), step / Fraction(second)
    assert all(count.denominator == 1 for count in counts)
    one, other = (int(count) for count in counts)
    assert not any(one % prime == other % prime == 0 for prime in range(2, min(one, other) + 1))


@pytest.mark.parametrize(("first", "second"), [("0", "0"), ("-1", "1"), ("1", "-1")])
def test_common_step_needs_a_step(first, second):
    with pytest.raises(ValueError, match="step"):
        common_step(Decimal(first), Decimal(second))


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ("0", "0"),
        ("0.00000001", "0.00000001"),
        ("0.000000001", "0.00000001"),
        ("1.000000010000000000000000000000000000001", "1.00000002"),
        ("0.01010101", "0.01010101"),
    ],
)
def test_a_commission_is_rounded_up_to_8_decimals(amount, expected):
    assert ceil8(Decimal(amount)) == Decimal(expected)


@given(decimals(places=30))
def test_ceil8_is_the_fractions(amount):
    assert Fraction(ceil8(amount)) == Fraction(ceil(Fraction(amount) * 10**8), 10**8)


@pytest.mark.parametrize(
    ("quote", "quantity", "expected"),
    [
        ("1", "3", "0.33333333"),
        ("2", "3", "0.66666667"),
        ("1", "1024", "0.0009765625"),  # it ends: kept, though it has more than 8 decimals
        ("100.00000000123", "1", "100.00000000123"),
        ("0", "3", "0"),
        ("300", "3", "100"),
        ("0.000000015", "3", "0.000000005"),
    ],
)
def test_a_trades_price_is_exact_where_it_ends(quote, quantity, expected):
    assert average_price(Decimal(quote), Decimal(quantity)) == Decimal(expected)


@given(decimals(least="0.00000001"), decimals(least="0.00000001"))
def test_a_trades_price_is_the_fractions(quote, quantity):
    exact = Fraction(quote) / Fraction(quantity)
    rest = exact.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    expected = exact if rest == 1 else Fraction(round(exact * 10**8), 10**8)
    assert Fraction(average_price(quote, quantity)) == expected


def test_a_trades_price_needs_a_quantity():
    with pytest.raises(ZeroDivisionError):
        average_price(Decimal(1), Decimal(0))


@given(st.lists(st.tuples(decimals("0.00001", "10", 5), decimals("0.01", "100000", 2)), min_size=1, max_size=30))
def test_a_mean_price_stays_exact_far_beyond_any_price(buys):
    mean, quantity, cost, total = Decimal(0), Decimal(0), Fraction(0), Fraction(0)
    for more, price in buys:
        mean = mean_price(mean, quantity, multiply(more, price), more)
        quantity = add(quantity, more)
        cost, total = cost + Fraction(more) * Fraction(price), total + Fraction(more)
    exact = cost / total
    assert abs(Fraction(mean) - exact) < exact / 10**55
    for factor in (Decimal("0.95"), Decimal("1.05")):
        assert abs(Fraction(limit_of(mean, factor)) - exact * Fraction(factor)) < exact / 10**38


def test_exact_arithmetic_raises_before_it_rounds():
    tiny = Decimal("1E-200")
    for operation in (add, subtract):
        with pytest.raises(Inexact):
            operation(Decimal(1), tiny)
    with pytest.raises(Inexact):
        multiply(Decimal("3" * 100), Decimal("7" * 100))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1E-8", "0.00000001"),
        ("1E+2", "100"),
        ("100", "100"),
        ("1.500", "1.5"),
        ("-0.0", "0"),
        ("0E-8", "0"),
        ("-1.10", "-1.1"),
        ("10.0", "10"),
    ],
)
def test_decimals_are_written_plainly(value, text):
    assert plain(Decimal(value)) == text


@given(st.decimals(allow_nan=False, allow_infinity=False).filter(lambda d: abs(d.adjusted()) < 60))
def test_what_is_written_reads_back_the_same(value):
    text = plain(value)
    assert "E" not in text.upper()
    assert Decimal(text) == value
