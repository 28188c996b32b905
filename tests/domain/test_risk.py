"""Stop loss and take profit: measured from the average price, fired at exactly the limit, selling all."""

from decimal import Decimal

import pytest

from bot.domain.position import Position
from bot.domain.risk import RiskLimits, exit_signal
from tests.support.builders import a_fill, a_kline, a_position, rules_of

STOP = RiskLimits(stop_loss=Decimal("0.05"))
TAKE = RiskLimits(take_profit=Decimal("0.05"))


def fires(limits, close, position=None):
    signal = exit_signal(limits, position or a_position("1", "100"), a_kline(close))
    assert signal is None or (signal.side == "SELL" and signal.sell_all)
    return signal is not None


@pytest.mark.parametrize(("close", "expected"), [("95", True), ("95.00000001", False), ("94.99999999", True)])
def test_stop_loss_fires_at_exactly_its_limit(close, expected):
    assert fires(STOP, close) is expected


@pytest.mark.parametrize(("close", "expected"), [("105", True), ("104.99999999", False), ("105.00000001", True)])
def test_take_profit_fires_at_exactly_its_limit(close, expected):
    assert fires(TAKE, close) is expected


@pytest.mark.parametrize("close", ["0.00000001", "1000000"])
def test_exits_are_off_by_default(close):
    assert not fires(RiskLimits(), close)


@pytest.mark.parametrize("quantity", ["0", "-0.00000001"])
@pytest.mark.parametrize("close", ["1", "1000"])
def test_without_a_position_there_is_nothing_to_exit(quantity, close):
    both = RiskLimits(stop_loss=Decimal("0.05"), take_profit=Decimal("0.05"))
    assert not fires(both, close, a_position(quantity))


def test_dust_is_a_position():
    assert fires(STOP, "95", a_position("0.00000001", "100"))


def test_the_reason_says_which_limit_fired():
    position = a_position("1", "100")
    assert exit_signal(STOP, position, a_kline("90")).reason.startswith("stop loss")
    assert exit_signal(TAKE, position, a_kline("110")).reason.startswith("take profit")


@pytest.mark.parametrize(
    ("first", "second", "limits", "limit"),
    [
        # An average of 33.33... and 66.66...: the limit itself ends, and a close can lie exactly on it.
        (("1", "20"), ("2", "40"), RiskLimits(stop_loss=Decimal("0.1")), "30"),
        (("1", "100"), ("2", "50"), RiskLimits(take_profit=Decimal("0.05")), "70"),
        (("0.7", "3"), ("0.2", "7"), RiskLimits(stop_loss=Decimal("0.1")), "3.5"),
        (("0.7", "3"), ("0.2", "7"), RiskLimits(take_profit=Decimal("0.8")), "7"),
    ],
)
def test_an_average_price_that_does_not_end_loses_no_tie(first, second, limits, limit):
    position = Position()
    for trade_id, (quantity, price) in enumerate((first, second)):
        position = position.after(a_fill("BUY", quantity, price, trade_id=trade_id), rules_of())
    ulp = Decimal("1E-15")
    beyond = -ulp if limits.stop_loss else ulp
    assert fires(limits, limit, position)
    assert fires(limits, Decimal(limit) + beyond, position)
    assert not fires(limits, Decimal(limit) - beyond, position)


def test_the_average_price_leaves_commissions_out():
    position = Position().after(a_fill("BUY", "1", "100", commission="0.5"), rules_of())
    assert position.quantity == Decimal("0.5")
    assert fires(STOP, "95", position)
    assert not fires(STOP, "95.1", position)
