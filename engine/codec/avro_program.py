"""A pair of Avro schemas becomes the program that the native reader runs: resolution is done once, not per record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from engine.codec.features import unseen_code
from engine.codec.framing import Schema
from engine.models.signature import Feature, Signature
from engine.native._avro import Program

items_max: Final = 65_536
"""Items of arrays and maps in one record that take no byte; beyond those, a record has at most one for each byte."""

nodes_max: Final = 20_000
depth_max: Final = 32


class UnsupportedSchemaError(Exception):
    """The native reader does not take this schema (it is recursive, or huge); the reference path does."""


class Kind(IntEnum):
    """Node kinds, in the order of the native enumeration."""

    NULL = 0
    BOOLEAN = 1
    INT = 2
    LONG = 3
    FLOAT = 4
    DOUBLE = 5
    BYTES = 6
    STRING = 7
    FIXED = 8
    ENUM = 9
    ARRAY = 10
    MAP = 11
    UNION = 12
    RECORD = 13
    REFUSE = 14


_primitives: Final = {
    "null": Kind.NULL, "boolean": Kind.BOOLEAN, "int": Kind.INT, "long": Kind.LONG, "float": Kind.FLOAT,
    "double": Kind.DOUBLE, "bytes": Kind.BYTES, "string": Kind.STRING,
}  # fmt: skip
_promotions: Final = {
    "int": {"int", "long", "float", "double"},
    "long": {"long", "float", "double"},
    "float": {"float", "double"},
    "double": {"double"},
    "string": {"string", "bytes"},
    "bytes": {"bytes", "string"},
    "boolean": {"boolean"},
    "null": {"null"},
}
_numbers: Final = frozenset({"boolean", "int", "long", "float", "double"})


@dataclass(slots=True)
class _Node:
    kind: Kind
    column: int = -1
    size: int = 0
    table: int = -1
    children: list[int] = field(default_factory=list)
    defaults: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Target:
    """What of the reader's side is wanted below this place: its path, and the features there."""

    path: str
    features: Mapping[str, tuple[Feature, int]]

    @property
    def feature(self) -> tuple[Feature, int] | None:
        return self.features.get(self.path)

    def member(self, name: str) -> "_Target":
        return _Target(f"{self.path}.{name}" if self.path else name, self.features)


