"""Trees of a foreign library, one by one, joined into a canonical Forest."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.narrowing import cuts_of, levels_of, narrowed_thresholds
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.schemas.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Tree:
    """One tree of m nodes, node 0 its root. Tests as in Forest: x <= threshold, or x in a set, goes to `yes`."""

    feature: NDArray[np.int64]  # (m,), anything at a leaf
    threshold: (
        NDArray[np.float32] | NDArray[np.float64]
    )  # (m,), anything at a leaf and at a category test; float64 where the original compares doubles: see narrowed
    yes: NDArray[np.int64]  # (m,), -1 at a leaf
    no: NDArray[np.int64]  # (m,), -1 at a leaf
    missing_yes: NDArray[np.bool_]  # (m,), anything at a leaf
    cover: NDArray[np.float64] | None  # (m,)
    values: NDArray[
        np.float64
    ]  # (m, K) or, for a tree that speaks for one output, (m,); anything at an inner node
    output: int = 0
    """Which output a tree with one value a leaf speaks for."""
    sets: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)
    """Members, ascending, of the set that each category test asks about, by node."""


def join_trees(
    trees: Iterable[Tree],
    *,
    features: int,
    outputs: int,
    base_values: Sequence[float],
    post_transform: PostTransform,
    labels: tuple[str, ...],
    output_name: str,
) -> Forest:
    """One forest of all trees, in order. Raises ConfigError when the arrays make no forest.

    Covers are kept when every tree has them. A tree is let go of when it has been taken, so that a generator of deep trees
    never has all of them in memory.
    """
    columns: dict[str, list[NDArray[np.generic]]] = {name: [] for name in _column_types}
    members: list[NDArray[np.float32]] = []
    roots: list[int] = []
    nodes = leaves = 0
    for given in trees:
        tree = _by_level(_without_twin_tests(given))
        inner = tree.yes >= 0
        set_index = np.full(len(inner), -1, dtype=np.int32)
        for node in sorted(tree.sets):
            set_index[node] = len(members)
            members.append(tree.sets[node])
        values = np.zeros((int((~inner).sum()), outputs))
        if tree.values.ndim == 1:
            values[:, tree.output] = tree.values[~inner]
        else:
            values[:] = tree.values[~inner]
        made: dict[str, NDArray[np.generic]] = {
            "feature": np.where(inner, tree.feature, -1),
            "threshold": np.where(inner & (set_index < 0), tree.threshold, np.float32(0)),
            "set_index": set_index,
            "yes": np.where(inner, tree.yes + nodes, -1),
            "no": np.where(inner, tree.no + nodes, -1),
            "missing_yes": inner & tree.missing_yes,
            "leaf": np.where(inner, -1, leaves + np.cumsum(~inner) - 1),
            "leaf_values": values,
        }
        if tree.cover is not None:
            made["cover"] = tree.cover
        for name, column in made.items():
            columns[name].append(_narrow(name, column))
        roots.append(nodes)
        nodes, leaves = nodes + len(inner), leaves + len(values)
    if not roots:
        raise ConfigError("the model has no trees")
    covers = columns.pop("cover")
    cover = np.concatenate(covers) if len(covers) == len(roots) else None
    covers.clear()
    joined: dict[str, NDArray[Any]] = {}
    for name in tuple(columns):
        joined[name] = np.ascontiguousarray(np.concatenate(columns.pop(name)))
    return Forest(
        features=features,
        outputs=outputs,
        roots=np.array(roots, dtype=np.int32),
        cover=cover,
        base_values=np.asarray(base_values, dtype=np.float64),
        set_offsets=np.cumsum([0, *(len(each) for each in members)]).astype(np.int32),
        set_values=np.concatenate([np.empty(0, dtype=np.float32), *members]),
        post_transform=post_transform,
        labels=labels,
        output_name=output_name,
        mirror=0.0,
        **joined,
    )


_column_types: Mapping[str, type[np.generic]] = {
    "feature": np.int32,
    "threshold": np.float32,
    "set_index": np.int32,
    "yes": np.int32,
    "no": np.int32,
    "missing_yes": np.uint8,
    "leaf": np.int32,
    "leaf_values": np.float64,
    "cover": np.float64,
}


def _narrow(name: str, column: NDArray[np.generic]) -> NDArray[np.generic]:
    """The column in its type. A place that does not fit would be another one there, which may well exist."""
    wanted = np.dtype(_column_types[name])
    if wanted.kind == "i" and wanted.itemsize < column.dtype.itemsize and len(column):
        places, most = column.astype(np.int64, copy=False), np.iinfo(wanted).max
        if places.min() < -1 or places.max() > most:
            what = "child" if name in ("yes", "no") else name
            raise ConfigError(f"the tree ensemble has a {what} that is not there")
    return column.astype(wanted, copy=False)


def _by_level(tree: Tree) -> Tree:
    """The tree in canonical order: level by level, yes before no. As it is where its nodes are no tree: Forest says so."""
    n = len(tree.yes)
    levels, level, seen = [np.zeros(1, dtype=np.int64)], np.zeros(1, dtype=np.int64), 1
    while len(level):
        parents = level[tree.yes[level] >= 0]
        level = np.stack((tree.yes[parents], tree.no[parents]), axis=1).reshape(-1)
        seen += len(level)
        if seen > n or (len(level) and (level.min() < 0 or level.max() >= n)):
            return tree
        levels.append(level)
    order = np.concatenate(levels)
    if seen != n or np.array_equal(order, np.arange(n)):
        return tree
    number = np.full(n, -1, dtype=np.int64)
    number[order] = np.arange(n)
    inner = tree.yes[order] >= 0
    return replace(
        tree,
        feature=tree.feature[order],
        threshold=tree.threshold[order],
        yes=np.where(inner, number[tree.yes[order]], -1),
        no=np.where(inner, number[tree.no[order]], -1),
        missing_yes=tree.missing_yes[order],
        cover=None if tree.cover is None else tree.cover[order],
        values=tree.values[order],
        sets={int(number[node]): members for node, members in tree.sets.items()},
    )


def narrowed(
    trees: Sequence[Tree], features: int, *, numbers: Collection[int] = (), rounded: Collection[int] = ()
) -> tuple[list[Tree], tuple[tuple[float, ...], ...]]:
    """Trees that compare doubles, with float32 thresholds in place, and the cuts of their signature: see Signature.cuts.

    `numbers`: features whose sets hold numbers, not codes. A cut on either side of each keeps it apart from its neighbours.
    `rounded`: those of them that the original has in float32, where all doubles that are rounded to a number are that number.
    """
    members = _number_members(trees, numbers)
    owner = np.concatenate([np.repeat(number, len(tree.yes)) for number, tree in enumerate(trees)])
    numeric = [tree.yes >= 0 for tree in trees]
    for tree, asked in zip(trees, numeric, strict=True):
        asked[list(tree.sets)] = False
    feature = np.concatenate(
        [np.where(asked, tree.feature, -1) for tree, asked in zip(trees, numeric, strict=True)]
    )
    threshold = np.concatenate([np.asarray(tree.threshold, dtype=np.float64) for tree in trees])
    if np.isnan(threshold[feature >= 0]).any():
        raise ConfigError("the tree ensemble has a threshold that is NaN")
    narrow = np.zeros(len(threshold), dtype=np.float32)
    order = np.argsort(feature, kind="stable")
    bounds = np.searchsorted(feature[order], np.arange(features + 1))
    cuts: list[tuple[float, ...]] = []
    for start, end in pairwise(bounds.tolist()):
        asked_for = members.get(len(cuts), np.empty(0))
        sides = _sides(asked_for) if len(cuts) in rounded else (np.nextafter(asked_for, -np.inf), asked_for)
        of_column = cuts_of(np.concatenate((threshold[order[start:end]], *sides)))
        narrow[order[start:end]] = narrowed_thresholds(threshold[order[start:end]], of_column)
        cuts.append(tuple(of_column.tolist()))
    parts = np.split(narrow, np.flatnonzero(np.diff(owner)) + 1)
    levels = {
        column: (values, levels_of(np.array(cuts[column]))[np.searchsorted(cuts[column], values)])
        for column, values in members.items()
    }
    made = []
    for tree, part in zip(trees, parts, strict=True):
        sets = dict(tree.sets)
        for node, values in tree.sets.items():
            if int(tree.feature[node]) in levels:
                known, stand_ins = levels[int(tree.feature[node])]
                sets[node] = stand_ins[np.searchsorted(known, values.astype(np.float64))]
        made.append(replace(tree, threshold=part, sets=sets))
    return made, tuple(cuts)


def _sides(numbers: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of float32 numbers, the largest doubles that are rounded to the one before each, and to each."""
    values = numbers.astype(np.float32)
    with np.errstate(over="ignore"):
        return _rounded_to(np.nextafter(values, np.float32(-np.inf))), _rounded_to(values)


