"""One member of a Kafka consumer group: columns out of polls, and the truth about what is assigned."""

import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.admin.group_offsets import KafkaOffsets
from penstock.connectors.kafka.client import ClientConfig, consumer_config, open_client
from penstock.connectors.kafka.errors import cause_of, consumer_error, said
from penstock.connectors.kafka.group import KafkaMembership, group_settings
from penstock.connectors.kafka.reading.assignment import Assignment, AssignmentListener
from penstock.connectors.kafka.reading.batch_looks import BatchLooks
from penstock.connectors.kafka.reading.careful import Careful, CarefulReading
from penstock.connectors.kafka.reading.commits import Commits, offset_note, recreated_sentence
from penstock.connectors.kafka.reading.doubts import (
    GivenUp,
    UnreadablePolicy,
    lost_range_sentence,
    unreadable_sentence,
)
from penstock.connectors.kafka.reading.log_bounds import LogBounds
from penstock.connectors.kafka.reading.member import GroupMember
from penstock.connectors.kafka.reading.places.beginnings import Beginnings, FirstRecords
from penstock.connectors.kafka.reading.places.placing import Placing, facts_timeout_s
from penstock.connectors.kafka.reading.read_positions import ReadHeads
from penstock.connectors.kafka.reading.records import partition_of, to_records
from penstock.connectors.kafka.reading.returns import Returns
from penstock.connectors.kafka.reading.stalls import StallDetector
from penstock.connectors.kafka.reading.starts import Recreated, Start, Starts
from penstock.connectors.kafka.reading.topic_watch import TopicFacts, TopicWatch
from penstock.schemas.errors import ConfigError, InvariantError
from penstock.schemas.log_codes import LogCode
from penstock.schemas.reading import Reading
from penstock.schemas.records import Records

logger = logging.getLogger("penstock.kafka")

bounds_old_s = 2.0
bounds_patience_s = 30.0  # so long it is asked which offsets a log has that lacks our next one


