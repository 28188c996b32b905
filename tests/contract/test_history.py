"""What every history keeps, near or far: items once, decimals to the last digit, klines in message order.

The same tests on SQLite and, over HTTP, on a DynamoDB server.
"""

import random
from collections.abc import Iterator
from decimal import Decimal
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.adapters.sqlite import SqliteStore
from bot.domain.order import Side
from tests.aws.tables import ClockAt, made, open_history
from tests.contract.test_store import a_trade
from tests.support.builders import MINUTE_MS, NOON, a_kline, klines_of, mixed_klines

TIMES = st.integers(0, 2**62)
KEY_TIMES = st.integers(10**12, 10**13 - 1)
"""From 2001 to 2286, when a time has 13 digits: a key of DynamoDB's is text."""
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
EXAMPLES = settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
FRESH = count()


def extreme_decimals(negative=False):
    """Finite decimals of up to 40 digits, between 1E-60 and 1E+90, many with trailing zeros."""
    return st.builds(
        lambda sign, digits, exponent: Decimal((sign, digits, exponent)),
        st.integers(0, int(negative)),
        st.lists(st.integers(0, 9), min_size=1, max_size=40).map(tuple),
        st.integers(-60, 50),
    )


@pytest.fixture(params=["sqlite", "dynamodb"])
def open_store(request, tmp_path, table_prefix) -> Iterator:
    """Opens the one store of this test; called again, as a process that starts anew would."""
    opened = []
    if request.param == "dynamodb":
        request.getfixturevalue("aws_credentials")
        url = request.getfixturevalue("dynalite").url
        # Before any of the open klines expires.
        opened.append(made(open_history(url, table_prefix, ClockAt(10**12))))

    def open_one():
        for store in opened:
            store.close()
        if request.param == "sqlite":
            opened.append(SqliteStore(tmp_path / "history.db"))
        else:
            opened.append(open_history(url, table_prefix, ClockAt(10**12)))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store):
    return open_store()


def test_an_empty_store_has_nothing(store):
    assert store.last_klines("BTCUSDT", 5) == []
    assert store.traded("BTCUSDT") == {}
    assert (store.symbols(), list(store.klines()), list(store.trades())) == ([], [], [])
    assert store.trade("BTCUSDT", "bh-1") is None
    store.write([], [])


def test_the_last_klines_come_oldest_first_and_of_one_symbol(store):
    klines = klines_of("1", "2", "3", "4")
    store.write(klines[2:], [])
    store.write([*klines[:2], *klines_of("9", symbol="ETHUSDT")], [])
    assert store.last_klines("BTCUSDT", 2) == klines[2:]
    assert store.last_klines("BTCUSDT", 100) == klines
    assert store.last_klines("BTCUSDT", 0) == []


def test_message_order_is_open_time_then_closed_then_event_time(store):
    # The second candle's own event_time lies before the first one's close: open_time decides.
    in_order = [
        a_kline("1", event_time=NOON + 2_000, is_closed=False),
        a_kline("2", event_time=NOON + 70_000, is_closed=False),
        a_kline("3"),
        a_kline("4", open_time=NOON + MINUTE_MS, event_time=NOON + 1_000, is_closed=False),
        a_kline("5", open_time=NOON + MINUTE_MS, event_time=NOON + 65_000, is_closed=False),
    ]
    store.write(random.Random(3).sample(in_order, len(in_order)), [])
    assert store.last_klines("BTCUSDT", 10) == in_order
    assert store.last_klines("BTCUSDT", 3) == in_order[2:]
    assert store.last_klines("BTCUSDT", 1, closed_only=True) == [in_order[2]]
    assert store.last_klines("BTCUSDT", 10, closed_only=True) == [in_order[2]]


def test_the_same_kline_twice_is_stored_once(store):
    updates = [a_kline("1", event_time=NOON + 2_000, is_closed=False), a_kline("2")]
    store.write(updates + updates, [])
    store.write(updates, [])
    assert store.last_klines("BTCUSDT", 10) == updates


def test_a_candle_is_closed_once_whatever_the_source(store):
    """The stream's closed kline and REST's of the same candle are one item."""
    from_stream = a_kline("2", received_event_time=NOON + 60_010)
    store.write([from_stream], [])
    store.write([a_kline("2")], [])
    (stored,) = store.last_klines("BTCUSDT", 10)
    assert (stored.close, stored.is_closed) == (Decimal(2), True)


def test_a_trade_is_stored_once(store):
    store.write([], [a_trade("bh-1"), a_trade("bh-1"), a_trade("bh-2")])
    store.write([], [a_trade("bh-1"), a_trade("bh-1", symbol="ETHUSDT")])
    quantity = a_trade().quantity
    assert store.traded("BTCUSDT") == {"bh-1": quantity, "bh-2": quantity}
    assert store.traded("ETHUSDT") == {"bh-1": quantity}


def test_fills_found_late_replace_the_trade_and_no_trade_ever_shrinks(store):
    """Eight decimals at most, so amounts beyond a float's digits must be told apart."""
    part, whole = (a_trade("bh-1", quantity=Decimal(amount)) for amount in ("9000000.00000001", "9000000.00000002"))
    for trades, stored in (([part], part), ([whole], whole), ([part], whole), ([whole, part, whole], whole)):
        store.write([], trades)
        assert store.traded("BTCUSDT") == {"bh-1": stored.quantity}


