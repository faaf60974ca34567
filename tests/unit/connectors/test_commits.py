"""Offsets that the coordinator refused are sent again, the newest of each partition, and nothing of a partition that left."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from penstock.connectors.kafka.reading.commits import Commits, again_after_s
from penstock.schemas.errors import ConfigError
from tests.clocks import HandClock

refused = KafkaError(KafkaError.ILLEGAL_GENERATION, "of an earlier generation")


class Coordinator:
    """A consumer whose commits are only noted."""

    def __init__(self) -> None:
        self.asked: list[dict[int, int]] = []
        self.raises: KafkaError | None = None

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        if self.raises is not None:
            raise KafkaException(self.raises)
        self.asked.append({place.partition: place.offset for place in offsets})


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def consumer() -> Any:
    return Coordinator()


def places(positions: dict[int, int]) -> list[TopicPartition]:
    return [TopicPartition("t", partition, offset) for partition, offset in positions.items()]


def test_what_was_refused_is_sent_again_after_a_while(clock: HandClock, consumer: Any) -> None:
    commits = Commits("t", clock)
    commits.send(consumer, {0: 5, 1: 7}, "note")
    commits.answered(refused, places({0: 5, 1: 7}))
    commits.turn(consumer, "note")
    assert len(consumer.asked) == 1
    clock.now_s += again_after_s
    commits.turn(consumer, "note")
    assert consumer.asked[1:] == [{0: 5, 1: 7}]
    commits.answered(None, places({0: 5, 1: 7}))
    clock.now_s += 60
    commits.turn(consumer, "note")
    assert len(consumer.asked) == 2


def test_the_newest_offset_is_sent_and_never_an_older_one(clock: HandClock, consumer: Any) -> None:
    commits = Commits("t", clock)
    commits.send(consumer, {0: 5}, "note")
    commits.send(consumer, {0: 9}, "note")
    commits.answered(refused, places({0: 5}))
    clock.now_s += again_after_s
    commits.turn(consumer, "note")
    assert consumer.asked[-1] == {0: 9}
    commits.answered(None, places({0: 9}))
    commits.answered(refused, places({0: 5}))  # the answer to the first, late
    clock.now_s += 60
    commits.turn(consumer, "note")
    assert len(consumer.asked) == 3


def test_nothing_is_sent_for_a_partition_that_is_another_members(clock: HandClock, consumer: Any) -> None:
    commits = Commits("t", clock)
    commits.send(consumer, {0: 5, 1: 7}, "note")
    commits.answered(refused, places({0: 5, 1: 7}))
    commits.forget({0})
    clock.now_s += again_after_s
    commits.turn(consumer, "note")
    assert consumer.asked[-1] == {1: 7}
    commits.answered(refused, places({1: 7}))
    commits.forget({1})
    clock.now_s += again_after_s
    commits.turn(consumer, "note")
    assert len(consumer.asked) == 2


def test_what_is_not_acknowledged_is_sent_once_more_before_its_partition_goes(
    clock: HandClock, consumer: Any
) -> None:
    """Else the next member begins before it, and a few records come twice although nothing went wrong."""
    commits = Commits("t", clock)
    commits.send(consumer, {0: 5, 1: 7, 2: 9}, "note")
    commits.answered(refused, places({0: 5}))
    commits.answered(None, places({2: 9}))
    commits.hand_over(consumer, {0, 1, 2}, "note")
    assert consumer.asked[1:] == [{0: 5, 1: 7}]
    commits.forget({0, 1, 2})
    commits.hand_over(consumer, {0, 1, 2}, "note")
    assert len(consumer.asked) == 2


def test_a_call_that_fails_for_now_is_made_again_and_one_that_is_refused_is_raised(
    clock: HandClock, consumer: Any
) -> None:
    commits = Commits("t", clock)
    consumer.raises = KafkaError(KafkaError._STATE, "not yet")
    commits.send(consumer, {0: 5}, "note")
    consumer.raises = None
    clock.now_s += again_after_s
    commits.turn(consumer, "note")
    assert consumer.asked == [{0: 5}]
    consumer.raises = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED, "no")
    with pytest.raises(ConfigError):
        commits.send(consumer, {0: 6}, "note")
