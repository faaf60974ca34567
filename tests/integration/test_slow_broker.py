"""A broker that takes its time: what the client does then decides whether the process lives."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pytest

from penstock.connectors.delivery.producer_port import UnfinishedError
from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.producers import KafkaTransactionalProducer
from penstock.connectors.kafka.reading.source import KafkaSource
from penstock.connectors.kafka.simple import KafkaReader, KafkaWriter
from penstock.engine.clock import SystemClock
from penstock.schemas.records import Outgoing
from tests.wire.proxy import Proxy

pytestmark = pytest.mark.kafka
topic = "slow"
patience_s = 20.0


def until_done(call: Callable[[float], None]) -> None:
    end_s = time.monotonic() + patience_s
    while True:
        try:
            return call(0.01)
        except UnfinishedError:
            assert time.monotonic() < end_s


def test_a_commit_that_takes_long_is_asked_for_once(
    start_kafka: Callable[..., EmbeddedKafka], caplog: pytest.LogCaptureFixture
) -> None:
    """librdkafka 2.16 lets a commit be resumed after a time-out, and under load ends the process for it."""
    kafka = start_kafka()
    config = ClientConfig(bootstrap_servers=kafka.bootstrap_servers, properties={"debug": "eos"})
    KafkaAdmin(config).create_topics({topic: 1})
    producer = KafkaTransactionalProducer(
        config, transactional_id="slow", topic=topic, partition_counts={topic: 1},
        transaction_timeout_s=60.0, memory_bytes_max=1 << 20,
    )  # fmt: skip
    try:
        until_done(producer.initialise)
        producer.begin()
        message = Outgoing(topic=topic, keys=[b"k"], values=[b"v"], partitions=np.zeros(1, np.int32))
        assert producer.produce(message, 0, 1.0) == 1
        until_done(producer.flush)
        with caplog.at_level(logging.DEBUG, logger="penstock.kafka"):
            kafka.pause_node(1)
            for _ in range(20):
                with pytest.raises(UnfinishedError):
                    producer.commit(0.01)
            kafka.resume_node(1)
            until_done(producer.commit)
            assert not producer.suspect()  # also hands over what the client has logged
    finally:
        producer.close()
    asked = [line for line in caplog.messages if "API called: commit_transaction" in line]
    assert len(asked) == 1
    reader = KafkaReader(ClientConfig(bootstrap_servers=kafka.bootstrap_servers), topic, SystemClock())
    try:
        found = reader.read(1, patience_s)
        assert found is not None
        assert found.values == [b"v"]
    finally:
        reader.close()


def test_an_abort_waits_for_offsets_that_are_on_their_way(start_kafka: Callable[..., EmbeddedKafka]) -> None:
    kafka = start_kafka()
    config = ClientConfig(bootstrap_servers=kafka.bootstrap_servers)
    KafkaAdmin(config).create_topics({topic: 1})
    source = KafkaSource(
        config, group="g", topic=topic, protocol="classic", start="earliest", listener=Unheard(), exactly_once=True,
        max_poll_interval_s=60.0, memory_bytes_max=1 << 20, clock=SystemClock(),
    )  # fmt: skip
    producer = KafkaTransactionalProducer(
        config, transactional_id="slow", topic=topic, partition_counts={topic: 1},
        transaction_timeout_s=60.0, memory_bytes_max=1 << 20,
    )  # fmt: skip
    try:
        until_done(producer.initialise)
        while source.poll(1, 0.1) is None and not source.ends([0]):
            pass
        producer.begin()
        message = Outgoing(topic=topic, keys=[b"k"], values=[b"v"], partitions=np.zeros(1, np.int32))
        assert producer.produce(message, 0, 1.0) == 1
        until_done(producer.flush)
        membership = source.membership()
        kafka.pause_node(1)
        with pytest.raises(UnfinishedError):
            producer.send_offsets({0: 1}, membership, 0.0)
        with pytest.raises(UnfinishedError):
            producer.abort(0.01)
        kafka.resume_node(1)
        until_done(producer.abort)
        producer.begin()  # as good as new
        assert producer.produce(message, 0, 1.0) == 1
        until_done(producer.flush)
        until_done(producer.commit)
    finally:
        kafka.resume_node(1)
        producer.close()
        source.close(5.0)
    reader = KafkaReader(config, topic, SystemClock())
    try:
        assert [value for records in reader.read_to_end(patience_s) for value in records.values] == [b"v"]
    finally:
        reader.close()


class Unheard:
    """A listener that does nothing."""

    def on_assigned(self, partitions: Sequence[int]) -> None: ...

    def on_revoked(self, partitions: Sequence[int]) -> None: ...

    def on_lost(self, partitions: Sequence[int]) -> None: ...


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_an_offset_that_came_late_does_not_undo_the_place_to_begin(
    start_kafka: Callable[..., EmbeddedKafka],
    monkeypatch: pytest.MonkeyPatch,
    protocol: Literal["classic", "consumer"],
) -> None:
    """librdkafka answers a late look-up of the beginning by reading from the beginning, a seek in between or not
    (confluentinc/librdkafka#2256): a whole partition would be scored again."""
    kafka = start_kafka()
    config = ClientConfig(bootstrap_servers=kafka.bootstrap_servers)
    KafkaAdmin(config).create_topics({topic: 1})
    writer = KafkaWriter(config, topic)
    writer.write([b"%d" % number for number in range(10)])
    writer.flush(patience_s)
    writer.close()
    source = KafkaSource(
        config, group="late", topic=topic, protocol=protocol, start="earliest", listener=Unheard(),
        exactly_once=True, max_poll_interval_s=60.0, memory_bytes_max=1 << 20, clock=SystemClock(),
    )  # fmt: skip
    asked: list[set[int]] = []

    def soon(partitions: set[int], facts: object, *, decides: bool) -> dict[int, int]:
        asked.append(partitions)
        kafka.pause_node(1)
        return {}

    def one(waiting: set[int], facts: object, *, decides: bool) -> dict[int, int]:
        asked.append(waiting)
        return {0: 5}  # the coordinator, which is another node in life, answers before the leader

    monkeypatch.setattr(source._starts, "soon", soon)
    monkeypatch.setattr(source._starts, "one", one)
    offsets: list[int] = []
    try:
        end_s = time.monotonic() + patience_s
        while len(offsets) < 5:
            assert time.monotonic() < end_s, offsets
            records = source.poll(100, 0.2)
            offsets += records.offsets.tolist() if records is not None else []
            if len(asked) == 2:
                kafka.resume_node(1)
        quiet_s = time.monotonic() + 2.0
        while time.monotonic() < quiet_s:
            records = source.poll(100, 0.2)
            offsets += records.offsets.tolist() if records is not None else []
    finally:
        kafka.resume_node(1)
        source.close(5.0)
    assert offsets == [5, 6, 7, 8, 9]


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_brokers_that_are_far_away_are_read_all_the_same(
    start_kafka: Callable[..., EmbeddedKafka], protocol: Literal["classic", "consumer"]
) -> None:
    """No answer came within what a poll may wait, so that no partition ever began, and nobody said so."""
    kafka = start_kafka()
    near = ClientConfig(bootstrap_servers=kafka.bootstrap_servers)
    KafkaAdmin(near).create_topics({topic: 1})
    writer = KafkaWriter(near, topic)
    writer.write([b"%d" % number for number in range(10)])
    writer.flush(patience_s)
    writer.close()
    with Proxy(kafka.bootstrap_servers, delay_s=0.1) as far:
        source = KafkaSource(
            ClientConfig(bootstrap_servers=far.bootstrap_servers), group="far", topic=topic, protocol=protocol, start="earliest",
            listener=Unheard(), exactly_once=True, max_poll_interval_s=60.0, memory_bytes_max=1 << 20, clock=SystemClock(),
        )  # fmt: skip
        offsets: list[int] = []
        try:
            end_s = time.monotonic() + patience_s
            while len(offsets) < 10:
                assert time.monotonic() < end_s, offsets
                records = source.poll(100, 0.2)
                offsets += records.offsets.tolist() if records is not None else []
        finally:
            source.close(5.0)
    assert offsets == [*range(10)]
