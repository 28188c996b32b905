"""FeedActor: every kline once and in order, whatever its stream leaves out.

Its threads are run by hand: `bench.fetch()` runs the newest question to REST; `bench.ring(ms)` moves the clock and
hands over what timers rang.
"""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.actors import addresses
from bot.actors.cells import Cell, FeedMemory
from bot.actors.feed import LOOKS, FeedActor, FeedSettings
from bot.actors.limits import BackfillGate
from bot.domain.kline import is_newer
from bot.messages import Backfilled, CatchUp, Kline, Notice, StreamDown, StreamUp, Subscribe, Suspect
from bot.ports import ExchangeUnavailable
from bot.supervision.testing import ManualClock, RecordingContext
from tests.support.builders import MINUTE_MS, NOON, a_kline, klines_of

FEED, TRADER, STREAM = addresses.feed("BTCUSDT"), addresses.trader("BTCUSDT"), addresses.stream(0)
UP = StreamUp("stream/0", 1, ("BTCUSDT",), NOON)
DOWN = StreamDown("stream/0", 1, ("BTCUSDT",), "cut", NOON)


class Bench:
    """A feed at noon of which nothing is due yet, unless the test moves the clock."""

    def __init__(self, *, stored=None, has_stream=True, has_history=True, **settings):
        self.clock = ManualClock(NOON)
        self.machine_behind_ms = 0
        self.history = []
        self.asked_from = []
        self.error = None
        self.cell = Cell(FeedMemory())
        self.stored = stored
        self.has_stream, self.has_history = has_stream, has_history
        self.settings = FeedSettings("BTCUSDT", "1m", **settings)
        self.gate = BackfillGate()
        self.epoch = 0
        self.restart()

    def restart(self):
        """The next incarnation."""
        if self.epoch:
            self.context.end_epoch()
        self.epoch += 1
        self.context = RecordingContext(FEED, self.clock, self.epoch)
        self.actor = FeedActor(
            self.context,
            self.settings,
            self.cell,
            STREAM if self.has_stream else None,
            self if self.has_history else None,
            self.gate,
            lambda: self.stored,
            lambda: self.clock.now_ms() + self.machine_behind_ms,
        )
        self.actor.started()

    def closed_klines(self, symbol, interval, start_time):
        self.asked_from.append(start_time)
        if self.error:
            raise ExchangeUnavailable(self.error)
        return [k for k in self.history if k.open_time >= start_time]

    def take(self, *messages):
        for message in messages:
            self.actor.handle(message)

    @property
    def questions(self):
        return len(self.context.threads)

    def fetch(self, thread=None, deliver=True):
        """Let REST answer the newest question, and the feed have the answer."""
        (thread or self.context.threads[-1][1])()
        answers = self.context.sent_to(FEED)
        self.context.sent = [(a, m) for a, m in self.context.sent if a != FEED]
        if deliver:
            self.take(*answers)
        return answers

    def ring(self, ms):
        self.clock.advance(ms)
        due, self.context.due = self.context.due, []
        self.take(*due)

    def passed(self):
        got = [m for m in self.context.sent_to(TRADER) if isinstance(m, Kline)]
        self.context.sent = [(a, m) for a, m in self.context.sent if not (a == TRADER and isinstance(m, Kline))]
        return got

    def told(self, to, kind):
        return [m for m in self.context.sent_to(to) if isinstance(m, kind)]

    @property
    def waits(self):
        return [ms for ms, message in self.context.armed if isinstance(message, CatchUp)]


def opened(minute, second, close="100"):
    start = NOON + minute * MINUTE_MS
    return a_kline(close, open_time=start, is_closed=False, event_time=start + second * 1000)


# Klines as they come


def test_klines_go_to_the_trader_in_order():
    bench = Bench()
    klines = klines_of("1", "2", "3")
    bench.take(UP, *klines)
    assert bench.passed() == klines
    assert (bench.cell.value.last, bench.cell.value.passed, bench.cell.value.connected) == (klines[-1], 3, True)
    assert bench.questions == 0, "nothing is missing, so nothing is asked for"


def test_what_is_not_the_feeds_own_or_not_newer_is_dropped_and_counted():
    bench = Bench()
    first, last = klines_of("1", "2")
    other = a_kline("5", symbol="ETHUSDT", open_time=NOON + 9 * MINUTE_MS)
    hourly = a_kline("5", interval="1h", open_time=NOON + 9 * MINUTE_MS)
    bench.take(first, other, hourly, last, last, first, opened(1, 3))
    assert bench.passed() == [first, last]
    assert (bench.cell.value.passed, bench.cell.value.dropped) == (2, 5)
    assert bench.questions == 0


