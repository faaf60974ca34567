"""A Faust app: adds to each boarding how late the airport's departures of the last hour were."""

import json
from pathlib import Path

import faust
from last_hour import add_departure, mean_delay_min
from topics import bootstrap_servers

from penstock.connectors.faust import AvroCodec, make_app
from penstock.connectors.kafka.client import ClientConfig
from penstock.schemas.errors import RecordError

app = make_app(
    "airport-delays",
    ClientConfig(bootstrap_servers=bootstrap_servers),
    topic_partitions=4,  # of the table's changelog: as many as flight-events has
    topic_disable_leader=True,
)
event_codec = AvroCodec(schema=json.loads(Path("flight_event.avsc").read_text()))
boarding_codec = AvroCodec(schema=json.loads(Path("boarding.avsc").read_text()))
flight_events = app.topic("flight-events", value_serializer="raw")
boardings = app.topic("boardings", value_serializer="raw")
last_hour = app.Table("last-hour", default=dict)  # by airport


@app.agent(flight_events)
async def enrich(stream: faust.Stream[bytes]) -> None:
    """The events of an airport come in order, because they share its name as their key."""
    async for event in stream.noack().events():
        try:
            seen = event_codec.loads(event.value or b"")
        except RecordError:
            await deliver(event.key, event.value or b"")  # as it came: Penstock sets it aside, and says why
            event.ack()
            continue
        airport, at_s = seen["airport"], seen["at"].timestamp()
        if seen["delay_min"] is not None:
            last_hour[airport] = add_departure(last_hour[airport], seen["flight"], at_s, seen["delay_min"])
        else:
            boarding = seen | {"airport_delay_min": mean_delay_min(last_hour[airport], at_s)}
            await deliver(seen["flight"].encode(), boarding_codec.dumps(boarding))
        event.ack()  # not before it is delivered


async def deliver(key: bytes | None, value: bytes) -> None:
    """Returns when the brokers have it."""
    acknowledged = await boardings.send(key=key, value=value)
    await acknowledged


if __name__ == "__main__":
    app.main()
