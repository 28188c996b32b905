"""Replay through the real actors gives what the backtest gives, to the last decimal."""

import gzip
import json
import os
import tempfile
import threading
from decimal import Decimal
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.adapters.sqlite import SqliteJournal, SqliteStore
from bot.app.data_directory import DataDirectory, DataDirectoryError
from bot.app.replay import ReplayError, ReplayPlan, run_replay
from bot.app.snapshot import stored_snapshot
from bot.app.trading import offline_rules
from bot.domain.order import Side
from bot.domain.risk import RiskLimits
from bot.domain.scalping import Scalping
from bot.domain.sizing import SizingParameters
from bot.domain.strategy import Signal
from bot.research.backtest import run_backtest
from bot.research.files import read_series
from tests.support.builders import MINUTE_MS, NOON, an_adjustment, exchange_info, symbol_info

DATA = Path(os.environ.get("BULKHEAD_DATA", Path(__file__).parents[3] / "shared" / "data"))
SCALPING = Scalping(Decimal("0.01"), Decimal("0.01"))
SYMBOLS = ("BTCUSDT", "ETHUSDT", "DOGEUSDT")
ROWS = 5_000


def a_file(folder, symbol, closes, start=NOON):
    """A kline file of one close a minute; a close of None is a minute without a row."""
    path = Path(folder) / f"{symbol}-1m-{start}.csv"
    rows = [
        f"{start + i * MINUTE_MS},{c},{c},{c},{c},1,{start + (i + 1) * MINUTE_MS - 1},1,1,1,1,0"
        for i, c in enumerate(closes)
        if c is not None
    ]
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def both(paths, directory, *, sizing=None, cash="10000", filters=None, strategy=SCALPING):
    """The two reports of the same files."""
    series = read_series(paths)
    rules = offline_rules([s.symbol for s in series], filters)
    sizing = sizing or SizingParameters()
    plan = ReplayPlan(series, rules, strategy, sizing, Decimal(cash), "bot")
    replayed = run_replay(plan, DataDirectory(directory))
    return run_backtest(series, rules, strategy, sizing, Decimal(cash)), replayed


def assert_equal(paths, directory, **changes):
    tested, replayed = both(paths, directory, **changes)
    assert replayed.as_json() == tested.as_json()
    return replayed


@st.composite
def walks(draw):
    moves = draw(st.lists(st.sampled_from([-30, -12, -10, -9, 0, 0, 9, 10, 11, 25, None]), min_size=1, max_size=40))
    price, closes = Decimal(draw(st.sampled_from(["100", "0.3", "41000"]))), []
    for move in moves:
        if move is not None:
            price = (price * (1000 + move) / 1000).quantize(Decimal("0.0001"))
        closes.append(None if move is None else price)
    return [price, *closes]


@settings(max_examples=12, deadline=None)
@given(
    series=st.lists(walks(), min_size=1, max_size=3),
    fraction=st.sampled_from(["0.1", "0.5", "1"]),
    sell_fraction=st.sampled_from(["0.3", "1"]),
    slippage=st.sampled_from(["0", "0.0007"]),
    max_exposure=st.sampled_from(["0.2", "1"]),
    limits=st.sampled_from(
        [
            RiskLimits(),
            RiskLimits(stop_loss=Decimal("0.02"), cooldown_ms=120_000),
            RiskLimits(take_profit=Decimal("0.015"), max_daily_loss=Decimal("0.01")),
        ]
    ),
)
def test_any_history_gives_the_same_by_actors_and_without(
    series, fraction, sell_fraction, slippage, max_exposure, limits
):
    sizing = SizingParameters(
        fraction=Decimal(fraction),
        sell_fraction=Decimal(sell_fraction),
        slippage=Decimal(slippage),
        max_exposure=Decimal(max_exposure),
        limits=limits,
    )
    with tempfile.TemporaryDirectory() as folder:
        paths = [a_file(folder, symbol, closes) for symbol, closes in zip(SYMBOLS, series, strict=False)]
        assert_equal(paths, Path(folder) / "book", sizing=sizing)


def test_two_symbols_share_one_wallet(tmp_path):
    """All the cash goes to the first of two signals of the same minute: the order of the files decides."""
    paths = [a_file(tmp_path, s, ["100", "98", "98", "99"]) for s in ("ETHUSDT", "BTCUSDT")]
    sizing = SizingParameters(fraction=Decimal(1))
    report = assert_equal(paths, tmp_path / "book", sizing=sizing)
    assert [(t.symbol, t.side) for t in report.trades] == [("ETHUSDT", "BUY"), ("ETHUSDT", "SELL")]
    assert report.skipped == {"CASH": 1}


