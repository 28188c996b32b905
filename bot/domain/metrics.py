"""Decides what is measured of a bot: one table, from which Prometheus and CloudWatch get the same numbers.

A counter counts since the process started. CloudWatch is given what came of it since its last point, as its statistics
add points up; Prometheus is given the count itself.
"""

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec


class Kind(StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    DISTRIBUTION = "distribution"


class Metric(msgspec.Struct, frozen=True):
    """One metric: `unit` is CloudWatch's word for it, `labels` are those beside bot_id and mode.

    One that `is_basic` is also given without its labels: counts are added up then, of gauges the largest is taken.
    """

    name: str
    kind: Kind
    unit: str
    text: str
    labels: tuple[str, ...] = ()
    is_basic: bool = False


_COUNTERS = (
    Metric("klines_received", Kind.COUNTER, "Count", "Klines that feeds passed on, in order.", ("symbol",), True),
    Metric("klines_dropped", Kind.COUNTER, "Count", "Klines that feeds did not take or had no room for.", ("symbol",)),
    Metric("signals", Kind.COUNTER, "Count", "Signals of the strategy and of exits.", ("symbol", "side")),
    Metric("signals_skipped", Kind.COUNTER, "Count", "Signals that became no order, by reason.", ("reason",)),
    Metric("orders_sent", Kind.COUNTER, "Count", "Orders whose bytes left for the exchange.", ("symbol",)),
    Metric("orders_filled", Kind.COUNTER, "Count", "Orders with an execution.", ("symbol", "side"), True),
    Metric("orders_rejected", Kind.COUNTER, "Count", "Orders the exchange refused, by its code.", ("reason",), True),
    Metric("orders_unfilled", Kind.COUNTER, "Count", "Other orders that ended without an execution.", ("status",)),
    Metric("actor_restarts", Kind.COUNTER, "Count", "Restarts of actors.", ("actor",)),
    Metric("dead_letters", Kind.COUNTER, "Count", "Messages that were given up."),
    Metric("outbox_dropped", Kind.COUNTER, "Count", "Open klines that an outbox had no room for.", ("outbox",)),
    Metric("points_dropped", Kind.COUNTER, "Count", "Points that CloudWatch did not take in time."),
)
_GAUGES = (
    Metric("feed_age_seconds", Kind.GAUGE, "Seconds", "Time since the last kline taken.", ("symbol",), True),
    Metric("equity", Kind.GAUGE, "None", "Cash and positions at their last closes, in the quote asset.", (), True),
    Metric("cash", Kind.GAUGE, "None", "Cash, in the quote asset."),
    Metric("drawdown_ratio", Kind.GAUGE, "None", "Loss since the highest equity of this book, of it.", (), True),
    Metric("daily_loss_ratio", Kind.GAUGE, "None", "Loss since 00:00 UTC, of the equity then.", (), True),
    Metric("position", Kind.GAUGE, "None", "Position, in the base asset.", ("symbol",)),
    Metric("exposure_ratio", Kind.GAUGE, "None", "Worth of the position, of the equity.", ("symbol",)),
    Metric("actor_mailbox", Kind.GAUGE, "Count", "Messages that wait for actors.", ("actor",)),
    Metric("actors_quarantined", Kind.GAUGE, "Count", "Actors that failed too often and were given up.", (), True),
    Metric("outbox_entries", Kind.GAUGE, "Count", "Entries that wait for a store or broker.", ("outbox",)),
    Metric("outbox_age_seconds", Kind.GAUGE, "Seconds", "Time that the oldest of them waits.", ("outbox",), True),
    Metric("kafka_lag", Kind.GAUGE, "Count", "Klines on the topic that this bot takes, not stored yet.", ("topic",)),
    Metric("request_weight", Kind.GAUGE, "Count", "Request weight used in this minute.", ("host",)),
    Metric("halted", Kind.GAUGE, "None", "1 while no order may leave."),
    Metric("symbols_stopped", Kind.GAUGE, "Count", "Symbols of which no order may leave."),
    Metric("healthy", Kind.GAUGE, "None", "1 while nothing is wrong with the process as a whole."),
)
_DISTRIBUTIONS = (
    Metric(
        "tick_to_order_seconds",
        Kind.DISTRIBUTION,
        "Seconds",
        "Time from a kline's frame to the bytes of its order leaving.",
        ("symbol",),
        True,
    ),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in (*_COUNTERS, *_GAUGES, *_DISTRIBUTIONS)}

BOUNDS_S = tuple(digit * 10.0**power for power in range(-5, 1) for digit in (1, 2, 5))
"""Upper bounds of a distribution's buckets but the last, which has none: 10 us to 5 s."""


class Distribution(msgspec.Struct, frozen=True):
    """How often a time fell into each bucket, what all times add up to, and the longest; seconds."""

    counts: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)
    total: float = 0.0
    longest: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def with_one(self, seconds: float) -> "Distribution":
        """Return it with one more time."""
        place = bisect_left(BOUNDS_S, seconds)
        counts = (*self.counts[:place], self.counts[place] + 1, *self.counts[place + 1 :])
        return Distribution(counts, self.total + seconds, max(self.longest, seconds))

    def plus(self, other: "Distribution") -> "Distribution":
        """Return both as one."""
        counts = tuple(one + another for one, another in zip(self.counts, other.counts, strict=True))
        return Distribution(counts, self.total + other.total, max(self.longest, other.longest))

    def since(self, earlier: "Distribution") -> "Distribution":
        """Return what came since `earlier`; `longest` stays the longest of all."""
        counts = tuple(one - another for one, another in zip(self.counts, earlier.counts, strict=True))
        return Distribution(counts, self.total - earlier.total, self.longest)


