"""The settings of what arrives and what leaves: topics, formats, schemas, dead letters."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, SecretStr

from penstock.engine.settings.section import Section, address


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
