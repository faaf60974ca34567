"""What was counted lately, read off counters that begin again with their workers."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from penstock.engine.pages.counts import Counts, quantile
from penstock.engine.pages.partition_trends import PartitionTrends


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=40))
def test_a_worker_that_begins_again_loses_nothing_of_what_was_counted(steps: list[tuple[int, bool]]) -> None:
    """What a worker counted after its start and before our next look is counted, what died unseen with the old one is not."""
    counts, value, expected = Counts(kept_s=1e9), 0, 0
    counts.read(0.0, {"0": {"records": 0.0}})
    for second, (more, again) in enumerate(steps, start=1):
        if again and more < value:
            value = more
        else:
            value += more
        expected += more
        counts.read(float(second), {"0": {"records": float(value)}})
    assert counts.lately(float(len(steps)), 1e9).of("records") == expected


def test_what_a_worker_counted_before_we_looked_is_not_lately() -> None:
    counts = Counts()
    counts.read(0.0, {"0": {"records": 1e6}})
    counts.read(1.0, {"0": {"records": 1e6 + 10}})
    assert counts.lately(1.0, 60.0).rate("records") == pytest.approx(10.0)


@given(st.lists(st.floats(0.0001, 250.0), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_lies_in_the_bucket_that_holds_it(ages: list[float], share: float) -> None:
    bounds = [0.001, 0.01, 0.1, 1.0, 10.0, 300.0]
    buckets = [(bound, float(sum(age <= bound for age in ages))) for bound in bounds] + [
        (float("inf"), float(len(ages)))
    ]
    found = quantile(buckets, share)
    assert found is not None
    ranked = sorted(ages)
    true = ranked[max(0, min(len(ranked) - 1, -(-int(share * len(ranked) * 1000) // 1000) - 1))]
    place = next(at for at, bound in enumerate(bounds) if true <= bound)
    low = bounds[place - 1] if place else 0.0
    near = bounds[place + 1] if place + 1 < len(bounds) else bounds[place]
    assert low - 1e-9 <= found <= near + 1e-9


def test_no_record_has_no_quantile_and_one_past_the_last_bound_has_that() -> None:
    assert quantile([], 0.5) is None
    assert quantile([(1.0, 0.0), (float("inf"), 0.0)], 0.5) is None
    assert quantile([(1.0, 0.0), (float("inf"), 5.0)], 0.5) == 1.0


def test_a_lag_that_falls_says_when_it_is_gone_and_one_that_rises_when_it_is_too_old() -> None:
    trends = PartitionTrends()
    for second in range(0, 41, 10):
        trends.read(
            float(second),
            {
                "0": [
                    [0, 10_000 - 200 * second, 30.0 - 0.1 * second, 200 * second],
                    [1, 100 * second, 1.0 + 0.5 * second, 0],
                    [2, None, None, None],
                ]
            },
        )
    found = {each.partition: each for each in trends.partitions(10)}
    assert (found[0].trend, found[0].records_per_s) == ("falls", 200.0)
    assert found[0].drain_s == pytest.approx(10.0)
    assert found[1].trend == "rises"
    assert found[1].age_rises_per_s == pytest.approx(0.5)
    assert (found[2].trend, found[2].drain_s) == ("unknown", None)
    assert [each.partition for each in trends.partitions(2)] == [0, 1]
