"""How far a group is in a topic, read from the broker without being a member."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from connectors.kafka_client import ClientConfig, base_config, request_timeout_s
from connectors.kafka_errors import consumer_error
from schemas.errors import ConfigError, UnavailableError

T = TypeVar("T")
peek_timeout_s = 2.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionOffsets:
    """Where one partition stands.

    `end` is the last stable offset: what a read_committed reader may see. `oldest_unfinished_timestamp_ms` is of the first
    readable record at or after the committed offset (-1: it has none), None when there is no such record, be it that all
    is done or that only commit markers are left.
    """

    partition: int
    earliest: int
    end: int
    committed: int | None
    oldest_unfinished_timestamp_ms: int | None
    owner: str | None


class KafkaOffsets:
    """Reads committed offsets, log ends, owners and the age of what waits. One thread at a time."""

    def __init__(self, config: ClientConfig, group: str, *, timeout_s: float = request_timeout_s) -> None:
        shared = base_config(config) | {"log_level": 2}
        self._group = group
        self._timeout_s = timeout_s
        self._admin = AdminClient(shared)
        self._peek = Consumer(
            shared
            | {
                "group.id": f"{group}-lag",  # never joined and never committed: the client wants some name
                "enable.auto.commit": False,
                "enable.partition.eof": True,  # how the end of the readable records shows
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "fetch.message.max.bytes": 16_384,
                "queued.min.messages": 1,
                "fetch.queue.backoff.ms": 2,
            }
        )

    def read(self, topic: str) -> list[PartitionOffsets]:
        """Every partition of a topic, ascending. Raises ConfigError (no such topic) or UnavailableError."""
        partitions = self._partitions(topic)
        earliest = self._ends(topic, partitions, OffsetSpec.earliest())
        ends = self._ends(topic, partitions, OffsetSpec.latest())
        committed = self._committed(topic, partitions)
        owners = self._owners(topic)
        behind = {}
        for partition in partitions:
            position = max(committed.get(partition, 0), earliest[partition])
            if position < ends[partition]:
                behind[partition] = position
        oldest = self._oldest(topic, behind)
        return [
            PartitionOffsets(
                partition=partition,
                earliest=earliest[partition],
                end=ends[partition],
                committed=committed.get(partition),
                oldest_unfinished_timestamp_ms=oldest.get(partition),
                owner=owners.get(partition),
            )
            for partition in partitions
        ]

    def close(self) -> None:
        """Release the clients."""
        self._peek.close()

    def _partitions(self, topic: str) -> list[int]:
        try:
            found = self._admin.list_topics(topic, timeout=self._timeout_s).topics[topic]
        except KafkaException as error:
            raise consumer_error(error.args[0], f"topic {topic}") from error
        if found.error:
            if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise ConfigError(f"there is no topic {topic}")
            raise consumer_error(found.error, f"topic {topic}")
        return sorted(found.partitions)

    def _ends(self, topic: str, partitions: Sequence[int], spec: Any) -> dict[int, int]:
        asked = {TopicPartition(topic, partition): spec for partition in partitions}
        futures = self._admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=self._timeout_s
        )
        return {
            place.partition: self._answer(future, f"topic {topic}").offset
            for place, future in futures.items()
        }

    def _committed(self, topic: str, partitions: Sequence[int]) -> dict[int, int]:
        places = [TopicPartition(topic, partition) for partition in partitions]
        futures = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(self._group, places)],
            require_stable=True,
            request_timeout=self._timeout_s,
        )
        answer = self._answer(futures[self._group], f"group {self._group}")
        return {place.partition: place.offset for place in answer.topic_partitions if place.offset >= 0}

    def _owners(self, topic: str) -> dict[int, str]:
        futures = self._admin.describe_consumer_groups([self._group], request_timeout=self._timeout_s)
        try:
            description = self._answer(futures[self._group], f"group {self._group}")
        except (ConfigError, UnavailableError):  # a group nobody ever joined, for some brokers
            return {}
        owners = {}
        for member in description.members:
            assignment = member.assignment
            for place in assignment.topic_partitions if assignment else ():
                if place.topic == topic:
                    owners[place.partition] = f"{member.client_id}@{member.host.lstrip('/')}"
        return owners

    def _oldest(self, topic: str, positions: dict[int, int]) -> dict[int, int]:
        """Timestamp of the first readable record at or after each position; partitions without one are left out."""
        if not positions:
            return {}
        oldest: dict[int, int] = {}
        waiting = set(positions)
        deadline_s = time.monotonic() + peek_timeout_s
        try:
            self._peek.assign([TopicPartition(topic, p, offset) for p, offset in positions.items()])
            while waiting and time.monotonic() < deadline_s:
                message = self._peek.poll(0.1)
                if message is None or message.partition() not in waiting:
                    continue
                error = message.error()
                if error is None:
                    oldest[message.partition()] = message.timestamp()[1]
                elif error.code() != KafkaError._PARTITION_EOF:
                    raise consumer_error(error, f"topic {topic}")
                waiting.discard(message.partition())
                self._peek.incremental_unassign([TopicPartition(topic, message.partition())])
        except KafkaException as error:
            raise consumer_error(error.args[0], f"topic {topic}") from error
        finally:
            self._peek.unassign()
        if waiting:
            raise UnavailableError(f"topic {topic}: no record came from partitions {sorted(waiting)} in time")
        return oldest

    def _answer(self, future: "Future[T]", what: str) -> T:
        try:
            return future.result(self._timeout_s + 1)
        except KafkaException as error:
            raise consumer_error(error.args[0], what) from error
        except TimeoutError as error:
            raise UnavailableError(f"{what}: no answer in time") from error
