"""Sends the flights of the first day of July to Kafka, as JSON, keyed by flight."""

import json

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from flights import features, load_flights
from topics import bootstrap_servers


def delivered(error: KafkaError | None, message: Message) -> None:
    if error is not None:
        raise KafkaException(error)


flights = load_flights("2013-07-01", "2013-07-01")
producer = Producer({"bootstrap.servers": bootstrap_servers, "partitioner": "murmur2_random"})
for flight, event in zip(flights["flight"], flights[features].to_dict("records"), strict=True):
    producer.produce("flights", key=flight, value=json.dumps(event), on_delivery=delivered)
    producer.poll(0)  # serves delivered()
if producer.flush(30):
    raise SystemExit("Kafka did not acknowledge all flights in 30 s")
print(f"{len(flights):,} flights sent")
