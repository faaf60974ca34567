"""The settings tree: read once, checked once, and a default stands nowhere else."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from penstock.schemas.errors import ConfigError

environment_prefix = "PENSTOCK_"

client_properties_allowed = frozenset({
    "broker.address.family", "client.id", "client.rack", "connections.max.idle.ms", "compression.type", "fetch.max.bytes",
    "fetch.min.bytes", "fetch.wait.max.ms", "heartbeat.interval.ms", "isolation.level", "linger.ms",
    "max.partition.fetch.bytes", "max.poll.interval.ms", "message.max.bytes", "metadata.max.age.ms",
    "queued.max.messages.kbytes", "queued.min.messages", "receive.message.max.bytes", "reconnect.backoff.max.ms",
    "reconnect.backoff.ms", "request.timeout.ms", "session.timeout.ms", "socket.keepalive.enable", "socket.nagle.disable",
    "socket.timeout.ms", "statistics.interval.ms", "topic.metadata.refresh.interval.ms", "transaction.timeout.ms",
})  # fmt: skip
"""Client properties a user may set under `kafka.client`; others would undo a guarantee or load foreign code."""


class Section(BaseModel):
    """A part of the tree: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SecuritySettings(Section):
    """How to reach the brokers; secrets come from files (`*_file`) or the environment."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL", "SASL_PLAINTEXT"] = "PLAINTEXT"
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    key_password: SecretStr | None = None
    oauth_token_url: str | None = None
    oauth_client_id: str | None = None
    oauth_client_secret: SecretStr | None = None
    oauth_client_secret_file: Path | None = None
    oauth_scope: str | None = None

    @model_validator(mode="after")
    def _complete(self) -> "SecuritySettings":
        if self.protocol.startswith("SASL") and self.mechanism is None:
            raise ValueError(f"{self.protocol} needs a mechanism")
        if self.mechanism == "OAUTHBEARER" and not (self.oauth_token_url and self.oauth_client_id):
            raise ValueError("OAUTHBEARER needs oauth_token_url and oauth_client_id")
        if self.mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512") and not self.username:
            raise ValueError(f"{self.mechanism} needs a username")
        return self


def _allowed(client: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
    for key in client:
        if key not in client_properties_allowed:
            near = difflib.get_close_matches(key, client_properties_allowed, n=1)
            raise ValueError(f"{key} may not be set here" + (f"; did you mean {near[0]}?" if near else ""))
    return client


class KafkaSettings(Section):
    """The cluster, the group and the promise."""

    bootstrap_servers: str = Field(min_length=1, description="host:port, several parted by commas")
    group: str = Field(
        min_length=1, max_length=200, description="consumer group; also the prefix of the transactional ids"
    )
    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    protocol: Literal["classic", "consumer"] = Field(
        "classic",
        description="group protocol: classic (cooperative rebalancing) or consumer (KIP-848, Kafka 4)",
    )
    start: Literal["earliest", "latest", "error"] = Field(
        "earliest", description="where a group without commits begins"
    )
    security: SecuritySettings = SecuritySettings()
    client: Annotated[dict[str, str | int | float | bool], AfterValidator(_allowed)] = Field(
        default_factory=dict
    )
    drain_budget_s: float = Field(
        3.0,
        gt=0,
        le=300,
        description="time to finish work in flight on a rebalance or SIGTERM; what is not finished then is read again by the next owner. A stop takes at most 2 s more",
    )


class RegistrySettings(Section):
    """A Confluent-compatible schema registry; absent, schemas come from files."""

    url: str = Field(pattern=r"^https?://")
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    timeout_s: float = Field(3.0, gt=0, le=30)


class InputSettings(Section):
    """What arrives."""

    topic: str = Field(min_length=1, max_length=249, pattern=r"^[a-zA-Z0-9._-]+$")
    format: Literal["avro", "json"] = "avro"
    record_schema: Path | None = Field(
        None, alias="schema", description="the reader's .avsc; default: the bundle's input schema"
    )
    writer_schemas: Path | None = Field(
        None,
        description="folder of further .avsc files that records of single_object framing are written with",
    )
    framing: Literal["confluent", "single_object", "none"] | None = Field(
        None, description="default: confluent with a registry, single_object without"
    )
    record_bytes_max: int = Field(1 << 20, ge=16, le=64 << 20)
    null_value: Literal["dead_letter", "skip"] = Field(
        "dead_letter", description="what a record without a value becomes"
    )

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, populate_by_name=True)


_Topic = Annotated[str, Field(min_length=1, max_length=249, pattern=r"^[a-zA-Z0-9._-]+$")]


class OutputSettings(Section):
    """Where results go; without an explanations topic nothing is explained."""

    predictions: _Topic
    explanations: _Topic | None = None
    dead_letters: _Topic
    status: _Topic | None = Field(None, description="compacted topic of worker reports, for the scaler")


class DeadLetterSettings(Section):
    """When so much is bad that the fault is not the records'."""

    run_max: int = Field(1000, ge=1, description="stop a partition after this many bad records in a row")
    share_max: float = Field(
        0.5,
        gt=0,
        le=1,
        description="stop a partition when more than this share of its last `window` records is bad",
    )
    window: int = Field(10_000, ge=100, le=10_000_000)


