"""Predictions and explanations as bytes: what fastavro reads back is exactly what went in."""

import io
import math
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from penstock.engine.codec.avro.encode import ExplanationEncoder, PredictionEncoder
from penstock.engine.codec.contracts import contract
from penstock.engine.codec.framing import confluent_prefix, single_object_prefix
from penstock.engine.codec.lineage import Lineage
from penstock.engine.ports import Attributions, Predictions
from penstock.schemas.records import Records

doubles = st.floats()
names = st.text(max_size=20)


def decoded(contract_name: str, prefix: bytes, payloads: list[bytes]) -> list[Any]:
    schema = fastavro.parse_schema(contract(contract_name))
    found = []
    for payload in payloads:
        assert payload.startswith(prefix)
        stream = io.BytesIO(payload[len(prefix) :])
        found.append(fastavro.schemaless_reader(stream, schema, None))
        assert stream.read() == b""
    return found


def same(found: Any, expected: Any) -> None:
    """Equal, NaN included, and -0.0 told from 0.0."""
    assert repr(found) == repr(expected)


def sources(count: int) -> tuple[Any, Any, Any]:
    partitions = np.arange(count, dtype=np.int32) * 7
    offsets = np.array([*(2**62, 0, 2**31, 63, 64, 8191, 8192)][:count], dtype=np.int64)
    return partitions, offsets, np.where(np.arange(count) % 2, -1, 1_700_000_000_000 + offsets % 1000)


def source(place: int, columns: tuple[Any, Any, Any]) -> dict[str, Any]:
    partition, offset, timestamp_ms = (int(column[place]) for column in columns)
    return {
        "cluster": "klüster", "topic": "transactions", "partition": partition, "offset": offset, "timestamp_ms": timestamp_ms,
        "timestamp": moment(timestamp_ms), "topic_id": "7nZ",
    }  # fmt: skip


def moment(at_ms: int) -> datetime | None:
    """The time as a reader's library gives it; None where no calendar has it."""
    if not 0 <= at_ms <= 253402300799999:
        return None
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at_ms)


model = {"name": "fraud", "version": "2024-1", "digest": "ab" * 32}
lineage = Lineage(
    cluster="klüster",
    topic="transactions",
    model_name="fraud",
    model_version="2024-1",
    model_digest="ab" * 32,
)


def records(partitions: Any, offsets: Any, timestamps_ms: Any) -> Records:
    nothing: list[bytes | None] = [None] * len(partitions)
    return Records(
        topic="transactions", partitions=partitions, offsets=offsets, timestamps_ms=timestamps_ms, keys=nothing, values=nothing,
        topic_id="7nZ",
    )  # fmt: skip


def attributions(
    values: Any, base: Any, output_index: Any, additivity: Any, sampling: Any, **changes: Any
) -> Attributions:
    return replace(
        Attributions(
            values=values, base=base, output_index=output_index, additivity_error=additivity, sampling_error=sampling,
            output_name="probabilities", method="tree_path_dependent", space="log_odds", background=None,
        ),
        **changes,
    )  # fmt: skip


@given(st.data())
def test_predictions_are_read_back_exactly(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 6))
    output_names = data.draw(st.lists(names, max_size=3, unique=True))
    outputs = [
        data.draw(arrays(np.float64, (count, data.draw(st.integers(0, 3))), elements=doubles))
        for _ in output_names
    ]
    classes = data.draw(st.lists(names, min_size=1, max_size=3))
    labels = data.draw(
        st.one_of(st.none(), arrays(np.int64, count, elements=st.integers(0, len(classes) - 1)))
    )
    at_ms = data.draw(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 2**48))
    prefix = confluent_prefix(data.draw(st.integers(0, 2**31 - 1)))
    columns = sources(count)

    encoder = PredictionEncoder(prefix=prefix, lineage=lineage, output_names=output_names, classes=classes)
    predictions = Predictions(
        outputs=dict(zip(output_names, outputs, strict=True)), labels=labels, classes=tuple(classes)
    )
    payloads = encoder.encode(records(*columns), predictions, at_ms)

    expected = [
        {
            "source": source(place, columns),
            "model": model,
            "outputs": {
                name: output[place].tolist() for name, output in zip(output_names, outputs, strict=True)
            },
            "label": None if labels is None else classes[labels[place]],
            "predicted_at_ms": at_ms,
            "predicted_at": moment(at_ms),
            "classes": classes,
            "label_index": None if labels is None else int(labels[place]),
            "passed": {},
        }
        for place in range(count)
    ]
    same(decoded("prediction", prefix, payloads), expected)


