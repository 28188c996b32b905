"""Throttle: a storm of lines becomes a few, and none goes uncounted."""

from hypothesis import given
from hypothesis import strategies as st

from bot.domain.throttle import Throttle


def test_the_first_of_each_window_come_through_and_say_how_many_did_not():
    throttle = Throttle(2, 1_000)
    assert [throttle.admit(now) for now in (0, 1, 2, 999, 1_000, 1_001, 1_002, 5_000)] == [
        0,
        0,
        None,
        None,
        2,
        0,
        None,
        1,
    ]


@given(st.integers(1, 5), st.lists(st.integers(0, 400), max_size=60))
def test_what_comes_through_and_what_it_says_was_held_back_are_all(burst, gaps):
    throttle, now, said, held_back = Throttle(burst, 1_000), 0, [], 0
    for gap in gaps:
        now += gap
        admitted = throttle.admit(now)
        if admitted is None:
            held_back += 1
        else:
            assert admitted == held_back
            held_back = 0
            said.append(now)
    assert all(sum(begin <= other < begin + 1_000 for other in said) <= 2 * burst for begin in said)
