"""The order of one symbol's messages: (open_time, is_closed, event_time), and nothing more after a closed one."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.kline import INTERVALS_MS, implausible, is_newer, leaves_gap, next_close
from tests.support.builders import MINUTE_MS, NOON, a_kline


def at(open_time, is_closed, event_time):
    return a_kline(open_time=open_time, is_closed=is_closed, event_time=event_time)


@pytest.mark.parametrize(
    ("last", "next_one", "expected"),
    [
        ((10, False, 11), (10, False, 12), True),
        ((10, False, 11), (10, False, 11), False),  # the same again
        ((10, False, 12), (10, False, 11), False),  # late
        ((10, False, 99), (10, True, 19), True),  # closed is after open, whatever the event times say
        ((10, True, 19), (10, False, 99), False),  # after a closed kline nothing more of its open_time
        ((10, True, 19), (10, True, 19), False),
        ((10, True, 19), (10, True, 99), False),
        ((10, True, 19), (20, False, 15), True),  # the open_time comes first
        ((20, False, 21), (10, True, 99), False),
        ((20, True, 29), (10, True, 30), False),
    ],
)
def test_the_order(last, next_one, expected):
    assert is_newer(at(*next_one), at(*last)) is expected


def test_the_first_message_is_newer_than_none():
    assert is_newer(a_kline(), None)


def test_prices_and_the_received_time_do_not_count():
    last = a_kline("100", received_event_time=5)
    assert not is_newer(a_kline("99", received_event_time=9), last)


MESSAGES = st.builds(at, st.integers(1, 3), st.booleans(), st.integers(1, 4))


@given(MESSAGES, MESSAGES, MESSAGES)
def test_newer_is_a_strict_order(a, b, c):
    assert not is_newer(a, a)
    assert not (is_newer(a, b) and is_newer(b, a))
    if is_newer(a, b) and is_newer(b, c):
        assert is_newer(a, c)


@given(MESSAGES, MESSAGES)
def test_newer_is_the_contracts_key(a, b):
    key_a, key_b = ((k.open_time, k.is_closed, k.event_time) for k in (a, b))
    over = a.is_closed and b.is_closed and a.open_time == b.open_time
    assert is_newer(b, a) is (key_b > key_a and not over)


def taken_of(messages):
    taken = []
    for message in messages:
        if is_newer(message, taken[-1] if taken else None):
            taken.append(message)
    return taken


@given(st.lists(MESSAGES, max_size=20), st.data())
def test_duplicates_and_late_messages_are_never_taken(messages, data):
    """Every message may come again at any later time: what is taken is the same."""
    noisy = list(messages)
    for _ in range(data.draw(st.integers(1, 5))):
        if noisy:
            at_index = data.draw(st.integers(0, len(noisy) - 1))
            noisy.insert(data.draw(st.integers(at_index + 1, len(noisy))), noisy[at_index])
    assert taken_of(noisy) == taken_of(messages)


@given(st.lists(MESSAGES, max_size=20))
def test_at_most_one_closed_kline_of_an_open_time_is_taken(messages):
    taken = taken_of(messages)
    closed = [k.open_time for k in taken if k.is_closed]
    assert len(closed) == len(set(closed))
    assert [(k.open_time, k.is_closed) for k in taken] == sorted((k.open_time, k.is_closed) for k in taken)


def test_intervals_are_what_their_names_say():
    units = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
    assert {name: int(name[:-1]) * units[name[-1]] for name in INTERVALS_MS} == INTERVALS_MS


@pytest.mark.parametrize(
    ("last_closed", "minutes_on", "expected"),
    [(True, 1, False), (True, 2, True), (False, 0, False), (False, 1, True), (False, 9, True)],
)
def test_a_closed_kline_is_missing_where_the_next_one_does_not_follow(last_closed, minutes_on, expected):
    last = a_kline(is_closed=last_closed)
    for is_closed in (True, False):
        assert leaves_gap(a_kline(open_time=NOON + minutes_on * MINUTE_MS, is_closed=is_closed), last) is expected


def test_the_next_closed_kline_ends_with_the_open_candle_or_the_one_after_a_closed_one():
    assert next_close(a_kline(is_closed=False)) == NOON + MINUTE_MS - 1
    assert next_close(a_kline()) == NOON + 2 * MINUTE_MS - 1


def test_a_kline_cannot_be_changed():
    with pytest.raises(AttributeError):
        a_kline().close = Decimal(1)


def test_a_candle_longer_than_its_interval_is_not_believed():
    """Its length bounds how far ahead a candle may lie: with a false one it could make all true ones late."""
    corrupt = a_kline(open_time=NOON + 10**9, close_time=NOON + 10**13, event_time=NOON + 10**9)
    assert "is longer than 1m" in implausible(corrupt, None, NOON)
    assert implausible(a_kline(), None, NOON) is None
