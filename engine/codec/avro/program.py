"""A pair of Avro schemas becomes the program that the native reader runs: resolution is done once, not per record."""

from collections import deque
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from penstock.engine.codec.avro.defaults import Target, code_of, default_columns
from penstock.engine.codec.avro.resolution import (
    branch_for,
    branches,
    described,
    is_of_type,
    mismatch,
    reader_fields,
    symbol_reason,
    unfilled_field,
    unfilled_reason,
    units_reason,
)
from penstock.engine.codec.avro.types import AvroType, UnsupportedSchemaError, parse
from penstock.engine.codec.framing import Schema
from penstock.engine.features.policies import unseen_code
from penstock.engine.features.signature import Feature, Signature
from penstock.engine.native._avro import Program
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage

__all__ = ["NativeProgram", "UnsupportedSchemaError", "make_program"]

items_max: Final = 65_536
"""Items of arrays and maps in one record that take no byte; beyond those, a record has at most one for each byte."""

nodes_max: Final = 20_000
depth_max: Final = 32
precision_max: Final = 38
"""Digits of a decimal that the native reader takes."""


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
    DECIMAL = 15
    FIXED_DECIMAL = 16
    SKIP = 17


_primitives: Final = {
    "null": Kind.NULL, "boolean": Kind.BOOLEAN, "int": Kind.INT, "long": Kind.LONG, "float": Kind.FLOAT,
    "double": Kind.DOUBLE, "bytes": Kind.BYTES, "string": Kind.STRING,
}  # fmt: skip
_numbers: Final = frozenset({Kind.BOOLEAN, Kind.INT, Kind.LONG, Kind.FLOAT, Kind.DOUBLE})
_item_kinds: Final = _numbers | {Kind.NULL, Kind.REFUSE, Kind.DECIMAL, Kind.FIXED_DECIMAL}
_widths: Final = {Kind.FLOAT: 4, Kind.DOUBLE: 8}


@dataclass(frozen=True, kw_only=True, slots=True)
class NativeProgram:
    """The program; which of the writer's fields each of its nodes reads, as a person would call it; and, where a value
    there may not resolve to the reader's schema, why."""

    native: Program
    places: tuple[str, ...]
    reasons: tuple[str, ...]


@dataclass(slots=True, eq=False)
class _Node:
    kind: Kind
    place: str
    reason: str = ""  # why a value here does not resolve
    column: int = -1
    size: int = 1  # float, double: how many in a row; fixed: bytes; array into columns: how many items
    table: int = -1
    children: list["_Node"] = field(default_factory=list)
    defaults: list[tuple[int, float]] = field(default_factory=list)

    @property
    def is_nothing(self) -> bool:
        """Whether it takes no bytes and does nothing."""
        if self.kind is Kind.RECORD:
            return not self.children and not self.defaults
        return self.kind is Kind.NULL or (self.kind is Kind.FIXED and self.size == 0)


def make_program(
    writer: Schema, reader: Schema, signature: Signature, *, record_type: str | None = None
) -> NativeProgram:
    """The program that reads the signature's features out of the writer's records, as the reader's schema sees them.

    Each feature is known to have a field in the reader's schema. What does not resolve is refused record by record; with
    `record_type` records of every other type are skipped. Raises UnsupportedSchemaError, and RecordError
    (INCOMPATIBLE_SCHEMA) where no record of the writer's can be read.
    """
    features: dict[str, Any] = {}
    column = 0
    for feature in signature.features:
        features[".".join(feature.path)] = (feature, column)
        column += native_width(feature)
    if len(features) != len(signature.features):
        raise UnsupportedSchemaError("two features are read from one field")
    written, wanted = parse(writer), parse(reader)
    compiler = _Compiler()
    target = Target("", features)
    roots = [
        compiler.root(branch, wanted, target, record_type, depth=int(written.kind == "union"))
        for branch in branches(written)
    ]
    if all(root.kind is Kind.REFUSE for root in roots):
        raise incompatible(
            "; ".join(dict.fromkeys(root.reason for root in roots)) or "there is no type in it"
        )
    root = _Node(Kind.UNION, "", children=roots) if written.kind == "union" else roots[0]
    return compiler.program(root, column)


