"""ONNX tree ensembles made by hand, in every form that the standard knows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

grid = np.array([-3, -1, -0.5, 0, 0.5, 1, 2, 3, 5, 8, 31, 32, 33], dtype=np.float32)
"""Thresholds, categories and values are drawn from here, so that equality matters."""
modes_v3 = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
member = 6


def grid_rows(seed: int, rows: int, features: int) -> NDArray[np.float32]:
    """Values on and between the thresholds, missing, infinite."""
    rng = np.random.default_rng(seed)
    X = rng.choice(np.concatenate((grid, grid + np.float32(0.25))), (rows, features)).astype(np.float32)
    X[rng.random(X.shape) < 0.15] = np.nan
    X[rng.random(X.shape) < 0.05] = np.inf
    X[rng.random(X.shape) < 0.05] = -np.inf
    return X


class Nodes:
    """Random trees as a flat list: (feature, mode, value, true, false, missing flag) or (leaf weight row)."""

    def __init__(self, seed: int, *, trees: int, depth: int, features: int, outputs: int, modes: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.features, self.outputs, self.modes = features, outputs, modes
        self.trees: list[list[tuple[Any, ...]]] = []
        for _ in range(trees):
            self.trees.append([])
            self._grow(depth, force=True)

    def _grow(self, depth: int, *, force: bool = False) -> int:
        nodes = self.trees[-1]
        place = len(nodes)
        nodes.append(())
        if depth == 0 or (not force and self.rng.random() < 0.2):
            nodes[place] = (self.rng.normal(size=self.outputs).astype(np.float32).tolist(),)
            return place
        mode, flag = int(self.rng.integers(self.modes)), int(self.rng.integers(2))
        feature, value = int(self.rng.integers(self.features)), float(self.rng.choice(grid))
        if mode == member:
            value = np.unique(self.rng.choice(grid[grid == np.floor(grid)], 3)).tolist()
        nodes[place] = (feature, mode, value, self._grow(depth - 1), self._grow(depth - 1), flag)
        return place


def v3_attributes(nodes: Nodes, prefix: str) -> dict[str, Any]:
    """The node and weight lists of TreeEnsembleRegressor (`target`) or TreeEnsembleClassifier (`class`)."""
    columns: dict[str, list[Any]] = {
        name: []
        for name in (
            "nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_modes", "nodes_values", "nodes_truenodeids",
            "nodes_falsenodeids", "nodes_missing_value_tracks_true", f"{prefix}_treeids", f"{prefix}_nodeids",
            f"{prefix}_ids", f"{prefix}_weights",
        )
    }  # fmt: skip
    lists = list(columns.values())
    for tree, members in enumerate(nodes.trees):
        for place, node in enumerate(members):
            if len(node) == 1:
                row: Sequence[Any] = (tree, place, 0, "LEAF", 0.0, 0, 0, 0)
                for output, weight in enumerate(node[0]):
                    for column, item in zip(lists[8:], (tree, place, output, weight), strict=True):
                        column.append(item)
            else:
                feature, mode, value, true, false, flag = node
                row = (tree, place, feature, modes_v3[mode], value, true, false, flag)
            for column, item in zip(lists, row, strict=False):
                column.append(item)
    return columns


def regressor(attributes: dict[str, Any], *, features: int, outputs: int = 1, **more: Any) -> onnx.ModelProto:
    """A model that is one TreeEnsembleRegressor."""
    node = helper.make_node(
        "TreeEnsembleRegressor", ["X"], ["y"], domain="ai.onnx.ml", n_targets=outputs, **attributes | more
    )
    return model_of([node], features=features, outputs=[("y", TensorProto.FLOAT, [None, outputs])])


def classifier(attributes: dict[str, Any], *, features: int, classes: int, **more: Any) -> onnx.ModelProto:
    """A model that is one TreeEnsembleClassifier."""
    labels = {"classlabels_int64s": list(range(classes))}
    node = helper.make_node(
        "TreeEnsembleClassifier", ["X"], ["label", "p"], domain="ai.onnx.ml", **labels | attributes | more
    )
    outputs: list[tuple[str, int, list[int | None]]] = [
        ("label", TensorProto.INT64, [None]),
        ("p", TensorProto.FLOAT, [None, classes]),
    ]
    return model_of([node], features=features, outputs=outputs)


def ensemble_v5(nodes: Nodes, *, kind: type = np.float32, **more: Any) -> onnx.NodeProto:
    """One TreeEnsemble: inner nodes and leaves apart, a leaf a weight for one target."""
    inner: list[tuple[Any, ...]] = []
    leaves: list[tuple[int, float]] = []
    roots: list[int] = []
    for tree, members in enumerate(nodes.trees):
        inner_place = {
            place: len(inner) + rank
            for rank, place in enumerate(p for p, n in enumerate(members) if len(n) > 1)
        }
        leaf_place = {
            place: len(leaves) + rank
            for rank, place in enumerate(p for p, n in enumerate(members) if len(n) == 1)
        }
        roots.append(inner_place[0])
        for node in members:
            if len(node) == 1:
                leaves.append((tree % nodes.outputs, node[0][0]))
                continue
            feature, mode, value, true, false, flag = node
            ends = [(leaf_place[c], 1) if c in leaf_place else (inner_place[c], 0) for c in (true, false)]
            inner.append((feature, mode, value, ends[0][0], ends[1][0], ends[0][1], ends[1][1], flag))
    columns = list(zip(*inner, strict=True))
    members_of = [item for value in columns[2] if isinstance(value, list) for item in (*value, np.nan)]
    if members_of:
        more["membership_values"] = numpy_helper.from_array(np.array(members_of, dtype=kind))
    splits = [0.0 if isinstance(value, list) else value for value in columns[2]]
    return helper.make_node(
        "TreeEnsemble",
        ["X"],
        ["y"],
        domain="ai.onnx.ml",
        nodes_featureids=columns[0],
        nodes_modes=numpy_helper.from_array(np.array(columns[1], dtype=np.uint8)),
        nodes_splits=numpy_helper.from_array(np.array(splits, dtype=kind)),
        nodes_truenodeids=columns[3],
        nodes_falsenodeids=columns[4],
        nodes_trueleafs=columns[5],
        nodes_falseleafs=columns[6],
        nodes_missing_value_tracks_true=columns[7],
        leaf_targetids=[leaf[0] for leaf in leaves],
        leaf_weights=numpy_helper.from_array(np.array([leaf[1] for leaf in leaves], dtype=kind)),
        tree_roots=roots,
        n_targets=nodes.outputs,
        **more,
    )


def model_of(
    nodes: Sequence[onnx.NodeProto],
    *,
    features: int | None,
    outputs: Sequence[tuple[str, int, list[int | None]]],
    initializers: Sequence[onnx.TensorProto] = (),
    input_type: int = TensorProto.FLOAT,
    inputs: Sequence[onnx.ValueInfoProto] = (),
) -> onnx.ModelProto:
    """A model with one matrix input X, unless inputs are given."""
    graph = helper.make_graph(
        list(nodes),
        "g",
        list(inputs) or [helper.make_tensor_value_info("X", input_type, [None, features])],
        [helper.make_tensor_value_info(*output) for output in outputs],
        initializer=list(initializers),
    )
    version = 5 if any(node.op_type == "TreeEnsemble" for node in nodes) else 3
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10 if version == 5 else 8)
