"""What an order must be to leave for an exchange: its filters, a limit price, a close that the book bears out."""

import json
import random
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.app.trading import decode_rules, encode_rules
from bot.domain.exchange_info import FilterError, rules_from_exchange_info
from bot.domain.filters import Lot, NotionalFilter, PercentPrice, PlannedOrder, PriceFilter, Refusal
from bot.domain.ledger import Reservation
from bot.domain.market import MarketView
from bot.domain.order import Side
from bot.domain.risk import RiskLimits
from bot.domain.sizing import Sized, SizingParameters, limit_price, size_order
from bot.domain.strategy import Signal
from bot.simulator.amounts import plain
from bot.simulator.errors import ApiError
from bot.simulator.filters import Situation, check
from bot.simulator.orders import OrderRequest
from tests.support.builders import NOON, a_filter, a_ledger, exchange_info, rules_of, symbol_info

DATA = Path(__file__).parents[1] / "data"
BUY, SELL, SELL_ALL = (Signal(Side.BUY, "t"), Signal(Side.SELL, "t"), Signal(Side.SELL, "t", sell_all=True))
COINS = rules_of(step="0.001", min_qty="0.001", max_qty="9000", min_notional="10")
HUNDRED = MarketView(bid=Decimal(99), ask=Decimal(101), average_price=Decimal(100), as_of_ms=NOON)


def recorded(profile):
    return json.loads((DATA / f"exchange-info-{profile}.json").read_text())


def read(info, symbol="BTCUSDT"):
    return rules_from_exchange_info(exchange_info(info), [symbol])[symbol]


def changed(rules, **values):
    return msgspec.structs.replace(rules, **values)


def sized(signal, ledger, close="100", *, market=HUNDRED, now=NOON, recent=0, bps=None, **limits):
    """Mark the close, then size for an exchange: what is sent, or the name of the refusal."""
    ledger.mark("BTCUSDT", Decimal(close), NOON)
    parameters = SizingParameters(limits=RiskLimits(**limits), max_slippage_bps=None if bps is None else Decimal(bps))
    outcome = size_order(ledger, "BTCUSDT", signal, Decimal(close), NOON, parameters, market, now, recent)
    if isinstance(outcome, Refusal):
        assert outcome.detail
        assert "\n" not in outcome.detail
        return outcome.name
    return outcome


# Reading exchangeInfo


def test_all_filters_of_a_recorded_info_are_read():
    rules = rules_from_exchange_info(recorded("com"), ["BTCUSDT"])["BTCUSDT"]
    assert rules.price_filter == PriceFilter(Decimal("0.01"), Decimal(1000000), Decimal("0.01"))
    assert rules.lot_size == Lot(Decimal("0.00001"), Decimal(9000), Decimal("0.00001"))
    assert rules.max_qty < 9000, "MARKET_LOT_SIZE's own maximum binds market orders"
    fifth, five = Decimal("0.2"), Decimal(5)
    assert rules.percent_prices == (PercentPrice("PERCENT_PRICE_BY_SIDE", fifth, five, fifth, five, 5),)
    assert rules.notionals == (NotionalFilter("NOTIONAL", five, Decimal(9000000), True, False, 5),)
    assert (rules.max_num_orders, rules.max_position, rules.base_precision, rules.quote_precision) == (200, 0, 8, 8)
    assert {"MARKET", "LIMIT"} < set(rules.order_types)
    assert (rules.is_spot_trading_allowed, rules.status) == (True, "TRADING")
    assert "SPOT" in rules.permission_sets[0]


def test_the_other_exchange_has_other_filters():
    rules = rules_from_exchange_info(recorded("us"), ["BTCUSDT"])["BTCUSDT"]
    assert rules.notionals == (NotionalFilter("MIN_NOTIONAL", Decimal(1), Decimal(0), True, False, 5),)
    assert {percent.name for percent in rules.percent_prices} == {"PERCENT_PRICE", "PERCENT_PRICE_BY_SIDE"}
    assert (rules.notional_filter, rules.min_notional) == ("MIN_NOTIONAL", 1)


