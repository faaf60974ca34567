"""One member of a Kafka consumer group: columns out of polls, and the truth about what is assigned."""

import logging
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, Protocol, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.admin.group_offsets import KafkaOffsets
from penstock.connectors.kafka.client import AccessErrors, ClientConfig, open_client
from penstock.connectors.kafka.errors import cause_of, consumer_error, said
from penstock.connectors.kafka.group import KafkaMembership, generation, group_settings, member_id
from penstock.connectors.kafka.reading.commits import Commits
from penstock.connectors.kafka.reading.doubts import GivenUp, UnreadablePolicy
from penstock.connectors.kafka.reading.offset_notes import offset_note
from penstock.connectors.kafka.reading.read_positions import ReadHeads
from penstock.connectors.kafka.reading.records import to_records
from penstock.connectors.kafka.reading.returns import Returns
from penstock.connectors.kafka.reading.stalls import StallDetector
from penstock.connectors.kafka.reading.starts import Recreated, Start, Starts, recreated_sentence
from penstock.connectors.kafka.reading.topic_watch import TopicFacts, TopicWatch
from penstock.schemas.errors import ConfigError, FencedError, InvariantError, PenstockError, UnavailableError
from penstock.schemas.reading import Reading
from penstock.schemas.records import Records

logger = logging.getLogger("penstock.kafka")

facts_timeout_s = 0.05  # the polling thread's patience with the question which topic this is

_partition = cast(Callable[[Message], int], Message.partition)


class AssignmentListener(Protocol):
    """penstock.engine.ports.AssignmentListener by shape."""

    def on_assigned(self, partitions: Sequence[int]) -> None:
        """Newly ours."""

    def on_revoked(self, partitions: Sequence[int]) -> None:
        """About to go."""

    def on_lost(self, partitions: Sequence[int]) -> None:
        """Gone already."""


