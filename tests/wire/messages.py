"""Kafka's messages by the descriptions that lie in the broker's own jar: any request or answer, in any version, as a tree."""

import json
import re
import struct
import uuid
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from penstock.connectors.embedded.jars import kafka_jars

Tree = dict[str, Any]
Side = Literal["Request", "Response"]

apis: Mapping[int, str] = {
    0: "Produce", 1: "Fetch", 2: "ListOffsets", 3: "Metadata", 8: "OffsetCommit", 9: "OffsetFetch", 10: "FindCoordinator",
    11: "JoinGroup", 12: "Heartbeat", 13: "LeaveGroup", 14: "SyncGroup", 18: "ApiVersions", 22: "InitProducerId",
    23: "OffsetForLeaderEpoch", 24: "AddPartitionsToTxn", 25: "AddOffsetsToTxn", 26: "EndTxn", 28: "TxnOffsetCommit",
    60: "DescribeCluster", 68: "ConsumerGroupHeartbeat",
}  # fmt: skip
"""Those that the tests look into; others pass by their number."""

_tags = "tags"  # a tree's fields that its description does not know, by number
_numbers = {
    "int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d", "bool": ">?",
}  # fmt: skip
_whole_line_comment = re.compile(r"^\s*//.*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class _Versions:
    first: int
    last: int

    @staticmethod
    def of(text: str | None) -> "_Versions":
        if not text or text == "none":
            return _Versions(first=1, last=0)
        first, dash, last = text.rstrip("+").partition("-")
        return _Versions(
            first=int(first), last=int(last) if dash else 1 << 15 if text.endswith("+") else int(first)
        )

    def __contains__(self, version: int) -> bool:
        return self.first <= version <= self.last


@dataclass(frozen=True, kw_only=True)
class _Field:
    name: str
    kind: str  # the type, of an array that of an element
    array: bool
    versions: _Versions
    nullable: _Versions
    tagged: _Versions
    tag: int
    default: Any
    fields: tuple["_Field", ...]

    def empty(self, version: int) -> Any:
        """What stands there when nobody says anything."""
        if self.default == "null":
            return None
        if self.array:
            return []
        if self.kind in ("string", "bytes", "records"):
            return (
                self.default or ("" if self.kind == "string" else b"")
                if self.kind != "records"
                else (None if version in self.nullable else b"")
            )
        if self.kind == "uuid":
            return uuid.UUID(int=0)
        if self.kind == "bool":
            return str(self.default).lower() == "true"
        if self.kind in _numbers:
            return int(str(self.default or 0), 0)
        return {}


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message type: reads and writes trees of it."""

    name: str
    versions: _Versions
    flexible: _Versions
    fields: tuple[_Field, ...] = field(repr=False)

    def read(self, data: bytes, start: int, version: int) -> Tree:
        """The tree that stands at `start`, which must reach to the end of the data."""
        reader = _Reader(data, start, version, version in self.flexible)
        tree = reader.structure(self.fields)
        if reader.at != len(data):
            raise ValueError(f"{self.name} {version}: {len(data) - reader.at} bytes are left over")
        return tree

    def write(self, tree: Tree, version: int) -> bytes:
        """The bytes of a tree; what it does not name has its default."""
        writer = _Writer(version, version in self.flexible)
        writer.structure(self.fields, tree)
        return bytes(writer.data)


@cache
def message(api: int, side: Side) -> Message:
    """The description of an API's requests or answers."""
    return _message(f"{apis[api]}{side}")


@cache
def _message(name: str) -> Message:
    jar = next(Path(kafka_jars(print)).glob("kafka-clients-*.jar"))
    with zipfile.ZipFile(jar) as files:
        text = files.read(f"common/message/{name}.json").decode()
    told = json.loads(_whole_line_comment.sub("", text))
    common = {each["name"]: each["fields"] for each in told.get("commonStructs", ())}
    return Message(
        name=name,
        versions=_Versions.of(told["validVersions"]),
        flexible=_Versions.of(told["flexibleVersions"]),
        fields=_fields(told["fields"], common),
    )


def _fields(told: list[dict[str, Any]], common: Mapping[str, Any]) -> tuple[_Field, ...]:
    return tuple(
        _Field(
            name=each["name"],
            kind=each["type"].removeprefix("[]"),
            array=each["type"].startswith("[]"),
            versions=_Versions.of(each["versions"]),
            nullable=_Versions.of(each.get("nullableVersions")),
            tagged=_Versions.of(each.get("taggedVersions")),
            tag=each.get("tag", -1),
            default=each.get("default"),
            fields=_fields(each.get("fields") or common.get(each["type"].removeprefix("[]"), []), common),
        )
        for each in told
    )


@dataclass(frozen=True, kw_only=True)
class RequestHead:
    """What stands before every request's body, and where that body begins."""

    api: int
    version: int
    correlation: int
    client_id: str
    body: int

    @property
    def name(self) -> str:
        return apis.get(self.api, f"api {self.api}")

    @staticmethod
    def of(frame: bytes) -> "RequestHead":
        """Of a request without its length."""
        api, version, correlation, length = struct.unpack_from(">hhih", frame)
        client_id = frame[10 : 10 + max(length, 0)].decode()
        body = 10 + max(length, 0)
        if api in apis and version in message(api, "Request").flexible:
            reader = _Reader(frame, body, version, flexible=True)
            reader.tags()
            body = reader.at
        return RequestHead(api=api, version=version, correlation=correlation, client_id=client_id, body=body)

    def request(self, frame: bytes) -> Tree:
        """The request's body."""
        return message(self.api, "Request").read(frame, self.body, self.version)

    def answer(self, frame: bytes) -> Tree:
        """The body of the answer to it."""
        return message(self.api, "Response").read(frame, 4 + self._tags_bytes, self.version)

    def write_answer(self, tree: Tree) -> bytes:
        """An answer to it, without its length."""
        head = struct.pack(">i", self.correlation) + b"\0" * self._tags_bytes
        return head + message(self.api, "Response").write(tree, self.version)

    @property
    def _tags_bytes(self) -> int:
        """An answer's head has room for tags in flexible versions, but for the one that tells the versions."""
        return int(self.api != 18 and self.version in message(self.api, "Response").flexible)


class _Reader:
    def __init__(self, data: bytes, at: int, version: int, flexible: bool) -> None:
        self.data, self.at, self._version, self._flexible = data, at, version, flexible

    def structure(self, fields: tuple[_Field, ...]) -> Tree:
        version = self._version
        tree: Tree = {}
        for each in fields:
            if version in each.versions and version not in each.tagged:
                tree[each.name] = self._value(each)
        if self._flexible:
            known = {each.tag: each for each in fields if version in each.tagged}
            unknown = {}
            for tag, (start, stop) in self.tags().items():
                if tag in known:
                    inner = _Reader(self.data, start, version, flexible=True)
                    tree[known[tag].name] = inner._value(known[tag])
                else:
                    unknown[tag] = self.data[start:stop]
            if unknown:
                tree[_tags] = unknown
        return tree

    def tags(self) -> dict[int, tuple[int, int]]:
        """Where each tagged field lies."""
        found = {}
        for _ in range(self._varint()):
            tag, size = self._varint(), self._varint()
            found[tag] = (self.at, self.at + size)
            self.at += size
        return found

    def _value(self, each: _Field) -> Any:
        if each.array:
            count = self._length(">i")
            return None if count < 0 else [self._one(each) for _ in range(count)]
        return self._one(each)

    def _one(self, each: _Field) -> Any:
        kind = each.kind
        if kind in _numbers:
            return self._number(_numbers[kind])
        if kind == "uuid":
            self.at += 16
            return uuid.UUID(bytes=self.data[self.at - 16 : self.at])
        if kind in ("string", "bytes", "records"):
            size = self._length(">h" if kind == "string" else ">i")
            if size < 0:
                return None
            self.at += size
            taken = self.data[self.at - size : self.at]
            return taken.decode() if kind == "string" else taken
        if not each.array and self._version in each.nullable and self._number(">b") < 0:
            return None
        return self.structure(each.fields)

    def _length(self, plain: str) -> int:
        return self._varint() - 1 if self._flexible else self._number(plain)

    def _number(self, form: str) -> Any:
        (number,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return number

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7


class _Writer:
    def __init__(self, version: int, flexible: bool) -> None:
        self.data, self._version, self._flexible = bytearray(), version, flexible

    def structure(self, fields: tuple[_Field, ...], tree: Tree) -> None:
        version = self._version
        for each in fields:
            if version in each.versions and version not in each.tagged:
                self._value(each, tree.get(each.name, each.empty(version)))
        if self._flexible:
            tagged: dict[int, bytes] = dict(tree.get(_tags, {}))
            for each in fields:
                if version in each.tagged and each.name in tree:
                    inner = _Writer(version, flexible=True)
                    inner._value(each, tree[each.name])
                    tagged[each.tag] = bytes(inner.data)
            self._varint(len(tagged))
            for tag, data in sorted(tagged.items()):
                self._varint(tag)
                self._varint(len(data))
                self.data += data

    def _value(self, each: _Field, value: Any) -> None:
        if not each.array:
            self._one(each, value)
            return
        self._length(">i", -1 if value is None else len(value))
        for one in value or ():
            self._one(each, one)

    def _one(self, each: _Field, value: Any) -> None:
        kind = each.kind
        if kind in _numbers:
            self.data += struct.pack(_numbers[kind], value)
        elif kind == "uuid":
            self.data += value.bytes
        elif kind in ("string", "bytes", "records"):
            data = value.encode() if isinstance(value, str) else value
            self._length(">h" if kind == "string" else ">i", -1 if data is None else len(data))
            self.data += data or b""
        else:
            if not each.array and self._version in each.nullable:
                self.data += struct.pack(">b", -1 if value is None else 1)
            if value is not None:
                self.structure(each.fields, value)

    def _length(self, plain: str, length: int) -> None:
        if self._flexible:
            self._varint(length + 1)
        else:
            self.data += struct.pack(plain, length)

    def _varint(self, number: int) -> None:
        while number >= 0x80:
            self.data.append(number & 0x7F | 0x80)
            number >>= 7
        self.data.append(number)
