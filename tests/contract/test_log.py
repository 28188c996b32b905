"""What every event log keeps: offsets that rise by one, entries in order until they are released, bounds."""

import errno
import os
import shutil
import tempfile
import threading
from collections import deque
from contextlib import suppress
from decimal import Decimal
from itertools import pairwise, repeat
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.adapters.local_log import LocalLog, spool
from bot.domain.order import trade_of
from bot.domain.strategy import Thresholds
from bot.messages import ENTRY_TYPES, BookOpened, SymbolStopped
from bot.ports import LogDamaged, LogFull
from bot.supervision import (
    ActorFailed,
    ActorQuarantined,
    ActorRestarted,
    ActorStarted,
    ActorStopped,
    DeadLetter,
)
from tests.support.builders import NOON, a_decision, a_fill, a_kline, an_intent, klines_of

LOGS = [
    pytest.param(lambda path: LocalLog(), id="memory"),
    pytest.param(lambda path: LocalLog(path / "spool", memory_entries=4), id="disk"),
]


@pytest.fixture(params=LOGS)
def log(request, tmp_path):
    """A log with room for at least four entries that nobody released."""
    made = request.param(tmp_path)
    yield made
    made.close()


@pytest.fixture
def new_spilling(tmp_path):
    """Makes a log of two entries in memory and the rest in segments of two in files."""
    made = []

    def make(**bounds):
        made.append(LocalLog(tmp_path / "spool", **({"memory_entries": 2} | bounds)))
        return made[-1]

    yield make
    for log in made:
        log.close()


def filled(log, *closes):
    return filled_with(log, klines_of(*closes))


def filled_with(log, klines):
    last = log.released + log.depth
    assert [log.append(kline) for kline in klines] == list(range(last + 1, last + len(klines) + 1))
    return klines


def drained(log, step=100):
    """All entries that wait, read and released as a reader does."""
    entries, after = [], log.released
    while log.depth:
        upto, some = log.read(after, step)
        assert some, f"{log.depth} entries wait, none is to be had"
        assert upto == after + len(some)
        log.release(upto)
        entries, after = [*entries, *some], upto
    return entries


def files(log_path):
    return sorted(path.name for path in log_path.glob("**/*.spool"))


def test_an_empty_log_has_nothing(log):
    assert (log.released, log.depth, log.spilled_bytes) == (0, 0, 0)
    assert log.read(0, 100) == (0, ())


def test_entries_are_read_in_order_and_stay_until_they_are_released(log):
    a, b, c = filled(log, "1", "2", "3")
    assert log.read(0, 2) == (2, (a, b))
    assert log.read(2, 2) == (3, (c,))
    assert log.read(3, 2) == (3, ())
    assert log.read(0, 100) == (3, (a, b, c))
    assert log.depth == 3


def test_released_entries_are_gone_and_the_offsets_of_the_others_stay(log):
    _, _, c = filled(log, "1", "2", "3")
    log.release(2)
    assert (log.released, log.depth) == (2, 1)
    assert log.read(2, 10) == (3, (c,))
    assert log.read(0, 10) == (3, (c,)), "a reader from the beginning goes on behind what was released"
    (d,) = klines_of("4")
    assert log.append(d) == 4
    assert log.read(3, 10) == (4, (d,))


def test_reading_behind_everything_moves_no_reader_back(log):
    filled(log, "1", "2")
    log.release(2)
    assert log.read(0, 10) == (2, ())
    assert log.read(2, 10) == (2, ())


def test_releasing_again_or_less_changes_nothing(log):
    filled(log, "1", "2", "3")
    for upto in (2, 2, 1, 0):
        log.release(upto)
    assert (log.released, log.depth) == (2, 1)


def test_an_offset_that_was_never_given_out_cannot_be_released(log):
    filled(log, "1", "2")
    with pytest.raises(ValueError, match="offset 3"):
        log.release(3)
    assert log.depth == 2


@pytest.mark.parametrize(
    "log", [LOGS[0], pytest.param(lambda p: LocalLog(p, memory_entries=50), id="disk")], indirect=True
)
def test_many_threads_lose_and_double_nothing(log):
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


# The one in this process: in memory only


def test_a_full_log_says_how_full_and_what_to_mend_and_takes_again_after_a_release():
    log = LocalLog(memory_entries=2)
    filled(log, "1", "2")
    (late,) = klines_of("3")
    with pytest.raises(LogFull, match=r"holds 2 entries .* see why persistence") as full:
        log.append(late)
    assert "\n" not in str(full.value)
    log.release(1)
    assert log.append(late) == 3


def test_a_log_without_room_is_refused():
    with pytest.raises(ValueError, match="bound"):
        LocalLog(memory_entries=0)


