"""A member that nobody speaks for is taken out of its group, over each way to log in that is spoken by hand."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig, base_config
from penstock.connectors.kafka.wire.leave_group import leave_group
from penstock.schemas.errors import UnavailableError

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(120)]


def members(config: ClientConfig, group: str) -> list[str]:
    admin, end_s = AdminClient(base_config(config)), time.monotonic() + 30
    while True:
        try:
            found = admin.describe_consumer_groups([group])[group].result(20)
        except KafkaException:  # a broker that has just begun does not know yet whose groups are its own
            assert time.monotonic() < end_s
            time.sleep(0.1)
        else:
            return [member.member_id for member in found.members]


@pytest.mark.parametrize("login", ["none", "PLAIN"])
def test_a_member_leaves_though_it_says_nothing(
    start_kafka: Callable[..., EmbeddedKafka], login: str
) -> None:
    broker = start_kafka(users={"penstock": "a, = canary"}) if login == "PLAIN" else start_kafka()
    config = inside = ClientConfig(bootstrap_servers=broker.bootstrap_servers)
    if login == "PLAIN":
        config = ClientConfig(
            bootstrap_servers=broker.users_bootstrap_servers, protocol="SASL_PLAINTEXT", mechanism=login,
            username="penstock", password="a, = canary",
        )  # fmt: skip
    KafkaAdmin(inside, timeout_s=30.0).create_topics({"in": 1})
    consumer = Consumer({**base_config(inside), "group.id": "g", "session.timeout.ms": 45_000})
    consumer.subscribe(["in"])
    end_s = time.monotonic() + 60
    while not (here := members(inside, "g")) or not consumer.assignment():
        consumer.poll(0.1)
        assert time.monotonic() < end_s
    host, port = config.bootstrap_servers.split(":")
    if login == "PLAIN":
        wrong = replace(config, password="another-canary")
        with pytest.raises(UnavailableError, match="login"):
            leave_group(wrong, host=host, port=int(port), group="g", member_id=here[0])
        with pytest.raises(UnavailableError, match="error 30"):  # nobody allowed it to: the group's ACL
            leave_group(config, host=host, port=int(port), group="g", member_id=here[0])
        consumer.close()
        return
    leave_group(config, host=host, port=int(port), group="g", member_id=here[0])
    assert members(inside, "g") == []
    leave_group(config, host=host, port=int(port), group="g", member_id=here[0])  # gone already: no fault
    consumer.close()


def test_a_coordinator_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(UnavailableError):
        leave_group(
            ClientConfig(bootstrap_servers="127.0.0.1:1"), host="127.0.0.1", port=1, group="g", member_id="m"
        )
