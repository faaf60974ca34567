"""The breaker against the plainest way to say what it does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.pipeline.rejection_limit import Breaker, PartitionBreakers
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
                breaker.observe(np.array(batch, dtype=np.bool_), rejections_of(batch), np.arange(len(batch)))
            return
        breaker.observe(np.array(batch, dtype=np.bool_), rejections_of(batch), np.arange(len(batch)))
    assert expected is None


def test_the_sentence_says_which_reason_dominates() -> None:
    breaker = Breaker(run_max=4, share_max=1.0, window=100)
    breaker.observe(
        np.array([False, True]), rejections_of([False, True], Reason.NULL_VALUE), np.array([4, 6])
    )
    bad = [True] * 3
    with pytest.raises(
        TooManyRejectedError,
        match=r"4 records in a row were rejected, from offset 6 on.*3 of 4 for corrupt at decode.*an index that cannot be",
    ):
        breaker.observe(np.array(bad), rejections_of(bad), np.arange(7, 10))


def test_what_has_tripped_stays_tripped() -> None:
    breaker = Breaker(run_max=1, share_max=1.0, window=100)
    for bad in (True, False):
        with pytest.raises(TooManyRejectedError):
            breaker.observe(np.array([bad]), rejections_of([bad]), np.array([0]))


@given(
    batches=st.lists(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=12), max_size=12),
    run_max=st.integers(1, 6),
)
def test_each_partition_is_judged_by_its_own_records(
    batches: list[list[tuple[int, bool]]], run_max: int
) -> None:
    """As three streams apart would be; the share plays no part here, and good records in between break what they share."""
    batches = [[*((3, False) for _ in range(len(batch) > 0)), *batch, (3, False)] for batch in batches]
    batches = [[each for pair in batch for each in (pair, (3, False))] for batch in batches]
    breakers = PartitionBreakers(run_max=run_max, share_max=1.0, window=1000)
    history: dict[int, list[bool]] = {0: [], 1: [], 2: [], 3: []}
    tripped: set[int] = set()
    for batch in batches:
        partitions = np.array([partition for partition, _ in batch], dtype=np.int32)
        bad = np.array([each for _, each in batch], dtype=np.bool_)
        places = (partitions, np.arange(len(batch), dtype=np.int64))
        found = breakers.observe(lambda places=places: places, bad, rejections_of(bad.tolist()))  # type: ignore[misc]
        for partition, each in batch:
            history[partition].append(each)
        expected = {
            partition
            for partition, outcomes in history.items()
            if trips_at(outcomes, run_max=run_max, share_max=1.0, window=1000) is not None
        }
        assert found.keys() | tripped == expected
        tripped |= found.keys()


def test_a_flood_of_records_without_a_value_names_the_setting_that_skips_them() -> None:
    breaker = Breaker(run_max=2, share_max=1.0, window=100)
    with pytest.raises(TooManyRejectedError, match=r"input\.null_value: skip"):
        breaker.observe(np.array([True, True]), rejections_of([True, True], Reason.NULL_VALUE), np.arange(2))


def observed(breakers: PartitionBreakers, partitions: list[int], bad: list[bool]) -> set[int]:
    places = (np.array(partitions, np.int32), np.arange(len(bad), dtype=np.int64))
    return set(breakers.observe(lambda: places, np.array(bad), rejections_of(bad)))


def test_a_fault_of_all_partitions_stops_them_together() -> None:
    """In whatever batches they come, and long before each of them has its own run."""
    breakers = PartitionBreakers(run_max=100, share_max=1.0, window=1000)
    assert observed(breakers, [0, 1, 2, 3] * 20, [True] * 80) == set()
    assert observed(breakers, [0, 1, 2, 3] * 5, [True] * 20) == {0, 1, 2, 3}


def test_one_bad_record_beside_a_flood_stops_only_the_flood() -> None:
    breakers = PartitionBreakers(run_max=100, share_max=1.0, window=1000)
    assert observed(breakers, [0] * 60 + [1] + [0] * 39, [True] * 100) == {0}


def test_good_records_in_between_end_what_partitions_share() -> None:
    breakers = PartitionBreakers(run_max=100, share_max=1.0, window=1000)
    for _ in range(9):
        assert observed(breakers, [0, 1] * 5 + [2], [True] * 10 + [False]) == set()


def test_a_shared_fault_that_ends_inside_a_batch_stops_its_partitions_whatever_follows() -> None:
    """What follows in the same batch may be a whole window of good records, which a partition's own breaker goes by."""
    breakers = PartitionBreakers(run_max=20, share_max=1.0, window=50)
    assert observed(breakers, [0, 1] * 10 + [0, 1] * 60, [True] * 20 + [False] * 120) == {0, 1}


def test_in_a_batch_of_many_partitions_each_has_its_own_rejections() -> None:
    breakers = PartitionBreakers(run_max=3, share_max=1.0, window=50)
    partitions = np.array([5, 9, 5, 9, 7, 5], np.int32)
    bad = [True, False, True, False, True, True]
    places = (partitions, np.arange(100, 106, dtype=np.int64))
    (found,) = breakers.observe(lambda: places, np.array(bad), rejections_of(bad)).items()
    assert found[0] == 5
    assert "from offset 100 on" in found[1]
    assert "3 of 3 for corrupt at decode" in found[1]
