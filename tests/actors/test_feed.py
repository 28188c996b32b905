"""FeedActor: every kline once and in order, whatever the connections do.

Its threads are run by hand: `bench.read()` runs the newest reader until its connection has nothing more, which leaves
its messages in the mailbox; `bench.deliver()` hands them over, the control lane first, as the mailbox does.
"""

from collections import deque

import pytest

from bot.actors import addresses
from bot.actors.cells import Cell, FeedMemory
from bot.actors.feed import FeedActor, FeedSettings
from bot.actors.supervisor import LANES
from bot.messages import Backfilled, Kline, Notice, StreamDown, StreamUp
from bot.ports import ExchangeUnavailable, StreamClosed
from bot.supervision import Lane
from bot.supervision.testing import ManualClock, RecordingContext
from tests.support.builders import MINUTE_MS, NOON, a_kline, klines_of

FEED, TRADER = addresses.feed("BTCUSDT"), addresses.trader("BTCUSDT")


class Pause(Exception):
    """The reader waits for a frame here; the test goes on."""


class FakeConnection:
    """Gives what it was filled with; then the reader is left waiting, unless `ends` says how the stream ended."""

    def __init__(self, *klines, ends=None):
        self.frames = deque(klines)
        self.ends = ends
        self.closings = 0

    def receive(self):
        if self.closings:
            raise StreamClosed("closed by us")
        if self.frames:
            return self.frames.popleft()
        if self.ends is None:
            raise Pause
        raise StreamClosed(self.ends)

    def close(self):
        self.closings += 1


class FakeMarket:
    def __init__(self):
        self.connections = deque()
        self.history = []
        self.asked_from = []
        self.error = None

    def connect(self, symbol, interval):
        connection = self.connections.popleft()
        if isinstance(connection, Exception):
            raise connection
        return connection

    def closed_klines(self, symbol, interval, start_time):
        self.asked_from.append(start_time)
        if self.error:
            raise ExchangeUnavailable(self.error)
        return [k for k in self.history if k.open_time >= start_time]


class Bench:
    def __init__(self, *, stored=None, has_stream=True, has_history=True, **settings):
        self.clock = ManualClock(NOON)
        self.market = FakeMarket()
        self.cell = Cell(FeedMemory())
        self.stored = stored
        self.has_stream, self.has_history = has_stream, has_history
        self.settings = FeedSettings("BTCUSDT", "1m", **settings)
        self.epoch = 0
        self.inbox = []
        self.open = []
        self.restart()

    def restart(self):
        """The next incarnation; what waits in the mailbox is of the name, so it stays."""
        if self.epoch:
            self.collect()
            self.context.end_epoch()
        self.epoch += 1
        self.context = RecordingContext(FEED, self.clock, self.epoch)
        self.ran = 0
        self.actor = FeedActor(
            self.context,
            self.settings,
            self.cell,
            self.market if self.has_stream else None,
            self.market if self.has_history else None,
            lambda: self.stored,
        )
        self.actor.started()

    # Threads

    def threads(self, kind):
        return [(name, target) for name, target in self.context.threads if name.startswith(kind)]

    def read(self, connection=None, thread=None):
        """Run a reader (the newest) over `connection` until it waits or ends."""
        if connection is not None:
            self.market.connections.append(connection)
        _, target = thread or self.threads("reader")[-1]
        try:
            target()
        except Pause:
            # A real reader would stay in `receive`; what it did so far is in the mailbox, its connection is open.
            connection.closings = 0
        return connection

    def refuse(self):
        """The stream cannot be opened."""
        self.market.connections.append(StreamClosed("refused"))
        self.read()
        self.deliver()

    def fetch(self, thread=None):
        _, target = thread or self.threads("history")[-1]
        target()

    def collect(self):
        own = self.context.sent_to(FEED)
        self.context.sent = [(a, m) for a, m in self.context.sent if a != FEED]
        self.inbox += own

    def deliver(self, control_first=True):
        self.collect()
        messages, self.inbox = self.inbox, []
        if control_first:
            messages.sort(key=lambda m: LANES[type(m)] is not Lane.CONTROL)
        for message in messages:
            self.actor.handle(message)
        self.collect()

    def up(self, *klines, ends=None):
        """A connection that opens, with a gap that REST fills at once, and then brings `klines`."""
        connection = self.read(FakeConnection(*klines, ends=ends))
        self.deliver()
        if self.threads("history"):
            self.fetch()
            self.deliver()
        return connection

    def ring(self, ms):
        self.clock.advance(ms)
        due, self.context.due = self.context.due, []
        for message in due:
            self.actor.handle(message)
        return due

    def passed(self, to=TRADER):
        got = [m for m in self.context.sent_to(to) if isinstance(m, Kline)]
        self.context.sent = [(a, m) for a, m in self.context.sent if not (a == to and isinstance(m, Kline))]
        return got

    def told_monitor(self, kind):
        return [m for m in self.context.sent_to(addresses.MONITOR) if isinstance(m, kind)]


