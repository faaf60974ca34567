"""Tree ensembles of an ONNX graph whose nodes lead in a circle: ONNX Runtime would follow them without end."""

import numpy as np
import onnx
from numpy.typing import NDArray

from penstock.schemas.errors import ConfigError

depth_max = 1 << 12
_ml_operators = ("TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble")


_read = frozenset(
    {"nodes_treeids", "nodes_nodeids", "nodes_truenodeids", "nodes_falsenodeids", "nodes_featureids",
     "nodes_trueleafs", "nodes_falseleafs"}
)  # fmt: skip


def check_trees_end(node: onnx.NodeProto) -> None:
    """Raises ConfigError where a tree of this operator has a circle, or a child that is not there."""
    if node.op_type not in _ml_operators:
        return
    arrays = {
        item.name: np.fromiter(item.ints, dtype=np.int64, count=len(item.ints))
        for item in node.attribute
        if item.name in _read and item.ints
    }
    if node.op_type == "TreeEnsemble":
        _check_one_list(arrays)
    else:
        _check_numbered(arrays, node)


def _check_numbered(arrays: dict[str, NDArray[np.int64]], node: onnx.NodeProto) -> None:
    """Nodes are named by tree and number."""
    parts = [arrays.get(f"nodes_{name}", np.empty(0, dtype=np.int64)) for name in
             ("treeids", "nodeids", "truenodeids", "falsenodeids")]  # fmt: skip
    trees, numbers, yes, no = parts
    modes = next((item.strings for item in node.attribute if item.name == "nodes_modes"), ())
    if len({len(modes), *map(len, parts)}) != 1:
        raise ConfigError(f"operator {node.op_type} has lists of nodes of different lengths")
    if not len(modes):
        return
    inner = np.fromiter((mode != b"LEAF" for mode in modes), dtype=np.bool_, count=len(modes))
    in_order = _children_in_order(trees, numbers, (yes[inner], no[inner]), inner)
    if in_order is not None:
        _check_ends(np.flatnonzero(inner), *in_order, count=len(trees))
        return
    tree = np.unique(trees, return_inverse=True)[1].reshape(-1)
    low, span = int(numbers.min()), int(numbers.max()) - int(numbers.min()) + 1
    if span > np.iinfo(np.int64).max // (int(tree.max()) + 1):
        raise ConfigError(f"operator {node.op_type} numbers its nodes beyond all measure")
    keys = tree * span + (numbers - low)
    order = np.argsort(keys, kind="stable")
    children = []
    for side in (yes, no):
        wanted = side[inner]
        if ((wanted < low) | (wanted >= low + span)).any():
            raise ConfigError(f"operator {node.op_type} has a tree with a child that is not there")
        wanted = tree[inner] * span + (wanted - low)
        place = np.minimum(np.searchsorted(keys, wanted, sorter=order), len(keys) - 1)
        found = order[place]
        if (keys[found] != wanted).any():
            raise ConfigError(f"operator {node.op_type} has a tree with a child that is not there")
        children.append(found)
    _check_ends(np.flatnonzero(inner), *children, count=len(keys))


def _children_in_order(
    trees: NDArray[np.int64],
    numbers: NDArray[np.int64],
    sides: tuple[NDArray[np.int64], NDArray[np.int64]],
    inner: NDArray[np.bool_],
) -> list[NDArray[np.int64]] | None:
    """Places of the children where the trees, and the nodes of each, are counted from zero, in order; else None."""
    starts = np.flatnonzero(np.concatenate(([True], trees[1:] != trees[:-1])))
    sizes = np.diff(np.append(starts, len(trees)))
    start = np.repeat(starts, sizes)
    if not np.array_equal(trees[starts], np.arange(len(starts))) or not np.array_equal(
        numbers, np.arange(len(numbers)) - start
    ):
        return None
    size = np.repeat(sizes, sizes)[inner]
    if any(((side < 0) | (side >= size)).any() for side in sides):
        raise ConfigError("the ONNX model has a tree with a child that is not there")
    return [start[inner] + side for side in sides]


def _check_one_list(arrays: dict[str, NDArray[np.int64]]) -> None:
    """TreeEnsemble of ai.onnx.ml 5: children are places among the inner nodes, or among the leaves."""
    empty = np.empty(0, dtype=np.int64)
    sides = []
    count = len(arrays.get("nodes_featureids", empty))
    for side in ("true", "false"):
        ids, leafs = arrays.get(f"nodes_{side}nodeids", empty), arrays.get(f"nodes_{side}leafs", empty)
        if len(ids) != count or len(leafs) != count:
            raise ConfigError("operator TreeEnsemble has lists of nodes of different lengths")
        if ((ids < 0) | ((leafs == 0) & (ids >= count))).any():
            raise ConfigError("operator TreeEnsemble has a tree with a child that is not there")
        sides.append(np.where(leafs != 0, count, ids))
    _check_ends(np.arange(count), *sides, count=count + 1)


def _check_ends(
    inner: NDArray[np.int64], yes: NDArray[np.int64], no: NDArray[np.int64], *, count: int
) -> None:
    """From the leaves up: whatever does not end is a circle. Each turn settles the nodes whose children have ended."""
    ends = np.ones(count, dtype=np.bool_)
    ends[inner] = False
    for _ in range(depth_max + 1):
        if not len(inner):
            return
        settled = ends[yes] & ends[no]
        if not settled.any():
            raise ConfigError("the ONNX model has a tree whose nodes lead in a circle")
        ends[inner[settled]] = True
        inner, yes, no = inner[~settled], yes[~settled], no[~settled]
    raise ConfigError(f"the ONNX model has a tree with a path of more than {depth_max} tests")
