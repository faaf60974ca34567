"""The state behind penstock.connectors.memory.broker: topics, groups, transactions, faults; one lock over all of it."""

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum, StrEnum, auto

import numpy as np

from penstock.connectors.delivery.producer_port import (
    AbortableError,
    Clock,
    FencedProducerError,
    UnfinishedError,
)
from penstock.connectors.memory.group import Group, Membership
from penstock.connectors.memory.log import OutOfRangeError, PartitionLog, Read, State, Transaction, finish
from penstock.connectors.partitioner import partition_of
from penstock.schemas.errors import ConfigError
from penstock.schemas.records import Headers, Outgoing

Wait = Callable[[threading.Condition, float], object]


class Point(StrEnum):
    """Where a fault can be injected."""

    POLL = "poll"
    INITIALISE = "initialise"
    PRODUCE = "produce"
    OFFSETS = "offsets"
    FLUSH = "flush"
    COMMIT = "commit"
    ABORT = "abort"
    COMMITTED = "committed"  # reading a group's offsets


class Fault(Enum):
    """What goes wrong there."""

    UNAVAILABLE = auto()  # not done; asking again may help
    ABORTABLE = auto()  # not done, and the transaction (or the at-least-once delivery) cannot go on
    UNKNOWN_DONE = auto()  # done, but the client never learns it and is of no use any more
    UNKNOWN_UNDONE = auto()  # not done, and the client cannot know
    FENCED = auto()  # a twin takes the transactional id over just before


