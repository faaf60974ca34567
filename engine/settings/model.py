"""The settings tree: read once, checked once, and a default stands nowhere else."""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from penstock.engine.settings.admin import AdminSettings
from penstock.engine.settings.section import Section, address
from penstock.engine.settings.source import Location, override, read_yaml
from penstock.schemas.errors import ConfigError

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


def _allowed(client: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
    for key in client:
        if key not in client_properties_allowed:
            near = difflib.get_close_matches(key, client_properties_allowed, n=1)
            raise ValueError(
                f"{_shown(key)} may not be set here" + (f"; did you mean {near[0]}?" if near else "")
            )
    if client.get("isolation.level", "read_committed") != "read_committed":
        raise ValueError(
            "isolation.level is always read_committed: what is read otherwise may never have happened"
        )
    longest_ms = float(client.get("max.poll.interval.ms", max_poll_interval_ms))
    if float(client.get("session.timeout.ms", 0)) > longest_ms:
        raise ValueError(
            f"session.timeout.ms is more than max.poll.interval.ms, which is {longest_ms:.0f}; set both, or neither"
        )
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
    group: str = Field(
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


class RegistrySettings(Section):
    """A Confluent-compatible schema registry; absent, schemas come from files."""

    url: Annotated[str, AfterValidator(address)] = Field(
        pattern=r"^https?://", description="without a name and a password: username and password are for them"
    )
    username: str | None = Field(None, description="for basic authentication")
    password: SecretStr | None = Field(
        None, description="for basic authentication; better from a file or the environment"
    )
    password_file: Path | None = Field(None, description="file that holds the password")
    ca_file: Path | None = Field(
        None,
        description="PEM file of the authorities that may have signed the registry's certificate; default: the system's",
    )
    timeout_s: float = Field(3.0, gt=0, le=30, description="how long one answer may take")


class JsonSettings(Section):
    """How JSON records are read where producers differ."""

    nan: Literal["reject", "missing"] = Field(
        "reject",
        description="the literals NaN and Infinity, which JSON does not have and some producers write, in a feature's field: reject the record, or read NaN as missing and Infinity as the feature's policy for infinities says",
    )


class InputSettings(Section):
    """What arrives."""

    topic: str = Field(
        min_length=1, max_length=249, pattern=r"^[a-zA-Z0-9._-]+$", description="the topic with the records"
    )
    format: Literal["avro", "json"] = Field("avro", description="of the records' values")
    record_schema: Path | None = Field(
        None, alias="schema", description="the reader's .avsc; default: the bundle's input schema"
    )
    writer_schemas: Path | None = Field(
        None,
        description="folder of further .avsc files that records of single_object framing are written with",
    )
    framing: Literal["confluent", "single_object", "none"] | None = Field(
        None,
        description="default: confluent with a registry, single_object without; of JSON none, or confluent for records behind a schema id, which is not looked up",
    )
    json_values: JsonSettings = Field(JsonSettings(), alias="json")
    record_type: str | None = Field(
        None,
        min_length=1,
        max_length=512,
        description="Avro only: the full name of the record to read, on a topic that holds several types; records of other types are skipped and counted as skipped",
    )
    no_features: Literal["reject", "skip", "score"] = Field(
        "reject",
        description="what a record becomes that holds none of the model's fields, not even as null: a dead letter, nothing (counted as skipped), or a prediction from missing values alone",
    )
    record_bytes_max: int = Field(
        1 << 20, ge=16, le=64 << 20, description="a longer record is a dead letter of reason record_too_long"
    )
    null_value: Literal["dead_letter", "skip"] = Field(
        "dead_letter", description="what a record without a value becomes"
    )
    unreadable: Literal["stop", "set_aside"] = Field(
        "stop",
        description="when bytes stored on the broker stay unreadable: stop the worker, or set_aside: one dead letter names "
        "the range of offsets, and reading goes on behind it",
    )
    recreated: Literal["read", "stop"] = Field(
        "read",
        description="when the topic was deleted and made anew: read every partition from its beginning, or stop the worker",
    )

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, populate_by_name=True)


_Topic = Annotated[str, Field(min_length=1, max_length=249, pattern=r"^[a-zA-Z0-9._-]+$")]


class OutputSettings(Section):
    """Where results go; without an explanations topic nothing is explained."""

    predictions: _Topic = Field(
        description="topic of the predictions, with as many partitions as the input's"
    )
    explanations: _Topic | None = Field(
        None, description="topic of the explanations; without it nothing is explained"
    )
    dead_letters: _Topic = Field(
        description="topic of the records that have no prediction, whole, with the reason"
    )
    status: _Topic | None = Field(None, description="compacted topic of worker reports, for the scaler")
    format: Literal["avro", "json"] = Field(
        "avro", description="of predictions, explanations and dead letters; the same names in both"
    )
    framing: Literal["confluent", "single_object", "none"] | None = Field(
        None, description="of avro; default: confluent with a registry, single_object without; json has none"
    )
    headers: tuple[str, ...] = Field(
        ("traceparent",),
        description='names of record headers that results and dead letters carry on; "*" is all of them, [] none',
    )
    pass_fields: tuple[str, ...] = Field(
        (),
        max_length=64,
        description="input fields that results carry on as text, under `passed`; each record is then read once more, in Python",
    )


class DeadLetterSettings(Section):
    """When so much is bad that the fault is not the records'."""

    run_max: int = Field(1000, ge=1, description="stop a partition after this many bad records in a row")
    share_max: float = Field(
        0.5,
        gt=0,
        le=1,
        description="stop a partition when more than this share of its last `window` records is bad",
    )
    window: int = Field(10_000, ge=100, le=10_000_000, description="records that share_max is of")


class TrustSettings(Section):
    """Whose bundles are served."""

    keys: tuple[Path, ...] = Field(
        (), description="PEM files with a public key or a certificate; `penstock sign` makes the signatures"
    )
    policy: Literal["off", "warn", "enforce"] | None = Field(
        None, description="without a signature by one of the keys; default: enforce with keys, off without"
    )

    @model_validator(mode="after")
    def _complete(self) -> "TrustSettings":
        if self.policy in ("warn", "enforce") and not self.keys:
            raise ValueError(f"policy {self.policy} needs keys")
        return self

    @property
    def in_force(self) -> Literal["off", "warn", "enforce"]:
        """The policy, with its default."""
        return self.policy or ("enforce" if self.keys else "off")


class ModelSettings(Section):
    """Which bundle, and where it runs."""

    path: Path = Field(description="folder of the bundle that `penstock package` wrote")
    digest: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="digest of the bundle, as `penstock check` prints it: another bundle is refused; null: whatever is there at the start",
    )
    trust: TrustSettings = TrustSettings()
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto: the first GPU where the model runs faster there, else the CPU; cpu; cuda:0 for a GPU by number, an error where it is not",
    )
    runtime: Literal["auto", "onnxruntime", "native"] = Field("auto", description="native: our tree kernel")
    threads: int = Field(
        1, ge=1, le=64, description="threads inside one session; 1 keeps scores the same to the bit"
    )
    batch_s_max: float | None = Field(
        None,
        gt=0,
        le=86_400,
        description="a batch that is computed for longer ends its worker, and its records are tried one by one; null: 50 times what the largest one took at warm-up, and at least 10",
    )
    warmup_s_max: float = Field(
        300.0,
        gt=0,
        le=86_400,
        description="a worker that is not warm so long after its start is ended, and says so",
    )
    cache_rows: int = Field(
        0,
        ge=0,
        le=1 << 20,
        description="different rows whose results are kept for when the same features come again; 0: none",
    )


