"""Numbers that the original of a pipeline refuses: their records are set aside by the feature's name, and never answered."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures, PowerTransformer

from penstock.engine.codec.json_rows import JsonRows
from penstock.engine.features.policies import FeaturePolicies
from penstock.engine.features.signature import Feature
from penstock.engine.models.packaging.package import package
from penstock.engine.models.packaging.sklearn.answered_ranges import _end_between, within_answered
from penstock.schemas.reasons import Reason

_rng = np.random.default_rng(0)
_rows = pd.DataFrame({"a": np.exp(_rng.normal(size=200)), "b": _rng.normal(size=200)})
_answers = (np.log(_rows.a) + _rows.b).to_numpy()
_tried = [
    -1e30,
    -2.0,
    -1.0,
    float(np.nextafter(-1.0, 0)),
    -0.5,
    -5e-324,
    -0.0,
    0.0,
    5e-324,
    1e-40,
    1.0,
    700.0,
    720.0,
    1e18,
    1e20,
    3e38,
]


def _of_a(step: Any, model: Any) -> Any:
    return make_pipeline(ColumnTransformer([("f", step, ["a"]), ("p", "passthrough", ["b"])]), model)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # what the original warns of where it refuses
@pytest.mark.parametrize(
    "model",
    [
        _of_a(PowerTransformer("box-cox"), GradientBoostingClassifier(n_estimators=3)),
        _of_a(PowerTransformer("box-cox"), Ridge()),
        _of_a(FunctionTransformer(np.log1p), Ridge()),
        _of_a(FunctionTransformer(np.log), LogisticRegression()),
        _of_a(FunctionTransformer(np.log), HistGradientBoostingRegressor(max_iter=3)),
        _of_a(FunctionTransformer(np.sqrt), GradientBoostingClassifier(n_estimators=3)),
        _of_a(FunctionTransformer(np.exp), Ridge()),
        make_pipeline(PolynomialFeatures(2), RandomForestRegressor(3, max_depth=3, random_state=0)),
    ],
    ids=[
        "Box-Cox, trees",
        "Box-Cox, line",
        "log1p",
        "log",
        "log, missing",
        "square root",
        "exponential",
        "squares",
    ],
)
def test_a_record_is_answered_where_the_original_answers_it(model: Any, tmp_path: Path) -> None:
    classifies = hasattr(model.steps[-1][1], "predict_proba") or isinstance(
        model.steps[-1][1], GradientBoostingClassifier
    )
    model.fit(_rows, (_answers > 0).astype(int) if classifies else _answers)
    bundle = package(model, tmp_path / "bundle", background=_rows[:20]).bundle
    wanted = []
    for value in _tried:
        try:
            model.predict(pd.DataFrame({"a": [value], "b": [0.5]}))
            wanted.append(True)
        except ValueError:
            wanted.append(False)
    records = [json.dumps({"a": value, "b": 0.5}).encode() for value in _tried]
    matrix, places, faults = JsonRows(bundle.signature).read(records)
    assert not faults
    _, kept, rejected = FeaturePolicies(bundle.signature).apply(matrix, places)
    assert [place in kept for place in range(len(_tried))] == wanted
    assert {rejection.reason for rejection in rejected} <= {Reason.OUT_OF_RANGE}
    assert all("feature a " in rejection.detail for rejection in rejected)


def test_the_report_says_which_numbers_are_set_aside(tmp_path: Path) -> None:
    model = _of_a(FunctionTransformer(np.log1p), Ridge()).fit(_rows, _answers)
    report = package(model, tmp_path / "bundle")
    assert any("numbers of a outside [-1, inf] are set aside" in note for note in report.notes)
    said = [{"name": "a", "within": [[0, None]]}]
    report = package(model, tmp_path / "said", features=said)
    assert report.bundle.signature.features[0].within == ((0.0, np.inf),)


def test_a_refusal_that_hangs_on_several_features_is_no_range_of_one() -> None:
    def ask(rows: NDArray[np.float64]) -> NDArray[np.float64]:
        if (np.abs(rows[:, 0] - rows[:, 1]) > 5).any() or (rows[:, 2] < 0).any():
            raise ValueError("too far apart, or below 0")
        return rows[:, 0]

    features = tuple(Feature(name=name, kind="number") for name in "abc")
    notes, found = within_answered(ask, features, np.ones(3))
    assert [feature.within for feature in found] == [(), (), ((0.0, np.inf),)]
    assert notes == ("records with numbers of c outside [0, inf] are set aside: the model takes none",)


@dataclass
class _Bounded:
    """Answers numbers up to a bound, and counts what it is asked."""

    bound: float
    answers_low: bool
    strict: bool
    single: bool
    asked: int = 0

    def ask(self, rows: NDArray[np.float64]) -> None:
        self.asked += 1
        values = rows[:, 0].astype(np.float32).astype(np.float64) if self.single else rows[:, 0]
        beyond = values > self.bound if self.answers_low else values < self.bound
        if (beyond | (self.strict & (values == self.bound))).any():
            raise ValueError("beyond")

    def answers(self, value: float) -> bool:
        try:
            self.ask(np.array([[value]]))
        except ValueError:
            return False
        return True

    def end(self, *likely: float) -> tuple[float, int]:
        """Where it ends, and how often that asked."""
        before = self.asked
        end = _end_between(self.ask, np.zeros(1), 0, -3e38, 3e38, answers_low=self.answers_low, likely=likely)
        return end, self.asked - before


@pytest.mark.parametrize("single", [False, True], ids=["double", "single precision"])
def test_an_end_is_found_to_the_last_double_wherever_it_is(single: bool) -> None:
    """Each question is one of the original's, of milliseconds: fewer are asked of what is rounded to single precision, and four
    where it is known where the end may be."""
    random = np.random.default_rng(4)
    for _ in range(200):
        bound = float(random.choice([-1, 1]) * 10 ** random.uniform(-30, 37))
        bound = float(np.float32(bound)) if random.random() < 0.3 else bound
        low, strict = random.random(2) < 0.5
        model = _Bounded(bound, bool(low), bool(strict), single)
        end, asked = model.end()
        assert asked <= (48 if single else 70)
        assert model.answers(end)
        assert not model.answers(float(np.nextafter(end, np.inf if low else -np.inf)))
        again, asked = model.end(1.0, end)
        assert (again, asked <= 4) == (end, True)
