"""One ONNX tree-ensemble node, interpreted as ONNX Runtime does and brought into the canonical form."""

import numpy as np
import onnx
from numpy.typing import NDArray

from penstock.engine.trees.covers import plausible
from penstock.engine.trees.forest import Forest, PostTransform, features_max, leaf_cells_max, ordered
from penstock.engine.trees.onnx.attributes import (
    Mode,
    NodeTable,
    chosen,
    integer,
    numbers,
    table_v3,
    table_v5,
    text,
    value_of,
)
from penstock.engine.trees.onnx.category_chains import Sets, Tests, merge_chains, without_idle_tests
from penstock.schemas.errors import ConfigError

path_max = 1 << 16
"""Longest way from a root in the file, where a category test over many members is one node a member."""
operators = frozenset({"TreeEnsembleRegressor", "TreeEnsembleClassifier", "TreeEnsemble"})
_transforms_v5 = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_aggregates_v5 = ("AVERAGE", "SUM", "MIN", "MAX")


class NotATreeError(ConfigError):
    """The model is no tree ensemble that can be explained exactly; the text names what stands in the way."""


def forest_of_node(node: onnx.NodeProto, *, copies: bool) -> Forest:
    """The ensemble in one node; its features are the columns of the node's own input, as many as its tests name.

    `copies`: category tests may come as chains with a copy of the yes side for each category.

    Raises NotATreeError for what cannot be explained exactly, ConfigError for what is broken.
    """
    attributes = {attribute.name: value_of(attribute) for attribute in node.attribute}
    labels: tuple[str, ...] = ()
    if node.op_type == "TreeEnsemble":
        table = table_v5(attributes)
        transform = chosen(attributes, "post_transform", _transforms_v5, default=0)
        aggregate = chosen(attributes, "aggregate_function", _aggregates_v5, default=1)
    else:
        classifier = node.op_type == "TreeEnsembleClassifier"
        table = table_v3(attributes, "class" if classifier else "target")
        labels = _labels(attributes) if classifier else ()
        transform = text(attributes, "post_transform", "NONE")
        aggregate = text(attributes, "aggregate_function", "SUM")
    outputs = len(labels) or integer(attributes, "n_targets", 1)
    if transform not in _transforms_v5:
        raise ConfigError(f"the tree ensemble has the unknown post_transform {transform[:40]!r}")
    if aggregate in ("MIN", "MAX"):
        raise NotATreeError(f"the tree ensemble takes the {aggregate} of its trees, which does not add up")
    if aggregate not in ("SUM", "AVERAGE"):
        raise ConfigError(f"the tree ensemble has the unknown aggregate_function {aggregate[:40]!r}")
    order = _order(table)
    leaf, values = _leaves(table, outputs)
    if aggregate == "AVERAGE":
        values /= len(table.root)
    base, post, mirror = numbers(attributes, "base_values"), PostTransform(transform), 0.0
    if not np.isfinite(base).all():
        raise ConfigError("the tree ensemble has a base value that is not finite")
    if labels:
        values, mirror = _class_scores(table, values, base, post)
    if (labels and values.shape[1] == 2) or (node.op_type == "TreeEnsembleRegressor" and base.any()):
        _check_scored(table, values.shape[1])
    if len(base) not in (0, values.shape[1]):
        raise ConfigError(f"the tree ensemble has {len(base)} base values for {values.shape[1]} outputs")
    return _assembled(
        merge_chains(without_idle_tests(_tests(table, order)), copies=copies),
        leaf=leaf,
        leaf_values=values,
        base_values=base if len(base) else np.zeros(values.shape[1]),
        hitrate=table.hitrate,
        post_transform=post,
        labels=labels,
        mirror=mirror,
    )


def _class_scores(
    table: NodeTable, values: NDArray[np.float64], base: NDArray[np.float64], post: PostTransform
) -> tuple[NDArray[np.float64], float]:
    """Leaf values and mirror of a classifier, as ONNX Runtime makes scores of them."""
    classes = values.shape[1]
    if classes == 1:
        raise NotATreeError("the tree ensemble is a classifier of one class")
    if post is PostTransform.PROBIT:
        raise NotATreeError("the tree ensemble is a classifier with post_transform PROBIT")
    if classes > 2:
        return values, 0.0
    if not (table.weight_output != 0).any() and len(base) < 2:
        # One column stands for the second class: a share where no weight is negative, else a margin.
        # A sigmoid makes the same of both.
        share = post is not PostTransform.LOGISTIC and bool((table.weight >= 0).all())
        return np.ascontiguousarray(values[:, :1]), 1.0 if share else 0.0
    if len(base):
        raise NotATreeError(
            "the tree ensemble has two classes and base values that ONNX Runtime does not add"
        )
    return values, 0.0


