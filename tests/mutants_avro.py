"""Avro records of drawn schemas, written as the pieces that they are made of, and changed piece by piece."""

import random
import struct
from typing import Any, Final

from penstock.engine.features.signature import Feature

Pieces = list[tuple[str, bytes]]
"""What an Avro record is made of: what a piece is, and its bytes."""


def varint(number: int) -> bytes:
    """Avro's zigzag encoding; numbers past 64 bits as they would go on."""
    bits = number << 1 if number >= 0 else (-number << 1) - 1
    out = bytearray()
    while bits > 0x7F:
        out.append(bits & 0x7F | 0x80)
        bits >>= 7
    return bytes([*out, bits])


class Drawn:
    """One drawn schema: the features in it, and records of it in pieces."""

    def __init__(self, chance: random.Random, *, recursive: bool) -> None:
        self._chance = chance
        self._names = 0
        self.features: list[Feature] = []
        self.schema = self._record("", 0)
        if recursive:
            own = ["null", self.schema["name"]]
            self.schema["fields"].insert(0, {"name": "again", "type": own})
        self.schema["fields"].append(
            {"name": "x", "type": "double"}
        )  # or a whole record could hold no feature
        self.features.append(Feature(name="x", kind="number"))
        self._own_name = self.schema["name"]

    def _name(self) -> str:
        self._names += 1
        return f"N{self._names}"

    def _record(self, path: str, depth: int) -> dict[str, Any]:
        fields = []
        for number in range(self._chance.randrange(1, 6)):
            name = f"f{number}"
            fields.append({"name": name, "type": self._field(f"{path}.{name}" if path else name, depth)})
        return {"type": "record", "name": self._name(), "fields": fields}

    def _field(self, path: str, depth: int) -> Any:
        kind = self._chance.choice(
            ["number", "number", "text", "vector", "record", "decimal", "other", "other"]
        )
        if kind == "record" and depth < 3:
            made: Any = self._record(path, depth + 1)
        elif kind == "number":
            made = self._chance.choice(["int", "long", "float", "double", "boolean"])
            self.features.append(Feature(name=path, kind="number"))
        elif kind == "text":
            made = self._chance.choice(["string", self._enum()])
            self.features.append(Feature(name=path, kind="category", categories=("A", "B", "ü")))
        elif kind == "vector":
            width = self._chance.randrange(1, 5)
            made = {
                "type": "array",
                "items": self._chance.choice(["double", "float", "int", ["null", "long"]]),
            }
            self.features.append(Feature(name=path, kind="vector", width=width))
        elif kind == "decimal":
            made = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 3}
            self.features.append(Feature(name=path, kind="number"))
        else:
            return self._other(0)
        return ["null", made] if self._chance.random() < 0.4 else made

    def _enum(self) -> Any:
        return {"type": "enum", "name": self._name(), "symbols": ["A", "B", "C"]}

    def _other(self, depth: int) -> Any:
        kinds = ["string", "bytes", "long", "double", "fixed", "enum"]
        kind = self._chance.choice(kinds if depth > 2 else [*kinds, "array", "map", "union", "record"])
        if kind == "fixed":
            return {"type": "fixed", "name": self._name(), "size": self._chance.randrange(1, 20)}
        if kind == "enum":
            return self._enum()
        if kind == "array":
            return {"type": "array", "items": self._other(depth + 1)}
        if kind == "map":
            return {"type": "map", "values": self._other(depth + 1)}
        if kind == "union":
            return ["null", "string", {"type": "array", "items": self._other(depth + 2)}]
        if kind == "record":
            return {
                "type": "record",
                "name": self._name(),
                "fields": [{"name": "g", "type": self._other(depth + 1)}],
            }
        return kind

    def pieces(self) -> Pieces:
        """A record that is whole."""
        out: Pieces = []
        self._write(self.schema, "", out, 0)
        return out

    def _write(self, schema: Any, path: str, out: Pieces, depth: int) -> None:
        chance = self._chance
        if isinstance(schema, list):
            branch = 0 if depth > 6 else chance.randrange(len(schema))
            out.append(("branch", varint(branch)))
            self._write(schema[branch], path, out, depth + 1)
            return
        kind = schema if isinstance(schema, str) else schema["type"]
        if kind == self._own_name_of():
            kind, schema = "record", self.schema
        if kind == "record":
            for field in schema["fields"]:
                self._write(
                    field["type"], f"{path}.{field['name']}" if path else field["name"], out, depth + 1
                )
        elif kind in ("array", "map"):
            self._items(schema, path, out, depth)
        elif kind == "boolean":
            out.append(("boolean", bytes([chance.randrange(2)])))
        elif kind in ("int", "long"):
            out.append(("number", varint(chance.choice([0, -1, 7, 2**31 - 1, -(2**31)]))))
        elif kind == "float":
            out.append(("float", struct.pack("<f", chance.uniform(-9, 9))))
        elif kind == "double":
            out.append(("float", struct.pack("<d", chance.uniform(-9, 9))))
        elif kind == "enum":
            out.append(("symbol", varint(chance.randrange(3))))
        elif kind == "fixed":
            out.append(("fixed", chance.randbytes(schema["size"])))
        elif kind == "bytes":
            self._text(chance.choice([b"\0", b"\x05", b"\xff\x85", b"\1\2\3"]), out)
        elif kind == "string":
            self._text(chance.choice(["A", "B", "ü", "", "longer than that"]).encode(), out)

    def _own_name_of(self) -> str:
        return str(self.schema["name"])

    def _text(self, text: bytes, out: Pieces) -> None:
        out.append(("length", varint(len(text))))
        out.append(("text", text))

    def _items(self, schema: Any, path: str, out: Pieces, depth: int) -> None:
        width = next((f.width for f in self.features if f.field == path and f.kind == "vector"), None)
        count = self._chance.randrange(3) if width is None else width
        if count and schema["type"] == "array" and self._chance.random() < 0.2:
            inner: Pieces = []
            for _ in range(count):
                self._write(schema["items"], "", inner, depth + 1)
            out.append(("count", varint(-count)))
            out.append(("length", varint(sum(len(piece) for _, piece in inner))))
            out += inner
        elif count:
            out.append(("count", varint(count)))
            for _ in range(count):
                if schema["type"] == "map":
                    self._text(b"key", out)
                self._write(schema.get("items", schema.get("values")), "", out, depth + 1)
        out.append(("count", varint(0)))


