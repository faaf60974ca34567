"""A topic is deleted and made anew, and partitions appear: every record of the topic that is there is read once."""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Literal

import pytest

from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reading import topic_watch
from penstock.connectors.kafka.reading.source import KafkaSource
from penstock.connectors.kafka.reading.starts import Recreated, Start
from penstock.connectors.kafka.simple import KafkaWriter
from penstock.engine.clock import SystemClock
from penstock.schemas.errors import ConfigError

pytestmark = pytest.mark.kafka
patience_s = 40.0
Protocol = Literal["classic", "consumer"]


class Listener:
    """Notes what is lost, and keeps what is to be committed."""

    def __init__(self) -> None:
        self.held: set[int] = set()
        self.lost = 0

    def on_assigned(self, partitions: Sequence[int]) -> None:
        self.held |= set(partitions)

    def on_revoked(self, partitions: Sequence[int]) -> None:
        self.held -= set(partitions)

    def on_lost(self, partitions: Sequence[int]) -> None:
        self.held -= set(partitions)
        self.lost += 1


class Member:
    """A worker's source, at least once: what it reads is finished at once, and committed."""

    def __init__(
        self,
        config: ClientConfig,
        topic: str,
        protocol: Protocol,
        *,
        group: str,
        start: Start = "earliest",
        recreated: Recreated = "read",
    ) -> None:
        self.listener = Listener()
        self.read: list[tuple[bytes, str | None]] = []
        self.source = KafkaSource(
            config,
            group=group,
            topic=topic,
            protocol=protocol,
            start=start,
            listener=self.listener,
            exactly_once=False,
            max_poll_interval_s=60.0,
            memory_bytes_max=4 << 20,
            clock=SystemClock(),
            recreated=recreated,
        )

    def poll(self) -> None:
        records = self.source.poll(1000, 0.05)
        if records is not None:
            self.read += [(value or b"", records.topic_id) for value in records.values]
            ends = {int(p): int(o) + 1 for p, o in zip(records.partitions, records.offsets, strict=True)}
            self.source.commit(ends)

    def until(self, done: Callable[[], bool]) -> None:
        end_s = time.monotonic() + patience_s
        while not done():
            assert time.monotonic() < end_s, f"{len(self.read)} records"
            self.poll()

    def values(self) -> set[bytes]:
        return {value for value, _ in self.read}

    def close(self) -> None:
        end_s = time.monotonic() + 0.3  # the commit is on its way
        with suppress(ConfigError):  # one that stopped says so again
            while time.monotonic() < end_s:
                self.source.poll(1, 0.05)
        self.source.close(5.0)


class Ground:
    """A topic that is written to, deleted, made anew and grown."""

    def __init__(self, address: str) -> None:
        self.config = ClientConfig(
            bootstrap_servers=address, properties={"topic.metadata.refresh.interval.ms": 500}
        )
        self.admin = KafkaAdmin(self.config, timeout_s=30.0)
        self.topic = f"again-{uuid.uuid4().hex[:8]}"

    def create(self, partitions: int) -> None:
        self.admin.create_topics({self.topic: partitions})

    def recreate(self, partitions: int) -> None:
        self.admin.delete_topics([self.topic])
        self.create(partitions)

    def write(self, stem: str, count: int, partition: int | None = None) -> set[bytes]:
        values = [f"{stem}-{partition}-{number}".encode() for number in range(count)]
        writer = KafkaWriter(ClientConfig(bootstrap_servers=self.config.bootstrap_servers), self.topic)
        writer.write(values, keys=values if partition is None else None, partition=partition)
        writer.flush(patience_s)
        writer.close()
        return set(values)


@pytest.fixture
def ground(kafka: str) -> Iterator[Ground]:
    made = Ground(kafka)
    yield made
    made.admin.delete_topics([made.topic])


@pytest.fixture(params=["classic", "consumer"])
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return request.param


def member(ground: Ground, protocol: Protocol, **how: object) -> "closing[Member]":
    return closing(Member(ground.config, ground.topic, protocol, group=f"{ground.topic}-g", **how))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [5, 60])
def test_a_topic_made_anew_under_a_running_member_is_read_from_its_beginning(
    ground: Ground, protocol: Protocol, count: int
) -> None:
    """With fewer records than before, and with more: then the old offset is in the new topic as well."""
    ground.create(2)
    old = ground.write("old", 40)
    with member(ground, protocol) as worker:
        worker.until(lambda: worker.values() >= old)
        ground.recreate(2)
        new = ground.write("new", count, 0) | ground.write("new", count, 1)
        worker.until(lambda: worker.values() >= new)
        (last,) = {topic_id for value, topic_id in worker.read[-count:]}
        assert last not in {topic_id for value, topic_id in worker.read if value in old}
        assert worker.source.reading().recreations >= 1


