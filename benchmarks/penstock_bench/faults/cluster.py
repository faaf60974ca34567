"""The memory broker as a Kafka cluster seen by librdkafka: its journal, what is spoilt in its logs, who its clients are."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from penstock.connectors.delivery.producer_port import AbortableError, FencedProducerError
from penstock.connectors.memory.broker import MemoryBroker
from penstock.connectors.memory.group import Membership
from penstock.connectors.memory.log import Read, State, Transaction
from penstock.schemas.records import Headers
from penstock_bench.faults.fates import Fates
from penstock_bench.faults.journal import (
    Deleted,
    Ended,
    Journal,
    MadeAnew,
    OffsetsCommitted,
    Place,
    Resolved,
    Sent,
    Spoilt,
)
from penstock_bench.faults.timeline import Timeline

Deferred = tuple[float, Callable[[], KafkaError | None]]
"""When a call ends, and what is then known to have gone wrong."""

input_topic, group = "in", "g"
output_topics = ("p", "e", "d")


class Cluster(MemoryBroker):
    """A broker that notes what it sees.

    The clients of one run reach it through `the_cluster`; what a client's call has put off until later, `deferred` holds.
    """

    def __init__(self, timeline: Timeline, fates: Fates) -> None:
        super().__init__(timeline, cluster_id="simulated", wait=lambda _, wait_s: timeline.sleep(wait_s))
        self.timeline = timeline
        self.fates = fates
        self.journal: Journal | None = None
        self.spoilt: set[Place] = set()
        self.deferred: Deferred | None = None
        self.trace: Callable[[str], None] = lambda _: None
        self.members: list[Any] = []  # consumers that joined a group, in the order in which they were made
        self.watches: list[Any] = []
        self.foreign: dict[str, list[Place]] = {}  # what other producers' transactions hold in the input
        self.coordinator_back_s = 0.0
        self._losses = 0
        self._numbers: dict[int, int] = {}
        self._kept: list[Transaction] = []  # so that no two have the same address

    def number(self, transaction: Transaction) -> int:
        """A name for a transaction in the journal."""
        known = self._numbers.get(id(transaction))
        if known is None:
            self._kept.append(transaction)
            known = self._numbers[id(transaction)] = len(self._kept)
        return known

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
        """As Broker; what goes to an output is noted."""
        if topic in output_topics and self.journal is not None:
            number = None if transaction is None else self.number(transaction)
            now_s, entries = self.timeline.now_s, self.journal.entries
            for key, value in zip(keys, values, strict=True):
                entries.append(Sent(topic, partition, key, value or b"", number, len(entries), now_s))
            self.trace(f"sent {topic} {partition} {len(values)} {number}")
        return super().append(
            topic,
            partition,
            keys,
            values,
            timestamps_ms=timestamps_ms,
            headers=headers,
            transaction=transaction,
        )

    def _end(self, transactional_id: str, state: State) -> None:
        transaction, _ = self._open.get(transactional_id, (None, 0.0))
        if transaction is not None and self.journal is not None and transactional_id.startswith(group):
            offsets = tuple(sorted((p, offset) for (_, _, p), offset in transaction.offsets.items()))
            self.journal.entries.append(
                Ended(self.number(transaction), state is State.COMMITTED, offsets, transaction.topic_id)
            )
            self.trace(f"ended {self.number(transaction)} {state.name} {offsets}")
        places = self.foreign.pop(transactional_id, None)
        if transaction is not None and places and self.journal is not None:
            self.journal.entries.append(Resolved(tuple(places), state is State.COMMITTED))
        super()._end(transactional_id, state)

    def commit(self, topic: str, positions: Mapping[int, int], member: Membership) -> bool:
        """As Broker, noted when it counts."""
        done = super().commit(topic, positions, member)
        if done and self.journal is not None:
            self.journal.entries.append(OffsetsCommitted(tuple(sorted(positions.items())), member.topic_id))
            self.trace(f"offsets {sorted(positions.items())}")
        return done

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        """As Broker, noted."""
        super().delete_records(topic, partition, before)
        if self.journal is not None:
            self.journal.entries.append(Deleted(self.topic_id(topic), partition, before))

    def recreate_topic(self, name: str, partitions: int) -> None:
        """As Broker, noted."""
        super().recreate_topic(name, partitions)
        if self.journal is not None:
            self.journal.entries.append(MadeAnew(self.topic_id(name), partitions, self.timeline.now_s))

    def spoil(self, place: Place) -> None:
        """The bytes there cannot be read from now on."""
        self.spoilt.add(place)
        assert self.journal is not None
        self.journal.entries.append(Spoilt(place))

    def end_foreign(self, transactional_id: str, *, committed: bool) -> None:
        """Another producer's transaction on the input ends, if it has not ended by its time-out."""
        with self.locked():
            self._end(transactional_id, State.COMMITTED if committed else State.ABORTED)

    def is_record(self, partition: int, offset: int) -> bool:
        """Whether a reader of committed records finds one at exactly this offset."""
        found = self._logs(input_topic)[partition].read(offset, 1)
        return len(found.values) > 0 and int(found.offsets[0]) == offset

    def look(self, topic: str, partition: int, position: int, records_max: int) -> Read:
        """What a fetch finds there. Raises OutOfRangeError."""
        self.check_overdue()
        return self._logs(topic)[partition].read(position, records_max)

    def lose_coordinator(self) -> float:
        """A member's session ran out, with every other one because the coordinator is away: when the client that goes on asking
        joins again. It is refused once where the coordinator has just come back, and asks again two seconds later.

        Draws nothing, so that what else a seed brings stays.
        """
        self._losses += 1
        if self._losses % 2 == 0 and not self.fates.calm:
            self.coordinator_back_s = self.timeline.now_s + (0.02, 0.7, 5.0)[self._losses // 2 % 3]
            return self.coordinator_back_s + 2.0
        return self.timeline.now_s

    def is_served(self) -> bool:
        """penstock.connectors.kafka.wire.groups.group_is_served by shape; the answer takes a while."""
        self.defer(0.01, lambda: None)
        return self.timeline.now_s >= self.coordinator_back_s

    def check_overdue(self) -> None:
        """End what has been open for too long."""
        with self.locked():
            self._end_overdue()

    def transaction_of(self, transactional_id: str, epoch: int, timeout_s: float) -> Transaction:
        """What is open under this id, begun when nothing is. Raises FencedProducerError."""
        self.check_epoch(transactional_id, epoch)  # ends what is overdue
        found, _ = self._open.get(transactional_id, (None, 0.0))
        return found or self.begin(transactional_id, epoch, timeout_s)

    def defer(self, wait_s: float, outcome: Callable[[], KafkaError | None]) -> None:
        """The client's call that is made now ends so much later, and so."""
        self.deferred = (self.timeline.now_s + wait_s, outcome)


def failure(
    code: int, text: str, *, fatal: bool = False, retriable: bool = False, abort: bool = False
) -> KafkaError:
    """An error as librdkafka makes them."""
    return KafkaError(code, text, fatal, retriable, abort)


def failure_of(error: Exception) -> KafkaError:
    """What librdkafka makes of the broker's refusal."""
    if isinstance(error, FencedProducerError):
        return failure(KafkaError._FENCED, str(error), fatal=True)
    if isinstance(error, AbortableError):
        return failure(KafkaError.ILLEGAL_GENERATION, str(error), abort=True)
    raise error


class SimulatedAside:
    """penstock.connectors.kafka.call_thread.Aside by shape: the call is made at once, and ends when the client said."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._ends: Deferred | None = None

    def run(self, call: Callable[[], None], timeout_s: float) -> bool:
        """As Aside."""
        if self._ends is None:
            self._cluster.deferred = None
            call()
            self._ends = self._cluster.deferred or (self._cluster.timeline.now_s, lambda: None)
        return self.wait(timeout_s)

    def wait(self, timeout_s: float) -> bool:
        """As Aside."""
        if self._ends is None:
            return False
        ends_s, outcome = self._ends
        timeline = self._cluster.timeline
        left_s = ends_s - timeline.now_s
        if left_s > 0:
            timeline.sleep(min(left_s, timeout_s))
            if timeline.now_s < ends_s:
                return False
        self._ends = None
        if (error := outcome()) is not None:
            raise KafkaException(error)
        return True

    @property
    def busy(self) -> bool:
        """As Aside."""
        return self._ends is not None

    def close(self) -> None:
        """As Aside."""


def offsets_of(places: Sequence[Any]) -> dict[int, int]:
    """TopicPartitions as a dictionary."""
    return {place.partition: place.offset for place in places}