class Sample(msgspec.Struct, frozen=True):
    """A metric's value now, under the values of its labels, in their order; none where it `is_basic` as a whole."""

    metric: Metric
    labels: tuple[str, ...]
    value: float | Distribution


class Point(msgspec.Struct, frozen=True):
    """What CloudWatch keeps of one series for one moment: values, and how often each came.

    `time` is ms UTC, `dimensions` are (name, value).
    """

    name: str
    unit: str
    dimensions: tuple[tuple[str, str], ...]
    time: int
    values: tuple[float, ...]
    counts: tuple[int, ...]


def wholes(samples: Iterable[Sample]) -> list[Sample]:
    """Return what all labels of each basic metric come to; 0 for a counter that nothing has counted yet."""
    found = {m.name: Sample(m, (), 0) for m in METRICS.values() if m.is_basic and m.kind is Kind.COUNTER}
    for sample in samples:
        if not sample.metric.is_basic:
            continue
        known = found.get(sample.metric.name)
        value = sample.value if known is None else _joined(sample.metric, known.value, sample.value)
        found[sample.metric.name] = Sample(sample.metric, (), value)
    return list(found.values())


def _joined(metric: Metric, one: float | Distribution, other: float | Distribution) -> float | Distribution:
    if isinstance(one, Distribution) and isinstance(other, Distribution):
        return one.plus(other)
    assert not isinstance(one, Distribution)
    assert not isinstance(other, Distribution)
    return one + other if metric.kind is Kind.COUNTER else max(one, other)


class Series:
    """Makes points of samples, one after another: it remembers what of each counter was in the last ones.

    `common` are the dimensions of all, (name, value). With `is_full` each series is given, not the basic wholes only.
    """

    def __init__(self, common: tuple[tuple[str, str], ...], is_full: bool) -> None:
        self._common = common
        self._is_full = is_full
        self._last: dict[tuple[str, tuple[str, ...]], float | Distribution] = {}

    def points(self, samples: Sequence[Sample], time: int) -> list[Point]:
        """Return the points of `time` (ms UTC). A value that is no finite number is left out."""
        given = wholes(samples)
        if self._is_full:
            given += [sample for sample in samples if sample.labels or not sample.metric.is_basic]
        points = []
        for sample in given:
            values, counts = self._since_last(sample)
            if values and all(map(math.isfinite, values)):
                names = sample.metric.labels if sample.labels else ()
                dimensions = (*self._common, *zip(names, sample.labels, strict=True))
                points.append(Point(sample.metric.name, sample.metric.unit, dimensions, time, values, counts))
        return points

    def _since_last(self, sample: Sample) -> tuple[tuple[float, ...], tuple[int, ...]]:
        """Return values and how often each came since the last point; none where nothing did."""
        metric, value = sample.metric, sample.value
        if metric.kind is Kind.GAUGE and not isinstance(value, Distribution):
            return (value,), (1,)
        key = (metric.name, sample.labels)
        last = self._last.get(key)
        self._last[key] = value
        if isinstance(value, Distribution):
            new = value.since(last) if isinstance(last, Distribution) else value
            # A bucket stands for its upper bound: what is said is never faster than what was.
            rows = [(bound, count) for bound, count in zip((*BOUNDS_S, new.longest), new.counts, strict=True) if count]
            return tuple(bound for bound, _ in rows), tuple(count for _, count in rows)
        return (value - last if isinstance(last, float | int) else value,), (1,)
