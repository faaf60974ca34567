"""The breaker against the plainest way to say what it does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.pipeline.rejection_limit import Breaker
from penstock.schemas.errors import TooManyRejectedError
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Rejection


def trips_at(outcomes: list[bool], *, run_max: int, share_max: float, window: int) -> int | None:
    """The first record after which the worker must stop."""
    for end in range(1, len(outcomes) + 1):
        last_run = outcomes[max(0, end - run_max) : end]
        last_window = outcomes[max(0, end - window) : end]
        if len(last_run) == run_max and all(last_run):
            return end
        if len(last_window) == window and round(sum(last_window) - share_max * window, 6) > 0:
            return end
    return None


def rejections_of(bad: list[bool], reason: Reason = Reason.CORRUPT) -> list[Rejection]:
    return [
        Rejection(index=index, stage=Stage.DECODE, reason=reason, detail="an index that cannot be")
        for index, each in enumerate(bad)
        if each
    ]


@given(
    batches=st.lists(st.lists(st.booleans(), max_size=12), max_size=12),
    run_max=st.integers(1, 8),
    share_max=st.sampled_from([0.1, 0.25, 0.29, 0.5, 0.9, 1.0]),
    window=st.integers(1, 20),
)
def test_it_stops_in_the_batch_in_which_a_limit_is_passed(
    batches: list[list[bool]], run_max: int, share_max: float, window: int
) -> None:
    breaker = Breaker(run_max=run_max, share_max=share_max, window=window)
    expected = trips_at(
        [bad for batch in batches for bad in batch], run_max=run_max, share_max=share_max, window=window
    )
    seen = 0
    for batch in batches:
        seen += len(batch)
        if expected is not None and expected <= seen:
            with pytest.raises(TooManyRejectedError):
                breaker.observe(np.array(batch, dtype=np.bool_), rejections_of(batch))
            return
        breaker.observe(np.array(batch, dtype=np.bool_), rejections_of(batch))
    assert expected is None


def test_the_sentence_says_which_reason_dominates() -> None:
    breaker = Breaker(run_max=4, share_max=1.0, window=100)
    breaker.observe(np.array([False, True]), rejections_of([False, True], Reason.NULL_VALUE))
    bad = [True] * 3
    with pytest.raises(
        TooManyRejectedError,
        match=r"4 records in a row.*3 of 4 for corrupt at decode.*an index that cannot be",
    ):
        breaker.observe(np.array(bad), rejections_of(bad))


def test_what_has_tripped_stays_tripped() -> None:
    breaker = Breaker(run_max=1, share_max=1.0, window=100)
    for bad in (True, False):
        with pytest.raises(TooManyRejectedError):
            breaker.observe(np.array([bad]), rejections_of([bad]))
