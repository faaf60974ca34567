"""How every Kafka client is set up, and what its errors mean here."""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException

from schemas.errors import AbortedError, ConfigError, FencedError, PenstockError, UnavailableError

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

refusals: Final = frozenset({
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._AUTHENTICATION,
    KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError.ILLEGAL_SASL_STATE, KafkaError._SSL, KafkaError.SECURITY_DISABLED,
    KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION, KafkaError.TOPIC_EXCEPTION,
    KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET, KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.POLICY_VIOLATION,
    KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE, KafkaError._INVALID_ARG, KafkaError._NOT_CONFIGURED,
    KafkaError.INVALID_CONFIG, KafkaError.INVALID_PARTITIONS, KafkaError.INVALID_REPLICATION_FACTOR, KafkaError.INVALID_GROUP_ID,
    KafkaError.INVALID_SESSION_TIMEOUT, KafkaError.INVALID_TRANSACTION_TIMEOUT, KafkaError.INCONSISTENT_GROUP_PROTOCOL,
    KafkaError.UNSUPPORTED_ASSIGNOR, KafkaError.GROUP_MAX_SIZE_REACHED, KafkaError.TOPIC_ALREADY_EXISTS,
})  # fmt: skip
"""Repeating cannot help: a person has to change a setting, a topic or a permission."""

fences: Final = frozenset({
    KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.FENCED_INSTANCE_ID,
})  # fmt: skip
"""A newer client with the same transactional id or group instance id took over."""

evictions: Final = frozenset({
    KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.STALE_MEMBER_EPOCH, KafkaError.FENCED_MEMBER_EPOCH, KafkaError.TRANSACTION_ABORTABLE,
})  # fmt: skip
"""The group moved on without this member: what it was about to commit did not happen, and it may join again."""

access_faults: Final = frozenset({
    KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError._SSL,
})  # fmt: skip
"""What librdkafka says only through error_cb, while the calls themselves merely time out."""


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
            return ConfigError(f"cannot {doing}: {_plain(access)}")
        reason = f": {_plain(newest)}" if newest is not None else ""
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
        text = _plain(fault) if isinstance(fault, KafkaError) else str(fault)
        raise ConfigError(f"the Kafka client refuses its settings: {text}") from error


def translate(error: KafkaError | KafkaException, doing: str) -> PenstockError:
    """What to raise here for an error of the client; `doing` completes "cannot ...".

    FencedError, ConfigError and AbortedError where the code says so; everything else is UnavailableError. An error that
    is fatal to the client has to be asked about before: such a client is thrown away whatever the reaction.
    """
    fault = error.args[0] if isinstance(error, KafkaException) else error
    if not isinstance(fault, KafkaError):
        return UnavailableError(f"cannot {doing}: {fault}")
    sentence = f"cannot {doing}: {_plain(fault)}"
    code = fault.code()
    if code in fences:
        return FencedError(sentence)
    if code in refusals:
        return ConfigError(sentence)
    if code in evictions or fault.txn_requires_abort():
        return AbortedError(sentence)
    return UnavailableError(sentence)


def _plain(error: KafkaError) -> str:
    text = str(error.str() or error.name()).strip().rstrip(".")
    for prefix in ("Broker: ", "Local: "):
        text = text.removeprefix(prefix)
    return " ".join(text.split()) if not text.endswith(":") else f"{text} {error.name()}"


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
