"""One member of a Kafka consumer group: columns out of polls, and the truth about what is assigned."""

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal, Protocol, cast

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from penstock.connectors.kafka.client import AccessErrors, ClientConfig, open_client
from penstock.connectors.kafka.errors import cause_of, consumer_error, said
from penstock.connectors.kafka.group import generation, group_settings, member_id
from penstock.connectors.kafka.read_positions import ReadHeads
from penstock.connectors.kafka.records import to_records
from penstock.schemas.errors import ConfigError, FencedError, InvariantError, PenstockError, UnavailableError
from penstock.schemas.records import Records

Start = Literal["earliest", "latest", "error"]

place_timeout_s = 0.2
"""The polling thread's patience with the coordinator, for all partitions of an assignment together."""
place_one_first_s = 0.02
unreadable_reports_max = 20  # half a second apart: so long may a partition send bytes that cannot be read
_unreadable = {KafkaError._BAD_COMPRESSION, KafkaError._BAD_MSG}
_passing = {KafkaError._MAX_POLL_EXCEEDED, KafkaError._PARTITION_EOF}


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
    ConfigError; a group without begins where `start` says.

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
    ) -> None:
        """Joins the group with the first poll. `memory_bytes_max` bounds what is fetched and not polled yet.

        Raises ConfigError for a setting that the client refuses.
        """
        self._group = group
        self._topic = topic
        self._start = start
        self._listener = listener
        self._exactly_once = exactly_once
        self._assigned: set[int] = set()  # what the listener was told
        self._unplaced: set[int] = set()  # assigned to us, paused, until we know where to begin
        self._heads = ReadHeads()
        self._seek_due: dict[int, int] = {}  # seeks that the client could not do yet; no record passes before
        self._left: set[int] = set()  # gave or lost them since the first record of the current poll
        self._place_turn = 0
        self._place_patience_s = place_one_first_s
        self._held: set[int] = set()
        self._paused = False
        self._closed = False
        self._failure: PenstockError | None = None
        self._unreadable: dict[int, int] = {}
        self._access = AccessErrors()
        settings = group_settings(
            config,
            group=group,
            protocol=protocol,
            max_poll_interval_s=max_poll_interval_s,
            memory_bytes_max=memory_bytes_max,
        )
        self._consumer = open_client(Consumer, settings | {"error_cb": self._on_error})
        self._consumer.subscribe(
            [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, records_max: int, timeout_s: float) -> Records | None:
        """As penstock.engine.ports.Source asks."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._unplaced:
            self._place()
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
            self._consumer.resume(self._places(self._assigned - self._held))

    def hold(self, partitions: Collection[int]) -> None:
        """As penstock.engine.ports.Source asks."""
        wanted = self._assigned & set(partitions)
        new, over = wanted - self._held, self._held - wanted
        self._held = wanted
        if new:
            self._consumer.pause(self._places(new))
        if over and not self._paused:
            self._consumer.resume(self._places(over))

    def seek(self, positions: Mapping[int, int]) -> None:
        """As penstock.engine.ports.Source asks."""
        for partition, offset in sorted(positions.items()):
            self._seek_due.pop(partition, None)
            if partition not in self._assigned:
                continue
            self._heads.put(partition, offset)
            if not self._seek_now(partition, offset):
                self._seek_due[partition] = offset

    def membership(self) -> object:
        """As penstock.engine.ports.Source asks."""
        metadata = self._consumer.consumer_group_metadata()
        if generation(metadata) < 1:  # the coordinator would not check it, and a zombie could commit
            raise UnavailableError(f"not a member of group {self._group} yet")
        return metadata

    def standing(self) -> tuple[bool, str]:
        """Whether the group counts us among its members, and under which id; "" while we have none."""
        metadata = self._consumer.consumer_group_metadata()
        return generation(metadata) >= 1, member_id(metadata)

    def commit(self, positions: Mapping[int, int]) -> None:
        """As penstock.engine.ports.Source asks."""
        if self._exactly_once:
            raise InvariantError("in exactly-once the sink commits, inside the transaction")
        offsets = [
            TopicPartition(self._topic, partition, offset)
            for partition, offset in sorted(positions.items())
            if partition in self._assigned
        ]
        if not offsets:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            failure = consumer_error(cause_of(error), "commit")
            if not isinstance(failure, UnavailableError):
                raise failure from error

    def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The log end of partitions as the fetches last saw it; nothing is asked of the broker."""
        found = {}
        for place in self._places(set(partitions) & self._assigned):
            _, end = self._consumer.get_watermark_offsets(place, cached=True)
            if end >= 0:
                found[place.partition] = end
        return found

    def close(self, timeout_s: float) -> None:
        """As penstock.engine.ports.Source asks; tells the listener of what it still holds."""
        if self._closed:
            return
        self._closed = True
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
        if any(map(Message.error, messages)):
            for message in messages:
                self._note_error(message)
            messages = [message for message in messages if message.error() is None]
        present = set(map(_partition, messages))
        stale = self._seek_due.keys() | (present - self._assigned) | self._held
        if stale & present:
            messages = [message for message in messages if _partition(message) not in stale]
        if not messages:
            return None
        for partition in self._unreadable.keys() & present:
            del self._unreadable[partition]
        records = to_records(self._topic, messages)
        taken, forward = self._heads.pass_over(records.partitions, records.offsets)
        if taken is None:
            return records
        self.seek(forward)
        return records.take(taken) if len(taken) else None

    def _note_error(self, message: Message) -> None:
        error = message.error()
        if error is None or error.code() in _passing:
            return
        partition = message.partition()
        where = f"topic {self._topic}" + (
            f", partition {partition}" if partition is not None and partition >= 0 else ""
        )
        if error.code() in _unreadable and partition is not None:
            seen = self._unreadable[partition] = self._unreadable.get(partition, 0) + 1
            if seen < unreadable_reports_max:
                return
            self._fail(
                ConfigError(
                    f"{where}: what is stored at offset {message.offset()} cannot be read ({said(error)})"
                )
            )
            return
        failure = consumer_error(error, where)
        if error.fatal() or isinstance(failure, ConfigError | FencedError):
            self._fail(failure)

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
        starts = self._starts_soon(partitions)
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
        paused = partitions if self._paused else partitions & (self._unplaced | self._held)
        self._held -= partitions
        self._unplaced -= partitions
        for partition in partitions:
            self._seek_due.pop(partition, None)
            self._unreadable.pop(partition, None)
        if paused:
            consumer.resume(self._places(paused))  # leave no flag behind for the next assignment
        consumer.incremental_unassign(self._places(partitions))

    def _tell_assigned(self, partitions: Mapping[int, int]) -> None:
        if partitions:
            for partition, offset in partitions.items():
                self._heads.put(partition, offset)
            self._assigned |= partitions.keys()
            self._listener.on_assigned(sorted(partitions))

    def _starts_soon(self, partitions: set[int]) -> dict[int, int]:
        """Where to begin each, of those for which the coordinator says so in a short time.

        An open transaction of a predecessor holds the answer back, for every partition that is asked about together
        with the one it concerns; so each is then asked about alone, and only that one waits.
        """
        starts = self._starts(partitions, place_timeout_s / 2)
        self._place_patience_s = place_one_first_s
        if len(partitions) > 1 and not starts:
            for partition in sorted(partitions)[: int(place_timeout_s / 2 / place_one_first_s)]:
                starts |= self._starts({partition}, place_one_first_s)
        return starts

    def _starts(self, partitions: set[int], timeout_s: float) -> dict[int, int]:
        """The committed offset is asked for here rather than by the client: for a group with commits the client's reset
        policy must be `error`, and for one without it must not."""
        if not partitions:
            return {}
        try:
            committed = self._consumer.committed(self._places(partitions), timeout=timeout_s)
        except KafkaException as error:
            self._note_place_error(cause_of(error))
            return {}
        starts: dict[int, int] = {}
        for place in committed:
            if place.error is not None:
                self._note_place_error(place.error)
            elif place.offset >= 0:
                starts[place.partition] = place.offset
            elif self._start == "error":
                self._fail(
                    ConfigError(
                        f"group {self._group} has no committed offset for partition {place.partition} of {self._topic}"
                    )
                )
            else:
                starts[place.partition] = OFFSET_BEGINNING if self._start == "earliest" else OFFSET_END
        return starts

    def _note_place_error(self, error: KafkaError) -> None:
        failure = consumer_error(error, f"offsets of group {self._group}")
        if not isinstance(failure, UnavailableError):
            self._fail(failure)

    def _place(self) -> None:
        """Begin what could not be begun when it was assigned: one partition each time, so that the others go on."""
        self._place_turn += 1
        waiting = sorted(self._unplaced)
        starts = self._starts({waiting[self._place_turn % len(waiting)]}, self._place_patience_s)
        self._place_patience_s = (
            place_one_first_s if starts else min(2 * self._place_patience_s, place_timeout_s)
        )
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
