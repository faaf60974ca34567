"""LIME: the closed form for trees against least squares over everything that can be drawn, and the fixed design against it."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.engine.explain.factory import make_explainer
from penstock.engine.explain.lime.bins import find_bins
from penstock.engine.explain.lime.explainer import LimeExplainer
from penstock.engine.explain.lime.trees import LimeTreeExplainer
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.models.packaging.package import package
from penstock.engine.ports import Predictions
from penstock.engine.settings.model import ExplainSettings
from penstock.engine.trees.forest import Forest
from penstock.engine.trees.onnx.write import write_forest
from penstock.schemas.errors import ConfigError
from tests.forests import random_forest, random_rows

nothing = Predictions(outputs={}, labels=None, classes=())


def signature(features: int, *, categories: tuple[int, ...] = ()) -> Signature:
    return Signature(
        features=tuple(
            Feature(name=f"f{i}", kind="category", categories=tuple(map(str, range(50))))
            if i in categories
            else Feature(name=f"f{i}", kind="number")
            for i in range(features)
        ),
        inputs=(ModelInput(name="X", dtype="float32", start=0, width=features),),
    )


def over_everything(
    forest: Forest, x: NDArray[np.float32], background: NDArray[np.float32], known: Signature
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intercept (K,) and coefficients (F, K) of LIME's least squares over every record that can be drawn."""
    drawn = np.array(list(itertools.product(*background.T)), dtype=np.float32)
    bins = find_bins(background, known)
    stays = (bins.of(drawn) == bins.of(x[None])).astype(np.float64)
    weight = np.sqrt(np.exp(-(x.size - stays.sum(axis=1)) / (0.75**2 * x.size)))
    varies = stays.std(axis=0) > 0
    design = np.column_stack([np.ones(len(drawn)), stays[:, varies]]) * np.sqrt(weight)[:, None]
    target = forest.raw_scores(drawn) * np.sqrt(weight)[:, None]
    found = np.linalg.lstsq(design, target, rcond=None)[0]
    coefficients = np.zeros((x.size, forest.outputs))
    coefficients[varies] = found[1:]
    return found[0], coefficients


@pytest.mark.parametrize("seed", range(12))
def test_the_closed_form_is_least_squares_over_everything_that_can_be_drawn(seed: int) -> None:
    forest = random_forest(seed, trees=4, depth=4, features=4, outputs=1 + seed % 2)
    categories = (0, 3) if seed % 3 else ()
    known = signature(4, categories=categories)
    background = random_rows(seed, 9, features=4, infinite=False)
    rows = random_rows(seed + 100, 6, features=4, infinite=False)
    rows[0, 1] = np.nan
    background[:, 2] = background[0, 2] if seed == 5 else background[:, 2]
    for output in range(forest.outputs):
        explainer = LimeTreeExplainer(forest, known, background, output=str(output))
        found = explainer.explain(rows, nothing)
        score = forest.raw_scores(rows)[:, output]
        np.testing.assert_allclose(
            found.additivity_error, found.base + found.values.sum(axis=1) - score, atol=1e-12
        )
        for row, x in enumerate(rows):
            intercept, coefficients = over_everything(forest, x, background, known)
            np.testing.assert_allclose(found.values[row], coefficients[:, output], atol=1e-8)
            np.testing.assert_allclose(found.base[row], intercept[output], atol=1e-8)


def test_the_fixed_design_comes_close_to_the_closed_form_and_says_how_close() -> None:
    forest = random_forest(3, trees=20, depth=4, features=8, sets=0)
    background = random_rows(8, 200, features=8, infinite=False)
    rows = random_rows(9, 30, features=8, infinite=False)

    class Model:
        calls = 0

        def predict(self, matrix: NDArray[np.generic]) -> Predictions:
            self.calls += 1
            scores = forest.raw_scores(matrix.astype(np.float32))
            return Predictions(outputs={"scores": scores}, labels=None, classes=())

    model = Model()
    explainer = LimeExplainer(model, signature(8), background, ExplainSettings())
    answers = model.predict(rows)
    model.calls = 0
    found = explainer.explain(rows, answers)
    assert model.calls == 0  # an explanation evaluates nothing
    exact = LimeTreeExplainer(forest, signature(8), background, output="0").explain(rows, nothing)
    error = np.sqrt(np.mean((found.values - exact.values) ** 2, axis=1))
    assert found.sampling_error is not None
    assert error.mean() < 0.1 * np.abs(exact.values).mean()
    assert 0.5 < found.sampling_error.mean() / error.mean() < 2
    assert found.background == exact.background
    alone = explainer.explain(rows[7:8], answers.take(np.array([7])))
    np.testing.assert_allclose(alone.values[0], found.values[7], atol=1e-12)


