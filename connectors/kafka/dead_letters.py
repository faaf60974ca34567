"""Dead letters on Kafka: a topic read through without a group, and records put back together with the note of it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from penstock.connectors.kafka.client import (
    ClientConfig,
    close_aside,
    consumer_config,
    open_client,
    producer_config,
    watermarks,
)
from penstock.connectors.kafka.errors import cause_of, translate
from penstock.connectors.kafka.reading.records import StoredMessage, stored
from penstock.schemas.errors import UnavailableError

call_s: Final = 15.0
"""Time-out of each call to the brokers."""
idle_max_s: Final = 30.0
"""A read that got nothing for so long, though more is there, has failed."""
message_bytes_max: Final = 100 << 20
"""What is put back was in the topic before: the topic's limit decides, not the client's."""

batch_bytes_max: Final = 16_384
"""Of several messages put back together, so that it is never the batch that is longer than the topic allows."""

too_long: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE})


class Returned(Protocol):
    """A message to put back."""

    @property
    def partition(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


class KafkaLog:
    """A topic as it is when it is first read: messages of committed transactions, up to the ends of that moment.

    Joins no group and commits nothing. One thread. Raises ConfigError (no such topic, no permission) or UnavailableError.
    """

    def __init__(
        self, config: ClientConfig, *, topic: str, group: str, ends: Mapping[int, int] | None = None
    ) -> None:
        """`group` is only a name that the client asks for, of a group that may be read. `ends`: the topic as it was when
        `ends()` gave these, and nothing of what came since."""
        self._topic = topic
        self._ends_max = ends
        self._consumer = open_client(
            Consumer,
            {
                **consumer_config(config),
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,  # the end is known: waiting there for news is time lost, once per partition
            },
        )
        self._ranges: dict[int, tuple[int, int]] | None = None

    def read(self) -> Iterator[StoredMessage]:
        """Every committed message, partition by partition, offsets ascending."""
        for partition, (earliest, end) in sorted(self._bounds().items()):
            if earliest < end:
                yield from self._range(partition, earliest, end)

    def newest(self, offsets_max: int) -> Iterator[StoredMessage]:
        """The messages among the last `offsets_max` offsets of each partition, ascending in each."""
        for partition, (earliest, end) in sorted(self._bounds().items()):
            start = max(earliest, end - offsets_max)
            if start < end:
                yield from self._range(partition, start, end)

    def ends(self) -> Mapping[int, int]:
        """Up to where each partition is read."""
        return {partition: end for partition, (_, end) in self._bounds().items()}

    def size(self) -> int:
        """How many offsets there are to read; messages are at most as many."""
        return sum(end - earliest for earliest, end in self._bounds().values())

    def close(self) -> None:
        """Release the client."""
        close_aside(self._consumer)

    def _bounds(self) -> dict[int, tuple[int, int]]:
        """Earliest and end offset of each partition, as at the first call."""
        if self._ranges is None:
            try:
                metadata = self._consumer.list_topics(self._topic, timeout=call_s).topics[self._topic]
                if metadata.error is not None:
                    raise KafkaException(metadata.error)
                self._ranges = {
                    partition: self._bounded(
                        partition,
                        *watermarks(self._consumer, self._topic, partition, call_s),
                    )
                    for partition in metadata.partitions
                }
            except KafkaException as error:
                raise translate(error, f"read topic {self._topic}") from error
        return self._ranges

    def _bounded(self, partition: int, earliest: int, end: int) -> tuple[int, int]:
        """Not beyond what was asked for; never below the beginning, so that no range has a negative length."""
        if self._ends_max is None:
            return earliest, end
        return earliest, max(earliest, min(end, self._ends_max.get(partition, 0)))

    def _range(self, partition: int, start: int, end: int) -> Iterator[StoredMessage]:
        try:
            self._consumer.assign([TopicPartition(self._topic, partition, start)])
            while (first := self._consumer.poll(idle_max_s)) is not None:
                messages: Sequence[Any] = [first, *self._consumer.consume(500, 0)]
                for message in messages:
                    fault = message.error()
                    if fault is not None and fault.code() == KafkaError._PARTITION_EOF:
                        if message.offset() >= end:
                            return
                        continue
                    if fault is not None:
                        raise KafkaException(fault)
                    if message.offset() >= end:
                        return
                    yield stored(message)
                    if message.offset() == end - 1:
                        return
        except KafkaException as error:
            raise translate(error, f"read topic {self._topic}") from error
        raise UnavailableError(f"nothing came from {self._topic} partition {partition} for {idle_max_s:g} s")


class ReplayWriter:
    """Puts records back on a topic and commits, in the same transaction, a group's offsets with a note beside each.

    The group is used for its offsets alone: nobody joins it. A second one under the same name fences the first. The broker
    forgets the offsets of a group that was not used for `offsets.retention.minutes` (7 days by default). One thread.
    """

    def __init__(self, config: ClientConfig, *, group: str, letters_topic: str, topic: str) -> None:
        self._group = group
        self._letters_topic = letters_topic
        self._topic = topic
        self._consumer = open_client(Consumer, {**consumer_config(config), "group.id": group})
        self._producer = open_client(
            Producer,
            {
                **producer_config(config),
                "transactional.id": group,
                "message.max.bytes": message_bytes_max,
                "batch.size": batch_bytes_max,
                "transaction.timeout.ms": 60_000,
            },
        )

    def claim(self) -> None:
        """Fence another replay under the same name and abort its open transaction. Before the first `put`."""
        try:
            self._producer.init_transactions(call_s)
        except KafkaException as error:
            doing = f"begin to put records back on {self._topic} as transactional id {self._group}"
            raise translate(error, doing) from error

    def notes(self) -> Mapping[int, tuple[int, str]]:
        """Per partition of the dead-letter topic that has one: the committed offset and the note beside it."""
        try:
            metadata = self._consumer.list_topics(self._letters_topic, timeout=call_s).topics[
                self._letters_topic
            ]
            if metadata.error is not None:
                raise KafkaException(metadata.error)
            asked = [TopicPartition(self._letters_topic, partition) for partition in metadata.partitions]
            found = self._consumer.committed(asked, timeout=call_s)
            for place in found:
                if place.error is not None:
                    raise KafkaException(place.error)
        except KafkaException as error:
            raise translate(error, "read what was replayed before") from error
        return {
            place.partition: (place.offset, place.metadata or "")
            for place in found
            if place.offset >= 0 and place.offset != OFFSET_INVALID
        }

    def put(self, messages: Sequence[Returned], notes: Mapping[int, tuple[int, str]]) -> Collection[int]:
        """Send all and commit the notes, together or not at all: nothing was done where places of messages come back, which
        the topic does not take, or which went in one batch with such a message."""
        failed: dict[int, KafkaError] = {}

        places = [
            TopicPartition(self._letters_topic, partition, offset, metadata=note)
            for partition, (offset, note) in notes.items()
        ]
        try:
            self._producer.begin_transaction()
            for place, message in enumerate(messages):
                self._send(place, message, failed)
            if self._producer.flush(call_s) or failed:
                if failed and all(error.code() in too_long for error in failed.values()):
                    self._abort()
                    return failed.keys()
                fault = next((e for e in failed.values() if e.code() not in too_long), None)
                raise KafkaException(fault or KafkaError(KafkaError._TIMED_OUT))
            self._producer.send_offsets_to_transaction(
                places, self._consumer.consumer_group_metadata(), call_s
            )
            self._producer.commit_transaction(call_s)
        except KafkaException as error:
            self._abort()
            raise translate(error, f"put more records back on {self._topic}") from error
        return ()

    def close(self) -> None:
        """Release the clients."""
        close_aside(self._consumer)

    def _send(self, place: int, message: Returned, failed: dict[int, KafkaError]) -> None:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed[place] = error

        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value=message.value,
                    key=message.key,
                    partition=message.partition,
                    headers=list(message.headers),
                    on_delivery=delivered,
                )
                break
            except BufferError:
                if self._producer.flush(call_s):
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None
            except KafkaException as error:
                if cause_of(error).code() not in too_long:
                    raise
                failed[place] = cause_of(error)
                break
        self._producer.poll(0)

    def _abort(self) -> None:
        """What stays open after this, the broker ends in a minute, or the next one that claims our name."""
        with suppress(KafkaException):
            self._producer.abort_transaction(call_s)
