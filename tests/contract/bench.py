"""What a contract test needs of a broker, behind one set of methods."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from penstock_bench.faults.cluster import Cluster
from penstock_bench.faults.fates import Fates
from penstock_bench.faults.timeline import Timeline
from penstock_bench.faults.worker import simulated_clients

from penstock.connectors.delivery.exactly_once import TransactionalSink
from penstock.connectors.delivery.producer_port import TransactionalProducer
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig, base_config
from penstock.connectors.kafka.producers import KafkaTransactionalProducer
from penstock.connectors.kafka.reading.source import KafkaSource
from penstock.connectors.kafka.simple import KafkaReader, KafkaWriter
from penstock.connectors.kafka.sinks import ExactlyOnceSink, GroupOffsets, KafkaAtLeastOnceSink
from penstock.connectors.memory.broker import MemoryBroker
from penstock.connectors.memory.clients import MemoryProducer
from penstock.engine.clock import SystemClock
from penstock.engine.ports import Delivery, Sink, Source
from penstock.schemas.records import Outgoing, Records

patience_s = 30.0
Wrap = Callable[[TransactionalProducer], TransactionalProducer]


@dataclass
class Recorder:
    """A listener that notes what it is told; several may share one log."""

    name: str = "member"
    log: list[tuple[str, str, tuple[int, ...]]] = field(default_factory=list)
    held: set[int] = field(default_factory=set)
    drain: Callable[[], None] = lambda: None

    def on_assigned(self, partitions: Sequence[int]) -> None:
        self.log.append((self.name, "assigned", tuple(partitions)))
        self.held |= set(partitions)

    def on_revoked(self, partitions: Sequence[int]) -> None:
        self.log.append((self.name, "revoked", tuple(partitions)))
        self.drain()
        self.held -= set(partitions)

    def on_lost(self, partitions: Sequence[int]) -> None:
        self.log.append((self.name, "lost", tuple(partitions)))
        self.held -= set(partitions)


class Bench:
    """What a test needs of a broker; every client made here is closed at the end of the test."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self._open: list[Callable[[], object]] = []
        self._counts: dict[str, int] = {}

    def topic(self, stem: str = "topic", *, partitions: int = 1) -> str:
        name = f"{stem}-{uuid.uuid4().hex[:10]}"
        self._create(name, partitions)
        self._counts[name] = partitions
        return name

    def recreate(self, name: str, partitions: int) -> None:
        """Delete a topic and make it anew."""
        self._recreate(name, partitions)
        self._counts[name] = partitions

    def group(self) -> str:
        return f"group-{uuid.uuid4().hex[:10]}"

    def source(
        self,
        group: str,
        topic: str,
        listener: Recorder | None = None,
        *,
        start: Any = "earliest",
        exactly_once: bool = True,
    ) -> Source:
        made = self._source(group, topic, listener or Recorder(), start, exactly_once)
        self._open.append(lambda: made.close(5.0))
        return made

    def sink(
        self, group: str, topic: str, *, slot: int = 0, timeout_s: float = 30.0, wrap: Wrap | None = None
    ) -> Sink:
        """`wrap` stands between the sink and its producers."""
        ids = (f"{group}-{slot}-a", f"{group}-{slot}-b")
        made = self._sink(group, topic, ids, timeout_s, wrap)
        self._open.append(lambda: made.close(0.0))
        return made

    def at_least_once_sink(self, topic: str) -> Sink:
        made = self._at_least_once_sink(topic)
        self._open.append(lambda: made.close(0.0))
        return made

    def write(self, topic: str, values: Sequence[bytes | None], **how: Any) -> None:
        writer = self._writer(topic)
        writer.write(values, **how)
        writer.flush(patience_s)
        writer.close()

    def read(self, topic: str) -> list[Records]:
        """Everything committed."""
        reader = self._reader(topic)
        try:
            return reader.read_to_end(patience_s)
        finally:
            reader.close()

    def values(self, topic: str) -> list[bytes | None]:
        """Everything committed, partition by partition in order."""
        found = [
            (int(p), int(o), v)
            for r in self.read(topic)
            for p, o, v in zip(r.partitions, r.offsets, r.values, strict=True)
        ]
        return [value for _, _, value in sorted(found, key=lambda row: row[:2])]

    def committed(self, group: str, topic: str) -> dict[int, int]:
        raise NotImplementedError

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        raise NotImplementedError

    def release(self) -> None:
        for close in reversed(self._open):
            with suppress(Exception):
                close()

    def poll(
        self, source: Source, count: int, *, records_max: int = 1000, keep_polling: Sequence[Source] = ()
    ) -> list[Records]:
        """Poll until so many records came."""
        polled: list[Records] = []
        deadline_s = time.monotonic() + patience_s
        while sum(map(len, polled)) < count:
            assert time.monotonic() < deadline_s, f"{sum(map(len, polled))} of {count} records came"
            records = source.poll(records_max, 0.05)
            if records is not None:
                polled.append(records)
            for other in keep_polling:
                other.poll(1, 0.0)
        return polled

    def until(self, done: Callable[[], bool], *sources: Source) -> list[Records]:
        """Poll these until something is so; what came meanwhile."""
        deadline_s = time.monotonic() + patience_s
        polled = []
        while not done():
            assert time.monotonic() < deadline_s, "it did not happen"
            for source in sources:
                records = source.poll(1000, 0.02)
                if records is not None:
                    polled.append(records)
        return polled

    def complete(self, sink: Sink, count: int = 1) -> None:
        """Advance until so many deliveries are done."""
        deadline_s = time.monotonic() + patience_s
        while count > 0:
            assert time.monotonic() < deadline_s, f"{count} deliveries are missing"
            count -= sink.advance(0.1)
        assert count == 0

    def _create(self, name: str, partitions: int) -> None:
        raise NotImplementedError

    def _recreate(self, name: str, partitions: int) -> None:
        raise NotImplementedError

    def _source(self, group: str, topic: str, listener: Recorder, start: Any, exactly_once: bool) -> Source:
        raise NotImplementedError

    def _sink(
        self, group: str, topic: str, ids: tuple[str, str], timeout_s: float, wrap: Wrap | None
    ) -> Sink:
        raise NotImplementedError

    def _at_least_once_sink(self, topic: str) -> Sink:
        raise NotImplementedError

    def _writer(self, topic: str) -> Any:
        raise NotImplementedError

    def _reader(self, topic: str) -> Any:
        raise NotImplementedError


