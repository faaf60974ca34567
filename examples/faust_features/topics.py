"""Where Kafka is, and the topics: what the Faust app reads and keeps, and those of penstock.yaml."""

import os

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap_servers = os.environ.get("PENSTOCK_KAFKA__BOOTSTRAP_SERVERS", "localhost:9092")
outputs = ["boardings.predictions", "boardings.explanations", "boardings.dead-letters"]
names = ["flight-events", "boardings", *outputs]
changelog = (
    "airport-delays-last-hour-changelog"  # of the app's table: app, table; made before the app writes to it
)


def main() -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    made = [NewTopic(name, num_partitions=4) for name in names]
    made.append(NewTopic(changelog, num_partitions=4, config={"cleanup.policy": "compact"}))
    for name, creation in admin.create_topics(made).items():
        try:
            creation.result()
            print(f"{name}: made")
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            print(f"{name}: there already")


if __name__ == "__main__":
    main()
