"""The audit topic: written in order, each record once; read from its beginning."""

from collections.abc import Callable, Iterator
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.client import ClientConfig, drop, hear, open_client, producer_config
from penstock.connectors.kafka.errors import cause_of, said
from penstock.connectors.kafka.simple import KafkaReader

queue_messages_max: Final = 2000
read_timeout_s: Final = 600.0


class KafkaAuditWriter:
    """Never gives a record up while it lives: a topic that is away for long gets them all, in order, when it is back.

    What the brokers refuse (a permission that was taken away, say) is lost, and so is all that is behind it: then there is a `fault`,
    and `renew` begins anew. `send` and `turn` may be called from different threads.
    """

    def __init__(self, config: ClientConfig, topic: str) -> None:
        """Raises ConfigError when the client refuses its settings."""
        self._config = config
        self._topic = topic
        self._fault = ""
        self._producer = self._opened()

    @property
    def fault(self) -> str:
        """Why no record is taken any more, until `renew`; empty while they are."""
        return self._fault

    def renew(self) -> None:
        """A new client in the place of one that takes no more; what that one holds is lost. Raises ConfigError, and is as before."""
        fresh = self._opened()
        drop(self._producer)
        self._producer, self._fault = fresh, ""

    def send(self, key: bytes, value: bytes, delivered: Callable[[], None]) -> bool:
        """Queue one; False when that cannot be, and from then on, since one behind it would leave a gap in its chain."""

        def told(error: KafkaError | None, _: Message) -> None:
            if error is None:
                delivered()
            else:
                self._fault = self._fault or said(error)

        if self._fault:
            return False
        try:
            self._producer.produce(self._topic, value=value, key=key, on_delivery=told)
        except BufferError:
            self._fault = "the client's queue is full"
        except KafkaException as error:
            self._fault = said(cause_of(error))
        return not self._fault

    def turn(self, timeout_s: float) -> None:
        """Hear of what was stored."""
        if (end := hear(self._producer, timeout_s)) is not None:
            self._fault = self._fault or said(end)
        if self._fault:
            drop(self._producer)  # what is behind a record that was lost would leave a gap in its chain

    def close(self, timeout_s: float) -> int:
        """Send what is queued, for as long as allowed; how many were not."""
        left = 0
        try:
            left = int(self._producer.flush(timeout_s))
        except KafkaException:  # as in `turn`
            left = len(self._producer)
        drop(self._producer)
        return left

    def _opened(self) -> Producer:
        return open_client(
            Producer,
            {
                **producer_config(self._config),
                "queue.buffering.max.messages": queue_messages_max,
                "message.timeout.ms": 0,  # never
                "linger.ms": 0,
                "partitioner": "murmur2_random",
            },
        )


def read_audit(config: ClientConfig, topic: str, clock: Clock) -> Iterator[tuple[int, int, bytes | None]]:
    """Partition, offset and value of every record there is now, each partition in order. Raises UnavailableError, ConfigError."""
    reader = KafkaReader(config, topic, clock)
    try:
        for part in reader.parts_to_end(read_timeout_s):
            yield from zip(part.partitions.tolist(), part.offsets.tolist(), part.values, strict=True)
    finally:
        reader.close()
