"""The settings of the cluster: how it is reached, the group, and properties of the client."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr, model_validator

from penstock.connectors.kafka.sessions import heartbeat_fault
from penstock.engine.settings.section import Section, address, plain_name, shown

client_properties_allowed = frozenset({
    "broker.address.family", "client.id", "client.rack", "connections.max.idle.ms", "compression.type", "fetch.max.bytes",
    "fetch.min.bytes", "fetch.wait.max.ms", "heartbeat.interval.ms", "isolation.level", "linger.ms",
    "max.partition.fetch.bytes", "max.poll.interval.ms", "message.max.bytes", "metadata.max.age.ms",
    "queued.max.messages.kbytes", "queued.min.messages", "receive.message.max.bytes", "reconnect.backoff.max.ms",
    "reconnect.backoff.ms", "request.timeout.ms", "session.timeout.ms", "socket.keepalive.enable", "socket.nagle.disable",
    "socket.timeout.ms", "statistics.interval.ms", "topic.metadata.refresh.interval.ms", "transaction.timeout.ms",
})  # fmt: skip
"""Client properties a user may set under `kafka.client`; others would undo a guarantee or load foreign code."""


max_poll_interval_ms = 300_000
"""Without a poll for so long a worker loses its partitions; `kafka.client: {max.poll.interval.ms: ...}` stands before it."""


class SecuritySettings(Section):
    """How to reach the brokers; secrets come from files (`*_file`) or the environment."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL", "SASL_PLAINTEXT"] = Field(
        "PLAINTEXT", description="how the brokers are spoken to: plain, over TLS, or with a login (SASL)"
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = Field(
        None, description="of the login; required with SASL"
    )
    username: str | None = Field(None, description="of PLAIN and SCRAM")
    password: SecretStr | None = Field(
        None, description="of PLAIN and SCRAM; better from a file or the environment"
    )
    password_file: Path | None = Field(
        None, description="file that holds the password; a line end at its end is not part of it"
    )
    ca_file: Path | None = Field(
        None,
        description="PEM file of the authorities that may have signed the brokers' certificates; default: the system's",
    )
    certificate_file: Path | None = Field(None, description="PEM file of the client's certificate, for mTLS")
    key_file: Path | None = Field(None, description="PEM file of the certificate's private key")
    key_password: SecretStr | None = Field(None, description="of the private key")
    oauth_token_url: Annotated[str, AfterValidator(address)] | None = Field(
        None, description="where tokens are asked for (client credentials)"
    )
    oauth_client_id: str | None = Field(None, description="who asks for the token")
    oauth_client_secret: SecretStr | None = Field(
        None, description="its secret; better from a file or the environment"
    )
    oauth_client_secret_file: Path | None = Field(None, description="file that holds the client's secret")
    oauth_scope: str | None = Field(None, description="scopes to ask for, separated by spaces")

    @model_validator(mode="after")
    def _complete(self) -> "SecuritySettings":
        if self.protocol.startswith("SASL") and self.mechanism is None:
            raise ValueError(f"{self.protocol} needs a mechanism")
        if self.mechanism == "OAUTHBEARER" and not (self.oauth_token_url and self.oauth_client_id):
            raise ValueError("OAUTHBEARER needs oauth_token_url and oauth_client_id")
        if self.mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512") and not self.username:
            raise ValueError(f"{self.mechanism} needs a username")
        if self.mechanism == "OAUTHBEARER" and not (
            self.oauth_client_secret or self.oauth_client_secret_file
        ):
            raise ValueError("OAUTHBEARER needs oauth_client_secret or oauth_client_secret_file")
        if self.mechanism not in (None, "OAUTHBEARER") and not (self.password or self.password_file):
            raise ValueError(f"{self.mechanism} needs a password or a password_file")
        return self


def poll_interval_max_ms(client: Mapping[str, object]) -> float:
    """So long a member may go without a poll, by the client's properties, in milliseconds."""
    return float(str(client.get("max.poll.interval.ms", max_poll_interval_ms)))


def _allowed(client: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
    for key in client:
        if key not in client_properties_allowed:
            near = difflib.get_close_matches(key, client_properties_allowed, n=1)
            raise ValueError(
                f"{shown(key)} may not be set here" + (f"; did you mean {near[0]}?" if near else "")
            )
    if client.get("isolation.level", "read_committed") != "read_committed":
        raise ValueError(
            "isolation.level is always read_committed: what is read otherwise may never have happened"
        )
    longest_ms = poll_interval_max_ms(client)
    if float(client.get("session.timeout.ms", 0)) > longest_ms:
        raise ValueError(
            f"session.timeout.ms is more than max.poll.interval.ms, which is {longest_ms:.0f}; set both, or neither"
        )
    if (fault := heartbeat_fault(client, poll_interval_max_ms=longest_ms)) is not None:
        raise ValueError(fault)
    return client


def _servers(text: str) -> str:
    if "@" in text:
        raise ValueError("may not hold a name and a password; kafka.security has settings for them")
    return text


class KafkaSettings(Section):
    """The cluster, the group and the promise."""

    bootstrap_servers: Annotated[str, AfterValidator(_servers)] = Field(
        min_length=1, description="host:port, several separated by commas"
    )
    group: Annotated[str, AfterValidator(plain_name)] = Field(
        min_length=1, max_length=200, description="consumer group; also the prefix of the transactional ids"
    )
    delivery: Literal["exactly_once", "at_least_once"] = Field(
        "exactly_once",
        description="exactly_once: results and offsets in one transaction; at_least_once: faster, a crash repeats records",
    )
    protocol: Literal["classic", "consumer"] = Field(
        "classic",
        description="group protocol: classic (cooperative rebalancing) or consumer (KIP-848, Kafka 4)",
    )
    start: Literal["earliest", "latest", "error"] = Field(
        "earliest", description="where a group without commits begins"
    )
    security: SecuritySettings = SecuritySettings()
    client: Annotated[dict[str, str | int | float | bool], AfterValidator(_allowed)] = Field(
        default_factory=dict, description="properties of librdkafka, for what the keys above do not say"
    )
    drain_budget_s: float = Field(
        3.0,
        gt=0,
        le=300,
        description="time to finish work in flight on a rebalance or SIGTERM; what is not finished then is read again by the next owner. A stop takes at most 2 s more",
    )
