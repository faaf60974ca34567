"""A whole broker in one process: topics, consumer groups, transactions, and faults on request."""

from collections.abc import Callable, Sequence

from penstock.connectors.delivery.at_least_once import AtLeastOnceSink
from penstock.connectors.delivery.exactly_once import TransactionalSink
from penstock.connectors.memory.clients import (
    AssignmentListener,
    MemoryAcknowledger,
    MemoryProducer,
    MemorySource,
    Start,
)
from penstock.connectors.memory.simple import MemoryOffsets, MemoryReader, MemoryWriter
from penstock.connectors.memory.state import Broker, Fault, Point

__all__ = ["Fault", "MemoryBroker", "Point"]


class MemoryBroker(Broker):
    """The broker, and its clients: each matches the port or the Kafka client of the same job."""

    def source(
        self,
        *,
        group: str,
        topic: str,
        listener: AssignmentListener,
        start: Start = "earliest",
        exactly_once: bool = True,
        max_poll_interval_s: float = 300.0,
    ) -> MemorySource:
        """A member of a group (penstock.engine.ports.Source by shape)."""
        return MemorySource(
            self,
            group=group,
            topic=topic,
            listener=listener,
            start=start,
            exactly_once=exactly_once,
            max_poll_interval_s=max_poll_interval_s,
        )

    def exactly_once_sink(
        self,
        *,
        group: str,
        topic: str,
        transactional_ids: Sequence[str],
        transaction_timeout_s: float = 30.0,
        start_timeout_s: float = 60.0,
    ) -> TransactionalSink:
        """The same state machine as on Kafka, over this broker. `topic` is the input, whose positions are committed."""

        def maker(transactional_id: str) -> Callable[[], MemoryProducer]:
            return lambda: MemoryProducer(self, transactional_id, topic, transaction_timeout_s)

        return TransactionalSink(
            producers={transactional_id: maker(transactional_id) for transactional_id in transactional_ids},
            read_committed=lambda partitions, timeout_s: self.stable_offsets(
                group, topic, partitions, timeout_s
            ),
            clock=self.clock,
            transaction_timeout_s=transaction_timeout_s,
            start_timeout_s=start_timeout_s,
        )

    def at_least_once_sink(self, *, topic: str) -> AtLeastOnceSink:
        """A sink without transactions. `topic` is the input."""
        return AtLeastOnceSink(make=lambda: MemoryAcknowledger(self, topic), clock=self.clock)

    def writer(self, topic: str) -> MemoryWriter:
        """A plain producer."""
        return MemoryWriter(self, topic)

    def reader(self, topic: str) -> MemoryReader:
        """Reads a topic to its end."""
        return MemoryReader(self, topic)

    def offsets(self, group: str) -> MemoryOffsets:
        """What lag is computed from."""
        return MemoryOffsets(self, group)
