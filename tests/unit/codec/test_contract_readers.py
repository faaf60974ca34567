"""What others make of our messages: older and newer schemas, other libraries, JSON beside Avro."""

import io
import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import avro.compatibility
import avro.io
import avro.schema
import fastavro
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.json
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penstock.engine.codec.avro.encode import ExplanationEncoder, PredictionEncoder
from penstock.engine.codec.contracts import contract, older_contracts
from penstock.engine.codec.json_encode import JsonExplanationEncoder, JsonPredictionEncoder
from penstock.engine.codec.lineage import Lineage
from penstock.engine.dead_letters.message import DeadLetterEncoder, DeadLetterReader, ModelIdentity
from penstock.engine.ports import Attributions, Predictions
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Records, Rejection

docs = Path(__file__).parents[3] / "docs"
names = ["prediction", "explanation", "dead_letter"]
lineage = Lineage(cluster="c", topic="in", model_name="m", model_version="1", model_digest="d")
doubles = st.floats() | st.sampled_from([0.0, 1.0, 2.0, -2.0, math.nan, math.inf, -math.inf])
times = st.sampled_from([-1, 0, 1_700_000_000_123, 253402300799999, 253402300800000, 2**62])


def where(count: int, at_ms: int) -> Records:
    return Records(
        topic="in", partitions=np.arange(count, dtype=np.int32), offsets=np.arange(count) * 2**40,
        timestamps_ms=np.full(count, at_ms), keys=[None] * count, values=[None] * count, topic_id="7nZ",
    )  # fmt: skip


def predictions(
    kind: Any, count: int, at_ms: int, outputs: Any, labels: Any, classes: list[str]
) -> list[bytes]:
    framing = {"prefix": b""} if kind is PredictionEncoder else {}
    encoder = kind(**framing, lineage=lineage, output_names=["p"], classes=classes)
    predicted = Predictions(outputs={"p": outputs}, labels=labels, classes=tuple(classes))
    found: list[bytes] = encoder.encode(where(count, at_ms), predicted, at_ms)
    return found


def explanations(kind: Any, count: int, at_ms: int, matrix: Any, values: Any, top: int = 0) -> list[bytes]:
    framing = {"prefix": b""} if kind is ExplanationEncoder else {}
    encoder = kind(
        **framing, lineage=lineage, columns=["amount", "land"], tables=[None, ["NO", "SE"]],
        classes={"p": ["honest", "fraud"]}, top=top,
    )  # fmt: skip
    explained = Attributions(
        values=values, base=values[:, 0], output_index=np.arange(count) % 3, additivity_error=values[:, 1], sampling_error=None,
        output_name="p", method="sampled", background=None, space="value",
    )  # fmt: skip
    found: list[bytes] = encoder.encode(where(count, at_ms), matrix, explained)
    return found


def letters(prefix: bytes | None, *, payload: bytes | None = b"\x00\xff", at_ms: int = 5) -> list[bytes]:
    records = Records(
        topic="in", partitions=np.zeros(1, np.int32), offsets=np.ones(1, np.int64), timestamps_ms=np.array([at_ms]),
        keys=[b"k"], values=[payload], headers=lambda _: [("trace", b"\xff"), ("none", None)],
    )  # fmt: skip
    encode = DeadLetterEncoder(
        prefix=prefix, cluster="c", model=ModelIdentity(name="m", version="1", digest="d"), worker="w", message_bytes_max=10_000
    )  # fmt: skip
    return encode(records, [Rejection(index=0, stage=Stage.DECODE, reason=Reason.CORRUPT, detail="é")], at_ms)


def messages(name: str) -> list[bytes]:
    """Avro without framing."""
    match name:
        case "prediction":
            return predictions(
                PredictionEncoder, 2, 5, np.array([[0.25, 0.75]] * 2), np.array([1, 0]), ["no", "yes"]
            )
        case "explanation":
            matrix = np.array([[4.5, 1.0], [np.nan, np.nan], [1.0, 7.0]])
            return explanations(ExplanationEncoder, 3, 5, matrix, np.array([[0.5, -0.5]] * 3))
        case _:
            return letters(b"")


