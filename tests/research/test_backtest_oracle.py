"""The backtest against a second implementation of the contract's semantics: every number of the outcome, exactly."""

import tempfile
from collections import Counter
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from bot.domain.exchange_info import rules_from_exchange_info
from bot.domain.filters import SymbolRules, default_rules
from bot.domain.risk import RiskLimits
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters
from bot.research.backtest import run_backtest
from bot.research.files import read_series
from tests.support import oracle
from tests.support.builders import exchange_info, symbol_info

START = 1_621_425_600_000
MINUTE = 60_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
PLAIN = {
    "cash": "10000",
    "fee": "0.001",
    "fraction": "0.1",
    "sell_fraction": "1",
    "buy_drop": "0.01",
    "sell_rise": "0.01",
    "max_exposure": "1",
    "slippage": "0",
    "stop_loss": None,
    "take_profit": None,
    "cooldown_s": 0,
}
INFO = exchange_info(
    symbol_info("BTCUSDT", lot=("0.00001", "9000", "0.00001"), MIN_NOTIONAL="10"),
    symbol_info("ETHUSDT", lot=("0.00001", "9000", "0.00001"), MIN_NOTIONAL="10"),
    symbol_info("DOGEUSDT", lot=("1", "9000000", "1"), MIN_NOTIONAL="10"),
)


def judged(files, info, parameters):
    """Run the bot's own path, files and all; `files` is a list of (symbol, rows), one file each."""
    p = {k: None if v is None else Decimal(v) for k, v in parameters.items()}
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, (symbol, rows) in enumerate(files):
            paths.append(Path(folder) / f"{symbol}-1m-{number}.csv")
            lines = [f"{opened},{c},{c},{c},{c},1,{closed},1,1,1,1,0\n" for opened, closed, c in rows]
            paths[-1].write_text("".join(lines))
        series = read_series(paths)
    sizing = SizingParameters(
        fraction=p["fraction"],
        sell_fraction=p["sell_fraction"],
        max_exposure=p["max_exposure"],
        slippage=p["slippage"],
        fee=p["fee"],
        limits=RiskLimits(
            stop_loss=p["stop_loss"], take_profit=p["take_profit"], cooldown_ms=parameters["cooldown_s"] * 1000
        ),
    )
    strategy = Scalping(buy_drop=p["buy_drop"], sell_rise=p["sell_rise"])
    return run_backtest(series, rules_from_exchange_info(info, SYMBOLS), strategy, sizing, p["cash"]).as_json()


def as_exact(report):
    """The contract's JSON object with its numbers as Fraction, keys that are ours left out."""
    exact = {key: report[key] for key in ("bars", "dropped", "symbols", "skipped")}
    exact |= {key: Fraction(report[key]) for key in ("cash", "equity")}
    exact["positions"] = {symbol: Fraction(quantity) for symbol, quantity in report["positions"].items()}
    numbers = ("price", "quantity", "quote_quantity", "commission")
    exact["trades"] = [
        {key: Fraction(value) if key in numbers else value for key, value in trade.items()}
        for trade in report["trades"]
    ]
    return exact


def compare(files, parameters, info=INFO):
    expected = oracle.run(files, info, **parameters)
    assert as_exact(judged(files, info, parameters)) == expected
    return expected


def rows_of(*closes, start=START):
    return [(start + i * MINUTE, start + (i + 1) * MINUTE - 1, c) for i, c in enumerate(closes)]


# Moves that lie on a threshold, just beside it, or far from it; a close after a move keeps up to 8 decimals.
MOVES = st.sampled_from(
    [Fraction(m) for m in ("0.99", "1.01", "0.95", "1.05", "1", "0.9901", "1.0099", "0.5", "2", "0.98", "1.03", "0.9")]
)
PRICES = st.sampled_from(["45000", "1234.56", "0.31415", "0.00001234", "1", "9999.99999999"])


@st.composite
def a_file(draw, symbol):
    """One file of a symbol: a walk with gaps, rows twice or in any order, now and then a close_time out of line."""
    price = Fraction(draw(PRICES))
    time = START + draw(st.integers(0, 3)) * MINUTE
    rows = []
    for move in draw(st.integers(1, 60).flatmap(lambda n: st.lists(MOVES, min_size=n, max_size=n))):
        price = max(Fraction(1, 10**8), Fraction(round(price * move * 10**8), 10**8))
        rows.append((time, time + MINUTE - 1, f"{Decimal(int(price * 10**8)).scaleb(-8):f}"))
        time += MINUTE * draw(st.sampled_from([1, 1, 1, 1, 2, 60]))
    for at in draw(st.lists(st.integers(0, len(rows) - 1), max_size=3)):
        opened, closed, _ = rows[at]
        rows.append((opened, closed, draw(PRICES)))
    for at in draw(st.lists(st.integers(0, len(rows) - 1), max_size=2)):
        opened, closed, close = rows[at]
        rows[at] = (opened, closed + draw(st.sampled_from([1, MINUTE, 5 * MINUTE])), close)
    if draw(st.booleans()):
        rows = draw(st.permutations(rows))
    return symbol, rows