class MemoryBench(Bench):
    def __init__(self) -> None:
        super().__init__()
        self.broker = MemoryBroker(self.clock)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        return self.broker.committed(group, topic)

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        self.broker.delete_records(topic, partition, before)

    def _create(self, name: str, partitions: int) -> None:
        self.broker.create_topic(name, partitions)

    def _recreate(self, name: str, partitions: int) -> None:
        self.broker.recreate_topic(name, partitions)

    def _source(self, group: str, topic: str, listener: Recorder, start: Any, exactly_once: bool) -> Source:
        return self.broker.source(
            group=group, topic=topic, listener=listener, start=start, exactly_once=exactly_once
        )

    def _sink(
        self, group: str, topic: str, ids: tuple[str, str], timeout_s: float, wrap: Wrap | None
    ) -> Sink:
        if wrap is None:
            return self.broker.exactly_once_sink(
                group=group, topic=topic, transactional_ids=ids, transaction_timeout_s=timeout_s
            )

        def producer(name: str) -> TransactionalProducer:
            return wrap(MemoryProducer(self.broker, name, topic, timeout_s))

        return TransactionalSink(
            producers={i: partial(producer, i) for i in ids},
            read_committed=lambda partitions, t: self.broker.stable_offsets(group, topic, partitions, t),
            clock=self.clock,
            transaction_timeout_s=timeout_s,
        )

    def _at_least_once_sink(self, topic: str) -> Sink:
        return self.broker.at_least_once_sink(topic=topic)

    def _writer(self, topic: str) -> Any:
        return self.broker.writer(topic)

    def _reader(self, topic: str) -> Any:
        return self.broker.reader(topic)


