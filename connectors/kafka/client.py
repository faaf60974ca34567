"""How every Kafka client is set up."""

import _thread
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from penstock.connectors.kafka.admin.access import AccessFault, require_files, sasl_fault, tls_fault
from penstock.connectors.kafka.errors import (
    access_faults,
    cause_of,
    elsewhere,
    lacks_token,
    refuses_client,
    said,
)
from penstock.schemas.errors import ConfigError, PenstockError, UnavailableError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.kafka")

Client = TypeVar("Client")

waiting_said_every_s: Final = 60.0
_end_wait_max_s: Final = 1.0  # for whoever lets go of a client to have done so
_leader_pause_s: Final = 0.1  # between two questions to a partition whose leader changes

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
    proven: bool = False
    """These settings worked before in this deployment: then a fault of TLS, of a token or of the token server passes, as an outage does."""


class ClientErrors:
    """An error_cb that remembers the errors a client reports; librdkafka calls it on the thread that polls.

    A wrong password shows in no call's result: every call only times out. `refusal` and `explain` find the reason.
    """

    def __init__(self, config: ClientConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._let_in = False
        self._forget()

    def let_in(self) -> None:
        """The brokers have answered: what they refused before has passed, and what they refuse from now on may pass."""
        with self._lock:
            self._let_in = True
            self._forget()

    def _forget(self) -> None:
        self._access: KafkaError | None = None
        self._no_token: KafkaError | None = None
        self._newest: KafkaError | None = None
        self._looked = False
        self._found: AccessFault | None = None

    def __call__(self, error: KafkaError) -> None:
        with self._lock:
            if error.code() != KafkaError._ALL_BROKERS_DOWN:  # says less than the error before it
                self._newest = error
            if lacks_token(error):
                self._no_token = error
            elif error.code() in access_faults:
                self._access = error
        logger.info("client: %s", error.str(), extra=LogCode.KAFKA_CLIENT_ERROR.extra)

    def refusal(self, doing: str, *, look: bool) -> ConfigError | None:
        """What to raise without waiting any longer: the brokers, or a token server that knows no such client, refuse us.

        With `look` the cause is searched for on the side of TLS, once, for about a second.
        """
        with self._lock:
            access, no_token = self._access, self._no_token
            if self._let_in:
                return None
        fault = None
        if no_token is not None:  # what a broker says without one is about an old token
            if refuses_client(no_token) and not self._config.proven:
                return ConfigError(
                    f"cannot {doing}: the token server does not know this client; kafka.security.oauth_client_id and "
                    f"oauth_client_secret have to be what it expects ({said(no_token)})"
                )
            return None
        if access is not None and access.code() != KafkaError._SSL:
            fault = sasl_fault(self._config, str(access.str()))
        elif access is not None or look:
            fault = self._tls_fault()
        if (
            fault is None
            or not fault.settings
            or (self._config.proven and not _is_of_password(self._config, access))
        ):
            return None
        return ConfigError(f"cannot {doing}: {fault.sentence}")

    def explain(self, doing: str) -> PenstockError:
        """What to raise for a call that timed out: ConfigError when the brokers refuse us, else UnavailableError."""
        refused = self.refusal(doing, look=True)
        if refused is not None:
            return refused
        with self._lock:
            access, newest, no_token = self._access, self._newest, self._no_token
        if no_token is not None:
            return UnavailableError(f"cannot {doing}: no token yet: {said(no_token)}")
        fault = self._tls_fault()
        if fault is not None:
            return UnavailableError(f"cannot {doing}: {fault.sentence}")
        if access is not None:
            return (UnavailableError if self._config.proven or self._let_in else ConfigError)(
                f"cannot {doing}: {said(access)}"
            )
        # What the client says by itself is the cause; a time that has run out is only how it was noticed.
        return UnavailableError(f"cannot {doing}: {'no answer in time' if newest is None else said(newest)}")

    def _tls_fault(self) -> AccessFault | None:
        if not self._looked:
            self._looked, self._found = True, tls_fault(self._config)
        return self._found


class AccessErrors:
    """The reaction to errors that a client reports asynchronously while it works.

    Where the mechanism is OAUTHBEARER, a token is waited for: a client that works was let in with these settings, so what the
    brokers refuse is an old token, or a renewal that came too soon after another. librdkafka asks the token server again every ten
    seconds and connects with what it gets; it says only once that it gets none, and nothing at all while the server hangs.
    """

    def __init__(self, *, tokens: bool, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        """`tokens`: the mechanism is OAUTHBEARER."""
        self._tokens = tokens
        self._monotonic_s = monotonic_s
        self._said_at_s: dict[str, float] = {}

    def reaction(self, error: KafkaError) -> PenstockError | None:
        """What to raise, None to go on. Says at most once a minute what is waited for."""
        if lacks_token(error):
            self._say("no new token for Kafka yet, and the worker goes on with the old one: %s", error)
            return None
        if error.code() not in access_faults:
            return None
        if self._tokens and not _is_tls(error):
            self._say("the brokers do not take the worker's token, and it waits for another: %s", error)
            return None
        return UnavailableError(f"the broker refuses the connection: {said(error)}")

    def _say(self, sentence: str, error: KafkaError) -> None:
        now_s, said_at_s = self._monotonic_s(), self._said_at_s.get(sentence)
        if said_at_s is None or now_s - said_at_s >= waiting_said_every_s:
            self._said_at_s[sentence] = now_s
            logger.warning(sentence, said(error), extra=LogCode.KAFKA_TOKEN_AWAITED.extra)


def _is_tls(error: KafkaError) -> bool:
    return bool(error.code() == KafkaError._SSL)


def _is_of_password(config: ClientConfig, access: KafkaError | None) -> bool:
    """Whether a name and password are refused: a token is another one with the next log-in."""
    return access is not None and not _is_tls(access) and config.mechanism != "OAUTHBEARER"


class _ClientLog:
    """Takes librdkafka's log lines for the Python logger.

    Its errors are at most news here: whatever someone must act on comes back as an exception as well.
    """

    def log(self, level: int, text: str, *arguments: object) -> None:
        logger.log(min(level, logging.INFO), text, *arguments, extra=LogCode.KAFKA_CLIENT_LINE.extra)


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
        "reconnect.backoff.max.ms": 250,  # forty times as often as by default: a broker that is back is soon found
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
        "fetch.error.backoff.ms": 50,  # what cannot be read is tried offset by offset: the default waits half a second each time
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
    """A Consumer, Producer or AdminClient; ConfigError for what librdkafka does not accept. Connects to nothing yet.

    It ends on a thread of its own, whoever lets go of it: librdkafka waits there for the client's threads, and one that asks for a
    token waits for 20 s where the token server hangs.
    """
    try:
        return cast("Client", _ending_aside(cast("Any", kind))(properties))
    except (KafkaException, TypeError, ValueError) as error:
        fault = error.args[0] if error.args else error
        text = said(fault) if isinstance(fault, KafkaError) else str(fault)
        raise ConfigError(f"the Kafka client refuses its settings: {text}") from error


def close_aside(consumer: Consumer) -> threading.Thread:
    """Close a consumer, and leave its group, on a thread of its own: its close has no time-out, and waits for a coordinator that may
    be away, and for what `open_client` says. Whoever wants to wait for the end joins the thread."""
    closing = threading.Thread(target=consumer.close, name="consumer-close", daemon=True)
    closing.start()
    return closing


@cache
def _ending_aside(kind: type[Any]) -> type[Any]:
    def ends(self: Any) -> None:
        if not sys.is_finalizing():  # then no thread begins any more
            # Takes no lock, as threading would: a collection may come while this thread holds some.
            _thread.start_new_thread(_end, ([self],))

    return type(kind.__name__, (kind,), {"__del__": ends})


def _end(last: list[object]) -> None:
    """Drop what shall be the last reference to a client, as soon as it is."""
    until_s = time.monotonic() + _end_wait_max_s
    while sys.getrefcount(last[0]) > 2 and time.monotonic() < until_s:  # this list's, and the argument's
        time.sleep(0.001)
    last.clear()


def hear(producer: Producer, timeout_s: float) -> KafkaError | None:
    """Lets a producer hand over what it has to say; the error by which it is at its end, which its client raises in whatever call
    comes next, callback for errors or not."""
    try:
        producer.poll(timeout_s)
    except KafkaException as error:
        return cause_of(error)
    return None


def drop(producer: Producer) -> None:
    """What a producer still holds is lost, and its callbacks hear so; waits for nothing, where Producer.close would wait for the broker.
    Raises KafkaException when the client cannot even do that."""
    producer.purge()
    hear(producer, 0)


def _security(config: ClientConfig) -> dict[str, Any]:
    require_files(config)
    chosen: dict[str, Any] = {
        "security.protocol": config.protocol,
        "sasl.mechanisms": config.mechanism,
        "ssl.ca.location": _path(config.ca_file),
        "ssl.certificate.location": _path(config.certificate_file),
        "ssl.key.location": _path(config.key_file),
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


def _path(file: Path | None) -> str | None:
    return None if file is None else str(file)


def watermarks(consumer: Consumer, topic: str, partition: int, timeout_s: float) -> tuple[int, int]:
    """Earliest and last stable offset of a partition, asked for again while its leader changes. Raises KafkaException."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        left_s = max(deadline_s - time.monotonic(), 0.0)
        try:
            found: tuple[int, int] = consumer.get_watermark_offsets(
                TopicPartition(topic, partition), timeout=left_s
            )
        except KafkaException as error:
            if cause_of(error).code() not in elsewhere or left_s <= _leader_pause_s:
                raise
        else:
            return found
        time.sleep(_leader_pause_s)
