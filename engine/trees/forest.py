"""The canonical form of a tree ensemble: flat arrays that the oracle, the kernels and the writer share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from penstock.schemas.errors import ConfigError

depth_max = 1024
"""Longest path, in tests: past this a file is broken or hostile; trained trees stay below a tenth of it."""
features_max = 1 << 20
leaf_cells_max = 1 << 28
"""Leaves times outputs: 2 GiB of float64."""
joined_nodes_max = 1 << 24
"""Of several ensembles that add up: a small file may name one of them again and again."""

_dtypes: dict[str, type[np.generic]] = {
    "roots": np.int32,
    "feature": np.int32,
    "threshold": np.float32,
    "set_index": np.int32,
    "yes": np.int32,
    "no": np.int32,
    "missing_yes": np.uint8,
    "leaf": np.int32,
    "leaf_values": np.float64,
    "base_values": np.float64,
    "set_offsets": np.int32,
    "set_values": np.float32,
}


class PostTransform(StrEnum):
    """What the model does to the raw scores, by the name that ONNX gives it; EXP is an operator after the trees."""

    NONE = "NONE"
    LOGISTIC = "LOGISTIC"
    SOFTMAX = "SOFTMAX"
    SOFTMAX_ZERO = "SOFTMAX_ZERO"
    PROBIT = "PROBIT"
    EXP = "EXP"


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Forest:
    """T trees over n nodes with L leaves, F features and K raw outputs; arrays are C-contiguous.

    A row x goes to `yes` at a numeric node when x[feature] <= threshold, at a category node when x[feature] is one
    of sets[set_index], and where missing_yes says so when x[feature] is NaN. The raw scores are base_values plus the
    leaf_values of the T leaves reached. Every node but a root has exactly one parent.

    A binary classifier may keep the score of its second class only: K = 1 and two labels; the first class's score
    is then `mirror` less that (0 for a margin, 1 for a share).

    Construction checks all of this and raises ConfigError with one sentence.
    """

    features: int
    outputs: int
    roots: NDArray[np.int32]  # (T,)
    feature: NDArray[np.int32]  # (n,), -1 at a leaf
    threshold: NDArray[np.float32]  # (n,)
    set_index: NDArray[np.int32]  # (n,), -1 at a numeric node and at a leaf
    yes: NDArray[np.int32]  # (n,), -1 at a leaf
    no: NDArray[np.int32]  # (n,), -1 at a leaf
    missing_yes: NDArray[np.uint8]  # (n,)
    cover: NDArray[np.float64] | None  # (n,) weight of the training rows that passed; None: unknown
    leaf: NDArray[np.int32]  # (n,) row of leaf_values, -1 at an inner node
    leaf_values: NDArray[np.float64]  # (L, K)
    base_values: NDArray[np.float64]  # (K,)
    set_offsets: NDArray[np.int32]  # (S + 1,)
    set_values: NDArray[
        np.float32
    ]  # members of set s, ascending: set_values[set_offsets[s]:set_offsets[s + 1]]
    post_transform: PostTransform
    labels: tuple[str, ...]  # class names, empty for a regressor
    output_name: str  # the ONNX output that carries the scores
    mirror: float = 0.0

    def __post_init__(self) -> None:
        self._check_shapes()
        self._check_values()
        self._check_trees()

    @property
    def trees(self) -> int:
        """T."""
        return len(self.roots)

    @property
    def nodes(self) -> int:
        """n."""
        return len(self.feature)

    @property
    def classes(self) -> int:
        """Number of outputs a user can ask about: labels of a classifier, raw outputs of a regressor."""
        return len(self.labels) or self.outputs

    @property
    def space(self) -> str:
        """The scale in which attributions add up: `log_odds`, `log`, `probability` or `value`."""
        if self.post_transform is PostTransform.EXP:
            return "log"
        if self.post_transform in (PostTransform.LOGISTIC, PostTransform.SOFTMAX, PostTransform.SOFTMAX_ZERO):
            return "log_odds"
        if self.labels and self.post_transform is PostTransform.NONE and self._scores_are_shares():
            return "probability"
        return "value"

    def levels(self) -> Iterator[NDArray[np.int32]]:
        """The nodes of each depth, roots first; within a level in the order of their parents, yes before no."""
        level = self.roots
        while len(level):
            yield level
            inner = level[self.leaf[level] < 0]
            level = np.stack((self.yes[inner], self.no[inner]), axis=1).reshape(-1)

    def tree_of_node(self) -> NDArray[np.int32]:
        """The number of the tree that each node belongs to, (n,)."""
        tree = np.empty(self.nodes, dtype=np.int32)
        tree[self.roots] = np.arange(self.trees, dtype=np.int32)
        for level in self.levels():
            inner = level[self.leaf[level] < 0]
            tree[self.yes[inner]] = tree[inner]
            tree[self.no[inner]] = tree[inner]
        return tree

    def reached(self, X: NDArray[np.float32]) -> NDArray[np.int32]:
        """The leaf node of every row in every tree, (rows, T): the reference for every faster router."""
        rows = np.arange(len(X))[:, None]
        node = np.broadcast_to(self.roots, (len(X), self.trees)).copy()
        while True:
            at_leaf = self.leaf[node] >= 0
            if at_leaf.all():
                return node
            x = X[rows, np.where(at_leaf, 0, self.feature[node])]
            goes_yes = self.passes(node, x)
            node = np.where(at_leaf, node, np.where(goes_yes, self.yes[node], self.no[node]))

    def passes(self, node: NDArray[np.int32], x: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether value x goes to `yes` at inner node `node`, element by element."""
        goes_yes = x <= self.threshold[node]
        in_set = self.set_index[node] >= 0
        if in_set.any():
            known, ranks = np.unique(self.set_values, return_inverse=True)
            owner = np.repeat(np.arange(len(self.set_offsets) - 1), np.diff(self.set_offsets))
            members = np.sort(owner * len(known) + ranks)
            place = np.minimum(np.searchsorted(known, x), max(len(known) - 1, 0))
            wanted = self.set_index[node].astype(np.int64) * len(known) + place
            found = (
                np.isin(wanted, members) & (known[place] == x)
                if len(known)
                else np.zeros(x.shape, dtype=bool)
            )
            goes_yes = np.where(in_set, found, goes_yes)
        return np.where(np.isnan(x), self.missing_yes[node] != 0, goes_yes)

    def raw_scores(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """base_values plus the leaves reached, (rows, K), in float64."""
        scores = np.empty((len(X), self.outputs))
        for start in range(0, len(X), 1024):  # bounds the (rows, T, K) gather
            part = slice(start, start + 1024)
            scores[part] = self.base_values + self.leaf_values[self.leaf[self.reached(X[part])]].sum(axis=1)
        return scores

    def _scores_are_shares(self) -> bool:
        """Whether no row can score outside [0, 1], as in a forest that averages class shares."""
        at_leaf = self.leaf >= 0
        owner, values = self.tree_of_node()[at_leaf], self.leaf_values[self.leaf[at_leaf]]
        lowest = np.full((self.trees, self.outputs), np.inf)
        np.minimum.at(lowest, owner, values)
        highest = np.full((self.trees, self.outputs), -np.inf)
        np.maximum.at(highest, owner, values)
        least = self.base_values + lowest.sum(axis=0)
        most = self.base_values + highest.sum(axis=0)
        return bool((least >= -1e-4).all() and (most <= 1 + 1e-4).all())

    def _check_shapes(self) -> None:
        n, sets = len(self.feature), len(self.set_offsets) - 1
        if not 1 <= self.features <= features_max or self.outputs < 1:
            raise ConfigError(
                f"a forest of {self.features} features and {self.outputs} outputs cannot be explained"
            )
        if len(self.leaf_values) * self.outputs > leaf_cells_max:
            raise ConfigError(
                f"{len(self.leaf_values)} leaves times {self.outputs} outputs exceed {leaf_cells_max}"
            )
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
            ("feature", "threshold", "set_index", "yes", "no", "missing_yes", "leaf"), (n,)
        )
        shapes |= {
            "roots": (len(self.roots),),
            "leaf_values": (len(self.leaf_values), self.outputs),
            "base_values": (self.outputs,),
            "set_offsets": (sets + 1,),
            "set_values": (len(self.set_values),),
        }
        for name, shape in shapes.items():
            _check_array(name, getattr(self, name), shape, _dtypes[name])
        if self.cover is not None:
            _check_array("cover", self.cover, (n,), np.float64)

    def _check_values(self) -> None:
        inner = self.leaf < 0
        sets = len(self.set_offsets) - 1
        in_set = self.set_index >= 0
        ascending = np.diff(self.set_values) > 0
        ascending[
            self.set_offsets[1:-1][
                (self.set_offsets[1:-1] > 0) & (self.set_offsets[1:-1] < len(self.set_values))
            ]
            - 1
        ] = True
        faults = {
            "a tree without nodes": self.nodes == 0 or self.trees == 0,
            "a feature number outside the row": bool(
                ((self.feature[inner] < 0) | (self.feature[inner] >= self.features)).any()
            ),
            "a leaf with a feature number": bool((self.feature[~inner] != -1).any()),
            "a leaf value row that is not there": bool((self.leaf >= len(self.leaf_values)).any()),
            "a leaf with children": bool(((self.yes[~inner] != -1) | (self.no[~inner] != -1)).any()),
            "a threshold that is NaN": bool(np.isnan(self.threshold[inner & ~in_set]).any()),
            "a category set that is not there": bool((self.set_index >= sets).any() or sets < 0),
            "category sets out of order": bool(
                self.set_offsets[0] != 0
                or self.set_offsets[-1] != len(self.set_values)
                or (np.diff(self.set_offsets) < 0).any()
                or not ascending.all()
            ),
            "a leaf or base value that is not finite": not (
                np.isfinite(self.leaf_values).all() and np.isfinite(self.base_values).all()
            ),
            "a cover that is negative or not finite": self.cover is not None
            and not (np.isfinite(self.cover).all() and (self.cover >= 0).all()),
        }
        for fault, present in faults.items():
            if present:
                raise ConfigError(f"the tree ensemble has {fault}")

    def _check_trees(self) -> None:
        inner = self.leaf < 0
        children = np.concatenate((self.yes[inner], self.no[inner]))
        for name, nodes in (("child", children), ("root", self.roots)):
            if len(nodes) and (nodes.min() < 0 or nodes.max() >= self.nodes):
                raise ConfigError(f"the tree ensemble has a {name} that is not there")
        parents = np.bincount(children, minlength=self.nodes)
        expected = np.ones(self.nodes, dtype=np.int64)
        expected[self.roots] = 0
        if len(np.unique(self.roots)) != self.trees or (parents != expected).any():
            raise ConfigError("the tree ensemble has a node with several parents, or none")
        seen = 0
        for depth, level in enumerate(self.levels()):
            if depth > depth_max:
                raise ConfigError(f"the tree ensemble has a path of more than {depth_max} tests")
            seen += len(level)
        if seen != self.nodes:
            raise ConfigError("the tree ensemble has a cycle")


