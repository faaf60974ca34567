"""The pace of a turn, row by row of the table in its module."""

import math

import pytest

from penstock.engine.pipeline.pacing import (
    CommitBySource,
    CommitInTransaction,
    CommitPolicy,
    Pace,
    PipelineLimits,
    UnderWay,
    pace,
)

limits = PipelineLimits()


def _under_way(**changes: float) -> UnderWay:
    parts = {"rows": 0, "finished_rows": 0, "deliveries": 0, "expected_s": 0.0, "unfinished": 0} | changes
    return UnderWay(**parts)  # type: ignore[arg-type]


def _pace(policy: CommitPolicy, **changes: float) -> Pace:
    return pace(_under_way(**changes), policy, limits)


@pytest.mark.parametrize("policy", [CommitInTransaction(), CommitBySource()])
def test_with_nothing_under_way_the_next_record_is_waited_for(policy: CommitPolicy) -> None:
    assert _pace(policy).poll_wait_s == limits.idle_poll_s
    assert _pace(policy, unfinished=1).poll_wait_s == 0.0


@pytest.mark.parametrize("policy", [CommitInTransaction(), CommitBySource()])
@pytest.mark.parametrize(
    "much", [{"rows": limits.beside_records_min}, {"rows": 10, "expected_s": 0.01}, {"expected_s": math.inf}]
)
def test_with_much_under_way_no_wait_is_long(policy: CommitPolicy, much: dict[str, float]) -> None:
    found = _pace(policy, deliveries=1, unfinished=1, **much)
    assert not found.quick
    assert (found.poll_wait_s, found.broker_wait_s) == (0.0, limits.busy_wait_s)


def test_exactly_once_at_low_load_the_open_transaction_ends_first() -> None:
    found = _pace(CommitInTransaction(), rows=5, deliveries=1, unfinished=5)
    assert found == Pace(
        quick=True, poll_wait_s=0.0, broker_wait_s=limits.quick_wait_s, waits_for_compute=False, sends=False
    )


def test_at_least_once_at_low_load_only_the_next_record_is_waited_for() -> None:
    found = _pace(CommitBySource(), rows=5, deliveries=1, unfinished=5)
    assert found == Pace(
        quick=True, poll_wait_s=limits.busy_wait_s, broker_wait_s=0.0, waits_for_compute=True, sends=True
    )
    many = _pace(CommitBySource(), rows=5, deliveries=limits.quick_deliveries_max, unfinished=5)
    assert (many.poll_wait_s, many.broker_wait_s) == (0.0, limits.quick_wait_s)


@pytest.mark.parametrize(
    ("finished", "sends"), [(limits.beside_records_min - 1, False), (limits.beside_records_min, True)]
)
def test_only_a_large_transaction_begins_beside_another(finished: int, sends: bool) -> None:
    assert _pace(CommitInTransaction(), deliveries=1, finished_rows=finished, unfinished=1).sends == sends
    assert _pace(CommitInTransaction(), finished_rows=finished, unfinished=1).sends


def test_the_source_commits_an_interval_after_the_first_acknowledgement() -> None:
    commits = CommitBySource()
    assert not commits.is_due(1e9)
    commits.delivered(10.0, limits)
    commits.delivered(10.05, limits)
    assert not commits.is_due(10.09)
    assert commits.is_due(10.1)
    assert commits.take_commit()
    assert not commits.take_commit()
    assert not commits.is_due(1e9)


def test_with_transactions_the_source_never_commits() -> None:
    commits = CommitInTransaction()
    commits.delivered(10.0, limits)
    assert not commits.is_due(1e9)
    assert not commits.take_commit()
