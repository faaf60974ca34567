"""Writes a canonical forest as an ONNX model that ONNX Runtime runs and `read_forest` reads back, covers and all."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from penstock.engine.trees.covers import property_key, to_property
from penstock.engine.trees.forest import Forest, PostTransform, joined, ordered
from penstock.engine.trees.onnx.read import read_forest
from penstock.engine.trees.onnx.write_nodes import (
    branch_attributes,
    fill_tree_node,
    member_attributes,
    prefers_member,
)
from penstock.schemas.errors import ConfigError, InvariantError

_operators = {PostTransform.LOGISTIC: "Sigmoid", PostTransform.SOFTMAX: "Softmax", PostTransform.EXP: "Exp"}
_opset_version = 17


def write_forest(
    forest: Forest,
    *,
    input_name: str = "features",
    label_name: str = "label",
    producer: str = "penstock",
    numbers: Collection[int] = (),
) -> onnx.ModelProto:
    """A model with one float32 input (N, features) and the output `forest.output_name`: a regressor's targets, or a
    classifier's probabilities (N, classes) beside the output `label_name`.

    Labels that are all integers come out as int64. Leaf and base values are rounded to float32, as the operators
    hold them. Covers, where known, stand whole in the model's properties, and in nodes_hitrates where there is one.
    `numbers`: features whose sets hold numbers, not codes.

    Raises ConfigError for a forest that the operators cannot express.
    """
    canonical = ordered(forest)
    _check(canonical)
    one_score = bool(canonical.labels) and canonical.outputs == 1
    share = canonical.mirror == 1.0
    model = onnx.ModelProto()
    trees = model.graph.node.add()  # filled in place: a copy of ten million nodes takes gigabytes
    if prefers_member(canonical, numbers) and (
        not one_score or share or canonical.post_transform is PostTransform.LOGISTIC
    ):
        rest = _by_targets(trees, canonical, label_name, member=True)
    elif one_score or len(canonical.labels) > 2:
        canonical = _told_apart(canonical) if one_score and not share else canonical
        _classifier(trees, canonical, label_name)
        rest = []
    else:
        rest = _by_targets(trees, canonical, label_name, member=False)
    trees.input[:] = [input_name]
    model.MergeFrom(_without_trees(canonical, trees.op_type, rest, input_name, label_name, producer))
    entry = model.metadata_props.add()
    entry.key, entry.value = property_key, to_property(_as_stored(canonical))
    if not _same(canonical, read_forest(model)):
        raise InvariantError("a forest was written that reads back as another one")
    return model


def _as_stored(forest: Forest) -> Forest:
    """With the leaf values that the operators hold."""
    return replace(forest, leaf_values=forest.leaf_values.astype(np.float32).astype(np.float64) + 0.0)


def _check(forest: Forest) -> None:
    post = forest.post_transform
    if post in (PostTransform.PROBIT, PostTransform.SOFTMAX_ZERO) or (
        forest.labels and post is PostTransform.EXP
    ):
        raise ConfigError(f"a forest with post_transform {post} is not written")
    if not forest.labels or forest.outputs > 1:
        return
    margin = forest.mirror == 0.0 and post is not PostTransform.SOFTMAX
    share = forest.mirror == 1.0 and post is PostTransform.NONE and not (forest.leaf_values < 0).any()
    if not margin and not share:
        raise ConfigError("a classifier of one score is a margin, or a share without negative leaves")


def _told_apart(forest: Forest) -> Forest:
    """ONNX Runtime takes scores without a negative weight for shares: then with a tree more, whose one negative leaf no
    row reaches, so that it sees a margin."""
    if (forest.leaf_values < 0).any():
        return forest
    passed = 1.0 if forest.cover is None else float(forest.cover[forest.roots[0]])
    tree = replace(
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
    return ordered(joined([forest, tree]))


def _classifier(trees: onnx.NodeProto, forest: Forest, label_name: str) -> None:
    attributes = branch_attributes(forest, "class")
    if _integers(forest.labels):
        attributes["classlabels_int64s"] = [int(label) for label in forest.labels]
    else:
        attributes["classlabels_strings"] = list(forest.labels)
    # With three classes and more always: a class without a weight or a base value would have no score.
    if forest.outputs > 1 or forest.base_values.any():
        attributes["base_values"] = forest.base_values.tolist()
    attributes["post_transform"] = forest.post_transform.value
    fill_tree_node(trees, "TreeEnsembleClassifier", [label_name, forest.output_name], attributes)


def _by_targets(
    trees: onnx.NodeProto, forest: Forest, label_name: str, *, member: bool
) -> list[onnx.NodeProto]:
    """Raw scores from TreeEnsemble 5 or TreeEnsembleRegressor, and after it what those do not do: base values, sigmoid
    or softmax (ONNX Runtime skips them for one target), the other class of two, the label. Returns the nodes after it."""
    nodes = [trees]
    if member:
        fill_tree_node(trees, "TreeEnsemble", ["trees/raw"], member_attributes(forest))
        if forest.base_values.any():
            nodes.append(helper.make_node("Add", ["trees/raw", "trees/base"], ["trees/based"]))
    else:
        attributes = branch_attributes(forest, "target") | {
            "n_targets": forest.outputs,
            "base_values": forest.base_values.tolist(),
        }
        fill_tree_node(trees, "TreeEnsembleRegressor", ["trees/raw"], attributes)
    if operator := _operators.get(forest.post_transform):
        nodes.append(helper.make_node(operator, [nodes[-1].output[0]], ["trees/answers"]))
    if forest.labels and forest.outputs == 1:
        second = nodes[-1].output[0]
        nodes.append(helper.make_node("Sub", ["trees/one", second], ["trees/rest"]))
        nodes.append(helper.make_node("Concat", ["trees/rest", second], ["trees/both"], axis=1))
    nodes[-1].output[0] = forest.output_name
    if forest.labels:
        nodes.append(helper.make_node("ArgMax", [forest.output_name], ["trees/place"], axis=1, keepdims=0))
        nodes.append(helper.make_node("Gather", ["trees/classes", "trees/place"], [label_name], axis=0))
    return nodes[1:]


def _without_trees(
    forest: Forest,
    operator: str,
    nodes: list[onnx.NodeProto],
    input_name: str,
    label_name: str,
    producer: str,
) -> onnx.ModelProto:
    """The model but for its first node."""
    names = np.array(forest.labels, dtype=np.int64 if _integers(forest.labels) else np.object_)
    constants = {
        "trees/base": forest.base_values.astype(np.float32),
        "trees/one": np.ones(1, dtype=np.float32),
        "trees/classes": names,
    }
    used = {name for node in nodes for name in node.input}
    outputs = [helper.make_tensor_value_info(forest.output_name, TensorProto.FLOAT, [None, forest.classes])]
    if forest.labels:
        kind = TensorProto.INT64 if _integers(forest.labels) else TensorProto.STRING
        outputs.insert(0, helper.make_tensor_value_info(label_name, kind, [None]))
    graph = helper.make_graph(
        nodes,
        "trees",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [None, forest.features])],
        outputs,
        initializer=[numpy_helper.from_array(constants[name], name) for name in constants if name in used],
    )
    newer = operator == "TreeEnsemble"
    opsets = [helper.make_opsetid("", _opset_version), helper.make_opsetid("ai.onnx.ml", 5 if newer else 3)]
    return helper.make_model(
        graph, producer_name=producer, ir_version=10 if newer else 8, opset_imports=opsets
    )


def _integers(labels: tuple[str, ...]) -> bool:
    return all(label.removeprefix("-").isdecimal() and str(int(label)) == label for label in labels)


def _same(written: Forest, back: Forest) -> bool:
    names = ("roots", "feature", "threshold", "set_index", "yes", "no", "missing_yes", "leaf", "set_values")
    kept = ("labels", "mirror", "outputs", "post_transform")
    return all(getattr(written, name) == getattr(back, name) for name in kept) and all(
        np.array_equal(getattr(written, name), getattr(back, name)) for name in names
    )