def test_injected_klines_need_neither_stream_nor_history():
    bench = Bench(has_stream=False, has_history=False)
    klines = [a_kline("1", open_time=NOON + minute * MINUTE_MS) for minute in (0, 1, 5)]
    bench.take(*klines)
    assert bench.passed() == klines
    assert (bench.context.threads, bench.context.armed) == ([], [])


def test_an_injected_kline_that_nobody_takes_is_a_failure():
    bench = Bench(has_stream=False, has_history=False)
    bench.context.refusing.add(TRADER)
    with pytest.raises(RuntimeError, match="trader has no room"):
        bench.take(a_kline())


# What is missing


def test_the_last_stored_kline_says_what_is_missing_when_the_stream_is_up():
    a, b, c, d = klines_of("1", "2", "3", "4")
    bench = Bench(stored=a)
    bench.history = [a, b, c]
    bench.clock.advance(3 * MINUTE_MS)
    bench.take(UP)
    bench.fetch()
    bench.take(d)
    assert bench.asked_from == [a.open_time + 1]
    assert bench.passed() == [b, c, d]


def test_a_stream_that_comes_back_within_the_candle_needs_no_question():
    bench = Bench()
    bench.take(UP, opened(0, 2))
    bench.clock.advance(50_000)
    bench.take(DOWN, UP, opened(0, 52))
    assert bench.questions == 0
    assert len(bench.passed()) == 2


def test_of_an_open_last_kline_the_closed_one_is_fetched_too():
    bench = Bench(stored=opened(0, 5))
    closed = a_kline("7")
    bench.history = [closed]
    bench.clock.advance(MINUTE_MS)
    bench.take(UP)
    bench.fetch()
    assert bench.asked_from == [NOON]
    assert bench.passed() == [closed]


@pytest.mark.parametrize("before", [[], [opened(1, 2), opened(1, 58)]], ids=["whole", "last update"])
def test_a_closed_kline_that_the_stream_left_out_is_fetched_before_the_next_one(before):
    a, b, c = klines_of("1", "2", "3")
    bench = Bench()
    bench.history = [a, b]
    bench.take(UP, a, *before, opened(2, 2), c)
    assert bench.passed() == [a, *before], "held until what went missing has come"
    bench.fetch()
    assert bench.passed() == [b, opened(2, 2), c]
    assert (bench.questions, bench.cell.value.dropped) == (1, 0)


def test_live_klines_wait_behind_the_missed_ones_each_once():
    a, b, c, d = klines_of("1", "2", "3", "4")
    bench = Bench(stored=a)
    bench.take(UP, c, d)
    assert bench.passed() == []
    bench.history = [b, c]
    bench.fetch()
    assert bench.passed() == [b, c, d]
    assert bench.cell.value.dropped == 1


def test_without_a_history_a_gap_is_not_waited_for():
    a, _, c = klines_of("1", "2", "3")
    bench = Bench(stored=a, has_history=False)
    bench.take(UP, c)
    assert bench.passed() == [c]


def test_a_gap_that_the_exchange_has_too_is_asked_about_a_few_times_and_believed():
    klines = [a_kline("1", open_time=NOON + minute * MINUTE_MS) for minute in (0, 5, 6, 900, 901)]
    bench = Bench()
    bench.take(UP, *klines)
    for _ in range(LOOKS):
        bench.fetch()
        assert bench.passed() in ([klines[0]], [])
        bench.ring(1_000)
    bench.fetch()
    assert bench.passed() == klines[1:3], "and then the next gap"
    for _ in range(LOOKS):
        bench.fetch()
        bench.ring(1_000)
    bench.fetch()
    assert bench.passed() == klines[3:]
    assert bench.questions == 2 * (LOOKS + 1)


def test_a_history_with_a_hole_in_it_is_asked_again_before_the_hole_is_believed():
    a, b, c, d, e = klines_of("1", "2", "3", "4", "5")
    bench = Bench()
    bench.take(UP, a, e)
    bench.history = [b, d]
    bench.fetch()
    assert bench.passed() == [a, b]
    bench.history = [c, d]
    bench.ring(1_000)
    bench.fetch()
    assert bench.passed() == [c, d, e]
    assert bench.told(addresses.MONITOR, Notice) == []


