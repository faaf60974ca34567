"""The memory broker's plain clients: a writer, a reader, a group's offsets."""

from collections.abc import Sequence
from dataclasses import dataclass

from penstock.connectors.memory.log import joined
from penstock.connectors.memory.state import Broker
from penstock.schemas.records import Headers, Records


class MemoryWriter:
    """Writes records to one topic; the same methods as penstock.connectors.kafka.simple.KafkaWriter."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self._partitions = broker.partitions(topic)

    def write(
        self,
        values: Sequence[bytes | None],
        *,
        keys: Sequence[bytes | None] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Append; to one partition, or by key. `headers` go with every record."""
        keys = keys if keys is not None else [None] * len(values)
        targets: dict[int, list[int]] = {}
        for row, key in enumerate(keys):
            target = self._broker.choose(key, self._partitions) if partition is None else partition
            targets.setdefault(target, []).append(row)
        for target, rows in targets.items():
            self._broker.append(
                self._topic,
                target,
                [keys[row] for row in rows],
                [values[row] for row in rows],
                timestamps_ms=None if timestamp_ms is None else [timestamp_ms] * len(rows),
                headers=None if headers is None else [headers] * len(rows),
            )

    def flush(self, timeout_s: float) -> None:
        """Nothing is ever on its way."""

    def close(self) -> None:
        """Nothing is held."""


class MemoryReader:
    """Reads committed records; the same methods as penstock.connectors.kafka.simple.KafkaReader."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._topic = topic
        self._positions = {p: broker.bounds(topic, p)[0] for p in range(broker.partitions(topic))}

    def read(self, records_max: int, timeout_s: float) -> Records | None:
        """The next records, waiting for the first at most so long."""
        clock = self._broker.clock
        deadline_s = clock.monotonic_s() + timeout_s
        with self._broker.locked():
            while True:
                reads = self._broker.fetch(self._topic, self._positions, records_max)
                for partition, read in reads.items():
                    self._positions[partition] = read.position
                full = {partition: read for partition, read in reads.items() if read.values}
                if full:
                    break
                left_s = deadline_s - clock.monotonic_s()
                if left_s <= 0 or not self._broker.wait_for_change(left_s):
                    return None
        return joined(self._topic, full)

    def read_to_end(self, timeout_s: float) -> list[Records]:
        """Everything up to the last stable offset at the time of the call. Raises UnavailableError after `timeout_s`."""
        ends = {p: self._broker.bounds(self._topic, p)[1] for p in self._positions}
        found = []
        while any(self._positions[p] < end for p, end in ends.items()):
            records = self.read(1 << 16, 0.0)
            if records is not None:
                found.append(records)
        return found

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionOffsets:
    """penstock.connectors.kafka.admin.group_offsets.PartitionOffsets by shape."""

    partition: int
    earliest: int
    end: int
    high: int
    committed: int | None
    oldest_unfinished_timestamp_ms: int | None
    owner: str | None
    fault: str = ""
    topic_id: str | None = None
    committed_topic_id: str | None = None


class MemoryOffsets:
    """penstock.connectors.kafka.admin.group_offsets.KafkaOffsets by shape."""

    def __init__(self, broker: Broker, group: str) -> None:
        self._broker = broker
        self._group = group

    def read(self, topic: str) -> list[PartitionOffsets]:
        """Every partition of a topic."""
        rows = []
        with self._broker.locked():
            group = self._broker.group(self._group)
            for partition in range(self._broker.partitions(topic)):
                earliest, end = self._broker.bounds(topic, partition)
                committed = group.committed.get((topic, partition))
                position = earliest if committed is None else committed
                rows.append(
                    PartitionOffsets(
                        partition=partition,
                        earliest=earliest,
                        end=end,
                        high=self._broker.high(topic, partition),
                        committed=committed,
                        oldest_unfinished_timestamp_ms=self._broker.oldest_timestamp_ms(
                            topic, partition, position
                        ),
                        owner=group.holder(topic, partition),
                        topic_id=self._broker.topic_id(topic),
                        committed_topic_id=group.committed_topic_ids.get((topic, partition)),
                    )
                )
        return rows

    def close(self) -> None:
        """Nothing is held."""
