"""librdkafka's consumer, simulated: a group member whose position moves in ways that nobody asked for."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    OFFSET_INVALID,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from penstock.connectors.kafka.reading.commits import noted_topic_id
from penstock.connectors.memory.group import Membership
from penstock.connectors.memory.log import OutOfRangeError, Read
from penstock_bench.faults.cluster import Cluster, failure
from penstock_bench.faults.fates import Fate, Trouble

OnCommit = Callable[[KafkaError | None, list[TopicPartition]], None]
Told = Callable[["SimulatedConsumer", list[TopicPartition]], None]
passing: Final = (
    KafkaError._TRANSPORT, KafkaError._BAD_MSG, KafkaError._NOT_IMPLEMENTED, KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError._BAD_COMPRESSION, KafkaError.UNKNOWN_LEADER_EPOCH,
)  # fmt: skip


@dataclass(slots=True)
class _Fetcher:
    position: int
    paused: bool = False
    ended: bool = False  # by an error: nothing comes until it is made anew or sent elsewhere


class SimulatedConsumer:
    """confluent_kafka.Consumer by shape, as far as Penstock uses it.

    Rebalances are told from inside `poll` and `consume`. With an error, or after a seek, the position may be anywhere
    (librdkafka 2.16 at a wrong checksum; its issue 2256); a topic that was made anew is read on at the old position.
    """

    def __init__(self, cluster: Cluster, properties: Mapping[str, Any]) -> None:
        self._cluster = cluster
        self._fates = cluster.fates
        self._timeline = cluster.timeline
        self._expires_after_s = float(properties.get("max.poll.interval.ms", 300_000)) / 1000
        self.member = ""
        self._fetchers: dict[int, _Fetcher] = {}
        self._failed_at: set[tuple[int, int]] = set()  # partition and position of each passing error
        self._told: dict[str, Told] = {}
        self._group = str(properties["group.id"])
        self._topic = ""
        self._topic_id = ""
        self._refresh_due = False
        self._turn = 0
        self._commit_s = 0.0  # when the last commit arrives; the next one comes behind it
        self._commits: list[Callable[[], None]] = []
        self._on_commit: OnCommit | None = properties.get("on_commit")
        self._news: list[Callable[[], None]] = []  # served by polls
        self._closed = False
        self._subscribed = False
        self._joins_s = 0.0  # not before

    def subscribe(self, topics: list[str], *, on_assign: Told, on_revoke: Told, on_lost: Told) -> None:
        """Joins with the first poll."""
        self._subscribed, self._joins_s = True, self._timeline.now_s
        if self._told:
            return
        (self._topic,) = topics
        self._topic_id = self._cluster.topic_id(self._topic)
        self._told = {"assign": on_assign, "revoke": on_revoke, "lost": on_lost}
        self._cluster.members.append(self)

    def unsubscribe(self) -> None:
        """Leaves with the next poll."""
        self._subscribed = False

    def poll(self, timeout_s: float) -> Message | None:
        """The next record or error, waiting for it."""
        self._serve_news()
        self._serve_group()
        found = self._next(1)
        if not found and timeout_s > 0:
            self._timeline.sleep(timeout_s)
            found = self._next(1)
        return found[0] if found else None

    def consume(self, count: int, timeout_s: float) -> list[Message]:
        """What is there; a rebalance may come first."""
        if self._fates.chance(0.05, Trouble.REBALANCE):
            if self._fates.chance(0.2, Trouble.REBALANCE):
                self._expel()
            self._serve_group()
        return self._next(count)

    def _expel(self) -> None:
        """The coordinator takes this member for dead."""
        self._fates.disturbed()
        self._cluster.expire(self._group, self.member)

    def seek(self, place: TopicPartition) -> None:
        """Send a partition elsewhere."""
        fetcher = self._fetchers.get(place.partition)
        if fetcher is None:
            raise KafkaException(failure(KafkaError._STATE, "not assigned"))
        if self._fates.chance(0.2, Trouble.READING):
            raise KafkaException(failure(KafkaError._STATE, "the fetcher is between two states"))
        fetcher.position, fetcher.ended = self._resolved(place), False
        if self._fates.chance(0.05, Trouble.READING):
            fetcher.position = self._resolved(TopicPartition(self._topic, place.partition, OFFSET_BEGINNING))

    def pause(self, places: Sequence[TopicPartition]) -> None:
        """Fetch nothing of these."""
        for place in places:
            if place.partition in self._fetchers:
                self._fetchers[place.partition].paused = True

    def resume(self, places: Sequence[TopicPartition]) -> None:
        """Fetch these again."""
        for place in places:
            if place.partition in self._fetchers:
                self._fetchers[place.partition].paused = False

    def incremental_assign(self, places: Sequence[TopicPartition]) -> None:
        """New fetchers."""
        for place in places:
            self._fetchers[place.partition] = _Fetcher(self._resolved(place))

    def incremental_unassign(self, places: Sequence[TopicPartition]) -> None:
        """No fetchers any more."""
        for place in places:
            self._fetchers.pop(place.partition, None)

    def committed(self, places: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        """What the group has committed; an open transaction that holds such an offset is waited for."""
        cluster, deadline_s = self._cluster, self._timeline.now_s + timeout
        if self._commits:  # on the same connection, so the answer comes behind them
            self._timeline.sleep(min(max(self._commit_s - self._timeline.now_s, 0.0), timeout))
            timeout = max(deadline_s - self._timeline.now_s, 0.0)
        cluster.check_overdue()
        coordinator = cluster.group(self._group)
        stable = not any(coordinator.unstable(place.topic, place.partition) for place in places)
        if not stable or self._commits or self._fates.call(transactional=False, twins=False).ends_s > timeout:
            self._timeline.sleep(timeout)
            raise KafkaException(
                failure(KafkaError._TIMED_OUT, "no committed offsets in time", retriable=True)
            )
        found = []
        for place in places:
            key = (place.topic, place.partition)
            offset = coordinator.committed.get(key, OFFSET_INVALID)
            noted = coordinator.committed_topic_ids.get(key)
            note = "" if noted is None else f"penstock topic-id={noted}"
            found.append(TopicPartition(place.topic, place.partition, offset, note))
        return found

    def list_topics(self, topic: str, timeout: float) -> None:
        """Answered at once; nothing is made of it."""

    def offsets_for_times(self, places: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        """Only asked for beginnings and ends."""
        if self._fates.call(transactional=False, twins=False).ends_s > timeout:
            self._timeline.sleep(timeout)
            raise KafkaException(failure(KafkaError._TIMED_OUT, "no offsets in time", retriable=True))
        found = []
        for place in places:
            there = place.partition < self._cluster.partitions(
                place.topic
            )  # it may have been made anew with fewer
            offset = OFFSET_INVALID
            if there:
                first, end = self._cluster.bounds(place.topic, place.partition)
                offset = {OFFSET_BEGINNING: first, OFFSET_END: end}[place.offset]
            found.append(TopicPartition(place.topic, place.partition, offset))
        return found

    def commit(self, *, offsets: Sequence[TopicPartition], asynchronous: bool) -> None:
        """Sent now, counted when it arrives, if the member is still in its generation then."""
        positions = {place.partition: place.offset for place in offsets}
        member = self._membership(noted_topic_id(offsets[0].metadata))
        call = self._fates.call(transactional=False, twins=False)

        def answer(error: KafkaError | None) -> None:
            if self._on_commit is not None:
                self._on_commit(error, list(offsets))

        def arrive() -> None:
            if arrive in self._commits:
                self._commits.remove(arrive)
                error = None
                if call.fate in (Fate.LOST, Fate.LATE):
                    error = failure(KafkaError._TIMED_OUT, "no answer to a commit", retriable=True)
                elif not self._cluster.commit(self._topic, positions, member):
                    error = failure(KafkaError.ILLEGAL_GENERATION, "the commit is of an earlier generation")
                if call.fate is Fate.UNANSWERED:
                    error = failure(KafkaError._TIMED_OUT, "no answer to a commit", retriable=True)
                self._news.append(lambda: answer(error))

        self._commits.append(arrive)
        self._commit_s = max(self._commit_s, self._timeline.now_s + call.acts_s)
        self._timeline.later(self._commit_s - self._timeline.now_s, arrive)

    def get_watermark_offsets(
        self, place: TopicPartition, timeout: float = 0.0, cached: bool = False
    ) -> tuple[int, int]:
        """First and last offset of a partition."""
        if place.partition >= self._cluster.partitions(self._topic):
            return -1001, -1001
        if not cached and self._fates.call(transactional=False, twins=False).ends_s > timeout:
            self._timeline.sleep(timeout)
            raise KafkaException(failure(KafkaError._TIMED_OUT, "no offsets in time", retriable=True))
        return self._cluster.bounds(self._topic, place.partition)

    def consumer_group_metadata(self) -> bytes:
        """As librdkafka writes it."""
        member = self._cluster.group(self._group).membership(self.member)
        generation = -1 if member is None else member.generation
        return (
            b"CGMDv2:"
            + generation.to_bytes(4, sys.byteorder, signed=True)
            + b"%s\0%s\0" % (self._group.encode(), self.member.encode())
        )

    def close(self) -> None:
        """Leave, when the commits that are on their way have arrived."""
        if not self._closed and self._told:
            self._closed = True
            self._flush_commits()
            self._cluster.group(self._group).leave(self.member)

    def _serve_group(self) -> None:
        coordinator = self._cluster.group(self._group)
        if not self._subscribed:
            self._leave()
            return
        if not self._join():
            return
        orders = coordinator.sync(self.member)
        if orders.expelled:
            self._fates.disturbed()
            self._commits.clear()
            held = sorted(self._fetchers)
            self.member = ""
            self._joins_s = self._cluster.lose_coordinator()
            if held:
                self._tell("lost", held)
            if not self._join():
                return
            orders = coordinator.sync(self.member)
        if orders.revoke:
            self._tell("revoke", list(orders.revoke))
            self._flush_commits()
            coordinator.release(self.member, orders.revoke)
            orders = coordinator.sync(self.member)
        if orders.grant:
            self._tell("assign", list(orders.grant))

    def _join(self) -> bool:
        """Whether it is a member, now at the latest. A coordinator that is away lets nobody join."""
        if not self.member:
            if self._timeline.now_s < max(self._joins_s, self._cluster.coordinator_back_s):
                return False
            self.member = self._cluster.group(self._group).join(self._topic, self._expires_after_s)
        return True

    def _leave(self) -> None:
        if self.member:
            self._tell("revoke", sorted(self._fetchers))
            self._flush_commits()
            self._cluster.group(self._group).leave(self.member)
            self.member = ""

    def _serve_news(self) -> None:
        if self._news:
            news, self._news = self._news, []
            for tell in news:
                tell()

    def _tell(self, what: str, partitions: list[int]) -> None:
        self._cluster.trace(f"{self.member} {what} {partitions}")
        self._told[what](self, [TopicPartition(self._topic, p) for p in partitions])

    def _flush_commits(self) -> None:
        for arrive in tuple(self._commits):
            arrive()

    def _membership(self, topic_id: str | None) -> Membership:
        member = self._cluster.group(self._group).membership(self.member)
        generation = -1 if member is None else member.generation
        return Membership(group=self._group, member=self.member, generation=generation, topic_id=topic_id)

    def _resolved(self, place: TopicPartition) -> int:
        if place.offset != OFFSET_BEGINNING:
            return place.offset
        if place.partition >= self._cluster.partitions(self._topic):
            return 0
        return self._cluster.bounds(self._topic, place.partition)[0]

    def _next(self, count: int) -> list[Message]:
        if self._other_topic():
            return []
        partitions = [p for p, f in self._fetchers.items() if not f.paused and not f.ended]
        if not partitions:
            return []
        partitions.sort()
        self._turn = (self._turn + 1) % len(partitions)
        messages: list[Message] = []
        for partition in partitions[self._turn :] + partitions[: self._turn]:
            if len(messages) < count and partition < self._cluster.partitions(self._topic):
                messages += self._fetch(partition, self._fetchers[partition], count - len(messages))
        return messages

    def _other_topic(self) -> bool:
        """A topic made anew gives nothing until the client has heard of it; then it is read on as if it were the same."""
        if self._topic_id == self._cluster.topic_id(self._topic):
            return False
        if not self._refresh_due:
            self._refresh_due = True

            def refresh() -> None:
                self._topic_id, self._refresh_due = self._cluster.topic_id(self._topic), False

            self._timeline.later(self._fates.random.choice((0.05, 0.3, 1.0)), refresh)
        return True

    def _fetch(self, partition: int, fetcher: _Fetcher, count: int) -> list[Message]:
        cluster, position = self._cluster, fetcher.position
        try:
            read = cluster.look(self._topic, partition, position, count)
        except OutOfRangeError as error:
            fetcher.ended = True
            return [self._error(partition, position, KafkaError._AUTO_OFFSET_RESET, str(error))]
        if read.position == position:
            return []
        # What fails twice at the same place is no passing error, whatever failed elsewhere in between.
        once = (partition, position) not in self._failed_at
        share = 0.2 if cluster.spoilt else 0.02
        if read.values and once and self._fates.chance(share, Trouble.READING):
            self._failed_at.add((partition, position))
            self._jump(partition, fetcher)
            code = self._fates.random.choice(passing)
            return [self._error(partition, position, code, "it was reported")]
        messages = self._messages(partition, read)
        spoilt = self._spoilt(partition, position, read.position)
        fetcher.position = read.position
        if spoilt is None:
            return messages
        before = [message for message in messages if (message.offset() or 0) < spoilt]
        fetcher.position = spoilt
        if not before:
            self._jump(partition, fetcher)
            return [self._error(partition, spoilt, KafkaError._BAD_MSG, "wrong checksum")]
        return before

    def _spoilt(self, partition: int, start: int, stop: int) -> int | None:
        spoilt = self._cluster.spoilt
        if not spoilt:
            return None
        return next((o for o in range(start, stop) if (self._topic_id, partition, o) in spoilt), None)

    def _jump(self, partition: int, fetcher: _Fetcher) -> None:
        end = self._cluster.bounds(self._topic, partition)[1]
        ahead = self._fates.random.choice((0, 1, 3, 10, 1000))
        fetcher.position = min(fetcher.position + ahead, end)

    def _messages(self, partition: int, read: Read) -> list[Message]:
        make: Any = Message
        headers = [list(h) for h in read.headers] if read.headers else [None] * len(read.values)
        columns = (read.offsets.tolist(), read.keys, read.values, read.timestamps_ms, headers)
        return [
            make(
                topic=self._topic, partition=partition, offset=offset, key=key, value=value, timestamp=(1, at),
                headers=carried,
            )
            for offset, key, value, at, carried in zip(*columns, strict=True)
        ]  # fmt: skip

    def _error(self, partition: int, offset: int, code: int, text: str) -> Message:
        self._cluster.trace(f"{self.member} error {partition} {offset} {code}")
        make: Any = Message
        found: Message = make(
            topic=self._topic, partition=partition, offset=offset, error=failure(code, text)
        )
        return found
