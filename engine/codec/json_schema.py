"""The contracts as JSON Schema (2020-12), derived from the Avro schemas: the same names and meanings."""

from typing import Any, Final

_integers: Final = {"int": (-(1 << 31), (1 << 31) - 1), "long": (-(1 << 63), (1 << 63) - 1)}
_not_finite: Final = ["NaN", "Infinity", "-Infinity"]
left_out: Final = frozenset({"Attribution.value"})
"""Fields that only the Avro form has: one of two types at once."""


def json_schema(contract: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of the messages of a contract."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": contract["name"],
        **_of(contract),
    }


def _of(schema: Any) -> dict[str, Any]:
    if isinstance(schema, list):
        branches = [_of(branch) for branch in schema if branch != "null"]
        return {"anyOf": [*branches, {"type": "null"}]} if "null" in schema else {"anyOf": branches}
    if isinstance(schema, str):
        schema = {"type": schema}
    match schema:
        case {"logicalType": "timestamp-millis"}:
            return {"type": "string", "format": "date-time"}
        case {"type": "record", "name": name, "fields": fields}:
            kept = [field for field in fields if f"{name}.{field['name']}" not in left_out]
            found = {field["name"]: _described(field) for field in kept}
            described = {"description": schema["doc"]} if "doc" in schema else {}
            return {"type": "object", **described, "properties": found, "required": list(found)}
        case {"type": "array", "items": items}:
            return {"type": "array", "items": _of(items)}
        case {"type": "map", "values": values}:
            return {"type": "object", "additionalProperties": _of(values)}
        case {"type": "enum", "symbols": symbols}:
            return {"enum": symbols}
        case {"type": "bytes"}:
            return {"type": "string", "contentEncoding": "base64"}
        case {"type": "double"}:
            return {"anyOf": [{"type": "number"}, {"enum": _not_finite}]}
        case {"type": "int" | "long" as kind}:
            lowest, highest = _integers[kind]
            return {"type": "integer", "minimum": lowest, "maximum": highest}
        case _:
            return {"type": schema["type"]}


def _described(field: dict[str, Any]) -> dict[str, Any]:
    found = _of(field["type"])
    return {"description": field["doc"], **found} if "doc" in field else found
