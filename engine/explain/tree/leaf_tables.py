"""The SHAP values of each group of leaves, for every pattern of answers, as tables that a GPU looks up and adds.

With b answers deciding a group, a row of a table of 2^b patterns says what the group adds to the explanation, whatever the
record: no arithmetic is left but to look it up and add.
"""

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from penstock.engine.explain.tree.leaf_groups import Group, cut
from penstock.engine.explain.tree.reference import path_dependent, shapley
from penstock.engine.trees.covers import shares
from penstock.engine.trees.forest import Forest
from penstock.schemas.errors import ConfigError

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
    nodes = np.array(group.nodes, dtype=np.int32)
    asked = forest.feature[nodes].astype(np.int64)
    features, column = np.unique(asked, return_inverse=True)
    leaf_values = forest.leaf_values[[leaf.row for leaf in group.leaves]]
    values = np.empty((1 << len(nodes), len(features) + 1, forest.outputs))
    if len(nodes):
        tests = _Tests.of(group, column)
        o = tests.satisfied(_patterns(len(nodes)))
        if share is not None:
            child = np.where(tests.wanted, forest.yes[nodes[tests.place]], forest.no[nodes[tests.place]])
            phi = _shapley_by_share(tests.of_all(share[child]), tests.on_path)
        else:
            assert background is not None
            answers = forest.passes(
                np.broadcast_to(nodes, (len(background), len(nodes))), background[:, asked]
            )
            phi = _mean_shapley(tests.satisfied(answers))
        found = phi[o @ (1 << np.arange(len(features))), np.arange(len(group.leaves))]
        values[:, :-1] = np.tensordot(found, leaf_values, ((1,), (0,)))
        values[:, -1] = o.all(axis=2) @ leaf_values
    else:
        values[:, -1] = leaf_values
    with np.errstate(over="ignore"):  # what float32 cannot hold is noticed where values are compared
        return GroupTable(group=group, features=features, values=values.astype(np.float32))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Tests:
    """The tests on the paths of a group's P leaves, sorted by leaf and feature; D features in all."""

    place: NDArray[np.int64]  # in the group's nodes
    wanted: NDArray[np.bool_]
    starts: NDArray[np.int64]  # of those of one leaf and feature
    on_path: NDArray[np.bool_]  # (P, D)

    @staticmethod
    def of(group: Group, column: NDArray[np.int64]) -> "_Tests":
        """`column`: of the D features, which each of the group's nodes asks."""
        leaf = np.repeat(np.arange(len(group.leaves)), [len(leaf.path) for leaf in group.leaves])
        place = np.array([place for leaf in group.leaves for place, _ in leaf.path])
        wanted = np.array([wanted for leaf in group.leaves for _, wanted in leaf.path])
        width = int(column.max()) + 1
        key = leaf * width + column[place]
        order = np.argsort(key, kind="stable")
        keys, starts = np.unique(key[order], return_index=True)
        on_path = np.zeros(len(group.leaves) * width, dtype=np.bool_)
        on_path[keys] = True
        return _Tests(
            place=place[order], wanted=wanted[order], starts=starts, on_path=on_path.reshape(-1, width)
        )

    def satisfied(self, answers: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether each row of answers (n, b) agrees with all tests of a leaf and a feature, (n, P, D); yes where it has none."""
        agrees = np.ones((len(answers), *self.on_path.shape), dtype=np.bool_)
        agrees[:, self.on_path] = np.logical_and.reduceat(
            answers[:, self.place] == self.wanted, self.starts, axis=1
        )
        return agrees

    def of_all(self, each: NDArray[np.float64]) -> NDArray[np.float64]:
        """The product of what each test has, by leaf and feature, (P, D); 1 where it has none."""
        product = np.ones(self.on_path.shape)
        product[self.on_path] = np.multiply.reduceat(each, self.starts)
        return product


def _shapley_by_share(z: NDArray[np.float64], on_path: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Shapley values of leaves of value 1 by what a row satisfies of their features, (2^D, P, D).

    z (P, D): what share of the training data the tests let pass. Features that are not `on_path` have no share in it.
    """
    return shapley(_patterns(z.shape[1])[:, None, :] | ~on_path, z[None])


def _mean_shapley(z: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Shapley values of leaves of value 1 by what a row satisfies of their features, the mean over what the rows of the
    background satisfy, z (m, P, D): (2^D, P, D)."""
    rows, leaves, features = z.shape
    size = 1 << features
    codes = z @ (1 << np.arange(features)) + size * np.arange(leaves)
    often = np.bincount(codes.reshape(-1), minlength=leaves * size).reshape(leaves, size) / rows
    found = often @ _all_binary(features).reshape(size, -1)
    return np.asarray(found.reshape(leaves, size, features).swapaxes(0, 1))


@cache
def _all_binary(features: int) -> NDArray[np.float64]:
    """Shapley values of a leaf for every z and every o, both 0 or 1 for each feature: (2^D, 2^D, D)."""
    every = _patterns(features)
    return np.stack([shapley(every[:, None, :], z[None, None])[:, 0] for z in every])


@cache
def _patterns(bits: int) -> NDArray[np.bool_]:
    """All answers to as many tests, (2^bits, bits): answer i is bit i of the row's number."""
    return np.asarray((np.arange(1 << bits)[:, None] >> np.arange(bits)) & 1 == 1)
