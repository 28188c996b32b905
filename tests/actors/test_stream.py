"""StreamActor: one connection for some symbols, whatever becomes of it.

Its readers are run by hand: `bench.read(connection)` runs the newest one until its connection has nothing more, which
leaves it waiting; `bench.more(connection, ...)` lets it read on. `bench.ring(ms)` moves the clock and hands over what
timers rang.
"""

from collections import deque

import pytest

from bot.actors import addresses
from bot.actors.cells import Cell, StreamMemory
from bot.actors.limits import ATTEMPTS, WINDOW_MS, BackfillGate, ConnectionBudget
from bot.actors.order_meter import OrderMeter
from bot.actors.stream import STREAMS_A_CONNECTION, StreamActor, StreamSettings, shards
from bot.messages import (
    Connect,
    ConnectionEnded,
    ConnectionEnding,
    ConnectionOpened,
    Kline,
    Notice,
    StreamDown,
    StreamUp,
    Subscribe,
    Suspect,
)
from bot.ports import ShutdownAnnounced, StreamClosed
from bot.supervision.testing import ManualClock, RecordingContext
from tests.support.builders import NOON, a_kline, an_intent, klines_of

STREAM = addresses.stream(0)
SYMBOLS = ("BTCUSDT", "ETHUSDT")
BTC, ETH = map(addresses.feed, SYMBOLS)


class Pause(Exception):
    """The reader waits for a frame here; the test goes on."""


class FakeConnection:
    """Gives what it was filled with, raising exceptions; then the reader waits, unless `ends` says how it ended."""

    def __init__(self, *frames, ends=None):
        self.frames = deque(frames)
        self.ends = ends
        self.closings = 0
        self.received_ns = 0

    def receive(self):
        if self.closings:
            raise StreamClosed("closed by us")
        if self.frames:
            frame = self.frames.popleft()
            if isinstance(frame, Exception):
                raise frame
            return frame
        if self.ends is None:
            raise Pause
        raise StreamClosed(self.ends)

    def close(self):
        self.closings += 1


class Bound:
    """Randomness that always takes the most."""

    def randrange(self, stop):
        return stop - 1


class Bench:
    def __init__(self, symbols=SYMBOLS, budget=None, **settings):
        self.clock = ManualClock(NOON)
        self.connections = deque()
        self.asked = []
        self.cell = Cell(StreamMemory())
        self.settings = StreamSettings(0, symbols, "1m", **{"life_ms": 86_400_000, **settings})
        self.budget = budget or ConnectionBudget(self.clock)
        self.meters = {symbol: OrderMeter(lambda: 5_000_000) for symbol in symbols}
        self.epoch = 0
        self.restart()

    def restart(self):
        if self.epoch:
            self.context.end_epoch()
        self.epoch += 1
        self.context = RecordingContext(STREAM, self.clock, self.epoch)
        self.actor = StreamActor(self.context, self.settings, self.cell, self, self.budget, Bound(), self.meters)
        self.actor.started()

    def connect(self, symbols, interval):
        self.asked.append((symbols, interval))
        connection = self.connections.popleft()
        if isinstance(connection, Exception):
            raise connection
        return connection

    @property
    def readers(self):
        return len(self.context.threads)

    def read(self, connection, thread=None):
        """Let a reader (the newest) connect, and read until it waits or ends."""
        self.connections.append(connection)
        _, target = thread or self.context.threads[-1]
        closings = getattr(connection, "closings", 0)
        try:
            target()
        except Pause:
            connection.closings = closings  # a real reader would stay in `receive`
        self.deliver()
        return connection

    def more(self, connection, *frames, ends=None):
        """Let the reader of an open connection read on."""
        connection.frames.extend(frames)
        connection.ends = ends
        number = next(line for line in self.lines if line._connection is connection)
        connect, self.connect = self.connect, lambda *_: connection
        opened, number.opened = number.opened, lambda *_: False
        closings = connection.closings
        try:
            self.actor._read(number)
        except Pause:
            connection.closings = closings
        self.connect, number.opened = connect, opened
        self.deliver()

    @property
    def lines(self):
        actor = self.actor
        return [line for line in (actor._next, actor._current, actor._old) if line is not None]

    def deliver(self):
        own = self.context.sent_to(STREAM)
        self.context.sent = [(a, m) for a, m in self.context.sent if a != STREAM]
        self.take(*own)

    def take(self, *messages):
        for message in messages:
            self.actor.handle(message)

    def ring(self, ms):
        """Move the clock in steps of the watch, so that what is due is handled when it is."""
        while ms > 0:
            step = min(ms, self.settings.watch_ms)
            ms -= step
            self.clock.advance(step)
            due, self.context.due = self.context.due, []
            self.take(*due)

    def up(self, *frames, **more):
        return self.read(FakeConnection(*frames, **more))

    def told(self, to, kind):
        return [m for m in self.context.sent_to(to) if isinstance(m, kind)]

    @property
    def waits(self):
        return [ms for ms, message in self.context.armed if isinstance(message, Connect)]