def opened(minute, second, close="100"):
    start = NOON + minute * MINUTE_MS
    return a_kline(close, open_time=start, is_closed=False, event_time=start + second * 1000)


# One connection


def test_klines_go_to_the_trader_in_order():
    bench = Bench()
    klines = klines_of("1", "2", "3")
    bench.up(*klines)
    assert bench.passed() == klines
    assert (bench.cell.value.last, bench.cell.value.passed, bench.cell.value.connected) == (klines[-1], 3, True)


def test_what_is_not_the_feeds_own_or_not_newer_is_dropped_and_counted():
    bench = Bench()
    first, last = klines_of("1", "2")
    other = a_kline("5", symbol="ETHUSDT", open_time=NOON + 9 * MINUTE_MS)
    hourly = a_kline("5", interval="1h", open_time=NOON + 9 * MINUTE_MS)
    bench.up(first, other, hourly, last, last, first, opened(1, 3))
    assert bench.passed() == [first, last]
    assert (bench.cell.value.passed, bench.cell.value.dropped) == (2, 5)


def test_injected_klines_need_neither_stream_nor_history():
    bench = Bench(has_stream=False, has_history=False)
    klines = klines_of("1", "2")
    for kline in klines:
        bench.actor.handle(kline)
    assert bench.passed() == klines
    assert bench.context.threads == []


def test_an_injected_kline_that_nobody_takes_is_a_failure():
    bench = Bench(has_stream=False, has_history=False)
    bench.context.refusing.add(TRADER)
    with pytest.raises(RuntimeError, match="trader has no room"):
        bench.actor.handle(a_kline())


# The gap between two connections


def test_the_last_stored_kline_says_where_the_gap_begins():
    a, b, c, d = klines_of("1", "2", "3", "4")
    bench = Bench(stored=a)
    bench.market.history = [a, b, c]
    bench.up(d)
    assert bench.market.asked_from == [a.open_time + 1]
    assert bench.passed() == [b, c, d]


def test_of_an_open_last_kline_the_closed_one_is_fetched_too():
    bench = Bench(stored=opened(0, 5))
    closed = a_kline("7")
    bench.market.history = [closed]
    bench.up()
    assert bench.market.asked_from == [NOON]
    assert bench.passed() == [closed]


def test_live_klines_wait_behind_the_missed_ones_each_once():
    a, b, c, d = klines_of("1", "2", "3", "4")
    bench = Bench(stored=a)
    bench.read(FakeConnection(c, d))
    bench.deliver()
    assert bench.passed() == [], "held until what went missing has come"
    bench.market.history = [b, c]
    bench.fetch()
    bench.deliver()
    assert bench.passed() == [b, c, d]
    assert bench.cell.value.dropped == 1


def test_without_a_history_a_gap_is_not_waited_for():
    a, b = klines_of("1", "2")
    bench = Bench(stored=a, has_history=False)
    bench.up(b)
    assert bench.passed() == [b]


def test_missed_klines_that_cannot_be_fetched_end_the_connection_and_are_asked_for_again():
    a, b, c = klines_of("1", "2", "3")
    bench = Bench(stored=a)
    bench.market.error = "503"
    connection = bench.up(c)
    assert (bench.passed(), connection.closings > 0) == ([], True)
    assert "503" in bench.told_monitor(Notice)[0].text
    bench.market.error, bench.market.history = None, [b, c]
    bench.ring(250)
    bench.up()
    assert bench.passed() == [b, c]


def test_a_connection_that_fell_during_the_fetch_leaves_the_gap_to_the_next_one():
    """StreamDown is of the control lane: it overtakes the klines that its connection had brought."""
    a, b, c, d = klines_of("1", "2", "3", "4")
    bench = Bench()
    bench.up(a, ends="cut")
    assert bench.passed() == [a]
    bench.ring(250)
    bench.read(FakeConnection())
    bench.deliver()
    old_fetch = bench.threads("history")[-1]
    bench.inbox = [StreamDown("BTCUSDT", 2, "cut", NOON), c]
    bench.deliver()
    assert bench.passed() == [], "b is missing before c"
    bench.market.history = [a, b, c]
    bench.fetch(old_fetch)
    bench.deliver()
    assert bench.passed() == [], "klines fetched for a connection that is gone are not its successor's"
    bench.ring(500)
    bench.up(d)
    assert bench.passed() == [b, c, d]


