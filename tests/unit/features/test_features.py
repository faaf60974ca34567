"""Each feature's policy, over whole columns and against a reading of one value at a time."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.codec.schema_check import check_fields
from penstock.engine.features.policies import FeaturePolicies, unseen_code
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.schemas.errors import ConfigError
from penstock.schemas.reasons import Reason


def signature(*features: Feature) -> Signature:
    width = sum(feature.width for feature in features)
    return Signature(features=features, inputs=(ModelInput(name="x", dtype="float32", start=0, width=width),))


table = ("a", "b", "c")
ranges = st.sampled_from([(), ((0.0, 2.0),), ((-math.inf, -1.0), (1.0, 1.0), (3.0, math.inf)), ((3.5, 3.5),)])
numbers = st.builds(
    Feature,
    name=st.just("n"),
    kind=st.just("number"),
    missing=st.sampled_from(["nan", "reject", -1.0, 7.5]),
    infinite=st.sampled_from(["pass", "reject"]),
    within=ranges,
)
categories = st.builds(
    Feature,
    name=st.just("c"),
    kind=st.just("category"),
    categories=st.just(table),
    missing=st.sampled_from(["nan", "reject", 2.0]),
    unseen=st.sampled_from(["nan", "reject", 1]),
)
vectors = st.builds(
    Feature,
    name=st.just("v"),
    kind=st.just("vector"),
    width=st.just(2),
    missing=st.sampled_from(["nan", "reject", 0.5]),
    infinite=st.sampled_from(["pass", "reject"]),
    within=ranges,
)
values = st.sampled_from([0.0, 1.0, 2.0, -1.0, 3.5, math.nan, math.inf, -math.inf])
codes = st.sampled_from([0.0, 1.0, 2.0, math.nan, unseen_code])


def one(feature: Feature, value: float) -> float | Reason:
    """What the policy makes of one value."""
    if math.isnan(value):
        if isinstance(feature.missing, str):
            return Reason.MISSING_VALUE if feature.missing == "reject" else value
        return feature.missing
    if math.isinf(value) and feature.infinite == "reject":
        return Reason.NOT_FINITE
    if feature.within and not any(low <= value <= high for low, high in feature.within):
        return Reason.OUT_OF_RANGE
    if feature.kind == "category" and value == unseen_code:
        if isinstance(feature.unseen, str):
            return Reason.UNSEEN_CATEGORY if feature.unseen == "reject" else math.nan
        return float(feature.unseen)
    return value


@given(data=st.data(), number=numbers, category=categories, vector=vectors)
def test_policies_are_what_one_value_at_a_time_gives(
    data: st.DataObject, number: Feature, category: Feature, vector: Feature
) -> None:
    row = st.tuples(values, codes, values, values)
    given_rows = data.draw(st.lists(row, max_size=6))
    owners, names = (number, category, vector, vector), ("n", "c", "v[0]", "v[1]")
    matrix = np.array(given_rows, dtype=np.float32).reshape(-1, 4)
    places = np.arange(len(matrix), dtype=np.int64) * 3

    out, rows, rejections = FeaturePolicies(signature(number, category, vector)).apply(matrix, places)

    kept, rejected = [], []
    for place, each in zip(places.tolist(), given_rows, strict=True):
        results = [one(owner, value) for owner, value in zip(owners, each, strict=True)]
        faults = [
            (result, name) for result, name in zip(results, names, strict=True) if isinstance(result, Reason)
        ]
        if faults:
            rejected.append((place, *faults[0]))
        else:
            kept.append((place, results))
    assert [(r.index, r.reason, r.detail.split()[1]) for r in rejections] == rejected
    assert rows.tolist() == [place for place, _ in kept]
    np.testing.assert_array_equal(
        out, np.array([result for _, result in kept], dtype=np.float32).reshape(-1, 4)
    )


def test_a_clean_matrix_is_passed_on_without_a_copy() -> None:
    matrix, rows = np.ones((5, 1), dtype=np.float32), np.arange(5)
    out, same, rejections = FeaturePolicies(signature(Feature(name="n", kind="number"))).apply(matrix, rows)
    assert out is matrix
    assert same is rows
    assert rejections == []


flight: Any = {"type": "record", "name": "Flight", "fields": [
    {"name": "delay", "type": ["null", "double"]},
    {"name": "carrier", "type": {"type": "enum", "name": "Carrier", "symbols": ["AA"]}},
    {"name": "weather", "type": ["null", {"type": "record", "name": "Weather", "namespace": "sky", "fields": [
        {"name": "temp", "type": "float"}, {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}]},
    {"name": "there", "type": ["null", "sky.Weather"]},
    {"name": "speeds", "type": {"type": "array", "items": ["null", "int"]}},
    {"name": "note", "type": {"type": "string", "logicalType": "of-our-own"}},
]}  # fmt: skip


def test_a_schema_with_every_field_fits() -> None:
    check_fields(
        signature(
            Feature(name="delay", kind="number"),
            Feature(name="carrier", kind="category", categories=("AA",)),
            Feature(name="t", field="weather.temp", kind="number"),
            Feature(name="at", field="there.at", kind="number"),
            Feature(name="speeds", kind="vector", width=3),
            Feature(name="note", kind="category", categories=("x",)),
        ),
        flight,
        origin="the input schema",
    )


def test_every_field_at_fault_is_named_at_once() -> None:
    features = signature(
        Feature(name="d", field="dellay", kind="number"),
        Feature(name="carrier", kind="number"),
        Feature(name="delay", kind="category", categories=("x",)),
        Feature(name="w", field="weather.wind", kind="number"),
        Feature(name="x", field="delay.x", kind="number"),
        Feature(name="weather", kind="number"),
        Feature(name="speeds", kind="number"),
    )
    with pytest.raises(ConfigError) as caught:
        check_fields(features, flight, origin="the input schema")
    for said in (
        "field dellay is missing (there is delay)", "field carrier is not a number", "field delay is not a string or an enum",
        "field weather.wind is missing", "delay is no record, so field delay.x is not in it", "field weather is not a number",
        "field speeds is not a number",
    ):  # fmt: skip
        assert said in str(caught.value)


def test_what_is_no_schema_is_said_to_be_none() -> None:
    with pytest.raises(ConfigError, match="not an Avro schema"):
        check_fields(
            signature(Feature(name="n", kind="number")), {"type": "recrod"}, origin="the input schema"
        )
