"""Plain Kafka clients for demos, tools and tests: write fast, read what is committed."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.client import (
    ClientConfig,
    close_aside,
    consumer_config,
    drop,
    hear,
    open_client,
    producer_config,
    watermarks,
)
from penstock.connectors.kafka.errors import cause_of, consumer_error, translate
from penstock.connectors.kafka.reading.records import to_records
from penstock.schemas.errors import UnavailableError
from penstock.schemas.records import Headers, Records

call_timeout_s = 10.0


class KafkaWriter:
    """Writes records to one topic, idempotently; by key (murmur2) unless told a partition."""

    def __init__(self, config: ClientConfig, topic: str, *, linger_s: float = 0.005) -> None:
        self._topic = topic
        self._failed: KafkaError | None = None
        self._producer = open_client(
            Producer,
            {
                "linger.ms": int(linger_s * 1000),
                **producer_config(config),
                "partitioner": "murmur2_random",
                "delivery.report.only.error": True,
                "on_delivery": self._report,
            },
        )

    def write(
        self,
        values: Sequence[bytes | None],
        *,
        keys: Sequence[bytes | None] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Queue records, waiting for room. `headers` go with every record. Raises UnavailableError, ConfigError."""
        target = -1 if partition is None else partition
        keys = keys if keys is not None else [None] * len(values)
        if timestamp_ms is None and headers is None:
            self._write_batch(values, keys, target)
            return
        extra: dict[str, Any] = {"headers": list(headers or ())}
        if timestamp_ms is not None:
            extra["timestamp"] = timestamp_ms
        for value, key in zip(values, keys, strict=True):
            while True:
                try:
                    self._producer.produce(self._topic, value, key, target, **extra)
                    break
                except BufferError:
                    self._hear(0.1)
        self._hear(0)

    def flush(self, timeout_s: float) -> None:
        """Wait until every record is acknowledged. Raises UnavailableError, ConfigError."""
        try:
            left = self._producer.flush(timeout_s)
        except KafkaException as error:
            raise translate(error, f"write to topic {self._topic}") from error
        self._check()
        if left:
            raise UnavailableError(
                f"{left} records for {self._topic} were not acknowledged in {timeout_s:g} s"
            )

    def close(self) -> None:
        """Drop what is not acknowledged."""
        drop(self._producer)

    def _write_batch(self, values: Sequence[bytes | None], keys: Sequence[bytes | None], target: int) -> None:
        for start in range(0, len(values), 4096):
            while (
                len(self._producer) > 90_000
            ):  # below queue.buffering.max.messages: produce_batch does not wait
                self._hear(0.05)
            messages: list[Any] = [
                {"value": value, "key": key}
                for value, key in zip(values[start : start + 4096], keys[start : start + 4096], strict=True)
            ]
            if self._producer.produce_batch(self._topic, messages, target) != len(messages):
                error = next(message["_error"] for message in messages if "_error" in message)
                raise consumer_error(error, f"topic {self._topic}")
        self._hear(0)

    def _report(self, error: KafkaError | None, _: Message) -> None:
        self._failed = error or self._failed

    def _hear(self, timeout_s: float) -> None:
        self._failed = hear(self._producer, timeout_s) or self._failed
        self._check()

    def _check(self) -> None:
        if self._failed is not None:
            raise consumer_error(self._failed, f"topic {self._topic}")


class KafkaReader:
    """Reads a whole topic without a group: only what is committed, every partition from its beginning."""

    def __init__(self, config: ClientConfig, topic: str, clock: Clock, *, from_end: bool = False) -> None:
        """`from_end`: only what is written from now on, for `read` alone. Raises UnavailableError, ConfigError."""
        self._topic = topic
        self._clock = clock
        self._consumer = open_client(
            Consumer,
            {
                **consumer_config(config),
                "group.id": "penstock-reader",  # never joined and never committed to
                "enable.partition.eof": not from_end,  # who reads on and on need not hear of every end
                "auto.offset.reset": "error",
            },
        )
        try:
            metadata = self._consumer.list_topics(topic, timeout=call_timeout_s).topics[topic]
        except KafkaException as error:
            raise consumer_error(cause_of(error), f"topic {topic}") from error
        if metadata.error is not None:
            raise consumer_error(metadata.error, f"topic {topic}")
        self._positions = {  # where each partition ended when that was last heard
            partition: self._bounds(partition)[1 if from_end else 0] for partition in metadata.partitions
        }
        self._consumer.assign(
            [
                TopicPartition(topic, partition, offset if from_end else OFFSET_BEGINNING)
                for partition, offset in self._positions.items()
            ]
        )

    def read(self, records_max: int, timeout_s: float) -> Records | None:
        """The next records, waiting for the first at most so long. Raises UnavailableError, ConfigError."""
        first = self._consumer.poll(timeout_s)
        if first is None:
            return None
        polled = [first, *(self._consumer.consume(records_max - 1, 0) if records_max > 1 else ())]
        messages = [message for message in polled if not self._is_report(message)]
        if not messages:
            return None
        return to_records(self._topic, messages)

    def skip_ahead(self, kept: int) -> None:
        """Leave out all but about the newest `kept` records of each partition, as far as its end is known by now. Asks nobody."""
        for partition in self._consumer.position(
            [TopicPartition(self._topic, number) for number in self._positions]
        ):
            place = TopicPartition(self._topic, partition.partition)
            _, end = self._consumer.get_watermark_offsets(place, cached=True)
            if partition.offset >= 0 and end - kept > partition.offset:
                self._consumer.seek(TopicPartition(self._topic, partition.partition, end - kept))

    def read_to_end(self, timeout_s: float) -> list[Records]:
        """Everything up to the last stable offset at the time of the call. Raises UnavailableError after `timeout_s`."""
        return list(self.parts_to_end(timeout_s))

    def parts_to_end(self, timeout_s: float) -> Iterator[Records]:
        """The same a part at a time, for topics that do not fit into memory."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        ends = {partition: self._bounds(partition)[1] for partition in self._positions}
        while any(self._positions[partition] < end for partition, end in ends.items()):
            left_s = deadline_s - self._clock.monotonic_s()
            if left_s <= 0:
                raise UnavailableError(f"topic {self._topic} was not read to its end in {timeout_s:g} s")
            if (records := self.read(10_000, min(left_s, 0.1))) is not None:
                yield records

    def close(self) -> None:
        """Let go of the client."""
        close_aside(self._consumer)

    def _is_report(self, message: Message) -> bool:
        """Whether it is news of an end rather than a record; an end passes over aborted records and markers."""
        error = message.error()
        if error is None:
            return False
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            return True  # of the coordinator, which the client looks for by itself: no group is joined here
        if error.code() != KafkaError._PARTITION_EOF:
            raise consumer_error(error, f"topic {self._topic}")
        self._positions[cast(int, message.partition())] = cast(int, message.offset())
        return True

    def _bounds(self, partition: int) -> tuple[int, int]:
        """Earliest and last stable offset."""
        try:
            return watermarks(self._consumer, self._topic, partition, call_timeout_s)
        except KafkaException as error:
            raise consumer_error(cause_of(error), f"topic {self._topic}, partition {partition}") from error
