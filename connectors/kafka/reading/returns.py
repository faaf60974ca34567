"""After an error of a partition: reading is sent back to where the partition's next record is, and looked at again."""

import logging
from collections import deque
from collections.abc import Callable, Container, Iterable
from typing import Final, cast

import numpy as np
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.errors import is_fatal, said
from penstock.connectors.kafka.reading.assignment import Assignment
from penstock.connectors.kafka.reading.batch_looks import BatchLooks
from penstock.connectors.kafka.reading.doubts import (
    GivenUp,
    ReadDoubts,
    ReadFault,
    Return,
    UnreadablePolicy,
    retry_s,
)
from penstock.connectors.kafka.reading.read_positions import ReadHeads, anywhere
from penstock.schemas.log_codes import LogCode
from penstock.schemas.records import Records, Unreadable

logger = logging.getLogger("penstock.kafka")

look_patience_s: Final = 2.0  # so long a look by hand is waited for before the client reads on
_unreadable: Final = {
    KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG, KafkaError._NOT_IMPLEMENTED, KafkaError.INVALID_MSG,
}  # fmt: skip
_out_of_range: Final = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}
_passing: Final = {KafkaError._MAX_POLL_EXCEEDED, KafkaError._PARTITION_EOF}

_partition = cast(Callable[[Message], int], Message.partition)


def _is_of_no_partition(message: Message, error: KafkaError) -> bool:
    """Such a message has no topic, and 0 where its partition should be. A missing permission is always the whole topic's."""
    partition = message.partition()
    return (
        is_fatal(error)
        or message.topic() is None
        or partition is None
        or partition < 0
        or error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    )


def _offset_of(message: Message) -> int:
    """The offset that an error names, -1 when it names none: then no offset is said to be out of range."""
    offset = message.offset()
    return -1 if offset is None else offset


