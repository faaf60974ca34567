"""Addresses of brokers as the client library takes them: what is asked by hand takes them, too."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.wire.batches import read_batch
from penstock.connectors.kafka.wire.connection import host_and_port
from penstock.connectors.kafka.wire.groups import describe_group, group_is_served, leave_group
from penstock.schemas.errors import UnavailableError

asks: tuple[Callable[[ClientConfig], object], ...] = (
    lambda config: describe_group(config, "g"),
    lambda config: leave_group(config, group="g", member_id="m"),
    lambda config: read_batch(config, topic="t", partition=0, offset=0),
)


@pytest.mark.parametrize(
    ("server", "place"),
    [
        ("kafka:9093", ("kafka", 9093)),
        ("kafka", ("kafka", 9092)),
        (" SASL_SSL://kafka.example:1 ", ("kafka.example", 1)),
        ("PLAINTEXT://kafka", ("kafka", 9092)),
        ("[::1]:9093", ("::1", 9093)),
        ("[::1]", ("::1", 9092)),
    ],
)
def test_an_address_is_read_as_the_client_reads_it(server: str, place: tuple[str, int]) -> None:
    assert host_and_port(server) == place


@given(
    st.text(st.sampled_from("ab.:/[]@- 019,\u0661"), max_size=12)
    | st.integers(0, 10**6).map(lambda port: f"h:{port}")
)
def test_no_address_is_more_than_a_broker_that_does_not_answer(servers: str) -> None:
    """A thread that asks would end of anything else, and whoever waits for it would wait for ever."""

    def nobody(*_: object) -> None:
        raise ConnectionRefusedError("nobody is there")

    config = ClientConfig(bootstrap_servers=servers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.create_connection", nobody)
        for ask in asks:
            with pytest.raises(UnavailableError):
                ask(config)
        assert not group_is_served(config, "g")
