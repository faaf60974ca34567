"""A limit in `penstock bench peers`: what confluent-kafka itself does, reading and writing without any work between."""

import json
import sys
from pathlib import Path
from typing import Any

import confluent_kafka

batch_records = 4096
timeout_s = 30.0


def main() -> None:
    """Run until killed; the one argument is a file of JSON: servers, group, topics and delivery."""
    given: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": given["servers"], "group.id": given["group"], "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "fetch.queue.backoff.ms": 2,
    })  # fmt: skip
    if given["delivery"] == "exactly_once":
        _in_transactions(given, consumer)
    else:
        _acknowledged(given, consumer)


def _acknowledged(given: dict[str, Any], consumer: confluent_kafka.Consumer) -> None:
    producer = confluent_kafka.Producer({
        "bootstrap.servers": given["servers"], "linger.ms": 0, "enable.idempotence": True,
        "queue.buffering.max.messages": 10 * batch_records,
    })  # fmt: skip
    consumer.subscribe([given["input"]])
    while True:
        messages = _polled(consumer)
        while len(producer) > 8 * batch_records:
            producer.poll(0.001)
        if messages:
            producer.produce_batch(given["output"], _outputs(messages))
        producer.poll(0)


def _in_transactions(given: dict[str, Any], consumer: confluent_kafka.Consumer) -> None:
    """A transaction for what each poll brings, by two producers in turn: the markers of one are written while the
    next begins."""
    producers = [
        confluent_kafka.Producer({
            "bootstrap.servers": given["servers"], "transactional.id": f"{given['group']}-{turn}", "linger.ms": 0,
            "retry.backoff.ms": 1, "retry.backoff.max.ms": 10,
        })
        for turn in range(2)
    ]  # fmt: skip
    for producer in producers:
        producer.init_transactions(timeout_s)
    consumer.subscribe([given["input"]])
    turn = 0
    while True:
        messages = _polled(consumer)
        if not messages:
            continue
        producer, turn = producers[turn], 1 - turn
        producer.begin_transaction()
        positions: dict[int, int] = {}
        sent: dict[int, list[Any]] = {}
        for message in messages:
            positions[message.partition()] = message.offset() + 1
            sent.setdefault(message.partition(), []).append(message)
        for partition, some in sent.items():
            producer.produce_batch(given["output"], _outputs(some), partition)
        producer.send_offsets_to_transaction(
            [confluent_kafka.TopicPartition(given["input"], *position) for position in positions.items()],
            consumer.consumer_group_metadata(),
            timeout_s,
        )
        producer.commit_transaction(timeout_s)


def _polled(consumer: confluent_kafka.Consumer) -> list[Any]:
    first = consumer.poll(0.1)
    if first is None:
        return []
    messages = [first, *consumer.consume(batch_records - 1, 0)]
    return [message for message in messages if message.error() is None]


def _outputs(messages: list[Any]) -> list[Any]:
    return [{"value": message.value(), "key": message.key()} for message in messages]


if __name__ == "__main__":
    main()
