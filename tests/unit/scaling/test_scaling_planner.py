"""The scaling law keeps its bounds, grows with what it should grow with, and is held on the way down."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.scaling.planner import Bounds, Demand, HoldDown, Plan, required
from penstock.engine.telemetry.capacity import CapacityEstimator, RateWindow, worker_capacity
from penstock.schemas.errors import InvariantError


def demand(**changes: float | int | None) -> Demand:
    values: dict[str, float | int | None] = {
        "arrival_records_per_s": 1000.0,
        "backlog_records": 0,
        "oldest_age_s": 0.0,
        "capacity_records_per_s": 500.0,
        "startup_s": 0.0,
        "partitions": 64,
        "replicas_now": 1,
    }
    return Demand(**{**values, **changes})  # type: ignore[arg-type]


def bounds(**changes: float | int) -> Bounds:
    values: dict[str, float | int] = {"max_age_s": 30.0, "min_replicas": 0, "max_replicas": 1000}
    return Bounds(**{**values, **changes})  # type: ignore[arg-type]


demands = st.builds(
    Demand,
    arrival_records_per_s=st.floats(0, 1e308),
    backlog_records=st.integers(0, 2**62),
    oldest_age_s=st.floats(0, 1e9),
    capacity_records_per_s=st.one_of(st.none(), st.floats(0, 1e300)),
    startup_s=st.floats(0, 1e4),
    partitions=st.integers(0, 10_000),
    replicas_now=st.integers(0, 10_000),
)
limits = st.builds(
    lambda low, more, age, workers: bounds(
        min_replicas=low, max_replicas=max(low + more, 1), max_age_s=age, workers_per_replica=workers
    ),
    st.integers(0, 50),
    st.integers(0, 1000),
    st.floats(0.1, 1e5),
    st.integers(1, 16),
)


def test_the_number_is_the_sum_of_both_terms_rounded_up() -> None:
    plan = required(demand(backlog_records=7500), bounds())
    assert plan.rate_term == 1000 / (0.8 * 500)
    assert plan.drain_term == 7500 / (30 * 500)
    assert (plan.replicas, plan.bound) == (3, "rate")
    plan = required(demand(backlog_records=15_000), bounds())
    assert (plan.replicas, plan.bound) == (4, "drain")


def test_age_and_start_up_leave_less_time_to_drain_but_never_less_than_a_quarter() -> None:
    assert required(demand(oldest_age_s=10.0, startup_s=5.0), bounds()).drain_s == 15.0
    assert required(demand(oldest_age_s=1e6), bounds()).drain_s == 7.5


def test_workers_of_one_replica_add_up() -> None:
    assert required(demand(arrival_records_per_s=4000.0), bounds()).replicas == 10
    assert required(demand(arrival_records_per_s=4000.0), bounds(workers_per_replica=4)).replicas == 3
    plan = required(demand(arrival_records_per_s=1e9, partitions=9), bounds(workers_per_replica=4))
    assert (plan.replicas, plan.bound) == (3, "partitions")


def test_nothing_to_do_is_zero_or_the_minimum() -> None:
    idle = demand(arrival_records_per_s=0.0)
    assert required(idle, bounds()) == Plan(
        replicas=0, active=False, rate_term=0.0, drain_term=0.0, drain_s=30.0, bound="idle"
    )
    assert required(idle, bounds(min_replicas=2)).replicas == 2


def test_one_record_is_work_for_one() -> None:
    plan = required(demand(arrival_records_per_s=0.0, backlog_records=1), bounds())
    assert (plan.replicas, plan.active) == (1, True)
    hardly_any = demand(arrival_records_per_s=5e-324, capacity_records_per_s=1e9)
    assert required(hardly_any, bounds()).replicas == 1


@pytest.mark.parametrize("capacity", [None, 0.0, 1e-320])
def test_an_unknown_capacity_keeps_what_runs_and_starts_one_where_there_is_work(
    capacity: float | None,
) -> None:
    unknown = demand(capacity_records_per_s=capacity, replicas_now=5)
    assert (required(unknown, bounds()).replicas, required(unknown, bounds()).bound) == (
        5,
        "capacity_unknown",
    )
    assert required(demand(capacity_records_per_s=capacity, replicas_now=0), bounds()).replicas == 1


@given(demands, limits)
def test_a_plan_stays_within_its_bounds_and_every_term_is_a_number(what: Demand, within: Bounds) -> None:
    plan = required(what, within)
    assert within.min_replicas <= plan.replicas <= max(within.max_replicas, within.min_replicas)
    useful = max(math.ceil(what.partitions / within.workers_per_replica), 1)
    assert plan.replicas <= max(useful, within.min_replicas)
    assert not any(math.isnan(term) for term in (plan.rate_term, plan.drain_term, plan.drain_s))
    assert plan.active == (what.backlog_records > 0 or what.arrival_records_per_s > 0)
    assert plan.replicas >= (1 if plan.active else 0)


@given(demands, limits, st.integers(0, 2**40), st.floats(0, 1e9), st.floats(0, 1e6))
def test_more_work_never_means_fewer_replicas(
    what: Demand, within: Bounds, records: int, rate: float, age_s: float
) -> None:
    more = Demand(
        arrival_records_per_s=what.arrival_records_per_s + rate,
        backlog_records=what.backlog_records + records,
        oldest_age_s=what.oldest_age_s + age_s,
        capacity_records_per_s=what.capacity_records_per_s,
        startup_s=what.startup_s,
        partitions=what.partitions,
        replicas_now=what.replicas_now,
    )
    assert required(more, within).replicas >= required(what, within).replicas


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1.0])
def test_a_demand_that_is_no_number_is_refused(wrong: float) -> None:
    with pytest.raises(InvariantError):
        demand(arrival_records_per_s=wrong)
    with pytest.raises(InvariantError):
        demand(capacity_records_per_s=wrong)


def plan_of(replicas: int) -> Plan:
    return Plan(
        replicas=replicas, active=replicas > 0, rate_term=0.0, drain_term=0.0, drain_s=1.0, bound="rate"
    )


def test_up_at_once_and_down_late() -> None:
    held = HoldDown(bounds(hold_s=300))
    assert held.hold(plan_of(2), now_s=0, replicas_now=2).replicas == 2
    assert held.hold(plan_of(8), now_s=10, replicas_now=2).replicas == 8
    plan = held.hold(plan_of(3), now_s=20, replicas_now=8)
    assert (plan.replicas, plan.bound) == (8, "held")
    assert held.hold(plan_of(3), now_s=309, replicas_now=8).replicas == 8
    plan = held.hold(plan_of(3), now_s=310, replicas_now=8)
    assert (plan.replicas, plan.bound) == (3, "rate")


def test_a_scaler_that_was_restarted_does_not_shrink_what_it_found() -> None:
    held = HoldDown(bounds(hold_s=300))
    assert held.hold(plan_of(1), now_s=0, replicas_now=6).replicas == 6
    assert held.hold(plan_of(1), now_s=300, replicas_now=6).replicas == 1


def test_going_idle_is_not_held_back() -> None:
    held = HoldDown(bounds(hold_s=300))
    held.hold(plan_of(5), now_s=0, replicas_now=0)
    assert held.hold(plan_of(0), now_s=1, replicas_now=5).replicas == 0
    assert held.hold(plan_of(1), now_s=2, replicas_now=5).replicas == 1


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50)), min_size=1, max_size=40))
def test_the_held_number_is_the_greatest_need_in_the_window(steps: list[tuple[float, int]]) -> None:
    held, now_s, seen = HoldDown(bounds(hold_s=100)), 0.0, list[tuple[float, int]]()
    for step_s, replicas in steps:
        now_s += step_s
        seen.append((now_s, replicas))
        expected = max(need for at_s, need in seen if at_s > now_s - 100)
        assert held.hold(plan_of(replicas), now_s=now_s, replicas_now=0).replicas == expected


def test_capacity_is_read_off_at_the_largest_batch_though_only_small_ones_were_seen() -> None:
    estimator = CapacityEstimator(rows_max=1000)
    assert estimator.records_per_s() is None
    for _ in range(50):
        for rows in (1, 20, 300):
            estimator.observe(rows=rows, busy_s=0.010 + rows * 0.0001)
    assert estimator.records_per_s() == pytest.approx(1000 / 0.110, rel=1e-6)


def test_batches_of_one_size_are_taken_at_their_own_rate() -> None:
    estimator = CapacityEstimator(rows_max=1000)
    for _ in range(50):
        estimator.observe(rows=10, busy_s=0.01)
    assert estimator.records_per_s() == pytest.approx(1000)


@pytest.mark.parametrize("batches", [((10, 0.01), (1000, 2.0)), ((10, 1.0), (20, 0.5))])
def test_batches_that_fit_no_line_are_taken_at_their_own_rate(batches: tuple[tuple[int, float], ...]) -> None:
    estimator = CapacityEstimator(rows_max=5)
    for _ in range(50):
        for rows, busy_s in batches:
            estimator.observe(rows=rows, busy_s=busy_s)
    estimate = estimator.records_per_s()
    assert estimate is not None
    assert 0 < estimate < 2000


def test_the_newest_batches_weigh_most() -> None:
    estimator = CapacityEstimator(rows_max=100)
    for each_s in (0.001, 0.002):
        for _ in range(2000):
            estimator.observe(rows=100, busy_s=100 * each_s)
    assert estimator.records_per_s() == pytest.approx(500, rel=0.01)


@given(st.lists(st.tuples(st.integers(0, 65_536), st.floats(0, 1e3)), max_size=100))
def test_an_estimate_is_positive_and_finite_or_none(batches: list[tuple[int, float]]) -> None:
    estimator = CapacityEstimator(rows_max=4096)
    for rows, busy_s in batches:
        estimator.observe(rows=rows, busy_s=busy_s)
    estimate = estimator.records_per_s()
    assert estimate is None or (estimate > 0 and math.isfinite(estimate))


def test_a_saturated_worker_is_taken_at_what_it_really_finished() -> None:
    assert worker_capacity(estimate=900.0, finished_records_per_s=700.0, busy_ratio=0.95) == 700.0
    assert worker_capacity(estimate=900.0, finished_records_per_s=100.0, busy_ratio=0.2) == 900.0
    assert worker_capacity(estimate=None, finished_records_per_s=0.0, busy_ratio=0.0) == 0.0


def test_a_rate_window_forgets() -> None:
    window = RateWindow(window_s=10)
    window.start(now_s=0.0)
    for second in range(20):
        window.add(now_s=second + 0.5, records=50, busy_s=0.1)
    records_per_s, busy_ratio = window.rates(now_s=20.0)
    assert records_per_s == pytest.approx(50, rel=0.11)
    assert busy_ratio == pytest.approx(0.1, rel=0.11)
    assert window.rates(now_s=40.0) == (0.0, 0.0)
