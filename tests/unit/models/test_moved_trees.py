"""Trees behind steps are trees over the features: explained exactly, served by the kernel, the same to the last double."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    StandardScaler,
)
from sklearn.tree import DecisionTreeRegressor

from penstock.engine.explain.tree.tree_shap import TreeShap
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.packaging.package import package
from penstock.schemas.errors import ConfigError
from tests.shapley_enumerated import enumerated
from tests.sklearn_cases import families
from tests.sklearn_tables import Kind, records_of, table

from .test_sklearn_matrix import served

_exact = (
    "one-hot, random forest",
    "one-hot, gradient boosting",
    "one-hot, XGBoost",
    "one-hot, LightGBM",
    "ordinal, histogram boosting by category",
    "bins one-hot, tree",
    "bagging",
    "AdaBoost",
    "soft vote of pipelines",
    "target by its logarithm",
)


def _value(model: Any, frame: pd.DataFrame) -> NDArray[np.float64]:
    """What attributions add up to, by the original: a share, log odds, or the logarithm of a value."""
    if hasattr(model, "predict_proba"):
        share = model.predict_proba(frame)[:, 1]
        return np.asarray(share)
    return np.asarray(model.predict(frame))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", _exact)
def test_explanations_equal_enumeration_over_the_original_pipeline(family: str, tmp_path: Path) -> None:
    kind = Kind(name="nulls", nulls=True)
    build, target = families[family]
    training = table(kind, 120, 3, training=True)
    model = build(kind).fit(training, target(training))
    background = training[:6]
    bundle = package(model, tmp_path / "bundle", background=background, rows=training).bundle
    assert bundle.trees
    names = list(bundle.signature.columns)
    shap = TreeShap.from_bundle(bundle, method="tree_interventional")
    rows = table(kind, 3, 4, training=False)
    values, _ = shap.contributions(matrix_of(bundle, rows))
    links: dict[str, Callable[[Any], Any]] = {
        "probability": lambda share: share,
        "log_odds": lambda share: np.log(share / (1 - share)),
        "log": np.log,
        "value": lambda value: value,
    }
    space = "log" if shap.forest.output_name.startswith("log_") else shap.forest.space
    wanted = enumerated(lambda frame: links[space](_value(model, frame)), rows, background, names)
    np.testing.assert_allclose(values[:, :, -1], wanted, atol=2e-6)


def matrix_of(bundle: Bundle, rows: pd.DataFrame) -> NDArray[np.float32]:
    from penstock.engine.features.narrowing import as_fed
    from penstock.engine.models.packaging.package import _rows

    return np.asarray(
        as_fed(_rows(rows, bundle.signature, "the rows").matrix, bundle.signature), dtype=np.float32
    )


@pytest.mark.filterwarnings("ignore")
def test_a_folded_pipeline_is_served_by_the_tree_kernel(tmp_path: Path) -> None:
    build, target = families["one-hot, random forest"]
    kind = Kind(name="codes", flags=True)
    training = table(kind, 200, 3, training=True)
    model = build(kind).fit(training, target(training))
    report = package(model, tmp_path / "bundle", background=training[:20], rows=training)
    assert report.bundle.manifest.runtime.native.equal
    assert "passenger" not in report.bundle.signature.columns  # nothing reads it


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), base=st.sampled_from([0.0, 2e7, 5e9]), decimals=st.integers(0, 4))
def test_numbers_keep_their_side_of_every_moved_threshold(
    seed: int, base: float, decimals: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    random = np.random.default_rng(seed)
    values = np.round(random.normal(100, 30, 300), decimals) + base
    steps = [
        StandardScaler(),
        KBinsDiscretizer(6, encode="ordinal", quantile_method="averaged_inverted_cdf"),
    ][: 1 + seed % 2]
    frame = pd.DataFrame({"x": values})
    model = make_pipeline(*steps, DecisionTreeRegressor(max_depth=8)).fit(frame, np.sin(values))
    bundle = package(model, tmp_path_factory.mktemp("b"), rows=frame).bundle
    assert bundle.trees
    around = np.round(random.normal(100, 30, 2000), decimals) + base
    close = np.nextafter(values, np.where(np.arange(len(values)) % 2, np.inf, -np.inf))
    tried = pd.DataFrame({"x": np.concatenate((around, values, close))})
    _, found = served(bundle, [{"x": value} for value in tried["x"].tolist()])
    np.testing.assert_allclose(found.outputs["value"][:, 0], model.predict(tried), atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_missing_and_unknown_categories_are_told_apart_where_the_encoder_does(tmp_path: Path) -> None:
    frame = pd.DataFrame({"job": pd.Series(["a", "b", None, "a", "c", None] * 20, dtype=object)})
    target = np.array([0.0, 1.0, 5.0, 0.0, 2.0, 5.0] * 20)
    model = make_pipeline(
        OneHotEncoder(handle_unknown="ignore", sparse_output=False), RandomForestRegressor(3, random_state=0)
    ).fit(frame, target)
    bundle = package(model, tmp_path / "bundle", rows=frame).bundle
    records: list[dict[str, Any]] = [
        {"job": "a"},
        {"job": None},
        {"job": "new"},
        {},  # has nothing of the model
    ]
    places, found = served(bundle, records)
    assert places.tolist() == [0, 1, 2]
    asked = pd.DataFrame({"job": pd.Series(["a", None, "new"], dtype=object)})
    np.testing.assert_allclose(found.outputs["value"][:, 0], model.predict(asked), atol=1e-6)


def _python(values: Any) -> Any:
    return values


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_packaged_is_refused_by_name_and_cure(tmp_path: Path) -> None:
    frame = table(Kind(name="usual"), 100, 1, training=True)
    model = make_pipeline(
        ColumnTransformer([("logs", FunctionTransformer(_python), ["amount"])]), RandomForestClassifier(2)
    ).fit(frame, frame["vip"])
    with pytest.raises(ConfigError, match=r"applies the Python function _python.*use a function of NumPy"):
        package(model, tmp_path / "bundle", rows=frame)


@pytest.mark.filterwarnings("ignore")
def test_a_step_that_refuses_a_category_makes_a_dead_letter_with_its_name(tmp_path: Path) -> None:
    frame = table(Kind(name="usual"), 100, 1, training=True)
    model = make_pipeline(
        ColumnTransformer([("job", OneHotEncoder(), ["job"])]), RandomForestClassifier(2)
    ).fit(frame, frame["vip"])
    bundle = package(model, tmp_path / "bundle", rows=frame).bundle
    records = records_of(frame[:2])
    records[1]["job"] = "never seen"
    places, _ = served(bundle, [orjson.loads(orjson.dumps(record)) for record in records])
    assert places.tolist() == [0]
    assert bundle.signature.features[0].unseen == "reject"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("steps", "marker"),
    [
        ([("as it is", "passthrough", ["x", "y"])], -999.0),
        ([("negative", FunctionTransformer(np.negative), ["x", "y"])], 999.0),
        ([("as it is", "passthrough", ["x", "y"])], 0.1),
        ([("scaled", MinMaxScaler(), ["x", "y"])], 0.0),
        ([("known", OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["x", "y"])], 0.0),
    ],
)
def test_a_number_that_a_booster_takes_for_missing_is_missing_behind_steps(
    steps: list[Any], marker: float, tmp_path: Path
) -> None:
    def made(seed: int) -> pd.DataFrame:
        random = np.random.default_rng(seed)
        values = np.round(random.normal(0, 1, (600, 2)), 1)
        values[random.random(values.shape) < 0.2] = -999.0
        return pd.DataFrame(values, columns=["x", "y"])

    frame, tried = made(1), made(2)
    target = (frame["x"] == -999) * 1.0 + (frame["y"] > 0.2)
    booster = xgboost.XGBRegressor(n_estimators=5, max_depth=4, missing=marker, n_jobs=1)
    model = make_pipeline(ColumnTransformer(steps), booster).fit(frame, target)
    bundle = package(model, tmp_path / "bundle").bundle  # without rows: nothing shows the marker to the proof
    assert bundle.trees
    _, found = served(bundle, tried.to_dict("records"))
    np.testing.assert_allclose(found.outputs["value"][:, 0], model.predict(tried), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_number_that_is_a_bin_edge_and_a_category_at_once_stays_itself(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    values = random.integers(-3, 6, 500).astype(float)
    bins = KBinsDiscretizer(4, encode="ordinal", quantile_method="averaged_inverted_cdf")
    known = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    steps = ColumnTransformer([("bins", bins, ["x"]), ("known", known, ["x"])])
    frame = pd.DataFrame({"x": values})
    model = make_pipeline(steps, DecisionTreeRegressor()).fit(frame, np.sin(values * 3))
    bundle = package(model, tmp_path / "bundle").bundle
    assert bundle.trees
    assert bundle.covers
    whole = np.arange(-5.0, 8.0)
    tried = np.concatenate((whole, np.nextafter(whole, -np.inf), np.nextafter(whole, np.inf), whole + 0.5))
    _, found = served(bundle, [{"x": value} for value in tried.tolist()])
    expected = model.predict(pd.DataFrame({"x": tried}))
    np.testing.assert_allclose(found.outputs["value"][:, 0], expected, atol=1e-6)
