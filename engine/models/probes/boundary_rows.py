"""Rows that meet the tests of a tree ensemble head-on: on each threshold, and one float to either side."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.signature import Signature
from penstock.engine.models.probes.probe_rows import rows_that_pass
from penstock.engine.trees.forest import Forest

cells_max = 1 << 22
"""Tests times features: 16 MiB for each of a few arrays of float32. Of a larger ensemble, tests spread evenly are met."""
_sides = (-1, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ThresholdRows:
    """Rows (R, F) in float64, and how many of the tests were met from both sides."""

    rows: NDArray[np.float64]
    tests_hit: int


def threshold_rows(
    forest: Forest, signature: Signature, given: NDArray[np.float64], *, tests_max: int, seed: int = 0
) -> ThresholdRows:
    """Three rows for each test (of up to `tests_max`): on its threshold and with the floats next to it, or, where it asks
    for categories, with codes in its set and outside.

    Each is one of the given rows (at least one, with codes for categories), changed only in what the way from the root to
    the test asks for. Rows that the features' policies would keep from the model are left out.
    """
    inner = np.flatnonzero(forest.leaf < 0)
    wanted = min(tests_max, max(1, cells_max // forest.features), len(inner))
    nodes = inner[np.linspace(0, max(len(inner) - 1, 0), wanted).astype(np.int64)]
    random = np.random.default_rng(seed)
    rows = given[random.integers(0, len(given), len(nodes))].astype(np.float32)
    tables = np.array([len(feature.categories) for feature in signature.column_features])
    way = _Way(forest)
    _lead(way, nodes, rows, tables)
    tried = np.concatenate([_beside(forest, nodes, rows, side, tables) for side in _sides])
    reached = way.leads(np.tile(nodes, len(_sides)), tried).reshape(len(_sides), len(nodes))
    return ThresholdRows(
        rows=rows_that_pass(tried.astype(np.float64), signature), tests_hit=int(reached.all(axis=0).sum())
    )


class _Way:
    """From any node up to its root."""

    def __init__(self, forest: Forest) -> None:
        inner = np.flatnonzero(forest.leaf < 0)
        self.forest = forest
        self.above = np.full(forest.nodes, -1, dtype=np.int64)
        self.above[forest.yes[inner]] = inner
        self.above[forest.no[inner]] = inner
        self.is_yes = np.zeros(forest.nodes, dtype=np.bool_)
        self.is_yes[forest.yes[inner]] = True

    def leads(self, nodes: NDArray[np.int64], rows: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether row i comes by node i."""
        leads = np.ones(len(nodes), dtype=np.bool_)
        at, below = self.above[nodes], nodes
        while (on := np.flatnonzero(at >= 0)).size:
            x = rows[on, self.forest.feature[at[on]]]
            leads[on] &= self.forest.passes(at[on].astype(np.int32), x) == self.is_yes[below[on]]
            at, below = np.where(at >= 0, self.above[at], -1), at
        return leads


def _lead(way: _Way, nodes: NDArray[np.int64], rows: NDArray[np.float32], tables: NDArray[np.int64]) -> None:
    """Change row i, as little as need be, so that it comes by node i."""
    forest = way.forest
    low, high = np.full(rows.shape, -np.inf, dtype=np.float32), np.full(rows.shape, np.inf, dtype=np.float32)
    chosen = np.zeros(rows.shape, dtype=np.bool_)
    at, below = way.above[nodes], nodes
    while (on := np.flatnonzero(at >= 0)).size:
        node, yes = at[on], way.is_yes[below[on]]
        numeric = forest.set_index[node] < 0
        for bound, pick, side in ((high, np.minimum, yes), (low, np.maximum, ~yes)):
            row, where = on[numeric & side], node[numeric & side]
            column = forest.feature[where]
            bound[row, column] = pick(bound[row, column], forest.threshold[where])
        for row, where, inside in zip(
            on[~numeric].tolist(), node[~numeric].tolist(), yes[~numeric].tolist(), strict=True
        ):
            asked = int(forest.feature[where])
            members = _members(forest, where)
            code = rows[row, asked]
            goes_yes = forest.missing_yes[where] != 0 if np.isnan(code) else code in members
            if not chosen[row, asked] and goes_yes != inside:
                rows[row, asked] = _code(members, int(tables[asked]), inside=inside)
            chosen[row, asked] |= inside  # the test nearest to the node asks for the smallest set
        at, below = np.where(at >= 0, way.above[at], -1), at
    bounded = np.isfinite(low) | np.isfinite(high)
    off = bounded & ~((rows > low) & (rows <= high))
    inside = np.where(np.isfinite(high), high, np.nextafter(low, np.float32(np.inf)))
    whole = np.where(np.isfinite(high), np.floor(high), np.floor(low) + 1)
    rows[off] = np.where(tables > 0, whole, inside)[off]


def _beside(
    forest: Forest, nodes: NDArray[np.int64], rows: NDArray[np.float32], side: int, tables: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The rows with the value that lies below, on or above each node's threshold."""
    made = rows.copy()
    column, threshold = forest.feature[nodes], forest.threshold[nodes]
    beside = np.nextafter(threshold, np.float32(side * np.inf)) if side else threshold
    code = np.clip(np.floor(threshold) + (side > 0), 0, np.maximum(tables[column] - 1, 0))
    made[np.arange(len(nodes)), column] = np.where(tables[column] > 0, code, beside)
    for row in np.flatnonzero(forest.set_index[nodes] >= 0).tolist():
        members = _members(forest, int(nodes[row]))
        made[row, column[row]] = _code(members, int(tables[column[row]]), inside=side <= 0)
    return made


def _members(forest: Forest, node: int) -> NDArray[np.float32]:
    first, end = forest.set_offsets[forest.set_index[node] : forest.set_index[node] + 2]
    return forest.set_values[first:end]


def _code(members: NDArray[np.float32], table: int, *, inside: bool) -> float:
    """A member of the set, or the first code outside it; NaN where there is no such code."""
    if inside:
        return float(members[0]) if len(members) else float("nan")
    outside = np.setdiff1d(np.arange(max(table, len(members) + 1), dtype=np.float32), members)
    return float(outside[0]) if len(outside) else float("nan")
