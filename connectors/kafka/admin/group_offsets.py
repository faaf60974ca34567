"""How far a group is in a topic, read from the broker without being a member."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # public, not re-exported

from penstock.connectors.kafka.admin.group_members import describe_group
from penstock.connectors.kafka.admin.session import AdminSession, retry_s, transient, unheard
from penstock.connectors.kafka.client import ClientConfig, close_aside, consumer_config, open_client
from penstock.connectors.kafka.errors import refusals, said, translate
from penstock.connectors.kafka.reading.commits import noted_topic_id

peek_timeout_s: Final = 5.0
look_again_s: Final = 240.0
"""A reader that has looked at nothing for so long may have lost its connections, which brokers end after ten minutes."""

_earliest: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_latest: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]
_out_of_range: Final = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionOffsets:
    """Where one partition stands.

    `end` is the last stable offset: what a read_committed reader may see; `high` is where the log ends, further while a
    producer's transaction is open. `oldest_unfinished_timestamp_ms` is of the first readable record at or after the committed
    offset (-1: it has none); None when there is no such record: all is done, or only commit markers and aborted records are
    left. `fault` says why the first of them could not be read, "" when it could. `committed_topic_id` is noted beside the
    commit: another one than `topic_id` and the offset is of an earlier topic of this name.
    `stamped_by_broker`: the time stamp is when it was written (message.timestamp.type=LogAppendTime), not the producer's.
    """

    partition: int
    earliest: int
    end: int
    high: int
    committed: int | None
    oldest_unfinished_timestamp_ms: int | None
    owner: str | None
    fault: str = ""
    topic_id: str | None = None
    committed_topic_id: str | None = None
    stamped_by_broker: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Glimpse:
    """What was found when looking from `position` on: the first readable record, or none before `end`."""

    position: int
    end: int
    offset: int | None
    timestamp_ms: int
    stamped_by_broker: bool = False

    def answers(self, position: int, end: int) -> bool:
        """Whether it still tells what looking from `position` to `end` would find."""
        if self.offset is None:
            return self.position <= position and end <= self.end
        return self.position <= position <= self.offset < end


class KafkaOffsets:
    """Reads committed offsets, log ends, owners and the age of what waits, and commits nothing. One thread at a time.

    What is known already is not read again: a group that stands still, or has nothing to do, costs four small requests.
    """

    def __init__(self, config: ClientConfig, group: str, *, timeout_s: float = 10.0) -> None:
        """Raises ConfigError for settings that the client refuses; connects to nothing yet."""
        self._config = config
        self._group = group
        self._session = AdminSession(config, timeout_s=timeout_s)
        # A consumer joins its group only when it subscribes, and these never do.
        # Committed offsets are not asked for with the AdminClient: it crashes the process (librdkafka#5040) when the group's
        # coordinator has just moved. They are read uncommitted, since a busy group has an offset pending at nearly any time.
        self._group_view = open_client(
            Consumer, consumer_config(config) | {"group.id": group, "isolation.level": "read_uncommitted"}
        )
        self._reader = open_client(
            Consumer,
            consumer_config(config)
            | {
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,  # tells that no readable record is left
                "fetch.wait.max.ms": 50,
                "max.partition.fetch.bytes": 16_384,
                "queued.min.messages": 1,
            },
        )
        self._ids: dict[str, str] = {}
        self._known: dict[str, list[int]] = {}
        self._looked_s = -math.inf
        self._glimpses: dict[tuple[str, int], _Glimpse] = {}

    def read(self, topic: str) -> list[PartitionOffsets]:
        """Every partition of a topic, ascending; one whose records cannot be read has a `fault`, and hides no other.

        Raises ConfigError: there is no such topic, or a permission is missing (Read on the topic, for the time stamps of
        what waits; Describe on the group). Raises UnavailableError when the brokers do not answer in time.
        """
        partitions = self._known[topic] = self._partitions(topic)
        commits = self._committed(topic, partitions)
        committed = {partition: place.offset for partition, place in commits.items()}
        owners = self._owners(topic)
        earliest = self._bounds(topic, partitions, _earliest)
        ends = self._bounds(topic, partitions, _latest)  # after the commits, so that none is beyond its end
        high = self._bounds(topic, partitions, _latest, IsolationLevel.READ_UNCOMMITTED)
        unfinished = {
            partition: (position, ends[partition])
            for partition in partitions
            if (position := max(committed.get(partition, 0), earliest[partition])) < ends[partition]
        }
        oldest, faults = self._oldest(topic, unfinished)
        return [
            PartitionOffsets(
                partition=partition,
                earliest=earliest[partition],
                end=ends[partition],
                high=max(high[partition], ends[partition]),
                committed=committed.get(partition),
                oldest_unfinished_timestamp_ms=oldest.get(partition),
                owner=owners.get(partition),
                fault=faults.get(partition, ""),
                topic_id=self._ids[topic],
                committed_topic_id=noted_topic_id(commits[partition].metadata)
                if partition in commits
                else None,
                stamped_by_broker=partition in oldest and self._glimpses[topic, partition].stamped_by_broker,
            )
            for partition in partitions
        ]

    def ends(self, topic: str) -> dict[int, int]:
        """Where a read_committed reader would find the end of each partition that `read` found last; none before. One request to
        each of their brokers. Raises as `read` does.

        Now and then it looks behind these ends too: the first look of a reader takes half a second, in which it finds the brokers,
        and the next record is not to wait for that.
        """
        partitions = self._known.get(topic)
        if not partitions:
            return {}
        ends = self._bounds(topic, partitions, _latest)
        if time.monotonic() - self._looked_s > look_again_s:
            self._look(topic, {partition: (end, end) for partition, end in ends.items()})
        return ends

    def close(self) -> None:
        """Release the clients. Idempotent."""
        close_aside(self._group_view)
        close_aside(self._reader)

    def _partitions(self, topic: str) -> list[int]:
        client, timeout_s = self._session.client, self._session.timeout_s
        found = self._session.ask(
            lambda: client.describe_topics(TopicCollection([topic]), request_timeout=timeout_s),
            f"look up topic {topic}",
        )[topic]
        if self._ids.setdefault(topic, str(found.topic_id)) != str(found.topic_id):  # deleted, and made anew
            self._ids[topic] = str(found.topic_id)
            self._glimpses = {key: glimpse for key, glimpse in self._glimpses.items() if key[0] != topic}
        return sorted(partition.id for partition in found.partitions)

    def _committed(self, topic: str, partitions: Sequence[int]) -> dict[int, TopicPartition]:
        wanted = [TopicPartition(topic, partition) for partition in partitions]
        deadline_s = time.monotonic() + self._session.timeout_s
        while True:
            try:
                places = self._group_view.committed(wanted, timeout=self._session.timeout_s)
                fault = next((place.error for place in places if place.error is not None), None)
            except KafkaException as error:
                fault = error.args[0]
            if fault is None:
                return {place.partition: place for place in places if place.offset >= 0}
            if fault.code() not in transient or time.monotonic() >= deadline_s:
                raise translate(fault, f"look up the offsets of group {self._group}")
            time.sleep(retry_s)

    def _owners(self, topic: str) -> dict[int, str]:
        found = describe_group(self._config, self._group, timeout_s=self._session.timeout_s)
        return {
            partition: f"{member.client_id}@{member.address}"
            for member in found.members
            for partition in member.assigned.get(topic, ())
        }

    def _bounds(
        self,
        topic: str,
        partitions: Sequence[int],
        spec: OffsetSpec,
        isolation: IsolationLevel = IsolationLevel.READ_COMMITTED,
    ) -> dict[int, int]:
        client, timeout_s = self._session.client, self._session.timeout_s
        found = self._session.ask(
            lambda: client.list_offsets(
                {TopicPartition(topic, partition): spec for partition in partitions},
                isolation_level=isolation,
                request_timeout=timeout_s,
            ),
            f"look up the offsets of topic {topic}",
        )
        return {place.partition: answer.offset for place, answer in found.items()}

    def _oldest(
        self, topic: str, unfinished: Mapping[int, tuple[int, int]]
    ) -> tuple[dict[int, int], dict[int, str]]:
        """Time stamps of the first readable records from a position to an end, and of what could not be read the reasons;
        partitions without such a record are left out."""
        unknown = {}
        for partition, (position, end) in unfinished.items():
            known = self._glimpses.get((topic, partition))
            if known is None or not known.answers(position, end):
                unknown[partition] = position, end
        faults = self._look(topic, unknown) if unknown else {}
        return {
            partition: glimpse.timestamp_ms
            for partition in unfinished.keys() - faults.keys()
            if (glimpse := self._glimpses[topic, partition]).offset is not None
        }, faults

    def _look(self, topic: str, unknown: Mapping[int, tuple[int, int]]) -> dict[int, str]:
        """Look at the first record of each; those that gave none, with the reason."""
        self._looked_s = time.monotonic()
        waiting = set(unknown)
        faults: dict[int, str] = {}
        deadline_s = time.monotonic() + peek_timeout_s
        try:
            self._reader.assign([TopicPartition(topic, p, position) for p, (position, _) in unknown.items()])
            while waiting:
                left_s = deadline_s - time.monotonic()
                if left_s <= 0:
                    if (
                        waiting == unknown.keys()
                    ):  # not one: it is the brokers, rather than what is stored there
                        self._heard(topic)
                    return faults | dict.fromkeys(waiting, f"gave no record in {peek_timeout_s:g} s")
                message = self._reader.poll(left_s)
                if message is None:
                    continue
                error, partition = message.error(), message.partition()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    if error.code() in unheard or error.retriable():
                        continue
                    if partition is None or partition not in waiting:
                        if partition is None or partition < 0:
                            raise translate(error, f"read topic {topic}")
                        continue
                    if error.code() in refusals and error.code() not in _out_of_range:
                        raise translate(error, f"read topic {topic}")
                    faults[partition] = said(error)
                    waiting.remove(partition)
                    self._reader.incremental_unassign([TopicPartition(topic, partition)])
                    continue
                if partition in waiting:
                    waiting.remove(partition)
                    position, end = unknown[partition]
                    self._glimpses[topic, partition] = _Glimpse(
                        position=position,
                        end=end,
                        offset=None if error is not None else message.offset(),
                        timestamp_ms=-1 if error is not None else message.timestamp()[1],
                        stamped_by_broker=error is None
                        and message.timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME,
                    )
                    self._reader.incremental_unassign([TopicPartition(topic, partition)])
        except KafkaException as error:
            raise translate(error, f"read topic {topic}") from error
        finally:
            self._reader.unassign()
        return faults

    def _heard(self, topic: str) -> None:
        """Raises UnavailableError when the brokers do not answer."""
        try:
            self._reader.list_topics(topic, timeout=peek_timeout_s)
        except KafkaException as error:
            raise translate(error, f"read topic {topic}") from error
