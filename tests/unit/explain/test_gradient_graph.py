"""Gradients and multipliers derived from an ONNX file: against differences, operator by operator, and what is refused."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from penstock.engine.explain.gradient.graph import derive
from penstock.engine.explain.gradient.tape import NotDifferentiableError
from penstock.schemas.errors import ConfigError

rng = np.random.default_rng(7)
fixed = {
    "w": rng.normal(size=(4, 3)),
    "wt": rng.normal(size=(3, 4)),
    "bias": rng.normal(size=3),
    "row": rng.normal(size=(1, 4)),
    "one": np.array([[1.5]]),
    "half": np.array(0.5),
    "low": np.array(-0.7),
    "high": np.array(0.8),
    "three": np.array(3.0),
    "scale": np.array([1.0, 2, -1, 0.5]),
    "mean": np.array([0.1, 0.2, 0.3, 0.4]),
    "variance": np.array([1.0, 0.5, 2, 3]),
    "last": np.array([-1]),
    "second": np.array([1]),
    "square": np.array([0, 2, 2]),
    "third": np.array([2]),
    "column": np.array([-1, 1]),
    "picked": np.array([3, 0, 0, -1, 1]),
    "cube": rng.normal(size=(2, 2)),
}


def node(operator: str, *inputs: str, to: str = "h", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, list(inputs), [to], **attributes)


def model(
    nodes: list[onnx.NodeProto], *, opset: int = 17, kind: int = TensorProto.DOUBLE, scores: int | None = None
) -> bytes:
    """x (N, 4) through the nodes to h, which every score depends on."""
    used = {name for each in nodes for name in each.input}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", kind, ["N", 4])],
        [helper.make_tensor_value_info("h", kind, ["N", scores])],
        initializer=[
            numpy_helper.from_array(
                value if value.dtype == np.int64 else value.astype(helper.tensor_dtype_to_np_dtype(kind)),
                name,
            )
            for name, value in fixed.items()
            if name in used
        ],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def session(data: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options)


def scores_of(data: bytes, X: NDArray[Any], name: str = "h") -> NDArray[np.float64]:
    return np.asarray(session(data).run([name], {"x": X})[0], dtype=np.float64)


smooth: dict[str, list[onnx.NodeProto]] = {
    "Gemm": [node("Gemm", "x", "w", "bias", alpha=0.7, beta=2.0)],
    "Gemm transB": [node("Gemm", "x", "wt", "bias", transB=1)],
    "Gemm, added row": [node("MatMul", "x", "w", to="c"), node("Gemm", "x", "w", "c", beta=0.5)],
    "MatMul": [node("MatMul", "x", "w")],
    "MatMul of a computed matrix": [node("Neg", "w", to="v"), node("MatMul", "x", "v")],
    "Add": [node("Add", "x", "row")],
    "Add twice": [node("Add", "x", "x")],
    "Sum": [node("Sum", "x", "row", "x")],
    "Sub": [node("Tanh", "x", to="t"), node("Sub", "t", "x")],
    "Sub from": [node("Sub", "row", "x")],
    "Mul": [node("Sigmoid", "x", to="s"), node("Mul", "x", "s")],
    "Mul by a constant": [node("Mul", "row", "x")],
    "Mul, stretched": [
        node("ReduceSum", "x", "last", to="s", keepdims=1),
        node("Mul", "x", "s"),
    ],
    "Div": [node("Exp", "x", to="e"), node("Div", "x", "e")],
    "Div of a constant": [node("Exp", "x", to="e"), node("Div", "row", "e")],
    "Div by a constant": [node("Div", "x", "row")],
    "Neg": [node("Neg", "x")],
    "Relu": [node("Relu", "x")],
    "LeakyRelu": [node("LeakyRelu", "x", alpha=0.2)],
    "Elu": [node("Elu", "x", alpha=0.6)],
    "Selu": [node("Selu", "x")],
    "Sigmoid": [node("Sigmoid", "x")],
    "HardSigmoid": [node("HardSigmoid", "x", alpha=0.4)],
    "Tanh": [node("Tanh", "x")],
    "Erf": [node("Erf", "x")],
    "Softplus": [node("Softplus", "x")],
    "Softsign": [node("Softsign", "x")],
    "Exp": [node("Exp", "x")],
    "Log of Sqrt": [node("Exp", "x", to="e"), node("Sqrt", "e", to="r"), node("Log", "r")],
    "Reciprocal": [node("Exp", "x", to="e"), node("Reciprocal", "e")],
    "Abs": [node("Abs", "x")],
    "Clip": [node("Clip", "x", "low", "high")],
    "Clip above": [node("Clip", "x", "", "high")],
    "Pow": [node("Pow", "x", "three")],
    "Identity": [node("Identity", "x")],
    "Dropout": [node("Dropout", "x")],
    "BatchNormalization": [node("BatchNormalization", "x", "scale", "row1", "mean", "variance")],
    "Concat": [node("Relu", "x", to="r"), node("Concat", "x", "r", "x", axis=1)],
    "Gather": [node("Tanh", "x", to="t"), node("Gather", "t", "picked", axis=1)],
    "ReduceLogSumExp": [
        node("ReduceLogSumExp", "x", to="s", axes=[1], keepdims=0),
        node("Reshape", "s", "column", to="c"),
        node("Sub", "x", "c"),
    ],
    "Reshape": [node("Reshape", "x", "square", to="c"), node("MatMul", "c", "cube", to="d"), node("Flatten", "d")],
    "Transpose": [
        node("Reshape", "x", "square", to="c"),
        node("Transpose", "c", to="d", perm=[0, 2, 1]),
        node("MatMul", "d", "cube", to="e"),
        node("Flatten", "e"),
    ],
    "Squeeze": [node("Unsqueeze", "x", "third", to="c"), node("Tanh", "c", to="d"), node("Squeeze", "d", "third")],
    "ReduceSum": [node("Tanh", "x", to="t"), node("ReduceSum", "t", "second", keepdims=1)],
    "ReduceMean": [
        node("ReduceMean", "x", to="m", axes=[1], keepdims=1),
        node("Sub", "x", "m", to="c"),
        node("Tanh", "c"),
    ],
    "ReduceSum, dropped": [
        node("Reshape", "x", "square", to="c"),
        node("Tanh", "c", to="t"),
        node("ReduceSum", "t", "third", keepdims=0),
    ],
    "LayerNormalization by hand": [
        node("ReduceMean", "x", to="m", axes=[-1], keepdims=1),
        node("Sub", "x", "m", to="c"),
        node("Mul", "c", "c", to="q"),
        node("ReduceMean", "q", to="v", axes=[-1], keepdims=1),
        node("Add", "v", "one", to="v1"),
        node("Sqrt", "v1", to="d"),
        node("Div", "c", "d"),
    ],
    "Softmax": [node("Softmax", "x")],
    "LogSoftmax": [node("LogSoftmax", "x")],
    "Shape of the row": [node("Shape", "x", to="s"), node("Relu", "x", to="r"), node("Reshape", "r", "s")],
    "a bystander": [node("Relu", "x"), node("ArgMax", "h", to="label", axis=1)],
}  # fmt: skip
smooth["Cast"] = [helper.make_node("Cast", ["x"], ["c"], to=TensorProto.DOUBLE), node("Tanh", "c")]
fixed["row1"] = np.array([0.3, -0.2, 0.0, 1.0])


single = ("Elu", "Selu", "HardSigmoid", "Erf", "Softplus", "Softsign")
"""ONNX Runtime has these for float32 only."""


def model_of(name: str) -> tuple[bytes, type[np.floating[Any]]]:
    if name in single:
        return model(smooth[name], kind=TensorProto.FLOAT), np.float32
    return model(smooth[name]), np.float64


@pytest.mark.parametrize("name", smooth)
def test_gradients_are_those_of_differences(name: str) -> None:
    data, kind = model_of(name)
    X = rng.normal(size=(6, 4)).astype(kind)
    X[np.abs(X) < 0.05] = 0.3  # away from the kinks, where there is no gradient to compare with
    scores = scores_of(data, X).shape[1]
    graph = derive(data, "h", scores, rescale=False)
    seed = rng.normal(size=(6, scores)).astype(np.float32)
    found = session(graph.model).run([graph.gradient], {"x": X, graph.seed: seed})[0]
    step = 1e-2 if kind is np.float32 else 1e-5
    expected = [
        ((scores_of(data, X + step * unit) - scores_of(data, X - step * unit)) * seed).sum(axis=1)
        / (2 * step)
        for unit in np.eye(4, dtype=kind)
    ]
    np.testing.assert_allclose(found, np.stack(expected, axis=1), atol=1e-3 if kind is np.float32 else 2e-6)


@pytest.mark.parametrize("name", [name for name in smooth if name != "ReduceLogSumExp"])
def test_multipliers_account_for_the_whole_difference(name: str) -> None:
    data, kind = model_of(name)
    X, baseline = rng.normal(size=(2, 9, 4)).astype(kind)
    baseline[0] = X[0]  # nothing differs, and nothing is to be shared out
    baseline[1, :2] = X[1, :2] + 1e-9
    X[2], baseline[2] = [300.0, 0, 0, 0], [0, 0, 0, -300.0]
    if name in ("Div", "Div of a constant", "Reciprocal", "Exp", "Log of Sqrt"):
        X[2], baseline[2] = X[2] / 60, baseline[2] / 60
    scores = scores_of(data, X).shape[1]
    graph = derive(data, "h", scores, rescale=True)
    seed = rng.normal(size=(9, scores)).astype(np.float32)
    feeds = {"x": X, graph.baselines[0]: baseline, graph.seed: seed}
    found = session(graph.model).run([graph.gradient], feeds)[0]
    change = scores_of(data, X) - scores_of(data, baseline)
    np.testing.assert_allclose(
        (found * (X - baseline)).sum(axis=1), (change * seed).sum(axis=1), rtol=1e-6, atol=1e-5
    )


def test_the_scaler_of_the_tree_and_pipeline_operators() -> None:
    scaled = helper.make_node(
        "Scaler", ["x"], ["s"], domain="ai.onnx.ml", offset=[1.0, 2, 3, 4], scale=[2.0, 3, 4, 5]
    )
    data = model([scaled, node("Identity", "s")], kind=TensorProto.FLOAT)
    graph = derive(data, "h", 4, rescale=False)
    X = rng.normal(size=(2, 4)).astype(np.float32)
    found = session(graph.model).run(
        [graph.gradient], {"x": X, graph.seed: np.eye(4)[:2].astype(np.float32)}
    )[0]
    np.testing.assert_allclose(found, [[2, 0, 0, 0], [0, 3, 0, 0]])


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("Floor", "x")], "operator Floor"),
        ([node("Cos", "x")], "operator Cos"),
        (
            [
                helper.make_node("Cast", ["x"], ["c"], to=TensorProto.INT64),
                helper.make_node("Cast", ["c"], ["h"], to=TensorProto.DOUBLE),
            ],
            "operator Cast",
        ),
        ([node("Softmax", "x", axis=0)], "operator Softmax"),
        ([node("Transpose", "x", to="t"), node("Transpose", "t", perm=[1, 0])], "operator Transpose mixes"),
        ([node("Concat", "x", "x", axis=0)], "operator Concat mixes"),
        ([node("ReduceSum", "x", to="s", keepdims=1), node("Mul", "s", "x")], "operator ReduceSum mixes"),
        ([node("Pow", "x", "half")], "operator Pow"),
        ([node("Pow", "x", "x")], "operator Pow"),
        (
            [node("Reshape", "x", "square", to="c"), node("MatMul", "c", "c", to="d"), node("Flatten", "d")],
            "operator MatMul",
        ),
        ([node("Transpose", "x", to="t"), node("MatMul", "x", "t")], "shape of h"),
        ([node("Identity", "row")], "does not depend"),
        ([node("Relu", "x", to="penstock_1"), node("Relu", "penstock_1")], "names that begin"),
    ],
)
def test_what_has_no_rule_is_refused_by_name(nodes: list[onnx.NodeProto], words: str) -> None:
    with pytest.raises(NotDifferentiableError, match=words):
        derive(model(nodes), "h", 4, rescale=False)


def test_old_files_whole_numbers_and_files_that_are_none_are_refused() -> None:
    with pytest.raises(NotDifferentiableError, match="opset"):
        derive(model([node("Relu", "x")], opset=12), "h", 4, rescale=False)
    whole = model([helper.make_node("Cast", ["x"], ["h"], to=TensorProto.INT64)], kind=TensorProto.INT64)
    with pytest.raises(NotDifferentiableError, match="floating-point"):
        derive(whole, "h", 4, rescale=False)
    with pytest.raises(ConfigError):
        derive(b"no model", "h", 4, rescale=False)
