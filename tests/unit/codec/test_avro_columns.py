"""The native Avro reader: resolution by Avro's rules, one case at a time, and what it says of records it cannot read."""

import math
import re
import struct
import threading
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from penstock.engine.codec.avro.columns import NativeRows
from penstock.engine.codec.avro.program import UnsupportedSchemaError
from penstock.engine.codec.avro.reference import ReferenceRows
from penstock.engine.features.policies import unseen_code
from penstock.engine.features.signature import Feature
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage
from tests.avro_pairs import make_signature, written

number = Feature(name="x", kind="number")
category = Feature(name="x", kind="category", categories=("red", "green", "blau-grün-und-länger"))


def record(*fields: Any, **more: Any) -> Any:
    return {"type": "record", "name": "R", "namespace": "demo", "fields": [*fields], **more}


def one(kind: Any, **more: Any) -> Any:
    return record({"name": "x", "type": kind, **more})


def read(writer: Any, reader: Any, value: Any, *features: Feature, dtype: str = "float64") -> list[float]:
    """One record, its field x (or the whole of it, when a dictionary) written with one schema and read with the other."""
    signature = make_signature([*features] or [number], dtype)
    native = NativeRows(writer, reader, signature, skip=0, refuses_empty=False)
    datum = value if isinstance(value, dict) else {"x": value}
    matrix, rows, faults = native.read([written(writer, datum)])
    assert faults == []
    assert rows.tolist() == [0]
    return [float(each) for each in matrix[0]]


def decimal_type(precision: int, scale: int, kind: Any = "bytes") -> Any:
    size = {} if kind == "bytes" else {"name": "D", "size": 16}
    return {"type": kind, "logicalType": "decimal", "precision": precision, "scale": scale, **size}


@pytest.mark.parametrize(
    ("theirs", "ours", "value", "expected"),
    [
        ("int", "int", -5, -5.0),
        ("int", "long", 2**31 - 1, 2.0**31 - 1),
        ("int", "double", 3, 3.0),
        ("long", "float", 12, 12.0),
        ("long", "double", -(2**63), -(2.0**63)),
        ("float", "double", 1.5, 1.5),
        ("double", "double", math.inf, math.inf),
        ("boolean", "boolean", True, 1.0),
        (["null", "int"], ["double", "null"], 7, 7.0),
        (["int", "boolean", "null"], ["null", "boolean", "long"], False, 0.0),
        ({"type": "int", "logicalType": "date"}, {"type": "int", "logicalType": "date"}, 19_000, 19_000.0),
        ({"type": "long", "logicalType": "timestamp-micros"}, "long", 1_700_000_000_000_000, 1.7e15),
    ],
)
def test_a_number_is_promoted(theirs: Any, ours: Any, value: Any, expected: float) -> None:
    assert read(one(theirs), one(ours), value) == [expected]


def test_null_is_missing() -> None:
    assert math.isnan(read(one(["double", "null"]), one(["null", "double"]), None)[0])
    vector = Feature(name="x", kind="vector", width=3)
    array = {"type": "array", "items": ["null", "int"]}
    assert np.isnan(read(one(["null", array]), one(["null", array]), {"x": None}, vector)).all()
    np.testing.assert_array_equal(read(one(array), one(array), [1, None, 3], vector), [1, np.nan, 3])


@pytest.mark.parametrize("kind", ["bytes", "fixed"])
@pytest.mark.parametrize(
    ("precision", "scale", "value"),
    [
        (9, 2, "-1234567.89"), (9, 2, "0.00"), (4, 4, "-0.0001"), (18, 0, "999999999999999999"), (16, 3, "9007199254740.993"),
        (25, 25, "0.1000000000000000000000001"), (38, 10, "-1234567890123456789012345678.0123456789"),
        (38, 0, "99999999999999999999999999999999999999"), (19, 1, "-922337203685477580.8"),
    ],
)  # fmt: skip
def test_a_decimal_is_the_nearest_number(kind: str, precision: int, scale: int, value: str) -> None:
    schema = one(decimal_type(precision, scale, kind))
    unscaled = (
        int(Decimal(value).scaleb(scale).to_integral_exact())
        if precision < 28
        else int(value.replace(".", ""))
    )
    size = 16 if kind == "fixed" else (unscaled.bit_length() + 8) // 8
    payload = unscaled.to_bytes(size, "big", signed=True)
    native = NativeRows(schema, schema, make_signature([number]), skip=0)
    matrix, _, faults = native.read([payload if kind == "fixed" else bytes([size * 2]) + payload])
    assert faults == []
    assert matrix.tolist() == [[float(Decimal(value))]]


