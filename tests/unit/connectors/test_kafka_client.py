"""How clients are set up, and what their errors ask for."""

import logging
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from penstock.connectors.kafka.client import (
    AccessErrors,
    ClientConfig,
    ClientErrors,
    base_config,
    consumer_config,
    open_client,
    producer_config,
)
from penstock.connectors.kafka.errors import translate
from penstock.schemas.errors import AbortedError, ConfigError, FencedError, PenstockError, UnavailableError

nowhere = ClientConfig(bootstrap_servers="127.0.0.1:1")
secret = "canary-secret"


def test_secrets_are_in_no_repr() -> None:
    config = replace(nowhere, password=secret, key_password=secret, oauth_client_secret=secret)
    assert secret not in repr(config)
    assert secret not in str(config)


def test_each_client_gets_the_properties_it_understands_and_complains_about_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mixed = replace(
        nowhere, properties={"linger.ms": 3, "session.timeout.ms": 9000, "socket.timeout.ms": 7000}
    )
    with caplog.at_level(logging.DEBUG, logger="penstock.kafka"):
        open_client(AdminClient, base_config(mixed)).poll(0.2)
        open_client(Producer, producer_config(mixed)).poll(0.2)
        consumer = open_client(Consumer, consumer_config(mixed) | {"group.id": "g"})
        consumer.poll(0.2)
        consumer.close()
    assert "refused" in caplog.text  # so the client's log does arrive here
    assert "CONFWARN" not in caplog.text
    assert {record.levelno for record in caplog.records} <= {logging.INFO, logging.DEBUG}
    assert producer_config(mixed)["linger.ms"] == 3
    assert consumer_config(mixed)["session.timeout.ms"] == 9000
    assert base_config(mixed)["socket.timeout.ms"] == 7000


@pytest.mark.parametrize(("property_name", "value"), [("isolation.level", "read_uncommitted")])
def test_no_property_undoes_a_guarantee(property_name: str, value: str) -> None:
    made = consumer_config(replace(nowhere, properties={property_name: value}))
    assert made["isolation.level"] == "read_committed"
    assert made["enable.auto.commit"] is False


def test_a_name_and_a_password_go_to_the_client_with_their_files(tmp_path: Path) -> None:
    made = base_config(
        replace(
            nowhere,
            protocol="SASL_SSL",
            mechanism="SCRAM-SHA-512",
            username="ann",
            password=secret,
            ca_file=tmp_path,
        )
    )
    assert made["security.protocol"] == "SASL_SSL"
    assert (made["sasl.username"], made["sasl.password"]) == ("ann", secret)
    assert made["ssl.ca.location"] == str(tmp_path)
    assert not any(value is None for value in made.values())


def test_tokens_are_fetched_by_the_client_itself() -> None:
    made = base_config(
        replace(
            nowhere,
            protocol="SASL_SSL",
            mechanism="OAUTHBEARER",
            oauth_token_url="https://idp/token",
            oauth_client_id="penstock",
            oauth_client_secret=secret,
        )
    )
    assert made["sasl.oauthbearer.method"] == "oidc"
    assert made["sasl.oauthbearer.client.secret"] == secret
    assert "sasl.password" not in made
    open_client(AdminClient, made)  # the library accepts them all


def test_what_the_library_does_not_accept_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"refuses its settings: .*no\.such\.property"):
        open_client(AdminClient, base_config(replace(nowhere, properties={"no.such.property": 1})))
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(
        ConfigError, match=r"refuses its settings: kafka\.security\.ca_file .* holds no certificate"
    ):
        open_client(AdminClient, base_config(replace(nowhere, protocol="SSL", ca_file=tmp_path / "ca.pem")))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*ca\.pem$"):
        base_config(replace(nowhere, protocol="SSL", ca_file=tmp_path / "ca.pem"))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, ConfigError),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, ConfigError),
        (KafkaError._AUTHENTICATION, UnavailableError),
        (KafkaError._FENCED, FencedError),
        (KafkaError.PRODUCER_FENCED, FencedError),
        (KafkaError.ILLEGAL_GENERATION, AbortedError),
        (KafkaError._TIMED_OUT, UnavailableError),
        (KafkaError._TRANSPORT, UnavailableError),
        (KafkaError.NOT_ENOUGH_REPLICAS, UnavailableError),
        (KafkaError.UNKNOWN, UnavailableError),
    ],
)
def test_an_error_is_named_by_the_reaction_to_it(code: int, expected: type[PenstockError]) -> None:
    for error in (KafkaError(code), KafkaException(KafkaError(code))):
        told = translate(error, "read topic t")
        assert type(told) is expected
        assert str(told).startswith("cannot read topic t: ")


