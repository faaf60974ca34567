"""Expected gradients and DeepLIFT of whole bundles: against definitions, complete, and chosen only where they hold."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from penstock.engine.clock import SystemClock
from penstock.engine.explain.factory import make_explainer
from penstock.engine.explain.gradient.explainer import GradientExplainer
from penstock.engine.gpu.device import Device
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.ports import Attributions, Model
from penstock.engine.settings.model import ExplainSettings
from penstock.schemas.errors import ConfigError

rng = np.random.default_rng(11)


def network(folder: Path, features: int, activation: str, *, linear: bool = False) -> Bundle:
    """A regressor: features -> 12 -> 6 -> 1, or one matrix."""
    widths = [features, 1] if linear else [features, 12, 6, 1]
    nodes, weights, at = [], [], "x"
    for layer, (before, after) in enumerate(itertools.pairwise(widths)):
        scale = np.sqrt(2 / before)
        weights += [
            numpy_helper.from_array(
                (rng.normal(size=(before, after)) * scale).astype(np.float32), f"w{layer}"
            ),
            numpy_helper.from_array((rng.normal(size=after) * 0.3).astype(np.float32), f"b{layer}"),
        ]
        last = layer == len(widths) - 2
        out = "y" if last else f"h{layer}"
        nodes.append(helper.make_node("Gemm", [at, f"w{layer}", f"b{layer}"], [out]))
        if not last:
            nodes.append(helper.make_node(activation, [out], [f"a{layer}"]))
        at = f"a{layer}"
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", features])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        initializer=weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return packaged(folder, made, features)


def packaged(folder: Path, model: onnx.ModelProto, features: int) -> Bundle:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    background = rng.normal(size=(24, features)).astype(np.float32)
    return package(path, folder / "bundle", background=background).bundle


def opened(bundle: Bundle) -> Model:
    return open_model(bundle, device="cpu", batch_rows_max=64, clock=SystemClock())


def explained(
    bundle: Bundle, X: NDArray[np.float32], method: str, **settings: Any
) -> tuple[Attributions, Model]:
    model = opened(bundle)
    chosen = ExplainSettings.model_validate(settings)
    explainer = GradientExplainer(bundle, model, chosen, method=method, device=Device())
    return explainer.explain(X, model.predict(X)), model


def by_definition(
    model: Model, X: NDArray[np.float32], background: NDArray[np.generic], steps: int = 600
) -> NDArray[np.float64]:
    """Integrated gradients from every background row by the midpoint rule and central differences."""
    t = (np.arange(steps) + 0.5) / steps
    phi = np.zeros(X.shape)
    for row, x in enumerate(X.astype(np.float64)):
        for b in background.astype(np.float64):
            ways = b + t[:, None] * (x - b)
            for feature in range(X.shape[1]):
                up, down = ways.copy(), ways.copy()
                up[:, feature] += 1e-2
                down[:, feature] -= 1e-2
                values = [model.predict(side.astype(np.float32)).outputs["y"][:, 0] for side in (up, down)]
                phi[row, feature] += (x - b)[feature] * ((values[0] - values[1]) / 2e-2).mean()
    return phi / len(background)


@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
def test_expected_gradients_are_the_mean_of_integrated_gradients(tmp_path: Path, activation: str) -> None:
    bundle = network(tmp_path, 5, activation)
    X = rng.normal(size=(3, 5)).astype(np.float32)
    found, model = explained(bundle, X, "expected_gradients")
    assert bundle.background is not None
    expected = by_definition(model, X, bundle.background)
    assert found.sampling_error is not None
    difference = np.sqrt(np.mean((found.values - expected) ** 2, axis=1))
    np.testing.assert_array_less(difference, found.sampling_error + 2e-3)
    np.testing.assert_allclose(found.base, model.predict(bundle.background).outputs["y"].mean())
    assert np.abs(found.additivity_error).max() < 0.05 * np.abs(found.values).sum(axis=1).max()
    if activation == "Tanh":  # without kinks the rule is as good as exact
        assert np.abs(found.additivity_error).max() < 1e-4


@pytest.mark.parametrize("method", ["expected_gradients", "deeplift_rescale"])
def test_a_linear_model_gets_its_coefficients(tmp_path: Path, method: str) -> None:
    bundle = network(tmp_path, 7, "Relu", linear=True)
    X = rng.normal(size=(9, 7)).astype(np.float32)
    found, model = explained(bundle, X, method)
    assert bundle.background is not None
    slope = (model.predict(np.eye(7, dtype=np.float32)).outputs["y"] - model.predict(np.zeros((1, 7), np.float32)).outputs["y"])[:, 0]  # fmt: skip
    expected = slope * (X - bundle.background.astype(np.float64).mean(axis=0))
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    np.testing.assert_allclose(found.additivity_error, 0, atol=1e-5)


def test_deeplift_accounts_for_everything_in_one_evaluation_a_background_row(tmp_path: Path) -> None:
    bundle = network(tmp_path, 30, "Relu")
    X = rng.normal(size=(40, 30)).astype(np.float32)
    found, _model = explained(bundle, X, "deeplift_rescale")
    assert (found.method, found.sampling_error) == ("deeplift_rescale", None)
    assert np.abs(found.additivity_error).max() < 1e-5
    gradients, _ = explained(bundle, X, "expected_gradients", samples=16_384)
    for one, other in zip(found.values, gradients.values, strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.9  # another rule, and much the same answer


def test_rows_are_explained_alike_alone_and_together(tmp_path: Path) -> None:
    bundle = network(tmp_path, 6, "Tanh")
    X = rng.normal(size=(150, 6)).astype(np.float32)
    together, _ = explained(bundle, X, "expected_gradients")
    alone, _ = explained(bundle, X[77:78], "expected_gradients")
    np.testing.assert_allclose(alone.values[0], together.values[77], atol=1e-6)


@pytest.mark.parametrize("method", ["expected_gradients", "deeplift_rescale"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_trained_pipeline_explains_the_predicted_class(tmp_path: Path, classes: int, method: str) -> None:
    X = (rng.normal(size=(300, 4)) * [1, 5, 0.1, 2] + [0, 3, 1, -5]).astype(np.float32)
    y = np.digitize((X[:, 0] + (X[:, 1] - 3) / 5), [0.0] if classes == 2 else [-0.7, 0.7])
    fitted = make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=1500, random_state=0)).fit(X, y)
    path = tmp_path / "model.onnx"
    path.write_bytes(to_onnx(fitted, X[:1], options={"zipmap": False}).SerializeToString())
    names = ["low", "middle", "high"][-classes:]
    bundle = package(path, tmp_path / "bundle", background=X[:50], classes=names).bundle
    found, model = explained(bundle, X[:80], method)
    predictions = model.predict(X[:80])
    assert predictions.labels is not None
    np.testing.assert_array_equal(found.output_index, predictions.labels)
    assert found.space == "probability"
    score = predictions.outputs[found.output_name][np.arange(80), predictions.labels]
    np.testing.assert_allclose(found.base + found.values.sum(axis=1) - score, found.additivity_error)
    assert np.abs(found.additivity_error).max() < (0.05 if method == "expected_gradients" else 1e-5)
    assert (np.abs(found.values).mean(axis=0)[:2] > np.abs(found.values).mean(axis=0)[2:].max()).all()


Change = Callable[[onnx.GraphProto], None]


def rounded(graph: onnx.GraphProto) -> None:
    """The score becomes a whole number: nothing to derive."""
    graph.node[-1].output[0] = "raw"
    graph.node.append(helper.make_node("Round", ["raw"], ["y"]))


def stepped(graph: onnx.GraphProto) -> None:
    """Steep steps: there is a gradient, almost everywhere nothing."""
    graph.initializer.append(numpy_helper.from_array(np.array(1e5, dtype=np.float32), "steep"))
    graph.node[-1].output[0] = "raw"
    graph.node.append(helper.make_node("Mul", ["raw", "steep"], ["far"]))
    graph.node.append(helper.make_node("Tanh", ["far"], ["y"]))


@pytest.mark.parametrize(
    ("features", "change", "method"),
    [
        (12, None, "expected_gradients"),
        (6, None, "exact_enumeration"),
        (12, rounded, "sampled"),
        (12, stepped, "sampled"),
    ],
)
def test_auto_takes_gradients_where_they_exist_and_account_for_the_scores(
    tmp_path: Path, features: int, change: Change | None, method: str
) -> None:
    bundle = network(tmp_path, features, "Tanh")
    if change is not None:
        proto = onnx.load_from_string(bundle.model)
        change(proto.graph)
        bundle = packaged(tmp_path, proto, features)
    model = opened(bundle)
    X = rng.normal(size=(4, features)).astype(np.float32)
    found = make_explainer(bundle, model, ExplainSettings()).explain(X, model.predict(X))
    assert found.method == method


def test_what_was_asked_for_and_cannot_be_is_refused_by_name(tmp_path: Path) -> None:
    X = rng.normal(size=(80, 3)).astype(np.float32)
    path = tmp_path / "model.onnx"
    fitted = LogisticRegression().fit(X, (X[:, 0] > 0).astype(int))
    path.write_bytes(to_onnx(fitted, X[:1], options={"zipmap": False}).SerializeToString())
    bundle = package(path, tmp_path / "bundle", background=X[:10]).bundle
    with pytest.raises(ConfigError, match="expected_gradients: operator LinearClassifier"):
        make_explainer(bundle, opened(bundle), ExplainSettings(method="expected_gradients"))
    bare = package(path, tmp_path / "bare").bundle
    with pytest.raises(ConfigError, match="background"):
        make_explainer(bare, opened(bare), ExplainSettings(method="deeplift_rescale"))


@pytest.mark.filterwarnings("ignore")
def test_a_tensor_whose_type_the_file_does_not_tell_has_no_gradient(tmp_path: Path) -> None:
    """What operators of ai.onnx.ml make is not inferred: `auto` goes on to sampling, and does not end in a KeyError."""
    X = np.random.default_rng(5).normal(size=(120, 12))
    model = make_pipeline(StandardScaler(), SVC(kernel="poly", probability=True, random_state=0))
    bundle = package(model.fit(X, X[:, 0] > 0), tmp_path / "bundle", background=X[:10], rows=X).bundle
    found = make_explainer(bundle, opened(bundle), ExplainSettings())
    rows = bundle.golden.rows[:2]
    assert found.explain(rows, opened(bundle).predict(rows)).method == "sampled"


def test_an_output_that_is_not_there_is_refused_before_the_first_record(tmp_path: Path) -> None:
    bundle = network(tmp_path, 12, "Relu")
    with pytest.raises(ConfigError, match="nonsense"):
        make_explainer(bundle, opened(bundle), ExplainSettings(output="nonsense", method="sampled"))


def test_enumerating_a_network_costs_little_more_than_its_evaluations(tmp_path: Path) -> None:
    """14 features: 16 384 coalitions a record. The fastest of several turns, so that neighbours do not decide."""
    bundle = network(tmp_path, 14, "Relu")
    model = open_model(bundle, device="cpu", batch_rows_max=4096, clock=SystemClock())
    X = rng.normal(size=(8, 14)).astype(np.float32)
    predictions = model.predict(X)
    explainer = make_explainer(bundle, model, ExplainSettings(method="exact_enumeration"))
    evaluated = rng.normal(size=(8 * 2**14, 14)).astype(np.float32)
    clock = SystemClock()
    fastest = {"evaluate": np.inf, "explain": np.inf}
    for _ in range(6):
        started_s = clock.monotonic_s()
        model.predict(evaluated)
        between_s = clock.monotonic_s()
        found = explainer.explain(X, predictions)
        ended_s = clock.monotonic_s()
        fastest["evaluate"] = min(fastest["evaluate"], between_s - started_s)
        fastest["explain"] = min(fastest["explain"], ended_s - between_s)
    assert found.method == "exact_enumeration"
    assert fastest["explain"] < 3 * fastest["evaluate"]