class KafkaSource:
    """The Source on Kafka (penstock.engine.ports.Source by shape). Every call is made by the thread that polls.

    Promises: the listener hears of a partition before any record of it, and of its going before it moves; a record of
    a partition that is not ours any more is never returned; a group with commits goes on exactly there or stops with
    ConfigError; a group without begins where `start` says. After an error of a partition nothing of it is returned until
    reading was sent back to the offset that comes next and went on there. Offsets are those of one topic, known by its id:
    of a topic that was deleted and made anew everything is read, or ConfigError is raised.

    Members are dynamic. A static name keeps a killed member out for a session (`consumer`), or is taken from its living holder (`classic`).
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
        careful: Careful | None = None,
    ) -> None:
        """Joins the group with the first poll. `memory_bytes_max` bounds what is fetched and not polled yet.

        `unreadable`: what becomes of offsets that stay unreadable; set aside, a range of them is one row of Records.
        `recreated`: whether the records of a topic that was made anew are read, or the worker stops. `careful`: the client is let
        at no batch that was not looked at by hand.

        Raises ConfigError for a setting that the client refuses.
        """
        self._group = group
        self._topic = topic
        self._clock = clock
        self._recreated = recreated
        self._listener = listener
        self._exactly_once = exactly_once
        self._heads = ReadHeads()
        self._seek_due: dict[int, int] = {}  # seeks that the client could not do yet; no record passes before
        self._dropped: set[int] = set()  # held partitions of which something came meanwhile
        self._closed = False
        self._recreations = 0
        self._topic_facts: TopicFacts | None = None  # of the topic that is being read
        settings = group_settings(
            config, group=group, protocol=protocol, max_poll_interval_s=max_poll_interval_s,
            memory_bytes_max=memory_bytes_max, single_batches_s=None if careful is None else careful.pause_s,
        )  # fmt: skip
        self._commits = Commits(topic, clock)
        self._member = GroupMember(
            config, settings | {"on_commit": self._commits.answered}, group=group, topic=topic, protocol=protocol, clock=clock
        )  # fmt: skip
        self._consumer = self._member.client
        self._ours = Assignment(self._consumer, topic, clock=clock)
        self._starts = Starts(
            self._consumer, group=group, topic=topic, start=start, recreated=recreated, fail=self._member.fail, clock=clock,
            open_other=lambda: open_client(Consumer, consumer_config(config) | {"group.id": group}),
        )  # fmt: skip
        self._bounds = LogBounds(config, topic, clock=clock)
        self._beginnings = Beginnings(self._bounds, heads=self._heads, group=group, topic=topic, clock=clock)
        self._first = FirstRecords(self._bounds, heads=self._heads)
        self._looks = BatchLooks(config, topic, clock=clock)
        self._returns = Returns(
            self._consumer, topic=topic, heads=self._heads, policy=unreadable, looks=self._looks, clock=clock,
            ours=self._ours, give_up=self._give_up, other_error=self._member.note_error,
        )  # fmt: skip
        self._careful = None if careful is None else CarefulReading(
            careful, self._consumer, self._looks, self._bounds, heads=self._heads, returns=self._returns, clock=clock,
            stop=None if unreadable == "set_aside" else self._stop_at,
        )  # fmt: skip
        self._watch = TopicWatch(config, topic, clock=clock)
        self._stalls = StallDetector(topic=topic, open_offsets=lambda: KafkaOffsets(config, group), clock=clock)  # fmt: skip
        placing = self._placing = Placing(
            self._starts, self._watch, ours=self._ours, listener=listener, careful=self._careful, clock=clock,
            facts_by=self._facts_by, begun=self._begin_at, gone=self._let_go, lost=self._member.lost, hand_over=self._hand_over,
        )  # fmt: skip
        self._member.join(on_assign=placing.on_assign, on_revoke=placing.on_revoke, on_lost=placing.on_lost)

    def poll(self, records_max: int, timeout_s: float) -> Records | None:
        """As penstock.engine.ports.Source asks."""
        self._member.raise_failure()
        if self._watch.newest is not self._topic_facts:
            self._compare_topic()
        answered = self._watch.newest
        timeout_s = min(timeout_s, self._member.turn(0.0 if answered is None else answered.asked_at_s))
        if self._ours.unplaced:
            self._placing.turn()
            timeout_s = min(timeout_s, self._placing.poll_max_s)
        if self._beginnings:
            for partition, begins in self._beginnings.turn().items():
                if self._heads.anywhere(partition):
                    self._heads.put(partition, begins)
                    self._first.put([partition])  # the client may look for the beginning later than we did
        if self._first:
            for partition in self._first.beyond_the_end(self._clock.monotonic_s(), self.ends):
                if partition not in self._returns:
                    self._returns.read_from(partition, self._heads.next(partition))
        self._commits.turn(self._consumer, offset_note(self._topic_id))
        if self._careful:
            read, others = self._ours.owned - self._ours.held, self._ours.unplaced | self._ours.held
            self._careful.turn(read, waiting=bool(others))
        if (passed := self._returns.turn(self._topic_id, records_max, self._beginnings)) is not None:
            return passed
        if self._seek_due:
            self.seek(self._seek_due)
        consumer = self._consumer
        try:
            poll = self._careful.poll if self._careful else consumer.poll
            first = poll(timeout_s)  # with the first record; consume would wait the whole time
            if first is None:
                return None
            self._ours.left.clear()  # what left before the first record came, and came back, is ours again
            messages = [first]
            if records_max > 1:
                messages += consumer.consume(records_max - 1, 0)
            if (
                first.partition() in self._ours.left
            ):  # even if it was assigned again: the record is read again then
                del messages[0]
        except KafkaException as error:
            raise consumer_error(cause_of(error), f"topic {self._topic}") from error
        return self._records(messages, records_max)

    def pause(self) -> None:
        """As penstock.engine.ports.Source asks."""
        self._ours.pause()

    def resume(self) -> None:
        """As penstock.engine.ports.Source asks."""
        self._ours.resume(self._returns.held)

    def hold(self, partitions: Collection[int]) -> None:
        """As penstock.engine.ports.Source asks."""
        self._ours.hold(partitions, self._returns.held)
        # To their heads: before what came first some may be gone.
        for partition in sorted(self._dropped - self._ours.held):
            if self._heads.anywhere(partition):
                self._dropped.remove(partition)
                self._returns.read_from(partition, OFFSET_BEGINNING)
            else:
                self.seek({partition: self._heads.next(partition)})

    def seek(self, positions: Mapping[int, int]) -> None:
        """As penstock.engine.ports.Source asks."""
        for partition, offset in sorted(positions.items()):
            self._seek_due.pop(partition, None)
            self._dropped.discard(partition)
            if partition not in self._ours.owned:
                continue
            self._heads.put(partition, offset)
            self._first.put([partition])
            doubtful = partition in self._returns or partition in self._returns.held
            self._returns.forget([partition])
            if doubtful:
                self._returns.read_from(partition, offset)
            elif not self._ours.seek(partition, offset):
                self._seek_due[partition] = offset

    def membership(self) -> KafkaMembership:
        """As penstock.engine.ports.Source asks."""
        return self._member.membership(offset_note(self._topic_id))

    def standing(self) -> tuple[bool, str]:
        """Whether the group counts us among its members, and under which id; "" while we have none."""
        return self._member.standing()

    def commit(self, positions: Mapping[int, int]) -> None:
        """As penstock.engine.ports.Source asks."""
        if self._exactly_once:
            raise InvariantError("in exactly-once the sink commits, inside the transaction")
        ours = {p: offset for p, offset in positions.items() if p in self._ours.owned}
        if ours:
            self._commits.send(self._consumer, ours, offset_note(self._topic_id))

    def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The log end of partitions as the fetches last saw it; nothing is asked of the broker."""
        return self._ours.ends(partitions)

    def reading(self) -> Reading:
        """What stands in the way of reading; to be asked for about once a second."""
        heads = {partition: self._heads.next(partition) for partition in self._ours.owned}
        paused = self._ours.owned if self._ours.paused else self._ours.held
        stalls = self._stalls.look(heads, self.ends(self._ours.owned), paused)
        return Reading(
            stalled_s=stalls.stalled_s,
            unplaced_s=self._placing.unplaced_s(),
            open_transactions=stalls.open_transactions,
            doubts=self._returns.sentences(),
            unreadable_offsets=self._returns.unreadable_offsets,
            recreations=self._recreations,
            lost_offsets=self._beginnings.lost_offsets,
        )

    @property
    def careful_over(self) -> bool:
        """It was opened to read carefully, and need not any longer."""
        return self._careful is not None and self._careful.over

    def close(self, timeout_s: float) -> None:
        """As penstock.engine.ports.Source asks; tells the listener of what it still holds."""
        if self._closed:
            return
        self._closed = True
        self._watch.close()
        self._stalls.close()
        self._bounds.close()
        self._looks.close()
        self._starts.close()
        self._placing.close()
        self._member.close(timeout_s)

    def _records(self, messages: list[Message], records_max: int) -> Records | None:
        broken: dict[int, Message] = {}  # the first error of a partition, and nothing of it after that
        if any(map(Message.error, messages)):
            messages, broken = self._returns.without_errors(messages, self._ours.owned)
        present = set(map(partition_of, messages))
        stale = self._seek_due.keys() | (present - self._ours.owned) | self._ours.held
        if stale & present:
            self._dropped |= (present & self._ours.held) - self._seek_due.keys()
            messages = [message for message in messages if partition_of(message) not in stale]
        records: Records | None = None
        if self._first and messages:
            messages, untold = self._first.believed(messages, self._clock.monotonic_s())
            self._read_again(untold)
        if self._beginnings and messages:
            messages, untold = self._beginnings.believed(messages)
            self._read_again(untold)
        if messages:
            records = to_records(self._topic, messages, self._topic_id)
            taken, forward = self._heads.pass_over(records.partitions, records.offsets)
            if taken is not None:
                self.seek({partition: at for partition, at in forward.items() if partition not in broken})
                records = records.take(taken) if len(taken) else None
        if records is not None:
            records = self._returns.believed(records)
            if len(records) > records_max:  # what was passed over has rows of its own
                records = self._put_back(records, records_max)
        self._first.forget(broken)  # what comes next is from a fetcher made anew
        recreations = self._recreations
        for partition, message in broken.items():
            self._seek_due.pop(partition, None)
            self._returns.send_back(partition, message)
        # An error may lead to the news that the topic was made anew: then the caller has lost these too, and all is read again.
        return records if self._recreations == recreations else None

    def _read_again(self, partitions: Iterable[int]) -> None:
        """Soon, from where they stand: whether anything before their first record was deleted is being asked."""
        for partition in sorted(partitions):
            self._returns.read_from(partition, self._heads.place(partition), at_s=self._soon_s)

    def _put_back(self, records: Records, records_max: int) -> Records:
        """As many of them as were asked for; the others are read again."""
        over = records.slice(records_max, len(records))
        partitions, firsts = np.unique(over.partitions, return_index=True)
        self.seek(dict(zip(partitions.tolist(), over.offsets[firsts].tolist(), strict=True)))
        return records.slice(0, records_max)

    def _stop_at(self, partition: int, offset: int, why: str) -> None:
        self._member.fail(ConfigError(unreadable_sentence(self._topic, partition, offset, why)))

    def _give_up(self, partition: int, answer: GivenUp, error: KafkaError) -> None:
        head = self._heads.next(partition)
        if answer is GivenUp.UNREADABLE:
            self._stop_at(partition, head, said(error))
            return
        if self._watch.since(self._returns.since_s(partition)) is None:  # is it still the same topic?
            self._returns.read_from(partition, head, at_s=self._soon_s)
            return
        if self._watch.newest is not self._topic_facts and self._compare_topic():
            return
        now_s, since_s = self._clock.monotonic_s(), self._returns.since_s(partition)
        bounds = self._bounds.of([partition], max(since_s, now_s - bounds_old_s)).get(partition)
        if (bounds is None or bounds[0] <= head <= bounds[1]) and now_s - since_s < bounds_patience_s:
            self._returns.read_from(partition, head, at_s=self._soon_s)
            return
        if bounds is not None and bounds[0] > head:
            self._beginnings.lost_offsets += bounds[0] - head
        sentence = lost_range_sentence(self._topic, partition, head=head, group=self._group, bounds=bounds)
        self._member.fail(ConfigError(sentence))

    @property
    def _soon_s(self) -> float:
        """When an answer that was asked for now may be there."""
        return self._clock.monotonic_s() + facts_timeout_s

    @property
    def _topic_id(self) -> str | None:
        return None if self._topic_facts is None else self._topic_facts.id

    def _facts_by(self, newest: TopicFacts) -> TopicFacts:
        """Of the topic that is being read, once a newer answer about it is taken in."""
        if newest is not self._topic_facts:
            self._compare_topic()
        return self._topic_facts or newest

    def _compare_topic(self) -> bool:
        """Take the newest answer about the topic; whether it is another topic of the same name."""
        old, new = self._topic_facts, self._watch.newest
        self._topic_facts = new
        if old is None or new is None or old.id == new.id or old.id is None or new.id is None:
            return False
        self._recreations += 1
        if self._recreated == "stop":
            self._topic_facts = old
            self._member.fail(ConfigError(recreated_sentence(self._topic, old.id, new.id, self._group)))
            return True
        logger.warning(
            "topic %s was deleted and made anew (id %s, then %s): every partition of it is read from its beginning",
            self._topic, old.id, new.id,
            extra=LogCode.TOPIC_READ_ANEW.extra,
        )  # fmt: skip
        again = sorted(self._ours.owned)
        self._ours.owned.clear()
        self._ours.left.update(again)  # of the old topic is also what this poll has brought already
        self._dropped.clear()
        self._ours.held.clear()  # the caller that held them hears that they are lost
        if again:
            self._listener.on_lost(again)
        self._commits.forget(again)
        self._returns.forget(again)
        self._returns.forget_topic()
        for partition in again:
            self._seek_due.pop(partition, None)
            self._returns.read_from(partition, OFFSET_BEGINNING)
        self._placing.tell_assigned(dict.fromkeys(again, OFFSET_BEGINNING))
        return True

    def _hand_over(self, partitions: set[int]) -> None:
        self._commits.hand_over(self._consumer, partitions, offset_note(self._topic_id))

    def _let_go(self, partitions: set[int]) -> None:
        returning = set(self._returns.held)
        self._commits.forget(partitions)
        self._returns.forget(partitions)
        self._beginnings.forget(partitions)
        self._first.forget(partitions)
        if self._careful:
            self._careful.forget(partitions)
        for partition in partitions:
            self._dropped.discard(partition)
            self._seek_due.pop(partition, None)
        self._ours.let_go(partitions, returning)

    def _begin_at(self, starts: Mapping[int, int]) -> None:
        for partition, offset in starts.items():
            self._heads.put(partition, offset)
        self._beginnings.put(p for p, offset in starts.items() if offset == OFFSET_BEGINNING)
        self._first.forget(starts)
        self._first.put(p for p, offset in starts.items() if offset != OFFSET_BEGINNING)