def explanation_encoder(**changes: Any) -> ExplanationEncoder:
    settings: dict[str, Any] = {
        "prefix": b"", "lineage": lineage, "columns": ["amount", "land", "höhe"], "tables": [None, ["NO", "SE", ""], None],
        "classes": {}, "top": 0,
    }  # fmt: skip
    return ExplanationEncoder(**{**settings, **changes})


def chosen(values: list[float], top: int) -> list[int]:
    """The places of the strongest values, by definition."""
    if top == 0 or top >= len(values):
        return [*range(len(values))]
    strength = [math.inf if math.isnan(value) else abs(value) for value in values]
    return sorted(range(len(values)), key=lambda place: (-strength[place], place))[:top]


@given(st.data())
def test_explanations_are_read_back_exactly(data: st.DataObject) -> None:
    count, width, top = (
        data.draw(st.integers(0, 6)),
        data.draw(st.integers(1, 6)),
        data.draw(st.integers(0, 7)),
    )
    features = [f"feature {place}" for place in range(width)]
    table = st.lists(names, min_size=1, max_size=3)
    tables = data.draw(st.lists(st.one_of(st.none(), table), min_size=width, max_size=width))
    codes = st.sampled_from([0.0, 1.0, 2.0, -1.0, 3.0, math.nan])
    matrix = data.draw(arrays(np.float64, (count, width), elements=st.one_of(codes, doubles)))
    if data.draw(st.booleans()):
        with np.errstate(over="ignore"):
            matrix = matrix.astype(np.float32)
    repeated = st.one_of(st.sampled_from([-2.0, 2.0, 0.0]), doubles)
    values = data.draw(arrays(np.float64, (count, width), elements=repeated))
    base, additivity = (data.draw(arrays(np.float64, count, elements=doubles)) for _ in range(2))
    sampling = data.draw(st.one_of(st.none(), arrays(np.float64, count, elements=doubles)))
    output_index = data.draw(arrays(np.int64, count, elements=st.integers(0, 2) | st.integers(0, 2**31 - 1)))
    classes = data.draw(st.lists(names, max_size=3))
    background = data.draw(st.one_of(st.none(), names))
    prefix = single_object_prefix(contract("explanation"))
    columns = sources(count)

    encoder = explanation_encoder(
        prefix=prefix, columns=features, tables=tables, top=top, classes={"probabilities": classes}
    )
    explained = attributions(values, base, output_index, additivity, sampling, background=background)
    payloads = encoder.encode(records(*columns), matrix, explained)

    def value(place: int, feature: int) -> Any:
        number, table = float(matrix[place, feature]), tables[feature]
        if math.isnan(number):
            return None
        return table[int(number)] if table and 0 <= number < len(table) else number

    expected = []
    for place in range(count):
        kept = chosen(values[place].tolist(), top)
        rest = 0.0
        for feature in range(width):
            if feature not in kept:
                rest += float(values[place, feature])
        expected.append(
            {
                "source": source(place, columns),
                "model": model,
                "method": "tree_path_dependent",
                "background": background,
                "output": {
                    "name": "probabilities", "index": (index := int(output_index[place])),
                    "class": classes[index] if index < len(classes) else None,
                },
                "space": "log_odds",
                "base_value": float(base[place]),
                "attributions": [
                    {
                        "feature": features[feature], "value": (v := value(place, feature)),
                        "attribution": float(values[place, feature]),
                        "number": v if isinstance(v, float) else None, "text": v if isinstance(v, str) else None,
                    }
                    for feature in kept
                ],
                "rest": rest,
                "additivity_error": float(additivity[place]),
                "sampling_error": None if sampling is None else float(sampling[place]),
                "passed": {},
            }
        )  # fmt: skip
    same(decoded("explanation", prefix, payloads), expected)


