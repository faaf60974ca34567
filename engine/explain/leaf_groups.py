"""Trees cut into groups of leaves that a few answers decide, and the SHAP values of a group for every pattern of answers.

A group is a subtree; its answers are those of the nodes above it and inside it. With b of them, a row of a table of 2^b
patterns says what the group adds to the explanation, whatever the record: no arithmetic is left but to look it up and add.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from engine.explain.covers import shares
from engine.explain.forest import Forest
from engine.explain.oracle import shapley
from schemas.errors import ConfigError

bits_max = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """A leaf of a group: the tests on its path, as places in the group's nodes, and the answers that lead to it."""

    row: int  # of leaf_values
    node: int
    path: tuple[tuple[int, bool], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Leaves that the answers of `nodes`, at most `bits_max`, decide; answer i is bit i of a pattern."""

    nodes: tuple[int, ...]
    leaves: tuple[Leaf, ...]


def cut(forest: Forest) -> list[Group]:
    """All trees in groups, the largest subtrees that fit. Raises ConfigError for a leaf deeper than `bits_max` tests."""
    inner = np.zeros(forest.nodes, dtype=np.int64)
    for level in reversed(list(forest.levels())):
        at = level[forest.leaf[level] < 0]
        inner[at] = 1 + inner[forest.yes[at]] + inner[forest.no[at]]
    groups: list[Group] = []
    waiting: list[tuple[int, tuple[tuple[int, bool], ...]]] = [(int(root), ()) for root in forest.roots]
    while waiting:
        node, above = waiting.pop()
        if len(above) + inner[node] <= bits_max:
            groups.append(_group(forest, node, above))
        elif forest.leaf[node] >= 0:
            raise ConfigError(f"a tensor graph takes trees of at most {bits_max} tests on a path")
        else:
            waiting.append((int(forest.yes[node]), (*above, (node, True))))
            waiting.append((int(forest.no[node]), (*above, (node, False))))
    return groups


def _group(forest: Forest, top: int, above: tuple[tuple[int, bool], ...]) -> Group:
    nodes = [node for node, _ in above]
    leaves: list[Leaf] = []
    waiting = [(top, tuple((place, yes) for place, (_, yes) in enumerate(above)))]
    while waiting:
        node, path = waiting.pop()
        if forest.leaf[node] >= 0:
            leaves.append(Leaf(row=int(forest.leaf[node]), node=node, path=path))
            continue
        place = len(nodes)
        nodes.append(node)
        waiting.append((int(forest.yes[node]), (*path, (place, True))))
        waiting.append((int(forest.no[node]), (*path, (place, False))))
    return Group(nodes=tuple(nodes), leaves=tuple(leaves))


def tables(
    forest: Forest, groups: Sequence[Group], background: NDArray[np.float32] | None
) -> Iterator[NDArray[np.float64]]:
    """Of each group what it adds, (2^b, F + 1, K): the features' values, and last its raw score.

    Relative to the covers, or to background rows where they are given. Raises ConfigError when there are neither.
    """
    share = shares(forest) if background is None else None
    for group in groups:
        bits = len(group.nodes)
        patterns = _patterns(bits)
        answers = None
        if background is not None:
            nodes = np.broadcast_to(np.array(group.nodes, dtype=np.int32), (len(background), bits))
            answers = forest.passes(nodes, background[:, forest.feature[list(group.nodes)]])
        table = np.zeros((len(patterns), forest.features + 1, forest.outputs))
        for leaf in group.leaves:
            value = forest.leaf_values[leaf.row]
            if not leaf.path:
                table[:, -1] += value
                continue
            features, owner = np.unique(
                [forest.feature[group.nodes[place]] for place, _ in leaf.path], return_inverse=True
            )
            o = _satisfied(patterns, leaf, owner, len(features))
            z = (
                _satisfied(answers, leaf, owner, len(features))
                if answers is not None
                else _path_shares(forest, share, group, leaf, owner, len(features))
            )
            table[:, features] += _mean_shapley(o, z)[:, :, None] * value
            table[:, -1] += np.all(o, axis=1, keepdims=True) * value
        yield table


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
