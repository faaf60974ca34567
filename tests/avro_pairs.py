"""Hypothesis strategies: a writer's schema, a reader's that it resolves to, the features of a model, and records to write."""

import io
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import fastavro
from hypothesis import strategies as st

from penstock.engine.features.signature import Feature, ModelInput, Signature

Values = st.SearchStrategy[Any]
Draw = st.DrawFn

categories = ("VISA", "AMEX", "Æ-østlig", "", "ONE-THAT-IS-LONGER-THAN-EIGHT-BYTES")

_texts = st.one_of(st.sampled_from(categories), st.text(max_size=12))
_numbers: dict[str, tuple[Values, list[str]]] = {
    "boolean": (st.booleans(), ["boolean"]),
    "int": (st.integers(-(2**31), 2**31 - 1), ["int", "long", "float", "double"]),
    "long": (st.integers(-(2**63), 2**63 - 1), ["long", "float", "double"]),
    "float": (st.floats(width=32), ["float", "double"]),
    "double": (st.floats(), ["double"]),
}
_instants = {
    "int": ["date", "time-millis"],
    "long": ["timestamp-millis", "timestamp-micros", "time-micros", "local-timestamp-millis"],
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is written with `writer` is read with `reader`; `data` are records to write."""

    writer: Any
    reader: Any
    signature: Signature
    data: list[Any]
    prefix: bytes

    def payloads(self) -> list[bytes]:
        """The records as bytes, each behind the prefix."""
        return [self.prefix + written(self.writer, datum) for datum in self.data]


@dataclass
class _Place:
    """A field: how each side declares it (None: not at all), what is written there, and the features below it."""

    writer: Any
    reader: Any
    values: Values
    features: list[Feature] = field(default_factory=list)
    default: Any = None
    has_default: bool = False


def written(schema: Any, datum: Any) -> bytes:
    """One Avro datum."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), datum)
    return out.getvalue()


def make_signature(features: list[Feature], dtype: str = "float64") -> Signature:
    """The features as one input."""
    width = sum(feature.width for feature in features)
    return Signature(
        features=tuple(features),
        inputs=(ModelInput(name="x", dtype=dtype, start=0, width=width),),  # type: ignore[arg-type]
    )


@st.composite
def cases(draw: Draw) -> Case:
    """Schemas that resolve, as far as the generator knows, and up to a few records."""
    maker = _Maker(draw)
    place = maker.record("", 0)
    if not place.features:
        extra = maker.number("always", nullable=False)
        place.writer["fields"].append({"name": "always", "type": extra.writer})
        place.reader["fields"].append({"name": "always", "type": extra.reader})
        place.features += extra.features
        place.values = st.tuples(place.values, extra.values).map(lambda pair: {**pair[0], "always": pair[1]})
    features = draw(st.permutations(place.features))
    return Case(
        writer=place.writer,
        reader=place.reader,
        signature=make_signature(features, draw(st.sampled_from(["float32", "float64"]))),
        data=draw(st.lists(place.values, max_size=5)),
        prefix=draw(st.sampled_from([b"", b"\x00\x00\x00\x00\x07"])),
    )


class _Maker:
    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._names = 0

    def _name(self) -> str:
        self._names += 1
        return f"T{self._names}"

    def _chance(self) -> bool:
        return bool(self._draw(st.booleans()))

    def record(self, path: str, depth: int) -> _Place:
        """A record on both sides; the reader may know it by another name, and its fields in another order."""
        name = self._name()
        ours: dict[str, Any] = {"type": "record", "name": name, "namespace": "demo"}
        writer: dict[str, Any] = dict(ours)
        if self._chance():
            ours = {**ours, "name": f"{name}New", "aliases": [f"demo.{name}"]}
        theirs_fields, our_fields, values, features = [], [], {}, []
        for number in range(self._draw(st.integers(0, 5))):
            field_name = f"f{number}"
            our_name = f"{field_name}_new" if self._chance() and self._chance() else field_name
            inner = f"{path}.{our_name}" if path else our_name
            place = self._field(inner, depth)
            side = self._draw(st.sampled_from(["both", "both", "both", "writer", "reader"]))
            if place.reader is None or (side == "reader" and not place.has_default):
                side = "both" if place.reader is not None else "writer"
            if side != "reader":
                theirs_fields.append({"name": field_name, "type": place.writer})
                values[field_name] = place.values
            if side != "writer":
                ours_field = {"name": our_name, "type": place.reader}
                if our_name != field_name:
                    ours_field["aliases"] = [field_name]
                if place.has_default:
                    ours_field["default"] = place.default
                our_fields.append(ours_field)
                features += place.features
        writer["fields"] = theirs_fields
        ours["fields"] = self._draw(st.permutations(our_fields))
        return _Place(writer, ours, st.fixed_dictionaries(values), features)

    def _field(self, path: str, depth: int) -> _Place:
        kinds = ["number", "number", "category", "vector", "decimal", "skipped", "skipped"]
        if depth < 2:
            kinds.append("record")
        kind = self._draw(st.sampled_from(kinds))
        if kind == "record":
            return self._maybe_null(self.record(path, depth + 1))
        if kind == "skipped":
            schema, values = self.anything(0)
            return _Place(schema, schema if self._chance() else None, values)
        made: _Place = getattr(self, kind)(path)
        return made

    def number(self, path: str, *, nullable: bool = True) -> _Place:
        """A number, perhaps of a union of several kinds, perhaps promoted, perhaps null."""
        feature = [Feature(name=path, kind="number")]
        if self._chance() and self._chance():
            kinds = self._draw(
                st.lists(st.sampled_from(["int", "float", "boolean"]), min_size=1, unique=True)
            )
            values = st.one_of([_numbers[kind][0] for kind in kinds])
            place = _Place(kinds, self._draw(st.permutations(["double", "boolean"])), values, feature)
        else:
            kind = self._draw(st.sampled_from(sorted(_numbers)))
            values, readers = _numbers[kind]
            writer: Any = kind
            reader: Any = self._draw(st.sampled_from(readers))
            if writer == reader and kind in _instants and self._chance():
                writer = reader = {
                    "type": kind,
                    "logicalType": self._draw(st.sampled_from(_instants[kind])),
                }
            place = _Place(writer, reader, values, feature)
        place.has_default, place.default = self._chance(), self._draw(st.sampled_from([0.5, -3.0]))
        if "boolean" in place.reader or place.reader in ("int", "long") or isinstance(place.reader, dict):
            place.has_default = False
        return self._maybe_null(place) if nullable else place

    def decimal(self, path: str) -> _Place:
        """A decimal number, as bytes or fixed."""
        precision = self._draw(st.integers(1, 27))  # fastavro rounds to 28
        scale = self._draw(st.integers(0, precision))
        logical = {"logicalType": "decimal", "precision": precision, "scale": scale}
        schema: Any = {"type": "bytes", **logical}
        if self._chance():
            schema = {"type": "fixed", "name": self._name(), "namespace": "demo", "size": 16, **logical}
        most = 10**precision - 1
        values = st.integers(-most, most).map(lambda unscaled: Decimal(f"{unscaled}E-{scale}"))
        return self._maybe_null(_Place(schema, schema, values, [Feature(name=path, kind="number")]))

    def category(self, path: str) -> _Place:
        """A string, bytes that are read as one, or an enum whose symbols the reader may not all know."""
        feature = [Feature(name=path, kind="category", categories=categories[:4])]
        kind = self._draw(st.sampled_from(["string", "bytes", "enum"]))
        if kind == "string":
            place = _Place("string", "string", _texts, feature, "AMEX", self._chance())
        elif kind == "bytes":
            place = _Place("bytes", "string", _texts.map(str.encode), feature)
        else:
            symbols = st.lists(st.sampled_from(["VISA", "AMEX", "OTHER", "CASH"]), min_size=1, unique=True)
            theirs, ours = self._draw(symbols), self._draw(symbols)
            name = {"type": "enum", "name": self._name(), "namespace": "demo"}
            reader = {**name, "symbols": ours, "default": ours[0]}
            place = _Place(
                {**name, "symbols": theirs},
                reader,
                st.sampled_from(theirs),
                feature,
                ours[-1],
                self._chance(),
            )
        return self._maybe_null(place)

    def vector(self, path: str) -> _Place:
        """An array of numbers, mostly of the feature's length."""
        width = self._draw(st.integers(1, 4))
        item = self.number(path)
        array = {"type": "array", "items": item.writer}
        values = st.lists(item.values, min_size=width, max_size=width + (1 if self._chance() else 0))
        feature = Feature(name=path, kind="vector", width=width)
        return self._maybe_null(_Place(array, {"type": "array", "items": item.reader}, values, [feature]))

    def _maybe_null(self, place: _Place) -> _Place:
        writer, reader, values = place.writer, place.reader, place.values
        if self._chance():
            return place
        reader = self._with_null(reader, first=place.has_default and place.default is None)
        if self._chance():
            writer = self._with_null(writer, first=False)
            values = st.one_of(st.none(), values)
        default, has_default = place.default, place.has_default
        if reader[0] == "null":
            default = None
            has_default = self._chance()
        elif isinstance(place.reader, list):
            has_default = False  # which branch it is of is the library's guess
        return _Place(writer, reader, values, place.features, default, has_default)

    def _with_null(self, schema: Any, *, first: bool) -> list[Any]:
        branches = schema if isinstance(schema, list) else [schema]
        return ["null", *branches] if first or self._chance() else [*branches, "null"]

    def anything(self, depth: int) -> tuple[Any, Values]:
        """A type that no feature is read from, and what is written as it."""
        kinds = ["number", "string", "bytes", "fixed", "enum"]
        if depth < 3:
            kinds += ["array", "map", "union", "record"]
        kind = self._draw(st.sampled_from(kinds))
        if kind == "number":
            number = self._draw(st.sampled_from(sorted(_numbers)))
            return number, _numbers[number][0]
        if kind == "string":
            return self._draw(st.sampled_from(["string", {"type": "string"}])), st.text(max_size=20)
        if kind == "bytes":
            return "bytes", st.binary(max_size=20)
        if kind == "fixed":
            size = self._draw(st.integers(1, 9))
            return {"type": "fixed", "name": self._name(), "size": size}, st.binary(
                min_size=size, max_size=size
            )
        if kind == "enum":
            return {"type": "enum", "name": self._name(), "symbols": ["A", "B"]}, st.sampled_from("AB")
        inner, values = self.anything(depth + 1)
        if kind == "array":
            return {"type": "array", "items": inner}, st.lists(values, max_size=4)
        if kind == "map":
            return {"type": "map", "values": inner}, st.dictionaries(st.text(max_size=4), values, max_size=3)
        if kind == "union":
            if isinstance(inner, list):
                return inner, values
            return ["null", inner], st.one_of(st.none(), values)
        schema = {
            "type": "record",
            "name": self._name(),
            "fields": [{"name": "g", "type": inner}, {"name": "n", "type": "null"}],
        }
        return schema, values.map(lambda value: {"g": value, "n": None})
