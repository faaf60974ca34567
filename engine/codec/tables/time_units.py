"""The units of the dates and times that a model takes, as the schema of its records says them: no table converts any."""

from collections.abc import Sequence
from typing import Any, Final

from penstock.engine.codec.avro.types import AvroType, UnsupportedSchemaError, parse
from penstock.engine.features.signature import Signature
from penstock.schemas.errors import ConfigError

_units: Final = {"date": "D", "millis": "ms", "micros": "us", "nanos": "ns"}
_words: Final = {"D": "days", "s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


def units_of(signature: Signature, schema: dict[str, Any] | None) -> dict[str, str]:
    """By feature the unit of its field, as numpy writes it, of those that the schema has as a date or a time."""
    if schema is None:
        return {}
    try:
        root = parse(schema)
    except UnsupportedSchemaError:  # recursive, or huge: it may say no units
        return {}
    found = {}
    for feature in signature.features:
        units = {_units[each.instant.rpartition("-")[2]] for each in _at(root, feature.path) if each.instant}
        if len(units) == 1:
            (found[feature.name],) = units
    return found


def require_unit(column: str, unit: str | None, wanted: str | None) -> None:
    """Raises ConfigError where a column holds times in another unit than the stream's records."""
    if unit is not None and wanted is not None and unit != wanted:
        has, wants = _words.get(unit, unit), _words[wanted]
        raise ConfigError(
            f"column {column} holds times in {has}, and the schema of the model's records has them in {wants}: give it in {wants}"
        )


def _at(place: AvroType, path: Sequence[str]) -> list[AvroType]:
    """What a value at the end of the path may be."""
    found = _branches(place)
    for name in path:
        records = [each for each in found if each.kind == "record"]
        found = [
            each
            for record in records
            for field in record.fields
            if field.name == name
            for each in _branches(field.type)
        ]
    return found


def _branches(place: AvroType) -> list[AvroType]:
    return place.inner if place.kind == "union" else [place]