def test_what_a_replay_traded_is_stored(tmp_path):
    report = assert_equal([a_file(tmp_path, "BTCUSDT", ["100", "98", "97.9", "99"])], tmp_path / "book")
    directory = DataDirectory(tmp_path / "book")
    with SqliteStore.read_only(directory.history) as store, SqliteJournal.read_only(directory.orders) as journal:
        assert store.kline_count() == 4
        assert list(store.trades()) == list(report.trades)
        assert len(list(journal.settled())) == len(report.trades) == 2
    snapshot = stored_snapshot(directory)
    assert (snapshot.mode, snapshot.pid, snapshot.cash, snapshot.equity) == ("replay", None, report.cash, report.equity)
    assert snapshot.as_json()["symbols"]["BTCUSDT"]["price"] == "99"
    assert snapshot.wallet_json()["positions"] == report.as_json()["positions"]
    assert directory.running_pid() is None


def test_adjustments_of_a_book_are_in_what_is_seen_of_it(tmp_path):
    report = assert_equal([a_file(tmp_path, "BTCUSDT", ["100", "98"])], tmp_path / "book")
    directory = DataDirectory(tmp_path / "book")
    with SqliteJournal(directory.orders) as journal:
        journal.adjust(an_adjustment("-1", quote="-3", time=report.trades[-1].time + 1))
        journal.adjust(an_adjustment("0", symbol="", quote="-50", adjustment_id="adj-2"))
    snapshot = stored_snapshot(directory)
    (view,) = snapshot.symbols
    assert snapshot.cash == report.cash - 53
    assert view.position.quantity == report.symbols[0].position - 1
    assert view.position.average_price == 98


def test_a_directory_that_holds_a_book_is_refused(tmp_path):
    path = a_file(tmp_path, "BTCUSDT", ["100", "98"])
    both([path], tmp_path / "book")
    with pytest.raises(DataDirectoryError, match="holds a book already"):
        both([path], tmp_path / "book")


def test_a_directory_without_a_book_says_so(tmp_path):
    assert stored_snapshot(DataDirectory(tmp_path)).mode == "none"


def test_a_replay_that_is_stopped_ends_in_order(tmp_path):
    series = read_series([a_file(tmp_path, "BTCUSDT", ["100", "98", "99"] * 400)])
    stop = threading.Event()
    plan = ReplayPlan(series, offline_rules(["BTCUSDT"], None), SCALPING, SizingParameters(), Decimal(10_000), "bot")
    report = run_replay(plan, DataDirectory(tmp_path / "book"), lambda done: stop.set() if done else None, stop)
    assert report.bars == 256
    with SqliteStore.read_only(DataDirectory(tmp_path / "book").history) as store:
        assert store.kline_count() == 256, "what was taken is stored also then"


class Breaks:
    """A strategy that one message kills, as often as it is tried."""

    warmup = 1

    def initial(self):
        return 0

    def decide(self, state, kline, position):
        if state == 2:
            raise RuntimeError("cannot bear the third")
        return state + 1, Signal(Side.BUY, "always") if state == 1 else None

    def observe(self, state, kline):
        return state


def test_a_replay_that_lost_a_message_is_a_failure_not_an_outcome(tmp_path):
    path = a_file(tmp_path, "BTCUSDT", ["100", "100", "100", "100"])
    with pytest.raises(ReplayError, match=r"trader/BTCUSDT|cannot bear"):
        both([path], tmp_path / "book", strategy=Breaks())


# Real candles


def first_rows(name, folder):
    path = DATA / "klines" / name
    if not path.exists():
        pytest.skip(f"{path} is not there; BULKHEAD_DATA names the directory that has klines/")
    short = Path(folder) / name.removesuffix(".gz")
    with gzip.open(path, "rt") as source:
        short.write_text("".join(islice(source, ROWS + 1)))
    return short


@pytest.mark.real_data
@pytest.mark.parametrize("symbols", [("BTCUSDT",), ("ETHUSDT",), ("DOGEUSDT",), SYMBOLS], ids="+".join)
def test_real_candles_give_the_same_by_actors_and_without(symbols, tmp_path):
    paths = [first_rows(f"{symbol}-1m-2021-04-20_2021-05-20.csv.gz", tmp_path) for symbol in symbols]
    report = assert_equal(paths, tmp_path / "book")
    assert report.bars == ROWS * len(symbols)
    assert report.trades


@pytest.mark.real_data
def test_a_symbol_with_filters_of_its_own(tmp_path):
    path = first_rows("LTCUSDT-1m-2021-04-20_2021-05-20.csv.gz", tmp_path)
    filters = DATA / "exchangeInfo" / "binance.com-2021-10-12-8-symbols.json"
    assert assert_equal([path], tmp_path / "book", filters=filters).trades


def test_filters_given_by_file_are_those_that_hold(tmp_path):
    filters = tmp_path / "info.json"
    filters.write_text(json.dumps(exchange_info(symbol_info("LTCUSDT", lot=("1", "5", "1"), MIN_NOTIONAL="10"))))
    report = assert_equal([a_file(tmp_path, "LTCUSDT", ["100", "98"])], tmp_path / "book", filters=filters)
    assert [t.quantity for t in report.trades] == [5]
