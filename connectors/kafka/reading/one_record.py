"""One record of a topic, looked up by its place."""

from typing import Final

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from penstock.connectors.kafka.client import ClientConfig, consumer_config, open_client
from penstock.connectors.kafka.errors import translate
from penstock.schemas.errors import UnavailableError
from penstock.schemas.records import Records

call_s: Final = 2.5
"""Time-out of each of the three calls to the brokers: together less than who asked waits."""


class OneRecord:
    """Joins no group and commits nothing. For one thread."""

    def __init__(self, config: ClientConfig, *, topic: str, group: str) -> None:
        """`group` is only a name that the client asks for, of a group that may be read."""
        self._topic = topic
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

    def read(self, partition: int, offset: int) -> Records | None:
        """The record at this place; None where there is none (any more), or no such partition.

        Raises UnavailableError, or ConfigError where the brokers refuse.
        """
        place = TopicPartition(self._topic, partition, offset)
        try:
            metadata = self._consumer.list_topics(self._topic, timeout=call_s).topics[self._topic]
            if metadata.error is not None:
                raise KafkaException(metadata.error)
            if partition not in metadata.partitions:
                return None
            low, high = self._consumer.get_watermark_offsets(place, timeout=call_s)
            if not low <= offset < high:
                return None
            self._consumer.assign([place])
            message = self._consumer.poll(call_s)
            self._consumer.unassign()
            if message is None:
                raise UnavailableError(
                    f"nothing came from {self._topic} partition {partition} for {call_s:g} s"
                )
            return self._record(message, offset)
        except KafkaException as error:
            raise translate(error, f"read topic {self._topic}") from error

    def close(self) -> None:
        """Release the client."""
        self._consumer.close()

    def _record(self, message: Message, offset: int) -> Records | None:
        """None: what lay there is gone, was never committed, or is a transaction's end."""
        fault = message.error()
        if fault is not None:
            if fault.code() in (KafkaError._PARTITION_EOF, KafkaError._AUTO_OFFSET_RESET):
                return None
            raise KafkaException(fault)
        if message.offset() != offset:
            return None
        key, value, stamp_ms = message.key(), message.value(), message.timestamp()[1]
        return Records(
            topic=self._topic,
            partitions=np.array([message.partition()], np.int32),
            offsets=np.array([offset], np.int64),
            timestamps_ms=np.array([stamp_ms], np.int64),
            keys=[None if key is None else bytes(key)],
            values=[None if value is None else bytes(value)],
        )
