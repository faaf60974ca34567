"""Writes a canonical forest as an ONNX model that ONNX Runtime runs and `read_forest` reads back, covers and all."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from engine.explain.covers import property_key, to_property
from engine.explain.forest import Forest, PostTransform, joined, ordered
from engine.explain.onnx_trees import read_forest
from schemas.errors import ConfigError, InvariantError

_operators = {PostTransform.LOGISTIC: "Sigmoid", PostTransform.SOFTMAX: "Softmax", PostTransform.EXP: "Exp"}
_ir_version = 8
_opset_version = 17
_trees_opset_version = 3


def write_forest(
    forest: Forest,
    *,
    input_name: str = "features",
    label_name: str = "label",
    producer: str = "penstock",
) -> onnx.ModelProto:
    """A model with one float32 input (N, features) and the output `forest.output_name`: a regressor's targets, or a
    classifier's probabilities (N, classes) beside the output `label_name`.

    Labels that are all integers come out as int64. Leaf and base values are rounded to float32, as the operator
    holds them. Covers, where known, go into nodes_hitrates and, whole, into the model's properties.

    Raises ConfigError for a forest that the operators cannot express.
    """
    canonical = ordered(forest)
    unwritten = canonical.post_transform in (PostTransform.PROBIT, PostTransform.SOFTMAX_ZERO)
    if unwritten or (canonical.labels and canonical.post_transform is PostTransform.EXP):
        raise ConfigError(f"a forest with post_transform {canonical.post_transform} is not written")
    if canonical.labels and canonical.outputs == 1:
        nodes, canonical = _one_score_classifier(canonical, label_name)
    elif len(canonical.labels) > 2:
        nodes = [_classifier(canonical, [label_name, canonical.output_name])]
    else:
        nodes = _regressor(canonical, label_name)
    nodes[0].input[:] = [input_name]
    outputs = [
        helper.make_tensor_value_info(canonical.output_name, TensorProto.FLOAT, [None, canonical.classes])
    ]
    if canonical.labels:
        kind = TensorProto.INT64 if _integers(canonical.labels) else TensorProto.STRING
        outputs.insert(0, helper.make_tensor_value_info(label_name, kind, [None]))
    graph = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [None, canonical.features])],
        outputs,
        initializer=[_class_table(canonical.labels)] if nodes[-1].op_type == "Gather" else [],
    )
    model = helper.make_model(
        graph,
        producer_name=producer,
        ir_version=_ir_version,
        opset_imports=[
            helper.make_opsetid("", _opset_version), helper.make_opsetid("ai.onnx.ml", _trees_opset_version),
        ],
    )  # fmt: skip
    back = read_forest(model)
    if not _same_trees(canonical, back):
        raise InvariantError("a forest was written that reads back as another one")
    if canonical.cover is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = property_key, to_property(replace(back, cover=canonical.cover))
    return model


def _one_score_classifier(forest: Forest, label_name: str) -> tuple[list[onnx.NodeProto], Forest]:
    """ONNX Runtime tells a share from a margin by there being no negative weight; where that misleads it, a tree
    is added that holds a negative weight which no row reaches."""
    share = forest.mirror == 1.0 and forest.post_transform is PostTransform.NONE
    negative = bool((forest.leaf_values < 0).any())
    if (
        forest.post_transform is PostTransform.SOFTMAX
        or (forest.mirror != 0.0 and not share)
        or (share and negative)
    ):
        raise ConfigError("a classifier of one score is a margin, or a share without negative leaves")
    if not share and not negative:
        forest = ordered(joined([forest, _unreachable_negative(forest)]))
    return [_classifier(forest, [label_name, forest.output_name])], forest


def _unreachable_negative(forest: Forest) -> Forest:
    passed = 1.0 if forest.cover is None else float(forest.cover[forest.roots[0]])
    return replace(
        forest,
        roots=np.array([0], dtype=np.int32),
        feature=np.array([0, -1, -1], dtype=np.int32),
        threshold=np.zeros(3, dtype=np.float32),
        set_index=np.array([0, -1, -1], dtype=np.int32),
        yes=np.array([1, -1, -1], dtype=np.int32),
        no=np.array([2, -1, -1], dtype=np.int32),
        missing_yes=np.zeros(3, dtype=np.uint8),
        cover=None if forest.cover is None else np.array([passed, 0.0, passed]),
        leaf=np.array([-1, 0, 1], dtype=np.int32),
        leaf_values=np.array([[-1.0], [0.0]]),
        base_values=np.zeros(1),
        set_offsets=np.zeros(2, dtype=np.int32),
        set_values=np.empty(0, dtype=np.float32),
    )


def _classifier(forest: Forest, outputs: Sequence[str]) -> onnx.NodeProto:
    attributes = _tree_attributes(forest, "class")
    if _integers(forest.labels):
        attributes["classlabels_int64s"] = [int(label) for label in forest.labels]
    else:
        attributes["classlabels_strings"] = list(forest.labels)
    # With three classes and more always: a class without a weight or a base value would have no score.
    if forest.outputs > 1 or forest.base_values.any():
        attributes["base_values"] = forest.base_values.tolist()
    return helper.make_node(
        "TreeEnsembleClassifier",
        [""],
        outputs,
        domain="ai.onnx.ml",
        post_transform=forest.post_transform.value,
        **attributes,
    )


def _regressor(forest: Forest, label_name: str) -> list[onnx.NodeProto]:
    """Targets, and what ONNX Runtime does not do in this operator: the sigmoid, the softmax, the label of two classes
    that have a score each."""
    operator = _operators.get(forest.post_transform)
    raw = f"{forest.output_name}_raw" if operator else forest.output_name
    nodes = [
        helper.make_node(
            "TreeEnsembleRegressor",
            [""],
            [raw],
            domain="ai.onnx.ml",
            n_targets=forest.outputs,
            base_values=forest.base_values.tolist(),
            post_transform="NONE",
            aggregate_function="SUM",
            **_tree_attributes(forest, "target"),
        )
    ]
    if operator:
        nodes.append(helper.make_node(operator, [raw], [forest.output_name]))
    if forest.labels:
        place = f"{label_name}_place"
        nodes.append(helper.make_node("ArgMax", [forest.output_name], [place], axis=1, keepdims=0))
        nodes.append(helper.make_node("Gather", ["classes", place], [label_name], axis=0))
    return nodes


def _class_table(labels: tuple[str, ...]) -> onnx.TensorProto:
    kind = np.int64 if _integers(labels) else np.object_
    return onnx.numpy_helper.from_array(np.array(labels, dtype=kind), "classes")


def _tree_attributes(forest: Forest, prefix: str) -> dict[str, Any]:
    tree = forest.tree_of_node()
    local = np.arange(forest.nodes) - forest.roots[tree]
    rows = list(_node_rows(forest, tree, local))
    names = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids", "hitrates")
    columns = [list(column) for column in zip(*rows, strict=True)]
    attributes = dict(zip((f"nodes_{name}" for name in names), columns, strict=False))
    attributes["nodes_missing_value_tracks_true"] = columns[-1]
    if forest.cover is None:
        del attributes["nodes_hitrates"]
    return attributes | _weight_attributes(forest, tree, local, prefix)


def _node_rows(
    forest: Forest, tree: NDArray[np.int32], local: NDArray[np.int64]
) -> Iterator[tuple[int, int, int, str, float, int, int, float, int]]:
    """Tree, number in it, feature, mode, value, true child, false child, cover and missing flag of every node."""
    cover = np.zeros(forest.nodes) if forest.cover is None else forest.cover
    spare = np.bincount(tree, minlength=forest.trees).tolist()  # next free node number of each tree
    columns = zip(
        tree.tolist(), local.tolist(), forest.feature.tolist(), forest.threshold.tolist(), forest.set_index.tolist(),
        local[forest.yes].tolist(), local[forest.no].tolist(), forest.missing_yes.tolist(), cover.tolist(),
        strict=True,
    )  # fmt: skip
    for owner, node, feature, threshold, set_index, yes, no, missing, passed in columns:
        if feature < 0:
            yield owner, node, 0, "LEAF", 0.0, 0, 0, passed, 0
            continue
        if set_index < 0:
            yield owner, node, feature, "BRANCH_LEQ", threshold, yes, no, passed, missing
            continue
        members = forest.set_values[slice(*forest.set_offsets[set_index : set_index + 2])].tolist()
        if not members:
            yield owner, node, feature, "BRANCH_LT", float("-inf"), yes, no, passed, missing
        link = node
        for place, member in enumerate(members):
            last = place == len(members) - 1
            after = no if last else spare[owner]
            yield owner, link, feature, "BRANCH_EQ", member, yes, after, passed, missing if place == 0 else 0
            link = after
            spare[owner] += not last


def _weight_attributes(
    forest: Forest, tree: NDArray[np.int32], local: NDArray[np.int64], prefix: str
) -> dict[str, Any]:
    """Zero weights are left out where a leaf has others."""
    leaves = np.flatnonzero(forest.leaf >= 0)
    values = forest.leaf_values[forest.leaf[leaves]].astype(np.float32)
    stored = values != 0
    stored[~stored.any(axis=1), 0] = True
    row, output = np.nonzero(stored)
    return {
        f"{prefix}_treeids": tree[leaves[row]].tolist(),
        f"{prefix}_nodeids": local[leaves[row]].tolist(),
        f"{prefix}_ids": output.tolist(),
        f"{prefix}_weights": values[row, output].tolist(),
    }


def _integers(labels: tuple[str, ...]) -> bool:
    return all(label.removeprefix("-").isdecimal() and str(int(label)) == label for label in labels)


def _same_trees(written: Forest, back: Forest) -> bool:
    names = ("roots", "feature", "threshold", "set_index", "yes", "no", "missing_yes", "leaf", "set_values")
    return (written.labels, written.mirror) == (back.labels, back.mirror) and all(
        np.array_equal(getattr(written, name), getattr(back, name)) for name in names
    )
