"""Hostile bytes and hostile programs: the native reader answers quickly, with a fault or with what the reference reads.

PENSTOCK_FUZZ_MUTANTS sets how many mutants each schema gets.
"""

import math
import os
import random
import time
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pytest

from penstock.engine.codec.avro.columns import NativeRows
from penstock.engine.codec.avro.program import UnsupportedSchemaError, items_max
from penstock.engine.codec.avro.reference import ReferenceRows
from penstock.engine.features.signature import Feature
from penstock.engine.native._avro import Program
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason
from tests.avro_pairs import make_signature, written

mutants: Final = int(os.environ.get("PENSTOCK_FUZZ_MUTANTS", "3000"))
mutant_s_max: Final = 0.05

flat: Any = {"type": "record", "name": "Flat", "fields": [
    *({"name": f"d{i}", "type": "double"} for i in range(4)), {"name": "i", "type": "int"}, {"name": "l", "type": "long"},
    {"name": "b", "type": "boolean"}, {"name": "s", "type": "string"},
]}  # fmt: skip
deep: Any = {"type": "record", "name": "Deep", "fields": [
    {"name": "a", "type": ["null", {"type": "record", "name": "A", "fields": [
        {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["X", "Y", "Z"]}},
        {"name": "b", "type": ["string", "null", {"type": "record", "name": "B", "fields": [
            {"name": "n", "type": ["float", "null"]}]}]}]}]},
    {"name": "m", "type": {"type": "map", "values": {"type": "array", "items": "A"}}},
    {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 3}},
]}  # fmt: skip
lists: Any = {"type": "record", "name": "Lists", "fields": [
    {"name": "v", "type": {"type": "array", "items": "double"}},
    {"name": "w", "type": ["null", {"type": "array", "items": ["null", "long"]}]},
    {"name": "t", "type": {"type": "array", "items": {"type": "map", "values": "bytes"}}},
    {"name": "x", "type": {"type": "fixed", "name": "X", "size": 5}},
]}  # fmt: skip
seeds: Final[dict[str, tuple[Any, list[Feature], list[Any]]]] = {
    "flat": (
        flat,
        [
            *(Feature(name=name, kind="number") for name in ("d0", "d1", "d2", "d3", "i", "l", "b")),
            Feature(name="s", kind="category", categories=("yes", "ünsure")),
        ],
        [
            {"d0": 1.5, "d1": math.inf, "d2": math.nan, "d3": -0.0, "i": -(2**31), "l": 2**63 - 1, "b": True, "s": "yes"},
            {"d0": 0.0, "d1": 0.0, "d2": 0.0, "d3": 0.0, "i": 0, "l": 0, "b": False, "s": "ünsure ünsure ünsure"},
        ],
    ),
    "deep": (
        deep,
        [
            Feature(name="e", field="a.e", kind="category", categories=("X", "Z")),
            Feature(name="d", kind="number"),
        ],
        [
            {"a": {"e": "Y", "b": {"n": 2.5}}, "m": {"k": [{"e": "Z", "b": "text"}], "": []}, "d": Decimal("-12.345")},
            {"a": None, "m": {}, "d": Decimal(0)},
        ],
    ),
    "lists": (
        lists,
        [Feature(name="v", kind="vector", width=3), Feature(name="w", kind="vector", width=2)],
        [
            {"v": [1.0, 2.0, 3.0], "w": [None, 7], "t": [{"a": b"1"}, {}], "x": b"12345"},
            {"v": [0.0, 0.0, 0.0], "w": None, "t": [], "x": b"\xff" * 5},
        ],
    ),
}  # fmt: skip

_tricks: Final = (
    b"\xff" * 9 + b"\x01",  # the smallest long
    b"\xfe" + b"\xff" * 8 + b"\x01",  # the largest
    b"\xff" * 9 + b"\x02",  # too large
    b"\x80" * 12 + b"\x00",  # endless
    b"\x80\x80\x80\x80\x20",  # 2^31 items or bytes
    b"\x01\x00",  # a block of -1 items
    b"\x01\xfe\xff\xff\xff\x0f",
    b"\xc0\x80",  # not UTF-8
    b"\xed\xa0\x80",
    b"\x00" * 40,
    b"\x80\x00",  # zero in two bytes
)


def mutant(chance: random.Random, payloads: list[bytes]) -> bytes:
    """A payload with bits flipped, pieces cut, put in, or taken from another, some of them numbers that should not be."""
    value = bytearray(chance.choice(payloads))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(value) + 1)
        kind = chance.randrange(7)
        if kind == 0 and value:
            value[min(at, len(value) - 1)] ^= 1 << chance.randrange(8)
        elif kind == 1 and value:
            value[min(at, len(value) - 1)] = chance.randrange(256)
        elif kind == 2:
            del value[at:]
        elif kind == 3:
            del value[at : at + chance.randrange(1, 4)]
        elif kind == 4:
            value[at:at] = chance.choice(_tricks)
        elif kind == 5:
            value[at : at + 1] = chance.choice(_tricks)
        else:
            other = chance.choice(payloads)
            value[at:] = other[chance.randrange(len(other) + 1) :]
    return bytes(value)


