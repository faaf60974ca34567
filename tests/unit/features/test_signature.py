"""What a model is fed: contradictions are found when it is described, not when a record comes."""

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.features.signature import Feature, ModelInput, Signature, feature_from_json
from penstock.schemas.errors import ConfigError

names = st.text(st.characters(codec="utf-8", exclude_characters="."), min_size=1, max_size=8)
policies: dict[str, Any] = {
    "missing": st.sampled_from(["nan", "reject", 0.0, 2]),
    "infinite": st.sampled_from(["pass", "reject"]),
}
ranges = st.sampled_from([(), ((0.0, 2.0),), ((-math.inf, -1.0), (0.1, 0.1), (3.0, math.inf))])
features = st.one_of(
    st.builds(Feature, name=names, kind=st.just("number"), within=ranges, **policies),
    st.builds(
        Feature, name=names, kind=st.just("vector"), width=st.integers(1, 4), within=ranges, **policies
    ),
    st.builds(
        Feature,
        name=names,
        kind=st.just("category"),
        categories=st.lists(st.text(max_size=4), min_size=3, max_size=5, unique=True).map(tuple),
        unseen=st.sampled_from(["nan", "reject", 1]),
        **policies,
    ),
)


@given(st.lists(features, min_size=1, max_size=5, unique_by=lambda feature: feature.name))
def test_a_signature_survives_its_json(chosen: list[Feature]) -> None:
    width = sum(feature.width for feature in chosen)
    whole = Signature(
        features=tuple(chosen), inputs=(ModelInput(name="x", dtype="float32", start=0, width=width),)
    )
    assert Signature.from_json(orjson.loads(orjson.dumps(whole.to_json()))) == whole
    assert len(whole.columns) == len(whole.column_features) == whole.width == width


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "category"},
        {"kind": "number", "categories": ("a",)},
        {"kind": "category", "categories": ("a", "a")},
        {"kind": "category", "categories": ("a",), "missing": 1},
        {"kind": "category", "categories": ("a",), "unseen": 0.5},
        {"kind": "number", "width": 2},
        {"kind": "vector", "width": 0},
        {"kind": "number", "missing": float("inf")},
        {"kind": "number", "missing": "zero"},
        {"kind": "number", "infinite": "nan"},
        {"kind": "number", "field": "a..b"},
        {"kind": "text"},
        {"kind": "category", "categories": ("a",), "within": ((0.0, 1.0),)},
        {"kind": "number", "within": ((1.0, 0.0),)},
        {"kind": "number", "within": ((0.0, 1.0), (1.0, 2.0))},
        {"kind": "number", "within": ((0.0, math.nan),)},
    ],
)
def test_a_feature_that_contradicts_itself_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="x"):
        Feature(name="x", **fields)


@pytest.mark.parametrize(
    "tree",
    [[], {"name": "a"}, {"name": "a", "kind": "number", "colour": 1}, {"name": 1, "kind": "number"},
     {"name": "a", "kind": "number", "within": 3}, {"name": "a", "kind": "number", "within": [[0]]},
     {"name": "a", "kind": "number", "within": [["0", 1]]}, {"name": "a", "kind": "vector", "width": True}, {"name": "a", "kind": "category", "categories": [1]}],
)  # fmt: skip
def test_a_malformed_description_is_refused(tree: Any) -> None:
    with pytest.raises(ConfigError):
        feature_from_json(tree)


def _signature(dtype: str, **policies: Any) -> Signature:
    feature = Feature(name="x", kind="number", **policies)
    return Signature(features=(feature,), inputs=(ModelInput(name="i", dtype=dtype, start=0, width=1),))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["int64", "int32", "bool"])
def test_an_input_without_nan_needs_a_policy_that_makes_none(dtype: str) -> None:
    with pytest.raises(ConfigError, match="has no NaN"):
        _signature(dtype)
    with pytest.raises(ConfigError, match="has no NaN"):
        _signature(dtype, missing="reject", infinite="pass")
    assert _signature(dtype, missing="reject").width == 1


def test_strings_come_from_categories_only() -> None:
    with pytest.raises(ConfigError, match="must be a category"):
        _signature("string")


@pytest.mark.parametrize(("start", "width"), [(1, 1), (0, 2), (0, 0)])
def test_every_column_belongs_to_one_input(start: int, width: int) -> None:
    with pytest.raises(ConfigError):
        Signature(
            features=(Feature(name="x", kind="number"),),
            inputs=(ModelInput(name="i", dtype="float32", start=start, width=width),),
        )


def test_the_matrix_is_narrow_only_when_that_loses_nothing() -> None:
    assert _signature("float32").dtype == np.float32
    assert _signature("bool", missing="reject").dtype == np.float32
    for wide in ("float64", "int64", "int32"):
        assert _signature(wide, missing="reject").dtype == np.float64