def test_the_older_flat_list_of_permissions_is_one_set():
    assert read(symbol_info() | {"permissions": ["SPOT", "MARGIN"]}).permission_sets == (("SPOT", "MARGIN"),)
    sets = {"permissions": [], "permissionSets": [["A", "B"], ["C"], []]}
    assert read(symbol_info() | sets).permission_sets == (("A", "B"), ("C",))


@pytest.mark.parametrize("profile", ["com", "us"])
def test_rules_come_back_from_the_journal_as_they_were(profile):
    info = recorded(profile)
    rules = rules_from_exchange_info(info, [one["symbol"] for one in info["symbols"]])
    assert len(rules) > 1
    assert decode_rules(encode_rules(rules)) == rules
    offline = {"BTCUSDT": COINS}
    assert decode_rules(encode_rules(offline)) == offline


@pytest.mark.parametrize(
    ("changes", "filters", "names"),
    [
        ({"orderTypes": "MARKET"}, [], "orderTypes"),
        ({"permissionSets": {}}, [], "permissionSets"),
        ({"permissionSets": [["SPOT"], [1]]}, [], "permissionSets"),
        ({"isSpotTradingAllowed": "yes"}, [], "isSpotTradingAllowed"),
        ({"baseAssetPrecision": "8"}, [], "baseAssetPrecision"),
        ({}, [a_filter("MAX_NUM_ORDERS", maxNumOrders=-1)], "MAX_NUM_ORDERS.*maxNumOrders"),
        ({}, [a_filter("MAX_POSITION", maxPosition="NaN")], "MAX_POSITION.*maxPosition"),
        ({}, [a_filter("PERCENT_PRICE", multiplierUp="5")], "PERCENT_PRICE.*multiplierDown"),
        ({}, [a_filter("MIN_NOTIONAL", minNotional="5", applyToMarket=1)], "MIN_NOTIONAL.*applyToMarket"),
        ({}, [a_filter("NOTIONAL", minNotional="5", avgPriceMins=True)], "NOTIONAL.*avgPriceMins"),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(changes, filters, names):
    info = symbol_info() | changes
    info["filters"] += filters
    with pytest.raises(FilterError, match=f"BTCUSDT.*{names}"):
        read(info)


# Refusals of the exchange's own rules


ONE = PlannedOrder(Side.BUY, Decimal(1), Decimal(100))


def refused(rules, order=ONE, market=HUNDRED, **changes):
    refusal = rules.refusal(msgspec.structs.replace(order, **changes), market)
    return refusal.name if refusal else None


@pytest.mark.parametrize("status", ["HALT", "BREAK", "CANCEL_ONLY", "END_OF_DAY", "AUCTION_MATCH"])
def test_a_market_that_does_not_trade_takes_no_order(status):
    assert refused(changed(COINS, status=status)) == "MARKET_CLOSED"
    for signal in (BUY, SELL):
        ledger = a_ledger("10000", changed(COINS, status=status), positions={"BTCUSDT": "5"})
        assert sized(signal, ledger) == "MARKET_CLOSED"
    assert refused(changed(COINS, is_spot_trading_allowed=False)) == "MARKET_CLOSED"


@pytest.mark.parametrize(
    ("sets", "own", "refusal"),
    [
        ([], {"SPOT"}, None),
        ([["SPOT", "MARGIN"]], {"SPOT"}, None),
        ([["MARGIN"]], {"SPOT"}, "PERMISSION"),
        ([["SPOT"], ["TRD_GRP_004", "TRD_GRP_005"]], {"SPOT", "TRD_GRP_005"}, None),
        ([["SPOT"], ["TRD_GRP_004"]], {"SPOT"}, "PERMISSION"),
        ([["SPOT"]], set(), "PERMISSION"),
        ([["MARGIN"]], None, None),  # not known: not tested
    ],
)
def test_the_account_needs_one_permission_of_each_set(sets, own, refusal):
    market = msgspec.structs.replace(HUNDRED, permissions=None if own is None else frozenset(own))
    assert refused(changed(COINS, permission_sets=tuple(map(tuple, sets))), market=market) == refusal


def test_the_order_type_must_be_one_of_the_symbols():
    rules = changed(COINS, order_types=("LIMIT", "LIMIT_MAKER"))
    assert refused(rules) == "ORDER_TYPE"
    assert refused(rules, limit_price=Decimal(100)) is None
    assert refused(changed(COINS, order_types=("MARKET",)), limit_price=Decimal(100)) == "ORDER_TYPE"


def test_a_limit_order_needs_lot_size_alone():
    rules = changed(COINS, max_qty=Decimal(5), lot_size=Lot(Decimal(0), Decimal(9), Decimal("0.01")))
    assert refused(rules, quantity=Decimal(7)) == "LOT_SIZE"
    assert refused(rules, quantity=Decimal(7), limit_price=Decimal(100)) is None
    assert refused(rules, quantity=Decimal("7.001"), limit_price=Decimal(100)) == "LOT_SIZE"
    ledger = a_ledger("10000", rules, positions={"BTCUSDT": "8"})
    assert sized(SELL, ledger).quantity == 5
    assert sized(SELL, ledger, bps=1).quantity == 8


def test_more_decimals_than_the_asset_has_are_refused():
    rules = changed(COINS, base_precision=2, lot_size=Lot(Decimal(0), Decimal(0), Decimal(0)))
    assert refused(rules, quantity=Decimal("1.001")) == "LOT_SIZE"
    assert refused(rules, quantity=Decimal("1.010")) is None
    assert sized(SELL, a_ledger("1", rules, positions={"BTCUSDT": "1.239"}), bps=1).quantity == Decimal("1.23")
    priced = changed(COINS, quote_precision=2)
    assert refused(priced, limit_price=Decimal("99.999")) == "PRICE_FILTER"
    assert refused(priced, limit_price=Decimal("99.990")) is None


@pytest.mark.parametrize(
    ("bounds", "price", "refusal"),
    [
        (("0", "0", "0"), "0.00000001", None),
        (("0", "0", "0"), "0", "PRICE_FILTER"),
        (("50", "200", "0.5"), "50", None),
        (("50", "200", "0.5"), "200", None),
        (("50", "200", "0.5"), "49.5", "PRICE_FILTER"),
        (("50", "200", "0.5"), "200.5", "PRICE_FILTER"),
        (("50", "200", "0.5"), "100.1", "PRICE_FILTER"),
    ],
)
def test_price_filter(bounds, price, refusal):
    rules = changed(COINS, price_filter=PriceFilter(*map(Decimal, bounds)), min_notional=Decimal(0))
    assert refused(rules, limit_price=Decimal(price)) == refusal
    assert refused(rules) is None, "a market order has no price"


@pytest.mark.parametrize(
    ("side", "price", "refusal"),
    [
        ("BUY", "40", None),
        ("BUY", "39.99", "PERCENT_PRICE"),
        ("BUY", "300", None),
        ("BUY", "300.01", "PERCENT_PRICE"),
        ("SELL", "100", None),
        ("SELL", "99.99", "PERCENT_PRICE"),
        ("SELL", "1000.01", "PERCENT_PRICE"),
    ],
)
def test_percent_price_is_by_side_and_by_the_average(side, price, refusal):
    percent = PercentPrice("PERCENT_PRICE_BY_SIDE", *map(Decimal, ("0.2", "1.5", "0.5", "5")), 5)
    rules = changed(COINS, percent_prices=(percent,))
    market = msgspec.structs.replace(HUNDRED, average_price=Decimal(200))
    assert refused(rules, market=market, side=Side(side), limit_price=Decimal(price)) == refusal
    assert refused(rules, market=market, side=Side(side)) is None


@pytest.mark.parametrize(
    ("average", "close", "quantity", "refusal"),
    [
        ("100", "100", "0.103", None),  # the minimum and three per cent
        ("100", "100", "0.102", "NOTIONAL"),
        ("97", "100", "0.103", "NOTIONAL"),  # too little at the average
        ("103", "100", "0.102", "NOTIONAL"),  # too little at the close
        ("0", "100", "0.103", None),  # no average known
        ("100", "100", "97", None),  # the maximum less three per cent
        ("100", "100", "97.001", "NOTIONAL"),
    ],
)
def test_a_market_orders_value_keeps_a_margin(average, close, quantity, refusal):
    rules = changed(COINS, notionals=(NotionalFilter("NOTIONAL", Decimal(10), Decimal(10000), True, True, 5),))
    market = msgspec.structs.replace(HUNDRED, average_price=Decimal(average))
    assert refused(rules, market=market, close=Decimal(close), quantity=Decimal(quantity)) == refusal


def test_no_margin_where_the_exchange_takes_the_last_price_or_the_limit_price():
    """The first is what makes a run against a stepped exchange equal to a backtest."""
    last_price = NotionalFilter("MIN_NOTIONAL", Decimal(10), Decimal(0), True, False, 0)
    rules = changed(COINS, notionals=(last_price,))
    far = msgspec.structs.replace(HUNDRED, average_price=Decimal(1))
    assert refused(rules, market=far, quantity=Decimal("0.1")) is None
    assert refused(rules, market=far, quantity=Decimal("0.099")) == "MIN_NOTIONAL"
    rules = changed(COINS, notionals=(changed(last_price, average_minutes=5, min_binds_market=False),))
    assert refused(rules, quantity=Decimal("0.001")) is None
    assert refused(rules, quantity=Decimal("0.1"), limit_price=Decimal(100)) is None
    assert refused(rules, quantity=Decimal("0.1"), limit_price=Decimal("99.99")) == "MIN_NOTIONAL"


def test_max_position_counts_all_coins_of_the_account_and_binds_buys_alone():
    rules = changed(COINS, max_position=Decimal(10))
    market = msgspec.structs.replace(HUNDRED, held_base=Decimal(6), wanted_base=Decimal(3))
    assert refused(rules, market=market) is None
    assert refused(rules, market=market, quantity=Decimal("1.001")) == "MAX_POSITION"
    assert refused(rules, market=market, quantity=Decimal(5), side=Side.SELL) is None


def test_max_num_orders_binds_orders_that_name_a_price():
    rules = changed(COINS, max_num_orders=2)
    full = msgspec.structs.replace(HUNDRED, open_orders=2)
    assert refused(rules, market=full, limit_price=Decimal(100)) == "MAX_NUM_ORDERS"
    assert refused(rules, market=full) is None
    one_open = msgspec.structs.replace(HUNDRED, open_orders=1)
    assert refused(rules, market=one_open, limit_price=Decimal(100)) is None


def test_without_a_market_nothing_of_the_exchange_is_asked():
    """Backtest and replay: the contract alone, whatever the info says."""
    closed = changed(COINS, status="HALT", order_types=("LIMIT",), max_position=Decimal("0.001"))
    for signal in (BUY, SELL):
        plain_one = sized(signal, a_ledger("10000", COINS, positions={"BTCUSDT": "5"}), market=None)
        assert isinstance(plain_one, Sized)
        strict = sized(
            signal,
            a_ledger("10000", closed, positions={"BTCUSDT": "5"}),
            market=None,
            bps=10,
            recent=10**6,
            max_price_deviation=Decimal("0.01"),
            max_orders_per_minute=1,
        )
        assert strict == plain_one


def test_the_contracts_names_come_before_the_exchanges():
    assert sized(BUY, a_ledger("50", changed(COINS, status="HALT"))) == "MIN_NOTIONAL"


# LIMIT IOC


@pytest.mark.parametrize(
    ("side", "tick", "bps", "price"),
    [
        ("BUY", "0.01", "10", "100.10"),
        ("SELL", "0.01", "10", "99.90"),
        ("BUY", "0.1", "19", "100.1"),  # 100.19, never above
        ("SELL", "0.1", "19", "99.9"),  # 99.81, never below
        ("BUY", "7", "10", "98"),
        ("SELL", "7", "10", "105"),
        ("BUY", "0", "0.5", "100.005"),  # no tick: the precision of the quote asset
        ("BUY", "1000", "10", "0"),
    ],
)
def test_the_limit_is_the_close_moved_against_the_trader_on_the_tick(side, tick, bps, price):
    rules = changed(COINS, price_filter=PriceFilter(tick_size=Decimal(tick)))
    assert limit_price(rules, Side(side), Decimal(100), Decimal(bps), HUNDRED) == Decimal(price)


def test_the_limit_stays_within_the_filters():
    near = PercentPrice("PERCENT_PRICE", *map(Decimal, ("0.995", "1.005", "0.995", "1.005")), 5)
    rules = changed(COINS, price_filter=PriceFilter(tick_size=Decimal("0.01")), percent_prices=(near,))
    assert limit_price(rules, Side.BUY, Decimal(100), Decimal(100), HUNDRED) == Decimal("100.5")
    assert limit_price(rules, Side.SELL, Decimal(100), Decimal(100), HUNDRED) == Decimal("99.5")
    bounded = changed(COINS, price_filter=PriceFilter(Decimal("99.7"), Decimal("100.3"), Decimal("0.01")))
    assert limit_price(bounded, Side.BUY, Decimal(100), Decimal(100), HUNDRED) == Decimal("100.3")
    assert limit_price(bounded, Side.SELL, Decimal(100), Decimal(100), HUNDRED) == Decimal("99.7")


def test_where_no_price_is_legal_the_order_is_refused():
    high = changed(COINS, price_filter=PriceFilter(Decimal(150), Decimal(0), Decimal("0.01")))
    assert sized(BUY, a_ledger("10000", high), bps=10) == "PRICE_FILTER"
    coarse = changed(COINS, price_filter=PriceFilter(tick_size=Decimal(1000)))
    assert sized(BUY, a_ledger("10000", coarse), bps=10) == "PRICE_FILTER"
    below = PercentPrice("PERCENT_PRICE", *map(Decimal, ("0.1", "0.5", "0.1", "0.5")), 5)
    ledger = a_ledger("10000", changed(COINS, percent_prices=(below,)), positions={"BTCUSDT": "1"})
    assert sized(SELL, ledger, bps=10) == "PERCENT_PRICE"


def test_the_quantity_is_the_contracts_and_the_money_covers_the_limit():
    rules = changed(COINS, price_filter=PriceFilter(tick_size=Decimal("0.01")))
    outcome = sized(BUY, a_ledger("10000", rules), bps=100)
    assert outcome == Sized(Decimal(10), Decimal(1010), Decimal(101))
    assert sized(SELL, a_ledger("1", rules, positions={"BTCUSDT": "2"}), bps=100) == Sized(
        Decimal(2), Decimal(0), Decimal(99)
    )


def test_a_quantity_that_free_cash_does_not_cover_at_the_limit_is_cut():
    ledger = a_ledger("10000", COINS)
    ledger.reserve("a", Reservation("BTCUSDT", Side.BUY, Decimal(1), Decimal(9000)))
    outcome = sized(BUY, ledger, bps=100)
    assert outcome == Sized(Decimal("9.900"), Decimal("999.9"), Decimal(101))
    poor = a_ledger("109", COINS, positions={"BTCUSDT": "9"})
    poor.reserve("a", Reservation("BTCUSDT", Side.BUY, Decimal(1), Decimal(99)))
    assert sized(BUY, poor, bps=100) == "CASH", "legal at the close, too small once it is cut"


# The book bears the close out


BELIEVED = {"max_price_deviation": Decimal("0.05"), "max_quote_age_ms": 15_000}


def a_market(middle="100", as_of=NOON):
    middle = Decimal(middle)
    return MarketView(bid=middle - 1, ask=middle + 1, average_price=middle, as_of_ms=as_of)


@pytest.mark.parametrize("signal", [BUY, SELL, SELL_ALL], ids=["buy", "sell", "sell all"])
@pytest.mark.parametrize(
    ("close", "believed"), [("100", True), ("105", True), ("105.01", False), ("95", True), ("94.99", False)]
)
def test_a_close_far_from_the_book_is_not_traded_on(signal, close, believed):
    outcome = sized(signal, a_ledger("10000", COINS, positions={"BTCUSDT": "1"}), close, market=a_market(), **BELIEVED)
    assert (outcome != "PRICE") is believed


@pytest.mark.parametrize(
    "market",
    [
        MarketView(),
        a_market(as_of=NOON - 15_001),
        MarketView(bid=Decimal(0), ask=Decimal(100), as_of_ms=NOON),
        MarketView(bid=Decimal(100), ask=Decimal(0), as_of_ms=NOON),
        a_market("50", as_of=NOON - 15_001),
    ],
    ids=["nothing known", "too old", "no bid", "no ask", "old and far away"],
)
def test_without_a_price_of_the_book_nothing_is_bought_and_all_may_be_sold(market):
    ledger = a_ledger("10000", COINS, positions={"BTCUSDT": "1"})
    assert sized(BUY, ledger, market=market, **BELIEVED) == "PRICE"
    assert isinstance(sized(SELL, ledger, market=market, **BELIEVED), Sized)


def test_a_price_of_exactly_the_age_still_counts():
    old = a_market(as_of=NOON - 15_000)
    assert isinstance(sized(BUY, a_ledger("10000", COINS), market=old, **BELIEVED), Sized)


def test_a_book_that_stays_silent_holds_no_exit_back_for_ever():
    ledger = a_ledger("10000", COINS, positions={"BTCUSDT": "1"})
    crash, before = "80", a_market(as_of=NOON)
    assert sized(SELL_ALL, ledger, crash, market=before, now=NOON + 15_000, **BELIEVED) == "PRICE"
    assert isinstance(sized(SELL_ALL, ledger, crash, market=before, now=NOON + 15_001, **BELIEVED), Sized)


def test_without_the_limit_the_book_is_not_asked():
    assert isinstance(sized(BUY, a_ledger("10000", COINS), market=MarketView()), Sized)


@pytest.mark.parametrize(("recent", "refusal"), [(2, None), (3, "ORDER_RATE"), (4, "ORDER_RATE")])
def test_too_many_orders_in_a_minute_stop_entries_and_no_exit(recent, refusal):
    ledger = a_ledger("10000", COINS, positions={"BTCUSDT": "1"})
    outcome = sized(BUY, ledger, recent=recent, max_orders_per_minute=3)
    assert outcome == refusal or (refusal is None and isinstance(outcome, Sized))
    assert isinstance(sized(SELL, ledger, recent=recent, max_orders_per_minute=3), Sized)


# What leaves is taken: judged by the simulated exchange, on recorded exchangeInfo


@cache
def both_exchanges():
    found = []
    for profile in ("com", "us"):
        info = recorded(profile)
        rules = rules_from_exchange_info(info, [one["symbol"] for one in info["symbols"]])
        found += [(rules[one["symbol"]], one) for one in info["symbols"]]
    return found


PRICES = {"BTCUSDT": "64010.01", "ETHUSDT": "3410.5", "DOGEUSDT": "0.16123", "LTCUSDT": "84.37"}


def an_order_and_its_judge(rng):
    """Size one order in a random situation; the exchange's average is not quite the one that is known."""
    rules, info = rng.choice(both_exchanges())
    symbol = rules.symbol
    close = (Decimal(PRICES[symbol]) * Decimal(rng.randint(700, 1300)) / 1000).quantize(Decimal("0.00001"))
    known = close * Decimal(rng.randint(9000, 11000)) / 10000
    real = known * Decimal(rng.randint(9720, 10280)) / 10000
    held = Decimal(rng.choice([0, 0, 10 ** rng.randint(0, 9)])) / 1000
    ledger = a_ledger(str(Decimal(10 ** rng.randint(0, 9)) / 10), rules, positions={symbol: str(held)})
    ledger.mark(symbol, close, NOON)
    # Near the notional filters' minimum more often than not.
    fraction = Decimal(rng.choice([1, rng.randint(1, 1000)])) / 1000
    if rng.random() < 0.6:
        worth = Decimal(rng.randint(900, 1150)) / 1000 * rules.min_notional
        fraction = min(Decimal(1), max(Decimal("0.000001"), worth / ledger.equity()).quantize(Decimal("1E-9")))
        ledger.positions[symbol] = type(ledger.positions[symbol])(quantity=worth / close)
    bps = rng.choice([None, Decimal(rng.randint(1, 3000)) / 10])
    parameters = SizingParameters(fraction=fraction, max_slippage_bps=bps)
    market = MarketView(average_price=known, held_base=held, open_orders=rng.randint(0, 200))
    signal = rng.choice([BUY, SELL, SELL_ALL])
    outcome = size_order(ledger, symbol, signal, close, NOON, parameters, market, NOON)

    def judge(quantity, price):
        request = OrderRequest(
            symbol=symbol,
            side=signal.side.value,
            type="MARKET" if price is None else "LIMIT",
            time_in_force="IOC",
            quantity=quantity,
            price=price,
        )
        situation = Situation(request, quantity, lambda minutes: real, market.open_orders, 0, held)
        check(SimpleNamespace(filters=info["filters"]), (), situation)

    return outcome, judge, close, bps, signal.side


def test_no_order_that_leaves_is_refused_for_a_filter():
    rng, outcomes = random.Random(6), Counter()
    for _ in range(4_000):
        outcome, judge, close, bps, side = an_order_and_its_judge(rng)
        if isinstance(outcome, Refusal):
            outcomes[outcome.name] += 1
            continue
        outcomes["sent"] += 1
        price = outcome.limit_price
        judge(outcome.quantity, price)
        assert "E" not in plain(outcome.quantity)
        if price is not None:
            bound = Fraction(close) * (1 + Fraction(bps) / 10_000 * (1 if side is Side.BUY else -1))
            assert price <= bound if side is Side.BUY else price >= bound
    assert outcomes["sent"] > 1_000
    assert outcomes["NOTIONAL"] > 100
    assert outcomes["MIN_NOTIONAL"] > 100


def test_the_judge_does_refuse():
    """Without the margin the exchange's average decides otherwise now and then."""
    rng, refused_by_judge = random.Random(6), 0
    for _ in range(1_500):
        outcome, judge, *_ = an_order_and_its_judge(rng)
        if isinstance(outcome, Sized) and outcome.limit_price is None:
            try:
                judge(outcome.quantity * Decimal("0.94"), None)
            except ApiError:
                refused_by_judge += 1
    assert refused_by_judge > 20


@given(
    st.sampled_from(list(Side)),
    st.builds(lambda d, e: Decimal(d).scaleb(e), st.integers(1, 10**8), st.integers(-8, 0)),
    st.builds(lambda d, e: Decimal(d).scaleb(e), st.integers(1, 10**4), st.integers(-8, 1)),
    st.integers(1, 9_999),
)
def test_the_bound_is_never_exceeded_and_missed_by_less_than_a_tick(side, close, tick, bps):
    rules = changed(COINS, price_filter=PriceFilter(tick_size=tick))
    price = Fraction(limit_price(rules, side, close, Decimal(bps), MarketView()))
    bound = Fraction(close) * (1 + Fraction(bps, 10_000) * (1 if side is Side.BUY else -1))
    assert price % Fraction(tick) == 0
    distance = bound - price if side is Side.BUY else price - bound
    assert 0 <= distance < Fraction(tick)