class Returns:
    """The client's fetchers after errors. Polling thread only.

    Promises: of a partition that had an error, nothing polled with the error or after it is kept until its fetcher was made
    anew at the partition's head; a range that had to be passed over is one row before the first record behind it.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        topic: str,
        heads: ReadHeads,
        policy: UnreadablePolicy,
        looks: BatchLooks,
        clock: Clock,
        ours: Assignment,
        give_up: Callable[[int, GivenUp, KafkaError], None],
        other_error: Callable[[KafkaError, str], None],
    ) -> None:
        """`looks`: at what the client could not read, where the policy is to set it aside. `give_up`: reading of a partition cannot go on; `other_error`: called with errors that concern neither bytes nor offsets."""
        self._consumer = consumer
        self._topic = topic
        self._heads = heads
        self._clock = clock
        self._ours = ours
        self._give_up = give_up
        self._other_error = other_error
        self._doubts = ReadDoubts(policy=policy)
        self._looks = looks
        self._looks_for = policy == "set_aside"
        # The heads whose bytes the client could not read, while a look at them is under way; when to try on without.
        self._suspected: dict[int, tuple[int, float]] = {}
        self._held: dict[int, float] = {}  # paused after an error until this moment
        self._passed: deque[tuple[int, Unreadable]] = deque()  # found, and not taken yet
        self._beginnings: set[int] = set()  # said to be read from their beginning again
        self.unreadable_offsets = 0

    @property
    def held(self) -> Iterable[int]:
        """Partitions that wait for their next attempt, paused."""
        return self._held.keys()

    def __contains__(self, partition: int) -> bool:
        return partition in self._doubts

    def since_s(self, partition: int) -> float:
        """When the first error was reported since the partition was last read."""
        return self._doubts.since_s(partition)

    def sentences(self) -> dict[int, str]:
        """What cannot be read now, by partition."""
        return self._doubts.sentences()

    def forget(self, partitions: Iterable[int]) -> None:
        """They are read elsewhere, or from another place."""
        gone = set(partitions)
        if self._passed:
            self._passed = deque(passed for passed in self._passed if passed[0] not in gone)
        for partition in gone:
            self._held.pop(partition, None)
            self._beginnings.discard(partition)
            self._suspected.pop(partition, None)
            self._doubts.forget(partition)

    def forget_topic(self) -> None:
        """The offsets are those of another topic from now on."""
        self._doubts.forget_ranges()
        self._looks.forget()

    def turn(self, topic_id: str | None, records_max: int, untold: Container[int] = ()) -> Records | None:
        """Let go on what has waited long enough; at most `records_max` of the rows for what was passed over at the end of a
        partition, the others at a later call, as those of the partitions `untold`."""
        if self._suspected:
            self._pass_broken()
        if self._held:
            self._release()
        if self._doubts:
            for partition, passed in self._doubts.outwaited(self._clock.monotonic_s()):
                self._heads.put(partition, passed.next)
                self._passed.append((partition, passed))
        if not self._passed:
            return None
        ready = [passed for passed in self._passed if passed[0] not in untold]
        some, later = ready[:records_max], ready[records_max:]
        if not some:
            return None
        waiting = [passed for passed in self._passed if passed[0] in untold]
        self._passed = deque(waiting + later)
        return Records.join([self._row(partition, passed, topic_id) for partition, passed in some])

    def without_errors(
        self, messages: list[Message], assigned: set[int]
    ) -> tuple[list[Message], dict[int, Message]]:
        """The messages before the first error of their partition, and those errors."""
        kept: list[Message] = []
        broken: dict[int, Message] = {}
        for message in messages:
            error, partition = message.error(), message.partition()
            if error is None:
                if partition not in broken:
                    kept.append(message)
            elif _is_of_no_partition(message, error):
                if error.code() not in _passing:
                    self._other_error(error, f"topic {self._topic}")
            elif partition in assigned and error.code() not in _passing:
                broken.setdefault(partition, message)
        return kept, broken

    def believed(self, records: Records) -> Records:
        """These came after their fetchers were made anew: the same, behind rows for what was passed over to get there."""
        if not self._doubts:
            return records
        rows = [
            self._row(partition, passed, records.topic_id)
            for partition in np.unique(records.partitions).tolist()
            if (passed := self._doubts.settled(partition)) is not None
        ]
        return Records.join([*rows, records])

    def send_back(self, partition: int, message: Message) -> None:
        """After an error: to the head, whatever the client's position is now."""
        error, place = message.error(), TopicPartition(self._topic, partition)
        assert error is not None
        if self._heads.anywhere(partition):  # where the log begins is being asked: there is no head yet
            if partition not in self._beginnings:
                self._beginnings.add(partition)
                logger.warning(
                    "topic %s, partition %d: the client reports an error (%s); reading returns to the beginning",
                    self._topic, partition, said(error),
                    extra=LogCode.READING_RETURNS.extra,
                )  # fmt: skip
            self.read_from(partition, anywhere, at_s=self._clock.monotonic_s() + retry_s)
            if error.code() not in _out_of_range | _unreadable:
                self._other_error(error, f"topic {self._topic}, partition {partition}")
            return
        _, end = self._consumer.get_watermark_offsets(place, cached=True)
        head = self._heads.next(partition)
        fault = ReadFault.OTHER
        if error.code() in _unreadable:
            fault = ReadFault.UNREADABLE
        elif error.code() in _out_of_range:
            fault = ReadFault.OUT_OF_RANGE
        else:
            self._other_error(error, f"topic {self._topic}, partition {partition}")
        if partition not in self._doubts:
            logger.warning(
                "topic %s, partition %d: the client reports an error at offset %s (%s); reading returns to offset %d",
                self._topic, partition, message.offset(), said(error), head,
                extra=LogCode.READING_RETURNS.extra,
            )  # fmt: skip
        answer = self._doubts.report(
            partition,
            head=head,
            fault=fault,
            offset=_offset_of(message),
            why=said(error),
            end=end,
            now_s=self._clock.monotonic_s(),
        )
        if isinstance(answer, Return):
            at_s = answer.at_s
            if fault is ReadFault.UNREADABLE and self._looks_for and answer.offset == head:
                # Not read again before: what the client makes of the bytes behind a wrong checksum may end the process.
                self._suspected[partition] = head, at_s
                at_s = max(at_s, self._clock.monotonic_s() + look_patience_s)
            self.read_from(partition, answer.offset, at_s=at_s)
            if partition in self._suspected:
                self._pass_broken()
        elif isinstance(answer, Unreadable):
            self.pass_over(partition, answer)
            self.read_from(partition, answer.next)
        else:
            self._give_up(partition, answer, error)

    def pass_over(self, partition: int, broken: Unreadable) -> None:
        """The row for it comes next, and records from its end on; the caller sends the client there."""
        self._passed.append((partition, broken))
        self._heads.put(partition, broken.next)

    def read_from(self, partition: int, offset: int, *, at_s: float = 0.0) -> None:
        """Give the client the partition anew: a fetcher that an error has ended does not seek, and a new one has nothing
        left of what came before."""
        self._held.pop(partition, None)
        if at_s > self._clock.monotonic_s():
            self._held[partition] = at_s
        self._ours.give_anew(partition, offset, waits=partition in self._held)

    def _pass_broken(self) -> None:
        """What a look by hand found broken is not tried any further."""
        for partition, (head, at_s) in list(self._suspected.items()):
            if self._doubts.head(partition) == head:
                look = self._looks.of(partition, head)
                if look is None:
                    continue
                if look.broken is None:  # it is tried on, and at the next error looked at again
                    self._held[partition] = at_s
                else:
                    self._doubts.pass_over(partition, look.broken)
                    self.pass_over(partition, look.broken)
                    self.read_from(partition, look.broken.next)
            del self._suspected[partition]

    def _release(self) -> None:
        now_s = self._clock.monotonic_s()
        ready = sorted(partition for partition, at_s in self._held.items() if at_s <= now_s)
        for partition in ready:
            del self._held[partition]
        places = [TopicPartition(self._topic, p) for p in ready if not self._ours.stands(p)]
        if places:
            self._consumer.resume(places)

    def _row(self, partition: int, unreadable: Unreadable, topic_id: str | None) -> Records:
        self.unreadable_offsets += unreadable.next - unreadable.first
        logger.warning(
            "topic %s, partition %d: %s; set aside",
            self._topic,
            partition,
            unreadable.detail,
            extra=LogCode.OFFSETS_SET_ASIDE.extra,
        )
        return Records.of_unreadable(self._topic, partition, unreadable, topic_id=topic_id)
