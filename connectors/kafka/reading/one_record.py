"""One record of a topic, looked up by its place."""

from collections.abc import Collection
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from penstock.connectors.kafka.client import (
    ClientConfig,
    close_aside,
    consumer_config,
    open_client,
    watermarks,
)
from penstock.connectors.kafka.errors import translate
from penstock.connectors.kafka.reading.records import StoredMessage, stored, to_records
from penstock.schemas.errors import UnavailableError
from penstock.schemas.records import Records

_nothing_there: Final = frozenset({
    KafkaError._AUTO_OFFSET_RESET, KafkaError._PARTITION_EOF, KafkaError._UNKNOWN_PARTITION,
})  # fmt: skip


class OneRecord:
    """Joins no group and commits nothing. For one thread. Raises ConfigError (no such topic, no permission) or UnavailableError.

    What is known of a log's bounds from before saves a question, and decides nothing: what lies at a place, the read says.
    """

    def __init__(self, config: ClientConfig, *, topic: str, group: str, call_s: float) -> None:
        """`group` is only a name that the client asks for, of a group that may be read. `call_s`: time-out of each call to the
        brokers, of which a look-up takes at most three."""
        self._topic = topic
        self._call_s = call_s
        self._bounds: dict[int, tuple[int, int]] = {}  # first offset and last stable one, as last heard
        self._consumer = open_client(
            Consumer,
            {
                **consumer_config(config),
                "group.id": group,
                "auto.offset.reset": "error",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
                "fetch.message.max.bytes": 1 << 20,  # nothing behind the record is wanted
                "queued.max.messages.kbytes": 1 << 10,
            },
        )

    def partitions(self) -> Collection[int]:
        """The partitions that the topic has now."""
        try:
            metadata = self._consumer.list_topics(self._topic, timeout=self._call_s).topics[self._topic]
            if metadata.error is not None:
                raise KafkaException(metadata.error)
        except KafkaException as error:
            raise translate(error, f"read topic {self._topic}") from error
        return list(metadata.partitions)

    def one(self, partition: int, offset: int) -> StoredMessage | None:
        """The message at this place; None where there is none (any more), or no such partition."""
        message = self._message(partition, offset)
        return None if message is None else stored(message)

    def read(self, partition: int, offset: int) -> Records | None:
        """The same as a record of the stream."""
        message = self._message(partition, offset)
        return None if message is None else to_records(self._topic, [message])

    def close(self) -> None:
        """Release the client."""
        close_aside(self._consumer)

    def _message(self, partition: int, offset: int) -> Message | None:
        if not self._holds(
            partition, offset
        ):  # as was heard before: it may have grown since, or be another topic
            if partition not in self.partitions():
                return None
            self._ask_bounds(partition)
            if not self._holds(partition, offset):
                return None
        try:
            self._consumer.assign([TopicPartition(self._topic, partition, offset)])
            message = self._consumer.poll(self._call_s)
            self._consumer.unassign()
            if message is None:
                raise UnavailableError(
                    f"nothing came from {self._topic} partition {partition} for {self._call_s:g} s"
                )
            fault = message.error()
            if fault is not None and fault.code() not in _nothing_there:
                raise KafkaException(fault)
        except KafkaException as error:
            raise translate(error, f"read topic {self._topic}") from error
        # What lay there may be gone, never have been committed, or be a transaction's end: then another one comes.
        return message if fault is None and message.offset() == offset else None

    def _holds(self, partition: int, offset: int) -> bool:
        first, end = self._bounds.get(partition, (0, 0))
        return first <= offset < end

    def _ask_bounds(self, partition: int) -> None:
        try:
            self._bounds[partition] = watermarks(self._consumer, self._topic, partition, self._call_s)
        except KafkaException as error:
            raise translate(error, f"read topic {self._topic}") from error