class Broker:
    """Thread-safe. Bounded: each partition keeps at most `retention_bytes`, as a topic on a real broker would.

    The same promises as Apache Kafka where the engine relies on them (tests/contract judges both); the group protocol
    is cooperative, and a member's absence is noticed by its `max_poll_interval_s`, for there are no heartbeats.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        cluster_id: str = "memory",
        retention_bytes: int = 64 << 20,
        wait: Wait = threading.Condition.wait,
    ) -> None:
        """`wait` is how a poll waits for records, at most so many seconds; a simulation moves its clock instead."""
        self.clock = clock
        self.cluster_id = cluster_id
        self._retention_bytes = retention_bytes
        self._wait = wait
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._topics: dict[str, list[PartitionLog]] = {}
        self._topic_ids: dict[str, str] = {}
        self._topics_made = 0
        self._groups: dict[str, Group] = {}
        self._epochs: dict[str, int] = {}
        self._open: dict[
            str, tuple[Transaction, float]
        ] = {}  # by transactional id, with its time-out in seconds
        self._faults: dict[Point, deque[Fault]] = {}
        self._unkeyed = 0

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic, or add partitions to it. Raises ConfigError when it has more already."""
        with self._lock:
            if name not in self._topics:
                self._topics_made += 1
                self._topic_ids[name] = f"memory-topic-{self._topics_made:09}"
            logs = self._topics.setdefault(name, [])
            if partitions < max(len(logs), 1):
                raise ConfigError(f"topic {name} has {len(logs)} partitions; {partitions} is not possible")
            logs += [PartitionLog(self._retention_bytes) for _ in range(partitions - len(logs))]

    def recreate_topic(self, name: str, partitions: int) -> None:
        """Delete a topic and make it anew at once: another id, no records. What groups committed stays, as it may on Kafka."""
        with self._lock:
            del self._topics[name]
            self.create_topic(name, partitions)
            self._changed.notify_all()

    def topic_id(self, topic: str) -> str:
        """Of the topic that is there now. Raises ConfigError for a topic that does not exist."""
        with self._lock:
            self._logs(topic)
            return self._topic_ids[topic]

    def partitions(self, topic: str) -> int:
        """How many. Raises ConfigError for a topic that does not exist."""
        return len(self._logs(topic))

    def inject(self, point: Point, fault: Fault, *, times: int = 1) -> None:
        """The next calls at this point fail this way, in whichever client."""
        with self._lock:
            self._faults.setdefault(point, deque()).extend([fault] * times)

    def expire(self, group: str, member: str | None = None) -> None:
        """Expel a member (all when None), as if it had not been heard of for too long."""
        with self._lock:
            for name in [member] if member else self.group(group).members:
                self.group(group).leave(name)
            self._changed.notify_all()

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """Forget the records of a partition before this offset, as retention does in its own time."""
        with self._lock:
            self._logs(topic)[partition].forget(before)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """A group's committed offsets."""
        with self._lock:
            return {p: offset for (t, p), offset in self.group(group).committed.items() if t == topic}

    def locked(self) -> AbstractContextManager[bool]:
        """Several calls as one."""
        return self._lock

    def group(self, name: str) -> Group:
        """A group, made when first asked for."""
        with self._lock:
            if name not in self._groups:
                self._groups[name] = Group(name, self.clock, self.partitions)
            return self._groups[name]

    def take_fault(self, point: Point) -> Fault | None:
        """The next injected fault, if there is one."""
        with self._lock:
            faults = self._faults.get(point)
            return faults.popleft() if faults else None

    def append(
        self,
        topic: str,
        partition: int,
        keys: list[bytes | None],
        values: list[bytes | None],
        *,
        timestamps_ms: list[int] | None = None,
        headers: list[Headers] | None = None,
        transaction: Transaction | None = None,
    ) -> int:
        """Add records to a partition; the first one's offset."""
        with self._lock:
            first = self._logs(topic)[partition].append(
                keys=keys,
                values=values,
                timestamps_ms=timestamps_ms or [self.clock.wall_ms()] * len(values),
                headers=headers,
                transaction=transaction,
            )
            self._changed.notify_all()
            return first

    def append_outgoing(
        self, outgoing: Outgoing, input_partitions: int, transaction: Transaction | None
    ) -> None:
        """Add results: to the partition they came from when the topics match, by key when they do not."""
        partitions = self.partitions(outgoing.topic)
        if partitions == input_partitions:
            targets = outgoing.partitions
        else:
            targets = np.asarray([self.choose(key, partitions) for key in outgoing.keys], np.int32)
        keys, values, headers = outgoing.keys, outgoing.values, outgoing.headers
        with self._lock:
            for partition in np.unique(targets).tolist():
                rows = np.flatnonzero(targets == partition).tolist()
                self.append(
                    outgoing.topic,
                    partition,
                    [keys[row] for row in rows],
                    [values[row] for row in rows],
                    headers=None if headers is None else [headers[row] for row in rows],
                    transaction=transaction,
                )

    def choose(self, key: bytes | None, partitions: int) -> int:
        """The partition for a key; records without one go round."""
        if key is not None:
            return partition_of(key, partitions)
        self._unkeyed += 1
        return self._unkeyed % partitions

    def fetch(self, topic: str, positions: Mapping[int, int], records_max: int) -> dict[int, Read]:
        """Committed records of several partitions, up to `records_max` in all. Raises ConfigError when out of range."""
        with self._lock:
            self._end_overdue()
            reads: dict[int, Read] = {}
            room = records_max
            for partition, position in positions.items():
                if room <= 0:
                    break
                try:
                    read = self._logs(topic)[partition].read(position, room)
                except OutOfRangeError as error:
                    raise ConfigError(
                        f"topic {topic}, partition {partition}: {error}; choose where to go on"
                    ) from error
                if read.values or read.position != position:
                    reads[partition] = read
                room -= len(read.values)
            return reads

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """Earliest offset and last stable offset."""
        with self._lock:
            self._end_overdue()
            log = self._logs(topic)[partition]
            return log.earliest, log.stable_end

    def high(self, topic: str, partition: int) -> int:
        """Where the log ends, open transactions included."""
        with self._lock:
            return self._logs(topic)[partition].end

    def oldest_timestamp_ms(self, topic: str, partition: int, offset: int) -> int | None:
        """When the first readable record at or after this offset was written."""
        with self._lock:
            log = self._logs(topic)[partition]
            read = log.read(min(max(offset, log.earliest), log.end), 1)
            return read.timestamps_ms[0] if read.timestamps_ms else None

    def wait_for_change(self, timeout_s: float) -> bool:
        """Wait until something was written or moved; False when the time is up. Holds the lock again afterwards."""
        return bool(self._wait(self._changed, timeout_s))

    def initialise(self, transactional_id: str) -> int:
        """A new epoch for this id; what the predecessor left open is aborted."""
        with self._lock:
            self._epochs[transactional_id] = self._epochs.get(transactional_id, -1) + 1
            self._end(transactional_id, State.ABORTED)
            return self._epochs[transactional_id]

    def begin(self, transactional_id: str, epoch: int, timeout_s: float) -> Transaction:
        """Open a transaction. Raises FencedProducerError."""
        with self._lock:
            self.check_epoch(transactional_id, epoch)
            transaction = Transaction(began_s=self.clock.monotonic_s())
            self._open[transactional_id] = (transaction, timeout_s)
            return transaction

    def check_epoch(self, transactional_id: str, epoch: int) -> None:
        """Raises FencedProducerError for any but the newest producer of an id, and after a transaction's time-out."""
        with self._lock:
            self._end_overdue()
            if self._epochs.get(transactional_id) != epoch:
                raise FencedProducerError(f"transactional id {transactional_id} has a newer epoch")

    def hold_offsets(
        self, transaction: Transaction, topic: str, positions: Mapping[int, int], member: Membership
    ) -> None:
        """Offsets to be committed with a transaction. Raises AbortableError for a stale membership."""
        with self._lock:
            group = self.group(member.group)
            if not group.accepts(member):
                raise AbortableError(
                    f"member {member.member} of group {member.group} is not in its generation any more"
                )
            for partition, offset in positions.items():
                transaction.offsets[member.group, topic, partition] = offset
            transaction.topic_id = member.topic_id
            group.hold(transaction)

    def end(self, transactional_id: str, epoch: int, state: State) -> None:
        """Commit or abort what is open. Raises FencedProducerError."""
        with self._lock:
            self.check_epoch(transactional_id, epoch)
            self._end(transactional_id, state)

    def commit(self, topic: str, positions: Mapping[int, int], member: Membership) -> bool:
        """Commit offsets without a transaction; False for a stale membership."""
        with self._lock:
            group = self.group(member.group)
            if group.accepts(member):
                group.committed.update({(topic, p): offset for p, offset in positions.items()})
                group.committed_topic_ids.update({(topic, p): member.topic_id for p in positions})
                return True
            return False

    def stable_offsets(
        self, group: str, topic: str, partitions: Sequence[int], timeout_s: float
    ) -> dict[int, int]:
        """Committed offsets that no open transaction can change. Raises UnfinishedError when one stays open."""
        with self._lock:
            if self.take_fault(Point.COMMITTED) is not None:
                self.clock.sleep(timeout_s)
                raise UnfinishedError("the group's offsets are not to be had now")
            deadline_s = self.clock.monotonic_s() + timeout_s
            while any(self.group(group).unstable(topic, p) for p in partitions):
                self._end_overdue()
                left_s = deadline_s - self.clock.monotonic_s()
                if left_s <= 0 or not self.wait_for_change(left_s):
                    raise UnfinishedError("an open transaction holds offsets of these partitions")
            committed = self.group(group).committed
            return {p: committed[topic, p] for p in partitions if (topic, p) in committed}

    def _logs(self, topic: str) -> list[PartitionLog]:
        logs = self._topics.get(topic)
        if logs is None:
            raise ConfigError(f"topic {topic} does not exist")
        return logs

    def _end(self, transactional_id: str, state: State) -> None:
        transaction, _ = self._open.pop(transactional_id, (None, 0.0))
        if transaction is None:
            return
        finish(transaction, state)
        for group in self._groups.values():
            group.apply(transaction)
        self._changed.notify_all()

    def _end_overdue(self) -> None:
        now_s = self.clock.monotonic_s()
        for transactional_id, (transaction, timeout_s) in tuple(self._open.items()):
            if now_s - transaction.began_s >= timeout_s:
                self._epochs[transactional_id] += 1  # the broker fences a producer whose transaction it ended
                self._end(transactional_id, State.ABORTED)