def test_klines_that_a_fallen_connection_left_behind_are_still_taken():
    a, b = klines_of("1", "2")
    bench = Bench()
    bench.read(FakeConnection(a, b, ends="cut"))
    bench.deliver()
    assert bench.passed() == [a, b]
    assert [m.reason for m in bench.told_monitor(StreamDown)] == ["cut"]


def test_holding_has_a_bound():
    a, *live = klines_of(*"123456")
    bench = Bench(stored=a, held_bound=3)
    connection = bench.read(FakeConnection(*live))
    bench.deliver()
    assert connection.closings > 0
    assert "too long" in bench.told_monitor(StreamDown)[0].reason
    bench.market.history = [a, *live]
    bench.ring(250)
    bench.up()
    assert bench.passed() == live


# No room


def test_where_there_is_no_room_the_feed_gives_way_and_fetches_it_later():
    a, b, c, d, e = klines_of("1", "2", "3", "4", "5")
    bench = Bench()
    connection = bench.up(a)
    bench.context.refusing.add(TRADER)
    bench.inbox = [b, c]
    bench.deliver()
    bench.context.refusing.clear()
    bench.inbox = [d]
    bench.deliver()
    assert connection.closings > 0
    assert bench.passed() == [a], "b is missing: nothing behind it may pass before it"
    assert not bench.cell.value.connected
    bench.market.history = [a, b, c, d]
    bench.ring(250)
    bench.up(e)
    assert bench.passed() == [b, c, d, e]


def test_giving_way_twice_opens_one_connection():
    a, b, c = klines_of("1", "2", "3")
    bench = Bench()
    bench.up(a)
    bench.context.refusing.add(TRADER)
    bench.inbox = [b, c]
    bench.deliver()
    for _ in range(5):
        bench.ring(10_000)
    assert len(bench.threads("reader")) == 2


def test_no_room_while_missed_klines_are_passed_on_fetches_the_rest_again():
    a, b, c, d = klines_of("1", "2", "3", "4")
    bench = Bench(stored=a)
    bench.market.history = [b, c]
    bench.read(FakeConnection(d))
    bench.deliver()
    tell = bench.context.tell
    bench.context.tell = lambda to, m: False if (to, m) == (TRADER, c) else tell(to, m)
    bench.fetch()
    bench.deliver()
    bench.context.tell = tell
    assert bench.passed() == [b]
    bench.market.history = [b, c, d]
    bench.ring(250)
    bench.up()
    assert bench.passed() == [c, d]


def test_a_reader_whose_feed_has_no_room_ends_its_connection():
    a, b = klines_of("1", "2")
    bench = Bench()
    tell = bench.context.tell
    bench.context.tell = lambda to, m: False if m is b else tell(to, m)
    connection = bench.read(FakeConnection(a, b))
    bench.deliver()
    assert connection.closings > 0
    assert (bench.passed(), [m.reason for m in bench.told_monitor(StreamDown)]) == ([a], ["no room for more klines"])


# Races of old readers


def test_a_connection_that_opens_after_it_was_given_up_is_closed_and_brings_nothing():
    a, b = klines_of("1", "2")
    bench = Bench()
    bench.refuse()
    bench.ring(250)
    slow = bench.threads("reader")[-1]
    bench.context.refusing.add(TRADER)
    bench.inbox = [a]
    bench.deliver()
    bench.context.refusing.clear()
    bench.ring(500)
    late = bench.read(FakeConnection(b), thread=slow)
    assert late.closings > 0
    assert bench.inbox == []
    bench.deliver()
    assert bench.passed() == []
    assert not bench.told_monitor(StreamUp)
    current = bench.up(b)
    assert bench.passed() == [b]
    assert current.closings == 0


def test_a_late_reader_does_not_take_the_place_of_the_current_connection():
    """The current connection must be the one that is closed at the end, not one that opened late."""
    bench = Bench()
    slow = bench.threads("reader")[-1]
    bench.actor._give_way("a test")
    bench.ring(250)
    current = bench.up()
    bench.read(FakeConnection(), thread=slow)
    bench.actor.stopped()
    assert current.closings == 1


@pytest.mark.parametrize("ends", ["stop", "crash"])
def test_the_end_of_the_actor_closes_its_connection(ends):
    bench = Bench()
    connection = bench.up()
    bench.actor.stopped() if ends == "stop" else bench.context.end_epoch()
    assert connection.closings == 1


def test_a_connection_that_opens_after_the_epoch_is_closed():
    bench = Bench()
    bench.context.end_epoch()
    connection = bench.read(FakeConnection(a_kline()))
    assert connection.closings > 0
    assert bench.context.sent_to(FEED) == []


