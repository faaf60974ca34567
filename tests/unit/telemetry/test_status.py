"""Liveness and readiness say when killing helps and when records flow; rates forget what is long past."""

import pytest

from penstock.engine.telemetry.status import LivenessLimits, StatusBoard
from penstock.engine.telemetry.worker_status import ModelIdentity, WorkerState

model = ModelIdentity(name="m", version="1", digest="d", device="cpu")


class HandClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def board(clock: HandClock) -> StatusBoard:
    limits = LivenessLimits(beat_age_max_s=10, progress_age_max_s=60)
    return StatusBoard(worker="w", group="g", topic="t", clock=clock, rows_max=100, limits=limits)


def run_up(board: StatusBoard, assigned: tuple[int, ...] = (0, 1)) -> None:
    """Through the start to running."""
    board.verified(model)
    board.set_state(WorkerState.WARMING)
    board.set_state(WorkerState.JOINING)
    board.beat(in_flight_batches=0)
    board.rebalanced(assigned)


def test_a_worker_that_is_still_warming_up_is_live_however_long_it_takes(
    board: StatusBoard, clock: HandClock
) -> None:
    board.set_state(WorkerState.WARMING)
    clock.sleep(3600)
    assert board.live().ok
    assert not board.ready().ok


def test_a_polling_loop_that_stops_turning_is_not_live(board: StatusBoard, clock: HandClock) -> None:
    run_up(board)
    clock.sleep(9)
    assert board.live().ok
    clock.sleep(2)
    assert not board.live().ok
    assert "has not turned for 11 s" in board.live().reason
    board.beat(in_flight_batches=0)
    assert board.live().ok


def turn(board: StatusBoard, clock: HandClock, seconds: int, in_flight_batches: int) -> None:
    """The loop turns every second."""
    for _ in range(seconds):
        clock.sleep(1)
        board.beat(in_flight_batches=in_flight_batches)


def test_work_in_flight_that_does_not_move_is_not_live_though_the_loop_turns(
    board: StatusBoard, clock: HandClock
) -> None:
    run_up(board)
    turn(board, clock, 58, in_flight_batches=1)
    assert board.live().ok
    turn(board, clock, 5, in_flight_batches=1)
    assert not board.live().ok
    board.progressed()
    assert board.live().ok


def test_an_idle_worker_is_not_a_stalled_one(board: StatusBoard, clock: HandClock) -> None:
    run_up(board)
    turn(board, clock, 500, in_flight_batches=0)
    turn(board, clock, 30, in_flight_batches=1)
    assert board.live().ok


def test_ready_needs_verification_and_membership_and_ends_with_draining(board: StatusBoard) -> None:
    assert not board.ready().ok
    board.set_state(WorkerState.JOINING)
    board.rebalanced((0,))
    assert not board.ready().ok, "not verified"
    board.verified(model)
    assert board.ready().ok
    board.set_state(WorkerState.DRAINING)
    assert not board.ready().ok


def test_a_worker_without_partitions_is_ready_as_a_spare(board: StatusBoard) -> None:
    run_up(board, assigned=())
    assert not board.ready().ok  # nobody has said yet that the group knows it
    board.membership(True)
    assert board.ready().ok
    assert "spare" in board.ready().reason


def test_start_up_time_is_from_the_process_start_to_the_first_assignment(
    board: StatusBoard, clock: HandClock
) -> None:
    clock.sleep(3)
    run_up(board)
    clock.sleep(5)
    board.rebalanced((0,))
    assert board.status().startup_s == 3


def test_rates_are_over_the_last_minute_and_not_diluted_at_the_start(
    board: StatusBoard, clock: HandClock
) -> None:
    run_up(board)
    for _ in range(10):
        clock.sleep(1)
        board.finished(rows=100, busy_s=0.5)
    status = board.status()
    assert status.finished_records_per_s == pytest.approx(100)
    assert status.busy_ratio == pytest.approx(0.5)
    assert status.capacity_records_per_s == pytest.approx(200)
    assert status.records == 1000
    clock.sleep(61)
    assert board.status().finished_records_per_s == 0
    assert board.status().capacity_records_per_s == pytest.approx(200), (
        "idle says nothing of what it could do"
    )


def test_positions_are_of_assigned_partitions_only(board: StatusBoard) -> None:
    run_up(board)
    board.positions(offsets={0: 7, 1: 9}, oldest_ms={0: 1_000, 1: -1})
    board.rebalanced((1,))
    (position,) = board.status().positions
    assert (position.partition, position.offset, position.oldest_timestamp_ms) == (1, 9, -1)
