"""Exact tree SHAP in float64, plainly: what every faster form is measured against.

The game of one leaf is v * prod(o_k for k in S) * prod(z_k for k not in S) over the D different features on its
path: o says whether the row satisfies every test of that feature, z how much of the background does. Its Shapley
values are integrals over t in [0, 1] of polynomials of degree D - 1, which ceil(D/2) Gauss-Legendre nodes give exactly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from penstock.engine.trees.covers import shares
from penstock.engine.trees.forest import Forest

_cells_max = 1 << 21
"""Numbers in the largest intermediate array."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Paths:
    """P leaves that have D different features on their paths, each feature's tests a run of `node` and `wanted`."""

    leaf_row: NDArray[np.int32]  # (P,)
    feature: NDArray[np.int64]  # (P, D)
    node: NDArray[np.int64]  # (tests,) the tests of (leaf 0, feature 0), (leaf 0, feature 1), ...
    wanted: NDArray[np.bool_]  # (tests,) the answer that leads to the leaf
    starts: NDArray[np.int64]  # (P * D,) first test of each leaf's feature


def path_dependent(forest: Forest, X: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """SHAP values relative to the training data as the covers remember it: (rows, F, K), and what they start from, (K,).

    Below a node that nothing passed, both children count a half, as in XGBoost. Raises ConfigError without covers.
    """
    share = shares(forest)
    values = np.zeros((len(X), forest.features, forest.outputs))
    expected = forest.base_values.copy()
    for paths in leaf_paths(forest):
        child = np.where(paths.wanted, forest.yes[paths.node], forest.no[paths.node])
        z = np.multiply.reduceat(share[child], paths.starts).reshape(paths.feature.shape)
        expected += z.prod(axis=1) @ forest.leaf_values[paths.leaf_row]
        for rows in row_chunks(len(X), paths.feature.size * _node_count(paths)):
            o = satisfied(forest, paths, X[rows])
            add_to_features(values[rows], paths, forest, shapley(o, z[None]))
    expected += lone_leaves(forest)
    return values, expected


def interventional(
    forest: Forest, X: NDArray[np.float32], background: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """SHAP values relative to the background rows, features broken loose: (rows, F, K), and their mean score, (K,)."""
    values = np.zeros((len(X), forest.features, forest.outputs))
    for paths in leaf_paths(forest):
        z_all = satisfied(forest, paths, background)
        for rows in row_chunks(len(X), paths.feature.size * _node_count(paths)):
            o = satisfied(forest, paths, X[rows])
            mean = sum((shapley(o, z[None]) for z in z_all), start=np.zeros(o.shape)) / len(background)
            add_to_features(values[rows], paths, forest, mean)
    return values, forest.raw_scores(background).mean(axis=0)


def leaf_paths(forest: Forest) -> Iterator[Paths]:
    """All leaves but lone ones, by number of different features."""
    parent = np.full(forest.nodes, -1, dtype=np.int64)
    inner = np.flatnonzero(forest.leaf < 0)
    parent[forest.yes[inner]] = inner
    parent[forest.no[inner]] = inner
    leaf_at, node_at, wanted_at = [], [], []
    leaf = np.flatnonzero((forest.leaf >= 0) & (parent >= 0))
    at = leaf
    while len(at):
        above = parent[at]
        leaf_at.append(leaf)
        node_at.append(above)
        wanted_at.append(forest.yes[above] == at)
        deeper = parent[above] >= 0
        leaf, at = leaf[deeper], above[deeper]
    if not leaf_at:
        return
    leaf, node, wanted = np.concatenate(leaf_at), np.concatenate(node_at), np.concatenate(wanted_at)
    feature = forest.feature[node]
    order = np.lexsort((feature, leaf))
    leaf, node, wanted, feature = leaf[order], node[order], wanted[order], feature[order]
    new = np.concatenate(([True], (leaf[1:] != leaf[:-1]) | (feature[1:] != feature[:-1])))
    element = np.cumsum(new) - 1
    element_leaf, element_feature = leaf[new], feature[new]
    width = np.bincount(element_leaf, minlength=forest.nodes)
    for count in np.unique(width[width > 0]).tolist():
        chosen = width[element_leaf] == count
        tests = chosen[element]
        leaves = element_leaf[chosen][::count]
        per_chunk = max(1, _cells_max // (count * (count + 1)))
        sizes = np.bincount(element, minlength=len(chosen))[chosen]
        starts = np.cumsum(sizes) - sizes
        features = element_feature[chosen].reshape(-1, count).astype(np.int64)
        picked_node, picked_wanted = node[tests].astype(np.int64), wanted[tests]
        for begin in range(0, len(leaves), per_chunk):
            end = min(begin + per_chunk, len(leaves))
            first = starts[begin * count]
            last = starts[end * count] if end < len(leaves) else len(picked_node)
            yield Paths(
                leaf_row=forest.leaf[leaves[begin:end]],
                feature=features[begin:end],
                node=picked_node[first:last],
                wanted=picked_wanted[first:last],
                starts=starts[begin * count : end * count] - first,
            )


def lone_leaves(forest: Forest) -> NDArray[np.float64]:
    """The values of trees that are one leaf."""
    lone = forest.leaf[forest.roots]
    total: NDArray[np.float64] = forest.leaf_values[lone[lone >= 0]].sum(axis=0)
    return total


def _node_count(paths: Paths) -> int:
    return -(-int(paths.feature.shape[1]) // 2)


def row_chunks(rows: int, cells_per_row: int) -> Iterator[slice]:
    step = max(1, _cells_max // cells_per_row)
    return (slice(start, start + step) for start in range(0, rows, step))


def satisfied(forest: Forest, paths: Paths, X: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each row answers every test of a leaf's feature as the leaf wants it, (rows, P, D)."""
    tested, place = np.unique(paths.node, return_inverse=True)
    answers = forest.passes(np.broadcast_to(tested, (len(X), len(tested))), X[:, forest.feature[tested]])
    fits = answers[:, place] == paths.wanted
    return np.logical_and.reduceat(fits, paths.starts, axis=1).reshape(len(X), *paths.feature.shape)


def shapley(o: NDArray[np.bool_], z: NDArray[np.generic]) -> NDArray[np.float64]:
    """The Shapley values of leaves of value 1, (rows, P, D), from o (rows, P, D) and z (1, P, D)."""
    inside, outside = o.astype(np.float64), z.astype(np.float64)
    points, weights = _nodes((o.shape[-1] + 1) // 2)
    result = np.zeros(o.shape)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        factor = outside * (1 - point) + inside * point
        result += weight * products_of_others(factor)
    return result * (inside - outside)


@cache
def _nodes(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of the Gauss-Legendre rule."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return points, weights


def products_of_others(factor: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each factor of (..., D), the product of all others.

    From prefixes and suffixes: dividing the full product would fail at a factor of 0.
    """
    others = np.ones(factor.shape)
    np.cumprod(factor[..., :-1], axis=-1, out=others[..., 1:])
    suffix = np.ones(factor.shape[:-1])
    for place in range(factor.shape[-1] - 1, -1, -1):
        others[..., place] *= suffix
        suffix *= factor[..., place]
    return others


def add_to_features(
    values: NDArray[np.float64], paths: Paths, forest: Forest, unit: NDArray[np.float64]
) -> None:
    """Add the Shapley values of all leaves, times their values, to the features' (rows, F, K)."""
    weight = forest.leaf_values[paths.leaf_row]
    flat, feature = unit.reshape(len(unit), -1), paths.feature.reshape(-1)
    owner = np.repeat(np.arange(len(paths.leaf_row)), paths.feature.shape[1])
    for column in np.unique(feature).tolist():
        here = np.flatnonzero(feature == column)
        values[:, column] += flat[:, here] @ weight[owner[here]]
