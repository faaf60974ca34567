"""A member that was taken for dead comes back: nothing that it may read is skipped."""

import threading
import time
from collections.abc import Callable, Sequence

import pytest

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reading.source import KafkaSource
from penstock.connectors.kafka.simple import KafkaWriter
from penstock.engine.clock import SystemClock

pytestmark = pytest.mark.kafka
patience_s = 30.0
session_timeout_ms = 1000


class Told:
    """What a listener was told."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def on_assigned(self, partitions: Sequence[int]) -> None:
        self.log.append("assigned")

    def on_revoked(self, partitions: Sequence[int]) -> None:
        self.log.append("revoked")

    def on_lost(self, partitions: Sequence[int]) -> None:
        self.log.append("lost")


def read(source: KafkaSource, count: int, *, first_poll_s: float = 0.2) -> list[int]:
    """Offsets. What is looked up goes on from turn to turn, so the turns behind the first are short as a worker's are."""
    offsets: list[int] = []
    end_s, poll_s = time.monotonic() + patience_s, first_poll_s
    while len(offsets) < count:
        assert time.monotonic() < end_s, offsets
        records = source.poll(100, poll_s)
        offsets += records.offsets.tolist() if records is not None else []
        poll_s = 0.2
    return offsets


def test_a_member_that_is_lost_and_comes_back_within_one_poll_skips_nothing(
    start_kafka: Callable[..., EmbeddedKafka],
) -> None:
    broker = start_kafka()
    config = ClientConfig(
        bootstrap_servers=broker.bootstrap_servers, properties={"session.timeout.ms": session_timeout_ms}
    )
    KafkaAdmin(config).create_topics({"in": 1})
    writer = KafkaWriter(config, "in")
    writer.write([b"%d" % number for number in range(5)])
    writer.flush(patience_s)
    writer.close()
    told = Told()
    source = KafkaSource(
        config, group="g", topic="in", protocol="classic", start="earliest", listener=told, exactly_once=True,
        max_poll_interval_s=60.0, memory_bytes_max=1 << 20, clock=SystemClock(),
    )  # fmt: skip
    try:
        assert read(source, 5) == [0, 1, 2, 3, 4]
        told.log.clear()
        broker.pause_node(1)
        threading.Timer(3 * session_timeout_ms / 1000, broker.resume_node, (1,)).start()
        # All of it happens in one poll. Nothing was committed, so everything is read again.
        assert read(source, 5, first_poll_s=10.0) == [0, 1, 2, 3, 4]
        assert "lost" in told.log
    finally:
        source.close(5.0)
        broker.close()
