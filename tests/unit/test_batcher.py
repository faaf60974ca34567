"""When a batch is closed, against the objective and the cost curve."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batcher import Batcher, CloseReason, CostCurve, Poll
from schemas.errors import ConfigError
from schemas.records import Records

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
    fed, out = [], []
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