def test_a_topic_made_anew_while_no_member_ran_is_read_from_its_beginning(
    ground: Ground, protocol: Protocol, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground.create(1)
    old = ground.write("old", 10, 0)
    with member(ground, protocol) as first:
        first.until(lambda: first.values() >= old)
    ground.recreate(1)
    new = ground.write("new", 30, 0)
    # The brokers drop the offsets of a deleted topic, sooner or later; a commit of the old topic that outlives it, or comes
    # after it, is what the id is remembered for.
    _commit_as(ground, 10, "penstock topic-id=AAAAAAAAAAAAAAAAAAAAAQ")
    with member(ground, protocol) as second:
        second.until(lambda: len(second.read) >= 30)
        assert second.values() == new


def test_a_worker_that_is_to_stop_does(ground: Ground, protocol: Protocol) -> None:
    ground.create(1)
    ground.write("new", 30, 0)
    _commit_as(ground, 10, "penstock topic-id=AAAAAAAAAAAAAAAAAAAAAQ")
    with (
        member(ground, protocol, recreated="stop") as worker,
        pytest.raises(ConfigError, match=r"deleted and made anew.*AAAAAAAAAAAAAAAAAAAAAQ.*offsets reset"),
    ):
        worker.until(lambda: False)
    assert worker.read == []


def test_a_commit_of_another_program_is_taken(ground: Ground, protocol: Protocol) -> None:
    ground.create(1)
    ground.write("new", 30, 0)
    _commit_as(ground, 10, "")
    with member(ground, protocol) as worker:
        worker.until(lambda: len(worker.read) >= 20)
        assert min(worker.values()) == b"new-0-10"


@pytest.mark.parametrize("start", ["latest", "error"])
def test_partitions_that_appear_later_begin_at_their_beginning(
    ground: Ground, protocol: Protocol, start: Start
) -> None:
    ground.create(2)
    ground.write("before", 10)
    if start == "error":
        _commit_as(ground, 0, "")
    with member(ground, protocol, start=start) as worker:
        worker.until(lambda: worker.listener.held == {0, 1})
        first = ground.write("first", 10, 0)
        worker.until(lambda: worker.values() >= first)
        ground.admin.add_partitions({ground.topic: 4})
        added = ground.write("added", 20, 2) | ground.write("added", 20, 3)
        worker.until(lambda: worker.values() >= added)
        assert len(worker.read) == len({(value, topic_id) for value, topic_id in worker.read})


def test_latest_is_decided_once_for_all_partitions(ground: Ground, protocol: Protocol) -> None:
    """Partition 1 was idle through the first run: what came to it meanwhile is not passed over."""
    ground.create(2)
    before = ground.write("before", 10)
    with member(ground, protocol, start="latest") as first:
        first.until(lambda: first.listener.held == {0, 1})
        zero = ground.write("zero", 10, 0)
        first.until(lambda: first.values() >= zero)
    one = ground.write("one", 10, 1)
    with member(ground, protocol, start="latest") as second:
        second.until(lambda: second.values() >= one)
        assert not (first.values() | second.values()) & before


def test_what_was_deleted_of_an_idle_partition_is_named(ground: Ground, protocol: Protocol) -> None:
    """Nothing ever came of it, so no batch has committed it: where it began was committed at the group's first start."""
    ground.create(2)
    with member(ground, protocol) as first:
        first.until(lambda: first.listener.held == {0, 1})
    ground.write("lost", 5, 1)
    _delete(ground, 1, 3)
    with (
        member(ground, protocol) as second,
        pytest.raises(ConfigError, match=r"partition 1: offsets 0 to 2 were deleted before group .* the first that is left is 3"),
    ):  # fmt: skip
        second.until(lambda: False)
    assert second.source.reading().lost_offsets == 3
    assert second.read == []


def test_what_was_deleted_of_a_partition_that_appeared_later_is_said(
    ground: Ground, protocol: Protocol, caplog: pytest.LogCaptureFixture
) -> None:
    ground.create(1)
    with member(ground, protocol) as first:
        first.until(lambda: first.listener.held == {0})
    ground.admin.add_partitions({ground.topic: 2})
    added = ground.write("added", 10, 1)
    _delete(ground, 1, 4)
    with member(ground, protocol) as second:
        second.until(lambda: len(second.read) == 6)
        assert second.values() == added - {b"added-1-%d" % number for number in range(4)}
        second.until(lambda: second.source.reading().lost_offsets == 4)
    assert "partition 1: offsets 0 to 3 were deleted before group" in caplog.text


def _delete(ground: Ground, partition: int, before: int) -> None:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import AdminClient

    client = AdminClient({"bootstrap.servers": ground.config.bootstrap_servers})
    (gone,) = client.delete_records([TopicPartition(ground.topic, partition, before)]).values()
    gone.result(patience_s)


def test_error_stops_a_group_without_any_commit(ground: Ground, protocol: Protocol) -> None:
    ground.create(2)
    with (
        member(ground, protocol, start="error") as worker,
        pytest.raises(ConfigError, match=r"no committed offset for any partition.*penstock offsets reset"),
    ):
        worker.until(lambda: False)


def _commit_as(ground: Ground, offset: int, metadata: str) -> None:
    """A commit that is already there, with this beside it."""
    from confluent_kafka import Consumer, TopicPartition

    consumer = Consumer(
        {"bootstrap.servers": ground.config.bootstrap_servers, "group.id": f"{ground.topic}-g"}
    )
    consumer.commit(offsets=[TopicPartition(ground.topic, 0, offset, metadata)], asynchronous=False)
    consumer.close()


def test_an_answer_is_never_older_than_the_question(ground: Ground) -> None:
    ground.create(3)
    clock = SystemClock()
    watch = topic_watch.TopicWatch(ground.config, ground.topic, clock=clock)
    try:
        for _ in range(3):
            asked_s = clock.monotonic_s()
            facts = watch.since(asked_s, 10.0)
            assert facts is not None
            assert facts.asked_at_s >= asked_s
            assert facts.partitions == 3
    finally:
        watch.close()