@pytest.mark.parametrize("unscaled", [1000, -1000, 2**127, -(2**128), 2**200])
def test_a_decimal_of_too_many_digits_is_corrupt(unscaled: int) -> None:
    schema = one(decimal_type(3, 1))
    size = (unscaled.bit_length() + 8) // 8
    payload = bytes([size * 2]) + unscaled.to_bytes(size, "big", signed=True)
    native = NativeRows(schema, schema, make_signature([number]), skip=0)
    matrix, _, faults = native.read([b"\x04\x03\xe7", payload, b"\x00"])
    assert matrix.tolist() == [[99.9]]
    assert [fault.reason for _, fault in faults] == [Reason.CORRUPT] * 2


def test_a_category_is_its_place_in_the_table() -> None:
    symbols = {"type": "enum", "name": "E", "symbols": ["green", "violet", "red"]}
    fallback = {"type": "enum", "name": "E", "symbols": ["red", "violet"], "default": "red"}
    assert read(one("string"), one("string"), "blau-grün-und-länger", category) == [2.0]
    assert read(one("bytes"), one("string"), b"green", category) == [1.0]
    assert read(one("string"), one("string"), "", category) == [unseen_code]
    assert read(one("string"), one("string"), "blau-grün-und-länge", category) == [unseen_code]
    assert read(one(symbols), one(symbols), "violet", category) == [unseen_code]
    assert read(one(symbols), one(symbols), "red", category) == [0.0]
    assert read(one(symbols), one(fallback), "green", category) == [0.0]
    assert read(one(["null", symbols, "string"]), one(["null", "string", symbols]), "red", category) == [0.0]


def test_a_table_finds_each_of_many_names() -> None:
    names = tuple(f"{'long-prefix-' * (place % 3)}{place}" for place in range(5000))
    feature = Feature(name="x", kind="category", categories=names)
    schema = one("string")
    native = NativeRows(schema, schema, make_signature([feature]), skip=0)
    payloads = [written(schema, {"x": name}) for name in (*names, "5000", "-1", "long-prefix-")]
    matrix, _, _ = native.read(payloads)
    assert matrix[:, 0].tolist() == [*range(5000), unseen_code, unseen_code, unseen_code]


def test_fields_are_found_by_name_and_by_alias_in_any_order() -> None:
    inner = {
        "type": "record",
        "name": "In",
        "fields": [{"name": "a", "type": "int"}, {"name": "b", "type": "int"}],
    }
    writer = record({"name": "skipped", "type": {"type": "map", "values": inner}}, {"name": "x", "type": "In"}, {"name": "y", "type": "float"})  # fmt: skip
    reader = record(
        {"name": "why", "type": "double", "aliases": ["z", "y"]},
        {"name": "x", "type": {**inner, "name": "Inside", "aliases": ["demo.In"], "fields": [{"name": "bee", "type": "long", "aliases": ["b"]}]}},
    )  # fmt: skip
    features = [
        Feature(name="b", field="x.bee", kind="number"),
        Feature(name="y", field="why", kind="number"),
    ]
    datum = {"skipped": {"k": {"a": 8, "b": 9}}, "x": {"a": 1, "b": 2}, "y": 0.5}
    assert read(writer, reader, datum, *features) == [2.0, 0.5]


@pytest.mark.parametrize(
    ("kind", "default", "feature", "expected"),
    [
        ("double", 1.5, number, [1.5]),
        (["null", "double"], None, number, [math.nan]),
        ("boolean", True, number, [1.0]),
        (decimal_type(5, 2), "\x01\x00", number, [2.56]),
        (decimal_type(5, 2), "\u00ff", number, [-0.01]),
        ("string", "green", category, [1.0]),
        ("string", "orange", category, [unseen_code]),
        ({"type": "enum", "name": "E", "symbols": ["red", "green"]}, "green", category, [1.0]),
        ({"type": "array", "items": "float"}, [1.0, 2.0], Feature(name="x", kind="vector", width=2), [1.0, 2.0]),
        (
            {"type": "record", "name": "In", "fields": [{"name": "a", "type": "int"}, {"name": "b", "type": "int", "default": 4}]},
            {"a": 3}, Feature(name="b", field="x.b", kind="number"), [4.0],
        ),
    ],
)  # fmt: skip
def test_a_field_that_the_writer_does_not_know_has_its_default(
    kind: Any, default: Any, feature: Feature, expected: list[float]
) -> None:
    writer = record({"name": "other", "type": "string"})
    reader = one(kind, default=default)
    np.testing.assert_array_equal(read(writer, reader, {"other": ""}, feature), expected)


