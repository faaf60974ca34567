"""What steps make of two numbers together may be past float32, which trees refuse: then the bundle answers nothing either."""

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
import xgboost
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingRegressor,
)
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures
from sklearn.tree import DecisionTreeClassifier

import penstock
from penstock.engine.models.packaging.package import package

_rows = np.random.default_rng(0).normal(size=(200, 3)).round(2)
_value = _rows[:, 0] * _rows[:, 1] + _rows[:, 2]
_class = (_value > 0).astype(int)
_products = PolynomialFeatures(2, interaction_only=True)

_models: dict[str, tuple[Any, Any]] = {
    "forest": (RandomForestRegressor(5, random_state=0), _value),
    "forest of classes": (RandomForestClassifier(5, random_state=0), _class),
    "boosting": (GradientBoostingClassifier(n_estimators=5, random_state=0), _class),
    "votes": (
        AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=5, random_state=0),
        _class,
    ),
    "calibrated": (
        CalibratedClassifierCV(GradientBoostingClassifier(n_estimators=4, random_state=0), cv=2),
        _class,
    ),
    "bag": (BaggingRegressor(n_estimators=4, random_state=0), _value),
    "average": (VotingRegressor([("a", Ridge()), ("b", RandomForestRegressor(4, random_state=0))]), _value),
    "isolation": (IsolationForest(n_estimators=8, random_state=0), None),
    "histogram boosting": (HistGradientBoostingRegressor(max_iter=8), _value),
    "XGBoost": (xgboost.XGBRegressor(n_estimators=5, n_jobs=1), _value),
    "LightGBM": (lightgbm.LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1), _value),
}
_steps: dict[str, Any] = {
    "products": _products,
    "products of three": PolynomialFeatures(3, interaction_only=True),
    "products, doubled": make_pipeline(_products, FunctionTransformer(np.square)),
    "rotation": PCA(random_state=0),
}


def _joint() -> NDArray[np.float64]:
    """Rows whose numbers are usual, or large together."""
    random = np.random.default_rng(1)
    rows = random.normal(size=(400, 3))
    large = 10.0 ** random.uniform(8, 38, size=rows.shape) * np.sign(rows)
    return np.where(random.random(rows.shape) < 0.6, large, rows)


def _answers(model: Any, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The original's answers (R, K), NaN where it refuses a row."""
    ask = getattr(model, "predict_proba", None) or getattr(model, "decision_function", None) or model.predict
    found: list[Any] = []
    for row in rows:
        try:
            with np.errstate(all="ignore"):
                found.append(np.asarray(ask(row[None]), dtype=np.float64).reshape(-1))
        except ValueError:
            found.append(None)
    width = max(len(each) for each in found if each is not None)
    return np.array([np.full(width, np.nan) if each is None else each for each in found])


@pytest.mark.parametrize("step", _steps)
@pytest.mark.parametrize("name", _models)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_the_bundle_refuses_what_the_original_refuses(name: str, step: str, tmp_path: Path) -> None:
    last, target = _models[name]
    model = make_pipeline(_steps[step], last).fit(_rows, target)
    package(model, tmp_path / "bundle", background=_rows[:50])
    opened = penstock.load(tmp_path / "bundle")
    rows = _joint()
    wanted = _answers(model, rows)
    table = opened.score([dict(zip(opened.feature_names, row, strict=True)) for row in rows.tolist()])
    taken = np.array(table["outcome"].to_pylist()) == "predicted"
    answered = ~np.isnan(wanted).any(axis=1)
    assert (answered | ~taken).all(), "the bundle answers what the original refuses"
    assert (taken | ~answered).all(), "the bundle refuses what the original answers"
    found = opened.predict(rows[taken]).outputs
    scores = next(iter(found.values()))
    np.testing.assert_allclose(scores, wanted[taken][:, -scores.shape[1] :], rtol=1e-5, atol=1e-6)