def test_a_hole_that_stays_is_believed_and_said():
    a, b, _, d, e = klines_of("1", "2", "3", "4", "5")
    bench = Bench()
    bench.history = [b, d]
    bench.take(UP, a, e)
    for _ in range(LOOKS):
        bench.fetch()
        bench.ring(1_000)
    bench.fetch()
    assert bench.passed() == [a, b, d, e]
    (notice,) = bench.told(addresses.MONITOR, Notice)
    assert notice.text == f"the exchange has no kline of BTCUSDT just before that of {d.open_time}"


def test_a_kline_behind_a_gap_of_the_exchanges_own_that_finds_no_room_comes_later():
    a, b, c = (a_kline("1", open_time=NOON + minute * MINUTE_MS) for minute in (0, 5, 6))
    bench = Bench()
    bench.take(UP, a, b)
    for _ in range(LOOKS):
        bench.fetch()
        bench.ring(1_000)
    bench.context.refusing.add(TRADER)
    bench.fetch()
    bench.context.refusing.clear()
    bench.take(c)
    bench.history = [b]
    bench.ring(1_000)
    assert bench.questions == LOOKS + 2, "one at a time"
    bench.fetch()
    assert bench.passed() == [a, b, c]


def test_a_history_that_is_a_moment_behind_the_stream_is_waited_for():
    a, b, c = klines_of("1", "2", "3")
    bench = Bench()
    bench.take(UP, a, c)
    bench.fetch()
    assert bench.passed() == [a]
    bench.history = [b]
    bench.ring(1_000)
    bench.fetch()
    assert bench.passed() == [b, c]


def test_missed_klines_that_cannot_be_fetched_are_asked_for_again_ever_less_often():
    a, b, c = klines_of("1", "2", "3")
    bench = Bench(max_backoff_ms=1_000)
    bench.error = "503"
    bench.take(UP, a, c)
    for _ in range(4):
        bench.fetch()
        bench.ring(1_000)
    assert bench.waits == [250, 500, 1_000, 1_000]
    assert "503" in bench.told(addresses.MONITOR, Notice)[0].text
    bench.error, bench.history = None, [b]
    bench.fetch()
    assert bench.passed() == [a, b, c]
    bench.error = "503"
    bench.take(a_kline("6", open_time=NOON + 5 * MINUTE_MS))
    bench.fetch()
    assert bench.waits[-1] == 250, "once all was well the wait begins anew"


def test_a_storm_of_failures_is_few_lines():
    a, _, c = klines_of("1", "2", "3")
    bench = Bench(max_backoff_ms=10)
    bench.error = "503"
    bench.take(UP, a, c)
    for _ in range(50):
        bench.fetch()
        bench.ring(10)
    assert 1 <= len(bench.told(addresses.MONITOR, Notice)) <= 3


def test_holding_has_a_bound_and_what_it_drops_is_fetched():
    a, *live = klines_of(*"1234567")
    bench = Bench(stored=a, held_bound=3)
    bench.take(UP, *live[1:])
    assert bench.passed() == []
    bench.history = [a, *live[:3]]
    bench.fetch()
    assert bench.passed() == live[:3]
    bench.history = [a, *live]
    bench.fetch()
    assert bench.passed() == live[3:]


# What is due


def test_a_closed_kline_that_does_not_come_is_asked_for_after_a_grace():
    a, b = klines_of("1", "2")
    bench = Bench(grace_ms=10_000)
    bench.take(UP, a)
    bench.history = [a, b]
    for _ in range(2 * 60 + 9):
        bench.ring(1_000)
    assert bench.questions == 0
    bench.ring(1_000)
    bench.fetch()
    assert bench.passed() == [a, b]
    assert bench.told(STREAM, Suspect) == [Suspect("BTCUSDT")], "it had trades, and the stream said nothing"


@pytest.mark.parametrize("quiet", ["no trades", "no stream", "last update only"])
def test_the_stream_is_told_nothing_where_rest_proves_nothing(quiet):
    a, b = klines_of("1", "2")
    bench = Bench()
    bench.take(UP, a)
    if quiet == "no trades":
        b = a_kline("1", open_time=b.open_time, volume=a.volume * 0, quote_volume=a.volume * 0)
    elif quiet == "no stream":
        bench.take(DOWN)
    else:
        bench.take(opened(1, 58))
    bench.history = [a, b]
    bench.ring(131_000)
    bench.fetch()
    assert bench.passed()[-1] == b
    assert bench.told(STREAM, Suspect) == []