class KafkaSource:
    """The Source on Kafka (penstock.engine.ports.Source by shape). Every call is made by the thread that polls.

    Promises: the listener hears of a partition before any record of it, and of its going before it moves; a record of
    a partition that is not ours any more is never returned; a group with commits goes on exactly there or stops with
    ConfigError; a group without begins where `start` says. After an error of a partition nothing of it is returned until
    reading was sent back to the offset that comes next and went on there. Offsets are those of one topic, known by its id:
    of a topic that was deleted and made anew everything is read, or ConfigError is raised.

    Members are dynamic. With a static name, a member that was killed is kept out for a whole session by the
    `consumer` protocol, and the classic one takes a name from its living holder.
    """

    def __init__(
        self,
        config: ClientConfig,
        *,
        group: str,
        topic: str,
        protocol: Literal["classic", "consumer"],
        start: Start,
        listener: AssignmentListener,
        exactly_once: bool,
        max_poll_interval_s: float,
        memory_bytes_max: int,
        clock: Clock,
        unreadable: UnreadablePolicy = "stop",
        recreated: Recreated = "read",
    ) -> None:
        """Joins the group with the first poll. `memory_bytes_max` bounds what is fetched and not polled yet.

        `unreadable`: what becomes of offsets that stay unreadable; set aside, a range of them is one row of Records.
        `recreated`: whether the records of a topic that was made anew are read, or the worker stops.

        Raises ConfigError for a setting that the client refuses.
        """
        self._group = group
        self._topic = topic
        self._clock = clock
        self._recreated = recreated
        self._listener = listener
        self._exactly_once = exactly_once
        self._assigned: set[int] = set()  # what the listener was told
        self._unplaced: set[int] = set()  # assigned to us, paused, until we know where to begin
        self._heads = ReadHeads()
        self._seek_due: dict[int, int] = {}  # seeks that the client could not do yet; no record passes before
        self._left: set[int] = set()  # gave or lost them since the first record of the current poll
        self._held: set[int] = set()  # by whoever polls
        self._paused = False
        self._closed = False
        self._failure: PenstockError | None = None
        self._access = AccessErrors()
        self._recreations = 0
        self._topic_facts: TopicFacts | None = None  # of the topic that is being read
        self._facts_since_s = 0.0  # older answers may be about another topic than the assignment is
        settings = group_settings(
            config,
            group=group,
            protocol=protocol,
            max_poll_interval_s=max_poll_interval_s,
            memory_bytes_max=memory_bytes_max,
        )
        self._commits = Commits(topic, clock)
        self._consumer = open_client(
            Consumer, settings | {"error_cb": self._on_error, "on_commit": self._commits.answered}
        )
        self._starts = Starts(
            self._consumer, group=group, topic=topic, start=start, recreated=recreated, fail=self._fail
        )
        self._returns = Returns(
            self._consumer,
            topic=topic,
            heads=self._heads,
            policy=unreadable,
            clock=clock,
            paused=lambda partition: self._paused or partition in self._held,
            give_up=self._give_up,
            other_error=self._note_error,
        )
        self._watch = TopicWatch(config, topic, clock=clock)
        self._stalls = StallDetector(
            topic=topic, open_offsets=lambda: KafkaOffsets(config, group), clock=clock
        )
        self._consumer.subscribe(
            [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, records_max: int, timeout_s: float) -> Records | None:
        """As penstock.engine.ports.Source asks."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._watch.newest is not self._topic_facts:
            self._compare_topic()
        if self._unplaced:
            self._place()
        self._commits.turn(self._consumer, offset_note(self._topic_id))
        if (passed := self._returns.turn(self._topic_id)) is not None:
            return passed
        if self._seek_due:
            self.seek(self._seek_due)
        consumer = self._consumer
        try:
            first = consumer.poll(timeout_s)  # with the first record; consume would wait the whole time
            if first is None:
                return None
            self._left.clear()  # what left before the first record came, and came back, is ours again
            messages = [first]
            if records_max > 1:
                messages += consumer.consume(records_max - 1, 0)
            if first.partition() in self._left:  # even if it came back: then this record comes again
                del messages[0]
        except KafkaException as error:
            raise consumer_error(cause_of(error), f"topic {self._topic}") from error
        return self._records(messages)

    def pause(self) -> None:
        """As penstock.engine.ports.Source asks."""
        if not self._paused:
            self._paused = True
            self._consumer.pause(self._places(self._assigned))

    def resume(self) -> None:
        """As penstock.engine.ports.Source asks."""
        if self._paused:
            self._paused = False
            self._consumer.resume(self._places(self._assigned.difference(self._held, self._returns.held)))

    def hold(self, partitions: Collection[int]) -> None:
        """As penstock.engine.ports.Source asks."""
        wanted = self._assigned & set(partitions)
        new, over = wanted - self._held, self._held - wanted
        self._held = wanted
        if new:
            self._consumer.pause(self._places(new))
        if over and not self._paused:
            self._consumer.resume(self._places(over.difference(self._returns.held)))

    def seek(self, positions: Mapping[int, int]) -> None:
        """As penstock.engine.ports.Source asks."""
        for partition, offset in sorted(positions.items()):
            self._seek_due.pop(partition, None)
            if partition not in self._assigned:
                continue
            self._heads.put(partition, offset)
            doubtful = partition in self._returns
            self._returns.forget([partition])
            if doubtful:
                self._returns.read_from(partition, offset)
            elif not self._seek_now(partition, offset):
                self._seek_due[partition] = offset

    def membership(self) -> KafkaMembership:
        """As penstock.engine.ports.Source asks."""
        metadata = self._consumer.consumer_group_metadata()
        if generation(metadata) < 1:  # the coordinator would not check it, and a zombie could commit
            raise UnavailableError(f"not a member of group {self._group} yet")
        return KafkaMembership(metadata=metadata, note=offset_note(self._topic_id))

    def standing(self) -> tuple[bool, str]:
        """Whether the group counts us among its members, and under which id; "" while we have none."""
        metadata = self._consumer.consumer_group_metadata()
        return generation(metadata) >= 1, member_id(metadata)

    def commit(self, positions: Mapping[int, int]) -> None:
        """As penstock.engine.ports.Source asks."""
        if self._exactly_once:
            raise InvariantError("in exactly-once the sink commits, inside the transaction")
        ours = {p: offset for p, offset in positions.items() if p in self._assigned}
        if ours:
            self._commits.send(self._consumer, ours, offset_note(self._topic_id))

    def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The log end of partitions as the fetches last saw it; nothing is asked of the broker."""
        found = {}
        for place in self._places(set(partitions) & self._assigned):
            _, end = self._consumer.get_watermark_offsets(place, cached=True)
            if end >= 0:
                found[place.partition] = end
        return found

    def reading(self) -> Reading:
        """What stands in the way of reading; to be asked for about once a second."""
        heads = {partition: self._heads.next(partition) for partition in self._assigned}
        paused = self._assigned if self._paused else self._held
        stalls = self._stalls.look(heads, self.ends(self._assigned), paused)
        return Reading(
            stalled_s=stalls.stalled_s,
            open_transactions=stalls.open_transactions,
            doubts=self._returns.sentences(),
            unreadable_offsets=self._returns.unreadable_offsets,
            recreations=self._recreations,
        )

    def close(self, timeout_s: float) -> None:
        """As penstock.engine.ports.Source asks; tells the listener of what it still holds."""
        if self._closed:
            return
        self._closed = True
        self._watch.close()
        self._stalls.close()
        held = sorted(self._assigned)
        self._assigned.clear()
        self._unplaced.clear()
        if held:
            self._listener.on_revoked(held)
        # The client's own close has no time-out, and waits for a coordinator that may be away.
        closing = threading.Thread(target=self._consumer.close, name="consumer-close", daemon=True)
        closing.start()
        closing.join(timeout_s)

    def _records(self, messages: list[Message]) -> Records | None:
        broken: dict[int, Message] = {}  # the first error of a partition, and nothing of it after that
        if any(map(Message.error, messages)):
            messages, broken = self._returns.without_errors(messages, self._assigned)
        present = set(map(_partition, messages))
        stale = self._seek_due.keys() | (present - self._assigned) | self._held
        if stale & present:
            messages = [message for message in messages if _partition(message) not in stale]
        records: Records | None = None
        if messages:
            records = to_records(self._topic, messages, self._topic_id)
            taken, forward = self._heads.pass_over(records.partitions, records.offsets)
            if taken is not None:
                self.seek({partition: at for partition, at in forward.items() if partition not in broken})
                records = records.take(taken) if len(taken) else None
        if records is not None:
            records = self._returns.believed(records)
        for partition, message in broken.items():
            self._seek_due.pop(partition, None)
            self._returns.send_back(partition, message)
        return records

    def _note_error(self, error: KafkaError, where: str) -> None:
        failure = consumer_error(error, where)
        if error.fatal() or isinstance(failure, ConfigError | FencedError):
            self._fail(failure)

    def _give_up(self, partition: int, answer: GivenUp, error: KafkaError) -> None:
        head = self._heads.next(partition)
        where = f"topic {self._topic}, partition {partition}"
        if answer is GivenUp.UNREADABLE:
            self._fail(
                ConfigError(
                    f"{where}: what is stored at offset {head} cannot be read ({said(error)}); with input.unreadable: "
                    "set_aside it becomes a dead letter, and reading goes on behind it"
                )
            )
            return
        if self._watch.since(self._returns.since_s(partition)) is None:  # is it still the same topic?
            self._returns.read_from(partition, head, at_s=self._clock.monotonic_s() + facts_timeout_s)
            return
        if self._watch.newest is not self._topic_facts and self._compare_topic():
            return
        self._fail(ConfigError(self._lost_range(partition, head)))

    def _lost_range(self, partition: int, head: int) -> str:
        where = f"topic {self._topic}, partition {partition}"
        cure = "penstock offsets reset says where to go on"
        try:
            first, end = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=facts_timeout_s
            )
        except KafkaException:
            return f"{where}: the next offset to read, {head}, is not on the broker any more; {cure}"
        if head < first:
            return (
                f"{where}: offsets {head} to {first - 1} were deleted before group {self._group} read them (retention); the "
                f"first that is left is {first}; {cure}"
            )
        return (
            f"{where}: group {self._group} is at offset {head}, but the partition ends at {end}: records were lost at the "
            f"broker, or the offset is of another topic; {cure}"
        )

    @property
    def _topic_id(self) -> str | None:
        return None if self._topic_facts is None else self._topic_facts.id

    @property
    def _holds_first(self) -> bool:
        return 0 in self._assigned or 0 in self._unplaced

    def _compare_topic(self) -> bool:
        """Take the newest answer about the topic; whether it is another topic of the same name."""
        old, new = self._topic_facts, self._watch.newest
        self._topic_facts = new
        if old is None or new is None or old.id == new.id or old.id is None or new.id is None:
            return False
        self._recreations += 1
        if self._recreated == "stop":
            self._topic_facts = old
            self._fail(ConfigError(recreated_sentence(self._topic, old.id, new.id, self._group)))
            return True
        logger.warning(
            "topic %s was deleted and made anew (id %s, then %s): every partition of it is read from its beginning",
            self._topic, old.id, new.id,
        )  # fmt: skip
        again = sorted(self._assigned)
        self._assigned.clear()
        self._left.update(again)  # of the old topic is also what this poll has brought already
        self._held.clear()  # whoever held them is told that they are lost
        if again:
            self._listener.on_lost(again)
        self._commits.forget(again)
        self._returns.forget(again)
        self._returns.forget_topic()
        for partition in again:
            self._seek_due.pop(partition, None)
            self._returns.read_from(partition, OFFSET_BEGINNING)
        self._tell_assigned(dict.fromkeys(again, OFFSET_BEGINNING))
        return True

    def _on_error(self, error: KafkaError) -> None:
        """Client-wide errors. What is not named here, the client gets over by itself."""
        if error.fatal():
            self._fail(consumer_error(error, f"group {self._group}"))
        elif (refused := self._access.reaction(error)) is not None:
            self._fail(refused)

    def _fail(self, failure: PenstockError) -> None:
        """Raised by the next poll: what this one brings must not be dropped."""
        if self._failure is None or isinstance(self._failure, UnavailableError):
            self._failure = failure

    def _on_assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        partitions = {place.partition for place in places}
        self._facts_since_s = self._clock.monotonic_s()
        starts: dict[int, int] = {}
        if partitions and (facts := self._watch.since(self._facts_since_s, facts_timeout_s)) is not None:
            if facts is not self._topic_facts:
                self._compare_topic()
            starts = self._starts.soon(
                partitions, self._topic_facts or facts, decides=self._holds_first or 0 in partitions
            )
        consumer.incremental_assign(
            [TopicPartition(self._topic, p, starts.get(p, OFFSET_BEGINNING)) for p in sorted(partitions)]
        )
        unplaced = partitions - starts.keys()
        self._unplaced |= unplaced
        # Whether a partition comes back paused depends on protocol and version, so nothing is assumed.
        held_back = partitions if self._paused else unplaced
        if held_back:
            consumer.pause(self._places(held_back))
        self._tell_assigned(starts)

    def _on_revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        partitions = {place.partition for place in places}
        try:
            told = sorted(partitions & self._assigned)
            if told and not self._closed:
                self._listener.on_revoked(told)
        finally:
            self._let_go(consumer, partitions)

    def _on_lost(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        partitions = {place.partition for place in places}
        told = sorted(partitions & self._assigned)
        self._let_go(consumer, partitions)
        if told and not self._closed:
            self._listener.on_lost(told)

    def _let_go(self, consumer: Consumer, partitions: set[int]) -> None:
        self._assigned -= partitions
        self._left |= partitions
        held = self._unplaced.union(self._held, self._returns.held)
        paused = partitions if self._paused else partitions & held
        self._held -= partitions
        self._unplaced -= partitions
        self._commits.forget(partitions)
        self._returns.forget(partitions)
        for partition in partitions:
            self._seek_due.pop(partition, None)
        if paused:
            consumer.resume(self._places(paused))  # leave no flag behind for the next assignment
        consumer.incremental_unassign(self._places(partitions))

    def _tell_assigned(self, partitions: Mapping[int, int]) -> None:
        if partitions:
            for partition, offset in partitions.items():
                self._heads.put(partition, offset)
            self._assigned |= partitions.keys()
            self._listener.on_assigned(sorted(partitions))

    def _place(self) -> None:
        """Begin what could not be begun when it was assigned: one partition each time, so that the others go on."""
        facts = self._watch.since(self._facts_since_s)
        if facts is None:
            return
        if facts is not self._topic_facts:
            self._compare_topic()
        starts = self._starts.one(self._unplaced, self._topic_facts or facts, decides=self._holds_first)
        placed = {
            partition: offset for partition, offset in starts.items() if self._seek_now(partition, offset)
        }
        self._unplaced -= placed.keys()
        if placed and not self._paused:
            self._consumer.resume(self._places(placed))
        self._tell_assigned(placed)

    def _seek_now(self, partition: int, offset: int) -> bool:
        try:
            self._consumer.seek(TopicPartition(self._topic, partition, offset))
        except KafkaException as error:
            cause = cause_of(error)
            if cause.code() in (KafkaError._STATE, KafkaError._PREV_IN_PROGRESS):
                return False  # the fetcher is between two states
            raise consumer_error(cause, f"topic {self._topic}, partition {partition}") from error
        return True

    def _places(self, partitions: set[int] | Mapping[int, int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, partition) for partition in sorted(partitions)]