def eth(close="1"):
    return a_kline(close, symbol="ETHUSDT")


def test_each_feed_gets_its_klines_and_is_told_that_the_stream_is_up():
    bench = Bench()
    a, b = klines_of("1", "2")
    bench.up(a, eth(), None, b)
    assert bench.asked == [(SYMBOLS, "1m")]
    assert (bench.told(BTC, Kline), bench.told(ETH, Kline)) == ([a, b], [eth()])
    for listener in (BTC, ETH, addresses.MONITOR):
        assert [(m.connection, m.symbols) for m in bench.told(listener, StreamUp)] == [(1, SYMBOLS)]


def test_a_feed_without_room_holds_up_no_other_and_is_said_once():
    bench = Bench()
    bench.context.refusing.add(BTC)
    connection = bench.up(*klines_of(*"12345"), eth(), *klines_of("6"))
    assert connection.closings == 0
    assert bench.told(ETH, Kline) == [eth()]
    assert [m.text for m in bench.told(addresses.MONITOR, Notice)] == [
        "feed/BTCUSDT has no room: what it misses is fetched later"
    ]


def test_a_kline_that_nobody_asked_for_is_said_and_harms_nothing():
    bench = Bench()
    bench.up(a_kline(symbol="LTCUSDT"), eth())
    assert bench.told(ETH, Kline) == [eth()]
    assert "LTCUSDT" in bench.told(addresses.MONITOR, Notice)[0].text


def test_a_cut_is_told_and_the_next_connection_too():
    bench = Bench()
    bench.up(eth(), ends="cut")
    assert [(m.connection, m.reason) for m in bench.told(BTC, StreamDown)] == [(1, "cut")]
    assert not bench.cell.value.is_up
    bench.ring(250)
    bench.up(eth())
    assert [m.connection for m in bench.told(BTC, StreamUp)] == [1, 2]


def test_a_feed_that_asks_is_told_how_the_stream_is():
    bench = Bench()
    bench.take(Subscribe("BTCUSDT"))
    assert bench.told(BTC, StreamUp) == []
    bench.up()
    bench.take(Subscribe("ETHUSDT"))
    assert (len(bench.told(BTC, StreamUp)), len(bench.told(ETH, StreamUp))) == (1, 2)


# Waits and limits


def test_the_wait_grows_to_its_bound_and_begins_anew_after_a_kline():
    bench = Bench(max_backoff_ms=1_000)
    for _ in range(4):
        bench.read(StreamClosed("refused"))
        bench.ring(1_000)
    assert bench.waits == [500, 1_000, 1_000, 1_000]
    bench.up(ends="cut without a kline")
    assert bench.waits[-1] == 1_000
    bench.ring(1_000)
    bench.up(eth(), ends="cut")
    assert bench.waits[-1] == 250


