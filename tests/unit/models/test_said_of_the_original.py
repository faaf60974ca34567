"""What the report says of an original that answers otherwise from one moment to the next: at ties, and at two kinds of nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from penstock.engine.models.packaging.package import package
from penstock.engine.models.packaging.parity import ParityError

_answers = np.random.default_rng(0).normal(size=400)


def test_a_difference_at_a_tie_between_neighbours_is_an_error_that_says_so(tmp_path: Path) -> None:
    across, down = np.meshgrid(np.arange(20.0), np.arange(20.0))
    rows = np.stack(
        (across.ravel(), down.ravel()), axis=1
    )  # each point has four neighbours at the same distance
    model = make_pipeline(StandardScaler(), KNeighborsRegressor(3)).fit(rows, _answers)
    with pytest.raises(
        ParityError, match=r"on row \d+ of the .* one part in 10\^15, so that rounding decides"
    ):
        package(model, tmp_path / "bundle", rows=rows)


def test_a_difference_that_rounding_does_not_explain_is_not_excused(tmp_path: Path) -> None:
    rows = pd.DataFrame({"a": np.arange(400, dtype=np.int64) + 20_000_000})
    model = make_pipeline(FunctionTransformer(np.square), Ridge()).fit(rows, _answers)
    bundle = package(model, tmp_path / "bundle", rows=rows)
    assert not any("rounding decides" in note for note in bundle.notes)


def test_an_original_that_tells_none_from_nan_is_named(tmp_path: Path) -> None:
    texts = pd.DataFrame({"job": pd.Series(["a", "b", "b", "c"] * 100, dtype=object)})
    steps = [SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore")]
    model = make_pipeline(*steps, Ridge()).fit(texts, _answers)
    report = package(model, tmp_path / "bundle", rows=texts)
    assert any("answers None and NaN otherwise in job" in note for note in report.notes)
    known = make_pipeline(steps[1], Ridge()).fit(texts, _answers)
    assert not any("None and NaN" in note for note in package(known, tmp_path / "other", rows=texts).notes)
