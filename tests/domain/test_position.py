"""A position: bought less sold less the commission in its own asset; its average price leaves commissions out."""

from decimal import Decimal

import pytest

from bot.domain.money import multiply
from bot.domain.position import Position, quote_change
from tests.support.builders import NOON, a_fill, an_adjustment, rules_of

RULES = rules_of()


def after(*fills):
    position = Position()
    for fill in fills:
        position = position.after(fill, RULES)
    return position


def test_a_buy_grows_it_by_quantity_less_commission():
    position = after(a_fill("BUY", "1", "100", commission="0.001"))
    assert position.quantity == Decimal("0.999")
    assert position.average_price == 100
    assert position.net_quote == -100


def test_a_sell_leaves_dust_and_its_price():
    position = after(a_fill("BUY", "1", "100", commission="0.001"), a_fill("SELL", "0.99", "110", commission="0.1089"))
    assert position.quantity == Decimal("0.009")
    assert position.average_price == 100
    assert position.net_quote == Decimal("8.7911")


def test_an_empty_position_has_no_price():
    position = after(a_fill("BUY", "1", "100"), a_fill("SELL", "1", "110"))
    assert (position.quantity, position.average_price, position.net_quote) == (0, 0, 10)
    assert after(a_fill("BUY", "1", "100"), a_fill("SELL", "1", "110"), a_fill("BUY", "1", "7")).average_price == 7


def test_the_average_price_of_two_buys():
    assert after(a_fill("BUY", "1", "100"), a_fill("BUY", "3", "60")).average_price == 70


def test_a_sell_moves_no_average_price():
    assert after(a_fill("BUY", "4", "100"), a_fill("SELL", "2", "500"), a_fill("BUY", "2", "60")).average_price == 80


@pytest.mark.parametrize("side", ["BUY", "SELL"])
def test_a_commission_in_a_third_asset_changes_neither_side(side):
    fill = a_fill(side, "1", "100", commission="0.5", commission_asset="BNB")
    held = Position(quantity=Decimal(5), average_price=Decimal(100))
    position = held.after(fill, RULES)
    assert position.quantity == (6 if side == "BUY" else 4)
    assert position.net_quote == (-100 if side == "BUY" else 100)


@pytest.mark.parametrize(
    ("side", "asset", "quantity", "change"),
    [
        ("BUY", "BTC", "5.5", "-100"),
        ("BUY", "USDT", "6", "-100.5"),
        ("SELL", "USDT", "4", "99.5"),
        ("SELL", "BTC", "3.5", "100"),
    ],
)
def test_a_commission_is_booked_in_the_asset_that_was_charged(side, asset, quantity, change):
    fill = a_fill(side, "1", "100", commission="0.5", commission_asset=asset)
    position = Position(quantity=Decimal(5), average_price=Decimal(100)).after(fill, RULES)
    assert position.quantity == Decimal(quantity)
    assert position.net_quote == quote_change(fill, "USDT") == Decimal(change)


def test_a_quote_quantity_of_more_than_28_digits_is_not_rounded():
    """A thread's own context has 28 digits, and a unary minus rounds to it."""
    price, quantity = Decimal("31234.123456789012345"), Decimal("1234567890.12345678")
    exact = multiply(price, quantity)
    fill = a_fill("BUY", quantity, "1")
    fill = type(fill)(**{f: getattr(fill, f) for f in fill.__struct_fields__} | {"quote_quantity": exact})
    assert len(exact.as_tuple().digits) > 28
    assert quote_change(fill, "USDT").copy_negate() == exact
    assert after(fill).net_quote.copy_negate() == exact


@pytest.mark.parametrize(("bought", "left"), [("1", "0"), ("1.5", "0.5"), ("0.5", "-0.5")])
def test_a_sell_that_is_told_before_its_buy(bought, left):
    position = after(a_fill("SELL", "1", "110"), a_fill("BUY", bought, "100"))
    assert position.quantity == Decimal(left)
    assert position.average_price == (100 if position.quantity else 0)


# Adjustments


def test_removed_coins_leave_the_average_price():
    held = Position(quantity=Decimal(4), average_price=Decimal(100), net_quote=Decimal(-400))
    assert held.adjusted(an_adjustment("-3")) == Position(Decimal(1), Decimal(100), Decimal(-400))
    assert held.adjusted(an_adjustment("-4", quote="-1")) == Position(Decimal(0), Decimal(0), Decimal(-401))


def test_added_coins_come_at_their_price_and_move_no_cash():
    held = Position(quantity=Decimal(1), average_price=Decimal(100), net_quote=Decimal(-100))
    assert held.adjusted(an_adjustment("3", price="60")) == Position(Decimal(4), Decimal(70), Decimal(-100))


def test_added_coins_cover_a_short_position_first():
    short = Position(quantity=Decimal(-1), average_price=Decimal(0))
    assert short.adjusted(an_adjustment("3", price="60")) == Position(Decimal(2), Decimal(60))


@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ({"quantity": "1"}, "without a price"),
        ({"quantity": "-1", "symbol": ""}, "coins of no symbol"),
        ({"quote": "0.01"}, "adds cash"),
    ],
)
def test_an_adjustment_that_says_too_little_is_refused(bad, complaint):
    with pytest.raises(ValueError, match=complaint):
        an_adjustment(**bad)


def test_an_adjustment_takes_its_place_among_the_fills_by_time():
    """Coins sold by hand before a second purchase must not weigh on the price of that purchase."""
    bought = [a_fill("BUY", "1", "100", trade_id=1), a_fill("BUY", "1", "50", trade_id=2, time=NOON + 20)]
    position = Position().with_all(bought, [an_adjustment("-1", time=NOON + 10)], RULES)
    assert (position.quantity, position.average_price) == (1, 50)
    later = an_adjustment("1", price="80", time=NOON + 30, adjustment_id="adj-2")
    early = an_adjustment("-0.5", time=NOON + 20)
    position = Position().with_all(bought, [later, early], RULES)
    assert (position.quantity, position.average_price) == (Decimal("2.5"), 77)
