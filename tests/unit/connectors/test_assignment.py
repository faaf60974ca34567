"""A partition that the client was given and never began to read is given anew, and no other is."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from penstock.connectors.kafka.reading.assignment import Assignment, refused_max_s
from tests.clocks import HandClock


class Fetchers:
    """librdkafka's: what a pause overtakes is forgotten (`loses`), and then every seek is refused."""

    def __init__(self) -> None:
        self.loses = False
        self.started: dict[int, int] = {}
        self.paused: set[int] = set()

    def incremental_assign(self, places: list[TopicPartition]) -> None:
        self.started |= {place.partition: place.offset for place in places}

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        for place in places:
            self.started.pop(place.partition, None)

    def pause(self, places: list[TopicPartition]) -> None:
        self.paused |= {place.partition for place in places}
        if self.loses:
            self.incremental_unassign(places)

    def resume(self, places: list[TopicPartition]) -> None:
        self.paused -= {place.partition for place in places}

    def seek(self, place: TopicPartition) -> None:
        if place.partition not in self.started:
            raise KafkaException(KafkaError(KafkaError._STATE))
        self.started[place.partition] = place.offset


def made(loses: bool) -> tuple[Assignment, Any, HandClock]:
    fetchers, clock = Fetchers(), HandClock()
    fetchers.loses = loses
    consumer: Any = fetchers
    return Assignment(consumer, "t", clock=clock), fetchers, clock


def sought(ours: Assignment, clock: HandClock, partition: int, offset: int) -> bool:
    """As the source does it: again at each poll."""
    for _ in range(100):
        if ours.seek(partition, offset):
            return True
        clock.sleep(0.05)
    return False


@pytest.mark.parametrize("loses", [False, True])
def test_one_that_waited_for_its_beginning_begins(loses: bool) -> None:
    ours, fetchers, clock = made(loses)
    ours.take({0, 1}, {})
    assert fetchers.paused == {0, 1}
    assert sought(ours, clock, 0, 7)
    ours.place([0])
    assert fetchers.started[0] == 7
    assert fetchers.paused == {1}


@pytest.mark.parametrize("loses", [False, True])
def test_one_that_came_while_all_were_paused_begins(loses: bool) -> None:
    ours, fetchers, clock = made(loses)
    ours.pause()
    ours.take({0}, {0: 7})
    ours.owned |= {0}
    assert not ours.to_prove
    ours.resume(())
    assert ours.to_prove == {0}
    assert sought(ours, clock, 0, 7)
    assert not ours.to_prove
    assert fetchers.started == {0: 7}
    assert not fetchers.paused


@pytest.mark.parametrize("loses", [False, True])
def test_one_that_was_held_at_once_begins(loses: bool) -> None:
    ours, fetchers, clock = made(loses)
    ours.take({0}, {0: 7})
    ours.owned |= {0}
    ours.hold([0], ())
    ours.hold([], ())
    assert ours.to_prove == {0}
    assert sought(ours, clock, 0, 7)
    assert fetchers.started == {0: 7}
    assert not fetchers.paused


def test_one_of_which_something_came_is_not_sought() -> None:
    ours, _, _ = made(loses=False)
    ours.take({0}, {0: 7})
    ours.owned |= {0}
    ours.proven([0])
    ours.pause()
    ours.resume(())
    assert not ours.to_prove


def test_one_that_stands_still_is_not_given_anew() -> None:
    ours, fetchers, clock = made(loses=True)
    ours.take({0}, {0: 7})
    ours.owned |= {0}
    ours.pause()
    clock.sleep(10 * refused_max_s)
    for _ in range(3):
        assert not ours.seek(0, 7)
        clock.sleep(refused_max_s)
    assert not fetchers.started
    assert fetchers.paused == {0}


def test_what_is_let_go_leaves_nothing_to_prove() -> None:
    ours, fetchers, _ = made(loses=False)
    ours.take({0}, {0: 7})
    ours.owned |= {0}
    ours.let_go({0}, ())
    assert not ours.unproven
    assert not fetchers.started
