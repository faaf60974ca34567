"""Sets a group's committed offsets while none of its members lives."""

from collections.abc import Mapping, Sequence
from typing import Final

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from penstock.connectors.kafka.admin.group_members import describe_group
from penstock.connectors.kafka.client import ClientConfig, close_aside, consumer_config, open_client
from penstock.connectors.kafka.errors import cause_of, translate
from penstock.connectors.kafka.reading.commits import offset_note
from penstock.schemas.errors import ConfigError, UnavailableError

call_timeout_s: Final = 10.0
_alive: Final = frozenset({
    KafkaError.UNKNOWN_MEMBER_ID, KafkaError.ILLEGAL_GENERATION, KafkaError.STALE_MEMBER_EPOCH,
    KafkaError.REBALANCE_IN_PROGRESS,
})  # fmt: skip


class OffsetReset:
    """One group on one topic. Any method may raise UnavailableError or ConfigError."""

    def __init__(self, config: ClientConfig, *, group: str, topic: str) -> None:
        self._group = group
        self._topic = topic
        self._config = config
        self._consumer = open_client(Consumer, consumer_config(config) | {"group.id": group})

    def members(self) -> list[str]:
        """Who is in the group now."""
        found = describe_group(self._config, self._group, timeout_s=call_timeout_s)
        return [f"{member.client_id}@{member.address}" for member in found.members]

    def at_time(self, partitions: Sequence[int], time_ms: int) -> dict[int, int]:
        """Of each partition the first offset with this time stamp or a later one, its end where there is none."""
        wanted = [TopicPartition(self._topic, partition, time_ms) for partition in partitions]
        ends = [TopicPartition(self._topic, partition, OFFSET_END) for partition in partitions]
        try:
            found = self._consumer.offsets_for_times(wanted, timeout=call_timeout_s)
            last = self._consumer.offsets_for_times(ends, timeout=call_timeout_s)
        except KafkaException as error:
            raise translate(cause_of(error), f"look up offsets of topic {self._topic}") from error
        fault = next((place.error for place in (*found, *last) if place.error is not None), None)
        if fault is not None:
            raise translate(fault, f"look up offsets of topic {self._topic}")
        end_of = {place.partition: place.offset for place in last}
        return {p.partition: p.offset if p.offset >= 0 else end_of[p.partition] for p in found}

    def commit(self, positions: Mapping[int, int], *, topic_id: str | None) -> None:
        """Commit, with the topic's id beside each offset. Raises ConfigError while a member lives."""
        note = offset_note(topic_id)
        places = [TopicPartition(self._topic, p, offset, note) for p, offset in sorted(positions.items())]
        try:
            done = self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            raise self._refused(cause_of(error)) from error
        fault = next((place.error for place in done or () if place.error is not None), None)
        if fault is not None:
            raise self._refused(fault)

    def close(self) -> None:
        """Release the clients."""
        close_aside(self._consumer)

    def _refused(self, error: KafkaError) -> ConfigError | UnavailableError:
        if error.code() in _alive:
            return ConfigError(f"group {self._group} is alive: stop its workers first")
        failure = translate(error, f"commit offsets of group {self._group}")
        return failure if isinstance(failure, ConfigError) else UnavailableError(str(failure))
