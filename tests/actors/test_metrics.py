"""The metrics actor: a point of each series every minute, whatever becomes of those who keep them.

Its threads are run by hand: `bench.put()` lets the one that waits make its call.
"""

import pytest

from bot.actors import addresses
from bot.actors.cells import Cell, MetricsMemory
from bot.actors.metrics import MetricsActor, MetricsSettings
from bot.domain.metrics import Point
from bot.messages import Notice
from bot.ports import PointsNotTaken, PointsRefused
from bot.supervision.testing import ManualClock, RecordingContext
from tests.support.builders import NOON

MINUTE = 60_000
DAY = 86_400_000


class Sink:
    def __init__(self, most=1_000):
        self.taken = []
        self.error = None
        self.most = most

    def put(self, points):
        if self.error is not None:
            raise self.error
        self.taken += points[: self.most]
        return len(points[: self.most])

    @property
    def times(self):
        return [(point.time - NOON) / MINUTE for point in self.taken]


class Bench:
    def __init__(self, sink=None, start=NOON, series=2, **settings):
        self.clock = ManualClock(start)
        self.sink = sink
        self.series = series
        self.settings = MetricsSettings(**settings)
        self.cell = Cell(MetricsMemory())
        self.looks = 0
        self.epoch = 0
        self.restart()

    def restart(self):
        self.epoch += 1
        self.context = RecordingContext(addresses.METRICS, self.clock, self.epoch)
        self.actor = MetricsActor(self.context, self.settings, self.cell, self.look, self.points, self.sink)
        self.actor.started()

    def look(self):
        self.looks += 1

    def points(self, now):
        return [Point(f"m{number}", "Count", (), now, (1.0,), (1,)) for number in range(self.series)]

    def pass_time(self, delta_ms):
        """Let time pass, a look at a time."""
        for _ in range(delta_ms // self.settings.look_ms):
            self.clock.advance(self.settings.look_ms)
            self.deliver()

    def deliver(self):
        due, self.context.due[:] = self.context.due[:], []
        for message in due:
            self.actor.handle(message)

    def put(self):
        """Let all waiting threads make their calls and hand over what they tell."""
        while self.context.threads:
            _, target = self.context.threads.pop(0)
            before = len(self.context.sent)
            target()
            ((to, message),) = self.context.sent[before:]
            assert to == addresses.METRICS
            self.actor.handle(message)

    @property
    def notices(self):
        return [message.text for to, message in self.context.sent if isinstance(message, Notice)]


def test_points_are_put_at_the_start_and_once_in_each_minute_of_the_clock():
    bench = Bench(Sink(), start=NOON + 17_300)
    for _ in range(600):
        bench.pass_time(1_000)
        bench.put()
    minutes = [int(time) for time in bench.sink.times]
    assert minutes == [number for number in range(11) for _ in range(2)]
    assert bench.looks == 601
    assert bench.cell.value == MetricsMemory(taken=22)


def test_without_a_sink_it_only_looks():
    bench = Bench(None)
    bench.pass_time(3 * MINUTE)
    assert (bench.looks, bench.context.threads) == (181, [])


def test_an_outage_is_told_once_and_nothing_is_lost_of_a_short_one():
    bench = Bench(Sink())
    bench.put()
    bench.sink.error = PointsNotTaken("CloudWatch cannot be reached")
    for _ in range(5):
        bench.pass_time(MINUTE)
        bench.put()
    assert bench.notices == ["points of metrics wait: CloudWatch cannot be reached"]
    assert bench.cell.value.waiting == 10
    bench.sink.error = None
    bench.pass_time(MINUTE)
    bench.put()
    assert bench.sink.times == [float(minute) for minute in range(7) for _ in range(2)]
    assert bench.notices[1:] == ["metrics are taken again after 300 s; 0 points were lost"]
    assert (bench.cell.value.waiting, bench.cell.value.dropped, bench.cell.value.error) == (0, 0, "")
    bench.sink.error = PointsNotTaken("again")
    bench.pass_time(MINUTE)
    bench.put()
    assert bench.notices[2:] == ["points of metrics wait: again"]


def test_one_call_a_minute_is_made_while_nothing_is_taken():
    bench = Bench(Sink())
    bench.sink.error = PointsNotTaken("no")
    calls = 0
    for _ in range(300):
        calls += len(bench.context.threads)
        bench.put()
        bench.pass_time(1_000)
    assert calls == 5


def test_what_waits_is_bounded_and_the_oldest_go():
    bench = Bench(Sink(), most_waiting=10)
    bench.sink.error = PointsNotTaken("away")
    for _ in range(60):
        bench.pass_time(MINUTE)
        bench.put()
    assert len(bench.actor._waiting) == bench.cell.value.waiting == 10
    bench.sink.error = None
    bench.pass_time(MINUTE)
    bench.put()
    assert bench.sink.times == [float(minute) for minute in range(57, 62) for _ in range(2)]
    assert bench.cell.value.dropped == 2 * 57
    assert bench.notices[-1].endswith("; 114 points were lost")


def test_a_call_that_never_returns_stops_nothing_and_grows_nothing():
    bench = Bench(Sink(), most_waiting=10)
    assert len(bench.context.threads) == 1  # it hangs in its call
    bench.pass_time(30 * MINUTE)
    assert len(bench.context.threads) == 1
    assert bench.looks == 1_801
    assert len(bench.actor._waiting) + len(bench.actor._flying) == 10
    assert bench.cell.value.dropped == 2 * 31 - 10


def test_what_can_never_be_taken_does_not_hold_up_the_rest():
    bench = Bench(Sink())
    bench.sink.error = PointsRefused(2, "no valid points")
    bench.put()
    bench.sink.error = None
    bench.pass_time(MINUTE)
    bench.put()
    assert bench.sink.times == [1.0, 1.0]
    assert bench.cell.value == MetricsMemory(taken=2, dropped=2)
    assert bench.notices == [
        "2 points are lost: no valid points",
        "metrics are taken again after 60 s; 2 points were lost",
    ]


@pytest.mark.parametrize("most", [1, 3, 7])
def test_more_points_than_a_call_takes_go_in_several_in_order(most):
    bench = Bench(Sink(most), series=10)
    bench.put()
    assert [point.name for point in bench.sink.taken] == [f"m{number}" for number in range(10)]


def test_what_a_crash_takes_with_it_is_counted():
    bench = Bench(Sink())
    bench.sink.error = PointsNotTaken("away")
    bench.put()
    bench.restart()
    bench.put()
    assert bench.cell.value.dropped == 2
