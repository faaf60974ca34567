"""Workers of two groups whose names run into identities, on a real broker: neither fences the other, a twin does."""

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaException, Producer

from penstock.engine.settings.worker_names import transactional_id, worker_name

pytestmark = pytest.mark.kafka


def begun(kafka: str, group: str, identity: str) -> Producer:
    """A producer as the worker of slot 0 opens it, with a transaction open."""
    name = worker_name(group, 0, {"PENSTOCK_IDENTITY": identity})
    producer = Producer(
        {"bootstrap.servers": kafka, "transactional.id": transactional_id(group, name, "a"), "log_level": 0}
    )
    producer.init_transactions(60)
    producer.begin_transaction()
    return producer


def test_groups_whose_names_run_into_identities_go_on_side_by_side(
    kafka: str, new_topic: Callable[..., str]
) -> None:
    topic = new_topic("identities", partitions=1)
    one = begun(kafka, "fraud", "eu-1")
    other = begun(kafka, "fraud-eu", "1")
    for producer in (one, other):
        producer.produce(topic, value=b"x")
        producer.commit_transaction(60)
    one.begin_transaction()
    begun(kafka, "fraud", "eu-1")  # its own twin, or its successor
    one.produce(topic, value=b"x")
    with pytest.raises(KafkaException, match="fenced"):
        one.commit_transaction(60)
