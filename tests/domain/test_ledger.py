"""Cash, reservations, marks, equity, and the day whose loss stops buying."""

from decimal import Decimal

import pytest

from bot.domain.ledger import Reservation, TradingDay
from bot.domain.order import Side
from bot.domain.risk import DAY_MS
from tests.support.builders import NOON, a_fill, a_ledger, an_adjustment, rules_of

MIDNIGHT = NOON // DAY_MS * DAY_MS + DAY_MS
TWO = (rules_of("BTCUSDT"), rules_of("ETHUSDT"))


def a_reservation(quote="100", quantity="1", symbol="BTCUSDT", side="BUY"):
    return Reservation(symbol=symbol, side=Side(side), quantity=Decimal(quantity), quote=Decimal(quote))


def test_equity_is_all_cash_and_every_position_at_its_last_close():
    ledger = a_ledger("1000", *TWO, positions={"BTCUSDT": "2", "ETHUSDT": "3"}, marks={"BTCUSDT": "10", "ETHUSDT": "7"})
    assert ledger.equity() == 1041
    ledger.mark("ETHUSDT", Decimal(8), NOON)
    assert ledger.equity() == 1044


def test_a_symbol_not_yet_seen_counts_nothing():
    assert a_ledger("1000", *TWO, positions={"ETHUSDT": "3"}, marks={"BTCUSDT": "10"}).equity() == 1000


def test_reserved_cash_is_not_free_but_counts_in_equity():
    ledger = a_ledger("1000")
    ledger.reserve("a", a_reservation("100"))
    ledger.reserve("b", a_reservation("50"))
    assert (ledger.free_cash(), ledger.cash, ledger.equity()) == (850, 1000, 1000)
    ledger.release("a")
    assert ledger.free_cash() == 950


def test_the_same_id_is_one_reservation():
    ledger = a_ledger("1000")
    ledger.reserve("a", a_reservation("100"))
    ledger.reserve("a", a_reservation("300"))
    assert ledger.free_cash() == 900
    ledger.release("a")
    ledger.release("a")
    ledger.release("never reserved")
    assert ledger.free_cash() == 1000


def test_a_fill_moves_money_and_coins():
    ledger = a_ledger("1000")
    assert ledger.book(a_fill("BUY", "2", "100", commission="0.002"), NOON)
    assert (ledger.cash, ledger.positions["BTCUSDT"].quantity) == (800, Decimal("1.998"))
    assert ledger.book(a_fill("SELL", "1", "110", commission="0.11", trade_id=2), NOON)
    assert (ledger.cash, ledger.positions["BTCUSDT"].quantity) == (Decimal("909.89"), Decimal("0.998"))


def test_a_fill_is_booked_once():
    ledger = a_ledger("1000")
    ledger.reserve("bh-1", a_reservation("200"))
    fill = a_fill("BUY", "1", "100")
    assert ledger.book(fill, NOON) is True
    before = (ledger.cash, ledger.free_cash(), ledger.positions["BTCUSDT"])
    assert ledger.book(fill, NOON + 1) is False
    assert (ledger.cash, ledger.free_cash(), ledger.positions["BTCUSDT"]) == before
    assert ledger.last_trade_time == {"BTCUSDT": NOON}


@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_trade_ids_are_each_orders_own(symbol):
    """Another symbol counts its own, and a reset of the testnet starts a symbol's over."""
    ledger = a_ledger("1000", *TWO)
    assert ledger.book(a_fill("BUY", "1", "100"), NOON)
    assert ledger.book(a_fill("BUY", "1", "100", symbol=symbol, client_order_id="bh-2"), NOON)
    assert ledger.cash == 800


def test_an_adjustment_is_applied_once_and_is_no_trade():
    ledger = a_ledger("1000", *TWO, positions={"BTCUSDT": "2"})
    sold_by_hand = an_adjustment("-0.5", quote="-7")
    assert ledger.adjust(sold_by_hand) is True
    assert ledger.adjust(sold_by_hand) is False
    assert (ledger.cash, ledger.positions["BTCUSDT"].quantity) == (993, Decimal("1.5"))
    assert ledger.last_trade_time == {}
    assert ledger.adjust(an_adjustment("0", symbol="", quote="-100", adjustment_id="adj-2"))
    assert ledger.cash == 893


def test_new_rules_leave_money_and_positions():
    ledger = a_ledger("1000", *TWO, positions={"BTCUSDT": "2"})
    ledger.change_rules([rules_of("BTCUSDT", step="1"), rules_of("DOGEUSDT")])
    assert (ledger.rules["BTCUSDT"].step_size, ledger.rules["ETHUSDT"]) == (1, TWO[1])
    assert set(ledger.rules) == {"BTCUSDT", "ETHUSDT"}
    ledger.book(a_fill("SELL", "2", "100"), NOON)
    assert (ledger.cash, ledger.positions["BTCUSDT"].quantity) == (1200, 0)


