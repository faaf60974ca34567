"""The compute thread: order, bounds, retries, and what ends it."""

import threading
import time

import numpy as np
import pytest

from penstock.engine.pipeline.batcher import Batch, CloseReason, Poll
from penstock.engine.pipeline.compute import ComputeThread
from penstock.engine.pipeline.scorer import Outcome
from penstock.schemas.errors import InvariantError, PenstockError, UnavailableError
from penstock.schemas.records import Records


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


def start(score: object, batches_max: int = 3) -> ComputeThread:
    return ComputeThread(score, batches_max=batches_max, monotonic_s=time.monotonic, error_of=error_of)  # type: ignore[arg-type]


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
    firsts = []
    while len(firsts) < 3:
        finished = compute.collect(5.0)
        assert finished is not None
        firsts.append(int(finished.batch.polls[0].records.offsets[0]))
    assert firsts == [0, 1, 2]
    assert compute.queued_rows == 0
    compute.close(5.0)


def test_an_unavailable_part_is_asked_again_with_the_same_records() -> None:
    asked: list[int] = []

    def score(records: Records) -> Outcome:
        asked.append(int(records.offsets[0]))
        if len(asked) < 3:
            raise UnavailableError("the registry is away")
        return outcome(records)

    compute = start(score)
    compute.submit(batch(7))
    finished = compute.collect(10.0)
    assert finished is not None
    assert asked == [7, 7, 7]
    compute.close(5.0)


def test_a_forgotten_batch_is_given_up_even_while_it_is_retried() -> None:
    tried = threading.Event()

    def score(records: Records) -> Outcome:
        if int(records.offsets[0]) == 0:
            tried.set()
            raise UnavailableError("away")
        return outcome(records)

    compute = start(score)
    compute.submit(batch(0))
    assert tried.wait(10)
    compute.forget()
    assert compute.queued_rows == 0
    compute.submit(batch(1))
    finished = compute.collect(10.0)
    assert finished is not None
    assert int(finished.batch.polls[0].records.offsets[0]) == 1
    compute.close(5.0)


def test_anything_unexpected_comes_out_as_an_error() -> None:
    def score(records: Records) -> Outcome:
        raise ZeroDivisionError

    compute = start(score)
    compute.submit(batch(0))
    finished = compute.collect(10.0)
    assert finished is not None
    assert finished.outcome is None
    with pytest.raises(InvariantError, match="ZeroDivisionError"):
        raise finished.error or AssertionError
    compute.close(5.0)
