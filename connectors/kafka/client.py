"""How every Kafka client is set up."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException

from penstock.connectors.kafka.errors import access_faults, said
from penstock.schemas.errors import ConfigError, PenstockError, UnavailableError

logger = logging.getLogger("penstock.kafka")

Client = TypeVar("Client")

consumer_properties: Final = frozenset({
    "fetch.max.bytes", "fetch.min.bytes", "fetch.wait.max.ms", "heartbeat.interval.ms", "isolation.level",
    "max.partition.fetch.bytes", "max.poll.interval.ms", "queued.max.messages.kbytes", "queued.min.messages", "session.timeout.ms",
})  # fmt: skip
producer_properties: Final = frozenset({
    "compression.type", "linger.ms", "request.timeout.ms", "transaction.timeout.ms",
})  # fmt: skip
"""What only one kind of client understands; librdkafka warns about a property in the wrong place."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientConfig:
    """Which cluster, and as whom. Secrets never appear in its repr.

    `properties` are librdkafka's own, already checked against the allow-list of the settings.
    """

    bootstrap_servers: str
    properties: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    protocol: str = "PLAINTEXT"
    mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password: str | None = field(default=None, repr=False)
    oauth_token_url: str | None = None
    oauth_client_id: str | None = None
    oauth_client_secret: str | None = field(default=None, repr=False)
    oauth_scope: str | None = None


class ClientErrors:
    """An error_cb that remembers what a client says by itself; librdkafka calls it from whichever thread polls.

    A wrong password shows in no call's result: every call only times out. `explain` finds the reason.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._access: KafkaError | None = None
        self._newest: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        with self._lock:
            if error.code() != KafkaError._ALL_BROKERS_DOWN:  # says less than the error before it
                self._newest = error
            if error.code() in access_faults:
                self._access = error
        logger.info("client: %s", error.str())

    def explain(self, doing: str) -> PenstockError:
        """What to raise for a call that timed out: ConfigError when the brokers refuse us, else UnavailableError."""
        with self._lock:
            access, newest = self._access, self._newest
        if access is not None:
            return ConfigError(f"cannot {doing}: {said(access)}")
        reason = f": {said(newest)}" if newest is not None else ""
        return UnavailableError(f"cannot {doing}: no answer in time{reason}")


class _ClientLog:
    """Takes librdkafka's log lines for the Python logger.

    Its errors are at most news here: whatever someone must act on comes back as an exception as well.
    """

    def log(self, level: int, text: str, *arguments: object) -> None:
        logger.log(min(level, logging.INFO), text, *arguments)


def base_config(config: ClientConfig) -> dict[str, Any]:
    """The librdkafka properties that every kind of client shares; all that an AdminClient needs.

    Raises ConfigError for a file of the security settings that cannot be read.
    """
    shared = {
        name: value
        for name, value in config.properties.items()
        if name not in consumer_properties and name not in producer_properties
    }
    return {
        "client.id": "penstock",
        "socket.keepalive.enable": True,
        "socket.connection.setup.timeout.ms": 10_000,
        "reconnect.backoff.max.ms": 1000,  # ten times as often as by default: a broker that is back is soon found
        "log.connection.close": False,  # brokers close idle connections; that is no news
        "logger": _ClientLog(),
        **shared,
        "bootstrap.servers": config.bootstrap_servers,
        **_security(config),
    }


def consumer_config(config: ClientConfig) -> dict[str, Any]:
    """A consumer that commits nothing by itself and sees only committed records; the caller adds `group.id`."""
    own = {name: value for name, value in config.properties.items() if name in consumer_properties}
    return {
        **base_config(config),
        "fetch.queue.backoff.ms": 2,  # the default sleeps a whole second each time the local queue is full
        **own,
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": False,
        "allow.auto.create.topics": False,
        "check.crcs": True,
    }


def producer_config(config: ClientConfig) -> dict[str, Any]:
    """An idempotent producer that repeats quickly: the default back-off makes a transaction cost 100 ms."""
    own = {name: value for name, value in config.properties.items() if name in producer_properties}
    return {
        **base_config(config),
        "retry.backoff.ms": 1,
        "retry.backoff.max.ms": 10,
        **own,
        "acks": "all",
        "enable.idempotence": True,
        "allow.auto.create.topics": False,
    }


def open_client(kind: Callable[[dict[str, Any]], Client], properties: dict[str, Any]) -> Client:
    """A Consumer, Producer or AdminClient; ConfigError for what librdkafka does not accept. Connects to nothing yet."""
    try:
        return kind(properties)
    except (KafkaException, TypeError, ValueError) as error:
        fault = error.args[0] if error.args else error
        text = said(fault) if isinstance(fault, KafkaError) else str(fault)
        raise ConfigError(f"the Kafka client refuses its settings: {text}") from error


def _readable(path: Path | None) -> str | None:
    if path is not None and not os.access(path, os.R_OK):  # the library's own complaint names no file
        raise ConfigError(f"cannot read {path}")
    return None if path is None else str(path)


def _security(config: ClientConfig) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        "security.protocol": config.protocol,
        "sasl.mechanisms": config.mechanism,
        "ssl.ca.location": _readable(config.ca_file),
        "ssl.certificate.location": _readable(config.certificate_file),
        "ssl.key.location": _readable(config.key_file),
        "ssl.key.password": config.key_password,
    }
    if config.mechanism == "OAUTHBEARER":
        # librdkafka fetches and renews the token on a thread of its own; a callback here would need somebody to poll
        chosen |= {
            "sasl.oauthbearer.method": "oidc",
            "sasl.oauthbearer.token.endpoint.url": config.oauth_token_url,
            "sasl.oauthbearer.client.id": config.oauth_client_id,
            "sasl.oauthbearer.client.secret": config.oauth_client_secret,
            "sasl.oauthbearer.scope": config.oauth_scope,
        }
    else:
        chosen |= {"sasl.username": config.username, "sasl.password": config.password}
    return {name: value for name, value in chosen.items() if value is not None}
