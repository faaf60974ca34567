"""The settings tree: read once, checked once, and a default stands nowhere else."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationError, field_validator, model_validator

from penstock.engine.settings.admin import AdminSettings
from penstock.engine.settings.kafka import KafkaSettings
from penstock.engine.settings.refusals import refusal
from penstock.engine.settings.section import Section
from penstock.engine.settings.source import Location, override, read_yaml
from penstock.engine.settings.topics import (
    DeadLetterSettings,
    InputSettings,
    OutputSettings,
    RegistrySettings,
)
from penstock.engine.settings.tracing import TracingSettings
from penstock.schemas.errors import ConfigError


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
        "additive",
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
    output: str = Field(
        "predicted",
        description="predicted, all, or the name of a class or output; of several targets all, or the number of one",
    )
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
        description="of the pages, /metrics, /live, /ready and /status; each worker takes one of the ports after it; 0: free ports",
    )
    hosts: tuple[str, ...] = Field(
        (),
        max_length=20,
        description="names that the pages and /api/v1 may be asked for by from other machines; none: from this machine alone. They show records and ask for no password: name a host only behind a proxy that lets the right people in",
    )
    masked: tuple[str, ...] = Field(
        (),
        max_length=1000,
        description="fields whose values no page shows, by their own name at whatever depth; key: the record's key; those that the contract marks sensitive need not be named",
    )

    bundles: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")], Path] = Field(
        default_factory=dict,
        max_length=20,
        description="other bundles that a record may be tried with from its page, by a name: {candidate: models/v8}; trusted as model.trust says",
    )

    @field_validator("hosts")
    @classmethod
    def _names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:]+", host):
                raise ValueError(
                    f"{host!r} is not a host's name: write it without http:// and without a port"
                )
        return hosts


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


class AlertSettings(Section):
    """What `penstock rules` makes alerts of."""

    age_target: float = Field(
        0.99,
        ge=0.95,
        le=0.9999,
        description="share of the time in which no unfinished record is older than scaling.max_age_s; alerts say how fast the rest is used up",
    )
    complete_target: float = Field(
        0.99,
        ge=0.95,
        le=0.99999,
        description="share of the records that are predicted and not set aside",
    )
    runbook_url: str = Field(
        "",
        max_length=2048,
        pattern=r"^(https?://[^\s#]+)?$",
        description="address of the page that docs/runbook.md became; each alert's name is its anchor. Empty: docs/runbook.md",
    )
    pages_url: str = Field(
        "",
        max_length=2048,
        pattern=r"^(https?://[^\s#?'\"{}\\@]*[^\s#?'\"{}\\@/])?$",
        description="address that the pages are reached by, without a slash at its end: what alerts say of the likeliest cause leads to its /api/v1/hints. Empty: that path alone",
    )


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
    alerts: AlertSettings = AlertSettings()
    tracing: TracingSettings | None = None

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
        where, sentence = refusal(error, Settings)
        named = [name for path, name in variables.items() if where[: len(path)] == path]
        raise ConfigError(f"{named[0] if named else origin}: {sentence}") from None
    rooted: Settings = _rooted(settings, folder)
    return rooted


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
        elif isinstance(value, dict) and value and all(isinstance(each, Path) for each in value.values()):
            changes[name] = {key: folder / each for key, each in value.items()}
        elif isinstance(value, BaseModel):
            changes[name] = _rooted(value, folder)
    return section.model_copy(update=changes)
