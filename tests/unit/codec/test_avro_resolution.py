"""Avro's resolution rules, value by value: what one writer writes is read as fastavro reads it, or refused for its own sake."""

import io
import math
import random
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.codec.avro.columns import NativeRows
from penstock.engine.codec.avro.reference import ReferenceRows
from penstock.engine.features.signature import Feature
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason
from tests.avro_pairs import make_signature, written

number = Feature(name="x", kind="number")
card = Feature(name="c", kind="category", categories=("A", "B", "C"))


def record(*fields: tuple[str, Any], name: str = "bars.Row", **more: Any) -> Any:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields], **more}


def enum(*symbols: str, **more: Any) -> Any:
    return {"type": "enum", "name": "bars.Card", "symbols": [*symbols], **more}


def read(
    way: Any, writer: Any, reader: Any, data: list[Any], *features: Feature, **options: Any
) -> list[Any]:
    """Of each record its row, or why it gave none: a reason and a detail."""
    signature = make_signature([*features] or [number])
    rows = way(writer, reader, signature, skip=0, **options)
    payloads = [written(writer, datum) for datum in data]
    matrix, places, faults = rows.read(payloads)
    found: dict[int, Any] = {place: (fault.reason, fault.detail) for place, fault in faults}
    found |= dict(zip(places.tolist(), matrix.tolist(), strict=True))
    return [found.get(place) for place in range(len(data))]


ways = pytest.mark.parametrize("way", [NativeRows, ReferenceRows])


@ways
@pytest.mark.parametrize("alias", ["Row", "bars.Row"])
def test_a_renamed_record_is_found_by_its_alias_with_and_without_a_namespace(way: Any, alias: str) -> None:
    reader = {**record(("x", "double"), name="bars.NewRow"), "aliases": [alias]}
    assert read(way, record(("x", "double")), reader, [{"x": 4.0}]) == [[4.0]]


@ways
@pytest.mark.parametrize(
    ("theirs", "ours", "good", "bad", "why"),
    [
        (["null", "double"], "double", 4.0, None, "null is written, which is not read as double, "),
        (["double", "string"], "double", 4.0, "four", "string is written, which is not read as double, "),
        (["double", {"type": "array", "items": "int"}], ["null", "double"], 4.0, [4], "array of int is written, which is not read as a union of null, double, "),
    ],
)  # fmt: skip
def test_a_number_is_read_whatever_else_its_writer_could_write(
    way: Any, theirs: Any, ours: Any, good: Any, bad: Any, why: str
) -> None:
    data = [{"x": good}, {"x": bad}, {"x": good}]
    found = read(way, record(("x", theirs)), record(("x", ours)), data)
    assert found[::2] == [[4.0], [4.0]]
    reason, detail = found[1]
    assert reason is Reason.INCOMPATIBLE_SCHEMA
    assert why.removesuffix(", ") in str(detail)
    assert "in x" in str(detail)


@ways
@pytest.mark.parametrize("theirs", [enum("A", "D"), ["null", enum("A", "D")]])
def test_a_new_symbol_refuses_the_records_that_hold_it(way: Any, theirs: Any) -> None:
    data = [{"c": "A"}, {"c": "D"}]
    good, bad = read(way, record(("c", theirs)), record(("c", enum("B", "A"))), data, card)
    assert good == [0.0]
    assert bad[0] is Reason.INCOMPATIBLE_SCHEMA
    assert "a symbol of bars.Card is written that the reader's enum does not have" in str(bad[1])


other = record(("x", "double"), ("y", "string"), name="bars.Other")


@ways
def test_of_a_union_of_records_those_of_the_reader_s_are_read(way: Any) -> None:
    row = record(("x", "double"))
    data = [("bars.Row", {"x": 1.0}), ("bars.Other", {"x": 2.0, "y": ""})]
    good, bad = read(way, [row, other], row, data)
    assert good == [1.0]
    assert bad[0] is Reason.INCOMPATIBLE_SCHEMA
    assert "a record bars.Other is written, the reader's is bars.Row" in str(bad[1])