LOTS = st.sampled_from(
    [
        ("0.00001", "9000", "0.00001"),
        ("1", "9000000", "1"),
        ("0.00003", "0.01", "0.00003"),
        ("0.001", "100", "0.00007"),
        ("5", "3", "1"),
        ("0.00000001", "1000000000", "0.00000001"),
        ("0.5", "0", "0.25"),
    ]
)
MARKET_LOTS = st.sampled_from(
    [None, ("0", "0", "0"), ("0", "83.7657243", "0"), ("0.00002", "50", "0.00002"), ("0.1", "0.0005", "0.0001")]
)
NOTIONALS = st.sampled_from([{"MIN_NOTIONAL": "10"}, {"NOTIONAL": "5"}, {"NOTIONAL": "500"}, {}])


@st.composite
def an_info(draw):
    return exchange_info(
        *(symbol_info(s, lot=draw(LOTS), market_lot=draw(MARKET_LOTS), **draw(NOTIONALS)) for s in SYMBOLS)
    )


def mostly(usual, *others):
    """Half of the examples with the usual value, so that the rare ones do not all meet in one example."""
    return st.booleans().flatmap(lambda rare: st.sampled_from(others) if rare else st.just(usual))


PARAMETERS = st.fixed_dictionaries(
    {
        "cash": mostly("10000", "10", "9.99999999", "50", "130.5", "1000000000", "0.00000001"),
        "fee": mostly("0.001", "0", "0.00075", "0.5", "0.0033333333"),
        "fraction": st.sampled_from(["0.1", "0.3", "0.5", "0.333333", "1"]),
        "sell_fraction": mostly("1", "0.5", "0.3333", "0.001"),
        "buy_drop": mostly("0.01", "0.05", "0.5", "0.000001"),
        "sell_rise": mostly("0.01", "0.05", "1", "0.000001"),
        "max_exposure": mostly("1", "0.6", "0.05", "2", "0.001"),
        "slippage": mostly("0", "0.0005", "0.00123456", "0.9"),
        "stop_loss": mostly(None, "0.05", "0.1", "0.0123"),
        "take_profit": mostly(None, "0.05", "0.1", "0.0123"),
        "cooldown_s": mostly(0, 60, 61, 3600),
    }
)


@st.composite
def some_files(draw):
    symbols = draw(st.permutations(SYMBOLS))[: draw(st.integers(1, 3))]
    files = [draw(a_file(symbol)) for symbol in symbols]
    if draw(st.booleans()):
        files.insert(draw(st.integers(0, len(files))), draw(a_file(symbols[0])))
    return files


@settings(max_examples=250, deadline=None)
@given(some_files(), PARAMETERS, st.just(INFO) | an_info())
def test_every_number_is_the_oracles(files, parameters, info):
    outcome = compare(files, parameters, info)
    for name in outcome["skipped"]:
        event(f"skipped {name}")
    for side in {trade["side"] for trade in outcome["trades"]}:
        event(f"traded {side}")


@settings(max_examples=100, deadline=None)
@given(some_files(), PARAMETERS)
def test_the_wallet_is_what_the_trades_say(files, parameters):
    """What no implementation may get wrong, whatever it thinks of the rules."""
    outcome = as_exact(judged(files, INFO, parameters))
    cash = Fraction(parameters["cash"])
    positions = Counter()
    for trade in outcome["trades"]:
        symbol, bought = trade["symbol"], trade["side"] == "BUY"
        sign = 1 if bought else -1
        cash -= sign * trade["quote_quantity"] + (0 if bought else trade["commission"])
        positions[symbol] += sign * trade["quantity"] - (trade["commission"] if bought else 0)
        assert cash >= 0
        assert positions[symbol] >= 0
    assert outcome["cash"] == cash
    assert outcome["positions"] == {symbol: positions[symbol] for symbol in outcome["symbols"]}