def test_what_is_due_and_not_to_be_had_is_asked_for_ever_less_often():
    bench = Bench(grace_ms=10_000)
    bench.take(UP, a_kline())
    asked = []
    for second in range(3_000):
        before = bench.questions
        bench.ring(1_000)
        if bench.questions > before:
            asked.append(second)
            bench.fetch()
    waits = [b - a for a, b in itertools.pairwise(asked)]
    assert waits[:6] == [10, 20, 40, 80, 160, 300]
    assert set(waits[5:]) == {300}


# No room


def test_where_the_trader_has_no_room_closed_klines_are_fetched_later():
    a, b, c, d, e = klines_of("1", "2", "3", "4", "5")
    bench = Bench()
    bench.take(UP, a)
    bench.context.refusing.add(TRADER)
    bench.take(b, c)
    bench.context.refusing.clear()
    bench.take(d)
    assert bench.passed() == [a], "b is missing: nothing behind it may pass before it"
    assert bench.cell.value.refused == 1
    bench.history = [a, b, c, d]
    bench.ring(250)
    bench.fetch()
    bench.take(e)
    assert bench.passed() == [b, c, d, e]


def test_an_update_that_the_trader_had_no_room_for_is_not_waited_for():
    bench = Bench()
    bench.take(UP, opened(0, 2))
    bench.context.refusing.add(TRADER)
    bench.take(opened(0, 4))
    bench.context.refusing.clear()
    bench.take(opened(0, 6))
    assert bench.passed() == [opened(0, 2), opened(0, 6)]
    assert (bench.questions, bench.cell.value.refused) == (0, 1)


def test_a_trader_without_room_is_tried_ever_less_often_and_by_one_question_at_a_time():
    bench = Bench(max_backoff_ms=1_000)
    a, *live = klines_of(*"123456789")
    bench.take(UP, a)
    bench.context.refusing.add(TRADER)
    bench.history = live
    for kline in live:
        bench.take(kline)
        before = bench.questions
        bench.ring(1_000)
        if bench.questions > before:
            bench.fetch()
    assert bench.questions <= len(live)
    assert bench.waits[:4] == [250, 500, 1_000, 1_000]
    bench.context.refusing.clear()
    bench.ring(1_000)
    bench.fetch()
    assert bench.passed() == [a, *live]


def test_no_room_while_missed_klines_are_passed_on_fetches_the_rest_again():
    a, b, c, d = klines_of("1", "2", "3", "4")
    bench = Bench(stored=a)
    bench.history = [b, c]
    bench.take(UP, d)
    tell = bench.context.tell
    bench.context.tell = lambda to, m: False if (to, m) == (TRADER, c) else tell(to, m)
    bench.fetch()
    bench.context.tell = tell
    assert bench.passed() == [b]
    bench.history = [b, c, d]
    bench.ring(250)
    bench.fetch()
    assert bench.passed() == [c, d]


def test_the_first_kline_of_all_without_room_is_left_out():
    a, b = klines_of("1", "2")
    bench = Bench()
    bench.context.refusing.add(TRADER)
    bench.take(UP, a)
    bench.context.refusing.clear()
    bench.take(b)
    assert bench.passed() == [b]


# Incarnations


def test_a_new_incarnation_asks_its_stream_how_it_is():
    bench = Bench()
    assert bench.told(STREAM, Subscribe) == [Subscribe("BTCUSDT")]
    bench.take(UP)
    bench.restart()
    assert not bench.cell.value.connected
    assert bench.told(STREAM, Subscribe) == [Subscribe("BTCUSDT")]


def test_what_an_incarnation_held_is_fetched_by_the_next_one():
    a, b, c, d = klines_of("1", "2", "3", "4")
    bench = Bench(stored=a)
    bench.take(UP, c)
    bench.restart()
    bench.take(d)
    assert bench.passed() == [], "b and c are missing before d"
    bench.history = [a, b, c, d]
    bench.fetch()
    assert bench.passed() == [b, c, d]


def test_the_answer_to_an_incarnation_that_is_gone_changes_nothing():
    a, b, c, d = klines_of("1", "2", "3", "4")
    bench = Bench(stored=a)
    bench.take(UP, d)
    bench.restart()
    bench.take(d, Backfilled("BTCUSDT", 1, (b,)))
    assert bench.passed() == []
    bench.history = [b, c]
    bench.fetch()
    assert bench.passed() == [b, c, d]


