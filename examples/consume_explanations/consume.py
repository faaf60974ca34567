"""Keeps every explanation of a topic once, and says its reasons in words: python consume.py TOPIC [GROUP]"""

import io
import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import fastavro
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from fastavro.schema import fingerprint, to_parsing_canonical_form

# The contract of the topic. Without Penstock at hand, copy schemas/explanation.avsc to your service.
contract = json.loads(files("penstock.schemas").joinpath("explanation.avsc").read_text())
schema = fastavro.parse_schema(contract)
header = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(contract), "CRC-64-AVRO"))

shown_max = 5
table = """CREATE TABLE IF NOT EXISTS explanations (
    cluster TEXT, topic TEXT, topic_id TEXT, partition INT, offset INT, reasons TEXT,
    PRIMARY KEY (cluster, topic, topic_id, partition, offset))"""


def decode(value: bytes) -> Any:
    """An explanation from Avro's single-object encoding: ten bytes that name the schema, then the record."""
    if not value.startswith(header):
        raise SystemExit("this message was written with another version of the contract")
    return fastavro.schemaless_reader(io.BytesIO(value[len(header) :]), schema, None)


def in_words(explanation: Any, top: int = 3) -> str:
    """The score and its strongest reasons; the numbers add up."""
    ordered = sorted(explanation["attributions"], key=lambda each: -abs(each["attribution"]))
    rest = explanation["rest"] + sum(each["attribution"] for each in ordered[top:])
    score = explanation["base_value"] + sum(each["attribution"] for each in ordered[:top]) + rest
    reasons = [f"{name(each)} ({each['attribution']:+.1f})" for each in ordered[:top]]
    average = explanation["base_value"]
    return f"{score:.1f}, on average {average:.1f}: {', '.join(reasons)}, all else ({rest:+.1f})"


def name(attribution: Any) -> str:
    value = attribution["value"]
    shown = f"{value:g}" if isinstance(value, float) else value or "not known"
    return f"{attribution['feature']} is {shown}"


def batches(consumer: Consumer) -> Iterator[list[Message]]:
    """What is on the assigned partitions now. A service would never stop: `while True: yield consumer.consume(500, 1)`."""
    at_end: set[int | None] = set()
    while not at_end or len(at_end) < len(consumer.assignment()):
        batch = []
        for message in consumer.consume(500, timeout=1):
            error = message.error()
            if error is None:
                batch.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                at_end.add(message.partition())
            else:
                raise KafkaException(error)
        if batch:
            yield batch


def keep(database: sqlite3.Connection, message: Message) -> str | None:
    """Stores the explanation and returns its reasons; None when it was stored before."""
    explanation = decode(message.value() or b"")
    source = explanation["source"]  # the record that was scored
    key = (
        source["cluster"],
        source["topic"],
        source["topic_id"] or "",
        source["partition"],
        source["offset"],
    )
    reasons = f"{(message.key() or b'').decode()}: {in_words(explanation)}"
    stored = database.execute("INSERT OR IGNORE INTO explanations VALUES (?, ?, ?, ?, ?, ?)", (*key, reasons))
    return reasons if stored.rowcount else None


def main(topic: str, group: str = "explanations-keeper") -> None:
    database = sqlite3.connect("explanations.sqlite")
    database.execute(table)
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ.get("PENSTOCK_KAFKA__BOOTSTRAP_SERVERS", "localhost:9092"),
            "group.id": group,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",  # nothing that a transaction took back
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.subscribe([topic])
    read = new = 0
    for batch in batches(consumer):
        with database:  # one transaction
            for message in batch:
                read += 1
                if reasons := keep(database, message):
                    new += 1
                    if new <= shown_max:
                        print(reasons)
        # Kept first, committed then: a crash in between brings the batch again, and the primary key knows it.
        consumer.commit(asynchronous=False)
    consumer.close()
    print(f"{read:,} messages, {new:,} new")


if __name__ == "__main__":
    main(*sys.argv[1:])
