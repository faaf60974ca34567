"""The scaling law keeps its bounds, grows with what it should grow with, and fits the fullest worker."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.scaling.packing import assign, fewest, fullest
from penstock.engine.scaling.planner import Bounds, Need, required
from penstock.engine.scaling.snapshot import Snapshot
from penstock.engine.scaling.steadier import Steadier, past_tolerance
from penstock.engine.telemetry.capacity import CapacityEstimator, RateWindow
from penstock.schemas.errors import InvariantError


def snapshot(
    *,
    rate: float = 1000.0,
    backlog: float = 0.0,
    partitions: int = 64,
    members: int | None = None,
    **changes: Any,
) -> Snapshot:
    """A group whose partitions are alike."""
    now = changes.get("replicas_now", 1)
    values: dict[str, Any] = {
        "arrivals": np.full(partitions, rate / max(partitions, 1)),
        "arrivals_now": np.full(partitions, rate / max(partitions, 1)),
        "backlog": np.full(partitions, backlog / max(partitions, 1)),
        "owners": assign(np.full(partitions, -1), members or now, "sticky")
        if now
        else np.full(partitions, -1),
        "oldest_age_s": 0.0,
        "capacity_records_per_s": 500.0,
        "startup_s": 0.0,
        "rebalance_s": 0.0,
        "horizon_s": 0.0,
        "replicas_now": 1,
    }
    return Snapshot(**{**values, **changes})


def bounds(**changes: Any) -> Bounds:
    values: dict[str, Any] = {"max_age_s": 30.0, "min_replicas": 0, "max_replicas": 1000}
    return Bounds(**{**values, **changes})


numbers = st.floats(0, 1e300)
snapshots = st.builds(
    lambda partitions, rates, owners, **changes: Snapshot(
        arrivals=np.resize(np.array(rates), partitions), arrivals_now=np.resize(np.array(rates[::-1]), partitions),
        backlog=np.resize(np.array(rates[1:] + rates[:1]), partitions), owners=np.resize(np.array(owners), partitions),
        **changes,
    ),
    st.integers(1, 200),
    st.lists(numbers, min_size=1, max_size=20),
    st.lists(st.integers(-1, 50), min_size=1, max_size=20),
    oldest_age_s=st.floats(0, 1e9),
    capacity_records_per_s=st.one_of(st.none(), numbers),
    startup_s=st.floats(0, 1e4),
    rebalance_s=st.floats(0, 1e4),
    horizon_s=st.floats(0, 1e4),
    replicas_now=st.integers(0, 10_000),
)  # fmt: skip
limits = st.builds(
    lambda low, more, age, workers, assignor: bounds(
        min_replicas=low, max_replicas=max(low + more, 1), max_age_s=age, workers_per_replica=workers, assignor=assignor
    ),
    st.integers(0, 50),
    st.integers(0, 300),
    st.floats(0.1, 1e5),
    st.integers(1, 16),
    st.sampled_from(["sticky", "range"]),
)  # fmt: skip


def test_the_number_keeps_up_with_what_arrives_and_works_off_what_waits() -> None:
    need = required(snapshot(), bounds())
    assert need.rate_term == 1000 / (0.82 * 500)
    assert (need.replicas, need.bound) == (3, "rate")
    need = required(snapshot(backlog=30_000, replicas_now=2), bounds())
    # 30,000 in 30 s beside 1,000 a second
    assert (need.replicas, need.bound) == (4, "drain")
    assert need.rate_term + need.drain_term == pytest.approx(2000 / 500)


def test_age_and_horizon_leave_less_time_to_drain_but_never_less_than_a_new_worker_takes() -> None:
    assert required(snapshot(oldest_age_s=10.0, horizon_s=5.0), bounds()).drain_s == 15.0
    assert required(snapshot(oldest_age_s=1e6), bounds()).drain_s == 7.5
    assert required(snapshot(oldest_age_s=1e6, horizon_s=60.0), bounds()).drain_s == 60.0


def test_a_backlog_that_the_present_workers_work_off_by_themselves_asks_for_nobody() -> None:
    assert required(snapshot(backlog=20_000, replicas_now=8, horizon_s=30.0), bounds()).bound == "rate"
    assert required(snapshot(backlog=20_000, replicas_now=2, horizon_s=30.0), bounds()).bound == "drain"


def test_workers_of_one_replica_add_up() -> None:
    assert required(snapshot(rate=4000.0), bounds()).replicas == 10
    assert required(snapshot(rate=4000.0), bounds(workers_per_replica=4)).replicas == 3
    need = required(
        snapshot(rate=1e9, capacity_records_per_s=1e9, partitions=9), bounds(workers_per_replica=4)
    )
    assert (need.replicas, need.bound) == (1, "rate")
    need = required(
        snapshot(rate=1e4, capacity_records_per_s=2000.0, partitions=9), bounds(workers_per_replica=4)
    )
    assert (need.replicas, need.bound) == (3, "packing")


def test_nothing_to_do_is_zero_or_the_minimum() -> None:
    need = required(snapshot(rate=0.0), bounds())
    assert (need.replicas, need.active, need.bound) == (0, False, "idle")
    assert required(snapshot(rate=0.0), bounds(min_replicas=2)).replicas == 2


def test_one_record_is_work_for_one() -> None:
    need = required(snapshot(rate=0.0, backlog=1), bounds())
    assert (need.replicas, need.active) == (1, True)
    assert required(snapshot(rate=5e-322, capacity_records_per_s=1e9), bounds()).replicas == 1


@pytest.mark.parametrize("capacity", [None, 0.0, 1e-320])
def test_an_unknown_capacity_keeps_what_runs_and_starts_one_where_there_is_work(
    capacity: float | None,
) -> None:
    need = required(snapshot(capacity_records_per_s=capacity, replicas_now=5), bounds())
    assert (need.replicas, need.bound) == (5, "capacity_unknown")
    assert required(snapshot(capacity_records_per_s=capacity, replicas_now=0), bounds()).replicas == 1


def zipf(exponent: float, partitions: int = 64, rate: float = 1000.0) -> np.ndarray[Any, Any]:
    shares = 1.0 / np.arange(1, partitions + 1) ** exponent
    return rate * np.random.default_rng(7).permutation(shares / shares.sum())


@pytest.mark.parametrize("assignor", ["sticky", "range"])
@pytest.mark.parametrize("exponent", [0.0, 0.3, 0.5, 0.8])
def test_the_fullest_worker_keeps_up(exponent: float, assignor: Any) -> None:
    loads = zipf(exponent)
    within = bounds(assignor=assignor)
    found = snapshot(arrivals=loads, arrivals_now=loads, capacity_records_per_s=max(80.0, loads.max() * 1.2))
    need = required(found, within)
    assert found.capacity_records_per_s is not None
    assert fullest(loads, found.owners, need.replicas, assignor) <= 0.95 * found.capacity_records_per_s
    feasible = fewest(
        loads, found.owners, assignor, capacity=0.95 * found.capacity_records_per_s, least=1, most=64
    )
    assert need.replicas <= max(feasible or 0, math.ceil(need.rate_term))


def test_a_partition_too_fast_for_any_worker_is_named_and_not_chased() -> None:
    loads = np.full(64, 10.0)
    loads[17] = 2000.0
    need = required(snapshot(arrivals=loads, arrivals_now=loads, capacity_records_per_s=200.0), bounds())
    assert need.unscalable == (17,)
    assert need.replicas <= 6  # 63 partitions of 10, and one worker that does nothing else


def test_a_partition_that_stands_still_is_left_out_and_is_work_all_the_same() -> None:
    backlog = np.zeros(4)
    backlog[2] = 1e6
    found = Snapshot(
        arrivals=np.zeros(4), arrivals_now=np.zeros(4), backlog=backlog, owners=np.zeros(4, np.int64), oldest_age_s=900.0,
        capacity_records_per_s=10.0, startup_s=1.0, rebalance_s=1.0, horizon_s=10.0, replicas_now=1, left_out={2: "unreadable"},
    )  # fmt: skip
    need = required(found, bounds())
    assert (need.replicas, need.active) == (1, True)


@given(
    st.integers(1, 100),
    st.lists(st.integers(-1, 60), min_size=1, max_size=120),
    st.sampled_from(["sticky", "range"]),
)
def test_an_assignor_gives_every_partition_to_somebody_by_count(
    members: int, held: list[int], assignor: Any
) -> None:
    owners = np.array(held)
    placed = assign(owners, members, assignor)
    counts = np.bincount(placed, minlength=members)
    assert len(placed) == len(owners)
    assert counts.max() - counts.min() <= 1
    if assignor == "range":
        assert (np.diff(placed) >= 0).all()
        return
    # Sticky: nobody takes more than the balance asks for.
    before = np.bincount(owners[(owners >= 0) & (owners < members)], minlength=members)
    kept = int(((placed == owners) & (owners >= 0)).sum())
    share = np.sort(np.full(members, len(owners) // members) + (np.arange(members) < len(owners) % members))
    assert kept == int(np.minimum(np.sort(before), share).sum())


@given(snapshots, limits)
def test_a_need_stays_within_its_bounds_and_every_term_is_a_number(what: Snapshot, within: Bounds) -> None:
    need = required(what, within)
    assert within.min_replicas <= need.replicas <= max(within.max_replicas, within.min_replicas)
    assert need.replicas <= max(
        math.ceil(what.partitions / within.workers_per_replica), within.min_replicas, 1
    )
    assert not any(math.isnan(term) for term in (need.rate_term, need.drain_term, need.drain_s))
    assert need.active == (what.backlog.sum() > 0 or bool((what.arrivals > 0).any()))
    assert need.replicas >= (1 if need.active else 0)
    assert need.load <= max(need.replicas, 1)


@pytest.mark.parametrize(
    "field", ["oldest_age_s", "startup_s", "horizon_s", "capacity_records_per_s", "arrivals", "backlog"]
)
@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0])
def test_what_is_no_number_is_refused_where_it_comes_in(field: str, number: float) -> None:
    wrong: Any = np.full(64, number) if field in ("arrivals", "backlog") else number
    with pytest.raises(InvariantError):
        snapshot(**{field: wrong} if field != "backlog" else {"backlog": number * 64})


def needs(replicas: int, *, enough: int | None = None, load: int | None = None, active: bool = True) -> Need:
    return Need(
        replicas=replicas, load=replicas if load is None else load, enough=replicas if enough is None else enough,
        active=active, rate_term=float(replicas), packing_term=0, drain_term=0.0, drain_s=30.0, bound="rate",
    )  # fmt: skip


def decided(steadier: Steadier, need: Need, at_s: float, running: int = 2, **changes: Any) -> tuple[int, str]:
    plan = steadier.decide(need, snapshot(replicas_now=running, **changes), now_s=at_s)
    return plan.replicas, plan.bound


def test_up_at_once_and_down_late() -> None:
    held = Steadier(bounds(hold_s=300))
    assert decided(held, needs(2), 0)[0] == 2
    assert decided(held, needs(8), 10) == (8, "rate")
    assert decided(held, needs(3), 20, 8) == (8, "held")
    assert decided(held, needs(3), 309, 8)[0] == 8
    assert decided(held, needs(3), 311, 8) == (3, "rate")


def test_workers_that_take_long_to_come_back_are_kept_for_longer() -> None:
    held = Steadier(bounds(hold_s=300))
    assert decided(held, needs(8), 0, 8, horizon_s=200.0)[0] == 8
    assert decided(held, needs(3), 799, 8, horizon_s=200.0) == (8, "held")
    assert decided(held, needs(3), 801, 8, horizon_s=200.0) == (3, "rate")


def test_what_was_for_the_backlog_only_is_not_kept_for_the_whole_hold() -> None:
    held = Steadier(bounds(hold_s=300))
    assert decided(held, needs(20, load=5), 0, 5, horizon_s=30.0)[0] == 20
    assert decided(held, needs(5), 50, 20, horizon_s=30.0) == (20, "held")
    assert decided(held, needs(5), 61, 20, horizon_s=30.0) == (5, "rate")


def test_a_change_that_brings_little_is_not_made() -> None:
    held = Steadier(bounds(hold_s=10))
    decided(held, needs(20), 0, 20)
    assert decided(held, needs(21, enough=20), 1, 20) == (20, "kept")
    assert decided(held, needs(22, enough=21), 2, 20) == (22, "rate")
    assert decided(held, needs(20), 60, 22) == (22, "kept")
    assert decided(held, needs(18), 120, 22) == (18, "rate")


@pytest.mark.parametrize(
    ("wanted", "running", "told"),
    [
        (19, 22, 19),
        (18, 20, 20),
        (17, 19, 17),
        (9, 10, 10),
        (8, 10, 8),
        (6, 7, 7),
        (5, 6, 5),
        (2, 3, 2),
        (0, 1, 1),
    ],
)
def test_a_group_shrinks_by_two_or_by_15_percent_and_past_the_autoscalers_tolerance(
    wanted: int, running: int, told: int
) -> None:
    held = Steadier(bounds(hold_s=10, min_replicas=1))
    decided(held, needs(running), 0, running)
    assert decided(held, needs(max(wanted, 1)), 60, running)[0] == told


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"oldest_age_s": 20.0}, "records have waited for 20 s"),
        ({"starting": 2}, "2 workers are starting"),
        ({"quiet": False}, "changed hands"),
        ({"left_out": {3: "no record was finished"}}, "partition 3 stands still"),
    ],
)
def test_nobody_is_taken_away_while_something_is_wrong(changes: dict[str, Any], why: str) -> None:
    steadier = Steadier(bounds(hold_s=10))
    steadier.decide(needs(9), snapshot(replicas_now=9), now_s=0)
    plan = steadier.decide(needs(2), snapshot(replicas_now=9, **changes), now_s=100)
    assert (plan.replicas, plan.bound) == (9, "unhealthy")
    assert why in plan.why
    assert steadier.decide(needs(2), snapshot(replicas_now=9), now_s=101).replicas == 2


def test_a_scaler_that_was_restarted_does_not_shrink_what_it_found() -> None:
    held = Steadier(bounds(hold_s=300))
    assert decided(held, needs(1), 0, 6) == (6, "settling")
    assert decided(held, needs(1), 299, 6)[0] == 6
    assert decided(held, needs(1), 301, 6)[0] == 1


def test_a_scaler_that_was_just_started_says_neither_zero_nor_inactive() -> None:
    held = Steadier(bounds())
    for at_s in (0, 2, 28):
        plan = held.decide(
            needs(0, active=False), snapshot(rate=0, replicas_now=4, watched_s=float(at_s)), now_s=at_s
        )
        assert (plan.published, plan.active, plan.bound) == (4, True, "settling")
    plan = held.decide(needs(0, active=False), snapshot(rate=0, replicas_now=4, watched_s=31.0), now_s=31)
    assert (plan.published, plan.active) == (0, False)


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("most", [1, 2, 7, 16, 64, 150])
def test_the_autoscaler_reaches_what_is_wanted_from_wherever_it_is(most: int, tolerance: float) -> None:
    """From one below the maximum as well, where the maximum is nearer than the tolerance: 62 of 64 would stay 62 for ever."""
    limits = bounds(max_replicas=most, tolerance=tolerance)
    for running in range(1, most + 1):
        for wanted in range(running, most + 1):
            told = past_tolerance(wanted, running, limits)
            moves = not 1 - tolerance <= told / running <= 1 + tolerance  # as the autoscaler reckons
            reached = min(told, most) if moves else running
            assert wanted <= reached <= max(wanted, int(running * (1 + tolerance) + 1e-6) + 1)


def test_going_idle_is_not_held_back() -> None:
    held = Steadier(bounds(hold_s=300))
    assert decided(held, needs(5), 0, 0)[0] == 5
    assert decided(held, needs(0, active=False), 1, 5)[0] == 0
    assert decided(held, needs(1), 2, 5)[0] == 1


@pytest.mark.parametrize(
    ("wanted", "running", "told"),
    [(11, 10, 12), (12, 10, 12), (10, 10, 10), (9, 10, 9), (104, 100, 111), (1, 0, 1), (2, 1, 2)],
)
def test_a_number_within_the_autoscalers_tolerance_is_told_beyond_it(
    wanted: int, running: int, told: int
) -> None:
    assert past_tolerance(wanted, running, bounds()) == told
    ratio = told / max(running, 1)
    moves = abs(ratio - 1.0) > 0.1  # as the autoscaler reckons
    assert moves or told <= running or not running


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50)), min_size=1, max_size=40))
def test_the_number_is_never_less_than_needed_nor_more_than_was_ever_needed(
    steps: list[tuple[float, int]],
) -> None:
    held, now_s, seen = Steadier(bounds(hold_s=100)), 0.0, list[int]()
    for step_s, replicas in steps:
        now_s += step_s
        seen.append(replicas)
        assert replicas <= decided(held, needs(replicas), now_s, 0)[0] <= max(seen)


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


def test_a_rate_window_forgets() -> None:
    window = RateWindow(window_s=10)
    window.start(now_s=0.0)
    for second in range(20):
        window.add(now_s=second + 0.5, records=50, busy_s=0.1)
    records_per_s, busy_ratio = window.rates(now_s=20.0)
    assert records_per_s == pytest.approx(50, rel=0.11)
    assert busy_ratio == pytest.approx(0.1, rel=0.11)
    assert window.rates(now_s=40.0) == (0.0, 0.0)
