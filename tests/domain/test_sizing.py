"""How large an order is, and the one name under which none is sent."""

from decimal import Decimal

import pytest

from bot.domain.filters import Refusal
from bot.domain.ledger import Reservation
from bot.domain.market import MarketView
from bot.domain.order import Side
from bot.domain.risk import DAY_MS, RiskLimits
from bot.domain.sizing import Sized, SizingParameters, paper_fill, size_order
from bot.domain.strategy import Signal
from tests.support.builders import NOON, a_fill, a_ledger, rules_by_info, rules_of

BUY, SELL, SELL_ALL = (Signal(Side.BUY, "t"), Signal(Side.SELL, "t"), Signal(Side.SELL, "t", sell_all=True))
COINS = rules_of(step="0.001", min_qty="0.001", max_qty="9000", min_notional="10")
OTHER = rules_of("ETHUSDT")


def sized(signal, ledger, close="100", *, at=NOON, **parameters):
    """Mark the close, then size: the quantity, or the name of the refusal."""
    limits = parameters.pop("limits", RiskLimits())
    values = {name: Decimal(value) for name, value in parameters.items()}
    ledger.mark("BTCUSDT", Decimal(close), at)
    outcome = size_order(ledger, "BTCUSDT", signal, Decimal(close), at, SizingParameters(limits=limits, **values))
    if isinstance(outcome, Refusal):
        assert outcome.detail
        assert "\n" not in outcome.detail
        return outcome.name
    return outcome.quantity


# BUY: budget = min(fraction * equity, free cash, exposure left)


def test_a_buy_spends_the_fraction_of_equity():
    assert sized(BUY, a_ledger("10000", COINS)) == 10
    assert sized(BUY, a_ledger("10000", COINS), fraction="0.25") == 25


def test_equity_counts_reserved_cash_and_other_positions():
    ledger = a_ledger("10000", COINS, OTHER, positions={"ETHUSDT": "10"}, marks={"ETHUSDT": "200"})
    ledger.reserve("a", Reservation("ETHUSDT", Side.BUY, Decimal(1), Decimal(3000)))
    assert sized(BUY, ledger) == 12


def test_a_buy_adds_to_a_position():
    assert sized(BUY, a_ledger("9000", COINS, positions={"BTCUSDT": "10"})) == 10


def test_a_buy_spends_at_most_free_cash():
    ledger = a_ledger("10000", COINS, positions={"BTCUSDT": "100"})
    assert sized(BUY, ledger, fraction="1", max_exposure="5") == 100
    ledger.reserve("a", Reservation("BTCUSDT", Side.BUY, Decimal(1), Decimal(9000)))
    assert sized(BUY, ledger, fraction="1", max_exposure="5") == 10


def test_a_buy_spends_at_most_the_exposure_left():
    ledger = a_ledger("9000", COINS, positions={"BTCUSDT": "10"})
    assert sized(BUY, ledger, max_exposure="0.15") == 5
    assert sized(BUY, ledger, max_exposure="0.2") == 10
    assert sized(BUY, ledger, max_exposure="2") == 10


def test_exposure_left_looks_at_this_symbol_alone():
    ledger = a_ledger("9000", COINS, OTHER, positions={"ETHUSDT": "10"}, marks={"ETHUSDT": "100"})
    assert sized(BUY, ledger, max_exposure="0.1") == 10


def test_the_last_close_of_this_message_counts():
    ledger = a_ledger("0.00001", COINS, positions={"BTCUSDT": "100"}, marks={"BTCUSDT": "100"})
    ledger.cash = Decimal(10000)
    assert sized(BUY, ledger, close="50", fraction="0.1") == 30  # equity 15000, not 20000


def test_slippage_is_part_of_the_price_that_is_paid():
    assert sized(BUY, a_ledger("10100", COINS), slippage="0.01") == 10
    assert sized(BUY, a_ledger("10099.99999999", COINS), slippage="0.01") == Decimal("9.999")


def test_the_quantity_is_floored_never_rounded():
    assert sized(BUY, a_ledger("1000", COINS), fraction="1", close="300") == Decimal("3.333")
    assert sized(BUY, a_ledger("2000", COINS), fraction="1", close="300") == Decimal("6.666")