@ways
@pytest.mark.parametrize("name", ["bars.Other", "Other"])
def test_of_the_chosen_type_records_are_read_and_others_passed_over(way: Any, name: str) -> None:
    row = record(("z", "double"))
    writer = [row, other, "string"]
    data: list[Any] = [("bars.Row", {"z": 1.0}), ("bars.Other", {"x": 2.0, "y": ""}), "text"]
    assert read(way, writer, writer, data, record_type=name) == [None, [2.0], None]
    assert read(way, writer, other, data, record_type=name) == [None, [2.0], None]


@ways
def test_a_record_of_a_union_without_any_of_the_fields_has_no_features(way: Any) -> None:
    writer = [record(("z", "double")), other]
    data = [("bars.Row", {"z": 1.0}), ("bars.Other", {"x": 2.0, "y": ""})]
    bad, good = read(way, writer, writer, data)
    assert good == [2.0]
    assert bad[0] is Reason.NO_FEATURES


@ways
def test_defaults_alone_are_no_features_and_a_null_is_one(way: Any) -> None:
    reader = record(("x", ["double", "null"]), ("k", "long"))
    reader["fields"][0]["default"] = 7.5
    writer = record(("k", "long"))
    assert read(way, writer, reader, [{"k": 1}])[0][0] is Reason.NO_FEATURES
    assert read(way, writer, reader, [{"k": 1}], refuses_empty=False) == [[7.5]]
    assert math.isnan(read(way, reader, reader, [{"k": 1, "x": None}])[0][0])


@ways
def test_a_container_that_is_null_holds_no_features(way: Any) -> None:
    inner = record(("x", ["null", "double"]), name="bars.Inner")
    schema = record(("after", ["null", inner]))
    after = Feature(name="x", field="after.x", kind="number")
    data = [{"after": None}, {"after": {"x": None}}]
    empty, null = read(way, schema, schema, data, after)
    assert empty[0] is Reason.NO_FEATURES
    assert math.isnan(null[0])


@ways
@pytest.mark.parametrize("default", [0.5, None])
def test_a_default_beside_a_container_that_is_null_is_no_feature(way: Any, default: float | None) -> None:
    """The writer can write one, and this record of it does not."""
    inner = record(("x", ["null", "double"]), name="bars.Inner")
    writer = record(("after", ["null", inner]))
    reader = record(("after", ["null", inner]), ("y", ["double", "null"] if default else ["null", "double"]))
    reader["fields"][1]["default"] = default
    features = [Feature(name="x", field="after.x", kind="number"), Feature(name="y", kind="number")]
    data = [{"after": None}, {"after": {"x": None}}]
    empty, null = read(way, writer, reader, data, *features)
    assert empty[0] is Reason.NO_FEATURES
    assert str(null) == str([math.nan, default or math.nan])


@ways
def test_a_default_inside_a_record_that_is_written_is_no_feature(way: Any) -> None:
    """Of a union of two records one has the field; an array of the other stands beside it."""
    with_x, without = record(("x", "double"), name="bars.A"), record(("z", "double"), name="bars.B")
    writer = record(("one", [with_x, without]), ("many", {"type": "array", "items": "bars.B"}))
    ours = {**record(("z", "double"), ("x", "double"), name="bars.B")}
    ours["fields"][1]["default"] = 7.5
    reader = record(("one", [with_x, ours]))
    feature = Feature(name="x", field="one.x", kind="number")
    data = [
        {"one": ("bars.A", {"x": 1.0}), "many": []},
        {"one": ("bars.B", {"z": 2.0}), "many": [{"z": 3.0}]},
    ]
    good, empty = read(way, writer, reader, data, feature)
    assert good == [1.0]
    assert empty[0] is Reason.NO_FEATURES