def test_many_explanations_at_once() -> None:
    """What is reserved for a message suffices for the longest, over a large batch."""
    count, width = 3000, 40
    rng = np.random.default_rng(3)
    table = ["c" * length for length in range(1, 60)]
    encoder = explanation_encoder(
        columns=[f"f{place}" for place in range(width)], tables=[table] * width, prefix=b"12345"
    )
    matrix = rng.integers(55, 59, size=(count, width)).astype(np.float64)
    values = rng.normal(size=(count, width))
    where = (np.full(count, 2**31 - 1, np.int32), np.full(count, 2**63 - 1), np.full(count, -(2**63)))
    error = np.full(count, 0.5)
    explained = attributions(values, values[:, 0], np.full(count, 2**31 - 1), error, values[:, 1])
    payloads = encoder.encode(records(*where), matrix, explained)
    found = decoded("explanation", b"12345", payloads)
    assert len(found) == count
    assert [len(each["value"]) for each in found[-1]["attributions"]] == (matrix[-1] + 1).tolist()
    assert [each["attribution"] for each in found[-1]["attributions"]] == values[-1].tolist()
    assert found[0]["source"]["timestamp_ms"] == -(2**63)


def changed(columns: Any, changes: dict[str, Any]) -> Any:
    names = [field.name for field in fields(columns)]
    return replace(columns, **{name: value for name, value in changes.items() if name in names})


def predict(**changes: Any) -> list[bytes]:
    encoder = PredictionEncoder(prefix=b"", lineage=lineage, output_names=["p"], classes=["no", "yes"])
    where = records(np.zeros(2, np.int32), np.zeros(2, np.int64), np.zeros(2, np.int64))
    predictions = Predictions(
        outputs={"p": np.zeros((2, 2))}, labels=np.zeros(2, np.int64), classes=("no", "yes")
    )
    return encoder.encode(changed(where, changes), changed(predictions, changes), 0)


def explain(matrix: Any = np.zeros((2, 3)), **changes: Any) -> list[bytes]:  # noqa: B008  # nobody writes to it
    where = records(np.zeros(2, np.int32), np.zeros(2, np.int64), np.zeros(2, np.int64))
    explained = attributions(np.zeros((2, 3)), np.zeros(2), np.zeros(2, np.int64), np.zeros(2), None)
    return explanation_encoder().encode(changed(where, changes), matrix, changed(explained, changes))


@pytest.mark.parametrize(
    ("encode", "changes"),
    [
        (predict, {"offsets": np.zeros(3, np.int64)}),
        (predict, {"outputs": {"p": np.zeros((3, 2))}}),
        (predict, {"labels": np.zeros(1, np.int64)}),
        (predict, {"labels": np.array([0, 2])}),
        (predict, {"labels": np.array([-1, 0])}),
        (explain, {"matrix": np.zeros((2, 4))}),
        (explain, {"values": np.zeros((1, 3))}),
        (explain, {"base": np.zeros(3)}),
        (explain, {"additivity_error": np.zeros(1)}),
        (explain, {"sampling_error": np.zeros(1)}),
        (explain, {"output_index": np.array([0, -1])}),
        (explain, {"output_index": np.array([2**31, 0])}),
    ],
)
def test_columns_that_do_not_agree_are_refused(
    encode: Callable[..., list[bytes]], changes: dict[str, Any]
) -> None:
    assert len(encode()) == 2
    with pytest.raises(ValueError, match=r"\w"):
        encode(**changes)


def test_the_single_object_header_is_the_one_that_avro_publishes() -> None:
    """The fingerprint of `"int"` is in Avro's own test data: 7275d51a3f395c8f, little-endian in the header."""
    assert single_object_prefix("int") == b"\xc3\x01" + bytes.fromhex("8f5c393f1ad57572")
