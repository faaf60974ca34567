"""The scaler through an outage of its broker: the number is held, and there again within seconds, with new clients."""

import time
from collections.abc import Callable
from contextlib import closing

import pytest

from penstock.connectors.embedded.kafka import EmbeddedKafka
from penstock.connectors.kafka.admin.admin import KafkaAdmin
from penstock.connectors.kafka.admin.group_offsets import KafkaOffsets, PartitionOffsets
from penstock.connectors.kafka.admin.renewed import Renewed, failures_max
from penstock.connectors.kafka.client import ClientConfig
from penstock.schemas.errors import UnavailableError

pytestmark = pytest.mark.kafka
call_s = 1.0


class Deaf(KafkaOffsets):
    """The client as an outage of 100 s leaves it: whatever is asked times out, for ever."""

    def __init__(self, config: ClientConfig, group: str) -> None:
        super().__init__(config, group, timeout_s=call_s)
        self.deaf = False

    def read(self, topic: str) -> list[PartitionOffsets]:
        if self.deaf:
            time.sleep(call_s)
            raise UnavailableError("look up group g: Local: Timed out")
        return super().read(topic)


def test_clients_that_an_outage_has_made_deaf_are_thrown_away(
    start_kafka: Callable[..., EmbeddedKafka],
) -> None:
    kafka = start_kafka()
    config = ClientConfig(bootstrap_servers=kafka.bootstrap_servers)
    KafkaAdmin(config).create_topics({"in": 3})
    opened: list[Deaf] = []

    def open_one() -> Deaf:
        opened.append(Deaf(config, "g"))
        return opened[-1]

    def read() -> bool:
        try:
            return len(renewed.use(lambda client: client.read("in"))) == 3
        except UnavailableError:
            return False

    with closing(Renewed(open_one, name="the offsets of g")) as renewed:
        end_s = time.monotonic() + 60
        while not read():  # a fresh broker takes its time
            assert time.monotonic() < end_s
        before = renewed.renewals
        kafka.pause_node(1)
        end_s = time.monotonic() + 10 * call_s
        while time.monotonic() < end_s:
            assert not read()
        assert renewed.renewals >= before + 2
        kafka.resume_node(1)
        opened[-1].deaf = True  # nor would the last one of those that lived through it ever be answered
        back_s = time.monotonic()
        while not read():
            assert time.monotonic() - back_s < 15
        assert time.monotonic() - back_s < 15
    assert renewed.renewals == len(opened) - 1


def test_a_client_that_is_answered_now_and_then_is_kept() -> None:
    class Client:
        def close(self) -> None:
            pass

    answers = iter([True, False, True, False, True])
    renewed = Renewed(Client, name="x")

    def call(_: Client) -> bool:
        if not next(answers):
            raise UnavailableError("no answer")
        return True

    for wanted in (True, False, True, False, True):
        if wanted:
            assert renewed.use(call)
        else:
            with pytest.raises(UnavailableError):
                renewed.use(call)
    assert renewed.renewals == 0
    assert failures_max == 2
