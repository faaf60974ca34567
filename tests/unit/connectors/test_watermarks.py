"""Where a partition begins and ends, asked of a cluster that moves its leaders."""

from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from penstock.connectors.kafka import client as client_module
from penstock.connectors.kafka.client import watermarks
from penstock.connectors.kafka.errors import elsewhere


class Moving:
    """Answers after so many refusals."""

    def __init__(self, refusals: list[int]) -> None:
        self.refusals, self.asked = refusals, 0

    def get_watermark_offsets(self, place: TopicPartition, timeout: float) -> tuple[int, int]:
        assert (place.topic, place.partition) == ("t", 3)
        assert timeout <= 10.0
        self.asked += 1
        if self.refusals:
            raise KafkaException(KafkaError(self.refusals.pop(0)))
        return 4, 9


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_leader_pause_s", 0.001)


@pytest.mark.parametrize("code", sorted(elsewhere))
def test_a_partition_is_asked_about_again_while_its_leader_changes(code: int) -> None:
    """A partition that was just added, or whose broker was stopped: `dlq list`, `tail` and a page ended at the first refusal."""
    consumer: Any = Moving([code, code])
    assert watermarks(consumer, "t", 3, 10.0) == (4, 9)
    assert consumer.asked == 3


def test_what_time_does_not_mend_is_raised_at_once() -> None:
    consumer: Any = Moving([KafkaError.TOPIC_AUTHORIZATION_FAILED])
    with pytest.raises(KafkaException):
        watermarks(consumer, "t", 3, 10.0)
    assert consumer.asked == 1


def test_it_ends_with_its_time() -> None:
    consumer: Any = Moving([KafkaError.NOT_LEADER_FOR_PARTITION] * 10_000)
    with pytest.raises(KafkaException):
        watermarks(consumer, "t", 3, 0.05)