# With a directory


def test_what_is_too_much_for_memory_is_on_disk_and_comes_back_in_order(new_spilling, tmp_path, monkeypatch):
    monkeypatch.setattr(spool, "CHUNK", 1)
    log = new_spilling()
    klines = filled(log, *range(1, 12))
    assert log.depth == 11
    assert log.spilled_bytes > 9 * 100
    assert files(tmp_path) == [f"0000000{n}.spool" for n in range(1, 5)]
    on_disk = sum(path.stat().st_size for path in tmp_path.glob("spool/*"))
    assert 0 < log.spilled_bytes - on_disk < 500, "the newest entry is written with the next one"
    assert drained(log) == klines
    assert (log.depth, log.spilled_bytes, files(tmp_path)) == (0, 0, [])
    assert log.append(klines[0]) == 12
    assert log.spilled_bytes == 0, "in memory again"


def test_a_file_goes_once_it_is_read_and_new_entries_queue_behind_those_on_disk(new_spilling, tmp_path):
    log = new_spilling()
    before = filled(log, *range(1, 8))
    assert files(tmp_path) == ["00000001.spool", "00000002.spool"], "the newest segment is not worth a file yet"
    log.release(2)
    assert log.read(2, 1) == (3, (before[2],))
    assert files(tmp_path) == ["00000002.spool"]
    after = filled(log, "8")
    log.release(3)
    assert drained(log, step=1) == [*before[3:], *after]


def test_a_reader_far_ahead_gets_no_more_than_memory_holds(new_spilling):
    log = new_spilling()
    klines = filled(log, *range(1, 12))
    assert log.read(0, 100) == (2, tuple(klines[:2]))
    assert log.read(2, 100) == (2, ())
    log.release(1)
    assert log.read(2, 100) == (2, ()), "a segment of two does not fit beside the one that is left"
    log.release(2)
    assert log.read(2, 100) == (4, tuple(klines[2:4]))
    with pytest.raises(ValueError, match="offset 5"):
        log.release(5)


def test_every_type_of_entry_comes_back_as_it_was(new_spilling):
    intent = an_intent(quantity="0.30")
    fills = [a_fill(quantity="0.1", commission="1E-8"), a_fill(quantity="0.2", commission="1", commission_asset="BNB")]
    entries = [
        a_kline("0.00000001", volume=Decimal("1E+3"), quote_volume=None, received_event_time=NOON),
        trade_of(intent, fills, "test", "bot"),
        a_decision("CASH", thresholds=Thresholds(Decimal("99.0"), None)),
        ActorStarted("trader/BTCUSDT", 1, "trader", NOON),
        ActorStopped("trader/BTCUSDT", 2, "trader", NOON, abandoned=True),
        ActorFailed("trader/BTCUSDT", 1, "handle", "Kline", "ValueError: ß\n€", NOON),
        ActorRestarted("trader/BTCUSDT", 2, 1, 105, NOON),
        ActorQuarantined("trader/BTCUSDT", "too often", NOON),
        DeadLetter("trader/BTCUSDT", "Kline", "ValueError", 2, NOON, 7),
        SymbolStopped("trader/BTCUSDT", "BTCUSDT", "coins are missing", NOON),
        BookOpened("book", "paper", "com", "paper", "bot", Decimal("1E-8"), "[]", NOON),
    ]
    assert {type(entry) for entry in entries} == set(ENTRY_TYPES)
    log = new_spilling(memory_entries=1)
    for entry in (entries[0], *entries):
        log.append(entry)
    back = drained(log)[1:]
    assert back == entries
    assert [type(entry) for entry in back] == [type(entry) for entry in entries]
    assert str(back[0].volume) == "1E+3"


def test_the_disk_has_a_bound_too(new_spilling):
    log = new_spilling(disk_bytes=2_000)
    (kline,) = klines_of("1")
    with pytest.raises(LogFull, match=r"spool holds 0 MB .* see why persistence") as full:
        deque(map(log.append, repeat(kline, 100)))
    assert "\n" not in str(full.value)
    held = log.depth
    assert 2_000 - 500 < log.spilled_bytes <= 2_000
    log.release(2)
    log.read(2, 2)
    assert log.append(kline) == held + 1
    assert drained(log) == [kline] * (held - 1)


def test_the_journal_keeps_some_of_the_disk_for_itself(new_spilling, monkeypatch):
    log = new_spilling(reserve_bytes=50_000_000)
    free = 50_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    klines = filled(log, "1", "2", "3", "4")
    free -= 1
    with pytest.raises(LogFull, match="only 49 MB are free"):
        log.append(klines[0])
    assert log.depth == 4
    free += 1
    assert log.append(klines[0]) == 5