def _rounded_to(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The largest double that is rounded to each: half-way to the next, or just before where that goes to the next."""
    after = np.nextafter(values, np.float32(np.inf))
    between = (values.astype(np.float64) + after.astype(np.float64)) / 2
    return np.where(between.astype(np.float32) == values, between, np.nextafter(between, -np.inf))


def _number_members(trees: Sequence[Tree], numbers: Collection[int]) -> dict[int, NDArray[np.float64]]:
    """By feature of `numbers`, the numbers that any set holds, ascending."""
    found: dict[int, list[NDArray[np.float32]]] = {}
    for tree in trees:
        for node, values in tree.sets.items():
            if int(tree.feature[node]) in numbers:
                found.setdefault(int(tree.feature[node]), []).append(values)
    return {column: np.unique(np.concatenate(each)).astype(np.float64) for column, each in found.items()}


def _without_twin_tests(tree: Tree) -> Tree:
    """The tree with `x in A: leaf, else x in B: leaf of the same value` said once, as `x in A or B: leaf`.

    ONNX has category tests for one member only, so that both forms become the same chain there, and read back as one.
    Values and explanations stay what they were: of one feature, they depend on the sum of both leaves.
    """
    if not tree.sets:
        return tree
    values = tree.values.astype(np.float32)  # as ONNX holds them
    sets, no, missing_yes = dict(tree.sets), tree.no.copy(), tree.missing_yes.copy()
    cover = None if tree.cover is None else tree.cover.copy()
    alive = np.ones(len(no), dtype=np.bool_)

    def is_twin(node: int, after: int) -> bool:
        first, second = tree.yes[node], tree.yes[after]
        return bool(
            after in sets
            and tree.feature[node] == tree.feature[after]
            and tree.yes[first] < 0
            and tree.yes[second] < 0
            and (values[first] == values[second]).all()
        )

    for node in sorted(tree.sets):
        while alive[node] and is_twin(node, after := int(no[node])):
            sets[node] = np.union1d(sets[node], sets.pop(after))
            missing_yes[node] |= missing_yes[after]
            no[node] = no[after]
            if cover is not None:
                cover[tree.yes[node]] += cover[tree.yes[after]]
            alive[[after, tree.yes[after]]] = False
    if alive.all():
        return tree
    number = np.cumsum(alive) - 1
    return Tree(
        feature=tree.feature[alive],
        threshold=tree.threshold[alive],
        yes=np.where(tree.yes < 0, -1, number[tree.yes])[alive],
        no=np.where(no < 0, -1, number[no])[alive],
        missing_yes=missing_yes[alive],
        cover=None if cover is None else cover[alive],
        values=tree.values[alive],
        output=tree.output,
        sets={int(number[node]): members for node, members in sets.items()},
    )


def float32_at_most(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 not above each value: for float32 x, x <= value exactly when x <= this."""
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
    return np.where(nearest > values, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def bits_set(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """The numbers of the bits that are set in a row of 32-bit words, ascending."""
    bits = np.unpackbits(words.astype("<u4").view(np.uint8), bitorder="little")
    return np.flatnonzero(bits).astype(np.float32)
