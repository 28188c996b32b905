"""Client order ids: a function of the decision alone, legal, marked as ours, sorted by time, one for each decision."""

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.order_id import client_order_id, order_prefix
from tests.support.builders import MINUTE_MS, NOON

GOLDEN = "bh-23to3t-0kovez2an-6n46zhuc2g6f"
LEGAL = re.compile(r"[a-zA-Z0-9-_]{1,36}", re.ASCII)
DECISION = {
    "bot_id": "bulkhead",
    "mode": "paper",
    "symbol": "BTCUSDT",
    "side": "BUY",
    "open_time": NOON,
    "event_time": NOON + MINUTE_MS - 1,
}
TIMES = st.integers(0, 4_102_444_800_000)  # until 2100
DECISIONS = st.tuples(
    st.sampled_from(["bulkhead", "b", "bot 2", "böt\n", "x" * 200, ""]),
    st.sampled_from(["demo", "paper", "testnet", "live", "backtest", "replay"]),
    st.sampled_from(["BTCUSDT", "ETHUSDT", "1000SATSUSDT", "币安人生USDT"]),
    st.sampled_from(["BUY", "SELL"]),
    TIMES,
    TIMES,
)


def test_the_same_decision_always_has_the_same_id():
    """Golden: an id that changes with a release would orphan the orders of the one before."""
    assert client_order_id(**DECISION) == GOLDEN


def test_another_process_makes_the_same_id():
    code = f"from bot.domain.order_id import client_order_id; print(client_order_id(**{DECISION!r}))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert outputs == {GOLDEN}


@pytest.mark.parametrize("part", DECISION)
def test_every_part_of_the_decision_counts(part):
    other = DECISION[part] + 1 if isinstance(DECISION[part], int) else DECISION[part] + "X"
    assert client_order_id(**(DECISION | {part: other})) != GOLDEN


@given(DECISIONS)
def test_an_id_is_legal_and_begins_with_the_bots_prefix(decision):
    made = client_order_id(*decision)
    assert LEGAL.fullmatch(made)
    assert made.startswith(order_prefix(*decision[:2]))
    assert len(order_prefix(*decision[:2])) == 10


FEW = st.integers(0, 2)


@given(st.lists(st.tuples(*(st.sampled_from(["a", "b"]) for _ in range(4)), FEW, FEW), min_size=2, unique=True))
def test_decisions_that_differ_in_little_have_different_ids(decisions):
    assert len({client_order_id(*d) for d in decisions}) == len(decisions)


@given(st.lists(DECISIONS, min_size=2, max_size=30, unique=True))
def test_different_decisions_have_different_ids(decisions):
    assert len({client_order_id(*d) for d in decisions}) == len(decisions)


def test_the_decisions_of_a_year_of_minutes_have_different_ids():
    made = {
        client_order_id("b", "live", symbol, side, NOON + i * MINUTE_MS, NOON + (i + 1) * MINUTE_MS - 1)
        for symbol in ("BTCUSDT", "ETHUSDT")
        for side in ("BUY", "SELL")
        for i in range(0, 525_600, 40)
    }
    assert len(made) == 4 * 13_140


@given(DECISIONS, DECISIONS)
def test_ids_of_one_bot_sort_by_time(first, second):
    second = (*first[:2], *second[2:])
    if first[5] != second[5]:
        earlier, later = sorted((first, second), key=lambda d: d[5])
        assert client_order_id(*earlier) < client_order_id(*later)


@pytest.mark.parametrize("mode", ["paper", "live"])
@pytest.mark.parametrize("bot_id", ["bulkhead", "bulkhead2"])
def test_another_bot_or_mode_has_another_prefix(bot_id, mode):
    prefixes = {order_prefix(b, m) for b in ("bulkhead", "bulkhead2") for m in ("paper", "live")}
    assert len(prefixes) == 4
    assert order_prefix(bot_id, mode) in prefixes


def test_names_that_run_together_are_told_apart():
    assert order_prefix("ab", "c") != order_prefix("a", "bc")
    assert client_order_id("b", "live", "XBUY", "SELL", 1, 2) != client_order_id("b", "live", "X", "BUYSELL", 1, 2)
