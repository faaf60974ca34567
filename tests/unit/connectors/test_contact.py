"""Which member is taken out of the group: one that the client has given up, and never the one that it is."""

import time
from collections.abc import Iterator

import pytest

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.contact import KafkaContact


@pytest.fixture
def contact() -> Iterator[KafkaContact]:
    """Of a cluster that never answers, so that nobody is taken out meanwhile."""
    made = KafkaContact(
        ClientConfig(bootstrap_servers="127.0.0.1:1"),
        topic="t",
        group="g",
        member="w",
        monotonic_s=time.monotonic,
    )
    yield made
    made.close()


def test_an_id_that_was_given_up_is_to_be_taken_out(contact: KafkaContact) -> None:
    contact.standing(True, "first")
    contact.standing(False, "")
    contact.standing(True, "second")
    assert contact._ghost == "first"


def test_an_id_that_comes_back_is_not(contact: KafkaContact) -> None:
    contact.standing(True, "first")
    contact.standing(False, "")
    contact.standing(True, "first")
    assert contact._ghost == ""
