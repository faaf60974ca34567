"""JSON records to rows: every field where it belongs, every fault on its own record."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.codec.json_rows import JsonRows, chunk_bytes_max
from penstock.engine.features.policies import unseen_code
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.schemas.errors import ConfigError
from penstock.schemas.reasons import Reason

features = (
    Feature(name="delay", kind="number"),
    Feature(name="carrier", kind="category", categories=("AA", "UA")),
    Feature(name="temp", field="weather.temp", kind="number"),
    Feature(name="gust", field="weather.wind.gust", kind="number"),
    Feature(name="speeds", kind="vector", width=2),
)
reader = JsonRows(
    Signature(features=features, inputs=(ModelInput(name="x", dtype="float64", start=0, width=6),))
)
nan = math.nan


def read(*documents: Any) -> tuple[list[list[float]], list[int], dict[int, Reason]]:
    values = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in documents]
    matrix, rows, faults = reader.read(values)
    return matrix.tolist(), rows.tolist(), {place: error.reason for place, error in faults}


def test_fields_are_found_by_their_dotted_path() -> None:
    matrix, rows, faults = read({
        "speeds": [1, 2.5], "weather": {"wind": {"gust": 9}, "temp": -3.5}, "carrier": "UA", "delay": True, "more": [{}],
    })  # fmt: skip
    assert matrix == [[1.0, 1.0, -3.5, 9.0, 1.0, 2.5]]
    assert (rows, faults) == ([0], {})


def test_absent_and_null_are_missing_and_other_strings_unseen() -> None:
    matrix, rows, faults = read(
        {"delay": None},
        {"weather": None, "speeds": None, "carrier": None},
        {"carrier": "ZZ", "weather": {}, "speeds": [None, 1]},
    )
    np.testing.assert_array_equal(matrix, [[nan] * 6, [nan] * 6, [nan, unseen_code, nan, nan, nan, 1.0]])
    assert (rows, faults) == ([0, 1, 2], {})


good = {"delay": 1, "carrier": "AA", "weather": {"temp": 2, "wind": {"gust": 3}}, "speeds": [4, 5]}
poison: list[tuple[Any, Reason]] = [
    ({**good, "delay": "1"}, Reason.WRONG_TYPE),
    ({**good, "delay": [1]}, Reason.WRONG_TYPE),
    ({**good, "carrier": 1}, Reason.WRONG_TYPE),
    ({**good, "weather": 1}, Reason.WRONG_TYPE),
    ({**good, "weather": {"wind": [1]}}, Reason.WRONG_TYPE),
    ({**good, "speeds": [1]}, Reason.WRONG_TYPE),
    ({**good, "speeds": [1, "2"]}, Reason.WRONG_TYPE),
    ({**good, "speeds": {"0": 1}}, Reason.WRONG_TYPE),
    (b"[]", Reason.WRONG_TYPE),
    (b"1", Reason.WRONG_TYPE),
    (b"", Reason.CORRUPT),
    (b'{"delay": 1', Reason.CORRUPT),
    (b'{"delay": 1} x', Reason.CORRUPT),
    (b'{"delay": NaN}', Reason.CORRUPT),
    (b'{"delay": 1e999}', Reason.CORRUPT),
    (b'{"delay": %s}' % (b"9" * 4000), Reason.CORRUPT),
    (b'{"carrier": "\xff"}', Reason.CORRUPT),
    (b'{"carrier": "\\ud800"}', Reason.CORRUPT),
    (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reason.LIMIT_EXCEEDED),
]


@given(batch=st.lists(st.none() | st.sampled_from(poison), max_size=12))
def test_a_bad_record_is_one_fault_and_its_neighbours_are_as_in_a_clean_batch(
    batch: list[tuple[Any, Reason] | None],
) -> None:
    matrix, rows, faults = read(*[good if each is None else each[0] for each in batch])
    assert faults == {place: each[1] for place, each in enumerate(batch) if each is not None}
    assert rows == [place for place, each in enumerate(batch) if each is None]
    assert matrix == [[1.0, 0.0, 2.0, 3.0, 4.0, 5.0]] * len(rows)


@given(value=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["delay", "carrier", "weather", "wind", "speeds"]), inner, max_size=3),
    max_leaves=12,
))  # fmt: skip
def test_whatever_a_record_is_it_has_a_row_or_a_fault(value: Any) -> None:
    _, rows, faults = read(good, value, good)
    assert sorted([*rows, *faults]) == [0, 1, 2]
    assert {0, 2} <= set(rows)


def test_of_a_name_that_stands_twice_the_last_counts() -> None:
    matrix, _, _ = read(b'{"delay": 1, "delay": 2}')
    assert matrix[0][0] == 2.0


def test_large_batches_are_read_in_pieces_without_a_seam() -> None:
    padding = "x" * (chunk_bytes_max // 5)
    documents = [{"delay": place, "pad": padding} for place in range(12)]
    matrix, rows, faults = read(*documents, b"{", *documents)
    assert [row[0] for row in matrix] == [float(place) for place in [*range(12), *range(12)]]
    assert faults == {12: Reason.CORRUPT}
    assert rows == [*range(12), *range(13, 25)]


@pytest.mark.parametrize("number", [1e300, -1e300])
def test_a_double_past_float32_is_an_infinity(number: float) -> None:
    narrow = JsonRows(
        Signature(
            features=(Feature(name="delay", kind="number"),),
            inputs=(ModelInput(name="x", dtype="float32", start=0, width=1),),
        )
    )
    matrix, _, _ = narrow.read([json.dumps({"delay": number}).encode()])
    assert np.isinf(matrix).all()


def test_details_quote_no_value() -> None:
    values = [b'{"delay": "4711-0815"}', b'{"speeds": ["4711-0815"]}', b'"4711-0815', b'"4711-0815"']
    _, _, faults = reader.read(values)
    assert len(faults) == 4
    assert not any("4711" in str(error) for _, error in faults)


def one_reader(*features: Feature, **options: Any) -> JsonRows:
    width = sum(feature.width for feature in features)
    inputs = (ModelInput(name="x", dtype="float64", start=0, width=width),)
    return JsonRows(Signature(features=features, inputs=inputs), **options)


def outcome(rows: JsonRows, value: bytes) -> list[float] | tuple[Reason, str]:
    matrix, _, faults = rows.read([value])
    return (faults[0][1].reason, faults[0][1].detail) if faults else matrix[0].tolist()


flat = (Feature(name="petal.length", kind="number"), Feature(name="petal.width", kind="number"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"petal.length": 1.4, "petal.width": 0.2}, [1.4, 0.2]),
        ({"petal": {"length": 1.4, "width": 0.2}}, [1.4, 0.2]),
        ({"petal": {"length": 9, "width": 0.2}, "petal.length": 1.4}, [1.4, 0.2]),
        ({"petal": 3, "petal.length": 1.4, "petal.width": 0.2}, [1.4, 0.2]),
        ({"petal.length": None, "petal": {"length": 9, "width": 0.2}}, [nan, 0.2]),
    ],
)
def test_a_dotted_name_is_a_member_of_that_name_before_it_is_a_path(
    value: Any, expected: list[float]
) -> None:
    rows = one_reader(*flat)
    nested = {"petal": {"length": 5, "width": 6}}
    matrix, _, faults = rows.read([json.dumps(each).encode() for each in (nested, value, nested)])
    assert faults == []
    np.testing.assert_array_equal(matrix, [[5, 6], expected, [5, 6]])


def test_an_escaped_dot_belongs_to_a_name() -> None:
    rows = one_reader(
        Feature(name="a", field=r"petal\.length", kind="number"),
        Feature(name="b", field=r"iris.sepal\.width", kind="number"),
        Feature(name="no. of seats", kind="number"),
        Feature(name="back\\slash", kind="number"),
    )
    value = {
        "petal": {"length": 9},
        "petal.length": 1,
        "iris": {"sepal.width": 2},
        "no. of seats": 3,
        "back\\slash": 4,
    }
    assert outcome(rows, json.dumps(value).encode()) == [1, 2, 3, 4]


@pytest.mark.parametrize("field", ["a..b", ".", "a.", "a\\"])
def test_a_field_that_leads_nowhere_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match="field"):
        Feature(name="x", field=field, kind="number")


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ({}, ""),
        ({"Delay": 1, "CARRIER": "AA"}, ""),
        ({"weather": {}}, ""),
        ({"weather": {"wind": {"gusts": 1}}}, ""),
        ({"weather": None}, ""),
        ({"schema": {}, "payload": {"delay": 1}}, "schemas.enable=false"),
        ({"before": None, "after": {"delay": 1}, "op": "c"}, "after.x"),
    ],
)
def test_a_record_without_any_of_the_fields_is_no_row(value: Any, hint: str) -> None:
    kind, detail = outcome(reader, json.dumps(value).encode())
    assert kind is Reason.NO_FEATURES
    assert hint in str(detail)
    scored = JsonRows(
        Signature(features=features, inputs=(ModelInput(name="x", dtype="float64", start=0, width=6),)),
        refuses_empty=False,
    )
    assert np.isnan(outcome(scored, json.dumps(value).encode())).all()


@pytest.mark.parametrize("value", [{"delay": None}, {"weather": {"wind": {"gust": None}}}, {"carrier": "?"}])
def test_one_field_is_enough_even_as_null(value: Any) -> None:
    assert isinstance(outcome(reader, json.dumps(value).encode()), list)


def test_the_literals_that_json_does_not_have_are_named_or_read() -> None:
    rows = one_reader(Feature(name="x", kind="number"))
    for literal in ("NaN", "Infinity", "-Infinity"):
        kind, detail = outcome(rows, f'{{"x": {literal}}}'.encode())
        assert kind is Reason.CORRUPT
        assert "input.json.nan: missing" in str(detail)
        assert literal.removeprefix("-") in str(detail)
    rows = one_reader(Feature(name="x", kind="number"), nan="missing")
    read_ = [outcome(rows, f'{{"x": {literal}}}'.encode())[0] for literal in ("NaN", "Infinity", "-Infinity")]
    np.testing.assert_array_equal(np.array(read_, dtype=np.float64), [nan, math.inf, -math.inf])


@pytest.mark.parametrize("note", ['"\\ud800"', "NaN", "1e999", "9" * 5000, '["\\udfff", {"a": -Infinity}]'])
def test_what_is_wrong_in_a_field_that_nobody_reads_harms_nobody(note: str) -> None:
    rows = one_reader(Feature(name="x", kind="number"), Feature(name="c", kind="category", categories=("é",)))
    assert outcome(rows, f'{{"note": {note}, "x": 2.5, "c": "\\u00e9"}}'.encode()) == [2.5, 0.0]


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (b"", Reason.CORRUPT, "empty"),
        (b'{"delay": 1', Reason.CORRUPT, "ends before"),
        (b'{"delay": 1} {}', Reason.CORRUPT, "more follows"),
        (b"{'delay': 1}", Reason.CORRUPT, "not JSON, from character 1"),
        (b'{"delay": 1e999}', Reason.CORRUPT, "field delay holds a number past what a double holds"),
        (b'{"carrier": "\\ud800"}', Reason.CORRUPT, "half of a surrogate pair"),
        (b'{"carrier": "\xff"}', Reason.CORRUPT, "not UTF-8"),
        (b"[" * 5000, Reason.LIMIT_EXCEEDED, "deeper"),
        ('{"delay": 1}'.encode("utf-16"), Reason.BAD_FRAMING, "UTF-16"),
        ('{"delay": 1}'.encode("utf-16-le"), Reason.BAD_FRAMING, "UTF-16"),
        ('{"delay": 1}'.encode("utf-16-be"), Reason.BAD_FRAMING, "UTF-16"),
        ('{"delay": 1}'.encode("utf-32"), Reason.BAD_FRAMING, "UTF-32"),
        (b'\0\0\0\0\7{"delay": 1}', Reason.BAD_FRAMING, "input.framing: confluent"),
        (b"\xc3\x01" + bytes(20), Reason.BAD_FRAMING, "input.format: avro"),
        (b"Obj\x01" + bytes(20), Reason.BAD_FRAMING, "Avro file"),
        (b"\x1f\x8b\x08" + bytes(20), Reason.BAD_FRAMING, "compression.type"),
        (b"\x28\xb5\x2f\xfd" + bytes(20), Reason.BAD_FRAMING, "compression.type"),
        (b"\x03\0" + bytes(20), Reason.BAD_FRAMING, "Glue"),
    ],
)  # fmt: skip
def test_a_value_that_is_no_json_is_named_for_what_it_is(value: bytes, kind: Reason, said: str) -> None:
    found, detail = outcome(reader, value)
    assert (found, said in str(detail)) == (kind, True), detail


def test_a_byte_order_mark_is_passed_over() -> None:
    assert outcome(reader, b"\xef\xbb\xbf" + json.dumps(good).encode()) == [1.0, 0.0, 2.0, 3.0, 4.0, 5.0]


def test_json_behind_a_schema_id_is_read_where_the_settings_say_so() -> None:
    rows = one_reader(Feature(name="x", kind="number"), confluent_header=True)
    assert outcome(rows, b'\0\0\0\0\7{"x": 1}') == [1.0]
    kind, detail = outcome(rows, b'{"x": 1}')
    assert kind is Reason.BAD_FRAMING
    assert "leave out input.framing" in str(detail)


sizes = Feature(name="x", kind="category", categories=("1", "2", "30"))
rates = Feature(name="x", kind="category", categories=("0.5", "1.0", "-2.25"))
flags = Feature(name="x", kind="category", categories=("False", "True"))
mixed = Feature(name="x", kind="category", categories=("A", "true", "7"))


@pytest.mark.parametrize(
    ("feature", "value", "code"),
    [
        (sizes, 2, 1), (sizes, 2.0, 1), (sizes, "2", 1), (sizes, 2.5, -1), (sizes, "2.0", -1), (sizes, 4, -1), (sizes, None, nan),
        (rates, 0.5, 0), (rates, 1, 1), (rates, -2.25, 2), (rates, "0.5", 0), (rates, 0.25, -1),
        (flags, True, 1), (flags, False, 0), (flags, "True", 1), (flags, "true", -1),
        (mixed, True, 1), (mixed, False, -1), (mixed, 7, 2), (mixed, "7", 2), (mixed, "A", 0),
    ],
)  # fmt: skip
def test_a_category_is_found_by_its_name_or_by_its_value(feature: Feature, value: Any, code: float) -> None:
    np.testing.assert_array_equal(outcome(one_reader(feature), json.dumps({"x": value}).encode()), [code])


@pytest.mark.parametrize(
    ("feature", "value"), [(sizes, True), (flags, 1), (rates, False), (sizes, [1]), (flags, {})]
)
def test_a_category_is_not_found_by_a_value_of_another_type(feature: Feature, value: Any) -> None:
    assert outcome(one_reader(feature), json.dumps({"x": value}).encode())[0] is Reason.WRONG_TYPE
