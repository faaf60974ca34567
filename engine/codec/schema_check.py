"""Whether the features of a model find their fields in the reader's schema: asked at start, answered with every fault."""

import difflib
import warnings
from collections.abc import Sequence
from typing import Any, Final

import avro.errors
import avro.schema
import orjson

from penstock.engine.codec.framing import Schema
from penstock.engine.features.signature import Feature, Signature
from penstock.schemas.errors import ConfigError

_numbers: Final = frozenset({"int", "long", "float", "double", "boolean"})
_texts: Final = frozenset({"string", "enum"})
_whole: Final = frozenset({"int", "long"})
_wanted: Final = {
    "number": "a number",
    "category": "a string or an enum",
    "vector": "an array of numbers",
}


def check_fields(signature: Signature, schema: Schema, *, origin: str) -> None:
    """Raises ConfigError that names each feature without a usable field in `schema`; `origin` says whose schema it is."""
    parsed = _parsed(schema, origin)
    faults = [fault for feature in signature.features if (fault := _fault(feature, parsed)) is not None]
    if faults:
        raise ConfigError(f"{origin} does not fit the model: {'; '.join(faults)}")


def numbered_categories(signature: Signature, schema: Schema) -> frozenset[str]:
    """The names of the categories whose field in `schema`, which has passed check_fields, is a whole number."""
    if not any(feature.whole_numbers for feature in signature.features):
        return frozenset()
    parsed = _parsed(schema, "the schema")
    found = {feature.name: _field(feature, parsed) for feature in signature.features if feature.whole_numbers}
    return frozenset(
        name for name, field in found.items() if not isinstance(field, str) and _is_whole_number(field)
    )


def _parsed(schema: Schema, origin: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", avro.errors.IgnoredLogicalType
        )  # an unknown one is its plain type, as Avro says
        try:
            return avro.schema.parse(orjson.dumps(schema).decode())
        except (avro.errors.AvroException, RecursionError, TypeError) as error:
            raise ConfigError(
                f"{origin} is not an Avro schema: {' '.join(str(error).split())[:300]}"
            ) from error


def _fault(feature: Feature, schema: Any) -> str | None:
    found = _field(feature, schema)
    if isinstance(found, str):
        return found
    kinds = {_kind(branch) for branch in _branches(found)}
    if kinds == {feature.kind} or (feature.whole_numbers and _is_whole_number(found)):
        return None
    wanted = _wanted[feature.kind] + (" or a whole number" if feature.whole_numbers else "")
    return f"field {feature.field} is not {wanted}"


def _field(feature: Feature, schema: Any) -> Any:
    """The schema of the feature's field, or why there is none."""
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
    return place


def _is_whole_number(schema: Any) -> bool:
    types = {branch.type for branch in _branches(schema)}
    return bool(types) and types <= _whole


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
