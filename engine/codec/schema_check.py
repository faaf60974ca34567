"""Whether the features of a model find their fields in the reader's schema: asked at start, answered with every fault."""

import difflib
import warnings
from collections.abc import Sequence
from typing import Any, Final

import avro.errors
import avro.schema
import orjson

from engine.codec.framing import Schema
from engine.models.signature import Feature, Signature
from schemas.errors import ConfigError

_numbers: Final = frozenset({"int", "long", "float", "double", "boolean"})
_texts: Final = frozenset({"string", "enum"})
_wanted: Final = {
    "number": "a number",
    "category": "a string or an enum",
    "vector": "an array of numbers",
}


def check_fields(signature: Signature, schema: Schema, *, origin: str) -> None:
    """Raises ConfigError that names each feature without a usable field in `schema`; `origin` says whose schema it is."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", avro.errors.IgnoredLogicalType
        )  # an unknown one is its plain type, as Avro says
        try:
            parsed = avro.schema.parse(orjson.dumps(schema).decode())
        except (avro.errors.AvroException, RecursionError, TypeError) as error:
            raise ConfigError(
                f"{origin} is not an Avro schema: {' '.join(str(error).split())[:300]}"
            ) from error
    faults = [fault for feature in signature.features if (fault := _fault(feature, parsed)) is not None]
    if faults:
        raise ConfigError(f"{origin} does not fit the model: {'; '.join(faults)}")


def _fault(feature: Feature, schema: Any) -> str | None:
    place = schema
    walked: list[str] = []
    for part in feature.field.split("."):
        fields = next((branch.fields for branch in _branches(place) if branch.type == "record"), None)
        if fields is None:
            return f"{'.'.join(walked) or 'it'} is no record, so field {feature.field} is not in it"
        found = next((field for field in fields if field.name == part), None)
        if found is None:
            near = difflib.get_close_matches(part, [field.name for field in fields], n=1)
            return f"field {feature.field} is missing" + (f" (there is {near[0]})" if near else "")
        walked.append(part)
        place = found.type
    kinds = {_kind(branch) for branch in _branches(place)}
    if kinds != {feature.kind}:
        return f"field {feature.field} is not {_wanted[feature.kind]}"
    return None


def _branches(schema: Any) -> Sequence[Any]:
    """What a value may be, null apart."""
    branches = schema.schemas if schema.type == "union" else [schema]
    return [branch for branch in branches if branch.type != "null"]


def _kind(schema: Any) -> str | None:
    if schema.type in _numbers or isinstance(
        schema, avro.schema.BytesDecimalSchema | avro.schema.FixedDecimalSchema
    ):
        return "number"
    if schema.type in _texts:
        return "category"
    if schema.type == "array" and {_kind(item) for item in _branches(schema.items)} == {"number"}:
        return "vector"
    return None
