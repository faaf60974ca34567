"""What a member makes of a topic that is made anew at awkward moments, with a client that does as a test tells it."""

import itertools
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, Message, TopicPartition

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reading import member as member_module
from penstock.connectors.kafka.reading import source as source_module
from penstock.connectors.kafka.reading.batch_looks import Look
from penstock.connectors.kafka.reading.careful import Careful
from penstock.connectors.kafka.reading.doubts import (
    ReadDoubts,
    ReadFault,
    Return,
    UnreadablePolicy,
    unreadable_patience_s,
)
from penstock.connectors.kafka.reading.source import KafkaSource
from penstock.connectors.kafka.reading.topic_watch import TopicFacts
from penstock.connectors.kafka.wire.batches import StoredBatch
from penstock.engine.clock import Clock, SystemClock
from penstock.schemas.errors import ConfigError, PenstockError, UnavailableError
from penstock.schemas.records import Unreadable
from tests.clocks import HandClock


def message(partition: int, offset: int) -> Message:
    return Message(topic="t", partition=partition, offset=offset, key=None, value=b"v", timestamp=(1, 0))


class HandConsumer:
    """Polls return what is put into `first`, consumes what is put into `rest`: messages, or what happens inside."""

    def __init__(self, properties: dict[str, Any]) -> None:
        self.paused: set[int] = set()
        self.first: deque[Message] = deque()
        self.rest: deque[Callable[[], list[Message]]] = deque()

    def subscribe(self, topics: list[str], **callbacks: Any) -> None:
        self.on_assign = callbacks["on_assign"]

    def assigned_now(self, *partitions: int) -> None:
        self.on_assign(self, [TopicPartition("t", partition) for partition in partitions])

    def poll(self, timeout_s: float) -> Message | None:
        return self.first.popleft() if self.first else None

    def consume(self, count: int, timeout_s: float) -> list[Message]:
        return self.rest.popleft()() if self.rest else []

    def committed(self, places: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [TopicPartition(place.topic, place.partition, 1000) for place in places]

    def get_watermark_offsets(self, place: TopicPartition, **_: object) -> tuple[int, int]:
        return 0, 1000

    def pause(self, places: list[TopicPartition]) -> None:
        self.paused |= {place.partition for place in places}

    def resume(self, places: list[TopicPartition]) -> None:
        self.paused -= {place.partition for place in places}

    def incremental_assign(self, places: list[TopicPartition]) -> None: ...
    def incremental_unassign(self, places: list[TopicPartition]) -> None: ...
    def seek(self, place: TopicPartition) -> None: ...


class HandWatch:
    def __init__(self, *_: object, **__: object) -> None:
        self.newest = TopicFacts(id="old", partitions=2, asked_at_s=0.0)

    def since(self, moment_s: float, timeout_s: float = 0.0) -> TopicFacts | None:
        return self.newest

    def made_anew(self) -> None:
        self.newest = TopicFacts(id="new", partitions=2, asked_at_s=1.0)


class HandBounds:
    """Says nothing `silent` times, then `bounds` of every partition."""

    def __init__(self, *_: object, **__: object) -> None:
        self.silent, self.bounds = 0, (0, 1000)

    def of(self, partitions: Collection[int], since_s: float) -> dict[int, tuple[int, int]]:
        if self.silent:
            self.silent -= 1
            return {}
        return dict.fromkeys(partitions, self.bounds)


class HandLooks:
    """Says nothing `silent` times, then `seen`."""

    def __init__(self, *_: object, **__: object) -> None:
        self.silent, self.seen = 0, Look(offset=1000, asked_at_s=0.0, fault="away")

    def of(self, partition: int, offset: int) -> Look | None:
        if self.silent:
            self.silent -= 1
            return None
        return replace(self.seen, offset=offset)

    def broken(self, base: int, behind: int) -> None:
        self.seen = Look(
            offset=base,
            asked_at_s=0.0,
            batch=StoredBatch(
                base=base, control=False, delta=behind - base - 1, count=behind - base, size=100, magic=2, stored_crc=1,
                computed_crc=2, whole=True, follows=None, end=behind + 10,
            ),
        )  # fmt: skip

    def forget(self) -> None: ...
    def close(self) -> None: ...


class Told:
    def __init__(self) -> None:
        self.held: set[int] = set()

    def on_assigned(self, partitions: Sequence[int]) -> None:
        self.held |= set(partitions)

    def on_revoked(self, partitions: Sequence[int]) -> None:
        self.held -= set(partitions)

    def on_lost(self, partitions: Sequence[int]) -> None:
        self.held -= set(partitions)


class Member:
    def __init__(
        self,
        unreadable: UnreadablePolicy = "stop",
        careful: Careful | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.told = Told()
        self.source = KafkaSource(
            ClientConfig(bootstrap_servers="nowhere:1"), group="g", topic="t", protocol="consumer", start="earliest",
            listener=self.told, exactly_once=True, max_poll_interval_s=60.0, memory_bytes_max=4 << 20, clock=clock or SystemClock(),
            unreadable=unreadable, careful=careful,
        )  # fmt: skip
        self.consumer: HandConsumer = self.source._consumer  # type: ignore[assignment]
        self.watch: HandWatch = self.source._watch  # type: ignore[assignment]
        self.bounds: HandBounds = self.source._bounds  # type: ignore[assignment]
        self.looks: HandLooks = self.source._looks  # type: ignore[assignment]


def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the clients of a source do as they are told."""
    monkeypatch.setattr(member_module, "open_client", lambda _, properties: HandConsumer(properties))
    monkeypatch.setattr(source_module, "TopicWatch", HandWatch)
    monkeypatch.setattr(source_module, "LogBounds", HandBounds)
    monkeypatch.setattr(source_module, "BatchLooks", HandLooks)


@pytest.fixture
def member(monkeypatch: pytest.MonkeyPatch) -> Member:
    by_hand(monkeypatch)
    return Member()


def test_a_partition_that_stood_still_is_read_when_its_topic_is_made_anew(member: Member) -> None:
    """Whoever held it hears that it was lost, and knows nothing of it any more."""
    member.consumer.assigned_now(0, 1)
    member.source.hold([1])
    assert member.consumer.paused == {1}
    member.watch.made_anew()
    member.consumer.first.append(message(1, 0))
    found = member.source.poll(10, 0.0)
    assert member.told.held == {0, 1}
    assert member.consumer.paused == set()
    assert found is not None
    assert found.offsets.tolist() == [0]


def test_a_record_of_the_old_topic_is_none_of_the_new_one(member: Member) -> None:
    """It was polled, and then came a rebalance in which the topic turned out to be another."""
    member.consumer.assigned_now(0)

    def rebalance() -> list[Message]:
        member.watch.made_anew()
        member.consumer.assigned_now(1)
        return []

    member.consumer.first.append(message(0, 1000))
    member.consumer.rest.append(rebalance)
    assert member.source.poll(10, 0.0) is None
    member.consumer.first.append(message(0, 0))
    found = member.source.poll(10, 0.0)
    assert found is not None
    assert (found.offsets.tolist(), found.topic_id) == ([0], "new")


def refusal(code: int, text: str, topic: str | None = None) -> Message:
    """An error as the client hands it out: one that is about no partition has a 0 in its place."""
    return Message(topic=topic, partition=0, offset=-1001, error=KafkaError(code, text))


@pytest.mark.parametrize("assigned", [(), (0,), (1,)])
@pytest.mark.parametrize(
    ("code", "text", "reaction"),
    [
        (KafkaError._FATAL, "Fatal error: Broker: Offset out of range: ConsumerGroupHeartbeat", ConfigError),
        (KafkaError._FATAL, "Fatal error: Broker: Group authorization failed: JoinGroup", ConfigError),
        (KafkaError._FATAL, "Fatal error: Local: Static consumer fenced by other consumer", PenstockError),
        (KafkaError._FATAL, "Fatal error: Broker: Something nobody knows yet", UnavailableError),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, "JoinGroup failed", ConfigError),
    ],
)
def test_an_error_of_no_partition_ends_a_member_whatever_it_holds(
    member: Member, assigned: tuple[int, ...], code: int, text: str, reaction: type[Exception]
) -> None:
    """A client that is at its end brings nothing any more: who waits for it waits for ever."""
    member.consumer.assigned_now(*assigned)
    member.consumer.first.append(refusal(code, text))
    member.source.poll(10, 0.0)
    with pytest.raises(reaction):
        member.source.poll(10, 0.0)


def test_a_missing_permission_for_the_topic_ends_a_member_without_partitions(member: Member) -> None:
    member.consumer.first.append(
        refusal(KafkaError.TOPIC_AUTHORIZATION_FAILED, "Subscribed topic not available", "t")
    )
    member.source.poll(10, 0.0)
    with pytest.raises(ConfigError):
        member.source.poll(10, 0.0)


@pytest.mark.parametrize("turns", [2, 3, 4])  # the error is believed when it comes again
def test_records_beside_the_error_by_which_a_new_topic_is_noticed_are_lost_with_their_partition(
    member: Member, turns: int
) -> None:
    """Whoever held the partition has just heard that it was lost and is there again: these would come before its first record."""
    member.consumer.assigned_now(0, 1)
    gone: Any = Message(topic="t", partition=1, offset=1000, error=KafkaError(KafkaError._AUTO_OFFSET_RESET, "gone"))  # fmt: skip

    def noticed() -> list[Message]:
        member.watch.made_anew()  # while the poll is under way
        return [message(0, 1000 + turns), gone]

    for turn in range(turns):
        last = turn == turns - 1
        member.consumer.first.append(message(0, 1000 + turn))
        member.consumer.rest.append(noticed if last else lambda: [gone])
        found = member.source.poll(10, 0.0)
        assert last or (found is not None and found.topic_id == "old")
        if member.source.reading().recreations:
            assert found is None
    member.consumer.first.extend([message(0, 0), message(1, 0)])
    for _ in range(2):
        found = member.source.poll(10, 0.0)
        assert found is not None
        assert (found.offsets.tolist(), found.topic_id) == ([0], "new")
    assert member.source.reading().recreations == 1


@pytest.mark.parametrize("paused", [False, True])
def test_a_seek_lets_go_on_what_waits_to_be_read_again(member: Member, paused: bool) -> None:
    """Whether its first record is the next one is being asked; an abort sends it back meanwhile. It stood still for ever."""
    member.bounds.silent = 1000
    member.consumer.assigned_now(0)
    member.consumer.first.append(message(0, 1005))
    assert member.source.poll(10, 0.0) is None
    assert member.consumer.paused == {0}
    if paused:
        member.source.pause()
    member.source.seek({0: 1000})
    assert member.consumer.paused == ({0} if paused else set())
    member.source.resume()
    assert member.consumer.paused == set()
    member.consumer.first.append(message(0, 1000))
    found = member.source.poll(10, 0.0)
    assert found is not None
    assert found.offsets.tolist() == [1000]


def test_what_retention_took_is_named_once_a_broker_says_what_is_left(member: Member) -> None:
    """The first questions stay without an answer: nothing is said yet that names no offsets."""
    member.bounds.silent, member.bounds.bounds = 3, (1007, 1010)
    member.consumer.assigned_now(0)
    gone: Any = Message(topic="t", partition=0, offset=1000, error=KafkaError(KafkaError._AUTO_OFFSET_RESET, "gone"))  # fmt: skip
    for _ in range(3 + 3):  # an error is believed when it comes again
        member.consumer.first.append(gone)
        assert member.source.poll(10, 0.0) is None
        if member.source._member._failure is not None:
            break
    assert member.source.reading().lost_offsets == 7
    with pytest.raises(ConfigError, match="partition 0: offsets 1000 to 1006 were deleted before group g"):
        member.source.poll(10, 0.0)


def appears_later(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    """Partition 0 has no commit, another one has."""
    monkeypatch.setattr(
        member.consumer,
        "committed",
        lambda places, timeout: [
            TopicPartition("t", p.partition, 5 if p.partition else -1001) for p in places
        ],
    )
    member.consumer.assigned_now(0)


def sayings(caplog: pytest.LogCaptureFixture) -> list[str]:
    said = [record.getMessage() for record in caplog.records]
    return [text for text in said if "were deleted before group g read them" in text]


def sent_to(member: Member, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The offsets that the client is sent to from now on."""
    sent: list[int] = []
    monkeypatch.setattr(
        member.consumer, "incremental_assign", lambda places: sent.extend(p.offset for p in places)
    )
    return sent


@pytest.mark.parametrize(("begins", "first", "taken"), [(0, 5, 5), (17, 17, 17), (17, 20, 20), (17, 3, 17)])
@pytest.mark.parametrize("silent", [1, 2, 4])
def test_of_a_partition_that_appeared_later_nothing_is_taken_before_it_is_said_what_was_deleted_of_it(
    member: Member, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    begins: int, first: int, taken: int, silent: int,
) -> None:  # fmt: skip
    """Who reads on from a commit knows of nothing before it. (17, 3): the log began at 3 when it was read, and at 17 when it was asked."""
    member.bounds.silent, member.bounds.bounds = silent, (begins, 100)
    appears_later(member, monkeypatch)
    sent = sent_to(member, monkeypatch)
    for _ in range(silent):
        member.consumer.first.append(message(0, first))
        assert member.source.poll(10, 0.0) is None
        assert sayings(caplog) == []
    assert sent == [OFFSET_BEGINNING] * silent
    found = None
    for offset in range(first, taken + 1):
        member.consumer.first.append(message(0, offset))
        found = member.source.poll(10, 0.0)
    assert found is not None
    assert found.offsets.tolist() == [taken]
    assert member.source.reading().lost_offsets == begins
    assert len(sayings(caplog)) == (begins > 0)
    assert not begins or f"partition 0: offsets 0 to {begins - 1} " in sayings(caplog)[0]


def test_a_first_record_at_offset_0_waits_for_no_answer(
    member: Member, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing can be missing before it, whatever retention takes after that."""
    member.bounds.silent, member.bounds.bounds = 2, (17, 100)
    appears_later(member, monkeypatch)
    for offset in range(7):
        member.consumer.first.append(message(0, offset))
        assert member.source.poll(10, 0.0) is not None
    assert member.source.reading().lost_offsets == 0
    assert sayings(caplog) == []


def test_what_is_deleted_of_an_idle_partition_after_its_log_was_asked_for_is_not_passed_over(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log began at 0; the client, sent to the beginning, looks for it only when records have come and gone."""
    member.bounds.bounds = (0, 0)
    appears_later(member, monkeypatch)
    assert member.source.poll(10, 0.0) is None
    sent = sent_to(member, monkeypatch)
    member.bounds.bounds = (5, 9)
    member.consumer.first.append(message(0, 5))
    assert member.source.poll(10, 0.0) is None
    assert sent == [0]  # a fetcher made anew says that the offset is gone


@pytest.mark.parametrize("later", [False, True])
def test_what_came_first_while_a_partition_was_held_is_not_where_it_goes_on(
    member: Member, monkeypatch: pytest.MonkeyPatch, later: bool
) -> None:
    """Held before its first record, sent to 1000 or to its beginning; what came and was dropped may have come too late."""
    member.bounds.silent, member.bounds.bounds = 100, (1003, 1010)
    appears_later(member, monkeypatch) if later else member.consumer.assigned_now(0)
    while not member.told.held:
        assert member.source.poll(10, 0.0) is None
    member.source.hold([0])
    member.consumer.first.append(message(0, 1003))
    assert member.source.poll(10, 0.0) is None
    sent = sent_to(member, monkeypatch)
    monkeypatch.setattr(member.consumer, "seek", lambda place: sent.append(place.offset))
    member.source.hold([])
    assert sent == [OFFSET_BEGINNING if later else 1000]
    member.consumer.first.append(message(0, 1003))
    assert member.source.poll(10, 0.0) is None


def test_bytes_that_cannot_be_read_are_set_aside_only_after_it_is_said_what_was_deleted_before_them(
    member: Member, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    member = Member("set_aside")
    member.bounds.silent, member.bounds.bounds = 3, (17, 100)
    monkeypatch.setattr(member.consumer, "get_watermark_offsets", lambda place, **_: (17, 100))
    member.looks.broken(17, 40)
    appears_later(member, monkeypatch)
    sent = sent_to(member, monkeypatch)
    for _ in range(3):
        member.consumer.first.append(bad_batch(17))
        assert member.source.poll(10, 0.0) is None
    assert sent == [OFFSET_BEGINNING] * 3
    assert sayings(caplog) == []
    member.consumer.first.append(bad_batch(17))
    assert member.source.poll(10, 0.0) is None
    assert len(sayings(caplog)) == 1
    found = member.source.poll(10, 0.0)
    assert found is not None
    (passed,) = found.unreadable.values()
    assert (passed.first, passed.next) == (17, 40)


def test_read_carefully_a_broken_first_batch_waits_until_it_is_said_what_was_deleted_before_it(
    member: Member, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it begins was answered before the partition began; what is missing is asked after that."""
    member = Member("set_aside", Careful(pause_s=0.1, tell=lambda *_: None))
    member.bounds.bounds = (17, 100)
    member.looks.broken(17, 40)
    monkeypatch.setattr(
        member.source._careful, "_found", {0: Unreadable(first=17, next=40, why="wrong checksum")}
    )
    member.looks.seen = Look(offset=40, asked_at_s=0.0)
    appears_later(member, monkeypatch)
    while not member.told.held:
        assert member.source.poll(10, 0.0) is None
        member.bounds.silent = 3
    for _ in range(2):
        member.consumer.first.append(message(0, 40))
        assert member.source.poll(10, 0.0) is None
        assert sayings(caplog) == []
    found = None
    while found is None:
        found = member.source.poll(10, 0.0)
    (passed,) = found.unreadable.values()
    assert (passed.first, passed.next) == (17, 40)
    assert len(sayings(caplog)) == 1
    assert "offsets 0 to 16 were deleted" in sayings(caplog)[0]


@pytest.mark.parametrize(("begins", "taken"), [(0, True), (1000, True), (1001, False), (1003, False)])
def test_a_client_that_reads_from_further_on_than_it_was_sent_is_not_believed(
    member: Member, monkeypatch: pytest.MonkeyPatch, begins: int, taken: bool
) -> None:
    """Behind 1000 may stand the end of a transaction; where the log itself begins behind it, records are gone."""
    sent: list[int] = []
    member.bounds.bounds = begins, 1010
    monkeypatch.setattr(
        member.consumer, "incremental_assign", lambda places: sent.extend(p.offset for p in places)
    )
    member.consumer.assigned_now(0)
    member.consumer.first.append(message(0, 1003))
    assert (member.source.poll(10, 0.0) is not None) == taken
    assert sent == ([1000] if taken else [1000, 1000])  # a fetcher made anew says that the offset is gone
    member.consumer.first.append(message(0, 1007))  # a gap further on is none of this
    assert (member.source.poll(10, 0.0) is not None) == taken


def test_an_error_that_names_no_offset_does_not_say_that_records_were_lost(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a partition begins could not be looked up; the first offset of all is not missing for that."""
    member.bounds.silent = 100
    appears_later(member, monkeypatch)
    for _ in range(3):
        member.consumer.first.append(
            refusal(KafkaError._AUTO_OFFSET_RESET, "failed to query logical offset", "t")
        )
        assert member.source.poll(10, 0.0) is None
    member.consumer.first.append(message(0, 0))
    assert member.source.poll(10, 0.0) is not None


def test_an_error_of_no_partition_that_may_pass_is_passed_over(member: Member) -> None:
    member.consumer.assigned_now(0)
    member.consumer.first.append(refusal(KafkaError.COORDINATOR_NOT_AVAILABLE, "not yet"))
    assert member.source.poll(10, 0.0) is None
    member.consumer.first.append(message(0, 1000))
    assert member.source.poll(10, 0.0) is not None


def test_a_range_that_could_not_be_read_is_not_passed_over_in_another_topic() -> None:
    doubts, clock = ReadDoubts(policy="set_aside"), itertools.count(step=1.5 * unreadable_patience_s)

    def unreadable() -> object:
        return doubts.report(
            0, head=5, fault=ReadFault.UNREADABLE, offset=5, why="checksum", end=100, now_s=next(clock)
        )

    assert isinstance(unreadable(), Return)
    assert unreadable() == Return(offset=6, at_s=1.5 * unreadable_patience_s)
    passed = doubts.settled(0)
    assert passed is not None
    assert (passed.first, passed.next) == (5, 6)
    assert isinstance(unreadable(), Return)
    assert unreadable() == passed  # known already
    doubts.forget_ranges()
    assert isinstance(unreadable(), Return)
    assert isinstance(unreadable(), Return)


def bad_batch(offset: int) -> Message:
    fault = KafkaError(KafkaError._BAD_MSG, "failed CRC32C check")
    return Message(topic="t", partition=0, offset=offset, error=fault)


@pytest.mark.parametrize("silent", [0, 1, 3])
@pytest.mark.parametrize("base", [1000, 960])
def test_a_batch_that_a_look_by_hand_finds_broken_is_passed_over_at_once(
    member: Member, monkeypatch: pytest.MonkeyPatch, silent: int, base: int
) -> None:
    """The client is not let at its bytes again, not even while the look is under way."""
    member = Member("set_aside")
    sent: list[int] = []
    monkeypatch.setattr(
        member.consumer, "incremental_assign", lambda places: sent.extend(p.offset for p in places)
    )
    member.looks.broken(base, 1040)
    member.looks.silent = silent
    member.consumer.assigned_now(0)
    member.consumer.first.append(bad_batch(base))
    assert member.source.poll(10, 0.0) is None
    while member.looks.silent:
        assert member.consumer.paused == {0}
        assert member.source.poll(10, 0.0) is None
    found = member.source.poll(10, 0.0)
    assert found is not None
    (passed,) = found.unreadable.values()
    assert (passed.first, passed.next, found.offsets.tolist()) == (1000, 1040, [1000])
    assert "wrong checksum" in passed.why
    assert member.consumer.paused == set()
    assert sent == [1000, 1000, 1040]
    member.consumer.first.append(message(0, 1040))
    after = member.source.poll(10, 0.0)
    assert after is not None
    assert (after.offsets.tolist(), after.unreadable) == ([1040], {})
    assert member.source.reading().unreadable_offsets == 40


def test_without_a_look_by_hand_offset_after_offset_is_tried(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = Member("set_aside")
    member.consumer.assigned_now(0)
    for _ in range(3):
        member.consumer.first.append(bad_batch(1000))
        assert member.source.poll(10, 0.0) is None
        assert member.source.reading().doubts.keys() == {0}
    member.consumer.first.append(message(0, 1000))
    found = member.source.poll(10, 0.0)
    assert found is not None
    assert (found.offsets.tolist(), found.unreadable) == ([1000], {})


def test_the_policy_to_stop_takes_no_look(member: Member) -> None:
    member.looks.broken(1000, 1040)
    member.consumer.assigned_now(0)
    for _ in range(3):
        member.consumer.first.append(bad_batch(1000))
        assert member.source.poll(10, 0.0) is None
    assert member.source.reading().unreadable_offsets == 0


@pytest.mark.parametrize(("end", "again"), [(999, True), (1000, False), (-1001, False)])
def test_a_client_that_waits_beyond_the_end_of_a_log_is_sent_to_the_offset_anew(
    member: Member, monkeypatch: pytest.MonkeyPatch, end: int, again: bool
) -> None:
    """Committed is 1000. It may have begun to read elsewhere (librdkafka 2256), and says nothing while nothing is written."""
    sent: list[int] = []
    monkeypatch.setattr(member.consumer, "get_watermark_offsets", lambda place, **_: (0, end))
    member.consumer.assigned_now(0)
    monkeypatch.setattr(
        member.consumer, "incremental_assign", lambda places: sent.extend(place.offset for place in places)
    )
    for _ in range(3):
        assert member.source.poll(10, 0.0) is None
    assert sent == [1000] * again


def test_a_partition_of_which_nobody_says_where_it_goes_on_is_known_to_wait(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    member = Member(clock=clock)
    monkeypatch.setattr(member.consumer, "committed", lambda places, timeout: [])
    member.consumer.assigned_now(0)
    for _ in range(12):
        member.source.poll(10, 0.0)
        waits = member.source.reading().unplaced_s
        clock.sleep(1.0)
    assert waits == {0: 11.0}
    monkeypatch.undo()
    member.source.poll(10, 0.0)
    assert member.told.held == {0}
    assert member.source.reading().unplaced_s == {}
