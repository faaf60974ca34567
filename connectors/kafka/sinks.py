"""The two sinks on Kafka."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from confluent_kafka import Consumer, KafkaException, TopicPartition

from penstock.connectors.delivery.at_least_once import AtLeastOnceSink
from penstock.connectors.delivery.exactly_once import TransactionalSink
from penstock.connectors.delivery.producer_port import (
    Clock,
    Delivery,
    MakeProducer,
    RefusedError,
    UnfinishedError,
)
from penstock.connectors.kafka.client import ClientConfig, close_aside, consumer_config, open_client
from penstock.connectors.kafka.errors import cause_of, is_refusal, said
from penstock.connectors.kafka.group import KafkaMembership
from penstock.connectors.kafka.producers import (
    KafkaAcknowledger,
    KafkaTransactionalProducer,
    batch_bytes_default,
)
from penstock.connectors.kafka.reading.commits import noted_topic_id
from penstock.connectors.kafka.sessions import session_timeout_ms

transaction_timeout_default_s: Final = session_timeout_ms / 1000
"""As long as a session: a transaction whose worker was killed holds its partitions for so long, and until the broker looks; and one that
is open for longer is of a worker that the group has given up by then."""


class ExactlyOnceSink(TransactionalSink):
    """Transactions on Kafka, with one producer for each transactional id, taking turns."""

    def __init__(
        self,
        config: ClientConfig,
        *,
        group: str,
        topic: str,
        transactional_ids: Sequence[str],
        partition_counts: Mapping[str, int],
        clock: Clock,
        transaction_timeout_s: float = transaction_timeout_default_s,
        memory_bytes_max: int = 256 << 20,
        batch_bytes_max: int = batch_bytes_default,
        start_timeout_s: float = 60.0,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """`topic` is the input; `partition_counts` has it and every output topic; `batch_bytes_max` is what each of these
        takes as one batch.

        The ids are this worker's alone and the same after a restart: then the restart ends what the crash left open.
        A `transaction.timeout.ms` among the client's properties stands before `transaction_timeout_s`.
        Raises UnavailableError, FencedError, ConfigError.
        """
        timeout_s = (
            float(config.properties.get("transaction.timeout.ms", transaction_timeout_s * 1000)) / 1000
        )
        self._offsets = GroupOffsets(config, group, topic)

        def maker(transactional_id: str) -> MakeProducer:
            return lambda: KafkaTransactionalProducer(
                config,
                transactional_id=transactional_id,
                topic=topic,
                partition_counts=partition_counts,
                transaction_timeout_s=timeout_s,
                memory_bytes_max=memory_bytes_max // len(transactional_ids),
                batch_bytes_max=batch_bytes_max,
            )

        super().__init__(
            producers={transactional_id: maker(transactional_id) for transactional_id in transactional_ids},
            read_committed=self._offsets.read,
            clock=clock,
            transaction_timeout_s=timeout_s,
            start_timeout_s=start_timeout_s,
            stopping=stopping,
        )

    def submit(self, delivery: Delivery, membership: object) -> None:
        """As TransactionalSink; the membership tells which topic the positions are of."""
        if isinstance(membership, KafkaMembership):
            self._offsets.of_topic(noted_topic_id(membership.note))
        super().submit(delivery, membership)

    def close(self, timeout_s: float) -> None:
        """As TransactionalSink, and the offset reader."""
        super().close(timeout_s)
        self._offsets.close()


class KafkaAtLeastOnceSink(AtLeastOnceSink):
    """Acknowledged messages on Kafka."""

    def __init__(
        self,
        config: ClientConfig,
        *,
        topic: str,
        partition_counts: Mapping[str, int],
        clock: Clock,
        message_timeout_s: float = 120.0,
        memory_bytes_max: int = 256 << 20,
        batch_bytes_max: int = batch_bytes_default,
    ) -> None:
        """`topic` is the input; `partition_counts` has it and every output topic; `batch_bytes_max` is what each of these takes
        as one batch. Raises ConfigError.
        """
        made_for: dict[str, int] = {}

        def make() -> KafkaAcknowledger:
            made_for.update(partition_counts)
            return KafkaAcknowledger(
                config,
                topic=topic,
                partition_counts=made_for,
                message_timeout_s=message_timeout_s,
                memory_bytes_max=memory_bytes_max,
                batch_bytes_max=batch_bytes_max,
            )

        super().__init__(make=make, clock=clock, outdated=lambda: made_for != dict(partition_counts))


class GroupOffsets:
    """Reads a group's committed offsets without joining it; the client is made when first needed, which is rarely."""

    def __init__(self, config: ClientConfig, group: str, topic: str) -> None:
        self._config = config
        self._group = group
        self._topic = topic
        self._topic_id: str | None = None
        self._consumer: Consumer | None = None

    def of_topic(self, topic_id: str | None) -> None:
        """From now on a commit that is noted to be of another topic of the same name is passed over."""
        self._topic_id = topic_id

    def read(self, partitions: Sequence[int], timeout_s: float) -> dict[int, int]:
        """As penstock.connectors.delivery.producer_port.ReadCommitted asks."""
        if self._consumer is None:
            # read_committed also makes the broker say when an open transaction holds offsets
            self._consumer = open_client(Consumer, consumer_config(self._config) | {"group.id": self._group})
        try:
            found = self._consumer.committed(
                [TopicPartition(self._topic, partition) for partition in partitions],
                timeout=max(timeout_s, 0.05),
            )
        except KafkaException as error:
            cause = cause_of(error)
            raise (RefusedError if is_refusal(cause) else UnfinishedError)(said(cause)) from error
        for place in found:
            if place.error is not None:
                raise (RefusedError if is_refusal(place.error) else UnfinishedError)(said(place.error))
        return {
            place.partition: place.offset
            for place in found
            if place.offset >= 0
            and (self._topic_id is None or noted_topic_id(place.metadata) in (None, self._topic_id))
        }

    def close(self) -> None:
        if self._consumer is not None:
            close_aside(self._consumer)
            self._consumer = None