def test_a_host_that_refuses_without_end_is_few_lines():
    bench = Bench(max_backoff_ms=250)
    for _ in range(40):
        bench.read(StreamClosed("HTTP 451: blocked"))
        bench.ring(250)
    lines = [m.text for m in bench.told(addresses.MONITOR, Notice)]
    assert len(lines) == 3
    assert "451" in lines[0]


def test_all_streams_together_stay_within_the_exchanges_limit():
    clock = ManualClock(NOON)
    budget = ConnectionBudget(clock, attempts=3, window_ms=10_000)
    claims = []
    for _ in range(4):
        claims.append(budget.claim())
        clock.advance(1_000)
    assert claims == [0, 0, 0, 7_000]
    clock.advance(6_000)
    assert [budget.claim(), budget.claim()] == [0, 1_000]


def test_the_budget_is_below_the_exchanges_300_in_any_five_minutes():
    assert (ATTEMPTS < 300, WINDOW_MS) == (True, 300_000)


def test_without_an_attempt_left_the_stream_waits_for_one():
    bench = Bench()
    bench.budget._made.extend([bench.clock.monotonic_ms()] * ATTEMPTS)
    bench.up(eth(), ends="cut")
    bench.ring(250)
    assert bench.readers == 1
    assert bench.waits[-1] == WINDOW_MS - 250
    assert "299 s" in bench.told(addresses.MONITOR, Notice)[-1].text
    bench.ring(WINDOW_MS - 250)
    assert bench.readers == 2


# Replaced without a break


def test_a_shutdown_notice_has_the_next_connection_deliver_before_the_old_one_is_closed():
    a, b = klines_of("1", "2")
    bench = Bench()
    old = bench.up(a)
    bench.ring(5_000)
    bench.more(old, a, ShutdownAnnounced("server shutdown announced"), b)
    bench.ring(250)
    assert (bench.readers, old.closings) == (2, 0)
    assert bench.told(BTC, Kline)[-1] == b, "the old one delivers on"
    new = bench.up(b)
    bench.ring(500)
    assert (old.closings, new.closings) == (0, 0)
    bench.ring(1_000)
    assert (old.closings, new.closings) == (1, 0)
    assert bench.told(BTC, StreamDown) == []
    assert len(bench.told(BTC, StreamUp)) == 1, "nothing is missing, so nobody need look"
    assert bench.told(addresses.MONITOR, Notice)[-1].text == "connection 2 replaces 1: server shutdown announced"


def test_an_old_connection_that_is_cut_during_its_replacement_is_a_break_only_if_the_new_one_is_not_open():
    bench = Bench()
    old = bench.up(eth())
    bench.ring(1_000)
    bench.more(old, eth(), ShutdownAnnounced("soon"))
    bench.ring(250)
    bench.more(old, ends="cut")
    assert [m.reason for m in bench.told(BTC, StreamDown)] == ["cut"]
    bench.up(eth())
    assert len(bench.told(BTC, StreamUp)) == 2
    other = Bench()
    old = other.up(eth())
    other.ring(1_000)
    other.more(old, ShutdownAnnounced("soon"))
    other.ring(250)
    other.up()
    other.more(old, ends="cut")
    other.ring(2_000)
    assert other.told(BTC, StreamDown) == []


def test_a_replacement_that_ends_at_once_leaves_the_old_one_and_is_tried_again():
    bench = Bench()
    old = bench.up(eth())
    bench.ring(1_000)
    bench.more(old, ShutdownAnnounced("soon"))
    bench.ring(250)
    bench.up(ends="cut")
    assert (bench.told(BTC, StreamDown), old.closings) == ([], 0)
    bench.ring(500)
    assert bench.readers == 3
    bench.up(eth())
    bench.ring(1_250)
    assert old.closings == 1


