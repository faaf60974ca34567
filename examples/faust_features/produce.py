"""Sends two days of April to Kafka as they happened, keyed by airport."""

import json
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from flights import events, load_flights
from topics import bootstrap_servers

from penstock.connectors.faust import AvroCodec


def delivered(error: KafkaError | None, message: Message) -> None:
    if error is not None:
        raise KafkaException(error)


codec = AvroCodec(schema=json.loads(Path("flight_event.avsc").read_text()))
flights = load_flights("2013-04-08", "2013-04-09")
producer = Producer({"bootstrap.servers": bootstrap_servers, "partitioner": "murmur2_random"})
for event in events(flights):
    value = codec.dumps(event)
    producer.produce("flight-events", key=event["airport"], value=value, on_delivery=delivered)
    producer.poll(0)  # serves delivered()
if producer.flush(30):
    raise SystemExit("Kafka did not acknowledge all events in 30 s")
print(f"{len(flights):,} boardings and as many departures sent")
