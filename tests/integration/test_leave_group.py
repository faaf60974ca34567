"""A member that nobody speaks for is taken out of its group, over each way to log in that is spoken by hand."""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.client import ClientConfig, base_config
from penstock.connectors.kafka.wire.groups import describe_group, find_coordinator, leave_group
from penstock.schemas.errors import ConfigError, UnavailableError

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
    if login == "PLAIN":
        wrong = replace(config, password="another-canary")
        with pytest.raises(UnavailableError, match="login"):
            leave_group(wrong, group="g", member_id=here[0])
        with pytest.raises(ConfigError, match="permission Read"):  # nobody allowed it to: the group's ACL
            leave_group(config, group="g", member_id=here[0])
        consumer.close()
        return
    leave_group(config, group="g", member_id=here[0])
    assert members(inside, "g") == []
    leave_group(config, group="g", member_id=here[0])  # gone already: no fault
    consumer.close()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_is_described_as_the_client_library_does(
    kafka: str, new_topic: Callable[..., str], protocol: str
) -> None:
    topic, config = new_topic(partitions=3), ClientConfig(bootstrap_servers=kafka)
    group = f"{topic}-group"
    consumer = Consumer(
        {**base_config(config), "group.id": group, "group.protocol": protocol, "client.id": "someone"}
    )
    consumer.subscribe([topic])
    end_s = time.monotonic() + 60
    while len(consumer.assignment()) < 3:
        consumer.poll(0.1)
        assert time.monotonic() < end_s
    assert describe_group(config, f"{group}-of-nobody").members == ()
    admin = AdminClient(base_config(config))
    told = admin.describe_consumer_groups([group])[group].result(20)
    view = describe_group(config, group)
    (member,), (theirs,) = view.members, told.members
    assert (member.client_id, member.host) == (theirs.client_id, theirs.host) == ("someone", "/127.0.0.1")
    assert {t: sorted(p) for t, p in member.assigned.items()} == {topic: [0, 1, 2]}
    assert view.state.lower() == told.state.name.lower() == "stable"
    asked = admin.describe_consumer_groups([group], include_authorized_operations=True)[group].result(20)
    assert view.operations == frozenset(int(each.value) for each in asked.authorized_operations) >= {3, 8}
    assert find_coordinator(config, group) == (told.coordinator.host, told.coordinator.port)
    consumer.close()


def test_who_asks_for_a_group_outlives_a_broker_that_stands_still(
    start_kafka: Callable[..., EmbeddedKafka],
) -> None:
    """The client library's own call ends the process."""
    broker = start_kafka()
    asking = subprocess.Popen([sys.executable, "-P", "-c", _asks, broker.bootstrap_servers])
    try:
        for _ in range(3):
            time.sleep(1.0)
            broker.pause_node(1)
            time.sleep(3.3)
            broker.resume_node(1)
        assert asking.wait(30) == 0
    finally:
        asking.kill()
        asking.wait()


_asks = """
import sys, time
from penstock.connectors.kafka import contact
from penstock.connectors.kafka.client import ClientConfig

contact.group_every_s = 0.0
asked = contact.KafkaContact(
    ClientConfig(bootstrap_servers=sys.argv[1]), topic="t", group="g", member="w", monotonic_s=time.monotonic
)
end_s = time.monotonic() + 16
while time.monotonic() < end_s:
    asked.contact(asks_for_members=True)
    time.sleep(0.05)
asked.close()
"""


def test_a_coordinator_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(UnavailableError):
        leave_group(ClientConfig(bootstrap_servers="127.0.0.1:1"), group="g", member_id="m")