def read(message: bytes, writer: Any, reader: Any = None) -> Any:
    reader = fastavro.parse_schema(reader) if reader is not None else None
    return fastavro.schemaless_reader(io.BytesIO(message), fastavro.parse_schema(writer), reader)


@pytest.mark.parametrize("name", names)
def test_versions_read_each_other(name: str) -> None:
    older = older_contracts(name)
    assert older
    newest = avro.schema.parse(json.dumps(contract(name)))
    checker = avro.compatibility.ReaderWriterCompatibilityChecker()
    for each in older:
        old = avro.schema.parse(json.dumps(each))
        for reader, writer in ((newest, old), (old, newest)):
            verdict = checker.get_compatibility(reader, writer)
            assert verdict.compatibility is avro.compatibility.SchemaCompatibilityType.compatible, verdict


@pytest.mark.parametrize("name", names)
def test_an_old_reader_finds_what_it_knew(name: str) -> None:
    [old, *_] = older_contracts(name)
    for message in messages(name):
        new, seen = read(message, contract(name)), read(message, contract(name), old)

        def check(seen: Any, new: Any) -> None:
            if isinstance(seen, dict):
                for key, value in seen.items():
                    check(value, new[key])
            elif isinstance(seen, list):
                for one, other in zip(seen, new, strict=True):
                    check(one, other)
            else:
                assert repr(seen) == repr(new)

        check(seen, new)


@pytest.mark.parametrize("name", names)
def test_the_libraries_of_avro_agree(name: str) -> None:
    """Apache's own for Python is pure Python and shares nothing with fastavro."""
    schema = avro.schema.parse(json.dumps(contract(name)))
    for message in messages(name):
        theirs: Any = avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(io.BytesIO(message)))
        assert repr(_plain(theirs)) == repr(_plain(read(message, contract(name))))


def test_a_result_can_be_read_without_the_bundle() -> None:
    first, _ = (read(message, contract("prediction")) for message in messages("prediction"))
    assert dict(zip(first["classes"], first["outputs"]["p"], strict=True)) == {"no": 0.25, "yes": 0.75}
    assert (first["label"], first["label_index"]) == ("yes", 1)
    found = [read(message, contract("explanation")) for message in messages("explanation")]
    assert [each["output"]["class"] for each in found] == ["honest", "fraud", None]
    values = [[(a["number"], a["text"], a["value"]) for a in each["attributions"]] for each in found]
    assert values == [
        [(4.5, None, 4.5), (None, "SE", "SE")], [(None, None, None)] * 2, [(1.0, None, 1.0), (7.0, None, 7.0)],
    ]  # fmt: skip


def _plain(value: Any) -> Any:
    """As JSON says it: times as text, what is not finite by name, without the field of either type."""
    if isinstance(value, dict):
        return {
            key: _plain(each)
            for key, each in sorted(value.items())
            if not (key == "value" and "number" in value)
        }
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, datetime):
        return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


@given(st.data())
def test_json_says_what_avro_says(data: st.DataObject) -> None:
    count, at_ms = data.draw(st.integers(0, 4)), data.draw(times)
    outputs = data.draw(arrays(np.float64, (count, data.draw(st.integers(0, 3))), elements=doubles))
    labels = data.draw(st.none() | arrays(np.int64, count, elements=st.integers(0, 1)))
    found = predictions(JsonPredictionEncoder, count, at_ms, outputs, labels, ["nö", "yes"])
    avro_says = predictions(PredictionEncoder, count, at_ms, outputs, labels, ["nö", "yes"])
    for message, other in zip(found, avro_says, strict=True):
        assert repr(_plain(orjson.loads(message))) == repr(_plain(read(other, contract("prediction"))))
        assert fits(orjson.loads(message), published("prediction")) == []

    matrix, values = (data.draw(arrays(np.float64, (count, 2), elements=doubles)) for _ in range(2))
    top = data.draw(st.integers(0, 2))
    with np.errstate(invalid="ignore"):
        found = explanations(JsonExplanationEncoder, count, at_ms, matrix, values, top)
    avro_says = explanations(ExplanationEncoder, count, at_ms, matrix, values, top)
    for message, other in zip(found, avro_says, strict=True):
        assert repr(_plain(orjson.loads(message))) == repr(_plain(read(other, contract("explanation"))))
        assert fits(orjson.loads(message), published("explanation")) == []


