"""Tree SHAP through the front door: against other packages, and as the stream asks for it."""

import warnings
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import shap
import xgboost
from numpy.typing import NDArray
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)

from penstock.engine.explain.tree.tree_shap import TreeExplainer, TreeShap
from penstock.engine.ports import Explainer, Predictions
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.engine.trees.onnx.write import write_forest
from penstock.engine.trees.readers.lightgbm import read_lightgbm
from penstock.engine.trees.readers.sklearn import read_sklearn_trees
from penstock.engine.trees.readers.xgboost import read_xgboost
from penstock.schemas.errors import ConfigError, InvariantError
from tests.forests import random_forest, random_rows, run_onnx

rng = np.random.default_rng(0)
X = rng.normal(size=(500, 7)).astype(np.float32)
X[:, 5] = rng.integers(0, 9, 500)
target = X[:, 0] * 2 + X[:, 1] * X[:, 2] + np.isin(X[:, 5], (1, 4, 8))
two, three = (target > 0.5).astype(int), np.digitize(target, [0.0, 1.0])
holed = X.copy()
holed[rng.random(X.shape) < 0.1] = np.nan
holed[:, 5] = X[:, 5]
rows = slice(0, 60)


def _relative(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def _through_the_file(forest: Forest, *, background: NDArray[np.float32] | None = None) -> TreeShap:
    return TreeShap.from_onnx(write_forest(forest).SerializeToString(), background=background)


def _raw_from_onnx(forest: Forest, data: NDArray[np.float32]) -> NDArray[np.float64]:
    """The raw scores behind ONNX Runtime's own answers."""
    answers = run_onnx(write_forest(forest), data)[-1].astype(np.float64)
    if forest.post_transform is PostTransform.LOGISTIC:
        return np.log(answers[:, -1:] / (1 - answers[:, -1:]))
    return answers[:, -1:] if forest.labels and forest.outputs == 1 else answers


_xgboost_settings: dict[str, Any] = {"n_estimators": 12, "max_depth": 5, "learning_rate": 0.3, "n_jobs": 1}


def _xgboost(model: xgboost.XGBModel, y: NDArray[Any], **more: Any) -> tuple[Forest, xgboost.Booster]:
    model.set_params(**_xgboost_settings, **more)
    booster = model.fit(holed, y).get_booster()
    return read_xgboost(bytes(booster.save_raw("json"))).forest, booster


@pytest.mark.parametrize(
    ("model", "y", "more"),
    [
        (xgboost.XGBRegressor(), target, {}),
        (xgboost.XGBClassifier(), two, {}),
        (xgboost.XGBClassifier(), three, {}),
        (xgboost.XGBRegressor(), np.abs(target), {"objective": "count:poisson"}),
        (
            xgboost.XGBRegressor(),
            target,
            {"enable_categorical": True, "feature_types": ["q"] * 5 + ["c", "q"], "max_cat_to_onehot": 1},
        ),
    ],
    ids=["regressor", "binary", "multiclass", "poisson", "categorical"],
)
def test_xgboost_path_dependent(model: xgboost.XGBModel, y: NDArray[Any], more: dict[str, Any]) -> None:
    forest, booster = _xgboost(model, y, **more)
    data = holed[rows]
    types = more.get("feature_types")
    matrix = xgboost.DMatrix(data, feature_types=types, enable_categorical=types is not None)
    contributions = np.atleast_3d(booster.predict(matrix, pred_contribs=True).astype(np.float64))
    if forest.outputs > 1:
        contributions = contributions.transpose(0, 2, 1)
    explained, base = _through_the_file(forest).shap_values(data)
    explained = explained.reshape(len(data), 7, -1)

    assert _relative(explained, contributions[:, :-1]) <= 1e-5
    # XGBoost's base is float32 and, for several classes, may carry a constant that softmax ignores.
    assert np.abs(base - contributions[0, -1]).max() <= 1e-5
    if types:
        assert len(forest.set_offsets) > 1, "no category test was trained: this shows nothing"


@pytest.mark.parametrize("y", [two, three, target], ids=["binary", "multiclass", "regressor"])
def test_lightgbm_path_dependent(y: NDArray[Any]) -> None:
    kind = lightgbm.LGBMRegressor if y is target else lightgbm.LGBMClassifier
    model = kind(n_estimators=12, num_leaves=15, min_data_per_group=1, cat_smooth=1, verbose=-1, n_jobs=1)
    model.fit(holed, y, categorical_feature=[5])
    forest = read_lightgbm(model.booster_.model_to_string()).forest
    data = holed[rows]
    told = np.asarray(model.booster_.predict(data, pred_contrib=True))
    contributions = told.reshape(len(data), -1, 8).transpose(0, 2, 1)
    explained, base = _through_the_file(forest).shap_values(data)

    assert _relative(explained.reshape(len(data), 7, -1), contributions[:, :-1]) <= 1e-5
    assert np.abs(base - contributions[0, -1]).max() <= 1e-5
    assert len(forest.set_offsets) > 1, "no category test was trained: this shows nothing"


_sklearn: list[tuple[Any, NDArray[Any]]] = [
    (RandomForestRegressor(n_estimators=8, random_state=0), target),
    (RandomForestClassifier(n_estimators=8, max_depth=6, random_state=0), two),
    (RandomForestClassifier(n_estimators=8, max_depth=6, random_state=0), three),
    (ExtraTreesRegressor(n_estimators=8, max_depth=7, random_state=0), target),
    (GradientBoostingRegressor(n_estimators=12, random_state=0), target),
    (GradientBoostingClassifier(n_estimators=12, random_state=0), two),
    (HistGradientBoostingRegressor(max_iter=12, max_depth=5), target),
    (HistGradientBoostingClassifier(max_iter=12, max_depth=5), two),
]


@pytest.mark.parametrize(
    ("model", "y"), _sklearn, ids=lambda value: getattr(value, "__class__", type(value)).__name__
)
@pytest.mark.parametrize("with_background", [False, True], ids=["path_dependent", "interventional"])
def test_scikit_learn(model: Any, y: NDArray[Any], with_background: bool) -> None:
    model.fit(X, y)
    background = X[100:130] if with_background else None
    data = X[rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mode = "interventional" if with_background else "tree_path_dependent"
        other = shap.TreeExplainer(model, background, feature_perturbation=mode)
        expected = np.asarray(other.shap_values(data, check_additivity=False))
    explained, _ = _through_the_file(read_sklearn_trees(model).forest, background=background).shap_values(
        data
    )
    if expected.ndim == 3 and explained.ndim == 2:
        expected = expected[:, :, 1]

    assert _relative(explained, expected) <= 1e-5


@pytest.mark.parametrize("kind", ["regressor", "binary"])
def test_interventional_agrees_with_shap_on_missing_values(kind: str) -> None:
    model = xgboost.XGBRegressor() if kind == "regressor" else xgboost.XGBClassifier()
    forest, booster = _xgboost(model, target if kind == "regressor" else two)
    background, data = holed[100:130], holed[rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(shap.TreeExplainer(booster, background).shap_values(data))
    explained, base = _through_the_file(forest, background=background).shap_values(data)

    assert _relative(explained, expected) <= 1e-5
    assert np.abs(base + explained.sum(axis=1) - _raw_from_onnx(forest, data)[:, 0]).max() <= 1e-5


def test_values_add_up_to_what_onnx_runtime_answers() -> None:
    for forest in (
        read_sklearn_trees(RandomForestClassifier(n_estimators=5, random_state=0).fit(X, three)).forest,
        read_sklearn_trees(RandomForestClassifier(n_estimators=5, random_state=0).fit(X, two)).forest,
        read_sklearn_trees(GradientBoostingClassifier(n_estimators=5, random_state=0).fit(X, two)).forest,
    ):
        explained, base = _through_the_file(forest).shap_values(X)
        total = base + explained.reshape(len(X), 7, -1).sum(axis=1)
        answers = _raw_from_onnx(forest, X)
        assert np.abs(total[:, -1] - answers[:, -1]).max() <= 2e-6


@pytest.mark.parametrize("outputs", [1, 3])
def test_shapes_are_as_promised(outputs: int) -> None:
    explainer = TreeShap(random_forest(1, outputs=outputs))
    explained, base = explainer.shap_values(
        random_rows(1, 4).astype(np.float64).tolist(), precision="float64"
    )

    assert explained.shape == ((4, 6) if outputs == 1 else (4, 6, 3))
    assert base.shape == (outputs,)
    assert explainer.shap_values(np.empty((0, 6), dtype=np.float32))[0].shape[0] == 0


def test_float64_is_exact_and_float32_close() -> None:
    forest, data = random_forest(2, trees=40, depth=6), random_rows(3, 300, infinite=False)
    exact, base = TreeShap(forest).shap_values(data, precision="float64")
    close, _ = TreeShap(forest).shap_values(data, precision="float32")

    assert np.abs(base + exact.sum(axis=1) - forest.raw_scores(data)[:, 0]).max() <= 1e-11
    assert _relative(close, exact) <= 2e-6


def test_a_model_without_covers_needs_background_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(write_forest(random_forest(1, covers=False)).SerializeToString())
    with pytest.raises(ConfigError, match="give background rows"):
        TreeShap.from_onnx(path)

    explainer = TreeShap.from_onnx(str(path), background=random_rows(1, 5))
    assert explainer.method == "tree_interventional"
    assert explainer.background_digest is not None


@pytest.mark.parametrize(
    "data", [np.zeros((3, 5)), np.zeros(6), np.array([["a"] * 6]), np.zeros((2, 6), dtype=complex)]
)
def test_rows_of_another_shape_are_refused(data: NDArray[Any]) -> None:
    with pytest.raises(ConfigError, match="matrix of 6 numeric columns"):
        TreeShap(random_forest(1)).shap_values(data)


@pytest.mark.parametrize("count", [0, (1 << 16) + 1])
def test_a_background_that_makes_no_sense_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="background rows"):
        TreeShap(random_forest(1), background=np.zeros((count, 6), dtype=np.float32))


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*nothing\.onnx"):
        TreeShap.from_onnx(tmp_path / "nothing.onnx")


def _predictions(classes: tuple[str, ...], labels: list[int] | None) -> Predictions:
    return Predictions(outputs={}, labels=None if labels is None else np.array(labels), classes=classes)


def _sound(explainer: Explainer, data: NDArray[np.float32], predictions: Predictions) -> Any:
    attributions = explainer.explain(data, predictions)
    assert np.abs(attributions.additivity_error).max() <= 2e-5
    assert attributions.values.dtype == attributions.base.dtype == np.float64
    return attributions


def test_the_predicted_class_of_several_is_explained() -> None:
    forest, data = (
        random_forest(4, outputs=3, labels=("a", "b", "c"), post=PostTransform.SOFTMAX),
        random_rows(5, 6),
    )
    shap_values = TreeShap(forest)
    labels = [2, 0, 1, 1, 0, 2]
    found = _sound(TreeExplainer(shap_values), data, _predictions(("a", "b", "c"), labels))
    values, base = shap_values.shap_values(data)

    assert found.output_index.tolist() == labels
    assert np.allclose(found.values, values[np.arange(6), :, labels])
    assert np.allclose(found.base, base[labels])
    assert (found.method, found.space, found.output_name) == ("tree_path_dependent", "log_odds", "scores")
    assert found.background is None


def test_classes_are_matched_by_name() -> None:
    forest, data = random_forest(4, outputs=3, labels=("a", "b", "c")), random_rows(5, 3)
    found = TreeExplainer(TreeShap(forest)).explain(data, _predictions(("c", "a", "b"), [0, 1, 2]))
    assert found.output_index.tolist() == [2, 0, 1]

    with pytest.raises(InvariantError):
        TreeExplainer(TreeShap(forest)).explain(data, _predictions(("x", "a", "b"), [0, 1, 2]))


@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_the_first_of_two_classes_has_the_mirrored_score(mirror: float) -> None:
    forest = random_forest(6, labels=("no", "yes"), mirror=mirror, positive=bool(mirror))
    data = random_rows(7, 5)
    explainer = TreeExplainer(TreeShap(forest))
    no = _sound(explainer, data, _predictions(("no", "yes"), [0] * 5))
    yes = _sound(explainer, data, _predictions(("no", "yes"), [1] * 5))

    assert np.allclose(no.values, -yes.values)
    assert np.allclose(no.base + no.values.sum(axis=1), mirror - forest.raw_scores(data)[:, 0], atol=1e-5)


def test_one_output_or_all_of_them() -> None:
    forest, data = random_forest(8, outputs=3, labels=("a", "b", "c")), random_rows(9, 4)
    shap_values, nothing = TreeShap(forest), _predictions((), None)
    values, base = shap_values.shap_values(data)
    one = _sound(TreeExplainer(shap_values, output="b"), data, nothing)
    every = _sound(TreeExplainer(shap_values, output="all"), data, nothing)

    assert one.output_index.tolist() == [1] * 4
    assert np.allclose(one.values, values[:, :, 1])
    assert every.output_index.tolist() == [0, 1, 2] * 4
    assert np.allclose(every.values, values.transpose(0, 2, 1).reshape(12, 6))
    assert np.allclose(every.base, np.tile(base, 4))


@pytest.mark.parametrize(
    ("forest", "output", "says"),
    [
        (random_forest(1, outputs=2), "predicted", "predicts no class"),
        (random_forest(1, labels=("a", "b")), "c", "the model has a, b"),
        (random_forest(1, outputs=2), "scores", "the model has 0, 1"),
    ],
)
def test_an_output_that_is_not_there_is_refused_at_start(forest: Forest, output: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        TreeExplainer(TreeShap(forest), output=output)


def test_a_regressor_answers_by_its_output_name_and_from_float64_rows() -> None:
    forest, data = random_forest(1), random_rows(2, 3)
    found = TreeExplainer(TreeShap(forest, background=random_rows(3, 4)), output="scores").explain(
        data.astype(np.float64), _predictions((), None)
    )

    assert found.method == "tree_interventional"
    assert found.background is not None
    assert len(found.background) == 64
    assert np.allclose(found.base + found.values.sum(axis=1), forest.raw_scores(data)[:, 0], atol=1e-5)
