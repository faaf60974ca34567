"""Fields of the input that results carry on: as they came, told apart from what is absent, null or unreadable."""

import io
import json
from decimal import Decimal
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.codec.contracts import contract
from penstock.engine.codec.framing import single_object_prefix
from penstock.engine.codec.json_encode import JsonPredictionEncoder
from penstock.engine.codec.passed_fields import PassedFields, avro_objects, json_objects, to_avro, to_json
from penstock.schemas.records import Records
from tests.unit.codec.test_contract_readers import messages, predictions, read


def records(*values: bytes | None) -> Records:
    count = len(values)
    return Records(
        topic="in", partitions=np.zeros(count, np.int32), offsets=np.arange(count), timestamps_ms=np.zeros(count, np.int64),
        keys=[None] * count, values=list(values),
    )  # fmt: skip


def test_json_fields_are_found_by_whole_name_and_by_path() -> None:
    passing = PassedFields(["id", "a.b", "c.d.e", "gone", "x"], objects=json_objects(skip=0), add=to_json)
    found, faults = passing.read(
        records(
            b'{"id": 18446744073709551615, "a.b": "whole", "a": {"b": "path"}, "c": {"d": {"e": [1, 2.50, true]}}, "x": null}',
            b'{"id": true, "a": {"b": 1e3}, "c": 5}',
            b"[1]",
            None,
        )
    )
    assert found == [
        {"id": "18446744073709551615", "a.b": "whole", "c.d.e": "[1,2.5,true]", "x": None},
        {"id": "true", "a.b": "1000.0"},
        {},
        {},
    ]
    assert not faults


def test_avro_fields_are_passed_whatever_their_type() -> None:
    schema: dict[str, Any] = {
        "type": "record", "name": "R", "fields": [
            {"name": "id", "type": ["null", "string"]}, {"name": "raw", "type": "bytes"},
            {"name": "amount", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "x", "type": "double"},
        ],
    }  # fmt: skip
    out = io.BytesIO()
    plain = {
        **schema,
        "fields": [{**f, "type": "long"} if f["name"] == "at" else f for f in schema["fields"]],
    }
    value = {"id": "é", "raw": b"\xff", "amount": Decimal("2.50"), "at": 2**62, "x": float("nan")}
    fastavro.schemaless_writer(out, fastavro.parse_schema(plain), value)
    prefix = single_object_prefix(schema)
    passing = PassedFields(
        ["id", "raw", "amount", "at", "x"],
        objects=avro_objects(lambda header: schema, skip=len(prefix)),
        add=to_avro,
    )
    found, faults = passing.read(records(prefix + out.getvalue(), prefix + out.getvalue()[:-3]))
    assert found[0] == {"id": "é", "raw": "/w==", "amount": "2.50", "at": str(2**62), "x": "nan"}
    assert [(place, str(fault.reason)) for place, fault in faults.items()] == [(1, "corrupt")]


@given(fields=st.dictionaries(st.text(max_size=200), st.none() | st.text(max_size=200), max_size=64))
def test_fields_stand_where_the_contract_has_them(fields: dict[str, str | None]) -> None:
    for name in ("prediction", "explanation"):
        for message in messages(name):
            before, after = read(message, contract(name)), read(to_avro(message, fields), contract(name))
            assert after["passed"] == fields
            assert repr(after | {"passed": {}}) == repr(before)
    [message] = predictions(JsonPredictionEncoder, 1, 5, np.zeros((1, 1)), None, [])
    assert json.loads(to_json(message, fields)) == {**json.loads(message), "passed": fields}


def test_what_the_decoder_reads_with_care_is_passed_on() -> None:
    passing = PassedFields(["id", "x"], objects=json_objects(skip=5), add=to_json)
    found, faults = passing.read(records(b'\0\0\0\0\1{"id": "a", "x": NaN}', b'\0\0\0\0\1{"id": 1e999}'))
    assert found == [{"id": "a", "x": "nan"}, {"id": "(a number past what a double holds)"}]
    assert not faults


@pytest.mark.parametrize("value", [b"{", b"\xff", b""])
def test_what_cannot_be_read_twice_is_one_records_fault(value: bytes) -> None:
    passing = PassedFields(["id"], objects=json_objects(skip=0), add=to_json)
    found, faults = passing.read(records(b'{"id": 1}', value, b'{"id": 2}'))
    assert [each.get("id") for each in found] == ["1", None, "2"]
    assert faults.keys() == {1}