def ordered(forest: Forest) -> Forest:
    """The same forest in its one canonical order: tree by tree, level by level, yes before no; leaves likewise."""
    if _is_ordered(forest):
        return forest
    levels = np.concatenate(list(forest.levels()))
    order = levels[np.argsort(forest.tree_of_node()[levels], kind="stable")]
    number = np.empty(forest.nodes, dtype=np.int32)
    number[order] = np.arange(forest.nodes, dtype=np.int32)
    at_leaf = forest.leaf[order] >= 0
    set_index = forest.set_index[order]
    in_set = set_index >= 0
    numeric = ~at_leaf & ~in_set
    sizes = np.diff(forest.set_offsets)[set_index[in_set]]
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    starts = np.repeat(forest.set_offsets[set_index[in_set]] - offsets[:-1], sizes)
    return replace(
        forest,
        roots=number[forest.roots],
        feature=forest.feature[order],
        threshold=np.where(numeric, forest.threshold[order], np.float32(0)),
        set_index=np.where(in_set, np.cumsum(in_set) - 1, -1).astype(np.int32),
        yes=np.where(at_leaf, -1, number[forest.yes[order]]).astype(np.int32),
        no=np.where(at_leaf, -1, number[forest.no[order]]).astype(np.int32),
        missing_yes=np.where(at_leaf, 0, forest.missing_yes[order] != 0).astype(np.uint8),
        cover=None if forest.cover is None else forest.cover[order],
        leaf=np.where(at_leaf, np.cumsum(at_leaf) - 1, -1).astype(np.int32),
        leaf_values=forest.leaf_values[forest.leaf[order[at_leaf]]] + 0.0,  # -0.0 becomes 0.0
        set_offsets=offsets,
        set_values=forest.set_values[starts + np.arange(len(starts))],
    )