def test_a_replacement_that_cannot_be_opened_leaves_the_old_one_and_is_tried_again():
    bench = Bench()
    old = bench.up(eth())
    bench.ring(1_000)
    bench.more(old, ShutdownAnnounced("soon"))
    bench.ring(250)
    bench.read(StreamClosed("refused"))
    assert (bench.told(BTC, StreamDown), old.closings) == ([], 0)
    bench.ring(500)
    assert bench.readers == 3


def test_a_connection_is_replaced_before_the_exchange_ends_it():
    bench = Bench(life_ms=100_000, max_silence_ms=10**9, update_ms=10**8)
    old = bench.up(eth())
    bench.ring(97_750)
    assert bench.readers == 1
    bench.ring(500)
    assert (bench.readers, old.closings) == (2, 0)
    bench.up(eth())
    bench.ring(1_250)
    assert old.closings == 1
    assert bench.told(BTC, StreamDown) == []


def test_a_server_that_announces_its_shutdown_all_the_time_is_left_once_a_second_at_most():
    bench = Bench(watch_ms=50)
    connection = bench.up(eth())
    for _ in range(100):
        if connection is not None:
            bench.more(connection, ShutdownAnnounced("soon"))
        before = bench.readers
        bench.ring(50)
        connection = bench.up(eth()) if bench.readers > before else None
    assert 4 <= bench.readers <= 6
    assert sum(not line.is_given_up for line in bench.lines) <= 2


# Silence


def silent_until_replaced(bench, limit_ms=60_000):
    """Return after how many ms without a kline another connection is opened."""
    began, readers = bench.clock.now_ms(), bench.readers
    while bench.readers == readers:
        bench.ring(bench.settings.watch_ms)
        assert bench.clock.now_ms() - began <= limit_ms
    return bench.clock.now_ms() - began


def test_two_updates_without_a_kline_have_another_connection_opened_beside():
    bench = Bench()
    old = bench.up(eth())
    assert 5_000 <= silent_until_replaced(bench) <= 5_500
    assert (bench.told(BTC, StreamDown), old.closings) == ([], 0)


def test_a_dead_connection_is_left_and_feeds_look_what_is_missing():
    bench = Bench()
    old = bench.up(eth())
    silent_until_replaced(bench)
    new = bench.up(eth())
    assert len(bench.told(BTC, StreamUp)) == 2
    bench.ring(1_250)
    assert (old.closings, new.closings) == (1, 0)
    assert bench.told(BTC, StreamDown) == []
    assert 3_500 <= silent_until_replaced(bench) <= 5_500, "it was right: the next suspicion comes as soon"


@pytest.mark.parametrize("new_delivers", [True, False], ids=["both deliver", "neither delivers"])
def test_a_quiet_market_is_suspected_ever_less_often(new_delivers):
    bench = Bench()
    connection = bench.up(eth())
    waits = []
    for _ in range(6):
        waits.append(silent_until_replaced(bench))
        new = bench.up()
        if new_delivers:
            bench.ring(250)
            bench.more(connection, eth())
            bench.more(new, eth())
            bench.ring(1_250)
        else:
            bench.ring(10_250)
        assert connection.closings == 1
        assert new.closings == 0
        connection = new
    slack = 1_500 if new_delivers else 10_500
    for wait, patience in zip(waits, (5_000, 10_000, 20_000, 30_000, 30_000, 30_000), strict=True):
        assert patience - slack <= wait <= patience + 500
    assert bench.told(BTC, StreamDown) == []


def test_an_hour_of_silence_costs_few_connections():
    bench = Bench()
    bench.up()
    readers = 1
    for _ in range(4 * 3_600):
        bench.ring(250)
        if bench.readers > readers:
            readers = bench.readers
            bench.up()
    assert readers <= 3_600 / 30 + 5
    assert bench.told(BTC, StreamDown) == []


def test_silent_and_no_other_to_be_had_is_down():
    bench = Bench()
    old = bench.up(eth())
    silent_until_replaced(bench)
    bench.read(StreamClosed("no route"))
    assert old.closings == 1
    assert "no route" in bench.told(BTC, StreamDown)[0].reason
    bench.ring(500)
    bench.up(eth())
    assert len(bench.told(BTC, StreamUp)) == 2