def test_a_question_whose_incarnation_is_gone_is_not_asked():
    bench = Bench(stored=a_kline())
    bench.clock.advance(10 * MINUTE_MS)
    bench.take(UP)
    bench.context.end_epoch()
    bench.context.threads[-1][1]()
    assert (bench.asked_from, bench.context.refused) == ([], 0)


def test_a_machine_whose_clock_is_wrong_by_days_believes_what_the_exchange_sends():
    bench = Bench()
    bench.machine_behind_ms = 3 * 86_400_000
    kline = a_kline("1", open_time=NOON + bench.machine_behind_ms)
    bench.take(UP, kline)
    assert bench.passed() == [kline]


def test_one_from_the_near_future_that_mutes_the_true_ones_is_said():
    now, later, true = (a_kline("1", open_time=NOON + minute * MINUTE_MS) for minute in (0, 60, 1))
    bench = Bench()
    bench.take(UP, now, later)
    for _ in range(LOOKS + 1):
        bench.fetch()
        bench.ring(1_000)
    before = len(bench.told(addresses.MONITOR, Notice))
    bench.take(true)
    *_, notice = bench.told(addresses.MONITOR, Notice)[before:]
    assert notice.text.endswith("in the future: klines of BTCUSDT are dropped until then")


def test_a_stream_that_goes_down_is_seen():
    bench = Bench()
    bench.take(UP, DOWN)
    assert not bench.cell.value.connected


# What cannot be true


def test_a_kline_from_the_far_future_is_not_believed_and_mutes_nothing():
    bench = Bench()
    first, second = klines_of("100", "101")
    future = a_kline("1", open_time=NOON + 600_000 * MINUTE_MS, is_closed=False)
    odd = a_kline("1", open_time=NOON + MINUTE_MS, is_closed=False, event_time=NOON + 90 * MINUTE_MS)
    bench.take(UP, first, future, odd, second)
    assert bench.passed() == [first, second]
    assert (bench.cell.value.dropped, bench.questions) == (2, 0)
    assert [m.level for m in bench.told(addresses.MONITOR, Notice)] == ["warning", "warning"]


# All of it at random


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_whatever_happens_each_closed_kline_comes_once_and_in_order(data):
    """Frames lost, repeated, late; no room; REST away or behind; crashes: every candle is passed on once."""
    minutes = 8
    frames = [
        frame
        for minute in range(minutes)
        for frame in (opened(minute, 2), opened(minute, 30), a_kline("1", open_time=NOON + minute * MINUTE_MS))
    ]
    bench, got = Bench(), []
    draw = data.draw
    bench.take(UP, frames[0])

    def answer(is_behind=False):
        bench.history = [k for k in frames if k.is_closed and k.close_time < bench.clock.now_ms() - 30_000 * is_behind]
        if bench.questions and draw(st.booleans()):
            bench.error = "503" if draw(st.integers(0, 3)) == 0 else None
            _, target = bench.context.threads.pop()
            bench.fetch(target)

    for frame in frames[1:]:
        bench.clock.advance(max(0, (frame.event_time or 0) + 1 - bench.clock.now_ms()))
        bench.context.refusing = {TRADER} if draw(st.integers(0, 5)) == 0 else set()
        fate = draw(st.sampled_from(["comes", "comes", "comes", "lost", "twice", "late", "restart", "cut"]))
        if fate in ("comes", "twice", "late"):
            bench.take(*[frame] * (2 if fate == "twice" else 1), *([frames[0]] if fate == "late" else []))
        elif fate == "restart":
            got += bench.passed()
            bench.restart()
        elif fate == "cut":
            bench.take(DOWN, UP)
        answer(draw(st.booleans()))
        bench.ring(draw(st.sampled_from([0, 0, 500])))
        got += bench.passed()
    bench.context.refusing, bench.error = set(), None
    for _ in range(60):
        bench.clock.advance(1_000)
        due, bench.context.due = bench.context.due, []
        bench.take(*due)
        bench.history = [k for k in frames if k.is_closed]
        while bench.context.threads:
            bench.fetch(bench.context.threads.pop()[1])
        got += bench.passed()
    closed = [kline for kline in got if kline.is_closed]
    assert closed == [frame for frame in frames if frame.is_closed]
    assert all(is_newer(later, earlier) for earlier, later in itertools.pairwise(got))
