"""Which explainer a bundle gets."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

from penstock.engine.explain.factory import make_explainer
from penstock.engine.explain.tree.tree_shap import TreeShap
from penstock.engine.models.packaging.package import package
from penstock.engine.ports import Predictions
from penstock.engine.settings.model import ExplainSettings
from penstock.engine.trees.onnx.write import write_forest
from penstock.schemas.errors import ConfigError
from tests.forests import random_forest, random_rows

nothing = Predictions(outputs={}, labels=None, classes=())


class _NoModel:
    def predict(self, matrix: Any) -> Predictions:
        raise AssertionError("trees are explained without running the model")


def _bundle(folder: Path, *, covers: bool, background: bool) -> Any:
    model = folder / "model.onnx"
    model.write_bytes(write_forest(random_forest(3, sets=0, covers=covers)).SerializeToString())
    rows = random_rows(4, 20, infinite=False) if background else None
    return package(model, folder / "bundle", background=rows).bundle


@pytest.mark.parametrize(
    ("covers", "background", "asked", "method"),
    [
        (True, True, "auto", "tree_path_dependent"),
        (True, False, "auto", "tree_path_dependent"),
        (False, True, "auto", "tree_interventional"),
        (True, True, "tree_interventional", "tree_interventional"),
        (True, True, "tree_path_dependent", "tree_path_dependent"),
    ],
)
def test_trees_by_their_covers_else_by_the_background(
    tmp_path: Path, covers: bool, background: bool, asked: Any, method: str
) -> None:
    bundle = _bundle(tmp_path, covers=covers, background=background)
    explainer = make_explainer(bundle, _NoModel(), ExplainSettings(method=asked))
    found = explainer.explain(random_rows(5, 7), nothing)

    assert found.method == method
    assert (found.background is not None) == (method == "tree_interventional")
    assert np.abs(found.additivity_error).max() <= 1e-5
    shap_values = TreeShap.from_bundle(tmp_path / "bundle")
    if asked == "auto":
        assert np.array_equal(shap_values.shap_values(random_rows(5, 7))[0], found.values)


@pytest.mark.parametrize(
    ("covers", "background", "asked", "says"),
    [
        (False, False, "auto", "neither covers nor background"),
        (True, False, "tree_interventional", "background"),
        (False, True, "tree_path_dependent", "training data"),
    ],
)
def test_what_is_not_there_is_never_guessed(
    tmp_path: Path, covers: bool, background: bool, asked: Any, says: str
) -> None:
    bundle = _bundle(tmp_path, covers=covers, background=background)
    with pytest.raises(ConfigError, match=says):
        make_explainer(bundle, _NoModel(), ExplainSettings(method=asked))


def test_a_model_that_is_no_tree_is_not_explained_as_one(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(80, 3)).astype(np.float32)
    model = LogisticRegression().fit(X, (X[:, 0] > 0).astype(int))
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(model, X[:1], options={"zipmap": False}).SerializeToString())
    bundle = package(path, tmp_path / "bundle", background=X[:10]).bundle

    with pytest.raises(ConfigError, match=r"explain\.method tree_interventional: operator"):
        make_explainer(bundle, _NoModel(), ExplainSettings(method="tree_interventional"))
