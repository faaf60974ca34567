"""Trees cut into groups of leaves that a few answers decide: those of the nodes above a subtree and inside it."""

from dataclasses import dataclass

import numpy as np

from penstock.engine.trees.forest import Forest
from penstock.schemas.errors import ConfigError

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
            raise ConfigError(f"tables for a GPU take trees of at most {bits_max} tests on a path")
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
