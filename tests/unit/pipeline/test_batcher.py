"""When a batch is closed, against the objective and the cost curve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.pipeline.batcher import (
    Batch,
    Batcher,
    CloseReason,
    CostCurve,
    Poll,
    rows_within_objective,
)
from penstock.schemas.errors import ConfigError
from penstock.schemas.records import Records

cost = CostCurve([(1, 0.001), (100, 0.010)])


def poll(rows: int, *, at_s: float = 0.0) -> Poll:
    records = Records(
        topic="t",
        partitions=np.zeros(rows, np.int32),
        offsets=np.arange(rows),
        timestamps_ms=np.zeros(rows, np.int64),
        keys=[None] * rows,
        values=[b""] * rows,
    )
    return Poll(records=records, spans=(), polled_at_s=at_s)


def batcher(*, rows_max: int = 100, latency_slo_s: float = 0.1) -> Batcher:
    return Batcher(rows_max=rows_max, latency_slo_s=latency_slo_s, cost=cost)


def test_an_idle_compute_side_gets_what_is_there_at_once() -> None:
    waiting = batcher()
    waiting.add(poll(1))
    batch = waiting.take(now_s=0.0, queued_rows=0, generation=3)
    assert batch is not None
    assert (batch.rows, batch.reason, batch.generation) == (1, CloseReason.IDLE, 3)
    assert waiting.take(now_s=0.0, queued_rows=0, generation=3) is None


def test_a_busy_compute_side_lets_the_batch_grow_until_it_is_full() -> None:
    waiting = batcher()
    waiting.add(poll(60))
    assert waiting.take(now_s=0.0, queued_rows=10, generation=0) is None
    waiting.add(poll(40))
    batch = waiting.take(now_s=0.0, queued_rows=10, generation=0)
    assert batch is not None
    assert (batch.rows, batch.reason) == (100, CloseReason.FULL)


def test_no_record_is_held_past_half_the_objective() -> None:
    waiting = batcher(latency_slo_s=0.1)
    waiting.add(poll(1, at_s=5.0))
    ahead_s, own_s = cost.seconds(10), cost.seconds(2)
    close_at_s = 5.0 + 0.05 - ahead_s - own_s
    assert waiting.take(now_s=close_at_s - 1e-6, queued_rows=10, generation=0) is None
    batch = waiting.take(now_s=close_at_s + 1e-6, queued_rows=10, generation=0)
    assert batch is not None
    assert batch.reason is CloseReason.DEADLINE


@given(st.lists(st.tuples(st.integers(1, 40), st.booleans()), max_size=40))
def test_every_poll_comes_out_once_in_order_and_no_batch_is_over_the_limit(
    steps: list[tuple[int, bool]],
) -> None:
    waiting = batcher()
    fed: list[Poll] = []
    out: list[Poll] = []
    for step, (rows, busy) in enumerate(steps):
        if rows <= waiting.room:
            fed.append(poll(rows, at_s=float(step)))
            waiting.add(fed[-1])
        batch = waiting.take(now_s=float(step), queued_rows=50 if busy else 0, generation=0)
        if batch is not None:
            assert batch.rows <= 100
            out += batch.polls
    if (rest := waiting.take(now_s=1e6, queued_rows=0, generation=0)) is not None:
        out += rest.polls
    assert [id(p) for p in out] == [id(p) for p in fed]


def test_the_cost_curve_is_exact_at_its_points_and_between_them_linear() -> None:
    assert cost.seconds(1) == pytest.approx(0.001)
    assert cost.seconds(100) == pytest.approx(0.010)
    assert cost.seconds(50) == pytest.approx(0.001 + 0.009 * 49 / 99)
    assert cost.seconds(200) == pytest.approx(0.020)
    with pytest.raises(ConfigError):
        CostCurve([])
    with pytest.raises(ConfigError):
        CostCurve([(8, 0.1), (4, 0.1)])


def test_a_batch_is_no_larger_than_half_the_objective_allows() -> None:
    waiting = batcher(latency_slo_s=0.010)  # 5 ms for a batch: 45 rows by the curve
    assert waiting.room == 45
    assert cost.seconds(45) <= 0.005 < cost.seconds(46)
    waiting.add(poll(45))
    batch = waiting.take(now_s=0.0, queued_rows=10, generation=0)
    assert batch is not None
    assert (batch.rows, batch.reason) == (45, CloseReason.COST)


def test_an_objective_that_one_row_takes_whole_still_gets_batches() -> None:
    fixed = CostCurve([(1, 0.040), (1000, 0.050), (10_000, 0.140)])
    assert rows_within_objective(fixed, 0.050, rows_max=100_000) in (3999, 4000)  # 80 ms
    slow = CostCurve([(1, 1.0), (10, 10.0)])
    assert rows_within_objective(slow, 0.050, rows_max=4096) == 2


@given(
    st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=8),
    st.floats(1e-6, 2.0),
    st.integers(1, 500),
)
def test_the_rows_that_fit_are_all_that_fit(seconds: list[float], allowed_s: float, rows_max: int) -> None:
    curve = CostCurve([(4**power, each) for power, each in enumerate(seconds)])
    fits = curve.rows_within(allowed_s, rows_max=rows_max)
    assert 1 <= fits <= rows_max
    if fits > 1:
        assert curve.seconds(fits) <= allowed_s
    if fits < rows_max and curve.seconds(fits) <= allowed_s:  # a first row over it stands alone
        assert curve.seconds(fits + 1) > allowed_s


def _computed(rows: int) -> Batch:
    return Batch(polls=(poll(rows),), generation=0, reason=CloseReason.IDLE)


def test_the_curve_follows_what_batches_take() -> None:
    curve = CostCurve([(1, 0.001), (10, 0.002), (100, 0.010)])
    waiting = Batcher(rows_max=100, latency_slo_s=0.03, cost=curve)
    assert waiting.room == 100
    for _ in range(200):
        waiting.computed(_computed(100), took_s=0.030)
    assert curve.seconds(100) == pytest.approx(0.030, rel=0.01)
    assert curve.seconds(1) == pytest.approx(0.001)  # what was not seen stays as measured
    assert curve.seconds(waiting.room) <= 0.015 < curve.seconds(waiting.room + 1)
    for _ in range(200):
        waiting.computed(_computed(100), took_s=0.010)
    assert waiting.room == 100


def test_a_pause_of_the_machine_teaches_little() -> None:
    curve = CostCurve([(100, 0.010)])
    curve.learn(100, 60.0)
    assert 0.010 < curve.seconds(100) < 0.014
    curve.learn(100, 0.0)  # a clock that stood still teaches nothing
    assert curve.seconds(100) < 0.014
