"""Of several targets, each is explained by its number, whatever the method; and what is explained is called by its name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import penstock

_rows = np.random.default_rng(0).normal(size=(120, 2))
_targets = np.stack((_rows[:, 0] * 3, _rows[:, 1] - _rows[:, 0], np.abs(_rows[:, 1])), axis=1)


@pytest.mark.parametrize(
    ("model", "method"),
    [
        (LinearRegression(), "additive"),
        (make_pipeline(StandardScaler(), KNeighborsRegressor(3)), "exact_enumeration"),
        (RandomForestRegressor(4, max_depth=4, random_state=0), "tree_path_dependent"),
    ],
    ids=["lines", "neighbours", "trees"],
)
def test_a_target_is_explained_by_its_number(model: Any, method: str, tmp_path: Path) -> None:
    penstock.package(model.fit(_rows, _targets), tmp_path / "bundle", background=_rows[:8])
    opened = penstock.load(tmp_path / "bundle")
    for target in range(3):
        found = opened.explain(_rows[:5], output=str(target))
        assert found.method == method
        assert found.output_names.tolist() == [f"value[{target}]"] * 5
        total = found.base_values + found.values.sum(axis=1)
        np.testing.assert_allclose(total, model.predict(_rows[:5])[:, target], atol=1e-5)
    with pytest.raises(penstock.ConfigError, match=r"explain\.output 3"):
        opened.explain(_rows[:5], output="3")