def _is_ordered(forest: Forest) -> bool:
    """Whether ordered() would change nothing; the arrays are those of a forest that was checked."""
    n, inner, roots = forest.nodes, forest.leaf < 0, forest.roots
    if roots[0] != 0 or (np.diff(roots) < 1).any():
        return False
    inners = int(inner.sum())
    before = np.append(np.concatenate(([0], np.cumsum(inner)))[roots], inners)
    if (2 * np.diff(before) + 1 != np.diff(np.append(roots, n))).any():
        return False
    # The i-th inner node of a tree has its children at 1 + 2i and 2 + 2i behind the root.
    first = 2 * np.arange(inners, dtype=np.int32)
    first += np.repeat((roots + 1 - 2 * before[:-1]).astype(np.int32), np.diff(before))
    in_set = forest.set_index >= 0
    sets = int(in_set.sum())
    numeric = inner & ~in_set
    return (
        np.array_equal(forest.yes[inner], first)
        and np.array_equal(forest.no[inner], first + 1)
        and np.array_equal(forest.leaf[~inner], np.arange(n - inners))
        and len(forest.leaf_values) == n - inners
        and len(forest.set_offsets) - 1 == sets
        and np.array_equal(forest.set_index[in_set], np.arange(sets))
        and not forest.threshold[~numeric].any()
        and not forest.missing_yes[~inner].any()
        and forest.missing_yes.max(initial=0) <= 1
        and not (np.signbit(forest.leaf_values) & (forest.leaf_values == 0)).any()
    )