def test_messages_of_old_connections_change_nothing():
    a, b = klines_of("1", "2")
    bench = Bench()
    bench.up(a, ends="cut")
    bench.ring(250)
    bench.up()
    bench.inbox = [
        StreamUp("BTCUSDT", 1, NOON),
        StreamDown("BTCUSDT", 1, "old", NOON),
        Backfilled("BTCUSDT", 1, (b,)),
    ]
    before = len(bench.told_monitor(StreamDown))
    bench.deliver()
    assert bench.cell.value.connected
    assert (bench.passed(), len(bench.told_monitor(StreamDown))) == ([a], before)


def test_a_new_incarnation_does_not_take_the_old_ones_words_for_its_own():
    bench = Bench()
    bench.up()
    left = StreamDown("BTCUSDT", bench.cell.value.connections, "of the last incarnation", NOON)
    bench.restart()
    bench.read(FakeConnection())
    bench.inbox.insert(0, left)
    bench.deliver()
    assert bench.cell.value.connected
    for _ in range(5):
        bench.ring(1_000)
    assert len(bench.threads("reader")) == 1, "nothing is wrong with this incarnation's connection"


def test_a_new_incarnation_takes_what_waits_and_fetches_what_the_crash_lost():
    a, b, c, d, e = klines_of("1", "2", "3", "4", "5")
    bench = Bench()
    bench.up(a)
    bench.inbox = [b]
    bench.restart()
    bench.deliver()
    bench.market.history = [a, b, c, d]
    bench.up(e)
    got = bench.passed()
    assert got == [b, c, d, e]


def test_what_an_incarnation_held_is_fetched_by_the_next_one():
    a, b, c, d = klines_of("1", "2", "3", "4")
    bench = Bench(stored=a)
    bench.read(FakeConnection(c))
    bench.deliver()
    bench.inbox = [d]
    bench.restart()
    bench.deliver()
    assert bench.passed() == [], "b and c are missing before d"
    bench.market.history = [a, b, c, d]
    bench.up()
    assert bench.passed() == [b, c, d]


# Silence and back-off


def test_silence_ends_a_connection():
    bench = Bench(silence_ms=5_000)
    connection = bench.up(a_kline())
    for _ in range(5):
        bench.ring(1_000)
    assert connection.closings == 0
    bench.ring(1_000)
    assert connection.closings > 0
    assert bench.told_monitor(StreamDown)[0].reason == "no kline for 6 s"
    assert len(bench.threads("reader")) == 1
    bench.ring(1_000)
    assert len(bench.threads("reader")) == 2


def test_a_connection_that_took_long_to_open_is_not_silent():
    bench = Bench(silence_ms=5_000)
    for _ in range(8):
        bench.ring(1_000)
    connection = bench.up()
    bench.ring(1_000)
    assert connection.closings == 0


def test_the_wait_grows_to_its_bound_and_begins_anew_after_a_kline():
    bench = Bench(max_backoff_ms=1_000)

    def wait():
        return [ms for ms, message in bench.context.armed if type(message).__name__ == "Connect"][-1]

    waits = []
    for _ in range(4):
        bench.refuse()
        waits.append(wait())
        bench.ring(1_000)
    assert waits == [250, 500, 1_000, 1_000]
    bench.up(a_kline())
    bench.inbox = [StreamDown("BTCUSDT", bench.cell.value.connections, "cut", NOON)]
    bench.deliver()
    assert wait() == 250


def test_a_connection_that_only_opens_does_not_shorten_the_wait():
    bench = Bench()
    for _ in range(3):
        bench.up(ends="cut at once")
        bench.ring(10_000)
    assert [ms for ms, m in bench.context.armed if type(m).__name__ == "Connect"] == [250, 500, 1_000]


# What cannot be true


def test_a_kline_from_the_far_future_is_not_believed_and_mutes_nothing():
    bench = Bench()
    first, second = klines_of("100", "101")
    future = a_kline("1", open_time=NOON + 600_000 * MINUTE_MS, is_closed=False)
    odd = a_kline("1", open_time=NOON + MINUTE_MS, is_closed=False, event_time=NOON + 90 * MINUTE_MS)
    bench.up(first, future, odd, second)
    assert bench.passed() == [first, second]
    assert bench.cell.value.dropped == 2
    assert [m.level for m in bench.told_monitor(Notice)] == ["warning", "warning"]


def test_history_served_ahead_of_time_is_believed_with_its_gaps():
    bench = Bench()
    klines = [a_kline("1", open_time=NOON + minute * MINUTE_MS) for minute in (0, 1_000, 2_000, 2_350, 3_700)]
    bench.up(*klines)
    assert bench.passed() == klines
