"""A broker that takes its time: what the client does then decides whether the process lives."""

import logging
import time
from collections.abc import Callable

import numpy as np
import pytest

from connectors.embedded import EmbeddedKafka
from connectors.kafka_admin import KafkaAdmin
from connectors.kafka_client import ClientConfig
from connectors.kafka_plain import KafkaReader
from connectors.kafka_producer import KafkaTransactionalProducer
from connectors.transactions import UnfinishedError
from engine.clock import SystemClock
from schemas.records import Outgoing

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
