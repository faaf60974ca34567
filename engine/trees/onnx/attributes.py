"""What the attributes of an ONNX tree-ensemble node say, as columns: nothing is interpreted yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from penstock.schemas.errors import ConfigError


class Mode(IntEnum):
    """What a node does, by the number that TreeEnsemble 5 gives it; the older operators spell it BRANCH_..."""

    LEQ = 0
    LT = 1
    GTE = 2
    GT = 3
    EQ = 4
    NEQ = 5
    MEMBER = 6
    LEAF = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeTable:
    """The nodes as they stand in the file, children resolved to positions; tests still in the file's modes."""

    root: NDArray[np.int64]  # (T,)
    feature: NDArray[np.int64]  # (n,) as are the next
    mode: NDArray[np.uint8]  # of Mode
    value: NDArray[np.float64]
    true: NDArray[np.int64]  # -1 at a leaf
    false: NDArray[np.int64]
    missing_true: NDArray[np.bool_]
    hitrate: NDArray[np.float64] | None
    members: tuple[NDArray[np.float64], ...]  # of the MEMBER nodes, in their order
    weight_node: NDArray[np.int64]  # (W,)
    weight_output: NDArray[np.int64]
    weight: NDArray[np.float64]


def table_v3(attributes: Mapping[str, Any], prefix: str) -> NodeTable:
    tree, node_id, feature, true_id, false_id = (
        _integers(attributes, f"nodes_{name}")
        for name in ("treeids", "nodeids", "featureids", "truenodeids", "falsenodeids")
    )
    n = len(tree)
    mode = _mode_codes(attributes.get("nodes_modes", []))
    value = numbers(attributes, "nodes_values")
    missing = _integers(attributes, "nodes_missing_value_tracks_true")
    if not n:
        raise ConfigError("the tree ensemble has no nodes")
    for name, column in (
        ("nodeids", node_id), ("featureids", feature), ("truenodeids", true_id), ("falsenodeids", false_id),
        ("modes", mode), ("values", value),
    ):  # fmt: skip
        if len(column) != n:
            raise ConfigError(f"the tree ensemble has {n} nodes and {len(column)} nodes_{name}")
    starts = np.flatnonzero(np.concatenate(([True], tree[1:] != tree[:-1])))
    if len(np.unique(tree[starts])) != len(starts):
        raise ConfigError("the nodes of a tree do not stand together in the tree ensemble")
    place = _Places(tree=tree, node=node_id)
    inner = mode != Mode.LEAF
    true, false = np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    true[inner] = place.of(tree[inner], true_id[inner], "child")
    false[inner] = place.of(tree[inner], false_id[inner], "child")
    weight_tree, weight_node, weight_output = (
        _integers(attributes, f"{prefix}_{name}") for name in ("treeids", "nodeids", "ids")
    )
    weight = numbers(attributes, f"{prefix}_weights")
    if not len(weight_tree) == len(weight_node) == len(weight_output) == len(weight):
        raise ConfigError(f"the {prefix}_ lists of the tree ensemble differ in length")
    return NodeTable(
        root=starts,
        feature=feature,
        mode=mode,
        value=value,
        true=true,
        false=false,
        missing_true=_flags(missing, n),
        hitrate=_optional(attributes, "nodes_hitrates", n),
        members=(),
        weight_node=place.of(weight_tree, weight_node, "leaf with a weight"),
        weight_output=weight_output,
        weight=weight,
    )