def test_a_quotient_just_below_a_step_is_not_rounded_up_to_it():
    rules = rules_of(step="1", min_qty="1", max_qty="0", min_notional="0")
    almost_two = Decimal("1." + "9" * 29)
    assert sized(BUY, a_ledger(almost_two, rules), fraction="1", close="1") == 1


def test_max_qty_cuts_a_buy_to_a_legal_quantity():
    rules = rules_of(step="0.03", min_qty="0.03", max_qty="1")
    assert sized(BUY, a_ledger("10000", rules)) == Decimal("0.99")


def test_the_smaller_max_qty_of_both_lots_cuts():
    rules = rules_by_info(lot=("0.001", "9000", "0.001"), market_lot=("0", "7.5", "0"), MIN_NOTIONAL="10")
    assert sized(BUY, a_ledger("10000", rules)) == Decimal("7.5")


def test_weird_steps_leave_a_multiple_of_both():
    rules = rules_by_info(lot=("0.00003", "9", "0.00003"), market_lot=("0.00002", "9", "0.00002"))
    assert sized(BUY, a_ledger("0.1", rules), fraction="1", close="1000") == Decimal("0.00006")


def test_the_quote_to_reserve_is_what_the_paper_fill_costs():
    ledger = a_ledger("10000", COINS, marks={"BTCUSDT": "100"})
    parameters = SizingParameters(slippage=Decimal("0.01"))
    outcome = size_order(ledger, "BTCUSDT", BUY, Decimal(100), NOON, parameters)
    fill = paper_fill("a", 1, COINS, Side.BUY, outcome.quantity, Decimal(100), NOON, parameters)
    assert outcome == Sized(Decimal("9.900"), Decimal("999.9"))
    assert fill.quote_quantity == outcome.quote_reserved


# SELL


def test_a_sell_sells_the_whole_position_by_default_and_leaves_dust():
    assert sized(SELL, a_ledger("0.1", COINS, positions={"BTCUSDT": "9.9909"})) == Decimal("9.990")


def test_sell_fraction():
    ledger = a_ledger("0.1", COINS, positions={"BTCUSDT": "9.999"})
    assert sized(SELL, ledger, sell_fraction="0.5") == Decimal("4.999")
    assert sized(SELL_ALL, ledger, sell_fraction="0.5") == Decimal("9.999")


def test_a_sell_is_cut_to_max_qty_and_stays_legal():
    rules = rules_of(step="0.03", min_qty="0.03", max_qty="1")
    for signal in (SELL, SELL_ALL):
        assert sized(signal, a_ledger("0.1", rules, positions={"BTCUSDT": "5"})) == Decimal("0.99")


def test_a_sell_sets_no_money_aside_and_needs_none():
    ledger = a_ledger("1", COINS, positions={"BTCUSDT": "1"}, marks={"BTCUSDT": "100"})
    ledger.reserve("a", Reservation("BTCUSDT", Side.BUY, Decimal(1), Decimal(1)))
    assert size_order(ledger, "BTCUSDT", SELL, Decimal(100), NOON, SizingParameters()) == Sized(
        Decimal("1.000"), Decimal(0)
    )


@pytest.mark.parametrize(
    ("quantity", "name"),
    [("0", "LOT_SIZE"), ("0.0009", "LOT_SIZE"), ("-1", "LOT_SIZE"), ("0.099", "MIN_NOTIONAL"), ("0.1", Decimal("0.1"))],
)
def test_a_sell_that_is_illegal_is_named_by_its_filter_alone(quantity, name):
    assert sized(SELL, a_ledger("0.0001", COINS, positions={"BTCUSDT": quantity})) == name


# Names of what is skipped


