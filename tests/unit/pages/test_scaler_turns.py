"""What the scaler forecast, beside what came true."""

import itertools

import hypothesis.strategies as st
import pytest
from hypothesis import given

from penstock.engine.pages.scaler_turns import Turn, came_true, due_min, forecasts_due


def turn(at_s: float, *, arrival: float, forecast: float, horizon_s: float = 60.0) -> Turn:
    return Turn(
        at_ms=round(at_s * 1000), running=1, published=1, arrival_records_per_s=arrival, forecast_records_per_s=forecast, horizon_s=horizon_s,
    )  # fmt: skip


made = st.lists(
    st.tuples(
        st.floats(0.5, 5.0), st.floats(0.0, 1e5), st.floats(0.0, 1e5), st.sampled_from([10.0, 60.0, 125.5])
    ),
    max_size=60,
)


@given(made)
def test_each_moment_is_beside_what_was_last_forecast_for_it_or_before(
    drawn: list[tuple[float, float, float, float]],
) -> None:
    times = list(itertools.accumulate(pause_s for pause_s, *_ in drawn))
    turns = [
        turn(at_s, arrival=arrival, forecast=forecast, horizon_s=horizon_s)
        for at_s, (_, arrival, forecast, horizon_s) in zip(times, drawn, strict=True)
    ]
    for now, found in zip(turns, forecasts_due(turns), strict=True):
        due = [each for each in turns if each.at_ms + each.horizon_s * 1000 <= now.at_ms]
        expected = max(due, key=lambda each: (each.at_ms + each.horizon_s * 1000, each.forecast_records_per_s), default=None)  # fmt: skip
        assert found == (None if expected is None else expected.forecast_records_per_s)


@pytest.mark.parametrize(("grows", "exceeded", "ratio"), [(1.0, 0.0, 0.5), (2.4, 1.0, 1.2)])
def test_forecasts_are_held_against_what_arrived(grows: float, exceeded: float, ratio: float) -> None:
    turns = [turn(2.0 * each, arrival=100.0 * grows, forecast=200.0) for each in range(100)]
    found = came_true(turns)
    assert found is not None
    assert found.exceeded == exceeded
    assert found.ratio == pytest.approx(ratio)
    assert found.minutes == pytest.approx((198 - 60) / 60)


def test_too_little_and_nothing_at_all_say_nothing() -> None:
    assert came_true([]) is None
    assert came_true([turn(2.0 * each, arrival=0.0, forecast=0.0) for each in range(100)]) is None
    few = [turn(2.0 * each, arrival=1.0, forecast=1.0) for each in range(30 + due_min - 1)]
    assert came_true(few) is None
