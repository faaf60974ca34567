"""Arrays of rows whose numbers may be read in two ways are refused, and never guessed."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from penstock.engine.models.packaging.package import package
from penstock.schemas.errors import ConfigError

_rng = np.random.default_rng(0)


def _of_codes(values: list[int]) -> tuple[HistGradientBoostingRegressor, np.ndarray]:
    rows = np.stack((_rng.normal(size=200), _rng.choice(values, 200).astype(np.float64)), axis=1)
    model = HistGradientBoostingRegressor(max_iter=3, min_samples_leaf=5, categorical_features=[1])
    return model.fit(rows, rows[:, 0] + rows[:, 1] ** 2), rows


@pytest.mark.parametrize("values", [[1, 2, 3], [1, 7, 30]], ids=["codes of others", "no codes"])
def test_an_array_of_categories_as_they_are_is_refused_with_the_cure(
    values: list[int], tmp_path: Path
) -> None:
    model, rows = _of_codes(values)
    few = rows[rows[:, 1] < 3][:20]  # these would pass for codes
    with pytest.raises(ConfigError, match="give a data frame, whose columns are called f0, f1"):
        package(model, tmp_path / "bundle", background=few if values[1] == 2 else rows[:20])


def test_an_array_is_taken_where_codes_and_categories_are_the_same(tmp_path: Path) -> None:
    model, rows = _of_codes([0, 1, 2])
    assert package(model, tmp_path / "bundle", background=rows[:20]).parity.rows_given == 20
    model, rows = _of_codes([1, 7, 30])
    rows[:, 1] = np.searchsorted([1, 7, 30], rows[:, 1])
    assert package(model, tmp_path / "codes", background=rows[:20]).parity.rows_given == 20


def test_a_classifier_of_several_labels_at_once_is_refused_by_name(tmp_path: Path) -> None:
    rows = _rng.normal(size=(100, 2))
    labels = (rows > 0).astype(int)
    with pytest.raises(ConfigError, match="a classifier of several targets has no place in a bundle"):
        package(OneVsRestClassifier(LogisticRegression()).fit(rows, labels), tmp_path / "bundle")


def test_a_table_for_a_model_without_names_is_refused_with_the_cure(tmp_path: Path) -> None:
    rows = _rng.normal(size=(100, 2))
    model = LogisticRegression().fit(rows, rows[:, 0] > 0)
    table = pd.DataFrame(rows, columns=["age", "income"])
    with pytest.raises(ConfigError, match="are age, income, and the model was trained without names"):
        package(model, tmp_path / "bundle", background=table[:20])
    report = package(model, tmp_path / "named", background=table[:20], feature_names=["age", "income"])
    assert report.bundle.signature.columns == ("age", "income")
