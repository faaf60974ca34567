"""The audit topic: written in order, each record once; read from its beginning."""

from collections.abc import Callable, Iterator
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from penstock.connectors.delivery.producer_port import Clock
from penstock.connectors.kafka.client import ClientConfig, open_client, producer_config
from penstock.connectors.kafka.simple import KafkaReader

queue_messages_max: Final = 2000
read_timeout_s: Final = 600.0


class KafkaAuditWriter:
    """Never gives a record up while it lives: a topic that is away for long gets them all, in order, when it is back.

    `send` and `turn` may be called from different threads.
    """

    def __init__(self, config: ClientConfig, topic: str) -> None:
        """Raises ConfigError when the client refuses its settings."""
        self._topic = topic
        self._producer = open_client(
            Producer,
            {
                **producer_config(config),
                "queue.buffering.max.messages": queue_messages_max,
                "message.timeout.ms": 0,  # never
                "linger.ms": 0,
                "partitioner": "murmur2_random",
            },
        )
        self._broken = False

    def send(self, key: bytes, value: bytes, delivered: Callable[[], None]) -> bool:
        """Queue one; False when the queue is full, or after a record was lost, since one behind it would leave a gap."""

        def told(error: KafkaError | None, _: Message) -> None:
            if error is None:
                delivered()
            else:
                self._broken = True

        if self._broken:
            return False
        try:
            self._producer.produce(self._topic, value=value, key=key, on_delivery=told)
        except (BufferError, KafkaException):
            return False
        return True

    def turn(self, timeout_s: float) -> None:
        """Hear of what was stored."""
        self._producer.poll(timeout_s)

    def close(self, timeout_s: float) -> int:
        """Send what is queued, for as long as allowed; how many were not."""
        left = int(self._producer.flush(timeout_s))
        self._producer.purge()
        self._producer.poll(0)
        return left


def read_audit(config: ClientConfig, topic: str, clock: Clock) -> Iterator[tuple[int, int, bytes | None]]:
    """Partition, offset and value of every record there is now, each partition in order. Raises UnavailableError, ConfigError."""
    reader = KafkaReader(config, topic, clock)
    try:
        for part in reader.parts_to_end(read_timeout_s):
            yield from zip(part.partitions.tolist(), part.offsets.tolist(), part.values, strict=True)
    finally:
        reader.close()