def test_free_cash_does_not_move_twice_while_an_order_fills():
    ledger = a_ledger("1000")
    ledger.reserve("bh-1", a_reservation("300"))
    assert ledger.free_cash() == 700
    ledger.book(a_fill("BUY", "1", "100"), NOON)
    assert (ledger.cash, ledger.free_cash()) == (900, 700)
    ledger.book(a_fill("BUY", "1", "150", trade_id=2), NOON)
    assert (ledger.cash, ledger.free_cash()) == (750, 700)
    ledger.release("bh-1")
    assert ledger.free_cash() == 750


def test_an_order_that_costs_more_than_was_reserved_takes_the_rest_of_free_cash():
    ledger = a_ledger("1000")
    ledger.reserve("bh-1", a_reservation("100"))
    ledger.book(a_fill("BUY", "1", "130"), NOON)
    assert (ledger.cash, ledger.free_cash()) == (870, 870)


def test_a_fill_of_another_order_leaves_the_reservation():
    ledger = a_ledger("1000")
    ledger.reserve("a", a_reservation("300"))
    ledger.book(a_fill("BUY", "1", "100", client_order_id="b"), NOON)
    assert ledger.free_cash() == 600


def test_what_a_sell_brings_is_free_at_once():
    ledger = a_ledger("1000", positions={"BTCUSDT": "2"})
    ledger.reserve("bh-1", a_reservation("0", side="SELL"))
    ledger.book(a_fill("SELL", "1", "100"), NOON)
    assert ledger.free_cash() == 1100


def test_the_last_trades_time_never_goes_back():
    ledger = a_ledger("1000", *TWO)
    ledger.book(a_fill(trade_id=1), NOON)
    ledger.book(a_fill(trade_id=2), NOON - 60_000)
    assert ledger.last_trade_time == {"BTCUSDT": NOON}


# max_daily_loss: a fraction of the equity at 00:00 UTC.


def a_day(loss="0.1", cash="1000", quantity="10"):
    """A ledger that began its day with equity 2000: half cash, half 10 coins at 100."""
    ledger = a_ledger(cash, positions={"BTCUSDT": quantity}, max_daily_loss=loss)
    ledger.mark("BTCUSDT", Decimal(100), MIDNIGHT - 1)
    ledger.mark("BTCUSDT", Decimal(100), MIDNIGHT)
    assert ledger.day.start_equity == 2000
    return ledger


@pytest.mark.parametrize(("close", "lost"), [("80", True), ("80.00000001", False), ("79.9", True)])
def test_the_day_is_lost_at_exactly_the_limit(close, lost):
    ledger = a_day()
    ledger.mark("BTCUSDT", Decimal(close), MIDNIGHT + 1)
    assert ledger.day.lost is lost


def test_a_lost_day_stays_lost_until_the_next():
    ledger = a_day()
    ledger.mark("BTCUSDT", Decimal(80), MIDNIGHT + 1)
    ledger.mark("BTCUSDT", Decimal(200), MIDNIGHT + DAY_MS - 1)
    assert ledger.day.lost
    ledger.mark("BTCUSDT", Decimal(200), MIDNIGHT + DAY_MS)
    assert not ledger.day.lost
    assert ledger.day.start_equity == 3000


def test_the_day_starts_with_the_equity_before_its_first_message():
    ledger = a_ledger("1000", positions={"BTCUSDT": "10"}, max_daily_loss="0.1")
    ledger.mark("BTCUSDT", Decimal(100), MIDNIGHT - 1)
    ledger.mark("BTCUSDT", Decimal(80), MIDNIGHT)
    assert ledger.day.start_equity == 2000
    assert ledger.day.lost


def test_the_first_message_of_another_symbol_starts_the_day_for_all():
    ledger = a_ledger("1000", *TWO, positions={"BTCUSDT": "10"}, max_daily_loss="0.1")
    ledger.mark("BTCUSDT", Decimal(100), MIDNIGHT - 1)
    ledger.mark("ETHUSDT", Decimal(5), MIDNIGHT)
    ledger.mark("BTCUSDT", Decimal(50), MIDNIGHT + 1)
    assert ledger.day == TradingDay(number=MIDNIGHT // DAY_MS, start_equity=Decimal(2000), lost=True)


def test_a_late_message_of_the_day_before_does_not_bring_that_day_back():
    ledger = a_day()
    ledger.mark("BTCUSDT", Decimal(80), MIDNIGHT + 1)
    ledger.mark("BTCUSDT", Decimal(80), MIDNIGHT - 5)
    assert ledger.day.number == MIDNIGHT // DAY_MS
    assert ledger.day.lost


def test_without_a_limit_no_day_is_lost():
    ledger = a_ledger("1000", positions={"BTCUSDT": "10"}, marks={"BTCUSDT": "100"})
    ledger.mark("BTCUSDT", Decimal("0.00000001"), NOON)
    assert not ledger.day.lost
