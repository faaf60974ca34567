"""A group's standing in a topic, on a real Kafka: what is left to do, since when, and whose it is."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.admin.group_offsets import KafkaOffsets, PartitionOffsets
from penstock.connectors.kafka.client import ClientConfig, consumer_config, producer_config
from penstock.schemas.errors import ConfigError

pytestmark = pytest.mark.kafka


class Stream:
    """One topic of one partition, a writer, and what a group sees of it."""

    def __init__(self, kafka: str, topic: str) -> None:
        self.config = ClientConfig(bootstrap_servers=kafka)
        self.topic, self.group = topic, f"{topic}-group"
        self.producer = Producer(producer_config(self.config) | {"transactional.id": f"{topic}-writer"})
        self.producer.init_transactions(30)
        self.offsets = KafkaOffsets(self.config, self.group, timeout_s=30.0)
        self.consumers: list[Consumer] = []

    def write(self, *timestamps_ms: int, end: str = "commit") -> None:
        self.producer.begin_transaction()
        for timestamp_ms in timestamps_ms:
            self.producer.produce(self.topic, b"value", partition=0, timestamp=timestamp_ms)
        assert self.producer.flush(30) == 0
        if end == "commit":
            self.producer.commit_transaction(30)
        elif end == "abort":
            self.producer.abort_transaction(30)

    def commit(self, offset: int) -> None:
        consumer = Consumer(consumer_config(self.config) | {"group.id": self.group})
        consumer.commit(offsets=[TopicPartition(self.topic, 0, offset)], asynchronous=False)
        consumer.close()

    def join(self, client: str) -> Consumer:
        consumer = Consumer(consumer_config(self.config) | {"group.id": self.group, "client.id": client})
        self.consumers.append(consumer)
        consumer.subscribe([self.topic])
        for _ in range(600):
            consumer.poll(0.05)
            if consumer.assignment():
                return consumer
        pytest.fail("the consumer was assigned nothing")

    def read(self, *, end: int | None = None) -> PartitionOffsets:
        """The partition; with `end`, when its end is there: the markers of a commit follow a little later."""
        for _ in range(1000):
            (offsets,) = self.offsets.read(self.topic)
            if end is None or offsets.end == end:
                return offsets
        pytest.fail(f"the end is {offsets.end}, not {end}")

    def close(self) -> None:
        self.offsets.close()
        for consumer in self.consumers:
            consumer.close()


@pytest.fixture
def stream(kafka: str, new_topic: Callable[..., str]) -> Iterator[Stream]:
    with closing(Stream(kafka, new_topic())) as opened:
        yield opened


def test_an_untouched_topic_has_nothing_to_do(stream: Stream) -> None:
    found = stream.read()
    assert found == PartitionOffsets(
        partition=0,
        earliest=0,
        end=0,
        high=0,
        committed=None,
        oldest_unfinished_timestamp_ms=None,
        owner=None,
        topic_id=found.topic_id,
    )


def test_the_oldest_unfinished_record_moves_with_the_commits(stream: Stream) -> None:
    stream.write(1000, 2000, 3000)
    assert stream.read(end=4).oldest_unfinished_timestamp_ms == 1000
    assert stream.read().oldest_unfinished_timestamp_ms == 1000
    stream.commit(1)
    found = stream.read()
    assert (found.committed, found.end, found.oldest_unfinished_timestamp_ms) == (1, 4, 2000)
    stream.commit(0)  # an operator goes back
    assert stream.read().oldest_unfinished_timestamp_ms == 1000


def test_commit_markers_and_aborted_records_are_nothing_to_do(stream: Stream) -> None:
    stream.write(1000)
    stream.commit(1)
    found = stream.read(end=2)
    assert (found.committed, found.oldest_unfinished_timestamp_ms) == (1, None)
    stream.write(2000, 3000, end="abort")
    assert stream.read(end=5).oldest_unfinished_timestamp_ms is None
    stream.write(4000)
    assert stream.read(end=7).oldest_unfinished_timestamp_ms == 4000


def test_records_of_an_open_transaction_are_not_there_yet(stream: Stream) -> None:
    stream.write(1000)
    stream.read(end=2)
    stream.commit(2)
    stream.write(2000, end="stay open")
    found = stream.read()
    assert (found.end, found.oldest_unfinished_timestamp_ms) == (2, None)
    stream.producer.commit_transaction(30)
    assert stream.read(end=4).oldest_unfinished_timestamp_ms == 2000


def test_offsets_pending_in_a_transaction_neither_count_nor_disturb(stream: Stream) -> None:
    stream.write(1000, 2000)
    consumer = stream.join("member")
    stream.producer.begin_transaction()
    stream.producer.send_offsets_to_transaction(
        [TopicPartition(stream.topic, 0, 1)], consumer.consumer_group_metadata(), 30
    )
    assert stream.read().committed is None
    stream.producer.commit_transaction(30)
    for _ in range(1000):
        if stream.read().committed == 1:
            return
    pytest.fail("the offset was not committed")


def test_the_owner_is_named_while_there_is_one(stream: Stream) -> None:
    consumer = stream.join("worker-7")
    owner = stream.read().owner
    assert owner is not None
    assert owner.startswith("worker-7@")
    consumer.unsubscribe()
    consumer.close()
    stream.consumers.clear()
    assert stream.read().owner is None


def test_looking_leaves_no_trace_in_the_group(stream: Stream) -> None:
    stream.write(1000)
    stream.read()
    assert stream.read().committed is None
    assert stream.read().owner is None


def test_a_topic_made_anew_is_not_taken_for_the_old_one(stream: Stream, kafka: str) -> None:
    stream.write(1000)
    assert stream.read(end=2).oldest_unfinished_timestamp_ms == 1000
    admin = KafkaAdmin(stream.config, timeout_s=30.0)
    admin.delete_topics([stream.topic])
    admin.create_topics({stream.topic: 1})
    producer = Producer(producer_config(stream.config))
    producer.produce(stream.topic, b"value", partition=0, timestamp=5000)
    producer.produce(stream.topic, b"value", partition=0, timestamp=6000)
    assert producer.flush(30) == 0
    assert stream.read().oldest_unfinished_timestamp_ms == 5000


def test_every_partition_is_told_in_order(kafka: str, new_topic: Callable[..., str]) -> None:
    topic = new_topic(partitions=5)
    producer = Producer(producer_config(ClientConfig(bootstrap_servers=kafka)))
    for partition in (3, 1):
        producer.produce(topic, b"value", partition=partition, timestamp=1000 * partition)
    assert producer.flush(30) == 0
    with closing(KafkaOffsets(ClientConfig(bootstrap_servers=kafka), "nobody", timeout_s=30.0)) as offsets:
        found = offsets.read(topic)
    assert [row.partition for row in found] == [0, 1, 2, 3, 4]
    assert [row.end for row in found] == [0, 1, 0, 1, 0]
    assert [row.oldest_unfinished_timestamp_ms for row in found] == [None, 1000, None, 3000, None]


def test_a_topic_that_is_not_there_is_named(kafka: str) -> None:
    with (
        closing(KafkaOffsets(ClientConfig(bootstrap_servers=kafka), "g")) as offsets,
        pytest.raises(ConfigError, match="no-such-topic"),
    ):
        offsets.read("no-such-topic")
