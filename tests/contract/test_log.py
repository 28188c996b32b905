"""What every event log keeps: offsets that rise by one, entries in order until they are released, a bound."""

import threading
from itertools import pairwise

import pytest

from bot.adapters.local_log import LocalLog
from bot.ports import LogFull
from tests.support.builders import klines_of

LOGS = [pytest.param(LocalLog, id="local")]


@pytest.fixture(params=LOGS)
def new_log(request):
    """Makes a log that holds as many entries as it is told."""
    return request.param


def filled(log, *closes):
    klines = klines_of(*closes)
    assert [log.append(kline) for kline in klines] == list(range(1, len(klines) + 1))
    return klines


def test_an_empty_log_has_nothing(new_log):
    log = new_log(10)
    assert (log.released, log.depth) == (0, 0)
    assert log.read(0, 100) == (0, ())


def test_entries_are_read_in_order_and_stay_until_they_are_released(new_log):
    log = new_log(10)
    a, b, c = filled(log, "1", "2", "3")
    assert log.read(0, 2) == (2, (a, b))
    assert log.read(2, 2) == (3, (c,))
    assert log.read(3, 2) == (3, ())
    assert log.read(0, 100) == (3, (a, b, c))
    assert log.depth == 3


def test_released_entries_are_gone_and_the_offsets_of_the_others_stay(new_log):
    log = new_log(10)
    _, _, c = filled(log, "1", "2", "3")
    log.release(2)
    assert (log.released, log.depth) == (2, 1)
    assert log.read(2, 10) == (3, (c,))
    assert log.read(0, 10) == (3, (c,)), "a reader from the beginning goes on behind what was released"
    (d,) = klines_of("4")
    assert log.append(d) == 4
    assert log.read(3, 10) == (4, (d,))


def test_reading_behind_everything_moves_no_reader_back(new_log):
    log = new_log(10)
    filled(log, "1", "2")
    log.release(2)
    assert log.read(0, 10) == (2, ())
    assert log.read(2, 10) == (2, ())


def test_releasing_again_or_less_changes_nothing(new_log):
    log = new_log(10)
    filled(log, "1", "2", "3")
    for upto in (2, 2, 1, 0):
        log.release(upto)
    assert (log.released, log.depth) == (2, 1)


def test_an_offset_that_was_never_given_out_cannot_be_released(new_log):
    log = new_log(10)
    filled(log, "1", "2")
    with pytest.raises(ValueError, match="offset 3"):
        log.release(3)
    assert log.depth == 2


def test_a_full_log_says_how_full_and_what_to_mend_and_takes_again_after_a_release(new_log):
    log = new_log(2)
    filled(log, "1", "2")
    (late,) = klines_of("3")
    with pytest.raises(LogFull, match=r"holds 2 entries .* see why persistence") as full:
        log.append(late)
    assert "\n" not in str(full.value)
    log.release(1)
    assert log.append(late) == 3


def test_a_log_without_room_is_refused(new_log):
    with pytest.raises(ValueError, match="bound"):
        new_log(0)


def test_many_threads_lose_and_double_nothing(new_log):
    log = new_log(100_000)
    writers, each = 4, 2_000
    series = {n: klines_of(*range(1, each + 1), symbol=f"S{n}") for n in range(writers)}
    offsets = {}

    def write(n):
        offsets[n] = [log.append(kline) for kline in series[n]]

    threads = [threading.Thread(target=write, args=(n,)) for n in range(writers)]
    for thread in threads:
        thread.start()
    read, after = [], 0
    while len(read) < writers * each:
        upto, entries = log.read(after, 37)
        assert upto == after + len(entries)
        log.release(upto)
        read, after = read + list(entries), upto
    for thread in threads:
        thread.join()
    assert sorted(offset for numbers in offsets.values() for offset in numbers) == list(range(1, writers * each + 1))
    for n in range(writers):
        assert all(a < b for a, b in pairwise(offsets[n]))
        assert [entry for entry in read if entry.symbol == f"S{n}"] == series[n]
    assert (log.released, log.depth) == (writers * each, 0)
