"""Messages of the client to columns."""

from collections.abc import Sequence

import numpy as np
from confluent_kafka import Message

from penstock.connectors.kafka.reading.headers import HeaderReader
from penstock.schemas.records import Records


def to_records(topic: str, messages: Sequence[Message], topic_id: str | None = None) -> Records:
    """What messages without an error say. Unbound methods, mapped: a third less time than comprehensions calling them."""
    headers = HeaderReader(messages)
    return Records(
        topic=topic,
        partitions=np.array(list(map(Message.partition, messages)), np.int32),
        offsets=np.array(list(map(Message.offset, messages)), np.int64),
        timestamps_ms=np.array([stamp[1] for stamp in map(Message.timestamp, messages)], np.int64),
        keys=list(map(Message.key, messages)),
        values=list(map(Message.value, messages)),
        headers=headers,
        any_headers=headers.any,
        topic_id=topic_id,
    )
