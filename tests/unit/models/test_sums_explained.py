"""Isolation forests and calibrated trees: the sum that is published beside their answer is explained exactly.

The oracle is the original pipeline: how deep its trees put a row, or what its members say before they are calibrated.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shap
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import IsolationForest, RandomForestClassifier

from penstock.engine.explain.factory import make_explainer
from penstock.engine.explain.tree.tree_shap import TreeShap
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.session_spec import Opening
from penstock.engine.settings.model import ExplainSettings
from tests.shapley_enumerated import enumerated
from tests.sklearn_cases import families
from tests.sklearn_cases import sums as published
from tests.sklearn_tables import Kind, table

from .test_moved_trees import matrix_of

_few = (
    "isolation forest",
    "calibrated boosting, sigmoid",
    "calibrated XGBoost of three classes",
    "calibrated forest, isotonic",
)
_chosen = [*published] if os.environ.get("PENSTOCK_MATRIX") == "all" else [*_few]
Answer = Callable[[pd.DataFrame], NDArray[np.float64]]


def _path_length(model: Any) -> Answer:
    """By the trees' own decision_path, and the usual length of what a leaf did not split (Liu, Ting and Zhou, 2008)."""

    def length(count: NDArray[np.float64]) -> NDArray[np.float64]:
        harmonic = np.log(np.maximum(count - 1.0, 1.0)) + np.euler_gamma
        found = 2.0 * harmonic - 2.0 * (count - 1.0) / count
        return np.where(count > 2, found, np.where(count == 2, 1.0, 0.0))

    def answer(frame: pd.DataFrame) -> NDArray[np.float64]:
        given = np.asarray(model[:-1].transform(frame))
        depths = []
        for tree, columns in zip(model[-1].estimators_, model[-1].estimators_features_, strict=True):
            rows = given[:, columns]
            leaf = tree.apply(rows)
            tests = np.asarray(tree.decision_path(rows).sum(axis=1)).reshape(-1) - 1.0
            depths.append(tests + length(tree.tree_.n_node_samples[leaf].astype(float)))
        return np.asarray(np.mean(depths, axis=0))

    return answer


def _of_folds(model: Any, place: int, *, calibrated: bool) -> Answer:
    """The mean of what the folds say of a class: their calibrated log odds, else what their members say before."""
    outer = model if hasattr(model, "calibrated_classifiers_") else model[-1]

    def said(fold: Any, rows: Any) -> NDArray[np.float64]:
        if calibrated and len(fold.classes) == 2:
            return np.asarray(logit(fold.predict_proba(rows)[:, 1]))
        member = fold.estimator
        if hasattr(member, "decision_function"):
            scores = member.decision_function(rows)
        elif type(member).__module__.startswith(("xgboost", "lightgbm")):
            margin = "output_margin" if "xgboost" in type(member).__module__ else "raw_score"
            scores = member.predict(rows, **{margin: True})
        else:
            scores = member.predict_proba(rows)
            scores = scores[:, 1] if scores.shape[1] == 2 else scores
        scores = np.asarray(scores).reshape(len(scores), -1)
        place_of_score = 0 if scores.shape[1] == 1 else place
        column = scores[:, place_of_score]
        if calibrated:
            return np.asarray(logit(fold.calibrators[place_of_score].predict(column)))
        return np.asarray(column)

    def answer(frame: pd.DataFrame) -> NDArray[np.float64]:
        rows = frame if outer is model else model[:-1].transform(frame)
        return np.asarray(np.mean([said(each, rows) for each in outer.calibrated_classifiers_], axis=0))

    return answer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", _chosen)
