"""What a live object or a data frame tells of classes and codes that the model's file does not."""

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost

import penstock
from penstock.engine.models.packaging.package import package
from penstock.schemas.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore")
rng = np.random.default_rng(0)
frame = pd.DataFrame(rng.normal(size=(300, 3)), columns=["a", "b", "c"])
answers = (frame["a"] + frame["b"] > 0).astype(int).to_numpy()


@pytest.mark.parametrize(
    "model",
    [
        xgboost.XGBClassifier(objective="reg:logistic", n_estimators=4),
        lightgbm.LGBMClassifier(objective="cross_entropy", n_estimators=4, verbose=-1),
    ],
    ids=["reg:logistic", "cross_entropy"],
)
def test_a_classifier_trained_as_a_number_keeps_its_classes(model: Any, tmp_path: Path) -> None:
    fitted = model.fit(frame, answers)
    report = package(fitted, tmp_path / "bundle", background=frame[:20], rows=frame, classes=["no", "yes"])
    assert report.bundle.classes == ("no", "yes")
    found = penstock.load(tmp_path / "bundle", device="cpu").predict(frame)
    assert np.abs(found.outputs["probabilities"] - fitted.predict_proba(frame)).max() <= 1e-6
    assert found.labels is not None
    assert list(found.labels) == ["yes" if each else "no" for each in fitted.predict(frame)]


@pytest.mark.parametrize(
    "model",
    [
        xgboost.XGBRegressor(n_estimators=3),
        lightgbm.LGBMRegressor(n_estimators=3, verbose=-1),
    ],
    ids=["XGBoost", "LightGBM"],
)
def test_names_of_classes_for_a_model_of_none_are_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names of classes no, yes were given"):
        package(model.fit(frame, answers), tmp_path / "bundle", background=frame[:20], classes=["no", "yes"])


def test_whole_numbers_that_are_categories_to_lightgbm_are_their_own_codes(tmp_path: Path) -> None:
    """Also those that training has not seen."""
    coded = pd.DataFrame(
        {"c0": rng.integers(0, 5, 300), "c1": rng.integers(0, 40, 300), "n": rng.normal(size=300)}
    )
    target = coded["c0"] % 2 + coded["c1"] % 3 + coded["n"]
    model = lightgbm.LGBMRegressor(n_estimators=10, verbose=-1, min_child_samples=3, cat_smooth=1)
    model.fit(coded, target, categorical_feature=["c0", "c1"])
    package(model, tmp_path / "bundle", background=coded[:20], rows=coded)
    asked = pd.DataFrame(
        {"c0": rng.integers(0, 8, 500), "c1": rng.integers(0, 60, 500), "n": rng.normal(size=500)}
    )
    found = penstock.load(tmp_path / "bundle", device="cpu").predict(asked).outputs["value"]
    assert np.abs(found[:, 0] - model.predict(asked)).max() <= 1e-6
    with pytest.raises(ConfigError, match="feature c0 is a category"):
        package(model, tmp_path / "other", background=coded[:20].astype(float))
