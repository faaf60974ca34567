"""Offsets that were sent to be committed: what the coordinator refused, or never answered, is sent again; and the note beside them."""

from collections.abc import Collection, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.errors import cause_of, consumer_error
from penstock.schemas.errors import UnavailableError

again_after_s: Final = 0.5
_mark: Final = "penstock topic-id="  # then the id of the topic that it is an offset of


class Commits:
    """Commits without waiting, until each partition's newest offset is acknowledged. Polling thread only.

    A rebalance makes the coordinator refuse what was sent in the generation before. Without a second attempt a group that
    then has nothing to do would look as if it were behind, for as long as nothing new comes.
    """

    def __init__(self, topic: str, clock: Clock) -> None:
        """Nothing is to be committed."""
        self._topic = topic
        self._clock = clock
        self._open: dict[int, int] = {}  # asked for, and not acknowledged
        self._due_s: float | None = None

    def send(self, consumer: Consumer, positions: Mapping[int, int], note: str) -> None:
        """Commit these offsets. Raises ConfigError or FencedError for what will not pass."""
        self._open |= positions
        self._send(consumer, positions, note)

    def turn(self, consumer: Consumer, note: str) -> None:
        """Send again what was refused, when its time has come. May raise as `send`."""
        if self._due_s is None or self._clock.monotonic_s() < self._due_s:
            return
        self._due_s = None
        if self._open:
            self._send(consumer, self._open, note)

    def hand_over(self, consumer: Consumer, partitions: Collection[int], note: str) -> None:
        """These go to another member, which waits for us: what was refused of them, or is not answered yet, is sent once more,
        and reaches the coordinator before our leave for them does. May raise as `send`."""
        left = {p: offset for p, offset in self._open.items() if p in partitions}
        if left:
            self._send(consumer, left, note)

    def forget(self, partitions: Collection[int]) -> None:
        """These are another's now, or of another topic."""
        for partition in partitions:
            self._open.pop(partition, None)

    def answered(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        """What became of a commit; the client's `on_commit`, called from its polls."""
        for place in places:
            if error is not None or place.error is not None:
                if place.partition in self._open:
                    self._due_s = self._due_s or self._clock.monotonic_s() + again_after_s
            elif self._open.get(place.partition) == place.offset:
                del self._open[place.partition]

    def _send(self, consumer: Consumer, positions: Mapping[int, int], note: str) -> None:
        offsets = [TopicPartition(self._topic, p, offset, note) for p, offset in sorted(positions.items())]
        try:
            consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            failure = consumer_error(cause_of(error), "commit")
            if not isinstance(failure, UnavailableError):
                raise failure from error
            self._due_s = self._clock.monotonic_s() + again_after_s


def offset_note(topic_id: str | None) -> str:
    """The metadata of a commit; empty where the topic has no id."""
    return "" if topic_id is None else f"{_mark}{topic_id}"


def noted_topic_id(metadata: str | None) -> str | None:
    """The topic's id in a commit's metadata, None where another program wrote it or there is none."""
    if metadata is None or not metadata.startswith(_mark):
        return None
    return metadata.removeprefix(_mark) or None


def recreated_sentence(topic: str, old: str, new: str, group: str) -> str:
    """What a person is told where `input.recreated` is `stop`."""
    return (
        f"topic {topic} was deleted and made anew (its id was {old} and is {new}), so the offsets that group {group} committed "
        "are not of this topic; set them with penstock offsets reset, or read it from its beginning with input.recreated: read"
    )
