"""The table of metrics, and what becomes of samples on their way to CloudWatch."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.domain.metrics import BOUNDS_S, METRICS, Distribution, Kind, Sample, Series, wholes

COMMON = (("bot_id", "b"), ("mode", "demo"))
MINUTE = 60_000
seconds = st.lists(st.floats(0, 100), max_size=50)


def distribution(times):
    made = Distribution()
    for one in times:
        made = made.with_one(one)
    return made


def sample(name, value, *labels):
    return Sample(METRICS[name], labels, value)


def values(points):
    return {(point.name, *(value for _, value in point.dimensions[2:])): point.values for point in points}


def test_the_table_names_things_as_both_systems_have_them():
    for name, metric in METRICS.items():
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", name)
        assert not name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert (metric.unit == "Seconds") == name.endswith("_seconds")
        assert metric.text.endswith(".")
        assert not {"bot_id", "mode"} & set(metric.labels)
        assert len(metric.labels) == len(set(metric.labels))


def test_ten_series_are_free_and_the_basic_ones_are_ten():
    assert sum(metric.is_basic for metric in METRICS.values()) == 10


@given(seconds, seconds)
def test_a_distribution_counts_each_time_once(earlier, later):
    before = distribution(earlier)
    after = before.plus(distribution(later))
    assert after.count == len(earlier) + len(later)
    assert after.since(before).counts == distribution(later).counts
    for place, bound in enumerate(BOUNDS_S):
        assert sum(after.counts[: place + 1]) == sum(time <= bound for time in (*earlier, *later))
    assert after.longest == max((*earlier, *later), default=0)
    assert after.total == pytest.approx(math.fsum((*earlier, *later)))


def test_a_counter_gives_what_came_since_the_last_point_and_a_gauge_what_is():
    series = Series(COMMON, is_full=True)

    def points(received, equity):
        return values(series.points([sample("klines_received", received, "A"), sample("equity", equity)], MINUTE))

    first, second, third = points(5.0, 100.0), points(7.0, 90.0), points(7.0, 90.0)
    assert (first["klines_received", "A"], first["equity",]) == ((5.0,), (100.0,))
    assert (second["klines_received", "A"], second["equity",]) == ((2.0,), (90.0,))
    assert third["klines_received", "A"] == (0.0,)


def test_basic_series_are_wholes_and_full_ones_have_them_too():
    samples = [
        sample("klines_received", 5.0, "A"),
        sample("klines_received", 2.0, "B"),
        sample("feed_age_seconds", 1.0, "A"),
        sample("feed_age_seconds", 90.0, "B"),
        sample("position", 3.0, "A"),
        sample("equity", 100.0),
    ]
    basic = values(Series(COMMON, is_full=False).points(samples, MINUTE))
    assert basic == {
        ("klines_received",): (7.0,),
        ("orders_filled",): (0.0,),
        ("orders_rejected",): (0.0,),
        ("feed_age_seconds",): (90.0,),
        ("equity",): (100.0,),
    }
    full = values(Series(COMMON, is_full=True).points(samples, MINUTE))
    assert {key: full[key] for key in basic} == basic
    assert full["position", "A"] == (3.0,)
    assert len(full) == len(basic) + 5


def test_every_point_says_whose_it_is():
    points = Series(COMMON, is_full=True).points([sample("signals", 1.0, "A", "BUY"), sample("equity", 1.0)], MINUTE)
    assert all(point.dimensions[:2] == COMMON for point in points)
    assert points[-1].dimensions[2:] == (("symbol", "A"), ("side", "BUY"))


def test_what_is_no_finite_number_is_left_out():
    for value in (math.nan, math.inf, -math.inf):
        assert not any(p.name == "equity" for p in Series(COMMON, False).points([sample("equity", value)], MINUTE))


@given(seconds, seconds)
def test_the_times_of_orders_come_as_values_and_counts_of_the_interval(earlier, later):
    series = Series(COMMON, is_full=False)
    series.points([sample("tick_to_order_seconds", distribution(earlier), "A")], MINUTE)
    both = [sample("tick_to_order_seconds", distribution((*earlier, *later)), "A")]
    found = [point for point in series.points(both, 2 * MINUTE) if point.name == "tick_to_order_seconds"]
    if not later:
        assert found == []
        return
    (point,) = found
    assert sum(point.counts) == len(later)
    assert all(point.counts)
    # What is said is never faster than what was, and never slower than the slowest of all but for its bucket's bound.
    assert sum(v * c for v, c in zip(point.values, point.counts, strict=True)) >= math.fsum(later) * (1 - 1e-9)


def test_wholes_of_kinds():
    of_orders = [
        sample("tick_to_order_seconds", distribution([1e-4]), "A"),
        sample("tick_to_order_seconds", distribution([9.0]), "B"),
    ]
    (whole,) = [one for one in wholes(of_orders) if one.metric.kind is Kind.DISTRIBUTION]
    assert whole.value == distribution([1e-4, 9.0])