@given(payload=st.none() | st.binary(max_size=20), at_ms=times)
def test_a_letter_comes_back_from_json_and_without_framing(payload: bytes | None, at_ms: int) -> None:
    [as_json], [bare] = (
        letters(None, payload=payload, at_ms=at_ms),
        letters(b"", payload=payload, at_ms=at_ms),
    )
    letter = DeadLetterReader().read(as_json)
    assert letter == DeadLetterReader().read(bare)
    assert (letter.payload, letter.at_ms) == (payload, at_ms)
    assert letter.headers == (("trace", b"\xff"), ("none", None))
    assert fits(orjson.loads(as_json), published("dead_letter")) == []


def test_letters_of_an_older_version_are_read() -> None:
    [message] = letters(b"")
    [old, *_] = older_contracts("dead_letter")
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(old), read(message, contract("dead_letter")))
    for framed in (out.getvalue(), b"\0\0\0\0\7" + out.getvalue(), _single_object(old) + out.getvalue()):
        assert DeadLetterReader().read(framed) == DeadLetterReader().read(message)


def _single_object(schema: Any) -> bytes:
    canonical = fastavro.schema.to_parsing_canonical_form(schema)
    return b"\xc3\x01" + bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))


def test_columns_of_json_have_one_type_each() -> None:
    """A number and a text in one column is what column stores refuse."""
    matrix = np.array([[4.5, 1.0], [np.nan, np.nan], [1.0, 7.0]])
    lines = explanations(JsonExplanationEncoder, 3, 1_700_000_000_000, matrix, np.array([[0.5, -0.5]] * 3))
    table = pyarrow.json.read_json(io.BytesIO(b"\n".join(lines)))
    found = table.schema.field("attributions").type.value_type
    assert (found.field("number").type, found.field("text").type) == (pa.float64(), pa.string())


def published(name: str) -> Any:
    return json.loads((docs / f"{name}.schema.json").read_text())


def fits(value: Any, schema: Any, path: str = "") -> list[str]:
    """What of a value is not as its JSON Schema says; the keywords that ours use, and a fault for any other."""
    unknown = schema.keys() - {
        "$schema", "title", "description", "type", "properties", "required", "items", "additionalProperties", "anyOf", "enum",
        "minimum", "maximum", "format", "contentEncoding",
    }  # fmt: skip
    faults = [f"{path}: {unknown}"] if unknown else []
    if "anyOf" in schema and all(fits(value, each, path) for each in schema["anyOf"]):
        faults.append(f"{path}: {value!r} is none of {schema['anyOf']}")
    if "enum" in schema and value not in schema["enum"]:
        faults.append(f"{path}: {value!r} is none of {schema['enum']}")
    kinds: dict[str, Any] = {
        "object": dict, "array": list, "string": str, "integer": int, "number": int | float, "null": type(None),
    }  # fmt: skip
    if "type" in schema and not isinstance(value, kinds[schema["type"]]):
        return [*faults, f"{path}: {value!r} is no {schema['type']}"]
    if isinstance(value, dict):
        faults += [f"{path}: {key} is missing" for key in schema.get("required", []) if key not in value]
        for key, each in value.items():
            inner = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            faults += fits(each, inner, f"{path}/{key}") if inner else [f"{path}: {key} is not described"]
    elif isinstance(value, list):
        faults += [fault for each in value for fault in fits(each, schema["items"], f"{path}/*")]
    elif isinstance(value, int) and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        faults.append(f"{path}: {value} is out of bounds")
    return faults


def test_the_checker_of_schemas_finds_faults() -> None:
    [message] = letters(None)
    good = orjson.loads(message)
    for change in (
        {"stage": "x"},
        {"at_ms": 2**63},
        {"payload": 5},
        {"more": 1},
        {"headers": [{"key": "k"}]},
    ):
        assert fits(good | change, published("dead_letter"))
