"""Where Kafka is, and the topics: those of penstock.yaml."""

import os

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap_servers = os.environ.get("PENSTOCK_KAFKA__BOOTSTRAP_SERVERS", "localhost:9092")
names = ["flights", "flights.predictions", "flights.explanations", "flights.dead-letters"]


def main() -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for name, creation in admin.create_topics([NewTopic(name, num_partitions=4) for name in names]).items():
        try:
            creation.result()
            print(f"{name}: made")
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            print(f"{name}: there already")


if __name__ == "__main__":
    main()