class ObjectiveSettings(Section):
    """What a user wants of the batching."""

    latency_slo_ms: float = Field(
        50.0,
        gt=0,
        le=60_000,
        description="time that a batch may take from its first record to its results; batches grow while the measured cost keeps to it",
    )
    batch_rows_max: int = Field(
        4096,
        ge=1,
        le=65_536,
        description="records of a batch at the most; also how many are prepared for at warm-up",
    )


def _policy(text: str) -> str:
    from penstock.engine.settings.explain_policy import (
        parse_policy,  # late: the grammar needs numpy, which --help does not
    )

    parse_policy(text)
    return text


class ExplainSettings(Section):
    """Which records are explained, how, and how much of it is sent."""

    policy: Annotated[str, AfterValidator(_policy)] = Field(
        "every", description="every, none, sample:0.1, score>=0.8, header:NAME"
    )
    method: Literal[
        "auto",
        "tree_path_dependent",
        "tree_interventional",
        "exact_enumeration",
        "sampled",
        "expected_gradients",
        "deeplift_rescale",
        "lime",
    ] = Field("auto", description="auto is exact where it can be; docs/explanations.md says what each means")
    budget_ms: float | None = Field(
        None,
        gt=0,
        le=600_000,
        description="time for the explanations of a batch; records it does not reach are predicted, not explained, and counted",
    )
    top: int = Field(0, ge=0, description="only the strongest this many features; 0 means all")
    output: str = Field("predicted", description="predicted, all, or the name of a class or output")
    samples: int = Field(
        1024,
        ge=16,
        le=1 << 16,
        description="evaluations of the model, or of its gradient, per record, for methods that evaluate it",
    )


class HttpSettings(Section):
    """Metrics, health and status; each worker listens on the ports after this one."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(
        9464,
        ge=0,
        le=65_535,
        description="of /metrics, /live, /ready and /status; each worker takes one of the ports after it; 0: free ports",
    )


class ScalingSettings(Section):
    """The scaler's one objective and its bounds."""

    max_age_s: float = Field(30.0, gt=0, description="no unfinished record should become older than this")
    min_replicas: int = Field(0, ge=0, le=10_000, description="never fewer; 0 lets KEDA stop all of them")
    max_replicas: int = Field(16, ge=1, le=10_000, description="never more")
    host: str = Field("127.0.0.1", description="address that the gRPC port listens on; 0.0.0.0 for all")
    port: int = Field(9090, ge=0, le=65_535, description="KEDA external-push gRPC port")
    certificate_file: Path | None = Field(None, description="PEM; with key_file, the gRPC port speaks TLS")
    key_file: Path | None = Field(None, description="PEM file of the certificate's private key")
    client_ca_file: Path | None = Field(None, description="PEM; clients must show a certificate it signed")

    @model_validator(mode="after")
    def _ordered(self) -> "ScalingSettings":
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is more than max_replicas")
        if (self.certificate_file is None) != (self.key_file is None):
            raise ValueError("certificate_file and key_file go together")
        if self.client_ca_file is not None and self.certificate_file is None:
            raise ValueError("client_ca_file needs certificate_file and key_file")
        return self