class ModelSettings(Section):
    """Which bundle, and where it runs."""

    path: Path
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
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

    latency_slo_ms: float = Field(50.0, gt=0, le=60_000)
    batch_rows_max: int = Field(4096, ge=1, le=65_536)


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

    host: str = "127.0.0.1"
    port: int = Field(9464, ge=0, le=65_535)


class ScalingSettings(Section):
    """The scaler's one objective and its bounds."""

    max_age_s: float = Field(30.0, gt=0, description="no unfinished record should become older than this")
    min_replicas: int = Field(0, ge=0, le=10_000)
    max_replicas: int = Field(16, ge=1, le=10_000)
    host: str = "127.0.0.1"
    port: int = Field(9090, ge=0, le=65_535, description="KEDA external-push gRPC port")
    certificate_file: Path | None = Field(None, description="PEM; with key_file, the gRPC port speaks TLS")
    key_file: Path | None = None
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
    workers: int = Field(1, ge=1, le=256)
    http: HttpSettings = HttpSettings()
    scaling: ScalingSettings = ScalingSettings()

    @model_validator(mode="after")
    def _consistent(self) -> "Settings":
        names = [
            self.input.topic,
            self.output.predictions,
            self.output.explanations,
            self.output.dead_letters,
        ]
        named = [name for name in names if name]
        if len(set(named)) != len(named):
            raise ValueError("input and output topics must differ from each other")
        if self.input.framing == "confluent" and self.registry is None:
            raise ValueError("input.framing confluent needs a registry")
        if self.input.format == "json" and self.input.framing not in (None, "none"):
            raise ValueError(f"input.framing {self.input.framing} does not go with format json")
        return self

    @property
    def framing(self) -> Literal["confluent", "single_object", "none"]:
        """The framing in force on the input topic."""
        if self.input.format == "json":
            return "none"
        return self.input.framing or ("confluent" if self.registry else "single_object")


def load_settings(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in a file, overridden by PENSTOCK_ variables; relative paths are relative to the file.

    Raises ConfigError with one sentence that names the path of the fault.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path} holds no settings; see docs/settings.md for an example")
    return parse_settings(_overridden(tree, environ), origin=str(path), folder=path.parent)


def parse_settings(tree: Mapping[str, Any], *, origin: str, folder: Path) -> Settings:
    """A settings tree checked; relative paths are relative to `folder`. Raises ConfigError."""
    try:
        settings = Settings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {_one_sentence(error)}") from error
    rooted: Settings = _rooted(settings, folder)
    return rooted


def _overridden(tree: dict[str, Any], environ: Mapping[str, str]) -> dict[str, Any]:
    for name in sorted(environ):
        if not name.startswith(environment_prefix) or (
            "__" not in name and name.removeprefix(environment_prefix).lower() not in Settings.model_fields
        ):
            continue
        *parents, leaf = name.removeprefix(environment_prefix).lower().split("__")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                raise ConfigError(f"{name} overrides inside {parent}, which is not a section")
        place[leaf] = yaml.safe_load(environ[name])
    return tree


def _one_sentence(error: ValidationError) -> str:
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if fault["type"] == "extra_forbidden":
        known = _keys_at(fault["loc"][:-1])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"{where} is not a setting; {hint}{more}"
    if fault["type"] == "missing":
        return f"{where} is missing{more}"
    message = fault["msg"].removeprefix("Value error, ")
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
        elif isinstance(value, BaseModel):
            changes[name] = _rooted(value, folder)
    return section.model_copy(update=changes)