def joined(forests: Sequence[Forest]) -> Forest:
    """One forest with all trees of several that have the same outputs; the scores add up. Raises ConfigError past all measure."""
    first = forests[0]
    nodes = sum(forest.nodes for forest in forests)
    cells = sum(forest.leaf_values.size for forest in forests)
    if nodes > joined_nodes_max or cells > joined_nodes_max:
        raise ConfigError(
            f"tree ensembles of {nodes} nodes and {cells} leaf values add up, more than {joined_nodes_max}"
        )
    node_start = np.cumsum([0, *(forest.nodes for forest in forests)])
    leaf_start = np.cumsum([0, *(len(forest.leaf_values) for forest in forests)])
    set_start = np.cumsum([0, *(len(forest.set_offsets) - 1 for forest in forests)])
    member_start = np.cumsum([0, *(len(forest.set_values) for forest in forests)])

    def stacked(name: str, starts: NDArray[np.int64]) -> NDArray[np.int32]:
        arrays = [getattr(forest, name) for forest in forests]
        moved = [np.where(array < 0, -1, array + start) for array, start in zip(arrays, starts, strict=False)]
        return np.concatenate(moved).astype(np.int32)

    covers = [forest.cover for forest in forests if forest.cover is not None]
    return replace(
        first,
        features=max(forest.features for forest in forests),
        roots=stacked("roots", node_start),
        feature=np.concatenate([forest.feature for forest in forests]),
        threshold=np.concatenate([forest.threshold for forest in forests]),
        set_index=stacked("set_index", set_start),
        yes=stacked("yes", node_start),
        no=stacked("no", node_start),
        missing_yes=np.concatenate([forest.missing_yes for forest in forests]),
        cover=np.concatenate(covers) if len(covers) == len(forests) else None,
        leaf=stacked("leaf", leaf_start),
        leaf_values=np.concatenate([forest.leaf_values for forest in forests]),
        base_values=np.sum([forest.base_values for forest in forests], axis=0),
        set_offsets=np.concatenate(
            [np.zeros(1, dtype=np.int32)]
            + [
                forest.set_offsets[1:] + np.int32(start)
                for forest, start in zip(forests, member_start, strict=False)
            ]
        ),
        set_values=np.concatenate([forest.set_values for forest in forests]),
    )


def _check_array(
    name: str, array: NDArray[np.generic], shape: tuple[int, ...], dtype: type[np.generic]
) -> None:
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ConfigError(
            f"{name} of a forest must be {np.dtype(dtype)} of shape {shape} in C order, "
            f"not {array.dtype} of shape {array.shape}"
        )