_odd_numbers: Final = [
    -1,
    1,
    2,
    3,
    64,
    255,
    1 << 16,
    1 << 31,
    (1 << 31) - 1,
    1 << 40,
    (1 << 63) - 1,
    -(1 << 63),
    1 << 70,
]
_odd_texts: Final = [b"", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\0" * 30, b"A" * 5000]
_odd_floats: Final = [struct.pack("<d", each) for each in (float("nan"), float("inf"), 1e308, 5e-324)]


def mutate(chance: random.Random, pieces: Pieces, others: list[Pieces]) -> bytes:
    """A record with one to four pieces changed for what they are, moved, doubled, taken out or put in from another."""
    changed = [*pieces]
    for _ in range(chance.choice((1, 1, 2, 4))):
        if not changed:
            break
        at = chance.randrange(len(changed))
        kind, piece = changed[at]
        way = chance.randrange(8)
        if way < 4:
            changed[at] = (kind, _changed(chance, kind, piece))
        elif way == 4:
            del changed[at]
        elif way == 5:
            changed.insert(at, changed[chance.randrange(len(changed))])
        elif way == 6:
            other = chance.choice(others)
            changed[at : at + chance.randrange(1, 4)] = other[chance.randrange(len(other)) :][:3]
        else:
            del changed[at + 1 :]
    whole = b"".join(piece for _, piece in changed)
    if chance.random() < 0.2:
        whole = broken(chance, whole)
    return whole


def _changed(chance: random.Random, kind: str, piece: bytes) -> bytes:
    if kind in ("length", "branch", "count", "symbol", "number"):
        way = chance.randrange(4)
        if way == 0:
            return varint(chance.choice(_odd_numbers))
        if way == 1:
            return b"\x80" * chance.randrange(1, 14) + chance.choice([b"", b"\0", b"\x01"])
        return varint(chance.randrange(-4, 12))
    if kind == "boolean":
        return bytes([chance.randrange(256)])
    if kind == "text":
        return chance.choice(_odd_texts)
    return chance.choice([*_odd_floats, piece[:-1], piece + b"\0", chance.randbytes(len(piece))])


def broken(chance: random.Random, whole: bytes) -> bytes:
    """The bytes cut, or with some put in or taken out."""
    at = chance.randrange(len(whole) + 1)
    return chance.choice(
        [
            whole[:at],
            whole[:at] + chance.randbytes(3) + whole[at:],
            whole[:at] + whole[at + 1 :],
            whole + b"\0",
        ]
    )