class _Places:
    """Finds the position of a node by its tree number and node number, both of any size."""

    def __init__(self, *, tree: NDArray[np.int64], node: NDArray[np.int64]) -> None:
        starts = np.flatnonzero(np.concatenate(([True], tree[1:] != tree[:-1])))
        sizes = np.diff(np.append(starts, len(tree)))
        # As this program writes them, the trees and the nodes of each are counted from zero, in order.
        self._starts = None
        if np.array_equal(tree[starts], np.arange(len(starts))) and np.array_equal(
            node, np.arange(len(node)) - np.repeat(starts, sizes)
        ):
            self._starts, self._sizes = starts, sizes
            return
        self._trees, self._nodes = np.unique(tree), np.unique(node)
        keys = self._keys(tree, node)
        self._order = np.argsort(keys, kind="stable")
        self._sorted = keys[self._order]
        if (self._sorted[1:] == self._sorted[:-1]).any():
            raise ConfigError("the tree ensemble has two nodes with the same number in one tree")

    def of(self, tree: NDArray[np.int64], node: NDArray[np.int64], what: str) -> NDArray[np.int64]:
        """Positions. Raises ConfigError when there is no such node."""
        if self._starts is not None:
            there = (tree >= 0) & (tree < len(self._starts)) & (node >= 0)
            tree = np.where(there, tree, 0)
            if not (there & (node < self._sizes[tree])).all():
                raise ConfigError(f"the tree ensemble names a {what} that is not there")
            return np.asarray(self._starts[tree] + node)
        tree_place = np.minimum(np.searchsorted(self._trees, tree), len(self._trees) - 1)
        node_place = np.minimum(np.searchsorted(self._nodes, node), len(self._nodes) - 1)
        known = (self._trees[tree_place] == tree) & (self._nodes[node_place] == node)
        keys = self._keys(tree, node)
        place = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        if not (known & (self._sorted[place] == keys)).all():
            raise ConfigError(f"the tree ensemble names a {what} that is not there")
        return self._order[place]

    def _keys(self, tree: NDArray[np.int64], node: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.searchsorted(self._trees, tree) * len(self._nodes) + np.searchsorted(self._nodes, node)


def table_v5(attributes: Mapping[str, Any]) -> NodeTable:
    feature, true_id, false_id, true_leaf, false_leaf, roots, leaf_output = (
        _integers(attributes, name)
        for name in (
            "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids", "nodes_trueleafs", "nodes_falseleafs",
            "tree_roots", "leaf_targetids",
        )
    )  # fmt: skip
    inner = len(feature)
    mode = numbers(attributes, "nodes_modes")
    splits = numbers(attributes, "nodes_splits")
    weight = numbers(attributes, "leaf_weights")
    if not inner or not len(roots) or not len(weight):
        raise ConfigError("the tree ensemble has no nodes, roots or leaves")
    for name, column in (
        ("truenodeids", true_id), ("falsenodeids", false_id), ("trueleafs", true_leaf), ("falseleafs", false_leaf),
        ("modes", mode), ("splits", splits),
    ):  # fmt: skip
        if len(column) != inner:
            raise ConfigError(f"the tree ensemble has {inner} nodes and {len(column)} nodes_{name}")
    if len(leaf_output) != len(weight):
        raise ConfigError("the leaf lists of the tree ensemble differ in length")
    if ((mode < 0) | (mode > Mode.MEMBER) | (mode != np.floor(mode))).any():
        raise ConfigError("the tree ensemble has a node of an unknown mode")
    if ((roots < 0) | (roots >= inner)).any():
        raise ConfigError("the tree ensemble names a root that is not there")
    # The file shares leaves freely: each use becomes a node of its own, after the inner nodes.
    uses: list[NDArray[np.int64]] = []
    children: list[NDArray[np.int64]] = []
    first = inner
    for ids, is_leaf in ((true_id, true_leaf != 0), (false_id, false_leaf != 0)):
        if ((ids < 0) | (ids >= np.where(is_leaf, len(weight), inner))).any():
            raise ConfigError("the tree ensemble names a child that is not there")
        uses.append(ids[is_leaf])
        children.append(ids.copy())
        children[-1][is_leaf] = first + np.arange(len(uses[-1]))
        first += len(uses[-1])
    used = np.concatenate(uses)
    absent = np.full(len(used), -1, dtype=np.int64)
    missing = _flags(_integers(attributes, "nodes_missing_value_tracks_true"), inner)
    return NodeTable(
        root=roots,
        feature=np.concatenate((feature, absent)),
        mode=np.concatenate((mode, np.full(len(used), Mode.LEAF))).astype(np.uint8),
        value=np.concatenate((splits, np.zeros(len(used)))),
        true=np.concatenate((children[0], absent)),
        false=np.concatenate((children[1], absent)),
        missing_true=np.concatenate((missing, np.zeros(len(used), dtype=bool))),
        hitrate=None,  # of inner nodes only: the covers of the leaves are not in the file
        members=_member_lists(numbers(attributes, "membership_values"), int((mode == Mode.MEMBER).sum())),
        weight_node=inner + np.arange(len(used)),
        weight_output=leaf_output[used],
        weight=weight[used],
    )


def _member_lists(values: NDArray[np.float64], lists: int) -> tuple[NDArray[np.float64], ...]:
    """The NaN-separated lists; a closing NaN ends the last one and opens none."""
    marks = np.flatnonzero(np.isnan(values)).tolist()
    starts, stops = [0, *(mark + 1 for mark in marks)], [*marks, len(values)]
    pieces = [values[start:stop] for start, stop in zip(starts, stops, strict=True)]
    if len(pieces) == lists + 1 and not len(pieces[-1]):
        pieces.pop()
    if len(pieces) != lists:
        raise ConfigError(f"the tree ensemble has {len(pieces)} lists of members for {lists} MEMBER nodes")
    return tuple(pieces)


_types_used: Final = frozenset(
    {
        onnx.AttributeProto.INT, onnx.AttributeProto.INTS, onnx.AttributeProto.FLOAT, onnx.AttributeProto.FLOATS,
        onnx.AttributeProto.STRING, onnx.AttributeProto.STRINGS, onnx.AttributeProto.TENSOR,
    }
)  # fmt: skip


def value_of(attribute: onnx.AttributeProto) -> Any:
    """An attribute's value; the long lists of a tree ensemble's nodes as arrays, its modes as they stand in the file."""
    if attribute.type not in _types_used:
        raise ConfigError(
            f"an attribute of the tree ensemble has the type {attribute.type}, which none of it has"
        )
    # A name that is not UTF-8 is handed out as bytes.
    if not str(attribute.name).startswith(("nodes_", "target_", "class_", "leaf_", "tree_", "membership_")):
        return onnx.helper.get_attribute_value(attribute)
    if attribute.type == onnx.AttributeProto.INTS:
        return np.fromiter(attribute.ints, dtype=np.int64, count=len(attribute.ints))
    if attribute.type == onnx.AttributeProto.FLOATS:
        return np.fromiter(attribute.floats, dtype=np.float64, count=len(attribute.floats))
    if attribute.type == onnx.AttributeProto.STRINGS:
        return attribute.strings
    return onnx.helper.get_attribute_value(attribute)


def _mode_codes(modes: Any) -> NDArray[np.uint8]:
    known: dict[Any, int] = {f"BRANCH_{mode.name}".encode(): mode for mode in Mode if mode < Mode.MEMBER}
    known[b"LEAF"] = Mode.LEAF
    if isinstance(modes, (np.ndarray, str, bytes, int, float, onnx.TensorProto)):
        raise ConfigError("attribute nodes_modes of the tree ensemble is not a list of texts")
    codes = np.fromiter((known.get(mode, 255) for mode in modes), dtype=np.uint8, count=len(modes))
    strange = np.flatnonzero(codes == 255)
    if len(strange):
        words = modes[int(strange[0])].decode("utf-8", "replace")[:40]
        raise ConfigError(f"the tree ensemble has a node of the unknown mode {words!r}")
    return codes


def chosen(attributes: Mapping[str, Any], name: str, choices: tuple[str, ...], *, default: int) -> str:
    """The one of `choices` that a numbered attribute names."""
    index = integer(attributes, name, default)
    if not 0 <= index < len(choices):
        raise ConfigError(f"the tree ensemble has the unknown {name} {index}")
    return choices[index]


def integer(attributes: Mapping[str, Any], name: str, default: int) -> int:
    """An attribute that is one integer."""
    value = attributes.get(name, default)
    if not isinstance(value, int):
        raise ConfigError(f"attribute {name} of the tree ensemble is not an integer")
    return value


def text(attributes: Mapping[str, Any], name: str, default: str) -> str:
    """An attribute that is one text."""
    value = attributes.get(name, default.encode())
    if not isinstance(value, bytes):
        raise ConfigError(f"attribute {name} of the tree ensemble is not a text")
    return value.decode("utf-8", "replace")


def _integers(attributes: Mapping[str, Any], name: str) -> NDArray[np.int64]:
    values = attributes.get(name, [])
    if isinstance(values, np.ndarray) and values.dtype == np.int64:
        return values
    if not isinstance(values, list) or not all(isinstance(value, int) for value in values):
        raise ConfigError(f"attribute {name} of the tree ensemble is not a list of integers")
    return np.array(values, dtype=np.int64)


def numbers(attributes: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    """A float list or its tensor form (`name` itself or `name`_as_tensor), as float64."""
    values = attributes.get(f"{name}_as_tensor", attributes.get(name, []))
    if isinstance(values, onnx.TensorProto):
        try:
            array = array_of(values)
        except ConfigError as error:
            raise ConfigError(f"attribute {name} of the tree ensemble is not a readable tensor") from error
        if array.dtype.kind not in "fiu" or array.ndim > 1:
            raise ConfigError(f"attribute {name} of the tree ensemble is not a list of numbers")
        with np.errstate(invalid="ignore"):  # a signalling NaN is a NaN
            return array.reshape(-1).astype(np.float64)
    if isinstance(values, np.ndarray):
        return values.astype(np.float64)
    if not isinstance(values, list) or not all(isinstance(value, (int, float)) for value in values):
        raise ConfigError(f"attribute {name} of the tree ensemble is not a list of numbers")
    return np.array(values, dtype=np.float64)


def array_of(tensor: onnx.TensorProto) -> NDArray[np.generic]:
    """The numbers or texts of a tensor. Raises ConfigError where they are broken, or in another file, which is never opened."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ConfigError(f"constant {tensor.name[:40]} is kept in another file than the model's")
    try:
        array: NDArray[np.generic] = onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ConfigError(f"constant {tensor.name[:40]} cannot be read") from error
    return array


def _flags(values: NDArray[np.int64], n: int) -> NDArray[np.bool_]:
    if len(values) not in (0, n):
        raise ConfigError(f"the tree ensemble has {n} nodes and {len(values)} missing-value flags")
    return values == 1 if len(values) else np.zeros(n, dtype=bool)


def _optional(attributes: Mapping[str, Any], name: str, n: int) -> NDArray[np.float64] | None:
    values = numbers(attributes, name)
    return values if len(values) == n else None