@ways
@pytest.mark.parametrize(
    ("writer", "reader", "why"),
    [
        (record(("x", "double"), name="bars.Else"), record(("x", "double")), "a record bars.Else is written"),
        (record(("k", "long")), record(("x", "double")), "bars.Row is written without field x, for which the reader's schema has no default"),
        ("double", record(("x", "double")), "double is written, which is no record"),
        (["null", "string"], record(("x", "double")), "null is written, which is no record; string is written"),
    ],
)  # fmt: skip
def test_a_schema_of_which_no_record_resolves_is_refused_with_the_reason(
    way: Any, writer: Any, reader: Any, why: str
) -> None:
    with pytest.raises(RecordError, match="does not resolve to the reader's") as caught:
        way(writer, reader, make_signature([number]), skip=0)
    assert caught.value.reason is Reason.INCOMPATIBLE_SCHEMA
    assert why in caught.value.detail


@ways
def test_a_boolean_that_is_neither_0_nor_1_is_corrupt(way: Any) -> None:
    schema = record(("x", "boolean"))
    rows = way(schema, schema, make_signature([number]), skip=0)
    matrix, _, faults = rows.read([b"\x01", b"\x22", b"\x00", b"\xff"])
    assert matrix.tolist() == [[1.0], [0.0]]
    assert [(place, fault.reason) for place, fault in faults] == [(1, Reason.CORRUPT), (3, Reason.CORRUPT)]


# Generated pairs: each field is written and read as some type, drawn without regard to whether they resolve.

_kinds: list[tuple[Any, Any]] = [
    ("null", [None]),
    ("boolean", [True, False]),
    ("int", [0, -5, 2**31 - 1]),
    ("long", [0, 2**53 + 1, -(2**63)]),
    ("float", [0.5, -2.25]),
    ("double", [0.1, 1e300]),
    ("string", ["", "A", "ü"]),
    ("bytes", [b"", b"A"]),
    ({"type": "array", "items": "int"}, [[], [3]]),
    ({"type": "array", "items": "string"}, [["a"]]),
    ({"type": "map", "values": "double"}, [{}, {"k": 1.0}]),
]


def _enums(name: str) -> list[tuple[Any, Any]]:
    return [
        ({"type": "enum", "name": name, "symbols": symbols, **more}, symbols)
        for symbols in (["A"], ["A", "B"], ["B", "C", "A"])
        for more in ({}, {"default": symbols[0]})
    ]


def _fixeds(name: str) -> list[tuple[Any, Any]]:
    return [({"type": "fixed", "name": name, "size": size}, [b"x" * size]) for size in (1, 2)]


def _type(chance: random.Random, name: str) -> tuple[Any, list[Any]]:
    """A type that is not a union, and values of it."""
    named = _enums(f"n.E{name}") + _fixeds(f"n.F{name}")
    return chance.choice(_kinds + chance.sample(named, 3))


def _field(chance: random.Random, name: str) -> tuple[Any, list[Any]]:
    if chance.random() < 0.5:
        return _type(chance, name)
    drawn: dict[str, tuple[Any, list[Any]]] = {}
    for _ in range(chance.randrange(1, 5)):
        kind, values = _type(chance, name)
        drawn.setdefault(kind if isinstance(kind, str) else kind["type"], (kind, values))
    return [kind for kind, _ in drawn.values()], [value for _, values in drawn.values() for value in values]


def _record(chance: random.Random, names: list[str]) -> tuple[Any, list[Any]]:
    fields, values = [], {}
    for field in "abc":
        if chance.random() < 0.15:
            continue
        kind, values[field] = _field(chance, field)
        fields.append({"name": field, "type": kind})
        if chance.random() < 0.3:
            first = kind[0] if isinstance(kind, list) else kind
            plain = {
                "null": None,
                "boolean": True,
                "int": 3,
                "long": 4,
                "float": 0.5,
                "double": 1.5,
                "string": "B",
            }
            if isinstance(first, str) and first in plain:
                fields[-1]["default"] = plain[first]
    schema: dict[str, Any] = {"type": "record", "name": chance.choice(names), "fields": fields}
    if chance.random() < 0.3:
        schema["aliases"] = [chance.choice(["Old", "n.Old", "Row", "m.Old"])]
    data = [{name: chance.choice(of) for name, of in values.items()} for _ in range(6)]
    return schema, data