@settings(max_examples=50, deadline=None)
@given(some_files(), PARAMETERS, st.randoms(use_true_random=False))
def test_rows_given_again_change_only_the_count_of_dropped(files, parameters, random):
    """A later file repeats rows with other closes: what was given first counts."""
    before = judged(files, INFO, parameters)
    symbol, rows = random.choice(files)
    again = [
        (opened, closed + MINUTE, "77.7") for opened, closed, _ in random.sample(rows, random.randint(1, len(rows)))
    ]
    after = judged([*files, (symbol, again)], INFO, parameters)
    assert after.pop("dropped") == before.pop("dropped") + len(again)
    assert after == before


# What the oracle itself must say: worked out by hand from the contract.


def test_by_hand_a_round_trip():
    out = compare([("BTCUSDT", rows_of("100", "99", "99.99"))], PLAIN)
    buy, sell = out["trades"]
    # 10 % of 10000 at 99: 10.10101 steps of 0.00001; commission 0.01010101; 10.09090 can be sold, 0.00000899 stays.
    assert (buy["quantity"], buy["quote_quantity"]) == (Fraction("10.10101"), Fraction("999.99999"))
    assert (buy["commission"], buy["commission_asset"]) == (Fraction("0.01010101"), "BTC")
    assert (sell["quantity"], sell["quote_quantity"]) == (Fraction("10.0909"), Fraction("1008.989091"))
    assert (sell["commission"], sell["commission_asset"]) == (Fraction("1.0089891"), "USDT")
    assert out["positions"] == {"BTCUSDT": Fraction("0.00000899")}
    assert out["cash"] == Fraction("10007.9801119")
    assert out["equity"] == out["cash"] + Fraction("0.00000899") * Fraction("99.99")
    assert [t["time"] for t in out["trades"]] == [START + 2 * MINUTE - 1, START + 3 * MINUTE - 1]


@pytest.mark.parametrize(
    ("closes", "changes", "skipped"),
    [
        (("100", "99", "98"), {"cash": "10", "fraction": "1"}, {"MIN_NOTIONAL": 2}),
        (("100", "99"), {"cash": "99"}, {"MIN_NOTIONAL": 1}),
        (("100", "99"), {"cash": "0.0001", "fraction": "1"}, {"LOT_SIZE": 1}),
        (("100", "99", "98.01"), {"max_exposure": "0.1"}, {"EXPOSURE": 1}),
        (("100", "99", "98.01"), {"fraction": "1"}, {"CASH": 1}),
        (("100", "99", "99.99", "101"), {}, {"LOT_SIZE": 1}),
        (("100", "99", "98", "97"), {"cooldown_s": 120}, {"COOLDOWN": 1}),
    ],
)
def test_by_hand_skipped_names(closes, changes, skipped):
    assert compare([("BTCUSDT", rows_of(*closes))], PLAIN | changes)["skipped"] == skipped


def test_by_hand_equal_close_times_follow_the_order_of_the_files():
    rows = rows_of("100", "99")
    for files in ([("ETHUSDT", rows), ("BTCUSDT", rows)], [("BTCUSDT", rows), ("ETHUSDT", rows)]):
        out = compare(files, PLAIN | {"fraction": "1"})
        assert [t["symbol"] for t in out["trades"]] == [files[0][0]]
        assert out["skipped"] == {"CASH": 1}


def test_by_hand_a_kline_that_closes_after_its_successor_is_dropped():
    late = (START + MINUTE, START + 10 * MINUTE, "1")
    out = compare([("BTCUSDT", [*rows_of("100"), late, *rows_of("100", start=START + 2 * MINUTE)])], PLAIN)
    assert (out["bars"], out["dropped"], out["trades"]) == (2, 1, [])


@pytest.mark.parametrize(("close", "sold"), [("13.3", 3), ("13.29999999", 0)])
def test_by_hand_an_exit_from_an_average_that_does_not_end(close, sold):
    """1 at 20 and 2 at 9 cost 12.666... each, and 5 % above that is 13.3."""
    parameters = PLAIN | {"fee": "0", "fraction": "0.25", "cash": "100", "sell_rise": "10", "take_profit": "0.05"}
    out = compare([("DOGEUSDT", rows_of("25", "20", "9", close))], parameters)
    assert [t["quantity"] for t in out["trades"] if t["side"] == "BUY"] == [1, 2]
    assert sum(t["quantity"] for t in out["trades"] if t["side"] == "SELL") == sold


def test_the_offline_rules_are_the_infos():
    """So that what is compared above under INFO holds for the defaults too."""
    rules = rules_from_exchange_info(INFO, SYMBOLS)
    legality = SymbolRules.__struct_fields__[: SymbolRules.__struct_fields__.index("lot_size")]
    for symbol, read in rules.items():
        assert [getattr(read, f) for f in legality] == [getattr(default_rules(symbol), f) for f in legality]
