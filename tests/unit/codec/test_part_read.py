"""A value that cannot be read is read up to its fault: every field before it, none behind it, and the byte where it lies."""

import io
import json
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.codec.avro.part_read import AvroPart
from penstock.engine.codec.part_read import JsonPart, PartRead

names = st.text(st.characters(exclude_characters=".", exclude_categories=["Cs"]), min_size=1, max_size=5)
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)  # fmt: skip
leaves = st.one_of(scalars, st.lists(scalars, max_size=3))
records = st.dictionaries(
    names, st.recursive(leaves, lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=6)
)


def flat(value: Any, path: str = "") -> list[tuple[str, Any]]:
    if not isinstance(value, dict) or not value:
        return [(path, value)]
    return [one for name, each in value.items() for one in flat(each, f"{path}.{name}" if path else name)]


@given(record=records, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]), data=st.data())
def test_a_json_text_cut_anywhere_gives_the_fields_before_the_cut(
    record: dict[str, Any], ascii_only: bool, indent: int | None, data: st.DataObject
) -> None:
    whole = json.dumps(record, ensure_ascii=ascii_only, indent=indent).encode()
    header = b"\0\0\0\0\x07"
    assert JsonPart(skip=5).read(header + whole) is None
    cut = data.draw(st.integers(0, len(whole) - 1))
    part = JsonPart(skip=5).read(header + whole[:cut])
    assert part is not None
    told, known = list(part.fields), flat(record)
    # A number at the cut may have lost digits: it is whole as far as anybody can tell.
    certain = told[:-1] if told and told[-1] not in known else told
    assert certain == known[: len(certain)]
    assert 5 <= part.byte <= 5 + cut


@pytest.mark.parametrize(
    ("text", "fields", "field", "byte"),
    [
        (b'{"a": 1, "b": {"c": "x", "d": tru}}', [("a", 1), ("b.c", "x")], "b.d", 30),
        (b'{"a": 1, "b": "caf\xe9", "c": 2}', [("a", 1)], "b", 14),
        (b'{"a": 1} {"b": 2}', [("a", 1)], "", 9),
        (b'{"a": 1, "b" 2}', [("a", 1)], "b", 13),
        (b'{"a": 1 "b": 2}', [("a", 1)], "", 8),
        (b'{"a": NaN}', [], "a", 6),
        (b'{"caf\xc3\xa9": 1, "b": }', [("caf\u00e9", 1)], "b", 18),
        (b"", [], "", 0),
        (b"\xff\xfe", [], "", 0),
        (b"not json", [], "", 0),
        (b'{"a": ' * 500, [], "a" + ".a" * 63, 3000),
    ],
)
def test_the_fault_is_named_by_its_field_and_byte(
    text: bytes, fields: list[tuple[str, Any]], field: str, byte: int
) -> None:
    assert JsonPart(skip=0).read(text) == PartRead(fields=tuple(fields), field=field, byte=byte)


inner: dict[str, Any] = {
    "type": "record",
    "name": "Inner",
    "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": ["null", "string"]}],
}
fields_of: list[tuple[str, Any, st.SearchStrategy[Any]]] = [
    ("count", "long", st.integers(-(2**60), 2**60)),
    ("note", ["null", "string"], st.none() | st.text(max_size=6)),
    ("inner", inner, st.fixed_dictionaries({"x": st.integers(0, 9), "y": st.none() | st.text(max_size=3)})),
    ("tags", {"type": "map", "values": "double"}, st.dictionaries(st.text(max_size=2), st.floats(allow_nan=False), max_size=2)),
    ("items", {"type": "array", "items": "Inner"}, st.lists(st.fixed_dictionaries({"x": st.integers(0, 9), "y": st.none()}), max_size=2)),
    ("flag", "boolean", st.booleans()),
    ("blob", "bytes", st.binary(max_size=4)),
]  # fmt: skip
schema = {
    "type": "record",
    "name": "R",
    "fields": [{"name": name, "type": kind} for name, kind, _ in fields_of],
}


def encoded(kind: Any, value: Any) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, kind, value)
    return stream.getvalue()


def pieces(record: dict[str, Any]) -> list[tuple[str, Any, bytes]]:
    """Path, value and bytes of each field, by an encoder of another library: what is before a byte is known by counting."""
    found = []
    for name, kind, _ in fields_of:
        if name == "inner":
            found += [
                (f"inner.{each['name']}", record[name][each["name"]], encoded(each["type"], record[name][each["name"]]))
                for each in inner["fields"]
            ]  # fmt: skip
        else:
            whole = {"type": "array", "items": inner} if name == "items" else kind
            found.append((name, record[name], encoded(whole, record[name])))
    return found


@given(
    record=st.fixed_dictionaries({name: values for name, _, values in fields_of}), header=st.binary(max_size=6), data=st.data()
)  # fmt: skip
def test_an_avro_record_cut_anywhere_gives_the_fields_before_the_cut(
    record: dict[str, Any], header: bytes, data: st.DataObject
) -> None:
    parts = pieces(record)
    whole = b"".join(part for _, _, part in parts)
    reader = AvroPart(schema, skip=len(header))
    assert reader.read(header + whole) is None
    more = reader.read(header + whole + b"\0")
    assert more is not None
    assert (more.field, more.byte, len(more.fields)) == ("", len(header) + len(whole), len(parts))
    cut = data.draw(st.integers(0, len(whole) - 1))
    end, complete = 0, 0
    for _, _, part in parts:
        if end + len(part) > cut:
            break
        end, complete = end + len(part), complete + 1
    found = reader.read(header + whole[:cut])
    assert found is not None
    assert [*found.fields] == [(name, value) for name, value, _ in parts[:complete]]
    assert found.field.startswith(parts[complete][0])
    assert len(header) + end <= found.byte <= len(header) + cut


@given(value=st.binary(max_size=60))
def test_any_bytes_are_read_as_far_as_they_go(value: bytes) -> None:
    for part in (AvroPart(schema, skip=0).read(value), JsonPart(skip=0).read(value)):
        assert part is None or 0 <= part.byte <= len(value)
