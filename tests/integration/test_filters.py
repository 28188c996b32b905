"""Orders in random situations, through the whole way out: the exchange refuses none for a filter."""

import pytest

from benchmarks import filters

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("profile", ["com", "us"])
def test_no_order_that_leaves_is_refused_for_a_filter(tmp_path, profile):
    """The long form, for the exchanges' sake: `python -m benchmarks.filters --orders 100000`."""
    run, _ = filters.measure(profile, 250, tmp_path)
    assert run.refused == {}
    assert set(run.sent) == {"FILLED", "EXPIRED"}
    assert run.past_the_checks["refused for a filter"] > 5, "a judge that takes everything judges nothing"
    assert set(run.past_the_checks) <= {"refused for a filter", "taken"}
