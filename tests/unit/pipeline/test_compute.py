"""The compute thread: order, bounds, retries, and what ends it."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from penstock.engine.pipeline.batcher import Batch, CloseReason, Poll
from penstock.engine.pipeline.compute import ComputeThread, Held
from penstock.engine.pipeline.scorer import Outcome
from penstock.schemas.errors import AccessRefusedError, InvariantError, PenstockError, UnavailableError
from penstock.schemas.records import Records
from penstock.schemas.waits import WaitKind


def batch(number: int, rows: int = 1) -> Batch:
    records = Records(
        topic="t",
        partitions=np.zeros(rows, np.int32),
        offsets=np.arange(number, number + rows, dtype=np.int64),
        timestamps_ms=np.zeros(rows, np.int64),
        keys=[None] * rows,
        values=[b""] * rows,
    )
    polled = Poll(records=records, spans=(), polled_at_s=0.0)
    return Batch(polls=(polled,), generation=0, reason=CloseReason.IDLE)


def outcome(records: Records) -> Outcome:
    return Outcome(
        outgoing=(),
        predicted=len(records),
        explained=0,
        skipped=0,
        rejections=(),
        bad=np.zeros(len(records), np.bool_),
        stage_s={},
    )


def error_of(error: BaseException) -> PenstockError:
    return error if isinstance(error, PenstockError) else InvariantError(repr(error))


def start(
    score: Callable[[Records], Outcome], require: Callable[[Records], object] = lambda _: None
) -> ComputeThread:
    return ComputeThread(score, batches_max=3, monotonic_s=time.monotonic, error_of=error_of, require=require)


def test_batches_come_back_in_order_and_the_hand_over_is_bounded() -> None:
    gate = threading.Event()

    def score(records: Records) -> Outcome:
        gate.wait(10)
        return outcome(records)

    compute = start(score)
    for number in range(3):
        assert compute.has_room()
        compute.submit(batch(number, rows=2))
    assert not compute.has_room()
    assert compute.queued_rows == 6
    assert compute.collect(0.0) is None
    gate.set()
    firsts: list[int] = []
    while len(firsts) < 3:
        finished = compute.collect(5.0)
        assert finished is not None
        firsts.append(int(finished.batch.polls[0].records.offsets[0]))
    assert firsts == [0, 1, 2]
    assert compute.queued_rows == 0
    compute.close(5.0)


def until(met: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 10.0
    while not met():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def of_partitions(*partitions: int) -> Batch:
    whole = batch(0, rows=len(partitions))
    records = replace(whole.polls[0].records, partitions=np.array(partitions, np.int32))
    return replace(whole, polls=(replace(whole.polls[0], records=records),))


def test_a_partition_that_must_wait_is_named_and_tried_again_between_other_batches() -> None:
    away = threading.Event()
    away.set()

    def require(records: Records) -> None:
        if away.is_set() and 1 in records.partitions:
            raise AccessRefusedError("the registry refuses")

    def score(records: Records) -> Outcome:
        require(records)
        return outcome(records)

    compute = start(score, require)
    compute.submit(of_partitions(0, 1, 2))
    finished = compute.collect(10.0)
    assert finished is not None
    held = Held(kind=WaitKind.REGISTRY, reason="the registry refuses", someone_must_act=True)
    assert finished.outcome is None
    assert finished.waiting == compute.waiting == {1: held}
    compute.submit(of_partitions(0, 2))
    others = compute.collect(10.0)
    assert others is not None
    assert others.outcome is not None
    compute.forget()  # a rewind changes nothing about what is waited for
    time.sleep(0.15)
    assert compute.waiting == {1: held}
    away.clear()
    until(lambda: not compute.waiting)
    compute.close(5.0)


def test_a_partition_that_is_given_away_is_not_tried_again() -> None:
    asked: list[int] = []

    def require(records: Records) -> None:
        asked.append(len(records))
        raise UnavailableError("away")

    def score(records: Records) -> Outcome:
        raise UnavailableError("away")

    compute = start(score, require)
    compute.submit(of_partitions(0, 0))
    assert compute.collect(10.0) is not None
    compute.let_go([0])
    assert not compute.waiting
    before = len(asked)
    time.sleep(0.3)
    assert len(asked) <= before + 1  # the one under way
    compute.close(5.0)


def test_what_can_be_had_again_at_the_second_look_delays_nothing() -> None:
    asked: list[int] = []

    def score(records: Records) -> Outcome:
        asked.append(int(records.offsets[0]))
        if len(asked) == 1:
            raise UnavailableError("the registry is away")
        return outcome(records)

    compute = start(score)
    compute.submit(batch(7))
    finished = compute.collect(10.0)
    assert finished is not None
    assert finished.outcome is not None
    assert not compute.waiting
    compute.close(5.0)


def fails(error: Exception) -> Callable[[Records], Outcome]:
    def raise_it(records: Records) -> Outcome:
        raise error

    return raise_it


def raised(compute: ComputeThread) -> None:
    end_s = time.monotonic() + 10.0
    while time.monotonic() < end_s:
        finished = compute.collect(0.1)
        assert finished is None or finished.waiting


def test_anything_unexpected_is_raised_to_who_collects() -> None:
    compute = start(fails(ZeroDivisionError()))
    compute.submit(batch(0))
    with pytest.raises(InvariantError, match="ZeroDivisionError"):
        raised(compute)
    compute.close(5.0)


def test_anything_unexpected_in_work_that_nobody_wants_any_more_is_raised_all_the_same() -> None:
    """The thread has ended: else the next batch would be waited for until somebody looks."""
    under_way, gate = threading.Event(), threading.Event()

    def score(records: Records) -> Outcome:
        under_way.set()
        gate.wait(10)
        raise ZeroDivisionError

    compute = start(score)
    compute.submit(batch(0))
    under_way.wait(10)
    compute.forget()
    gate.set()
    with pytest.raises(InvariantError, match="ZeroDivisionError"):
        raised(compute)
    compute.close(5.0)


@pytest.mark.parametrize("at", [1, 2, 3])
def test_anything_unexpected_while_it_is_asked_what_is_away_is_raised(at: int) -> None:
    """At the first question, while the batch is in hand, and at any later one, between batches."""
    asked = 0

    def require(records: Records) -> None:
        nonlocal asked
        asked += 1
        raise ZeroDivisionError if asked == at else UnavailableError("away")

    compute = start(fails(UnavailableError("away")), require)
    compute.submit(batch(0))
    with pytest.raises(InvariantError, match="ZeroDivisionError"):
        raised(compute)
    compute.close(5.0)


def test_what_turns_out_to_wait_after_it_was_let_go_is_not_tried_again() -> None:
    """The partition went to another worker while its records were being computed."""
    under_way, gate = threading.Event(), threading.Event()
    asked: list[int] = []

    def score(records: Records) -> Outcome:
        asked.append(len(records))
        under_way.set()
        gate.wait(10)
        if len(records) == 2:
            raise UnavailableError("no schema")
        return outcome(records)

    compute = start(score)
    compute.submit(batch(0, rows=2))
    under_way.wait(10)
    compute.forget()
    compute.let_go([0])
    gate.set()
    compute.submit(batch(5))
    finished = compute.collect(5.0)
    assert finished is not None
    assert finished.outcome is not None
    assert compute.waiting == {}
    assert asked == [2, 1]
    compute.close(5.0)


def test_whether_a_partition_must_wait_is_asked_without_computing_its_records() -> None:
    """Computing them only to learn that would count their values once more at each try."""
    away = threading.Event()
    away.set()
    scored: list[list[int]] = []

    def require(records: Records) -> None:
        if away.is_set() and 1 in records.partitions:
            raise UnavailableError("the registry is away")

    def score(records: Records) -> Outcome:
        scored.append(records.partitions.tolist())
        require(records)
        return outcome(records)

    compute = start(score, require)
    compute.submit(of_partitions(0, 1, 2))
    finished = compute.collect(10.0)
    assert finished is not None
    assert set(finished.waiting) == {1}
    away.clear()
    until(lambda: not compute.waiting)
    assert scored == [[0, 1, 2]]
    compute.close(5.0)


def test_where_the_question_is_answered_wrong_the_records_wait_and_are_not_computed_to_learn_when() -> None:
    """Neither is the same batch tried over and over without a pause, nor are its values counted at each try."""
    scored = 0

    def score(records: Records) -> Outcome:
        nonlocal scored
        scored += 1
        raise UnavailableError("something that the question does not know")

    compute = start(score)
    compute.submit(of_partitions(0, 1))
    finished = compute.collect(10.0)
    assert finished is not None
    held = Held(kind=WaitKind.REGISTRY, reason="something that the question does not know")
    assert finished.waiting == {0: held, 1: held}
    until(lambda: not compute.waiting)  # then the records are given again
    assert scored == 2
    compute.close(5.0)
