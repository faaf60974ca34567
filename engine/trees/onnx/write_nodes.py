"""The nodes of an ordered forest as attributes of the ONNX tree operators."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from penstock.engine.trees.forest import Forest
from penstock.engine.trees.onnx.attributes import Mode

_piece = 1 << 16
_members_mean_max = 16
"""Measured in ONNX Runtime 1.31 on 100 trees of depth 6: up to here a chain of equalities is the faster form (175 against
124 thousand rows/s at 10 members), past it MEMBER is (128 against 69 at 30 members)."""


def prefers_member(forest: Forest, numbers: Collection[int]) -> bool:
    """Whether TreeEnsemble 5 is the better operator: many members a set, leaves that speak for one output each, no tree that is
    one leaf, which it cannot say, and sets of codes alone: ONNX Runtime keeps their members as whole numbers."""
    sets = len(forest.set_offsets) - 1
    if numbers and np.isin(forest.feature[forest.set_index >= 0], [*numbers]).any():
        return False
    if (forest.leaf[forest.roots] >= 0).any():
        return False
    one_output = forest.outputs == 1 or bool(((forest.leaf_values != 0).sum(axis=1) <= 1).all())
    return one_output and sets > 0 and len(forest.set_values) > sets * _members_mean_max


def member_attributes(forest: Forest) -> dict[str, Any]:
    """The attributes of TreeEnsemble 5, which has no place for covers.

    ONNX Runtime takes a number between two small codes for the lower one in its MEMBER test; codes are whole numbers.
    """
    inner = np.flatnonzero(forest.leaf < 0)
    number = np.full(forest.nodes, -1, dtype=np.int64)
    number[inner] = np.arange(len(inner))
    yes_leaf, no_leaf = forest.leaf[forest.yes[inner]], forest.leaf[forest.no[inner]]
    in_set = forest.set_index[inner] >= 0
    output = np.abs(forest.leaf_values).argmax(axis=1)
    weights = forest.leaf_values[np.arange(len(output)), output].astype(np.float32)
    sizes = np.diff(forest.set_offsets)
    # NaN ends each list, and none may be empty: an empty set is said as x < -inf.
    members = np.insert(forest.set_values, forest.set_offsets[1:][sizes > 0], np.float32(np.nan))
    nobody = in_set & (np.append(sizes, 1)[forest.set_index[inner]] == 0)
    modes = np.where(in_set, np.where(nobody, Mode.LT, Mode.MEMBER), Mode.LEQ).astype(np.uint8)
    splits = np.where(nobody, np.float32(-np.inf), forest.threshold[inner])
    return {
        "nodes_featureids": forest.feature[inner].tolist(),
        "nodes_modes": numpy_helper.from_array(modes),
        "nodes_splits": numpy_helper.from_array(splits),
        "nodes_truenodeids": np.where(yes_leaf < 0, number[forest.yes[inner]], yes_leaf).tolist(),
        "nodes_falsenodeids": np.where(no_leaf < 0, number[forest.no[inner]], no_leaf).tolist(),
        "nodes_trueleafs": (yes_leaf >= 0).astype(int).tolist(),
        "nodes_falseleafs": (no_leaf >= 0).astype(int).tolist(),
        "nodes_missing_value_tracks_true": forest.missing_yes[inner].tolist(),
        "membership_values": numpy_helper.from_array(members),
        "leaf_targetids": output.tolist(),
        "leaf_weights": numpy_helper.from_array(weights),
        "tree_roots": number[forest.roots].tolist(),
        "n_targets": forest.outputs,
        "aggregate_function": 1,
        "post_transform": 0,
    }


def branch_attributes(forest: Forest, prefix: str) -> dict[str, Any]:
    """The lists of TreeEnsembleRegressor (prefix `target`) or TreeEnsembleClassifier (`class`): a category test is a
    chain of equalities with one shared `yes`, and covers stand in nodes_hitrates."""
    tree = forest.tree_of_node()
    local = np.arange(forest.nodes) - forest.roots[tree]
    if not len(forest.set_offsets) - 1:
        return _numeric_attributes(forest, tree, local) | _weight_attributes(forest, tree, local, prefix)
    rows = list(_node_rows(forest, tree, local))
    names = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids", "hitrates")
    columns = [list(column) for column in zip(*rows, strict=True)]
    attributes = dict(zip((f"nodes_{name}" for name in names), columns, strict=False))
    attributes["nodes_missing_value_tracks_true"] = columns[-1]
    if forest.cover is None:
        del attributes["nodes_hitrates"]
    return attributes | _weight_attributes(forest, tree, local, prefix)


def _numeric_attributes(forest: Forest, tree: NDArray[np.int32], local: NDArray[np.int64]) -> dict[str, Any]:
    """Of a forest without category tests, column by column."""
    inner = forest.leaf < 0
    attributes: dict[str, Any] = {
        "nodes_treeids": tree,
        "nodes_nodeids": local,
        "nodes_featureids": np.where(inner, forest.feature, 0),
        "nodes_modes": _Modes(inner=inner),
        "nodes_values": np.where(inner, forest.threshold, np.float32(0)),
        "nodes_truenodeids": np.where(inner, local[forest.yes], 0),
        "nodes_falsenodeids": np.where(inner, local[forest.no], 0),
        "nodes_missing_value_tracks_true": np.where(inner, forest.missing_yes, 0),
    }
    if forest.cover is not None:
        attributes["nodes_hitrates"] = forest.cover.astype(np.float32)
    return attributes


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Modes:
    """The modes of nodes without category tests: which of them are no leaves (n,)."""

    inner: NDArray[np.bool_]


def fill_tree_node(
    node: onnx.NodeProto, operator: str, outputs: Sequence[str], attributes: Mapping[str, Any]
) -> None:
    """Makes an empty node one of ai.onnx.ml with these attributes; arrays are written in pieces, so that no list of all their
    numbers is made."""
    node.op_type, node.domain = operator, "ai.onnx.ml"
    node.output[:] = outputs
    for name in sorted(attributes):  # as helper.make_node does
        value = attributes[name]
        if isinstance(value, (np.ndarray, _Modes)):
            made = node.attribute.add()
            made.name = name
            _fill(made, value)
        else:
            node.attribute.append(helper.make_attribute(name, value))


def _fill(made: onnx.AttributeProto, value: NDArray[np.generic] | _Modes) -> None:
    whole = value.inner if isinstance(value, _Modes) else value
    for start in range(0, len(whole), _piece):
        piece = whole[start : start + _piece]
        if isinstance(value, _Modes):
            made.type = onnx.AttributeProto.STRINGS
            made.strings.extend([b"BRANCH_LEQ" if is_inner else b"LEAF" for is_inner in piece.tolist()])
        elif piece.dtype.kind == "f":
            made.type = onnx.AttributeProto.FLOATS
            made.floats.extend(piece.tolist())
        else:
            made.type = onnx.AttributeProto.INTS
            made.ints.extend(piece.tolist())


def _node_rows(
    forest: Forest, tree: NDArray[np.int32], local: NDArray[np.int64]
) -> Iterator[tuple[int, int, int, str, float, int, int, float, int]]:
    """Tree, number in it, feature, mode, value, true child, false child, cover and missing flag of every node."""
    cover = np.zeros(forest.nodes) if forest.cover is None else forest.cover
    mistaken = _mistaken_for_one(forest)
    spare = np.bincount(tree, minlength=forest.trees).tolist()  # next free node number of each tree
    columns = zip(
        tree.tolist(), local.tolist(), forest.feature.tolist(), forest.threshold.tolist(), forest.set_index.tolist(),
        local[forest.yes].tolist(), local[forest.no].tolist(), forest.missing_yes.tolist(), cover.tolist(),
        cover[forest.no].tolist(), strict=True,
    )  # fmt: skip
    for place_of_node, column in enumerate(columns):
        owner, node, feature, threshold, set_index, yes, no, missing, passed, passed_no = column
        if feature < 0:
            yield owner, node, 0, "LEAF", 0.0, 0, 0, passed, 0
            continue
        if set_index < 0:
            yield owner, node, feature, "BRANCH_LEQ", threshold, yes, no, passed, missing
            continue
        members = forest.set_values[slice(*forest.set_offsets[set_index : set_index + 2])].tolist()
        if not members:
            yield owner, node, feature, "BRANCH_LT", float("-inf"), yes, no, passed, missing
            continue
        numbers = [node, *range(spare[owner], spare[owner] + len(members))]
        apart = place_of_node in mistaken
        ends = [*numbers[1 : len(members)], numbers[-1] if apart else no]
        for place, (link, member, after) in enumerate(zip(numbers, members, ends, strict=False)):
            yield owner, link, feature, "BRANCH_EQ", member, yes, after, passed, missing if place == 0 else 0
        if apart:  # a test that sends every row the same way
            yield owner, numbers[-1], feature, "BRANCH_EQ", 0.0, no, no, passed_no, 0
        spare[owner] += len(members) - 1 + apart


def _mistaken_for_one(forest: Forest) -> frozenset[int]:
    """Category tests that ONNX Runtime may take for one with the test on their `no` side: of the same feature, and with
    yes sides that begin alike.

    It joins them where it finds the yes sides equal, but then it looks neither at missing values nor past the first
    weight of a leaf.
    """
    if not len(forest.set_values):
        return frozenset()
    weights = forest.leaf_values.astype(np.float32)
    first = weights[np.arange(len(weights)), (weights != 0).argmax(axis=1)]
    in_set, sets = forest.set_index >= 0, np.diff(forest.set_offsets) > 0
    holds = in_set & sets[forest.set_index]
    member = forest.set_values[np.where(holds, forest.set_offsets[forest.set_index], 0)]
    begins = np.where(forest.leaf >= 0, first[forest.leaf], np.where(holds, member, forest.threshold))
    node = np.flatnonzero(holds & holds[forest.no])
    node = node[forest.feature[node] == forest.feature[forest.no[node]]]
    one, other = forest.yes[node], forest.yes[forest.no[node]]
    alike = (forest.feature[one] == forest.feature[other]) & (in_set[one] == in_set[other])
    return frozenset(node[alike & (begins[one] == begins[other])].tolist())


def _weight_attributes(
    forest: Forest, tree: NDArray[np.int32], local: NDArray[np.int64], prefix: str
) -> dict[str, Any]:
    """Zero weights are left out, but not in the first tree: an output that a row meets no weight for would lose its base
    value in ONNX Runtime.

    Where successive tests are equalities, ONNX Runtime compares what they lead to by the first weight of each leaf, and
    reads past the end of the list for a leaf that has none: so each has one, and the first is not zero where any is not.
    """
    leaves = np.flatnonzero(forest.leaf >= 0)
    values = forest.leaf_values[forest.leaf[leaves]].astype(np.float32)
    stored = values != 0
    stored[tree[leaves] == 0] = True
    if len(forest.set_values):
        stored[~stored.any(axis=1), 0] = True
    row, output = np.nonzero(stored)
    order = np.lexsort((output, values[row, output] == 0, row)) if len(forest.set_values) else slice(None)
    row, output = row[order], output[order]
    return {
        f"{prefix}_treeids": tree[leaves[row]],
        f"{prefix}_nodeids": local[leaves[row]],
        f"{prefix}_ids": output,
        f"{prefix}_weights": values[row, output],
    }