@pytest.mark.parametrize(
    ("cash", "position", "parameters", "name"),
    [
        # free cash < fraction * equity, and not larger than exposure left
        ("5", "10", {"fraction": "0.5"}, "CASH"),
        ("0.01", "10", {"fraction": "0.5"}, "CASH"),  # the quantity is 0: still CASH
        ("9", "1", {"fraction": "1", "max_exposure": "1"}, "CASH"),  # exposure left is 9 too: not larger
        ("9", "1", {"fraction": "1", "max_exposure": "0.99"}, "EXPOSURE"),
        ("9", "1", {"fraction": "1", "max_exposure": "2"}, "CASH"),
        # exposure left the smallest of the three
        ("10000", "100", {"max_exposure": "0.5"}, "EXPOSURE"),  # nothing is left
        ("10000", "100", {"max_exposure": "0.4"}, "EXPOSURE"),  # less than nothing
        ("10000", "100", {"max_exposure": "0.50025"}, "EXPOSURE"),  # 5 USDT
        # fraction * equity the smallest: the filter itself
        ("50", "0", {}, "MIN_NOTIONAL"),
        ("0.5", "0", {}, "LOT_SIZE"),
        ("50", "0", {"max_exposure": "0.1"}, "MIN_NOTIONAL"),  # as small as exposure left, which is not the smallest
        ("5", "0", {"fraction": "1"}, "MIN_NOTIONAL"),  # all three the same
    ],
)
def test_the_name_of_a_buy_that_is_not_sent(cash, position, parameters, name):
    assert sized(BUY, a_ledger(cash, COINS, positions={"BTCUSDT": position}), **parameters) == name


def test_a_legal_order_is_sent_however_short_the_cash():
    assert sized(BUY, a_ledger("10", COINS, positions={"BTCUSDT": "10"}), fraction="1", max_exposure="2") == Decimal(
        "0.1"
    )


def test_the_notional_is_at_the_close_not_at_the_slipped_price():
    # 0.095 coins: 9.5 at the close, 10.45 paid
    assert sized(BUY, a_ledger("105", COINS), slippage="0.1") == "MIN_NOTIONAL"
    assert sized(SELL, a_ledger("1", COINS, positions={"BTCUSDT": "0.1"}), slippage="0.1") == Decimal("0.1")


def test_max_qty_below_min_qty_is_lot_size():
    rules = rules_of(step="1", min_qty="5", max_qty="3", min_notional="0")
    assert sized(BUY, a_ledger("10000", rules)) == "LOT_SIZE"
    assert sized(SELL, a_ledger("10000", rules, positions={"BTCUSDT": "10"})) == "LOT_SIZE"


def test_max_qty_below_the_step_is_lot_size():
    rules = rules_of(step="1", min_qty="0", max_qty="0.5", min_notional="0")
    assert sized(BUY, a_ledger("10000", rules)) == "LOT_SIZE"


def test_the_name_notional_where_the_exchange_has_that():
    rules = rules_by_info(lot=("0.001", "9000", "0.001"), NOTIONAL="10")
    assert sized(BUY, a_ledger("50", rules)) == "NOTIONAL"
    assert sized(SELL, a_ledger("50", rules, positions={"BTCUSDT": "0.01"})) == "NOTIONAL"


# cooldown and max_daily_loss: no BUY; a SELL always


@pytest.mark.parametrize(("after_ms", "outcome"), [(0, "COOLDOWN"), (59_999, "COOLDOWN"), (60_000, 10), (60_001, 10)])
@pytest.mark.parametrize("side", ["BUY", "SELL"])
def test_the_cooldown_ends_at_exactly_its_seconds(after_ms, outcome, side):
    ledger = a_ledger("9900", COINS, positions={"BTCUSDT": "2"} if side == "SELL" else None)
    ledger.book(a_fill(side, "1", "0.00000001"), NOON)
    ledger.cash, ledger.positions["BTCUSDT"] = Decimal(10000), type(ledger.positions["BTCUSDT"])()
    assert sized(BUY, ledger, at=NOON + after_ms, limits=RiskLimits(cooldown_ms=60_000)) == outcome


def test_the_cooldown_stops_no_sell():
    ledger = a_ledger("10000", COINS)
    ledger.book(a_fill("BUY", "1", "100"), NOON)
    assert sized(SELL, ledger, at=NOON + 1, limits=RiskLimits(cooldown_ms=60_000)) == 1


def test_the_cooldown_is_each_symbols_own_and_needs_a_trade():
    ledger = a_ledger("10000", COINS, OTHER)
    ledger.book(a_fill("BUY", "1", "0.00000001", symbol="ETHUSDT"), NOON)
    ledger.cash = Decimal(10000)
    assert sized(BUY, ledger, at=NOON + 1, limits=RiskLimits(cooldown_ms=60_000)) == 10


