"""Doubles become float32 without changing sides: for any thresholds, any values, and whole models record by record."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.tree import DecisionTreeRegressor

from penstock.engine.clock import SystemClock
from penstock.engine.codec.json_rows import JsonRows
from penstock.engine.features.narrowing import as_fed, cuts_of, levels_of, widened
from penstock.engine.features.policies import FeaturePolicies
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.features.value_counts import ValueCounts
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.packaging.package import package
from penstock.engine.models.packaging.parity import ParityError
from penstock.engine.models.runtime.loader import open_model
from penstock.schemas.errors import ConfigError

records_count = int(os.environ.get("PENSTOCK_SOAK_RECORDS", "4000"))
"""Made records a family; 1,000,000 in a long run."""
doubles = st.floats(allow_nan=False, width=64)
close = st.tuples(st.sampled_from([0.0, 1.0, -3.5, 2.0e7, 5.0e9, 1e-44, 3.3e38]), st.integers(-40, 40)).map(
    lambda pair: pair[0] + pair[1] * np.spacing(np.float64(pair[0])) * 2.0**20
)


def _signature(*columns: NDArray[np.float64]) -> Signature:
    return Signature(
        features=tuple(
            Feature(name=f"f{index}", kind="number", infinite="pass") for index in range(len(columns))
        ),
        inputs=(ModelInput(name="x", dtype="float32", start=0, width=len(columns)),),
        cuts=tuple(tuple(column.tolist()) for column in columns),
    )


@given(st.lists(doubles | close, min_size=1, max_size=40), st.lists(doubles | close, max_size=20))
def test_every_value_keeps_its_side_of_every_threshold(thresholds: list[float], values: list[float]) -> None:
    # Above the largest float32 but one there is no level left between a cut and infinity.
    cuts = cuts_of(np.array([each for each in thresholds if abs(each) < 3.4e38]))
    if not len(cuts):
        return
    levels = levels_of(cuts)
    assert (np.diff(levels) > 0).all()
    around = [
        np.nextafter(cuts, -np.inf),
        cuts,
        np.nextafter(cuts, np.inf),
        np.array(values, dtype=np.float64),
    ]
    rows = np.concatenate(around).reshape(-1, 1)
    found: NDArray[Any] = as_fed(rows, _signature(cuts))
    assert found.dtype == np.float32
    with np.errstate(over="ignore"):
        meant = np.where(np.isinf(rows.astype(np.float32)), rows.astype(np.float32), rows)
    np.testing.assert_array_equal(found <= levels, meant <= cuts)


@given(
    st.lists(doubles | close, min_size=1, max_size=20), st.lists(st.floats(width=32), min_size=1, max_size=20)
)
def test_rows_are_widened_to_doubles_that_become_the_same_rows(
    thresholds: list[float], values: list[float]
) -> None:
    cuts = cuts_of(np.array(thresholds))
    rows = np.concatenate((levels_of(cuts), np.array(values, dtype=np.float32))).reshape(-1, 1)
    signature = _signature(cuts)
    np.testing.assert_array_equal(as_fed(widened(rows, signature), signature), rows)


@given(
    st.lists(st.tuples(*[doubles | close | st.just(np.nan)] * 3), max_size=12),
    st.lists(doubles | close, min_size=1, max_size=20),
    st.sampled_from([None, -3.5, 2.0e7]),
)
def test_a_batch_with_policies_is_what_its_rows_are_one_by_one(
    rows: list[tuple[float, ...]], thresholds: list[float], sentinel: float | None
) -> None:
    cuts = cuts_of(np.array([each for each in thresholds if abs(each) < 3.4e38]))
    signature = Signature(
        features=(
            Feature(name="filled", kind="number", missing=0.1, infinite="pass", sentinel=sentinel),
            Feature(name="needed", kind="number", missing="reject", infinite="reject"),
            Feature(name="free", kind="number", infinite="pass"),
        ),
        inputs=(ModelInput(name="x", dtype="float32", start=0, width=3),),
        cuts=tuple(tuple(cuts.tolist()) for _ in range(3)),
    )
    wanted, missing, kept = [], np.zeros(3, dtype=np.int64), []
    for place, row in enumerate(rows):
        values = np.array(row)
        missing += np.isnan(values)
        with np.errstate(over="ignore"):
            single = values.astype(np.float32)
        if np.isnan(values[0]) or (sentinel is not None and single[0] == np.float32(sentinel)):
            values[0] = 0.1
        if np.isfinite(single[1]):
            kept.append(place)
            wanted.append(as_fed(values.reshape(1, 3), _signature(cuts, cuts, cuts)))
    counts = ValueCounts(signature)
    fed, places, rejections = FeaturePolicies(signature, counts).apply(
        np.array(rows, dtype=np.float64).reshape(-1, 3), np.arange(len(rows))
    )
    assert fed.dtype == np.float32
    assert fed.tobytes() == b"".join(each.tobytes() for each in wanted)
    assert places.tolist() == kept
    assert len(rejections) == len(rows) - len(kept)
    assert counts.missing.tolist() == missing.tolist()


def test_a_value_far_from_every_threshold_is_the_nearest_float32() -> None:
    values = np.random.default_rng(0).normal(size=(1000, 1))
    found = as_fed(values, _signature(cuts_of(np.array([0.1, 0.2, 0.7]))))
    np.testing.assert_array_equal(found, values.astype(np.float32))


@pytest.mark.parametrize("cuts", [((1.0, 1.0),), ((2.0, 1.0),), ((1.0,), (2.0,))])
def test_cuts_that_are_not_ascending_or_not_one_a_column_are_refused(cuts: Any) -> None:
    with pytest.raises(ConfigError, match="cuts"):
        Signature(
            features=(Feature(name="a", kind="number"),),
            inputs=(ModelInput(name="x", dtype="float32", start=0, width=1),),
            cuts=cuts,
        )


def _prices(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    return np.stack(
        (np.round(np.exp(random.normal(3, 1, count)), 2), random.integers(1, 20, count).astype(np.float64)), 1
    )


def _ids(start: float, spread: int) -> Callable[[int, np.random.Generator], NDArray[np.float64]]:
    def made(count: int, random: np.random.Generator) -> NDArray[np.float64]:
        return np.stack((start + random.integers(0, spread, count), random.normal(size=count).round(1)), 1)

    return made


def _doubles(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    return random.normal(size=(count, 2))


numbers: dict[str, Callable[[int, np.random.Generator], NDArray[np.float64]]] = {
    "prices of two decimals": _prices,
    "ids near 2e7": _ids(20_000_000, 500),
    "ids near 5e9": _ids(5_000_000_000, 500),
    "milliseconds since 1970": _ids(1_700_000_000_000, 30_000_000_000),
    "doubles": _doubles,
}
families: dict[str, Callable[[], Any]] = {
    "lightgbm": lambda: lightgbm.LGBMRegressor(n_estimators=40, verbose=-1, n_jobs=1),
    "lightgbm classifier": lambda: lightgbm.LGBMClassifier(n_estimators=40, verbose=-1, n_jobs=1),
    "xgboost": lambda: xgboost.XGBRegressor(n_estimators=40, max_depth=6, n_jobs=1),
    "histogram boosting": lambda: HistGradientBoostingRegressor(max_iter=30, random_state=0),
    "histogram boosting classifier": lambda: HistGradientBoostingClassifier(max_iter=20, random_state=0),
    "random forest": lambda: RandomForestRegressor(10, random_state=0),
    "random forest classifier": lambda: RandomForestClassifier(10, max_depth=8, random_state=0),
    "extra trees": lambda: ExtraTreesRegressor(10, random_state=0),
    "gradient boosting": lambda: GradientBoostingRegressor(n_estimators=30, random_state=0),
    "tree": lambda: DecisionTreeRegressor(random_state=0),
}


def _served(bundle: Bundle, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the stream answers to JSON records of these rows."""
    names = bundle.signature.columns
    records = [json.dumps(dict(zip(names, row, strict=True))).encode() for row in rows.tolist()]
    matrix, places, faults = JsonRows(bundle.signature).read(records)
    assert not faults
    matrix, _, rejected = FeaturePolicies(bundle.signature).apply(matrix, places)
    assert not rejected
    model = open_model(bundle, device="cpu", batch_rows_max=1024, clock=SystemClock())
    return model.predict(matrix).outputs[bundle.outputs[0].name]


