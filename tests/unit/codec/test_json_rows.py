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
        {},
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
    (b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reason.CORRUPT),
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
