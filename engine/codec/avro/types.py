"""An Avro schema as a graph of types: names looked up, aliases in full, logical types only where they are valid."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.engine.codec.framing import Schema

depth_max: Final = 64
"""Of the schema's JSON."""

fixed_bytes_max: Final = 1 << 30

primitives: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
named: Final = frozenset({"record", "enum", "fixed"})

_instants: Final = {
    "int": {"date", "time-millis"},
    "long": {
        "time-micros", "timestamp-millis", "timestamp-micros", "timestamp-nanos", "local-timestamp-millis",
        "local-timestamp-micros", "local-timestamp-nanos",
    },
}  # fmt: skip

absent: Final = object()
"""The default of a field that has none."""


class UnsupportedSchemaError(Exception):
    """The native reader does not take this schema (it is recursive, or huge, or none at all); the reference path may."""


@dataclass(slots=True, eq=False)
class AvroField:
    """A field of a record."""

    name: str
    type: "AvroType"
    aliases: tuple[str, ...] = ()
    default: Any = absent


@dataclass(slots=True, eq=False)
class AvroType:
    """A type; two places of a schema that name the same type share it, so the graph of a recursive schema has cycles."""

    kind: str
    """Avro's word: a primitive, record, enum, fixed, array, map, or `union`."""
    name: str = ""
    """Full name of a record, enum or fixed."""
    aliases: tuple[str, ...] = ()
    """Each in full, and as it was given."""
    fields: list[AvroField] = field(default_factory=list)
    symbols: tuple[str, ...] = ()
    default: str | None = None
    """What an enum reads symbols as that it does not know."""
    size: int = 0
    """Bytes of a fixed."""
    inner: list["AvroType"] = field(default_factory=list)
    """Branches of a union; the items of an array, the values of a map."""
    instant: str | None = None
    """Logical type of a date or time: it says the unit of the number."""
    decimal: tuple[int, int] | None = None
    """Precision and scale of bytes or a fixed that is a decimal number."""


def parse(schema: Schema) -> AvroType:
    """The type that a schema describes. Raises UnsupportedSchemaError."""
    return _Parser().parse(schema, "", 0)


def unqualified(name: str) -> str:
    """The last part of a full name."""
    return name.rpartition(".")[2]


class _Parser:
    def __init__(self) -> None:
        self._known: dict[str, AvroType] = {}

    def parse(self, schema: Any, space: str, depth: int) -> AvroType:
        """`space` is the namespace that stands around."""
        if depth > depth_max:
            raise UnsupportedSchemaError("the schema is nested too deep")
        if isinstance(schema, str):
            return AvroType(schema) if schema in primitives else self._reference(schema, space)
        if isinstance(schema, list):
            return AvroType("union", inner=[self.parse(branch, space, depth + 1) for branch in schema])
        if not isinstance(schema, Mapping):
            raise UnsupportedSchemaError("the schema has something in it that is no type")
        kind = schema.get("type")
        if kind in ("record", "error", "enum", "fixed"):
            return self._define(schema, space, depth)
        if kind in ("array", "map"):
            inner = schema.get("items" if kind == "array" else "values")
            return AvroType(kind, inner=[self.parse(inner, space, depth + 1)])
        made = self.parse(kind, space, depth + 1)
        if made.kind in primitives:
            _add_logical(made, schema)
        return made

    def _reference(self, name: str, space: str) -> AvroType:
        full = _full(name, space)
        found = self._known.get(full, self._known.get(name))
        if found is None:
            raise UnsupportedSchemaError("the schema names a type that it does not define")
        return found

    def _define(self, schema: Mapping[str, Any], space: str, depth: int) -> AvroType:
        kind = "record" if schema["type"] == "error" else schema["type"]
        name = _text(schema.get("name"))
        if "." not in name and "namespace" in schema:
            space = _text(schema["namespace"])
        full = _full(name, space)
        space = full.rpartition(".")[0]
        given = _texts(schema.get("aliases", []))
        aliases = tuple(dict.fromkeys((*(_full(alias, space) for alias in given), *given)))
        made = AvroType(kind, name=full, aliases=aliases)
        self._known[full] = made
        if kind == "fixed":
            made.size = schema.get("size", -1)
            if type(made.size) is not int or not 0 <= made.size <= fixed_bytes_max:
                raise UnsupportedSchemaError(f"{full} has a size that is not read")
            _add_logical(made, schema)
        elif kind == "enum":
            made.symbols = _texts(schema.get("symbols"))
            made.default = schema.get("default")
            if made.default not in (None, *made.symbols):
                raise UnsupportedSchemaError(f"{full} has a default that is none of its symbols")
        else:
            made.fields = self._fields(schema.get("fields"), space, depth)
        return made

    def _fields(self, fields: Any, space: str, depth: int) -> list[AvroField]:
        if not isinstance(fields, list) or not all(isinstance(each, Mapping) for each in fields):
            raise UnsupportedSchemaError("a record of the schema has no list of fields")
        return [
            AvroField(
                name=_text(each.get("name")),
                type=self.parse(each.get("type"), space, depth + 1),
                aliases=_texts(each.get("aliases", [])),
                default=each.get("default", absent),
            )
            for each in fields
        ]


def _add_logical(made: AvroType, schema: Mapping[str, Any]) -> None:
    logical: Any = schema.get("logicalType")
    if not isinstance(logical, str):
        return
    if logical in _instants.get(made.kind, ()):
        made.instant = logical
    elif logical == "decimal" and made.kind in ("bytes", "fixed"):
        precision, scale = schema.get("precision"), schema.get("scale", 0)
        if type(precision) is int and type(scale) is int and 0 <= scale <= precision and precision >= 1:
            made.decimal = (precision, scale)


def _full(name: str, space: str) -> str:
    return name if "." in name or not space else f"{space}.{name}"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UnsupportedSchemaError("the schema lacks a name")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UnsupportedSchemaError("the schema lacks a list of names")
    return tuple(value)
