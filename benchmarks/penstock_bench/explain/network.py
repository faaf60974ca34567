"""A neural network's Shapley values: by enumerating all coalitions, and how far the cheaper methods are from them."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from sklearn.neural_network import MLPRegressor

from penstock.engine.explain.factory import make_explainer
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.loader import open_model
from penstock.engine.ports import Explainer, Model
from penstock.engine.settings.model import ExplainSettings
from penstock_bench.explain.peers import Explain
from penstock_bench.explain.trees import Plan, rates

features: Final = 14
layers: Final = (64, 32)
_settings: Final = {
    "exact_enumeration": {"samples": 1 << features},
    "sampled": {"samples": 1024},
    "expected_gradients": {"samples": 1024},
    "deeplift_rescale": {"samples": 1024},
}
"""The stream's own default but for the enumeration, which needs all coalitions."""
_train_rows, _epochs, _rows, _sample_rows = 2_000, 40, 2_048, 64


def measured(plan: Plan) -> dict[str, Any]:
    """Rows per second of each method relative to one background row, the prediction included, and its distance from the exact values."""
    with tempfile.TemporaryDirectory() as made:
        bundle, rows = _packaged(Path(made) / "network")
    model = open_model(bundle, device="cpu", batch_rows_max=4096, clock=plan.clock)
    sample = rows[:_sample_rows]
    exact = np.empty(0)
    methods: list[dict[str, Any]] = []
    for method, more in _settings.items():
        settings = ExplainSettings(method=method, **more)
        explainer = make_explainer(bundle, model, settings, clock=plan.clock)
        attributions = explainer.explain(sample, model.predict(sample))
        if method == "exact_enumeration":
            exact = attributions.values
        methods.append({
            "method": method,
            "samples": settings.samples,
            "error_relative": _distance(attributions.values, exact),
            "additivity_error": float(np.abs(attributions.additivity_error).max() / np.abs(exact).max()),
            "batches": rates(_explained(model, explainer), rows, plan),
        })  # fmt: skip
    shape = "-".join(str(width) for width in (features, *layers, 1))
    return {"network": shape, "features": features, "background_rows": 1, "methods": methods}


def _packaged(folder: Path) -> tuple[Bundle, NDArray[np.float32]]:
    """A network trained on a curved target, and rows that it has not seen."""
    rng = np.random.default_rng(features)
    X = rng.normal(size=(_train_rows + _rows, features)).astype(np.float32)
    target = X[:, 0] * X[:, 1] + np.sin(2 * X[:, 2:6]).sum(axis=1) + np.abs(X[:, 6:]).sum(axis=1)
    network = MLPRegressor(hidden_layer_sizes=layers, random_state=1)
    for _ in range(_epochs):
        network.partial_fit(X[:_train_rows], target[:_train_rows])
    folder.mkdir()
    model = folder / "network.onnx"
    model.write_bytes(_as_float32(network).SerializeToString())
    return package(model, folder / "bundle", background=X[:1]).bundle, X[_train_rows:]


def _as_float32(network: MLPRegressor) -> onnx.ModelProto:
    """Its layers as Gemm and Relu: a converter keeps scikit-learn's float64."""
    nodes, tensors, before = [], [], "rows"
    last = len(network.coefs_) - 1
    for layer, (weights, shift) in enumerate(zip(network.coefs_, network.intercepts_, strict=True)):
        tensors.append(onnx.numpy_helper.from_array(weights.astype(np.float32), f"weights{layer}"))
        tensors.append(onnx.numpy_helper.from_array(shift.astype(np.float32), f"shift{layer}"))
        after = "score" if layer == last else f"sum{layer}"
        nodes.append(helper.make_node("Gemm", [before, f"weights{layer}", f"shift{layer}"], [after]))
        if layer < last:
            before = f"layer{layer}"
            nodes.append(helper.make_node("Relu", [after], [before]))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _explained(model: Model, explainer: Explainer) -> Explain:
    return lambda rows: explainer.explain(rows, model.predict(rows)).values


def _distance(values: NDArray[np.float64], exact: NDArray[np.float64]) -> float:
    """The median row's distance from its exact values, over their length."""
    lengths: Sequence[float] = np.linalg.norm(values - exact, axis=1) / np.linalg.norm(exact, axis=1)
    return float(np.median(lengths))
