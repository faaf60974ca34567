"""What the wrapper of a model does beside its trees: another rule for the class, other names for the columns."""

import json
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from penstock.engine.clock import SystemClock
from penstock.engine.codec.json_rows import JsonRows
from penstock.engine.features.policies import FeaturePolicies
from penstock.engine.models.packaging.package import package
from penstock.engine.models.packaging.parity import ParityError
from penstock.engine.models.runtime.loader import open_model
from penstock.schemas.errors import ConfigError

_rows = np.random.default_rng(0).normal(size=(300, 3))
_late = (_rows[:, 0] * _rows[:, 1] > 0).astype(np.int64)


class CautiousForest(RandomForestClassifier):
    """Says 1 only where it is sure."""

    def predict(self, rows: Any) -> NDArray[np.int64]:
        """Classes (R,)."""
        return (self.predict_proba(rows)[:, 1] > 0.8).astype(np.int64)


class CautiousCalibration(CalibratedClassifierCV):
    """The same of calibrated trees, whose sum is an output of its own."""

    def predict(self, rows: Any) -> NDArray[np.int64]:
        """Classes (R,)."""
        return (self.predict_proba(rows)[:, 1] > 0.8).astype(np.int64)


@pytest.mark.parametrize(
    "model",
    [
        CautiousForest(5, max_depth=4, random_state=0),
        make_pipeline(StandardScaler(), CautiousForest(5, max_depth=4, random_state=0)),
        CautiousCalibration(RandomForestClassifier(5, max_depth=4, random_state=0), cv=2, ensemble=False),
    ],
    ids=["alone", "in a pipeline", "calibrated"],
)
def test_a_class_chosen_by_another_rule_than_the_highest_probability_is_refused(
    model: Any, tmp_path: Path
) -> None:
    with pytest.raises(ParityError, match="at the same scores: its predict does not choose the highest one"):
        package(model.fit(_rows, _late), tmp_path / "bundle", background=_rows[:20])


def _lightgbm(names: list[str]) -> tuple[Any, pd.DataFrame]:
    frame = pd.DataFrame(_rows, columns=names)
    return lightgbm.LGBMClassifier(n_estimators=4, verbose=-1).fit(frame, _late), frame


@pytest.mark.parametrize("form", ["frame", "csv"])
def test_lightgbm_features_are_called_as_the_columns_given_with_their_blanks(
    form: str, tmp_path: Path
) -> None:
    model, frame = _lightgbm(["total price", "days_late", "age"])
    frame[:20].to_csv(tmp_path / "rows.csv", index=False)
    given = frame[:20] if form == "frame" else tmp_path / "rows.csv"
    report = package(model, tmp_path / "bundle", background=given)
    assert report.bundle.signature.columns == ("total price", "days_late", "age")
    assert not any("blank" in note for note in report.notes)


def test_lightgbm_features_that_may_have_been_called_with_blanks_are_named(tmp_path: Path) -> None:
    model, _ = _lightgbm(["total price", "days_late", "age"])
    (note,) = package(model, tmp_path / "bundle").notes
    assert "LightGBM writes _ for a blank" in note
    assert "total_price, days_late must be called so" in note
    said: list[dict[str, Any]] = [{"name": "total_price", "field": "total price"}, {"name": "days_late"}]
    report = package(model, tmp_path / "said", features=said)
    assert report.notes == ()
    assert report.bundle.signature.features[0].field == "total price"
    unnamed = lightgbm.LGBMClassifier(n_estimators=4, verbose=-1).fit(_rows, _late)
    assert package(unnamed, tmp_path / "unnamed").notes == ()


def _with_categories() -> tuple[pd.DataFrame, NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    size = pd.Categorical(rng.choice(["S", "M", "L"], 300), categories=["S", "M", "L"], ordered=True)
    city = pd.Categorical(rng.choice(["Lima", "Quito"], 300))
    rows = pd.DataFrame(
        {"x": _rows[:, 0], "size": size, "same": 0, "city": city, "zone": rng.choice([3, 7, 9], 300)}
    )
    return rows, ((rows["size"] == "M").to_numpy(int) + (rows.city == "Lima") + (rows.zone == 7) > 1).astype(
        int
    )


@pytest.mark.parametrize(
    ("columns", "codes"),
    [(["x", "size", "city"], []), (["x", "size", "same", "city"], []), (["x", "size", "zone"], ["zone"])],
    ids=["two tables", "a column that never varies", "codes beside an ordered category"],
)
def test_lightgbms_tables_go_to_their_columns_ordered_ones_too(
    columns: list[str], codes: list[str], tmp_path: Path
) -> None:
    rows, late = _with_categories()
    rows = rows[columns]
    options: dict[str, Any] = {"n_estimators": 8, "verbose": -1, "min_data_per_group": 1, "cat_smooth": 1}
    model = lightgbm.LGBMClassifier(**options).fit(rows, late, categorical_feature=codes or "auto")
    zones = [{"name": "zone", "kind": "category", "categories": [str(code) for code in range(10)]}]
    report = package(model, tmp_path / "bundle", background=rows[:50], features=zones if codes else None)
    bundle = report.bundle
    features = {feature.name: feature for feature in bundle.signature.features}
    assert features["size"].categories == ("S", "M", "L")
    records = [json.dumps(row).encode() for row in rows.astype(object).to_dict("records")]
    matrix, places, faults = JsonRows(bundle.signature).read(records)
    assert not faults
    fed, _, rejected = FeaturePolicies(bundle.signature).apply(matrix, places)
    assert not rejected
    found = open_model(bundle, device="cpu", batch_rows_max=1024, clock=SystemClock()).predict(fed)
    wanted = model.predict_proba(rows)
    np.testing.assert_allclose(found.outputs["probabilities"], wanted, atol=1e-6)


def test_a_lightgbm_table_whose_column_nobody_knows_is_refused_by_its_categories(tmp_path: Path) -> None:
    rows, late = _with_categories()
    rows = rows[["x", "size", "same", "city"]]
    model = lightgbm.LGBMClassifier(n_estimators=8, verbose=-1).fit(rows, late)
    with pytest.raises(ConfigError, match="keeps the categories S, M, L without saying whose they are"):
        package(model, tmp_path / "bundle")
    said = [
        {"name": "size", "kind": "category", "categories": ["S", "M", "L"]},
        {"name": "city", "kind": "category", "categories": ["Lima", "Quito"]},
    ]
    assert package(model, tmp_path / "said", features=said).bundle.signature.features[1].kind == "category"