def test_without_a_cooldown_the_next_message_may_buy():
    ledger = a_ledger("10000", COINS)
    ledger.book(a_fill("BUY", "1", "100"), NOON)
    assert sized(BUY, ledger, at=NOON) == 10


def test_a_lost_day_stops_buys_until_the_next_but_no_sell():
    limits = RiskLimits(max_daily_loss=Decimal("0.1"))
    ledger = a_ledger("1000", COINS, positions={"BTCUSDT": "10"}, max_daily_loss="0.1")
    ledger.mark("BTCUSDT", Decimal(100), NOON - DAY_MS)
    ledger.mark("BTCUSDT", Decimal(100), NOON)
    assert sized(BUY, ledger, close="80.1", at=NOON + 1, limits=limits) != "DAILY_LOSS"
    assert sized(BUY, ledger, close="80", at=NOON + 2, limits=limits) == "DAILY_LOSS"
    assert sized(BUY, ledger, close="100", at=NOON + 3, limits=limits) == "DAILY_LOSS"
    assert sized(SELL, ledger, close="100", at=NOON + 3, limits=limits) == 10
    assert sized(BUY, ledger, close="100", at=NOON + DAY_MS, limits=limits) == 2


# Paper fills


def filled(side, quantity="1", close="100", **parameters):
    values = {name: Decimal(value) for name, value in parameters.items()}
    return paper_fill("a", 7, COINS, Side(side), Decimal(quantity), Decimal(close), NOON, SizingParameters(**values))


def test_a_paper_fill_is_at_the_close():
    for side in ("BUY", "SELL"):
        fill = filled(side, "2")
        assert (fill.price, fill.quantity, fill.quote_quantity) == (100, 2, 200)
        assert (fill.symbol, fill.side, fill.time, fill.client_order_id, fill.trade_id) == (
            "BTCUSDT",
            side,
            NOON,
            "a",
            7,
        )


def test_slippage_moves_a_paper_fill_against_the_trader():
    assert filled("BUY", slippage="0.001").price == Decimal("100.1")
    assert filled("SELL", slippage="0.001").price == Decimal("99.9")
    assert filled("SELL", "3", slippage="0.001").quote_quantity == Decimal("299.7")


def test_the_default_commission_is_a_thousandth_of_what_is_received():
    bought, sold = filled("BUY", "2"), filled("SELL", "2")
    assert (bought.commission, bought.commission_asset) == (Decimal("0.002"), "BTC")
    assert (sold.commission, sold.commission_asset) == (Decimal("0.2"), "USDT")


def test_a_commission_is_rounded_up_to_8_decimals():
    assert filled("BUY", "0.123456", fee="0.001").commission == Decimal("0.00012346")
    assert filled("SELL", "0.001", "0.01", fee="0.0003").commission == Decimal("0.00000001")


def test_a_fee_of_0_costs_nothing():
    assert filled("BUY", fee="0").commission == filled("SELL", fee="0").commission == 0


def test_a_sells_commission_is_of_the_slipped_quote():
    assert filled("SELL", "1", slippage="0.5", fee="0.1").commission == 5


# All is sold by command


@pytest.mark.parametrize(
    ("account_holds", "sells"),
    [
        ("3", 3),  # coins of the bot's are gone: the rest is sold all the same
        ("25", 10),  # others' coins never are
        ("0", 10),  # nothing is known of the account, or nothing is there: the exchange is asked
        ("0.0001", 10),  # dust: what the last buy brought may not be told yet
    ],
)
def test_selling_all_sells_what_is_there_of_the_bots(account_holds, sells):
    ledger = a_ledger("0", COINS, positions={"BTCUSDT": "10"})
    ledger.mark("BTCUSDT", Decimal(100), NOON)
    market = MarketView(held_base=Decimal(account_holds))
    flatten = Signal(Side.SELL, "t", sell_all=True, is_flatten=True)
    quantities = [
        size_order(ledger, "BTCUSDT", signal, Decimal(100), NOON, SizingParameters(), market).quantity
        for signal in (flatten, SELL_ALL)
    ]
    assert quantities == [sells, 10]  # an exit is for the whole position: what is missing stops it