def test_an_error_that_asks_for_an_abort_is_one() -> None:
    error = KafkaError(KafkaError.UNKNOWN_PRODUCER_ID, "x", False, False, True)
    assert type(translate(error, "commit")) is AbortedError


def test_a_time_out_is_explained_by_what_the_client_said_by_itself() -> None:
    errors = ClientErrors(nowhere)
    assert type(errors.explain("call")) is UnavailableError
    errors(KafkaError(KafkaError._TRANSPORT, "connection refused"))
    errors(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    told = errors.explain("call")
    assert type(told) is UnavailableError
    assert "connection refused" in str(told)
    errors(KafkaError(KafkaError._AUTHENTICATION, "wrong password"))
    errors(KafkaError(KafkaError._TRANSPORT, "connection refused"))
    told = errors.explain("call")
    assert type(told) is ConfigError
    assert str(told).startswith("cannot call: the broker does not accept this name and password")


no_token = KafkaError(
    KafkaError._AUTHENTICATION, "Failed to acquire SASL OAUTHBEARER token: connection refused"
)
no_client = KafkaError(
    KafkaError._AUTHENTICATION, 'Failed to acquire SASL OAUTHBEARER token: {"error":"invalid_client"}'
)
refused = KafkaError(KafkaError._AUTHENTICATION, "SASL authentication error: invalid_token")
bearer = replace(
    nowhere,
    protocol="SASL_PLAINTEXT",
    mechanism="OAUTHBEARER",
    oauth_token_url="http://127.0.0.1:1/",
    oauth_client_id="c",
)


def test_a_token_server_that_is_away_is_waited_for() -> None:
    errors = ClientErrors(bearer)
    errors(no_token)
    errors(refused)  # about the old token
    assert errors.refusal("call", look=False) is None
    assert type(errors.explain("call")) is UnavailableError
    assert type(translate(no_token, "call")) is UnavailableError
    assert type(translate(refused, "call")) is UnavailableError


def test_a_client_that_the_token_server_does_not_know_is_a_wrong_setting_at_the_first_start_only() -> None:
    errors = ClientErrors(bearer)
    errors(no_client)
    told = errors.refusal("call", look=False)
    assert type(told) is ConfigError
    assert "oauth_client_id" in str(told)
    again = ClientErrors(replace(bearer, proven=True))
    again(no_client)
    assert again.refusal("call", look=False) is None
    assert type(again.explain("call")) is UnavailableError


too_soon = KafkaError(
    KafkaError._AUTHENTICATION,
    "GroupCoordinator: SASL OAUTHBEARER mechanism handshake failed: Broker: Request not valid in current SASL state",
)


@pytest.mark.parametrize("told", [True, False])
def test_a_working_consumer_is_not_dropped_for_a_refused_token(
    caplog: pytest.LogCaptureFixture, told: bool
) -> None:
    """However long it takes: the client says only once that it gets none, and nothing while the token server hangs."""
    now_s = [0.0]
    access = AccessErrors(tokens=True, monotonic_s=lambda: now_s[0])
    assert not told or access.reaction(no_token) is None
    for now_s[0] in range(0, 3601, 10):
        assert access.reaction(refused) is None
        assert access.reaction(too_soon) is None
    assert len(caplog.records) == told + 61  # one a minute
    assert access.reaction(KafkaError(KafkaError._TRANSPORT)) is None


def test_what_is_no_matter_of_tokens_ends_the_connection() -> None:
    tls = KafkaError(KafkaError._SSL, "certificate verify failed")
    assert type(AccessErrors(tokens=True).reaction(tls)) is UnavailableError
    for error in (refused, tls):
        assert type(AccessErrors(tokens=False).reaction(error)) is UnavailableError


class Lasting:
    """A client of which some thread has to end before it is gone."""

    def __init__(self, properties: dict[str, Any]) -> None:
        self.thread = Ending(properties["ended"])


class Ending:
    def __init__(self, ended: list[str]) -> None:
        self._ended = ended

    def __del__(self) -> None:
        time.sleep(2.0)
        self._ended.append(threading.current_thread().name)


def test_nobody_waits_for_a_client_to_end() -> None:
    ended: list[str] = []
    client = open_client(Lasting, {"ended": ended})
    assert isinstance(client, Lasting)
    began_s = time.monotonic()
    del client
    assert time.monotonic() - began_s < 1.5
    assert ended == []
    while not ended:
        assert time.monotonic() - began_s < 30.0
        time.sleep(0.01)
    assert ended != [threading.current_thread().name]