class _Names:
    """The named types of one schema, by full name; each definition remembers the namespace it stands in."""

    def __init__(self, schema: Schema) -> None:
        self._types: dict[str, dict[str, Any]] = {}
        self.root = self._collect(schema, "")

    def _collect(self, schema: Any, space: str) -> Any:
        if isinstance(schema, str):
            full = schema if "." in schema or schema in _primitives or not space else f"{space}.{schema}"
            return {"ref": full} if schema not in _primitives else {"type": schema}
        if isinstance(schema, list):
            return {"type": "union", "branches": [self._collect(branch, space) for branch in schema]}
        kind = schema["type"]
        if isinstance(kind, dict | list):
            return self._collect(kind, space)
        if kind in ("record", "error", "enum", "fixed"):
            return self._named(schema, kind, space)
        if kind == "array":
            return {"type": "array", "items": self._collect(schema["items"], space)}
        if kind == "map":
            return {"type": "map", "values": self._collect(schema["values"], space)}
        return self._collect(kind, space)

    def _named(self, schema: Mapping[str, Any], kind: str, space: str) -> dict[str, Any]:
        name = schema["name"]
        space = name.rpartition(".")[0] if "." in name else schema.get("namespace", space)
        full = name if "." in name or not space else f"{space}.{name}"
        aliases = [a if "." in a or not space else f"{space}.{a}" for a in schema.get("aliases", ())]
        made: dict[str, Any] = {
            "type": "record" if kind == "error" else kind,
            "name": full,
            "aliases": aliases,
        }
        self._types[full] = made
        if kind == "fixed":
            made["size"] = schema["size"]
        elif kind == "enum":
            made |= {"symbols": schema["symbols"], "default": schema.get("default")}
        else:
            made["fields"] = [
                {**each, "type": self._collect(each["type"], space)} for each in schema["fields"]
            ]
        return made

    def resolve(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The definition that a reference names."""
        return self._types[schema["ref"]] if "ref" in schema else schema


def make_program(writer: Schema, reader: Schema, signature: Signature) -> Program:
    """The program that reads the signature's features out of the writer's records, as the reader's schema sees them.

    The schemas are known to resolve. Raises UnsupportedSchemaError.
    """
    compiler = _Compiler(_Names(writer), _Names(reader), signature)
    compiler.build()
    return compiler.program(signature.width)


class _Compiler:
    def __init__(self, writer: _Names, reader: _Names, signature: Signature) -> None:
        self._writer, self._reader = writer, reader
        self._nodes: list[_Node] = []
        self._tables: list[list[bytes]] = []
        self._enums: list[list[float]] = []
        columns = {}
        column = 0
        for feature in signature.features:
            columns[feature.field] = (feature, column)
            column += feature.width
        if len(columns) != len(signature.features):
            raise UnsupportedSchemaError("two features are read from one field")
        self._target = _Target("", columns)
        self._open: list[int] = []  # writer records being compiled: one inside itself is recursive

    def build(self) -> None:
        self._compile(self._writer.root, self._reader.root, self._target, 0)
        if self._nodes[0].kind is not Kind.RECORD:
            raise UnsupportedSchemaError("the schema does not describe a record")

    def program(self, columns: int) -> Program:
        nodes = []
        children: list[int] = []
        defaults: list[tuple[int, float]] = []
        for node in self._nodes:
            nodes.append(
                (int(node.kind), node.column, node.size, node.table, len(children), len(node.children), len(defaults), len(node.defaults))
            )  # fmt: skip
            children += node.children
            defaults += node.defaults
        return Program(nodes, children, defaults, self._tables, self._enums, columns, items_max)

    def _add(self, node: _Node) -> int:
        if len(self._nodes) >= nodes_max:
            raise UnsupportedSchemaError("the schema is too large")
        self._nodes.append(node)
        return len(self._nodes) - 1

    def _compile(self, written: Any, wanted: Any | None, target: _Target, depth: int) -> int:
        """The node for a writer's type; `wanted` is the reader's (None: the reader does not look at it)."""
        if depth > depth_max:
            raise UnsupportedSchemaError("the schema is nested too deep")
        written = self._writer.resolve(written)
        if written["type"] == "union":
            place = self._add(_Node(Kind.UNION))
            for branch in written["branches"]:
                self._nodes[place].children.append(self._compile(branch, wanted, target, depth + 1))
            return place
        if wanted is not None:
            match = self._match(written, self._reader.resolve(wanted))
            if match is None:
                return self._add(_Node(Kind.REFUSE))
            wanted = match
        kind = written["type"]
        if kind == "record":
            return self._record(written, wanted, target, depth)
        if kind in ("array", "map"):
            return self._collection(written, wanted, target, depth)
        if kind == "fixed":
            return self._add(_Node(Kind.FIXED, size=written["size"]))
        if kind == "enum":
            return self._enum(written, wanted, target)
        return self._primitive(kind, wanted, target)

    def _match(self, written: Mapping[str, Any], wanted: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """The reader's branch that a writer's value goes to: the first that it equals, else the first it promotes to."""
        branches = [wanted]
        if wanted["type"] == "union":
            branches = [self._reader.resolve(branch) for branch in wanted["branches"]]
        for exactly in (True, False):
            for branch in branches:
                if self._fits(written, branch, exactly=exactly):
                    return branch
        return None

    def _fits(self, written: Mapping[str, Any], wanted: Mapping[str, Any], *, exactly: bool) -> bool:
        theirs, ours = written["type"], wanted["type"]
        if theirs in _promotions:
            return bool(theirs == ours if exactly else ours in _promotions[theirs])
        if theirs != ours:
            return False
        if theirs in ("array", "map"):
            return True
        if theirs == "fixed" and written["size"] != wanted["size"]:
            return False
        same = written["name"] == wanted["name"] or written["name"] in wanted["aliases"]
        return same or (not exactly and _last(written["name"]) == _last(wanted["name"]))

    def _record(self, written: Mapping[str, Any], wanted: Any | None, target: _Target, depth: int) -> int:
        if id(written) in self._open:
            raise UnsupportedSchemaError(f"{written['name']} contains itself")
        self._open.append(id(written))
        place = self._add(_Node(Kind.RECORD))
        found = set()
        for each in written["fields"]:
            ours = _reader_field(each["name"], wanted)
            if ours is not None:
                found.add(ours["name"])
            inner = target.member(ours["name"]) if ours is not None else target
            child = self._compile(each["type"], ours["type"] if ours is not None else None, inner, depth + 1)
            self._nodes[place].children.append(child)
        for ours in wanted["fields"] if wanted is not None else ():
            if ours["name"] not in found:
                self._nodes[place].defaults += self._defaults(
                    ours["type"], ours.get("default"), target.member(ours["name"])
                )
        self._open.pop()
        return place

    def _defaults(self, wanted: Any, default: Any, target: _Target) -> list[tuple[int, float]]:
        """What the columns below a field hold that the writer does not know; NaN, which they hold anyway, is left out."""
        wanted = self._reader.resolve(wanted)
        if default is None:
            return []
        if target.feature is not None:
            feature, column = target.feature
            if feature.kind == "vector":
                if len(default) != feature.width:
                    raise UnsupportedSchemaError("a default of another length than the vector")
                return [
                    (column + place, float(item)) for place, item in enumerate(default) if item is not None
                ]
            if feature.kind == "category":
                return [(column, _code(feature, str(default)))]
            return [(column, float(default))]
        if wanted["type"] == "union":
            wanted = self._reader.resolve(wanted["branches"][0])
        if wanted["type"] != "record":
            return []
        found = []
        for each in wanted["fields"]:
            inner = default.get(each["name"], each.get("default"))
            found += self._defaults(each["type"], inner, target.member(each["name"]))
        return found

    def _collection(self, written: Mapping[str, Any], wanted: Any | None, target: _Target, depth: int) -> int:
        name = "items" if written["type"] == "array" else "values"
        feature = target.feature if wanted is not None else None
        node = _Node(Kind.ARRAY if name == "items" else Kind.MAP)
        if feature is not None and name == "items":
            node.column, node.size = feature[1], feature[0].width
        place = self._add(node)
        below = _Target("", {})  # nothing inside an array or a map is a feature
        child = self._compile(written[name], wanted[name] if wanted is not None else None, below, depth + 1)
        if node.column >= 0 and self._nodes[child].kind in (Kind.ARRAY, Kind.MAP, Kind.RECORD):
            raise UnsupportedSchemaError("a vector of something else than numbers")
        self._nodes[place].children.append(child)
        return place

    def _enum(self, written: Mapping[str, Any], wanted: Any | None, target: _Target) -> int:
        place = self._add(_Node(Kind.ENUM, table=len(self._enums)))
        codes: list[float] = []
        for symbol in written["symbols"]:
            if wanted is None:
                codes.append(0.0)
                continue
            seen = symbol if symbol in wanted["symbols"] else wanted["default"]
            if seen is None:
                codes.append(float("nan"))
            else:
                codes.append(_code(target.feature[0], seen) if target.feature else 0.0)
        self._enums.append(codes)
        if wanted is not None and target.feature is not None:
            self._nodes[place].column = target.feature[1]
        return place

    def _primitive(self, kind: str, wanted: Any | None, target: _Target) -> int:
        node = _Node(_primitives[kind])
        if wanted is not None and target.feature is not None and kind != "null":
            feature, column = target.feature
            if feature.kind == "category" and kind in ("string", "bytes"):
                node.column, node.table = column, len(self._tables)
                self._tables.append([name.encode() for name in feature.categories])
            elif feature.kind == "number" and kind in _numbers:
                node.column = column
            else:
                raise UnsupportedSchemaError(f"a {feature.kind} is read from {kind}")
        return self._add(node)


def _reader_field(name: str, wanted: Any | None) -> Mapping[str, Any] | None:
    fields: Sequence[Mapping[str, Any]] = wanted["fields"] if wanted is not None else ()
    by_name = next((ours for ours in fields if ours["name"] == name), None)
    return by_name or next((ours for ours in fields if name in ours.get("aliases", ())), None)


def _code(feature: Feature, name: str) -> float:
    return float(feature.categories.index(name)) if name in feature.categories else unseen_code


def _last(name: str) -> str:
    return name.rpartition(".")[2]