def test_a_coefficient_is_what_the_own_bin_adds_beside_the_others() -> None:
    """Of a sum of functions of one feature each: the mean inside the bin less the mean outside."""
    rng = np.random.default_rng(0)
    background = rng.normal(size=(400, 3)).astype(np.float32)
    x = np.array([[2.0, 0.1, -0.1]], dtype=np.float32)

    class Model:
        def predict(self, matrix: NDArray[np.generic]) -> Predictions:
            X = matrix.astype(np.float64)
            scores = X[:, 0] ** 2 + 3 * X[:, 1]
            return Predictions(outputs={"value": scores[:, None]}, labels=None, classes=())

    found = LimeExplainer(Model(), signature(3), background, ExplainSettings()).explain(x, Model().predict(x))
    lowest = np.sort(background[:, 0])[300]
    inside = background[:, 0] > lowest
    square = background[:, 0].astype(np.float64) ** 2
    expected = [square[inside].mean() - square[~inside].mean(), found.values[0, 1], 0.0]
    assert found.sampling_error is not None
    assert found.sampling_error[0] < 0.1
    np.testing.assert_allclose(found.values[0], expected, atol=3 * found.sampling_error[0])
    assert found.values[0, 1] > 1  # the bin above the median, of a rising line


def test_the_first_of_two_classes_is_the_second_turned_over(tmp_path: Path) -> None:
    forest = random_forest(6, trees=5, features=5, sets=0, labels=("no", "yes"))
    background = random_rows(1, 40, features=5, infinite=False)
    rows = random_rows(2, 5, features=5, infinite=False)
    by_class = {
        name: LimeTreeExplainer(forest, signature(5), background, output=name).explain(rows, nothing)
        for name in ("no", "yes")
    }
    np.testing.assert_allclose(by_class["no"].values, -by_class["yes"].values)
    np.testing.assert_allclose(by_class["no"].additivity_error, -by_class["yes"].additivity_error, atol=1e-12)


def test_bundles_of_trees_get_the_closed_form_by_name(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(write_forest(random_forest(3, sets=0)).SerializeToString())
    background = random_rows(4, 30, infinite=False)
    bundle = package(path, tmp_path / "bundle", background=background).bundle

    class NoModel:
        def predict(self, matrix: NDArray[np.generic]) -> Predictions:
            raise AssertionError("trees are explained without running the model")

    found = make_explainer(bundle, NoModel(), ExplainSettings(method="lime")).explain(
        random_rows(5, 7), nothing
    )
    assert (found.method, found.sampling_error) == ("lime", None)
    bare = package(path, tmp_path / "bare").bundle
    with pytest.raises(ConfigError, match="background"):
        make_explainer(bare, NoModel(), ExplainSettings(method="lime"))


def test_too_many_features_and_answers_that_are_none_are_refused_at_start() -> None:
    class Nowhere:
        def predict(self, matrix: NDArray[np.generic]) -> Predictions:
            return Predictions(outputs={"y": np.full((len(matrix), 1), np.nan)}, labels=None, classes=())

    background = np.zeros((4, 300), dtype=np.float32)
    with pytest.raises(ConfigError, match="300 features"):
        LimeExplainer(Nowhere(), signature(300), background, ExplainSettings())
    explainer = LimeExplainer(Nowhere(), signature(3), background[:, :3], ExplainSettings())
    with pytest.raises(ConfigError, match="NaN"):
        explainer.explain(background[:1, :3], Nowhere().predict(background[:1, :3]))