def test_defaults_belong_to_the_branch_that_was_written() -> None:
    def branch(name: str, *fields: Any) -> Any:
        return {"type": "record", "name": name, "fields": [*fields]}

    a, b = {"name": "a", "type": "int"}, {"name": "a", "type": "int", "default": 9}
    writer = record({"name": "x", "type": [branch("One", a), branch("Two")]})
    reader = record({"name": "x", "type": [branch("One", b), branch("Two", b)]})
    feature = Feature(name="a", field="x.a", kind="number")
    assert read(writer, reader, {"x": ("demo.One", {"a": 1})}, feature) == [1.0]
    assert read(writer, reader, {"x": ("demo.Two", {})}, feature) == [9.0]


def test_a_timestamp_of_another_unit_does_not_resolve() -> None:
    millis, micros = ({"type": "long", "logicalType": f"timestamp-{unit}"} for unit in ("millis", "micros"))
    native = NativeRows(one(micros), one(millis), make_signature([number]), skip=0)
    [(_, fault)] = native.read([b"\x02"])[2]
    assert fault.reason is Reason.INCOMPATIBLE_SCHEMA
    assert "timestamp-micros and timestamp-millis, in x" in fault.detail
    with pytest.raises(RecordError, match="timestamp-micros and timestamp-millis, in x"):
        ReferenceRows(one(micros), one(millis), make_signature([number]), skip=0)


recursive = one(["null", "double"])
recursive["fields"].append({"name": "next", "type": ["null", "demo.R"], "default": None})
endless = one("double")
endless["fields"].append({"name": "next", "type": "demo.R", "default": {}})


def nested(levels: int) -> Any:
    schema: Any = "double"
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("writer", "reader", "features"),
    [
        (recursive, recursive, [number]),
        (one("double"), endless, [number, Feature(name="far", field="next.next.x", kind="number")]),
        (record(), one("double", default="many"), [number]),
        (record({"name": "n", "type": nested(40)}), one("double", default=1.0), [number]),
        (record({"name": "n", "type": nested(5000)}), one("double", default=1.0), [number]),
        (one(decimal_type(60, 2)), one(decimal_type(60, 2)), [number]),
        (one("bytes"), one("bytes"), [number]),
        (one("double"), one("double"), [number, Feature(name="y", field="x", kind="number")]),
        (one({"type": "array", "items": "string"}), one({"type": "array", "items": "string"}), [Feature(name="x", kind="vector")]),
        (record({"name": "x", "type": "Unheard"}), one("double"), [number]),
        (record({"name": "f", "type": {"type": "fixed", "name": "F", "size": 1 << 40}}), one("double", default=1.0), [number]),
    ],
)  # fmt: skip
def test_what_the_native_reader_does_not_take_is_left_to_the_reference(
    writer: Any, reader: Any, features: list[Feature]
) -> None:
    with pytest.raises(UnsupportedSchemaError):
        NativeRows(writer, reader, make_signature(features), skip=0)


def test_a_schema_that_unfolds_without_end_is_not_taken() -> None:
    fields: list[Any] = [{"name": "x", "type": "double"}]
    kind: Any = "double"
    for level in range(24):  # each level twice the one below: 2^24 doubles
        pair = {"type": "record", "name": f"L{level}", "fields": [{"name": "a", "type": kind}, {"name": "b", "type": f"demo.L{level - 1}" if level else "double"}]}  # fmt: skip
        kind = pair
    schema = record({"name": "big", "type": kind}, *fields)
    with pytest.raises(UnsupportedSchemaError, match="large"):
        NativeRows(schema, schema, make_signature([number]), skip=0)


mixed = record(
    {"name": "i", "type": "int"}, {"name": "s", "type": "string"}, {"name": "inner", "type": {"type": "record", "name": "In", "fields": [
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["red"]}}, {"name": "b", "type": "boolean"},
        {"name": "u", "type": ["null", "double"]}]}},
    {"name": "v", "type": {"type": "array", "items": "int"}}, {"name": "x", "type": "double"}, {"name": "y", "type": "double"},
)  # fmt: skip
mixed_features = [
    Feature(name="s", kind="category", categories=("a",)), Feature(name="e", field="inner.e", kind="category", categories=("red",)),
    Feature(name="v", kind="vector", width=2), Feature(name="x", kind="number"), Feature(name="y", kind="number"),
]  # fmt: skip
parts = {"i": b"\x02", "s": b"\x02a", "e": b"\x00", "b": b"\x01", "u": b"\x00", "v": b"\x04\x02\x04\x00", "x": b"\x00" * 8, "y": b"\x00" * 8}  # fmt: skip