class KafkaBench(Bench):
    def __init__(self, bootstrap_servers: str, protocol: Literal["classic", "consumer"]) -> None:
        super().__init__()
        self.config = ClientConfig(bootstrap_servers=bootstrap_servers)
        self._protocol = protocol
        self._admin = KafkaAdmin(self.config)

    def committed(self, group: str, topic: str) -> dict[int, int]:
        offsets = GroupOffsets(self.config, group, topic)
        try:
            found = offsets.read(range(self._counts[topic]), 10.0)
        finally:
            offsets.close()
        return {
            partition: offset for partition, offset in found.items() if offset > 0
        }  # 0: where a group begins

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        admin = AdminClient(base_config(self.config))
        for future in admin.delete_records([TopicPartition(topic, partition, before)]).values():
            future.result(10)

    def _create(self, name: str, partitions: int) -> None:
        self._admin.create_topics({name: partitions})

    def _recreate(self, name: str, partitions: int) -> None:
        self._admin.delete_topics([name])
        self._admin.create_topics({name: partitions})

    def _source(self, group: str, topic: str, listener: Recorder, start: Any, exactly_once: bool) -> Source:
        return KafkaSource(
            self.config,
            group=group,
            topic=topic,
            protocol=self._protocol,
            start=start,
            listener=listener,
            exactly_once=exactly_once,
            max_poll_interval_s=60.0,
            memory_bytes_max=16 << 20,
            clock=self.clock,
        )

    def _sink(
        self, group: str, topic: str, ids: tuple[str, str], timeout_s: float, wrap: Wrap | None
    ) -> Sink:
        if wrap is None:
            return ExactlyOnceSink(
                self.config,
                group=group,
                topic=topic,
                transactional_ids=ids,
                partition_counts=self._counts,
                clock=self.clock,
                transaction_timeout_s=timeout_s,
            )
        offsets = GroupOffsets(self.config, group, topic)
        self._open.append(offsets.close)

        def maker(transactional_id: str) -> Callable[[], TransactionalProducer]:
            return lambda: wrap(
                KafkaTransactionalProducer(
                    self.config,
                    transactional_id=transactional_id,
                    topic=topic,
                    partition_counts=self._counts,
                    transaction_timeout_s=timeout_s,
                    memory_bytes_max=16 << 20,
                )
            )

        return TransactionalSink(
            producers={transactional_id: maker(transactional_id) for transactional_id in ids},
            read_committed=offsets.read,
            clock=self.clock,
            transaction_timeout_s=timeout_s,
        )

    def _at_least_once_sink(self, topic: str) -> Sink:
        return KafkaAtLeastOnceSink(self.config, topic=topic, partition_counts=self._counts, clock=self.clock)

    def _writer(self, topic: str) -> Any:
        return KafkaWriter(self.config, topic)

    def _reader(self, topic: str) -> Any:
        return KafkaReader(self.config, topic, self.clock)


class SimulatedBench(KafkaBench):
    """The connectors for Kafka over the clients that the simulation puts in librdkafka's place."""

    def __init__(self) -> None:
        Bench.__init__(self)
        self._timeline = Timeline()
        fates = Fates(0)
        fates.calm = True
        self.cluster = Cluster(self._timeline, fates)
        self.clock = self._timeline  # type: ignore[assignment]
        self.config = ClientConfig(bootstrap_servers="simulated:1")
        self._protocol = "consumer"
        self._clients = simulated_clients(self.cluster)
        self._clients.__enter__()

    def release(self) -> None:
        super().release()
        self._clients.__exit__(None, None, None)

    def delete_records(self, topic: str, partition: int, before: int) -> None:
        self.cluster.delete_records(topic, partition, before)

    def _create(self, name: str, partitions: int) -> None:
        self.cluster.create_topic(name, partitions)

    def _recreate(self, name: str, partitions: int) -> None:
        self.cluster.recreate_topic(name, partitions)

    def _writer(self, topic: str) -> Any:
        return self.cluster.writer(topic)

    def _reader(self, topic: str) -> Any:
        return self.cluster.reader(topic)


def delivery(topic: str, records: Sequence[Records], *, mark: bytes = b"") -> Delivery:
    """The records, each with a mark before its value, as results; positions after the last of each partition."""
    outgoing = [
        Outgoing(
            topic=topic, keys=r.keys, values=[mark + (v or b"") for v in r.values], partitions=r.partitions
        )
        for r in records
    ]
    positions: dict[int, int] = {}
    for r in records:
        for partition in np.unique(r.partitions).tolist():
            positions[partition] = int(r.offsets[r.partitions == partition].max()) + 1
    return Delivery(outgoing=outgoing, positions=positions)


def firsts(records: Sequence[Records]) -> Mapping[int, int]:
    """The first offset of each partition."""
    found: dict[int, int] = {}
    for r in records:
        for partition, offset in zip(r.partitions.tolist(), r.offsets.tolist(), strict=True):
            found[partition] = min(offset, found.get(partition, offset))
    return found
