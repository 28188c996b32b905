"""How long after its kline's frame an order left."""

from bot.actors.order_meter import FRAMES, OrderMeter
from bot.domain.metrics import Distribution
from tests.support.builders import NOON, a_kline, an_intent

MS = 1_000_000


def klines(count):
    return [a_kline("100", event_time=NOON + number * 1000) for number in range(count)]


class Bench:
    def __init__(self):
        self.now = 0
        self.meter = OrderMeter(lambda: self.now)

    def come(self, kline, at):
        self.meter.came(kline, at)

    def leave(self, kline, at, is_of_kline=True):
        self.now = at
        self.meter.left(an_intent(kline=kline), is_of_kline)

    @property
    def times(self):
        latency = self.meter.latency
        return latency.count, latency.total


def test_it_is_measured_from_the_frame_of_the_kline_that_decided():
    bench, (first, second) = Bench(), klines(2)
    bench.come(first, 1 * MS)
    bench.come(second, 2 * MS)
    bench.leave(first, 4 * MS)
    assert bench.times == (1, 0.003)
    assert bench.meter.latency == Distribution().with_one(0.003)


def test_of_two_connections_the_faster_frame_counts():
    bench, (kline,) = Bench(), klines(1)
    bench.come(kline, 1 * MS)
    bench.come(kline, 3 * MS)
    bench.leave(kline, 4 * MS)
    assert bench.times == (1, 0.003)


def test_an_order_of_a_command_and_one_of_a_fetched_kline_are_sent_but_not_measured():
    bench, (kline, fetched) = Bench(), klines(2)
    bench.come(kline, 1 * MS)
    bench.leave(kline, 9 * MS, is_of_kline=False)
    bench.leave(fetched, 9 * MS)
    assert (bench.meter.sent, bench.times) == (2, (0, 0))


def test_one_that_waited_longer_than_frames_are_known_counts_as_that_long():
    bench, (waited, *others) = Bench(), klines(FRAMES + 2)
    for number, kline in enumerate((waited, *others)):
        bench.come(kline, (1 + number) * MS)
    bench.leave(waited, 1000 * MS)
    oldest_known = 3
    assert bench.times == (1, (1000 - oldest_known) / 1000)
