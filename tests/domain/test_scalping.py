"""BUY at c <= p * (1 - buy_drop), SELL at c >= p * (1 + sell_rise) with a position; p is the close before."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.money import add
from bot.domain.position import Position
from bot.domain.scalping import Scalping
from tests.support.builders import a_kline, a_position

RULE = Scalping(buy_drop=Decimal("0.01"), sell_rise=Decimal("0.01"))
HELD, EMPTY = a_position("1"), Position()


def side_of(previous, close, position=HELD, rule=RULE):
    _, signal = rule.decide(Decimal(previous), a_kline(close), position)
    return signal and signal.side


@pytest.mark.parametrize(
    ("close", "side"),
    [
        ("99", "BUY"),
        ("99.00000001", None),
        ("98.99999999", "BUY"),
        ("100", None),
        ("101", "SELL"),
        ("100.99999999", None),
        ("101.00000001", "SELL"),
        ("0.00000001", "BUY"),
        ("1000000", "SELL"),
    ],
)
def test_the_thresholds_themselves_belong_to_the_signal(close, side):
    assert side_of("100", close) == side


def test_a_threshold_that_no_float_can_hold():
    for p in ("0.07", "0.29", "0.57", "1.13", "0.01234544"):
        drop, rise = Decimal(p) * Decimal("0.99"), Decimal(p) * Decimal("1.01")
        assert side_of(p, drop) == "BUY"
        assert side_of(p, drop + Decimal("1E-20")) is None
        assert side_of(p, rise) == "SELL"
        assert side_of(p, rise - Decimal("1E-20")) is None


def test_a_threshold_of_many_digits_is_not_rounded():
    previous = "1." + "0" * 37 + "1"
    limit = Decimal("0.99" + "0" * 36 + "99")
    assert side_of(previous, limit) == "BUY"
    assert side_of(previous, add(limit, Decimal("1E-40"))) is None


def test_without_a_position_a_rise_is_nothing():
    assert side_of("100", "200", EMPTY) is None
    assert side_of("100", "200", a_position("-0.1")) is None


def test_dust_is_a_position():
    assert side_of("100", "101", a_position("0.00000001")) == "SELL"


def test_a_position_does_not_stop_a_buy():
    assert side_of("100", "99", HELD) == side_of("100", "99", EMPTY) == "BUY"


@pytest.mark.parametrize("close", ["1", "100", "1000000"])
def test_the_first_message_only_sets_p(close):
    state, signal = RULE.decide(RULE.initial(), a_kline(close), HELD)
    assert (state, signal) == (Decimal(close), None)


@pytest.mark.parametrize("close", ["99", "98", "100", "100.5", "101", "500"])
@pytest.mark.parametrize("position", [HELD, EMPTY])
def test_p_becomes_c_after_every_message_whatever_happened(close, position):
    state, _ = RULE.decide(Decimal(100), a_kline(close), position)
    assert state == Decimal(close)


def test_a_message_that_must_not_trade_moves_p():
    assert RULE.observe(Decimal(100), a_kline("50")) == 50
    assert RULE.observe(RULE.initial(), a_kline("50")) == 50
    assert side_of(RULE.observe(Decimal(100), a_kline("50")), "50") is None


def test_small_moves_never_add_up():
    state = Decimal(100)
    for _ in range(20):
        state, signal = RULE.decide(state, a_kline(state * Decimal("0.995")), HELD)
        assert signal is None


@pytest.mark.parametrize("buy_drop", ["0", "1", "-0.01", "1.5"])
def test_buy_drop_lies_between_0_and_1(buy_drop):
    with pytest.raises(ValueError, match="buy_drop"):
        Scalping(buy_drop=Decimal(buy_drop), sell_rise=Decimal("0.01"))


@pytest.mark.parametrize("sell_rise", ["0", "-0.01"])
def test_sell_rise_is_above_0(sell_rise):
    with pytest.raises(ValueError, match="sell_rise"):
        Scalping(buy_drop=Decimal("0.01"), sell_rise=Decimal(sell_rise))


def test_sell_rise_may_be_more_than_the_price():
    rule = Scalping(buy_drop=Decimal("0.01"), sell_rise=Decimal(2))
    assert side_of("100", "299.99", rule=rule) is None
    assert side_of("100", "300", rule=rule) == "SELL"


def test_the_reason_tells_the_move():
    _, bought = RULE.decide(Decimal(100), a_kline("98.5"), HELD)
    _, sold = RULE.decide(Decimal(100), a_kline("101.5"), HELD)
    assert bought.reason == "fell 1.50 % from 100 to 98.5"
    assert sold.reason == "rose 1.50 % from 100 to 101.5"
    assert not bought.sell_all
    assert not sold.sell_all


PRICES = st.decimals(Decimal("0.00000001"), Decimal(100000), places=8)
SHARES = st.sampled_from([Decimal(s) for s in ("0.01", "0.000001", "0.5", "0.99999999", "0.0123456789")])


@given(PRICES, PRICES | st.sampled_from(["drop", "rise"]), SHARES, SHARES, st.booleans())
def test_the_signal_is_the_fractions(previous, close, buy_drop, sell_rise, held):
    if close == "drop":
        close = previous * (1 - buy_drop)
    elif close == "rise":
        close = previous * (1 + sell_rise)
    rule = Scalping(buy_drop=buy_drop, sell_rise=sell_rise)
    expected = None
    if Fraction(close) <= Fraction(previous) * (1 - Fraction(buy_drop)):
        expected = "BUY"
    elif held and Fraction(close) >= Fraction(previous) * (1 + Fraction(sell_rise)):
        expected = "SELL"
    assert side_of(previous, close, HELD if held else EMPTY, rule) == expected


def test_the_thresholds_are_those_of_the_signals():
    rule = Scalping(Decimal("0.01"), Decimal("0.02"))
    assert rule.thresholds(rule.initial()) is None
    bounds = rule.thresholds(Decimal(100))
    assert (bounds.buy, bounds.sell) == (Decimal(99), Decimal(102))
    for close, side in (("99", "BUY"), ("99.01", None), ("101.99", None), ("102", "SELL")):
        _, signal = rule.decide(Decimal(100), a_kline(close), a_position())
        assert (signal.side if signal else None) == side
