"""Which partitions of the topic are ours, and which of them are paused for whose sake."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Protocol

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.errors import cause_of, consumer_error
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.kafka")

refused_max_s: Final = 1.0
"""A fetcher that is between two states is through with it in milliseconds; one that refuses a seek for longer has ended."""


class AssignmentListener(Protocol):
    """penstock.engine.ports.AssignmentListener by shape."""

    def on_assigned(self, partitions: Sequence[int]) -> None:
        """Newly ours."""

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """About to go."""

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Gone already."""


class Assignment:
    """The member's partitions. Polling thread only.

    Promises: a partition is resumed only when nobody wants it paused, and no pause flag outlives an assignment.
    `returning` are partitions that wait, paused, for another attempt after an error.
    """

    def __init__(self, consumer: Consumer, topic: str, *, clock: Clock) -> None:
        self._clock = clock
        self._refused_s: dict[int, float] = {}  # since when it refuses every seek
        self._consumer = consumer
        self._topic = topic
        self.owned: set[int] = set()  # what the listener was told
        self.unplaced: set[int] = set()  # assigned to us, paused, until we know where to begin
        self.left: set[int] = set()  # gave or lost them since the first record of the current poll
        self.held: set[int] = set()  # by the caller, one by one
        self.paused = False  # by the caller, all of them

    def pause(self) -> None:
        """All of them."""
        if not self.paused:
            self.paused = True
            self._consumer.pause(self.places(self.owned))

    def resume(self, returning: Iterable[int]) -> None:
        """All but those that wait for another reason."""
        if self.paused:
            self.paused = False
            self._consumer.resume(self.places(self.owned.difference(self.held, returning)))

    def hold(self, partitions: Collection[int], returning: Iterable[int]) -> None:
        """Exactly these stand still from now on."""
        wanted = self.owned & set(partitions)
        new, over = wanted - self.held, self.held - wanted
        self.held = wanted
        if new:
            self._consumer.pause(self.places(new))
        if over and not self.paused:
            self._consumer.resume(self.places(over.difference(returning)))

    def take(self, partitions: set[int], starts: Mapping[int, int]) -> None:
        """Assigned to us: those with a start are read from there, the others wait for one."""
        self._consumer.incremental_assign(
            [TopicPartition(self._topic, p, starts.get(p, OFFSET_BEGINNING)) for p in sorted(partitions)]
        )
        unplaced = partitions - starts.keys()
        self.unplaced |= unplaced
        # Whether a partition comes back paused depends on protocol and version, so nothing is assumed.
        held_back = partitions if self.paused else unplaced
        if held_back:
            self._consumer.pause(self.places(held_back))

    def place(self, partitions: Collection[int]) -> None:
        """The client was sent to the start of these, which had none."""
        self.unplaced.difference_update(partitions)
        if partitions and not self.paused:
            self._consumer.resume(self.places(partitions))

    def let_go(self, partitions: set[int], returning: Iterable[int]) -> None:
        """Not ours any more. `returning`: as before they were let go."""
        self.owned -= partitions
        self.left |= partitions
        paused = partitions if self.paused else partitions & self.unplaced.union(self.held, returning)
        self.held -= partitions
        self.unplaced -= partitions
        for partition in partitions:
            self._refused_s.pop(partition, None)
        if paused:
            self._consumer.resume(self.places(paused))  # leave no flag behind for the next assignment
        self._consumer.incremental_unassign(self.places(partitions))

    def seek(self, partition: int, offset: int) -> bool:
        """Send the client there; False: not yet, to be tried again soon. Raises what stands behind any other refusal.

        A fetcher that ended refuses for ever: at bytes that cannot be read, say, which it came upon in the log's first records
        before it was known where to begin. Then the partition is given to the client anew, at this offset.
        """
        try:
            self._consumer.seek(TopicPartition(self._topic, partition, offset))
        except KafkaException as error:
            cause = cause_of(error)
            if cause.code() in (KafkaError._STATE, KafkaError._PREV_IN_PROGRESS):
                return self._given_anew(partition, offset)
            raise consumer_error(cause, f"topic {self._topic}, partition {partition}") from error
        self._refused_s.pop(partition, None)
        return True

    def _given_anew(self, partition: int, offset: int) -> bool:
        """Where it has refused for long enough, and nobody wants it to stand still."""
        now_s = self._clock.monotonic_s()
        since_s = self._refused_s.setdefault(partition, now_s)
        if now_s - since_s < refused_max_s or self.stands(partition):
            return False
        del self._refused_s[partition]
        logger.warning(
            "topic %s, partition %d: the client stopped reading before it was sent to offset %d; it is given the partition anew",
            self._topic, partition, offset,
            extra=LogCode.READING_RETURNS.extra,
        )  # fmt: skip
        self.give_anew(partition, offset)
        return True

    def give_anew(self, partition: int, offset: int, *, waits: bool = False) -> None:
        """With a fetcher made anew, which begins there; paused where it `waits` or the caller wants it to stand still.

        A flag that is set before does not outlive this, and one that is taken away behind it may undo the offset (librdkafka issues 2190
        and 5591): 1,200 times in either order, the first left one partition unread and had 354 records come while paused.
        """
        place, stands = TopicPartition(self._topic, partition), waits or self.stands(partition)
        if not stands:
            self._consumer.resume([place])
        self._consumer.incremental_unassign([place])
        self._consumer.incremental_assign([TopicPartition(self._topic, partition, offset)])
        if stands:
            self._consumer.pause([place])

    def stands(self, partition: int) -> bool:
        """Whether the caller wants it to stand still."""
        return self.paused or partition in self.held

    def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The log end of those that are ours as the fetches last saw it; nothing is asked of the broker."""
        found = {}
        for place in self.places(self.owned.intersection(partitions)):
            _, end = self._consumer.get_watermark_offsets(place, cached=True)
            if end >= 0:
                found[place.partition] = end
        return found

    def places(self, partitions: Iterable[int]) -> list[TopicPartition]:
        """These partitions as the client names them."""
        return [TopicPartition(self._topic, partition) for partition in sorted(partitions)]
