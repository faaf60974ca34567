"""Reads the predictions of the flights that produce.py sent, and compares them with what came true."""

import io
import json
from importlib.resources import files
from typing import Any

import fastavro
from confluent_kafka import Consumer, KafkaException
from flights import load_flights
from topics import bootstrap_servers

# The contract of the predictions topic. Without Penstock at hand, copy schemas/prediction.avsc to your service.
schema = fastavro.parse_schema(json.loads(files("penstock.schemas").joinpath("prediction.avsc").read_text()))
header_bytes = 10  # Avro's single-object header: which schema the rest was written with

flights = load_flights("2013-07-01", "2013-07-01")
flown_min = dict(zip(flights["flight"], flights["air_time"], strict=True))
consumer = Consumer(
    {
        "bootstrap.servers": bootstrap_servers,
        "group.id": "air-time-reader",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,  # each run reads from the beginning
        "isolation.level": "read_committed",  # nothing that a transaction took back
    }
)
consumer.subscribe(["flights.predictions"])
expected_min: dict[str, float] = {}
while len(expected_min) < len(flown_min):
    message = consumer.poll(30)
    if message is None:
        raise SystemExit("no more predictions came; is `penstock run penstock.yaml` running?")
    if message.error() is not None:
        raise KafkaException(message.error())
    prediction: Any = fastavro.schemaless_reader(io.BytesIO(message.value()[header_bytes:]), schema, None)
    flight = message.key().decode()
    (expected_min[flight],) = prediction["outputs"]["value"]
    if len(expected_min) <= 5:
        print(f"{flight}: {expected_min[flight]:.0f} min expected, {flown_min[flight]:.0f} flown")
consumer.close()

error_min = sum(abs(expected_min[flight] - flown_min[flight]) for flight in flown_min) / len(flown_min)
print(f"{len(expected_min):,} predictions, {error_min:.1f} min off on average")
