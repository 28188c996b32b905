"""What the exchange lets an order be: LOT_SIZE and MARKET_LOT_SIZE joined, then the notional filter."""

import re
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bot.domain.exchange_info import FilterError, rules_from_exchange_info
from bot.domain.filters import default_rules
from tests.support.builders import a_filter, exchange_info, rules_by_info, rules_of, symbol_info


@pytest.mark.parametrize(
    ("quantity", "price", "broken"),
    [
        ("0.1", "100", None),  # exactly minNotional
        ("0.09999", "100", "MIN_NOTIONAL"),
        ("0.1", "99.99999999", "MIN_NOTIONAL"),
        ("0.00001", "1000000", None),  # exactly minQty
        ("0", "1000000", "LOT_SIZE"),
        ("-1", "100", "LOT_SIZE"),
        ("0.100001", "1000000", "LOT_SIZE"),  # off the step
        ("9000", "100", None),  # exactly maxQty
        ("9000.00001", "100", "LOT_SIZE"),
        ("0.000001", "1", "LOT_SIZE"),  # breaks both: LOT_SIZE comes first
    ],
)
def test_the_first_filter_broken(quantity, price, broken):
    assert rules_of().broken_by(Decimal(quantity), Decimal(price)) == broken


def test_a_quantity_below_min_qty():
    assert rules_of(step="1", min_qty="5", min_notional="0").broken_by(Decimal(4), Decimal(1)) == "LOT_SIZE"
    assert rules_of(step="1", min_qty="5", min_notional="0").broken_by(Decimal(5), Decimal(1)) is None


def test_steps_count_from_zero_not_from_min_qty():
    rules = rules_of(step="0.2", min_qty="0.1", min_notional="0")
    assert rules.broken_by(Decimal("0.4"), Decimal(1)) is None
    assert rules.broken_by(Decimal("0.3"), Decimal(1)) == "LOT_SIZE"


@pytest.mark.parametrize("name", ["MIN_NOTIONAL", "NOTIONAL"])
def test_the_notional_filter_has_the_exchanges_name(name):
    rules = rules_by_info(**{name: "10"})
    assert rules.broken_by(Decimal("0.09"), Decimal(100)) == name
    assert rules.broken_by(Decimal("0.1"), Decimal(100)) is None


def test_with_both_notional_filters_the_larger_bound_holds_under_the_name_notional():
    for notionals in ({"MIN_NOTIONAL": "10", "NOTIONAL": "5"}, {"MIN_NOTIONAL": "5", "NOTIONAL": "10"}):
        rules = rules_by_info(**notionals)
        assert rules.broken_by(Decimal("0.09"), Decimal(100)) == "NOTIONAL"
        assert rules.broken_by(Decimal("0.1"), Decimal(100)) is None


def test_without_a_notional_filter_any_value_is_legal():
    assert rules_by_info().broken_by(Decimal("0.00001"), Decimal("0.00000001")) is None


@pytest.mark.parametrize(("applies", "broken"), [(True, "NOTIONAL"), (False, None)])
def test_max_notional_counts_where_it_applies_to_market_orders(applies, broken):
    info = symbol_info()
    bounds = {"minNotional": "5", "maxNotional": "1000", "applyMaxToMarket": applies}
    info["filters"].append(a_filter("NOTIONAL", **bounds))
    rules = rules_from_exchange_info(exchange_info(info), ["BTCUSDT"])["BTCUSDT"]
    assert rules.broken_by(Decimal(10), Decimal(100)) is None
    assert rules.broken_by(Decimal("10.00001"), Decimal(100)) == broken


@pytest.mark.parametrize(
    ("lot", "market_lot", "expected"),
    [
        # (minQty, maxQty, stepSize) -> what holds for a market order
        (("0.00001", "9000", "0.00001"), None, ("0.00001", "9000", "0.00001")),
        (("0.00001", "9000", "0.00001"), ("0", "0", "0"), ("0.00001", "9000", "0.00001")),
        (
            ("0.00001", "9000", "0.00001"),
            ("0.00000000", "83.76572430", "0.00000000"),
            ("0.00001", "83.7657243", "0.00001"),
        ),
        (("0.00001", "9000", "0.00001"), ("0.5", "100", "0.1"), ("0.5", "100", "0.1")),
        (("0.5", "100", "0.1"), ("0.00001", "9000", "0.00001"), ("0.5", "100", "0.1")),
        (("0.00003", "1", "0.00003"), ("0.00002", "2", "0.00002"), ("0.00003", "1", "0.00006")),
        (("1", "0", "1"), ("0", "0", "0"), ("1", "0", "1")),
        (("1", "0", "0"), ("1", "7", "2"), ("1", "7", "2")),
    ],
)
def test_market_lot_size_joins_lot_size_where_it_is_not_zero(lot, market_lot, expected):
    rules = rules_by_info(lot=lot, market_lot=market_lot)
    assert (rules.min_qty, rules.max_qty, rules.step_size) == tuple(map(Decimal, expected))


def test_a_max_qty_of_zero_is_no_bound():
    rules = rules_by_info(lot=("1", "0", "1"))
    assert rules.broken_by(Decimal(10**9), Decimal(1)) is None