def test_a_store_opened_again_has_all(open_store):
    klines = klines_of("1", "2")
    open_store().write(klines, [a_trade("bh-1")])
    again = open_store()
    assert again.last_klines("BTCUSDT", 5) == klines
    assert again.traded("BTCUSDT") == {"bh-1": a_trade().quantity}


@EXAMPLES
@given(data=st.data())
def test_klines_come_back_to_the_last_digit(store, data):
    symbol = f"S{next(FRESH)}"
    kline = a_kline(
        symbol=symbol,
        open_time=data.draw(KEY_TIMES),
        close_time=data.draw(TIMES),
        event_time=data.draw(KEY_TIMES),
        is_closed=data.draw(st.booleans()),
        received_event_time=data.draw(st.none() | TIMES),
        quote_volume=data.draw(st.none() | extreme_decimals()),
        **{name: data.draw(extreme_decimals()) for name in ("open", "high", "low", "close", "volume")},
    )
    store.write([kline], [])
    assert store.last_klines(symbol, 1) == [kline]


@pytest.mark.parametrize("digits", [37, 38, 39, 60])
def test_numbers_of_any_length(store, digits):
    """DynamoDB's have 38 digits, and a quotient that ends may have more."""
    for value in (Decimal("1." + "7" * (digits - 1)), Decimal("7" * digits), Decimal("1E-" + str(digits))):
        store.write([a_kline(value)], [a_trade("bh-1", price=value)])
        assert list(store.klines()) == [a_kline(value)]
    assert [trade.price for trade in store.trades()] == [Decimal("1." + "7" * (digits - 1))]


@EXAMPLES
@given(data=st.data())
def test_trades_come_back_to_the_last_digit(store, data):
    symbol = f"S{next(FRESH)}"
    trade = a_trade(
        data.draw(st.from_regex(r"[a-zA-Z0-9-_]{1,36}", fullmatch=True)),
        symbol,
        data.draw(TIMES),
        side=data.draw(st.sampled_from(Side)),
        order_id=data.draw(st.integers(-(2**63), 2**63 - 1)),
        commission=data.draw(extreme_decimals(negative=True)),
        commission_asset=data.draw(TEXTS),
        mode=data.draw(TEXTS),
        bot_id=data.draw(TEXTS),
        reason=data.draw(TEXTS),
        commissions=tuple(data.draw(st.lists(st.tuples(TEXTS, extreme_decimals(negative=True)), max_size=3))),
        **{name: data.draw(extreme_decimals()) for name in ("price", "quantity", "quote_quantity", "close")},
    )
    store.write([], [trade])
    assert list(store.trades(symbol)) == [trade]
    assert store.trade(symbol, trade.client_order_id) == trade


def test_trades_come_oldest_first_and_with_what_was_found_late(store):
    first, second, third = (
        a_trade("bh-z", time=NOON),
        a_trade("bh-a", "ETHUSDT", NOON + 1),
        a_trade("bh-b", time=NOON + 1),
    )
    store.write([], [third, second, first])
    amended = a_trade("bh-z", time=NOON, quantity=Decimal(5), commissions=(("BTC", Decimal(1)), ("BNB", Decimal(2))))
    store.write([], [amended])
    assert list(store.trades()) == [amended, second, third]
    assert list(store.trades("ETHUSDT")) == [second]


def test_klines_are_merged_and_filtered(store):
    every = mixed_klines()
    store.write(random.Random(5).sample(every, len(every)), [])
    later = NOON + 2 * MINUTE_MS
    assert store.symbols() == ["BTCUSDT", "ETHUSDT"]
    assert list(store.klines()) == every
    assert list(store.klines("ETHUSDT")) == [k for k in every if k.symbol == "ETHUSDT"]
    assert list(store.klines(interval="3m")) == [k for k in every if k.interval == "3m"]
    assert list(store.klines(since=later)) == [k for k in every if k.open_time >= later]
    chosen = [k for k in every if k.open_time >= later and k.interval == "1m" and k.symbol == "BTCUSDT"]
    assert list(store.klines("BTCUSDT", "1m", later)) == chosen
    assert list(store.klines("BTCUSDT", "1m", later, 4)) == chosen[-4:]
    assert list(store.klines(limit=7)) == every[-7:]
    assert list(store.klines(limit=0)) == []
    assert list(store.klines(limit=10_000)) == every
    assert list(store.klines("NONE")) == []
    assert list(store.klines(since=0)) == every
    assert list(store.klines(since=NOON * 10)) == []
    assert store.last_klines("BTCUSDT", 9) == [k for k in every if k.symbol == "BTCUSDT"][-9:]


def test_more_than_a_page_and_a_batch(store):
    """Also the same in one write twice: the last one counts."""
    klines = klines_of(*range(1, 1_102))
    other = [a_kline("7", symbol="ETHUSDT"), a_kline("8", symbol="ETHUSDT")]
    store.write([*klines, *other], [a_trade(f"bh-{n}") for n in range(30)])
    assert list(store.klines("BTCUSDT")) == klines
    assert store.last_klines("BTCUSDT", 1_050) == klines[-1_050:]
    assert list(store.klines("ETHUSDT")) == other[1:]
    assert len(store.traded("BTCUSDT")) == 30
