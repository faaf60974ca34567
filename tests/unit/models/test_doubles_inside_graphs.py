"""Trees that compare doubles inside models of operators: numbers that float32 rounds together are told apart."""

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, StackingClassifier, VotingClassifier
from sklearn.kernel_approximation import RBFSampler
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline

from penstock.engine.models.packaging.package import package

from .test_sklearn_matrix import served

_booster: dict[str, Any] = {"n_estimators": 5, "verbose": -1, "n_jobs": 1}
_models: dict[str, Any] = {
    "target by log1p": TransformedTargetRegressor(
        lightgbm.LGBMRegressor(**_booster), func=np.log1p, inverse_func=np.expm1
    ),
    "stacked": StackingClassifier(
        [("light", lightgbm.LGBMClassifier(**_booster))], cv=2, final_estimator=LogisticRegression()
    ),
    "calibrated": CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=5), cv=2),
    "soft vote": VotingClassifier(
        [
            ("light", lightgbm.LGBMClassifier(**_booster)),
            ("hist", HistGradientBoostingClassifier(max_iter=5)),
        ],
        voting="soft",
        weights=[1, 3],
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", _models)
def test_ids_are_told_apart(name: str, tmp_path: Path) -> None:
    def made(seed: int) -> Any:
        random = np.random.default_rng(seed)
        return np.stack((5e9 + random.integers(0, 600, 800), random.normal(size=800).round(1)), axis=1)

    rows, tried = made(1), made(2)
    answers = ((rows[:, 0] - 5e9) // 50 % 2).astype(int)
    model = _models[name].fit(rows, answers)
    bundle = package(model, tmp_path / "bundle").bundle  # without rows: nothing shows the ids to the proof
    names = bundle.signature.columns
    _, found = served(bundle, [dict(zip(names, row, strict=True)) for row in tried.tolist()])
    expected = (
        model.predict_proba(tried) if hasattr(model, "predict_proba") else model.predict(tried)[:, None]
    )
    np.testing.assert_allclose(found.outputs[bundle.outputs[0].name], expected, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_where_only_float32_gets_through_the_report_says_so(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    rows = random.normal(size=(300, 2))
    members = [
        ("light", lightgbm.LGBMClassifier(**_booster)),
        ("hist", HistGradientBoostingClassifier(max_iter=5)),
    ]
    model = VotingClassifier(members, voting="soft").fit(rows, (rows[:, 0] > 0).astype(int))
    report = package(model, tmp_path / "bundle", rows=rows)
    narrow = report.bundle.signature.inputs[0].dtype == "float32"
    assert any("in float32" in note for note in report.notes) == narrow


def test_a_number_beside_a_product_of_matrices_keeps_its_digits(tmp_path: Path) -> None:
    """ONNX Runtime takes it into the product, as a float32, where it is let."""
    rows = np.random.default_rng(0).normal(size=(300, 4))
    model = make_pipeline(RBFSampler(n_components=7, random_state=0), Ridge()).fit(
        rows, rows @ np.arange(4.0)
    )
    bundle = package(model, tmp_path / "bundle", background=rows[:50]).bundle
    records = [{f"f{place}": value for place, value in enumerate(row)} for row in rows.tolist()]
    _, found = served(bundle, records)
    wanted = model.predict(rows)
    assert np.abs(found.outputs["value"][:, 0] - wanted).max() <= 1e-12
