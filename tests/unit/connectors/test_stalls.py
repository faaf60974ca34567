"""A partition that is behind and brings nothing is looked into before anything is said of it."""

import time
from collections.abc import Mapping

import pytest

from penstock.connectors.kafka.admin.group_offsets import PartitionOffsets
from penstock.connectors.kafka.reading.stalls import StallDetector, Stalls, stalled_after_s
from tests.clocks import HandClock


def found(
    partition: int, *, end: int = 100, high: int = 100, oldest_ms: int | None = 1, fault: str = ""
) -> PartitionOffsets:
    return PartitionOffsets(
        partition=partition,
        earliest=0,
        end=end,
        high=high,
        committed=40,
        oldest_unfinished_timestamp_ms=oldest_ms,
        owner="w",
        fault=fault,
    )


class Broker:
    """Answers at once, and counts how often it is asked."""

    def __init__(self, *answer: PartitionOffsets) -> None:
        self.answer = list(answer)
        self.asked = 0

    def read(self, topic: str) -> list[PartitionOffsets]:
        self.asked += 1
        return self.answer

    def close(self) -> None:
        """Nothing is held."""


def look_until(
    detector: StallDetector,
    clock: HandClock,
    heads: Mapping[int, int],
    ends: Mapping[int, int],
    seconds: float,
) -> Stalls:
    """A look each second of the clock, with a moment in between for the thread that asks."""
    stalls = Stalls(stalled_s={}, open_transactions={})
    for _ in range(int(seconds)):
        clock.sleep(1.0)
        stalls = detector.look(heads, ends, ())
        time.sleep(0.002)
    return stalls


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.mark.parametrize(
    ("answer", "stalled", "waiting"),
    [
        (found(0), {0}, {}),
        (found(0, fault="cannot be parsed"), {0}, {}),
        (found(0, oldest_ms=None), set(), {}),  # commit markers, aborted records
        (found(0, end=40, high=100, oldest_ms=None), set(), {0: 60}),
    ],
)  # fmt: skip
def test_what_is_said_of_a_partition_that_brings_nothing(
    clock: HandClock, answer: PartitionOffsets, stalled: set[int], waiting: dict[int, int]
) -> None:
    broker = Broker(answer)
    detector = StallDetector(topic="t", open_offsets=lambda: broker, clock=clock)
    stalls = look_until(detector, clock, {0: 40}, {0: 100}, stalled_after_s - 1)
    assert (dict(stalls.stalled_s), broker.asked) == ({}, 0)
    stalls = look_until(detector, clock, {0: 40}, {0: 100}, 15)
    assert (set(stalls.stalled_s), dict(stalls.open_transactions)) == (stalled, waiting)
    assert broker.asked <= 3
    assert look_until(detector, clock, {0: 41}, {0: 100}, 2).stalled_s == {}  # it goes on


def test_a_partition_at_its_end_and_one_that_moves_are_no_suspects(clock: HandClock) -> None:
    broker = Broker(found(0), found(1))
    detector = StallDetector(topic="t", open_offsets=lambda: broker, clock=clock)
    for second in range(100):
        look_until(detector, clock, {0: 100, 1: second}, {0: 100, 1: 1000}, 1)
    assert broker.asked == 0
