"""The published contracts: the schemas in `schemas/`, and what their messages begin with."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol

import orjson

from penstock.engine.codec.framing import confluent_prefix, single_object_prefix
from penstock.schemas.errors import ConfigError

schema_bytes_max = 1 << 20


class Registrar(Protocol):
    """Where contracts are published at start."""

    def ensure(self, subject: str, schema: dict[str, Any]) -> int:
        """The id of `schema` under `subject`, registered with BACKWARD compatibility when it is not there yet.

        Raises ConfigError (not compatible, not allowed) or UnavailableError.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputPrefixes:
    """The bytes that every message of an output topic begins with."""

    predictions: bytes
    explanations: bytes
    dead_letters: bytes


def contract(name: str) -> dict[str, Any]:
    """A published schema by file name: `prediction`, `explanation`, `dead_letter` or `worker_status`."""
    schema: dict[str, Any] = orjson.loads(files("penstock.schemas").joinpath(f"{name}.avsc").read_bytes())
    return schema


def older_contracts(name: str) -> list[dict[str, Any]]:
    """What `contract(name)` was in released versions, newest first: messages of these are still on the topics."""
    folder = files("penstock.schemas").joinpath("older")
    found = {
        int(entry.name.split(".")[1]): entry
        for entry in folder.iterdir()
        if entry.name.startswith(f"{name}.") and entry.name.endswith(".avsc")
    }
    return [orjson.loads(found[number].read_bytes()) for number in sorted(found, reverse=True)]


def output_prefixes(
    *,
    predictions: str,
    explanations: str | None,
    dead_letters: str,
    framing: Literal["confluent", "single_object", "none"],
    registrar: Registrar | None,
) -> OutputPrefixes:
    """What the messages of these topics begin with; `confluent` registers their contracts (TopicNameStrategy) first.

    Called at start, before the first poll. Raises ConfigError or UnavailableError from the registrar.
    """

    def prefix(topic: str | None, name: str) -> bytes:
        if framing == "none":
            return b""
        schema = contract(name)
        if framing == "single_object" or registrar is None or topic is None:
            return single_object_prefix(schema)
        return confluent_prefix(registrar.ensure(f"{topic}-value", schema))

    return OutputPrefixes(
        predictions=prefix(predictions, "prediction"),
        explanations=prefix(explanations, "explanation"),
        dead_letters=prefix(dead_letters, "dead_letter"),
    )


def load_schema(path: Path) -> dict[str, Any]:
    """A record schema from an .avsc file. Raises ConfigError with one sentence."""
    try:
        if path.stat().st_size > schema_bytes_max:
            raise ConfigError(f"{path} is longer than {schema_bytes_max} bytes")
        schema = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read the schema {path}: {error.strerror}") from error
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"the schema {path} is not JSON: {error}") from error
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise ConfigError(f"the schema {path} does not describe a record")
    return schema
