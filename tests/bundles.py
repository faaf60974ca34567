"""Small graphs and bundles for the tests of models, in plain ONNX so that no trainer is needed."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.models.bundle.bundle import Bundle, Golden
from penstock.engine.models.bundle.manifest import Labels, Manifest, ModelOutput
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.engine.trees.onnx.write import write_forest
from penstock.engine.trees.readers.assemble import Tree, join_trees

weights = np.array([[1.0, -1.0], [0.5, 2.0], [-2.0, 0.25]], dtype=np.float32)


def graph_bytes(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
    domains: Sequence[str] = (),
) -> bytes:
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializer=initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    opsets += [helper.make_opsetid(domain, 1) for domain in domains]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def tensor(
    name: str, shape: Sequence[int | str | None], kind: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, array: NDArray[Any]) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(array, name)


def linear_model(rows: int | str = "N") -> bytes:
    """scores (N, 2) = softmax(x (N, 3) @ weights)."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["raw"]),
        helper.make_node("Softmax", ["raw"], ["scores"], axis=1),
    ]
    return graph_bytes(
        nodes, [tensor("x", [rows, 3])], [tensor("scores", [rows, 2])], [constant("w", weights)]
    )


def linear_scores(rows: NDArray[Any]) -> NDArray[np.float64]:
    raw = np.exp(rows.astype(np.float64) @ weights.astype(np.float64))
    return np.asarray(raw / raw.sum(axis=1, keepdims=True))


def numbers(*names: str, **policies: Any) -> tuple[Feature, ...]:
    return tuple(Feature(name=name, kind="number", **policies) for name in names)


def linear_signature() -> Signature:
    return Signature(
        features=numbers("a", "b", "c"),
        inputs=(ModelInput(name="x", dtype="float32", start=0, width=3),),
    )


def write_linear(path: Path, *, seed: int = 0, model: bytes | None = None, **changes: Any) -> Bundle:
    """A classifier bundle of the linear model. `changes` replace parts of Bundle.write."""
    rows = np.random.default_rng(seed).normal(size=(8, 3)).astype(np.float32)
    scores = linear_scores(rows)
    parts: dict[str, Any] = {
        "manifest": Manifest(
            name="linear",
            version="1",
            signature=linear_signature(),
            outputs=(ModelOutput(name="scores", width=2),),
            labels=Labels(classes=("no", "yes"), output="scores", values=None),
            trees=False,
            covers=False,
            provenance={"source": "test"},
        ),
        "model": linear_model() if model is None else model,
        "golden": Golden(rows=rows, outputs={"scores": scores}, labels=scores.argmax(axis=1)),
        "background": rows[:4],
        "input_schema": b'{"type": "record", "name": "R", "fields": []}',
    }
    return Bundle.write(path, **{**parts, **changes})


def one_value(trees: Iterable[Tree], *, features: int) -> Forest:
    """The sum of these trees, as the output `value`. Raises ConfigError as `join_trees` does."""
    return join_trees(
        trees,
        features=features,
        outputs=1,
        base_values=[0.0],
        post_transform=PostTransform.NONE,
        labels=(),
        output_name="value",
    )


def write_stump(path: Path, *, cover: bool = True, input_schema: bytes | None = None) -> Bundle:
    """A regressor bundle of one tree: a <= 0 gives 1, else 2; b and c are not asked."""
    tree = Tree(
        feature=np.array([0, -1, -1]),
        threshold=np.zeros(3, dtype=np.float32),
        yes=np.array([1, -1, -1]),
        no=np.array([2, -1, -1]),
        missing_yes=np.zeros(3, dtype=np.bool_),
        cover=np.array([10.0, 4.0, 6.0]) if cover else None,
        values=np.array([0.0, 1.0, 2.0]),
    )
    forest = one_value([tree], features=3)
    rows = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)
    manifest = Manifest(
        name="stump",
        version="1",
        signature=linear_signature(),
        outputs=(ModelOutput(name="value", width=1),),
        labels=None,
        trees=True,
        covers=cover,
        provenance={"source": "test"},
    )
    return Bundle.write(
        path,
        manifest=manifest,
        model=bytes(write_forest(forest, input_name="x").SerializeToString(deterministic=True)),
        golden=Golden(rows=rows, outputs={"value": forest.raw_scores(rows)}, labels=None),
        input_schema=input_schema,
    )


def gather_model() -> tuple[bytes, Signature]:
    """y = table[i]: throws on an index outside the table."""
    table = constant("table", np.arange(4, dtype=np.float32).reshape(4, 1) * 10)
    model = graph_bytes(
        [helper.make_node("Gather", ["table", "i"], ["y"], axis=0)],
        [tensor("i", ["N"], TensorProto.INT64)],
        [tensor("y", ["N", 1])],
        [table],
    )
    signature = Signature(
        features=numbers("i", missing="reject"),
        inputs=(ModelInput(name="i", dtype="int64", start=0, width=1),),
    )
    return model, signature
