"""Shapley values by evaluation: against the definition, and with an honest estimate of the error."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.explain.sampled import SampledExplainer, exact_design, paired_design
from engine.models.signature import Feature, ModelInput, Signature
from engine.ports import Predictions
from engine.settings import ExplainSettings
from schemas.errors import ConfigError

Function = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Regressor:
    """A model from a function."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.runs = 0

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        self.runs += 1
        value = self.function(matrix.astype(np.float64))
        return Predictions(outputs={"value": value[:, None]}, labels=None, classes=())


def signature(features: int) -> Signature:
    return Signature(
        features=tuple(Feature(name=f"f{i}", field=f"f{i}", kind="number") for i in range(features)),
        inputs=(ModelInput(name="X", dtype="float32", start=0, width=features),),
    )


def bent(X: NDArray[np.float64]) -> NDArray[np.float64]:
    bends = X[:, 0] * X[:, 1] + np.sin(2 * X[:, 2]) + X[:, 3] * X[:, 4] * X[:, 5]
    return np.asarray(bends + 0.3 * X.sum(axis=1))


def by_definition(
    function: Function, x: NDArray[np.float64], background: NDArray[np.float64]
) -> NDArray[np.float64]:
    features = len(x)

    def value(members: tuple[int, ...]) -> float:
        mixed = background.copy()
        mixed[:, list(members)] = x[list(members)]
        return float(function(mixed).mean())

    phi = np.zeros(features)
    for i in range(features):
        others = [j for j in range(features) if j != i]
        for size in range(features):
            weight = 1 / (features * math.comb(features - 1, size))
            for members in itertools.combinations(others, size):
                phi[i] += weight * (value((*members, i)) - value(members))
    return phi


def explain(
    features: int, *, rows: int = 4, **settings: object
) -> tuple[NDArray[np.float32], NDArray[np.float32], SampledExplainer, Regressor]:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(rows, features)).astype(np.float32)
    background = rng.normal(size=(3, features)).astype(np.float32)
    model = Regressor(bent)
    chosen = ExplainSettings.model_validate({"samples": 4096, **settings})
    return X, background, SampledExplainer(model, signature(features), background, chosen), model


def test_few_features_are_enumerated_and_equal_the_definition() -> None:
    X, background, explainer, model = explain(7)
    found = explainer.explain(X, model.predict(X))
    assert found.method == "exact_enumeration"
    assert found.sampling_error is None
    for row in range(len(X)):
        expected = by_definition(bent, X[row].astype(np.float64), background.astype(np.float64))
        np.testing.assert_allclose(found.values[row], expected, atol=1e-6)
    np.testing.assert_allclose(found.additivity_error, 0, atol=1e-6)


def test_sampling_is_additive_close_and_says_how_close() -> None:
    X, _, explainer, model = explain(9, rows=40, method="sampled", samples=200)
    _, _, exact, _ = explain(9, rows=40, samples=4096, method="exact_enumeration")
    # both see the same single background row only if the budget allows no more; compare on equal terms
    exact._background = explainer._background
    found, truth = explainer.explain(X, model.predict(X)), exact.explain(X, model.predict(X))
    assert found.method == "sampled"
    assert found.sampling_error is not None
    np.testing.assert_allclose(found.additivity_error, 0, atol=1e-6)
    error = np.sqrt(np.mean((found.values - truth.values) ** 2, axis=1))
    assert error.mean() < 0.1 * np.abs(truth.values).mean()
    assert 0.2 < found.sampling_error.mean() / error.mean() < 5


@pytest.mark.parametrize("features", [3, 8, 20])
def test_a_linear_model_is_explained_exactly_by_any_design(features: int) -> None:
    rng = np.random.default_rng(features)
    slope = rng.normal(size=features)
    design = paired_design(features, 4 * features + 2)
    values = design.coalitions @ slope + 5.0
    np.testing.assert_allclose(design.solve @ values, slope, atol=1e-9)


def test_all_coalitions_of_a_paired_design_make_it_exact() -> None:
    rng = np.random.default_rng(1)
    paired, exact = paired_design(6, 10_000), exact_design(6)
    assert len(paired.coalitions) == len(exact.coalitions) == 64
    game = rng.normal(size=64)
    number = paired.coalitions @ (1 << np.arange(6))
    np.testing.assert_allclose(paired.solve @ game[number], exact.solve @ game, atol=1e-9)


def test_a_batch_is_one_run_of_the_model() -> None:
    X, _, explainer, model = explain(7, rows=4, samples=128)
    predictions = model.predict(X)
    model.runs = 0
    explainer.explain(X, predictions)
    assert model.runs == 1


def test_rows_are_explained_alike_alone_and_together() -> None:
    X, _, explainer, model = explain(8, rows=300, method="sampled", samples=500)
    together = explainer.explain(X, model.predict(X))
    alone = explainer.explain(X[17:18], model.predict(X[17:18]))
    np.testing.assert_allclose(alone.values[0], together.values[17], rtol=0, atol=1e-12)


def test_what_cannot_be_explained_is_refused_at_start() -> None:
    with pytest.raises(ConfigError, match="background"):
        SampledExplainer(Regressor(bent), signature(7), None, ExplainSettings())
    with pytest.raises(ConfigError, match="too many coalitions"):
        explain(20, method="exact_enumeration")
    X, _, explainer, model = explain(7, output="nonsense")
    with pytest.raises(ConfigError, match="nonsense"):
        explainer.explain(X, model.predict(X))
