"""Whether the features of a model find their fields in the reader's schema: asked at start, answered with every fault."""

import difflib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import avro.errors
import avro.schema
import orjson

from penstock.engine.codec.framing import Schema
from penstock.engine.features.signature import Feature, Signature
from penstock.engine.features.values import boolean_names, number_names
from penstock.schemas.errors import ConfigError

_numbers: Final = frozenset({"int", "long", "float", "double", "boolean"})
_texts: Final = frozenset({"string", "enum"})
_wanted: Final = {
    "number": "a number",
    "category": "a string or an enum",
    "vector": "an array of numbers",
    "text": "a string",
}


Codes = dict[int | float, float]


def check_fields(
    signature: Signature, schema: Schema, *, origin: str, record_type: str | None = None
) -> None:
    """Raises ConfigError that names each feature without a usable field in `schema`; `origin` says whose schema it is.

    `record_type` names the record that counts where the schema describes several.
    """
    parsed = _root(_parsed(schema, origin), record_type, origin)
    faults = [fault for feature in signature.features if (fault := _fault(feature, parsed)) is not None]
    if faults:
        raise ConfigError(f"{origin} does not fit the model: {'; '.join(faults)}")


def read_as_numbers(signature: Signature, schema: Schema, record_type: str | None) -> Mapping[str, Codes]:
    """The categories whose field in `schema`, which has passed check_fields, holds only numbers or only booleans: by name,
    from the number (a boolean is 0 or 1) to the code."""
    if not any(number_names(each) or boolean_names(each) for each in signature.features):
        return {}
    parsed = _root(_parsed(schema, "the schema"), record_type, "the schema")
    found: dict[str, Codes] = {}
    for feature in signature.features:
        place = _field(feature, parsed) if feature.kind == "category" else ""
        if isinstance(place, str):
            continue
        kinds = {_category_kind(branch) for branch in _branches(place)}
        if kinds == {"number"}:
            found[feature.name] = number_names(feature)
        elif kinds == {"boolean"}:
            found[feature.name] = {int(value): code for value, code in boolean_names(feature).items()}
    return found


def _root(schema: Any, record_type: str | None, origin: str) -> Any:
    """The schema, or of the records that it describes the one that was chosen."""
    if record_type is None:
        return schema
    records = [branch for branch in _branches(schema) if branch.type == "record"]
    for record in records:
        names = {record.fullname, record.name, *(record.get_prop("aliases") or ())}
        if record_type in names:
            return record
    there = ", ".join(record.fullname for record in records) or "no record"
    raise ConfigError(f"input.record_type is {record_type}; {origin} describes {there}")


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
    wanted = _wanted[feature.kind]
    if feature.kind == "text":
        fits = {branch.type for branch in _branches(found)} == {"string"}
    elif feature.kind != "category":
        fits = {_kind(branch) for branch in _branches(found)} == {feature.kind}
    else:
        allowed = {"category"}
        if number_names(feature):
            allowed.add("number")
            wanted += " or a number"
        if boolean_names(feature):
            allowed.add("boolean")
            wanted += " or a boolean"
        kinds = {_category_kind(branch) for branch in _branches(found)}
        fits = bool(kinds) and kinds <= allowed
    return None if fits else f"field {feature.field} is not {wanted}"


def _field(feature: Feature, schema: Any) -> Any:
    """The schema of the feature's field, or why the writer's schema lacks it."""
    place = schema
    walked: list[str] = []
    for part in feature.path:
        records = [branch for branch in _branches(place) if branch.type == "record"]
        if not records:
            return f"{'.'.join(walked) or 'it'} is no record, so field {feature.field} is not in it"
        fields = [field for record in records for field in record.fields]
        found = next((field for field in fields if field.name == part), None)
        if found is None:
            near = difflib.get_close_matches(part, [field.name for field in fields], n=1)
            return f"field {feature.field} is missing" + (f" (there is {near[0]})" if near else "")
        walked.append(part)
        place = found.type
    return place


def _branches(schema: Any) -> Sequence[Any]:
    """What a value may be, null apart."""
    branches = schema.schemas if schema.type == "union" else [schema]
    return [branch for branch in branches if branch.type != "null"]


def _category_kind(schema: Any) -> str | None:
    return "boolean" if schema.type == "boolean" else _kind(schema)


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