@pytest.mark.parametrize(
    ("part", "value", "reason", "where"),
    [
        ("i", b"\x80\x80\x80\x80\x10", Reason.CORRUPT, "in i before byte 10"),
        ("i", b"\xff" * 9 + b"\x02", Reason.CORRUPT, "in i "),
        ("i", b"\x80" * 11, Reason.CORRUPT, "in i "),
        ("s", b"\x01", Reason.CORRUPT, "in s "),
        ("s", b"\x02\xff", Reason.CORRUPT, "in s "),
        ("s", b"\x04\xc0\x80", Reason.CORRUPT, "in s "),
        ("s", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", Reason.TRUNCATED, "in s "),
        ("e", b"\x02", Reason.CORRUPT, r"in inner\.e "),
        ("e", b"\x01", Reason.CORRUPT, r"in inner\.e "),
        ("b", b"\x02", Reason.CORRUPT, r"in inner\.b "),
        ("u", b"\x04", Reason.CORRUPT, r"in inner\.u "),
        ("v", b"\x02\x02\x00", Reason.WRONG_TYPE, "in v before"),
        ("v", b"\x06\x02\x02\x02\x00", Reason.WRONG_TYPE, "in v before"),
        ("v", b"\xff" * 9 + b"\x01", Reason.CORRUPT, "in v "),
        ("v", b"\x80\x80\x80\x80\x10", Reason.LIMIT_EXCEEDED, "in v "),
        ("y", b"\x00" * 7, Reason.TRUNCATED, "in x to y at byte 23"),
        ("y", b"\x00" * 9, Reason.TRAILING_BYTES, "^1 bytes follow"),
    ],
)
def test_a_fault_is_named_with_its_field_and_byte(
    part: str, value: bytes, reason: Reason, where: str
) -> None:
    native = NativeRows(mixed, mixed, make_signature(mixed_features), skip=5)
    good = b"12345" + b"".join(parts.values())
    bad = b"12345" + b"".join({**parts, part: value}.values())
    matrix, rows, faults = native.read([good, bad, good])
    assert rows.tolist() == [0, 2]
    assert matrix.tolist() == [[0, 0, 1, 2, 0, 0]] * 2
    [(place, fault)] = faults
    assert (place, fault.reason) == (1, reason)
    assert fault.stage is (Stage.VALIDATE if reason is Reason.WRONG_TYPE else Stage.DECODE)
    assert re.search(where, fault.detail)


def test_nothing_is_refused_that_is_only_unusual() -> None:
    schema = record({"name": "m", "type": {"type": "map", "values": "double"}}, {"name": "x", "type": {"type": "array", "items": "float"}})  # fmt: skip
    native = NativeRows(schema, schema, make_signature([Feature(name="x", kind="vector", width=3)]), skip=0)
    one_, two, three = (struct.pack("<f", value) for value in (1.0, 2.0, 3.0))
    blocks = (
        b"\x00" + b"\x01\x08" + one_ + b"\x04" + two + three + b"\x00"
    )  # a block with its size, then one without
    matrix, _, faults = native.read([blocks])
    assert faults == []
    assert matrix.tolist() == [[1.0, 2.0, 3.0]]


def test_no_records_and_records_without_bytes() -> None:
    schema = record()
    reader = one("double", default=2.0)
    native = NativeRows(schema, reader, make_signature([number], "float32"), skip=0, refuses_empty=False)
    matrix, rows, faults = native.read([])
    assert (matrix.shape, matrix.dtype, rows.shape, faults) == ((0, 1), np.dtype(np.float32), (0,), [])
    assert native.read([b"", b""])[0].tolist() == [[2.0], [2.0]]
    short = NativeRows(schema, reader, make_signature([number]), skip=5)
    assert [fault.reason for _, fault in short.read([b"1234"])[2]] == [Reason.TRUNCATED]


def test_a_number_past_float32_becomes_an_infinity() -> None:
    assert read(one("double"), one("double"), 1e300, dtype="float32") == [math.inf]


def test_threads_read_at_once_and_other_code_runs_meanwhile() -> None:
    """The interpreter lock is let go: a thread that only counts gets on while a long batch is read."""
    schema = record(
        {"name": "n", "type": {"type": "array", "items": "long"}}, {"name": "x", "type": "double"}
    )
    native = NativeRows(schema, schema, make_signature([number]), skip=0)
    payload = b"\x80\x89\x7a" + b"\x02" * 1_000_000 + b"\x00" + struct.pack("<d", 4.0)
    started, finished = threading.Event(), threading.Event()

    def long_read() -> None:
        started.set()
        native.read([payload] * 200)
        finished.set()

    thread = threading.Thread(target=long_read)
    turns = 0
    thread.start()
    started.wait()
    while not finished.is_set():
        turns += 1
    thread.join()
    assert turns > 1000
    assert native.read([payload])[0].tolist() == [[4.0]]