def _leaves(table: NodeTable, outputs: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Row of each leaf (-1 at an inner node), and the rows."""
    is_leaf = table.mode == Mode.LEAF
    leaves = int(is_leaf.sum())
    if outputs < 1 or leaves * outputs > leaf_cells_max:
        raise ConfigError(f"{leaves} leaves times {outputs} outputs cannot be explained")
    leaf = np.where(is_leaf, np.cumsum(is_leaf) - 1, -1).astype(np.int32)
    if ((table.weight_output < 0) | (table.weight_output >= outputs)).any():
        raise ConfigError(f"the tree ensemble has a weight for an output outside its {outputs}")
    if not np.isfinite(table.weight).all():
        raise ConfigError("the tree ensemble has a weight that is not finite")
    used = is_leaf[table.weight_node]  # weights at inner nodes are never added
    row = leaf[table.weight_node[used]].astype(np.int64)
    cell = row * outputs + table.weight_output[used]
    if len(np.unique(cell)) != len(cell):
        raise ConfigError("the tree ensemble has two weights for one leaf and output")
    weighted = np.zeros(leaves, dtype=bool)
    weighted[row] = True
    if outputs == 1 and (table.value[is_leaf][~weighted] != 0).any():
        raise ConfigError("the tree ensemble has a leaf with a value in place of a weight")
    values = np.zeros(leaves * outputs)
    values[cell] = table.weight[used]
    return leaf, values.reshape(leaves, outputs)


def _check_scored(table: NodeTable, outputs: int) -> None:
    """Every row must meet a weight for every output: ONNX Runtime drops the base value of one that meets none, and then
    takes a classifier of two scores for one of one score."""
    at_leaf = table.mode == Mode.LEAF
    tree = np.searchsorted(table.root, np.arange(len(table.mode)), side="right") - 1
    leaves = np.bincount(tree[at_leaf], minlength=len(table.root))
    used = at_leaf[table.weight_node]
    cell = tree[table.weight_node[used]] * outputs + table.weight_output[used]
    weights = np.bincount(cell, minlength=len(table.root) * outputs).reshape(-1, outputs)
    if outputs > 1 and not (weights == leaves[:, None]).any(axis=0).all():
        raise NotATreeError("the tree ensemble has outputs that some rows meet no weight for")


def _order(table: NodeTable) -> NDArray[np.int64]:
    """All nodes, parents first. Raises ConfigError when there is a cycle or a node without a root."""
    inner = np.flatnonzero(table.mode != Mode.LEAF)
    waiting = np.bincount(np.concatenate((table.true[inner], table.false[inner])), minlength=len(table.mode))
    if waiting[table.root].any() or len(np.unique(table.root)) != len(table.root):
        raise ConfigError("the tree ensemble has a cycle, or a root that is not the first node of its tree")
    levels = [table.root]
    while len(levels[-1]):
        if len(levels) > path_max:
            raise ConfigError(f"the tree ensemble has a path of more than {path_max} nodes")
        level = levels[-1][table.mode[levels[-1]] != Mode.LEAF]
        children, times = np.unique(
            np.concatenate((table.true[level], table.false[level])), return_counts=True
        )
        waiting[children] -= times
        levels.append(children[waiting[children] == 0])
    order = np.concatenate(levels)
    if len(order) != len(table.mode):
        raise ConfigError("the tree ensemble has a cycle, or nodes that no root leads to")
    return order


def _tests(table: NodeTable, order: NDArray[np.int64]) -> Tests:
    """The file's comparisons as `x <= t` and `x in set`: a float32 row takes the same way through both."""
    mode, inner = table.mode, table.mode != Mode.LEAF
    if np.isnan(table.value[inner & (mode != Mode.MEMBER)]).any():
        raise ConfigError("the tree ensemble has a threshold that is NaN")
    if ((table.feature[inner] < 0) | (table.feature[inner] >= features_max)).any():
        raise ConfigError(f"the tree ensemble tests a feature outside 0 to {features_max - 1}")
    swapped = np.isin(mode, (Mode.GTE, Mode.GT, Mode.NEQ))
    strict = np.isin(mode, (Mode.LT, Mode.GTE))
    # A comparison with NaN is false, but for `!=`, which is true; the flag sends NaN to true in any case.
    nan_true = table.missing_true | (mode == Mode.NEQ)
    sets: Sets = {}
    for node in np.flatnonzero(np.isin(mode, (Mode.EQ, Mode.NEQ))).tolist():
        sets[node] = _members(table.value[node : node + 1])
    for node in np.flatnonzero(inner & strict & np.isneginf(table.value)).tolist():
        sets[node] = np.empty(0, dtype=np.float32)  # x < -inf: no threshold t makes x <= t of it
    for node, values in zip(np.flatnonzero(mode == Mode.MEMBER).tolist(), table.members, strict=True):
        sets[node] = _members(values)
    keys: list[list[tuple[int, float]]] = [[] for _ in range(len(mode) if sets else 0)]
    if sets:
        for node, output, weight in zip(
            table.weight_node.tolist(), table.weight_output.tolist(), table.weight.tolist(), strict=True
        ):
            keys[node].append((output, weight))
    return Tests(
        order=order,
        roots=table.root,
        feature=np.where(inner, table.feature, -1),
        threshold=np.where(inner, _float32_at_most(table.value, strict), np.float32(0)),
        yes=np.where(swapped, table.false, table.true),
        no=np.where(swapped, table.true, table.false),
        missing_yes=inner & (nan_true != swapped),
        sets=sets,
        leaf_keys=[tuple(sorted(key)) for key in keys],
    )


def _members(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The members that a float32 can be equal to, ascending."""
    if np.isnan(values).any():
        raise ConfigError("the tree ensemble has a category that is NaN")
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    return np.unique(narrow[narrow == values]) + np.float32(0)  # -0.0 becomes 0.0


def _float32_at_most(value: NDArray[np.float64], strict: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The largest float32 that is <= value, or < value where strict: every float32 compares with both alike."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = value.astype(np.float32)
        past = np.where(strict, narrow >= value, narrow > value)
        return np.where(past, np.nextafter(narrow, np.float32(-np.inf)), narrow).astype(np.float32)


def _assembled(
    tests: Tests,
    *,
    leaf: NDArray[np.int32],
    leaf_values: NDArray[np.float64],
    base_values: NDArray[np.float64],
    hitrate: NDArray[np.float64] | None,
    post_transform: PostTransform,
    labels: tuple[str, ...],
    mirror: float,
) -> Forest:
    """The forest of the nodes that the roots still lead to."""
    kept = _reached(tests)
    number = np.full(len(tests.feature), -1, dtype=np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    is_set = np.isin(kept, np.fromiter(tests.sets, dtype=np.int64, count=len(tests.sets)))
    sets = [tests.sets[node] for node in kept[is_set].tolist()]
    yes = np.where(tests.feature[kept] < 0, -1, number[tests.yes[kept]]).astype(np.int32)
    no = np.where(tests.feature[kept] < 0, -1, number[tests.no[kept]]).astype(np.int32)
    cover = None if hitrate is None or not plausible(hitrate[kept], yes, no) else hitrate[kept]
    return ordered(
        Forest(
            features=int(tests.feature.max(initial=0)) + 1,
            outputs=leaf_values.shape[1],
            roots=number[tests.roots],
            feature=tests.feature[kept].astype(np.int32),
            threshold=np.where(is_set, np.float32(0), tests.threshold[kept]),
            set_index=np.where(is_set, np.cumsum(is_set) - 1, -1).astype(np.int32),
            yes=yes,
            no=no,
            missing_yes=tests.missing_yes[kept].astype(np.uint8),
            cover=cover,
            leaf=leaf[kept],
            leaf_values=leaf_values,
            base_values=base_values,
            set_offsets=np.cumsum([0, *(len(members) for members in sets)]).astype(np.int32),
            set_values=np.concatenate([np.empty(0, dtype=np.float32), *sets]),
            post_transform=post_transform,
            labels=labels,
            output_name="",
            mirror=mirror,
        )
    )


def _reached(tests: Tests) -> NDArray[np.int64]:
    """The nodes below the roots, ascending. Raises NotATreeError when two ways lead to one."""
    parents = np.zeros(len(tests.feature), dtype=np.int64)
    parents[tests.roots] = 1
    level = tests.roots
    while len(level):
        inner = level[tests.feature[level] >= 0]
        children = np.concatenate((tests.yes[inner], tests.no[inner]))
        np.add.at(parents, children, 1)
        if (parents[children] > 1).any():
            raise NotATreeError("the tree ensemble shares a node between parents that are no category test")
        level = children
    return np.flatnonzero(parents)


def _labels(attributes: dict[str, object]) -> tuple[str, ...]:
    texts, integers = attributes.get("classlabels_strings", []), attributes.get("classlabels_int64s", [])
    if not isinstance(texts, list) or not isinstance(integers, list) or bool(texts) == bool(integers):
        raise ConfigError("the tree ensemble classifier has no class labels, or two kinds of them")
    return tuple(item.decode("utf-8", "replace") for item in texts) or tuple(str(item) for item in integers)
