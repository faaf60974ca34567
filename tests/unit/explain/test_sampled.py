"""Shapley values by evaluation: against the definition, and with an honest estimate of the error."""

import itertools
import math
import tracemalloc
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.engine.explain.sampled.coalitions import exact_design, paired_design
from penstock.engine.explain.sampled.explainer import SampledExplainer, representatives
from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.ports import Predictions
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import ConfigError

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


def signature(features: int, dtype: Literal["float32", "float64"] = "float32") -> Signature:
    return Signature(
        features=tuple(Feature(name=f"f{i}", field=f"f{i}", kind="number") for i in range(features)),
        inputs=(ModelInput(name="X", dtype=dtype, start=0, width=features),),
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
    _, _, exact, _ = explain(9, rows=40, samples=1024, method="exact_enumeration")
    assert explainer.background_rows == exact.background_rows == 2  # the same ones: compared on equal terms
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


@pytest.mark.parametrize("features", [2, 5, 9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_model_is_asked_about_mixtures_of_row_and_background_and_nothing_else(
    features: int, dtype: str
) -> None:
    """Every number that the model sees is the record's or a background row's own, bit for bit, NaN included."""
    rng = np.random.default_rng(features)
    X = rng.normal(size=(3, features)).astype(dtype)
    background = rng.normal(size=(2, features)).astype(dtype)
    X[0, 0] = background[1, -1] = np.nan
    seen: list[NDArray[np.generic]] = []

    class Watcher:
        def predict(self, matrix: NDArray[np.generic]) -> Predictions:
            seen.append(matrix.copy())
            return Predictions(outputs={"value": np.ones((len(matrix), 1))}, labels=None, classes=())

    kind: Literal["float32", "float64"] = "float32" if dtype == "float32" else "float64"
    for samples in (16, 2 ** (features + 1)):
        seen.clear()
        settings = ExplainSettings(samples=max(16, samples))
        explainer = SampledExplainer(Watcher(), signature(features, kind), background, settings)
        answers = Predictions(outputs={"value": np.ones((3, 1))}, labels=None, classes=())
        method = explainer.explain(X, answers).method
        exact = 2**features <= settings.samples
        assert method == ("exact_enumeration" if exact else "sampled")
        design = exact_design(features) if exact else paired_design(features, samples)
        coalitions = design.coalitions
        wanted = np.where(
            coalitions[None, None],
            X[:, None, None, :],
            representatives(background, max(1, settings.samples // len(coalitions)))[None, :, None, :],
        )
        np.testing.assert_array_equal(np.concatenate(seen).reshape(wanted.shape), wanted)


def test_many_rows_take_no_more_memory_than_few() -> None:
    X, _, explainer, model = explain(13, rows=500, method="exact_enumeration", samples=1024)
    predictions = model.predict(X)
    tracemalloc.start()
    explainer.explain(X, predictions)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (
        peak_bytes < 24 << 20
    )  # all answers of all rows at once would be 33 MB, and the solve's operands more


def test_one_background_row_is_the_most_typical_one() -> None:
    rng = np.random.default_rng(2)
    background = rng.normal(size=(50, 4)) * [1, 10, 0.1, 0]
    background[0] = [9, 90, 0.9, 0]
    background[20] = np.median(background, axis=0)
    background[5, 1], background[7, 2] = np.nan, np.inf
    np.testing.assert_array_equal(representatives(background, 1), background[20:21])
    np.testing.assert_array_equal(representatives(background, 99), background)
    nothing_known = np.full((3, 2), np.nan)
    assert representatives(nothing_known, 1).shape == (1, 2)


@pytest.mark.filterwarnings("ignore")  # shap's own
@pytest.mark.parametrize("samples", [100, 400])
def test_a_fixed_design_is_no_worse_than_shaps_kernel_explainer(samples: int) -> None:
    """At as many evaluations of the model, on the mean over rows, by the exact values."""
    import shap

    features = 12
    X, background, exact, model = explain(features, rows=12, method="exact_enumeration", samples=4096)
    design = SampledExplainer(
        model,
        signature(features),
        background[:1],
        ExplainSettings(method="sampled", samples=samples),
    )
    exact._background = design._background
    predictions = model.predict(X)
    truth = exact.explain(X, predictions).values
    ours = design.explain(X, predictions)
    peer = shap.KernelExplainer(lambda Z: bent(np.asarray(Z)), background[:1].astype(np.float64))
    np.random.seed(0)
    theirs = peer.shap_values(X.astype(np.float64), nsamples=samples, silent=True, l1_reg=False)
    error = np.sqrt(np.mean((ours.values - truth) ** 2, axis=1))
    assert error.mean() <= 1.05 * np.sqrt(np.mean((theirs - truth) ** 2, axis=1)).mean()
    assert ours.sampling_error is not None
    assert 0.5 < ours.sampling_error.mean() / error.mean() < 4  # it says how wrong it is, and rather too much