def test_the_sum_that_is_published_is_explained_as_enumeration_over_the_original(
    family: str, tmp_path: Path
) -> None:
    kind = Kind(name="decimals")
    build, target = families[family]
    training = table(kind, 120, 3, training=True)
    model = build(kind).fit(training, target(training))
    background = training[:4]
    report = package(model, tmp_path / "bundle", background=background, rows=training)
    bundle = report.bundle
    assert bundle.outputs[1].name == published[family]
    assert report.parity.differences[published[family]] <= 1e-6
    assert any(f"explanations are of {published[family]}" in note for note in report.notes)
    rows = table(kind, 1, 4, training=False)
    explained = _explained(bundle, rows)
    for place in range(len(rows)):
        number = int(explained.output_index[place])
        sign = -1.0 if number == 0 and len(bundle.classes) == 2 else 1.0
        answer = (
            _path_length(model)
            if family == "isolation forest"
            else _of_folds(model, number, calibrated=published[family] == "mean_log_odds")
        )
        row = rows.iloc[[place]]
        wanted = sign * enumerated(answer, row, background, bundle.signature.columns)
        np.testing.assert_allclose(explained.values[place][None], wanted, atol=2e-6)
        start = float(answer(background).mean())
        if sign < 0:
            start = 1.0 - start if bundle.outputs[1].meaning == "probability" else -start
        assert explained.base[place] == pytest.approx(start, abs=2e-6)
    assert explained.output_name == published[family]
    assert explained.space == bundle.outputs[1].meaning
    assert np.abs(explained.additivity_error).max() < 1e-5


def _explained(bundle: Bundle, rows: pd.DataFrame) -> Any:
    model = Opening(device=Device(), threads=1, batch_rows_max=64).open(bundle)
    settings = ExplainSettings(method="tree_interventional")
    matrix = matrix_of(bundle, rows)
    return make_explainer(bundle, model, settings).explain(matrix, model.predict(matrix))


@pytest.mark.filterwarnings("ignore")
def test_an_isolation_forest_is_explained_as_shap_does(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(300, 5)).astype(np.float32).astype(np.float64)
    model = IsolationForest(n_estimators=20, max_features=0.8, random_state=0).fit(rows)
    bundle = package(model, tmp_path / "bundle", rows=rows).bundle
    values, base = TreeShap.from_bundle(bundle).shap_values(rows[:50])
    original = shap.TreeExplainer(model)
    np.testing.assert_allclose(values, original.shap_values(rows[:50]), atol=1e-5)
    assert base[0] == pytest.approx(float(np.ravel(original.expected_value)[0]), abs=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_one_fold_calibrated_by_a_sigmoid_is_trees_in_its_own_log_odds(tmp_path: Path) -> None:
    kind = Kind(name="decimals")
    build, target = families["calibrated boosting of one fold, sigmoid"]
    training = table(kind, 120, 3, training=True)
    model = build(kind).fit(training, target(training))
    bundle = package(model, tmp_path / "bundle", background=training[:6], rows=training).bundle
    assert [output.name for output in bundle.outputs] == ["probabilities"]
    shap_values = TreeShap.from_bundle(bundle, method="tree_interventional")
    rows = table(kind, 2, 4, training=False)
    values, _ = shap_values.contributions(matrix_of(bundle, rows))
    wanted = enumerated(
        lambda frame: logit(model.predict_proba(frame)[:, 1]), rows, training[:6], bundle.signature.columns
    )
    np.testing.assert_allclose(values[:, :, -1], wanted, atol=2e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_steep_isotonic_calibration_loses_no_digits(tmp_path: Path) -> None:
    """Between neighbouring scores it may rise by hundreds of times what they are apart: float32 sums would be seen."""
    random = np.random.default_rng(0)
    rows = np.round(random.normal(size=(1500, 5)), 3)
    late = (rows[:, 0] + rows[:, 1] * rows[:, 2] + random.normal(size=len(rows)) > 0).astype(int)
    forest = RandomForestClassifier(40, min_samples_leaf=3, random_state=0)
    model = CalibratedClassifierCV(forest, method="isotonic", cv=3).fit(rows, late)
    calibrators = [fold.calibrators[0] for fold in model.calibrated_classifiers_]
    slopes = [np.diff(each.y_thresholds_) / np.diff(each.X_thresholds_) for each in calibrators]
    assert max(each.max() for each in slopes) > 500
    report = package(model, tmp_path / "bundle", background=rows[:20], rows=rows)
    assert report.parity.difference_max < 1e-6