def native_width(feature: Feature) -> int:
    """Columns that the native reader fills of a feature: of a text one, which says where the text stands."""
    return 1 if feature.kind == "text" else feature.width


def incompatible(reason: str) -> RecordError:
    """The fault of every record of a writer's schema that the reader's has no place for."""
    detail = f"the writer's schema does not resolve to the reader's: {reason}"
    return RecordError(stage=Stage.DECODE, reason=Reason.INCOMPATIBLE_SCHEMA, detail=detail)


class _Compiler:
    def __init__(self) -> None:
        self._count = 0
        self._tables: list[list[bytes]] = []
        self._enums: list[list[float]] = []
        self._decimals: list[tuple[int, int]] = []
        self._open: list[AvroType] = []  # writer records being compiled: one inside itself is recursive

    def program(self, root: _Node, columns: int) -> NativeProgram:
        """Nodes in order of breadth: the children of each stand side by side."""
        nodes: list[tuple[int, int, int, int, int, int, int, int]] = []
        places: list[str] = []
        reasons: list[str] = []
        defaults: list[tuple[int, float]] = []
        queue = deque([root])
        numbered = 1
        while queue:
            node = queue.popleft()
            nodes.append(
                (int(node.kind), node.column, node.size, node.table, numbered, len(node.children), len(defaults), len(node.defaults))
            )  # fmt: skip
            places.append(node.place)
            reasons.append(node.reason)
            defaults += node.defaults
            numbered += len(node.children)
            queue.extend(node.children)
        native = Program(
            nodes, defaults, self._tables, self._enums, self._decimals, columns, items_max, unseen_code
        )
        return NativeProgram(native=native, places=tuple(places), reasons=tuple(reasons))

    def root(
        self, written: AvroType, wanted: AvroType, target: Target, record_type: str | None, *, depth: int
    ) -> _Node:
        """The node for one type that a whole record may be of."""
        if record_type is not None and not is_of_type(written, wanted, record_type):
            return _Node(Kind.SKIP, "")
        if written.kind != "record":
            return _Node(Kind.REFUSE, "", f"{described(written)} is written, which is no record")
        return self.compile(written, wanted, target, "", depth)

    def compile(
        self, written: AvroType, wanted: AvroType | None, target: Target, place: str, depth: int
    ) -> _Node:
        """The node for a writer's type; `wanted` is the reader's (None: the reader does not look at it)."""
        self._count += 1
        if depth > depth_max or self._count > nodes_max:
            raise UnsupportedSchemaError("the schema is too large, or nested too deep")
        if written.kind == "union":
            children = [self.compile(branch, wanted, target, place, depth + 1) for branch in written.inner]
            return _Node(Kind.UNION, place, children=children)
        if wanted is not None:
            ours = branch_for(written, wanted)
            if ours is None:
                return _Node(Kind.REFUSE, place, mismatch(written, wanted))
            wanted = ours
        if wanted is None:
            target = target.nothing()
        if written.kind == "record":
            return self._record(written, wanted, target, place, depth)
        if written.kind in ("array", "map"):
            return self._collection(written, wanted, target, place, depth)
        if written.kind == "enum":
            return self._enum(written, wanted, target, place)
        return self._plain(written, wanted, target, place)

    def _record(
        self, written: AvroType, wanted: AvroType | None, target: Target, place: str, depth: int
    ) -> _Node:
        if written in self._open:
            raise UnsupportedSchemaError(f"{written.name} contains itself")
        if target.feature is not None:
            raise _unreadable(target, "a record")
        unfilled = unfilled_field(written, wanted) if wanted is not None else None
        if unfilled is not None:
            return _Node(Kind.REFUSE, place, unfilled_reason(written, unfilled))
        self._open.append(written)
        node = _Node(Kind.RECORD, place)
        found = reader_fields(written, wanted)
        for each in written.fields:
            ours = found.get(each.name)
            inner = target.member(ours.name) if ours is not None else target.nothing()
            where = f"{place}.{each.name}" if place else each.name
            child = self.compile(each.type, ours.type if ours is not None else None, inner, where, depth + 1)
            _append(node.children, child)
        known = {ours.name for ours in found.values()}
        for ours in wanted.fields if wanted is not None else ():
            if ours.name not in known:
                node.defaults += default_columns(ours.type, ours.default, target.member(ours.name))
        self._open.pop()
        return node

    def _collection(
        self, written: AvroType, wanted: AvroType | None, target: Target, place: str, depth: int
    ) -> _Node:
        kind = Kind.ARRAY if written.kind == "array" else Kind.MAP
        node = _Node(kind, place)
        items = wanted.inner[0] if wanted is not None else None
        feature = target.feature
        if feature is None:
            node.children.append(self.compile(written.inner[0], items, target.nothing(), place, depth + 1))
            return node
        if kind is Kind.MAP or feature.kind != "vector":
            raise _unreadable(target, written.kind)
        node.column, node.size = target.column, feature.width
        item = self.compile(written.inner[0], items, target.item(), place, depth + 1)
        if not {each.kind for each in (item.children if item.kind is Kind.UNION else [item])} <= _item_kinds:
            raise _unreadable(target, "an array of something else than numbers")
        node.children.append(item)
        return node

    def _enum(self, written: AvroType, wanted: AvroType | None, target: Target, place: str) -> _Node:
        feature = target.feature
        if feature is not None and feature.kind != "category":
            raise _unreadable(target, "an enum")
        known = frozenset(wanted.symbols) if wanted is not None else frozenset(written.symbols)
        code = code_of(feature) if feature is not None else lambda _: 0.0
        codes: list[float] = []
        for symbol in written.symbols:
            seen = symbol if symbol in known or wanted is None else wanted.default
            codes.append(float("nan") if seen is None else code(seen))
        self._enums.append(codes)
        return _Node(
            Kind.ENUM, place, symbol_reason(written), column=target.column, table=len(self._enums) - 1
        )

    def _plain(self, written: AvroType, wanted: AvroType | None, target: Target, place: str) -> _Node:
        kind = Kind.FIXED if written.kind == "fixed" else _primitives[written.kind]
        node = _Node(kind, place, size=written.size if kind is Kind.FIXED else 1)
        feature = target.feature
        if feature is None or wanted is None:
            return node
        node.column = target.column
        if kind is Kind.NULL:
            return node
        if feature.kind == "category" and kind in (Kind.STRING, Kind.BYTES):
            node.table = len(self._tables)
            self._tables.append([name.encode() for name in feature.categories])
        elif feature.kind == "text" and kind is Kind.STRING:
            pass  # without a table: where it stands
        elif feature.kind == "number" and kind in _numbers:
            units = units_reason(written, wanted)
            if units is not None:
                return _Node(Kind.REFUSE, place, units)
        elif feature.kind == "number" and written.decimal is not None and written.decimal[0] <= precision_max:
            node.kind = Kind.DECIMAL if kind is Kind.BYTES else Kind.FIXED_DECIMAL
            node.table = len(self._decimals)
            self._decimals.append(written.decimal)
        else:
            raise _unreadable(target, written.kind)
        return node


def _append(nodes: list[_Node], node: _Node) -> None:
    """Add a field's node to its record: one that does nothing is left out, one that goes on where the last ends joins it."""
    if node.is_nothing:
        return
    if node.column < 0 and node.kind in _widths:
        node = _Node(Kind.FIXED, node.place, size=_widths[node.kind])
    last = nodes[-1] if nodes else node
    skipped = node.kind is Kind.FIXED and last.size + node.size < 1 << 30
    counted = node.kind in _widths and last.column + last.size == node.column
    if last is not node and last.kind is node.kind and (skipped or counted):
        last.size += node.size
        last.place = f"{last.place.partition(' to ')[0]} to {node.place}"
    else:
        nodes.append(node)


def _unreadable(target: Target, kind: str) -> UnsupportedSchemaError:
    feature = target.feature
    return UnsupportedSchemaError(f"a {feature.kind if feature else 'nothing'} is not read from {kind}")
