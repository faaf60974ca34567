"""XGBoost models of several outputs, and those without trees: what each output is, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from numpy.typing import NDArray

from penstock.engine.cli.main import main
from penstock.engine.explain.tree.tree_shap import TreeShap
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.session import raw_runner
from penstock.schemas.errors import ConfigError

_few = {"n_estimators": 6, "max_depth": 3, "n_jobs": 1}


def _data() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(0)
    rows = random.normal(size=(400, 4)).round(2)
    return rows, rows[:, 0] * rows[:, 1] + rows[:, 2]


def test_several_questions_of_yes_or_no_are_not_one_class_of_several(tmp_path: Path) -> None:
    rows, target = _data()
    model = xgboost.XGBClassifier(**_few).fit(rows, np.stack((target > 0, rows[:, 3] > 0.5), 1))
    bundle = package(model, tmp_path / "bundle", background=rows[:50]).bundle
    assert bundle.labels is None
    assert bundle.classes == ()
    (output,) = bundle.outputs
    assert (output.width, output.meaning) == (2, "probability")
    found = raw_runner(bundle.model, bundle.signature)(rows.astype(np.float32))[output.name]
    assert np.abs(found - model.predict_proba(rows)).max() < 1e-6


@pytest.mark.parametrize("objective", ["reg:squarederror", "reg:absoluteerror"])
def test_vectors_in_the_leaves_are_trees_of_several_outputs(objective: str, tmp_path: Path) -> None:
    rows, target = _data()
    several = np.stack((target, rows[:, 3] * 1000, -target), 1)
    one = {"multi_strategy": "multi_output_tree", "objective": objective}
    try:
        model = xgboost.XGBRegressor(**_few, **one).fit(rows, several)
    except xgboost.core.XGBoostError:
        pytest.skip("this XGBoost does not grow such trees for it")
    bundle = package(model, tmp_path / "bundle", background=rows[:50]).bundle
    shap = TreeShap.from_bundle(bundle)
    values, scores = shap.contributions(rows.astype(np.float32), precision="float64")
    assert np.abs(shap.base + values.sum(axis=1) - scores).max() < 1e-9
    expected = model.predict(rows)
    assert (np.abs(scores - expected).max(axis=0) < 1e-6 * np.ptp(expected, axis=0)).all()


def _lines() -> dict[str, Any]:
    rows, target = _data()
    line: dict[str, Any] = {"booster": "gblinear", "n_estimators": 6, "n_jobs": 1}
    three = np.digitize(target, [-0.5, 0.5])
    return {
        "regression": xgboost.XGBRegressor(**line).fit(rows, target + 7),
        "two classes": xgboost.XGBClassifier(**line).fit(rows, np.where(target > 0, 1, 0)),
        "three classes": xgboost.XGBClassifier(**line).fit(rows, three),
        "labels": xgboost.XGBClassifier(**line, objective="multi:softmax").fit(rows, three),
        "counts": xgboost.XGBRegressor(**line, objective="count:poisson").fit(rows, np.abs(target).round()),
        "two targets": xgboost.XGBRegressor(**line).fit(rows, np.stack((target + 5, rows[:, 3] - 2), 1)),
        "missing": xgboost.XGBRegressor(**line, missing=-9).fit(np.where(rows > 1.5, -9, rows), target),
    }


@pytest.mark.parametrize("name", list(_lines()))
def test_gblinear_is_packaged_as_a_line(name: str, tmp_path: Path) -> None:
    model, (rows, _) = _lines()[name], _data()
    with_gaps = rows.copy()
    with_gaps[::5, 0] = -9 if name == "missing" else np.nan
    report = package(model, tmp_path / "bundle", rows=with_gaps, background=rows[:50])
    assert report.parity.not_compared == ()
    assert report.parity.difference_max < 1e-6
    assert (len(report.bundle.classes) > 0) == ("classes" in name or name == "labels")
    model.get_booster().save_model(str(tmp_path / "m.ubj"))
    more = ["--missing", "-9"] if name == "missing" else []
    assert main(["package", str(tmp_path / "m.ubj"), "--out", str(tmp_path / "second"), *more]) == 0


def test_what_is_refused_says_what_to_do(tmp_path: Path) -> None:
    rows, target = _data()
    hinge = xgboost.XGBClassifier(**_few, objective="binary:hinge").fit(rows, target > 0)
    with pytest.raises(ConfigError, match="no bundle can keep; train binary:logistic"):
        package(hinge, tmp_path / "bundle")
