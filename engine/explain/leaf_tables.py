"""The SHAP values of each group of leaves, for every pattern of answers, as tables that a GPU looks up and adds.

With b answers deciding a group, a row of a table of 2^b patterns says what the group adds to the explanation, whatever the
record: no arithmetic is left but to look it up and add.
"""

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from engine.explain.covers import shares
from engine.explain.forest import Forest
from engine.explain.leaf_groups import Group, Leaf, cut
from engine.explain.oracle import path_dependent, shapley
from schemas.errors import ConfigError

table_bytes_max = 512 << 20
"""Memory for the tables of one model, on each side of the bus."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class GroupTable:
    """What a group adds by its pattern of answers: (2^b, D + 1, K) float32, the values of its D features, and last its
    raw score."""

    group: Group
    features: NDArray[np.int64]  # (D,), ascending
    values: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class LeafTables:
    """A forest's SHAP values, worked out: relative to its covers, or to background rows."""

    forest: Forest
    method: str
    background_digest: str | None
    base: NDArray[np.float64]
    """What the values start from, (K,)."""
    tables: tuple[GroupTable, ...]

    @staticmethod
    def of(forest: Forest, background: NDArray[np.float32] | None = None) -> "LeafTables":
        """The tables of all groups, relative to background rows (R, F) or, without any, to the covers.

        Raises ConfigError: neither is there, a test is of a category set, a path is longer than `bits_max` tests, or the
        tables need more than `table_bytes_max`.
        """
        if (forest.set_index >= 0).any():
            raise ConfigError("tables for a GPU take tests of numbers, not of categories")
        groups = cut(forest)
        floats = sum(_floats(forest, group) for group in groups)
        if floats * 4 > table_bytes_max:
            raise ConfigError(f"these trees need {floats * 4 >> 20} MiB of tables for a GPU")
        share = shares(forest) if background is None else None
        if background is None:
            base = path_dependent(forest, np.zeros((0, forest.features), dtype=np.float32))[1]
        else:
            base = forest.raw_scores(background).mean(axis=0)
        return LeafTables(
            forest=forest,
            method="tree_path_dependent" if background is None else "tree_interventional",
            background_digest=None
            if background is None
            else hashlib.sha256(background.tobytes()).hexdigest(),
            base=base,
            tables=tuple(_table(forest, group, share, background) for group in groups),
        )


def _floats(forest: Forest, group: Group) -> int:
    features = {int(forest.feature[node]) for node in group.nodes}
    return (len(features) + 1) * forest.outputs << len(group.nodes)


def _table(
    forest: Forest,
    group: Group,
    share: NDArray[np.float64] | None,
    background: NDArray[np.float32] | None,
) -> GroupTable:
    bits = len(group.nodes)
    asked = forest.feature[list(group.nodes)].astype(np.int64)
    features, column = np.unique(asked, return_inverse=True)
    patterns, answers = _patterns(bits), None
    if background is not None:
        nodes = np.broadcast_to(np.array(group.nodes, dtype=np.int32), (len(background), bits))
        answers = forest.passes(nodes, background[:, asked])
    values = np.zeros((len(patterns), len(features) + 1, forest.outputs))
    for leaf in group.leaves:
        value = forest.leaf_values[leaf.row]
        if not leaf.path:
            values[:, -1] += value
            continue
        own, owner = np.unique([column[place] for place, _ in leaf.path], return_inverse=True)
        o = _satisfied(patterns, leaf, owner, len(own))
        z = (
            _satisfied(answers, leaf, owner, len(own))
            if answers is not None
            else _path_shares(forest, share, group, leaf, owner, len(own))
        )
        values[:, own] += _mean_shapley(o, z)[:, :, None] * value
        values[:, -1] += np.all(o, axis=1, keepdims=True) * value
    with np.errstate(over="ignore"):  # what float32 cannot hold is noticed where values are compared
        return GroupTable(group=group, features=features, values=values.astype(np.float32))


def _satisfied(
    answers: NDArray[np.bool_], leaf: Leaf, owner: NDArray[np.int64], features: int
) -> NDArray[np.bool_]:
    """Whether each row of answers (n, b) agrees with all tests of each feature of the leaf's path, (n, D)."""
    agrees = np.ones((len(answers), features), dtype=np.bool_)
    for (place, wanted), feature in zip(leaf.path, owner.tolist(), strict=True):
        agrees[:, feature] &= answers[:, place] == wanted
    return agrees


def _path_shares(
    forest: Forest,
    share: NDArray[np.float64] | None,
    group: Group,
    leaf: Leaf,
    owner: NDArray[np.int64],
    features: int,
) -> NDArray[np.float64]:
    """What share of the training data each feature's tests let pass to the leaf, (1, D)."""
    assert share is not None
    passing = np.ones((1, features))
    for (place, wanted), feature in zip(leaf.path, owner.tolist(), strict=True):
        node = group.nodes[place]
        passing[0, feature] *= share[(forest.yes if wanted else forest.no)[node]]
    return passing


def _mean_shapley(o: NDArray[np.bool_], z: NDArray[np.generic]) -> NDArray[np.float64]:
    """Shapley values of a leaf of value 1 for rows o (n, D), the mean over the rows of z (m, D), (n, D)."""
    features = o.shape[1]
    powers = 1 << np.arange(features)
    if z.dtype == np.bool_:
        often = np.bincount(z.astype(np.bool_) @ powers, minlength=1 << features) / len(z)
        found = np.tensordot(often, _all_binary(features), 1)
    else:
        found = shapley(_patterns(features)[:, None, :], z[None])[:, 0]
    return np.asarray(found[o @ powers])


@cache
def _all_binary(features: int) -> NDArray[np.float64]:
    """Shapley values of a leaf for every z and every o, both 0 or 1 for each feature: (2^D, 2^D, D)."""
    every = _patterns(features)
    return np.stack([shapley(every[:, None, :], z[None, None])[:, 0] for z in every])


def _patterns(bits: int) -> NDArray[np.bool_]:
    """All answers to as many tests, (2^bits, bits): answer i is bit i of the row's number."""
    return np.asarray((np.arange(1 << bits)[:, None] >> np.arange(bits)) & 1 == 1)