def test_klines_of_any_symbol_keep_the_connection():
    bench = Bench()
    connection = bench.up()
    for _ in range(20):
        bench.ring(2_000)
        bench.more(connection, eth())
    assert bench.readers == 1


def test_a_stream_that_leaves_out_a_symbol_is_replaced():
    bench = Bench()
    old = bench.up(eth())
    bench.take(Suspect("BTCUSDT"))
    for _ in range(3):
        bench.ring(2_000)
        bench.more(old, eth())
    assert bench.readers == 1, "it had only just begun"
    bench.take(Suspect("BTCUSDT"))
    bench.ring(250)
    assert (bench.readers, old.closings) == (2, 0)


# Incarnations


@pytest.mark.parametrize("ends", ["stop", "crash"])
def test_the_end_of_the_actor_closes_all_its_connections(ends):
    bench = Bench()
    old = bench.up(eth())
    bench.ring(1_000)
    bench.more(old, ShutdownAnnounced("soon"))
    bench.ring(250)
    new = bench.up()
    bench.actor.stopped() if ends == "stop" else bench.context.end_epoch()
    assert (old.closings, new.closings) == (1, 1)


def test_a_connection_that_opens_after_the_epoch_is_closed():
    bench = Bench()
    bench.context.end_epoch()
    connection = bench.read(FakeConnection(eth()))
    assert connection.closings > 0
    assert bench.context.sent == []


def test_a_new_incarnation_tells_that_the_stream_was_down_and_takes_no_old_word_for_its_own():
    bench = Bench()
    bench.up(eth())
    bench.restart()
    assert [m.reason for m in bench.told(BTC, StreamDown)] == ["the stream was restarted"]
    new = bench.up(eth())
    assert [m.connection for m in bench.told(BTC, StreamUp)] == [2]
    bench.take(ConnectionOpened(1), ConnectionEnding(1, "old"), ConnectionEnded(1, "old"))
    bench.ring(1_000)
    assert (new.closings, bench.readers) == (0, 1)


def test_an_incarnation_after_one_that_was_never_up_has_nothing_to_tell():
    bench = Bench()
    bench.restart()
    assert bench.told(BTC, StreamDown) == []


# What shares a connection


@pytest.mark.parametrize(
    ("symbols", "connections", "most"), [(1, 1, 1), (3, 3, 1), (8, 8, 1), (9, 8, 2), (500, 8, 63), (2_000, 10, 200)]
)
def test_few_symbols_have_a_connection_each_and_many_share_them_evenly(symbols, connections, most):
    names = [f"S{number}" for number in range(symbols)]
    made = shards(names)
    sizes = {len(shard) for shard in made}
    assert (len(made), max(sizes)) == (connections, most)
    assert max(sizes) - min(sizes) <= 1
    assert sorted(symbol for shard in made for symbol in shard) == sorted(names)
    assert STREAMS_A_CONNECTION <= 1_024


def test_a_gate_lets_so_many_in_and_whoever_is_not_wanted_any_more_goes():
    gate = BackfillGate(1)
    with gate.entered(lambda: True) as first, gate.entered(lambda: False) as second:
        assert (first, second) == (True, False)
    with gate.entered(lambda: True) as third:
        assert third


def test_each_kline_s_frame_is_known_to_the_meter_of_its_symbol():
    bench = Bench()
    connection = FakeConnection(a_kline("100"), a_kline("200", symbol="ETHUSDT"), a_kline("1", symbol="XRPUSDT"))
    connection.received_ns = 2_000_000
    bench.read(connection)
    for symbol, close in (("BTCUSDT", "100"), ("ETHUSDT", "200")):
        bench.meters[symbol].left(an_intent(kline=a_kline(close, symbol=symbol)), is_of_kline=True)
        assert bench.meters[symbol].latency.total == 0.003
