"""A limit in `penstock bench peers`: what confluent-kafka itself does, reading and writing without any work between."""

import json
import sys
from pathlib import Path
from typing import Any

import confluent_kafka

batch_records = 4096


def main() -> None:
    """Run until killed; the one argument is a file of JSON: servers, group and topics."""
    given: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": given["servers"], "group.id": given["group"], "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })  # fmt: skip
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": given["servers"],
            "linger.ms": 0,
            "enable.idempotence": True,
            "queue.buffering.max.messages": 10 * batch_records,
        }
    )
    consumer.subscribe([given["input"]])
    while True:
        first = consumer.poll(0.1)
        if first is None:
            continue
        messages = [first, *consumer.consume(batch_records - 1, 0)]
        outputs: list[Any] = [
            {"value": message.value(), "key": message.key()}
            for message in messages
            if message.error() is None
        ]
        while len(producer) > 8 * batch_records:
            producer.poll(0.001)
        producer.produce_batch(given["output"], outputs)
        producer.poll(0)


if __name__ == "__main__":
    main()