@pytest.mark.parametrize("name", sorted(seeds))
def test_mutants_are_refused_or_read_as_the_reference_reads_them(name: str) -> None:
    schema, features, data = seeds[name]
    signature = make_signature(features)
    native = NativeRows(schema, schema, signature, skip=0)
    reference = ReferenceRows(schema, schema, signature, skip=0)
    payloads = [written(schema, datum) for datum in data]
    good = native.read(payloads)[0]
    chance = random.Random(f"{name} {mutants}")
    read = refused = 0
    for number in range(mutants):
        broken = mutant(chance, payloads)
        began_s = time.thread_time()
        matrix, rows, faults = native.read([payloads[0], broken, payloads[1]])
        assert time.thread_time() - began_s < mutant_s_max, broken

        kept = [row for row, place in enumerate(rows) if place != 1]
        np.testing.assert_array_equal(matrix[kept], good)
        assert [place for place, _ in faults] in ([], [1])
        if faults:
            refused += 1
        elif number % 4 == 0:
            read += 1
            expected, _, reference_faults = reference.read([broken])
            assert not reference_faults, broken
            np.testing.assert_array_equal(matrix[1:2], expected, err_msg=repr(broken))
    assert read > mutants / 100
    assert refused > mutants / 4


def test_a_few_bytes_that_stand_for_many_items_are_refused_at_once() -> None:
    schema = {"type": "record", "name": "R", "fields": [
        {"name": "x", "type": "double"},
        {"name": "bomb", "type": {"type": "array", "items": {"type": "array", "items": "null"}}}]}  # fmt: skip
    native = NativeRows(schema, schema, make_signature([Feature(name="x", kind="number")]), skip=0)
    x = b"\x00" * 8
    bomb = x + b"\x02" + b"\x80\xe1\xeb\x17" + b"\x00\x00"  # 25 million nulls
    many = x + b"\xfe\x07" + b"\x80\xa0\x06\x00" * 511 + b"\x00"  # 511 times 51,200
    fair = x + b"\x02" + b"\x80\xa0\x06\x00" + b"\x00"

    began_s = time.thread_time()
    matrix, rows, faults = native.read([bomb, fair, many])

    assert time.thread_time() - began_s < 2 * mutant_s_max
    assert items_max > 51_200
    assert rows.tolist() == [1]
    assert matrix.tolist() == [[0.0]]
    assert [fault.reason for _, fault in faults] == [Reason.LIMIT_EXCEEDED] * 2


def test_mutated_schemas_are_refused_or_compiled() -> None:
    chance = random.Random(mutants)
    compiled = refused = 0
    for _ in range(mutants // 4):
        schema, features, data = seeds[chance.choice(sorted(seeds))]
        mutated = _mutated_schema(chance, schema)
        signature = make_signature(features)
        for writer, reader in ((mutated, schema), (schema, mutated)):
            try:
                native = NativeRows(writer, reader, signature, skip=0)
            except (RecordError, UnsupportedSchemaError):
                refused += 1
                continue
            compiled += 1
            native.read([written(schema, datum) for datum in data])
    assert compiled > mutants / 100
    assert refused > mutants / 100


def _mutated_schema(chance: random.Random, schema: Any) -> Any:
    words = ["null", "int", "long", "double", "string", "bytes", "A", "Nothing", [], {}, None, 3, -1, 1 << 40, ["null", "int"],
             {"type": "array", "items": "double"}, "record", "enum", {"type": "map", "values": "A"}]  # fmt: skip
    if chance.random() < 0.05:
        return chance.choice(words)
    if isinstance(schema, list):
        mutated = [_mutated_schema(chance, each) for each in schema]
        if mutated and chance.random() < 0.1:
            mutated.pop(chance.randrange(len(mutated)))
        return mutated
    if isinstance(schema, dict):
        return {key: _mutated_schema(chance, each) for key, each in schema.items() if chance.random() > 0.01}
    return schema


def test_malformed_programs_are_refused_and_random_ones_read_within_bounds() -> None:
    chance = random.Random(mutants + 1)
    payloads = [bytes(chance.randrange(256) for _ in range(chance.randrange(60))) for _ in range(20)]
    payloads += [bytes(60), b"\x02" * 60]
    built = 0
    for _ in range(mutants):
        columns = chance.randrange(4)
        nodes, numbered = [], 1
        count = chance.randrange(1, 9)
        for place in range(count):
            kind = 13 if place == 0 else chance.randrange(-1, 18)
            share = chance.choice((0, 1, 2)) if kind in (10, 11, 12, 13) else 0
            share = min(share, count - numbered)
            nodes.append((kind, chance.randrange(-1, 4), chance.choice((0, 1, 1, 3, 70)), chance.randrange(-1, 2), numbered, share, 0, chance.randrange(2)))  # fmt: skip
            numbered += share
        try:
            program = Program(
                nodes, [(0, 1.0)], [[b"a", b""]], [[0.0, float("nan")]], [(10, 2)], columns, 50, -1.0
            )
        except ValueError:
            continue
        built += 1
        matrix, faults = program.read(payloads, chance.choice((0, 3, 100)), bool(chance.randrange(2)))
        assert matrix.shape == (len(payloads), columns)
        bad = [fault[0] for fault in faults]
        assert np.isnan(matrix[bad]).all()
    assert built > mutants / 200
