"""What a read_committed reader can see of an output topic: how much so far, and in the end exactly which records."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import OffsetSpec  # type: ignore[attr-defined]  # public, not re-exported

from penstock.connectors.kafka.admin.session import AdminSession
from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.simple import KafkaReader
from penstock.engine.clock import Clock
from penstock_bench.peers.records import partitions

probe_key: Final = b"-1"
"""The key of a record that only finds out whether somebody answers."""
_call_timeout_s: Final = 10.0
_latest: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """Of the records that should have an output: how many have none, and how many outputs are one too many."""

    outputs: int
    lost: int
    duplicated: int


class StableEnds:
    """Asks for the last stable offsets of a topic, which costs the broker next to nothing. One thread at a time."""

    def __init__(self, config: ClientConfig) -> None:
        self._session = AdminSession(config, timeout_s=_call_timeout_s)

    def visible(self, topic: str) -> int:
        """The sum over the partitions: outputs, and with transactions their markers. Raises UnavailableError."""
        asked = {TopicPartition(topic, partition): _latest for partition in range(partitions)}
        found = self._session.ask(
            lambda: self._session.client.list_offsets(
                asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_call_timeout_s
            ),
            f"look up the offsets of topic {topic}",
        )
        return sum(answer.offset for answer in found.values())


def count_outputs(
    config: ClientConfig, topic: str, *, expected: int, patience_s: float, clock: Clock
) -> Count:
    """Read the topic from its beginning until all keys 0 .. expected - 1 came, or nothing more for `patience_s`."""
    reader = KafkaReader(config, topic, clock)
    seen = np.zeros(expected, bool)
    outputs, last_s = 0, clock.monotonic_s()
    try:
        while clock.monotonic_s() < last_s + patience_s:
            records = reader.read(10_000, 0.1)
            if records is not None:
                last_s = clock.monotonic_s()
                keys = np.array([int(key) for key in records.keys if key], np.int64)
                keys = keys[keys >= 0]
                outputs += len(keys)
                seen[keys] = True
            elif seen.all():
                break
    finally:
        reader.close()
    lost = int(expected - np.count_nonzero(seen))
    return Count(outputs=outputs, lost=lost, duplicated=outputs - (expected - lost))