LOTS = st.tuples(
    st.sampled_from([0, 0, 1, 5, 60]), st.sampled_from([0, 0, 200, 60, 3]), st.sampled_from([0, 1, 2, 3, 5, 6, 10, 15])
).map(lambda lot: tuple(f"{n}E-2" for n in lot))


def _plain(lot):
    return tuple(f"{Decimal(value):f}" for value in lot)


@given(LOTS, st.none() | LOTS)
def test_the_joined_rules_are_both_filters(lot, market_lot):
    """Judged by Binance's own text: each filter by itself, a zero disabling its rule."""
    filters = [tuple(map(Fraction, lot))] + ([tuple(map(Fraction, market_lot))] if market_lot else [])
    assume(any(step for _, _, step in filters))
    rules = rules_by_info(lot=_plain(lot), market_lot=_plain(market_lot) if market_lot else None)
    for quantity in (Decimal(n).scaleb(-2) for n in range(70)):
        legal = quantity > 0 and all(
            quantity >= least and (not most or quantity <= most) and (not step or Fraction(quantity) % step == 0)
            for least, most, step in filters
        )
        assert (rules.broken_by(quantity, Decimal(1)) is None) is legal


@pytest.mark.parametrize(
    ("symbol", "lot"),
    [
        ("BTCUSDT", ("BTC", "0.00001", "0.00001", "9000")),
        ("ETHUSDT", ("ETH", "0.00001", "0.00001", "9000")),
        ("DOGEUSDT", ("DOGE", "1", "1", "9000000")),
    ],
)
def test_the_offline_rules(symbol, lot):
    rules = default_rules(symbol)
    assert (rules.symbol, rules.base_asset, rules.quote_asset) == (symbol, lot[0], "USDT")
    assert (rules.step_size, rules.min_qty, rules.max_qty) == tuple(map(Decimal, lot[1:]))
    assert rules.min_notional == 10
    assert rules.broken_by(rules.min_qty, Decimal("0.1")) == "MIN_NOTIONAL"


@pytest.mark.parametrize("symbol", ["LTCUSDT", "BTCUSD", "btcusdt", ""])
def test_any_other_symbol_has_no_offline_rules(symbol):
    assert default_rules(symbol) is None


def test_every_wanted_symbol_of_the_info_is_read_and_no_other_can_spoil_it():
    info = exchange_info(symbol_info("BTCUSDT", MIN_NOTIONAL="1"), symbol_info("ETHBTC", quote_asset="BTC"))
    info["symbols"].append({"symbol": "ODDUSDT", "filters": "none"})
    rules = rules_from_exchange_info(info, ["ETHBTC", "BTCUSDT", "LTCUSDT"])
    assert {s: (r.base_asset, r.quote_asset) for s, r in rules.items()} == {
        "BTCUSDT": ("BTC", "USDT"),
        "ETHBTC": ("ETH", "BTC"),
    }


def without(info, key):
    return {k: v for k, v in info.items() if k != key}


def with_filter(name, **changes):
    info = symbol_info(MIN_NOTIONAL="10")
    for one in info["filters"]:
        if one["filterType"] == name:
            one.update(changes)
    return info


@pytest.mark.parametrize(
    ("info", "names"),
    [
        ({}, ["symbols"]),
        ([], ["symbols"]),
        (None, ["symbols"]),
        ({"symbols": {}}, ["symbols"]),
        ({"symbols": ["BTCUSDT"]}, ["symbols"]),
        (exchange_info(without(symbol_info(), "symbol")), ["symbol"]),
        (exchange_info(without(symbol_info(), "filters")), ["BTCUSDT", "filters"]),
        (exchange_info(without(symbol_info(), "baseAsset")), ["BTCUSDT", "baseAsset"]),
        (exchange_info(without(symbol_info(), "quoteAsset")), ["BTCUSDT", "quoteAsset"]),
        (exchange_info(symbol_info() | {"filters": []}), ["BTCUSDT", "LOT_SIZE"]),
        (exchange_info(symbol_info(lot=("1", "1", "0"))), ["BTCUSDT", "stepSize"]),
        *(
            (exchange_info(with_filter("LOT_SIZE", stepSize=bad)), ["BTCUSDT", "LOT_SIZE", "stepSize"])
            for bad in ("", "-1", "NaN", "Infinity", "1e5", " 1", "1_000", "\u0661", None, 1, 0.5, "1.", ".1")
        ),
        (exchange_info(with_filter("LOT_SIZE", maxQty=None)), ["BTCUSDT", "LOT_SIZE", "maxQty"]),
        (exchange_info(with_filter("LOT_SIZE", minQty="x")), ["BTCUSDT", "LOT_SIZE", "minQty"]),
        (exchange_info(with_filter("MIN_NOTIONAL", minNotional="x")), ["BTCUSDT", "MIN_NOTIONAL", "minNotional"]),
    ],
)
def test_an_info_that_cannot_be_used_is_refused_by_name(info, names):
    with pytest.raises(FilterError) as refusal:
        rules_from_exchange_info(info, ["BTCUSDT"])
    assert "\n" not in str(refusal.value)
    for name in names:
        assert re.search(rf"\b{name}\b", str(refusal.value))