@pytest.mark.parametrize("shape", numbers)
@pytest.mark.parametrize("family", families)
def test_records_are_scored_as_the_original_scores_them(family: str, shape: str, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    train, unseen = numbers[shape](2000, random), numbers[shape](records_count, random)
    amount = (train[:, 0] - train[:, 0].min()) / np.ptp(train[:, 0])
    answers = np.sin(amount * 40) + train[:, 1] * (amount > 0.3)
    model = families[family]()
    is_classifier = hasattr(model, "predict_proba")
    model.fit(train, answers > np.median(answers) if is_classifier else answers)
    bundle = package(model, tmp_path / "bundle").bundle
    expected = model.predict_proba(unseen) if is_classifier else model.predict(unseen).reshape(-1, 1)
    off = np.abs(_served(bundle, unseen) - expected).max(axis=1) / max(1.0, np.ptp(expected))
    assert (off > 1e-6).sum() == 0


def test_a_difference_on_a_given_row_is_an_error(tmp_path: Path) -> None:
    """A forest narrowed as its library narrows it, said to have been trained on doubles: one row tells."""
    random = np.random.default_rng(0)
    rows = _prices(2000, random)
    trained = HistGradientBoostingRegressor(max_iter=10, random_state=0).fit(rows, np.sin(rows[:, 0]))
    package(trained, tmp_path / "good", rows=rows)
    answers = trained.predict(rows)
    answers[7] += 0.5
    with pytest.raises(ParityError, match=r"differs from the answers given by 0\.\d+ on row 7 of 2000"):
        package(trained, tmp_path / "bad", rows=rows, expected=answers)
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("marker", [-999.0, 0.0, -1.1])
@pytest.mark.parametrize("route", ["live", "file", "feature"])
def test_a_number_that_means_missing_is_kept_from_the_object_or_asked_for(
    marker: float, route: str, tmp_path: Path
) -> None:
    random = np.random.default_rng(1)
    rows = random.normal(size=(1500, 3)).round(2)
    answers = (rows[:, 0] + (rows[:, 1] > 0) > 0.4).astype(int)
    rows[random.random(rows.shape) < 0.2] = marker
    trained = xgboost.XGBClassifier(n_estimators=20, missing=marker, n_jobs=1).fit(rows, answers)
    trained.save_model(tmp_path / "model.json")
    model = trained if route == "live" else tmp_path / "model.json"
    more: dict[str, Any] = {}
    if route == "file":
        more["missing"] = marker
    if route == "feature":
        more["features"] = [{"name": f"f{index}", "sentinel": marker} for index in range(3)]
    bundle = package(model, tmp_path / "bundle", rows=rows, **more).bundle
    np.testing.assert_allclose(_served(bundle, rows), trained.predict_proba(rows), atol=1e-6)
    wrong = package(tmp_path / "model.json", tmp_path / "forgotten").bundle
    assert np.abs(_served(wrong, rows) - trained.predict_proba(rows)).max() > 0.1
    with pytest.raises(ParityError, match="differs from the answers given"):
        package(
            tmp_path / "model.json", tmp_path / "refused", rows=rows, expected=trained.predict_proba(rows)
        )


def test_a_sentinel_is_a_finite_number_of_a_number() -> None:
    with pytest.raises(ConfigError, match="sentinel"):
        Feature(name="a", kind="category", categories=("x",), sentinel=-1)
    with pytest.raises(ConfigError, match="sentinel"):
        Feature(name="a", kind="number", sentinel=float("nan"))