def _pair(seed: int) -> tuple[Any, Any, list[bytes]]:
    chance = random.Random(seed)
    writer, data = _record(chance, ["n.Row", "n.Row", "n.Old", "m.Row"])
    reader, _ = _record(chance, ["n.Row"])
    if chance.random() < 0.5:  # or little would resolve
        reader = {**reader, "fields": [*writer["fields"]]}
    if chance.random() < 0.2:
        writer = [writer, {"type": "record", "name": "n.Another", "fields": [{"name": "q", "type": "int"}]}]
        chance.shuffle(writer)
        place = next(i for i, each in enumerate(writer) if each["name"] != "n.Another")
        payloads = [bytes([2 * place]) + _bytes(writer[place], datum) for datum in data]
        return writer, reader, [*payloads, bytes([2 - 2 * place, 2])]
    return writer, reader, [_bytes(writer, datum) for datum in data]


def _bytes(schema: Any, datum: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), datum, strict=True)
    return out.getvalue()


def _by_fastavro(writer: Any, reader: Any, payload: bytes) -> dict[str, Any] | None:
    """What the other library makes of it; None where it refuses."""
    try:
        found: Any = fastavro.schemaless_reader(
            io.BytesIO(payload), fastavro.parse_schema(writer), fastavro.parse_schema(reader)
        )
    except (fastavro.read.SchemaResolutionError, ValueError, TypeError, KeyError, IndexError, EOFError):
        return None
    return found if isinstance(found, dict) else None


def _features(reader: Any) -> list[Feature]:
    """Features for the fields that hold only numbers, or only texts, or, as an array, only numbers."""
    features = []
    for field in reader["fields"]:
        types = field["type"] if isinstance(field["type"], list) else [field["type"]]
        kinds = {each if isinstance(each, str) else each["type"] for each in types} - {"null"}
        if kinds and kinds <= {"boolean", "int", "long", "float", "double"}:
            features.append(Feature(name=field["name"], kind="number"))
        elif kinds and kinds <= {"string", "enum"}:
            features.append(Feature(name=field["name"], kind="category", categories=("A", "B", "")))
    return features


def _expected(record: dict[str, Any], features: list[Feature]) -> list[float]:
    row = []
    for feature in features:
        value = record[feature.name]
        if value is None:
            row.append(math.nan)
        elif feature.kind == "category":
            text = value.decode() if isinstance(value, bytes) else value
            row.append(float(feature.categories.index(text)) if text in feature.categories else -1.0)
        else:
            row.append(float(value))
    return row


def _made(way: Any, writer: Any, reader: Any, features: list[Feature]) -> Any:
    """The rows' reader; None where it says that no record can be read."""
    try:
        return way(writer, reader, make_signature(features), skip=0, refuses_empty=False)
    except RecordError:
        return None


@settings(max_examples=1500)
@given(seed=st.integers(0, 10**9))
def test_what_is_read_and_what_is_refused_is_what_fastavro_reads_and_refuses(seed: int) -> None:
    writer, reader, payloads = _pair(seed)
    features = _features(reader)
    if not features:
        return
    expected = [_by_fastavro(writer, reader, payload) for payload in payloads]
    for way in (NativeRows, ReferenceRows):
        rows = _made(way, writer, reader, features)
        if rows is None:
            assert expected == [None] * len(payloads)
            continue
        matrix, places, faults = rows.read(payloads)
        assert [place for place, _ in faults] == [i for i, each in enumerate(expected) if each is None]
        assert {fault.reason for _, fault in faults} <= {Reason.INCOMPATIBLE_SCHEMA}
        wanted = [_expected(each, features) for each in expected if each is not None]
        assert len(places) == len(wanted)
        if wanted:
            np.testing.assert_array_equal(matrix, np.array(wanted))


def test_the_generated_pairs_resolve_often_and_often_not() -> None:
    read_, refused, partly = 0, 0, 0
    for seed in range(600):
        writer, reader, payloads = _pair(seed)
        found = [_by_fastavro(writer, reader, payload) is not None for payload in payloads]
        read_ += all(found)
        refused += not any(found)
        partly += any(found) and not all(found)
    assert min(read_, refused, partly) > 30, (read_, refused, partly)
