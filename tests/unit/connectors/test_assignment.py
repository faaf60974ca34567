"""A partition whose fetcher ended before it was sent to its beginning is given anew, and no other is."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from penstock.connectors.kafka.reading.assignment import Assignment, refused_max_s
from tests.clocks import HandClock


class Fetchers:
    """librdkafka's: one that ended refuses every seek."""

    def __init__(self) -> None:
        self.started: dict[int, int] = {}
        self.paused: set[int] = set()

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        self.started |= {place.partition: place.offset for place in places}

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        for place in places:
            self.started.pop(place.partition, None)

    def pause(self, places: list[TopicPartition]) -> None:
        self.paused |= {place.partition for place in places}

    def resume(self, places: list[TopicPartition]) -> None:
        self.paused -= {place.partition for place in places}

    def seek(self, place: TopicPartition) -> None:
        if place.partition not in self.started:
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.started[place.partition] = place.offset


def made() -> tuple[Assignment, Any, HandClock]:
    fetchers, clock = Fetchers(), HandClock()
    consumer: Any = fetchers
    return Assignment(consumer, "t", clock=clock), fetchers, clock


def sought(ours: Assignment, clock: HandClock, partition: int, offset: int) -> float | None:
    """As the source does it, at each poll: after how many seconds it went through."""
    began_s = clock.now_s
    for _ in range(100):
        if ours.seek(partition, offset):
            return clock.now_s - began_s
        clock.sleep(0.05)
    return None


@pytest.mark.parametrize("ended", [False, True])
def test_one_that_waited_for_its_beginning_begins(ended: bool) -> None:
    ours, fetchers, clock = made()
    ours.take({0, 1}, {})
    if ended:
        del fetchers.started[0]
    took_s = sought(ours, clock, 0, 7)
    assert took_s is not None
    assert took_s == pytest.approx(refused_max_s if ended else 0.0, abs=0.06)
    ours.place([0])
    assert fetchers.started[0] == 7
    assert fetchers.paused == {1}


def test_a_fetcher_that_is_between_two_states_is_left_alone() -> None:
    ours, fetchers, clock = made()
    ours.take({0}, {0: 3})
    for _ in range(3):
        at = fetchers.started.pop(0)
        assert not ours.seek(0, 7)
        clock.sleep(0.9 * refused_max_s)
        assert not ours.seek(0, 7)
        fetchers.started[0] = at
        assert ours.seek(0, 7)


@pytest.mark.parametrize("how", ["paused", "held"])
def test_one_that_is_to_stand_still_is_not_given_anew(how: str) -> None:
    ours, fetchers, clock = made()
    ours.take({0}, {0: 7})
    ours.owned |= {0}
    ours.pause() if how == "paused" else ours.hold([0], ())
    fetchers.started.clear()
    assert sought(ours, clock, 0, 7) is None
    assert fetchers.paused == {0}
    ours.resume(()) if how == "paused" else ours.hold([], ())
    assert sought(ours, clock, 0, 7) is not None
    assert fetchers.started == {0: 7}
