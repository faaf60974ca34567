"""Chains of `x == a, else x == b, else ...` back to the one test `x in {a, b, ...}` that a converter made them from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Sets = dict[int, NDArray[np.float32]]
"""Node to its ascending members."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tests:
    """Canonical tests over n nodes, some of which may still have several parents; -1 in `feature` marks a leaf.

    `order` lists every node after all of its parents.
    """

    order: NDArray[np.int64]
    roots: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    yes: NDArray[np.int64]
    no: NDArray[np.int64]
    missing_yes: NDArray[np.bool_]
    sets: Sets
    leaf_keys: Sequence[object]  # leaves with equal keys say the same


def without_idle_tests(tests: Tests) -> Tests:
    """The same tests without those that send every row to one and the same node; they are reached no more."""
    idle = (tests.feature >= 0) & (tests.yes == tests.no)
    if not idle.any():
        return tests
    end = np.arange(len(tests.feature))
    for node in tests.order[::-1][idle[tests.order[::-1]]].tolist():  # children first
        end[node] = end[tests.yes[node]]
    return replace(
        tests,
        roots=end[tests.roots],
        feature=np.where(idle, -1, tests.feature),
        yes=np.where(tests.feature >= 0, end[tests.yes], tests.yes),
        no=np.where(tests.feature >= 0, end[tests.no], tests.no),
        sets={node: members for node, members in tests.sets.items() if not idle[node]},
    )


def merge_chains(tests: Tests, *, copies: bool) -> Tests:
    """The same tests with every chain in one node; the nodes that a chain leaves behind are reached no more.

    A link may be absorbed when it tests the same feature, nothing else leads to it, and its `yes` is the chain's: the
    same node, as onnxmltools writes for XGBoost, or, with `copies`, a copy of it, as for LightGBM.
    """
    links = _links(tests, copies=copies)
    if not links:
        return tests
    no, missing_yes, sets = tests.no.copy(), tests.missing_yes.copy(), dict(tests.sets)
    absorbed = set(links.values())
    for head in links.keys() - absorbed:
        members, node = [sets[head]], head
        while node in links:
            node = links[node]
            members.append(sets.pop(node))
            missing_yes[head] |= missing_yes[node]
        no[head] = no[node]
        sets[head] = np.unique(np.concatenate(members))
    return replace(tests, no=no, missing_yes=missing_yes, sets=sets)


def _links(tests: Tests, *, copies: bool) -> dict[int, int]:
    """Each category node that can take in the node on its `no` side, with that node."""
    inner = np.flatnonzero(tests.feature >= 0)
    parents = np.bincount(np.concatenate((tests.yes[inner], tests.no[inner])), minlength=len(tests.feature))
    candidates = [
        (node, after)
        for node in tests.sets
        if (after := int(tests.no[node])) in tests.sets
        and tests.feature[node] == tests.feature[after]
        and parents[after] == 1
    ]
    shape: NDArray[np.int64] = np.arange(len(tests.feature))
    if copies and any(tests.yes[node] != tests.yes[after] for node, after in candidates):
        shape = _shapes(tests)
    return {node: after for node, after in candidates if shape[tests.yes[node]] == shape[tests.yes[after]]}


def _shapes(tests: Tests) -> NDArray[np.int64]:
    """A number for every node: equal where the subtrees below are copies of each other."""
    numbers: dict[object, int] = {}
    shape = np.empty(len(tests.feature), dtype=np.int64)
    for node in tests.order[::-1].tolist():
        key: object
        if tests.feature[node] < 0:
            key = tests.leaf_keys[node]
        else:
            members = tests.sets.get(node)
            test = tests.threshold[node].tobytes() if members is None else (members.tobytes(),)
            below = int(shape[tests.yes[node]]), int(shape[tests.no[node]])
            key = int(tests.feature[node]), test, bool(tests.missing_yes[node]), below
        shape[node] = numbers.setdefault(key, len(numbers))
    return shape