def test_a_disk_that_takes_nothing_costs_nothing_that_was_accepted(new_spilling, monkeypatch):
    monkeypatch.setattr(spool, "CHUNK", 300)
    log = new_spilling(memory_entries=50)
    klines = filled(log, *range(1, 61))
    write, refused = os.write, []

    def full_disk(file, data):
        refused.append(len(data))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full_disk)
    late = deque(klines_of(*range(1, 200)))
    while late and len(refused) < 3:
        before, tries = log.depth, len(refused)
        with suppress(LogFull):
            log.append(late[0])
        assert log.depth == before + (len(refused) == tries)
        if log.depth > before:
            klines.append(late.popleft())
    assert len(late) > 100
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:7]))
    klines += filled_with(log, late)
    assert drained(log) == klines


def test_a_disk_that_takes_nothing_is_told_of_in_one_line(new_spilling, monkeypatch):
    monkeypatch.setattr(spool, "CHUNK", 1)
    log = new_spilling()
    filled(log, "1", "2", "3")

    def full_disk(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full_disk)
    with pytest.raises(LogFull, match="No space left on device; make room on that disk") as full:
        log.append(a_kline())
    assert "\n" not in str(full.value)


@pytest.mark.parametrize("harm", ["cut", "flipped", "longer", "gone"])
def test_a_damaged_file_is_named_and_nothing_is_left_out_in_silence(new_spilling, tmp_path, harm):
    log = new_spilling()
    klines = filled(log, *range(1, 8))
    path = tmp_path / "spool" / "00000001.spool"
    whole = path.read_bytes()
    digit = whole.index(b"close\xa1") + 6
    match harm:
        case "cut":
            path.write_bytes(whole[:-1])
        case "flipped":
            path.write_bytes(whole[:digit] + bytes([whole[digit] ^ 1]) + whole[digit + 1 :])
        case "longer":
            path.write_bytes(whole + whole)
        case "gone":
            path.unlink()
    log.release(2)
    for _ in range(2):
        with pytest.raises(LogDamaged, match=r"00000001\.spool"):
            log.read(2, 10)
    assert log.depth == 5
    path.write_bytes(whole)
    assert drained(log) == klines[2:]


def test_the_files_of_a_killed_process_are_removed_and_no_others(new_spilling, tmp_path):
    killed = new_spilling()
    filled(killed, *range(1, 12))
    (tmp_path / "spool" / "notes.txt").write_text("mine")
    assert files(tmp_path)
    log = new_spilling()
    assert files(tmp_path), "nothing is touched before the directory is claimed"
    log.remove_leftovers()
    assert [path.name for path in (tmp_path / "spool").iterdir()] == ["notes.txt"]
    assert drained(log) == []
    klines = filled(log, *range(1, 12))
    assert drained(log) == klines


def test_a_log_that_never_spilled_leaves_no_trace(new_spilling, tmp_path):
    log = new_spilling()
    log.remove_leftovers()
    filled(log, "1", "2")
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_closing_deletes_what_is_on_disk(new_spilling, tmp_path):
    log = new_spilling()
    filled(log, *range(1, 12))
    log.close()
    assert files(tmp_path) == []
    assert log.spilled_bytes == 0


def test_only_the_owner_may_read_what_is_on_disk(new_spilling, tmp_path):
    filled(new_spilling(), *range(1, 8))
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("spool/*")} == {0o600}


@settings(max_examples=200, deadline=None)
@given(
    memory=st.integers(1, 5),
    acts=st.lists(st.tuples(st.sampled_from(["append", "read", "release"]), st.integers(0, 12)), max_size=80),
)
def test_a_log_on_disk_is_a_log(memory, acts):
    """Against a list that holds everything: whatever is read is what was written there, and one can always go on."""
    with tempfile.TemporaryDirectory() as path:
        log, model, released, seen = LocalLog(Path(path), memory_entries=memory), [], 0, 0
        for act, number in acts:
            if act == "append":
                for _ in range(number):
                    model.append(a_kline(len(model) + 1))
                    assert log.append(model[-1]) == len(model)
            elif act == "read":
                after = max(released, seen - number) if number % 2 else released
                upto, entries = log.read(after, number)
                assert upto == after + len(entries)
                assert len(entries) <= min(number, memory)
                assert list(entries) == model[after:upto]
                if after == released and number and len(model) > released:
                    assert entries
                seen = max(seen, upto)
            else:
                released = min(seen, released + number)
                log.release(released)
            assert (log.released, log.depth) == (released, len(model) - released)
        assert drained(log) == model[released:]
        assert list(Path(path).iterdir()) == []