class Settings(Section):
    """The whole of penstock.yaml."""

    kafka: KafkaSettings
    registry: RegistrySettings | None = None
    input: InputSettings
    output: OutputSettings
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    model: ModelSettings
    objective: ObjectiveSettings = ObjectiveSettings()
    explain: ExplainSettings = ExplainSettings()
    workers: int = Field(
        1, ge=1, le=256, description="worker processes of this supervisor, each a member of the group"
    )
    http: HttpSettings = HttpSettings()
    admin: AdminSettings | None = None
    scaling: ScalingSettings = ScalingSettings()

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        names = [
            self.input.topic,
            self.output.predictions,
            self.output.explanations,
            self.output.dead_letters,
            self.admin.audit_topic if self.admin else None,
        ]
        named = [name for name in names if name]
        if len(set(named)) != len(named):
            raise ValueError("input and output topics must differ from each other")
        if self.input.framing == "confluent" and self.registry is None and self.input.format == "avro":
            raise ValueError("input.framing confluent needs a registry")
        if self.output.framing == "confluent" and self.registry is None:
            raise ValueError("output.framing confluent needs a registry")
        if self.output.format == "json" and self.output.framing not in (None, "none"):
            raise ValueError(f"output.framing {self.output.framing} does not go with format json")
        if self.input.format == "json" and self.input.framing == "single_object":
            raise ValueError("input.framing single_object does not go with format json")
        if self.input.format == "json" and self.input.record_type is not None:
            raise ValueError("input.record_type chooses among Avro types; a JSON record has no type")
        return self

    @property
    def output_framing(self) -> Literal["confluent", "single_object", "none"]:
        """The framing in force on the output topics."""
        if self.output.format == "json":
            return "none"
        return self.output.framing or ("confluent" if self.registry else "single_object")

    @property
    def framing(self) -> Literal["confluent", "single_object", "none"]:
        """The framing in force on the input topic."""
        if self.input.format == "json":
            return "none"
        return self.input.framing or ("confluent" if self.registry else "single_object")


def load_settings(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in a file, overridden by PENSTOCK_ variables; relative paths are relative to the file.

    Raises ConfigError with one sentence that names the setting, or the variable, at fault and quotes no value.
    """
    tree = read_yaml(path, Settings)
    variables = override(tree, environ, Settings)
    return _checked(tree, origin=str(path), folder=path.parent, variables=variables)


def parse_settings(tree: Mapping[str, Any], *, origin: str, folder: Path) -> Settings:
    """A settings tree checked; relative paths are relative to `folder`. Raises ConfigError."""
    return _checked(tree, origin=origin, folder=folder, variables={})


def _checked(
    tree: Mapping[str, Any], *, origin: str, folder: Path, variables: Mapping[Location, str]
) -> Settings:
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        where = error.errors()[0]["loc"]
        named = [name for path, name in variables.items() if where[: len(path)] == path]
        raise ConfigError(f"{named[0] if named else origin}: {_one_sentence(error)}") from None
    rooted: Settings = _rooted(settings, folder)
    return rooted


def _shown(key: object) -> str:
    """A key as far as it is one: what follows may be a value that lost its space, as in `password:secret`."""
    whole = str(key)
    sound = re.match(r"[A-Za-z0-9_.\-]*", whole)
    start = sound.group() if sound else ""
    return whole if start == whole else f"{start}..."


def _one_sentence(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(_shown(part) for part in fault["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if fault["type"] == "extra_forbidden":
        known = _keys_at(fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"{where} is not a setting; {hint}{more}"
    if fault["type"] == "missing":
        return f"{where} is missing{more}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "string_type":
        message = "this is text and needs quotes"
    return f"{where}: {message}{more}" if where else f"{message}{more}"


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    section: type[BaseModel] = Settings
    for part in location:
        for name, info in section.model_fields.items():
            if part in (name, info.alias):
                candidates = [info.annotation, *getattr(info.annotation, "__args__", ())]
                section = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return [info.alias or name for name, info in section.model_fields.items()]


def _rooted(section: Any, folder: Path) -> Any:
    changes: dict[str, Any] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Path) and not value.is_absolute():
            changes[name] = folder / value
        elif isinstance(value, tuple) and value and isinstance(value[0], Path):
            changes[name] = tuple(folder / each for each in value)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            changes[name] = tuple(_rooted(each, folder) for each in value)
        elif isinstance(value, BaseModel):
            changes[name] = _rooted(value, folder)
    return section.model_copy(update=changes)
