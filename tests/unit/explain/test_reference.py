"""The float64 reference against Shapley values by definition, and against the shap package."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.explain.tree import reference as oracle
from penstock.engine.trees.forest import Forest, ordered
from penstock.schemas.errors import ConfigError
from tests.forests import exact_shap, random_forest, random_rows


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), outputs=st.integers(1, 3))
def test_path_dependent_values_are_shapley_values_exactly(seed: int, outputs: int) -> None:
    forest, X = random_forest(seed, trees=2, features=5, outputs=outputs), random_rows(seed, 2, 5)
    values, base = oracle.path_dependent(forest, X)

    for row in range(len(X)):
        exact, empty = exact_shap(forest, X[row])
        assert np.abs(values[row] - exact).max() <= 1e-12
        assert np.abs(base - empty).max() <= 1e-12


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), outputs=st.integers(1, 2))
def test_interventional_values_are_shapley_values_exactly(seed: int, outputs: int) -> None:
    forest, X = random_forest(seed, trees=2, features=5, outputs=outputs), random_rows(seed, 2, 5)
    background = random_rows(seed + 1, 4, 5)
    values, base = oracle.interventional(forest, X, background)

    for row in range(len(X)):
        exact, empty = exact_shap(forest, X[row], background)
        assert np.abs(values[row] - exact).max() <= 1e-12
        assert np.abs(base - empty).max() <= 1e-12


def _emptied(forest: Forest, node: int) -> Forest:
    """The forest after training data that never passed `node`: its cover is its sibling's."""
    assert forest.cover is not None
    cover = forest.cover.copy()
    below = [node]
    while below:
        at = below.pop()
        cover[at] = 0
        if forest.leaf[at] < 0:
            below += [int(forest.yes[at]), int(forest.no[at])]
    return replace(forest, cover=cover)


def test_below_a_node_that_nothing_passed_both_children_count_a_half() -> None:
    whole = ordered(random_forest(5, trees=1, features=5))
    child = int(whole.yes[0]) if whole.leaf[whole.yes[0]] < 0 else int(whole.no[0])
    forest, X = _emptied(whole, child), random_rows(6, 6, 5)
    values, _ = oracle.path_dependent(forest, X)

    for row in range(len(X)):
        assert np.abs(values[row] - exact_shap(forest, X[row])[0]).max() <= 1e-12


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_values_and_base_add_up_to_the_score(seed: int) -> None:
    forest, X = random_forest(seed, trees=8, depth=8, features=12, outputs=2), random_rows(seed, 50, 12)
    background = random_rows(seed + 1, 5, 12)
    for values, base in (oracle.path_dependent(forest, X), oracle.interventional(forest, X, background)):
        assert np.abs(base + values.sum(axis=1) - forest.raw_scores(X)).max() <= 1e-11


@pytest.mark.parametrize("depth", [10, 33, 64])
def test_deep_chains_of_different_features_stay_exact(depth: int) -> None:
    """Where shap's and XGBoost's formulas lose digits: rows that fail every test of a long path of rare answers."""
    forest = one_hot_chain(depth)
    X = np.concatenate((np.ones((1, depth)), np.zeros((1, depth)), np.tri(depth)[::7])).astype(np.float32)
    values, base = oracle.path_dependent(forest, X)

    assert np.abs(base + values.sum(axis=1) - forest.raw_scores(X)).max() <= 1e-12


def one_hot_chain(depth: int) -> Forest:
    """x0 <= 0 and x1 <= 0 and ... : each test fails for 3 % of what reaches it."""
    nodes = 2 * depth + 1
    yes, no = np.full(nodes, -1, dtype=np.int32), np.full(nodes, -1, dtype=np.int32)
    inner = np.arange(depth)
    yes[inner], no[inner] = inner + 1, depth + 1 + inner
    leaf = np.full(nodes, -1, dtype=np.int32)
    leaf[depth:] = np.arange(depth + 1)
    cover = np.empty(nodes)
    cover[: depth + 1] = 0.97 ** np.arange(depth + 1)
    cover[depth + 1 :] = cover[:depth] * 0.03
    template = random_forest(0, trees=1, depth=0, features=depth)
    return replace(
        template,
        feature=np.where(leaf < 0, np.arange(nodes), -1).astype(np.int32),
        threshold=np.zeros(nodes, dtype=np.float32),
        set_index=np.full(nodes, -1, dtype=np.int32),
        yes=yes,
        no=no,
        missing_yes=np.zeros(nodes, dtype=np.uint8),
        leaf=leaf,
        leaf_values=np.random.default_rng(0).normal(size=(depth + 1, 1)),
        cover=cover,
    )


def test_a_deep_chain_agrees_with_exact_arithmetic() -> None:
    forest = one_hot_chain(9)
    X = np.array([np.ones(9), np.zeros(9), np.arange(9) % 2], dtype=np.float32)
    values, _ = oracle.path_dependent(forest, X)

    for row in range(len(X)):
        assert np.abs(values[row] - exact_shap(forest, X[row])[0]).max() <= 1e-14


def test_a_tree_that_is_one_leaf_only_moves_the_base() -> None:
    forest = random_forest(3, trees=2, depth=0)
    X = random_rows(1, 3)
    values, base = oracle.path_dependent(forest, X)

    assert not values.any()
    assert np.allclose(base, forest.raw_scores(X)[0])


def test_without_covers_nothing_is_assumed() -> None:
    with pytest.raises(ConfigError, match="covers"):
        oracle.path_dependent(random_forest(1, covers=False), random_rows(1, 2))


def test_large_inputs_are_worked_on_in_pieces() -> None:
    """Enough leaves and rows that every intermediate is cut several times: same values as row by row."""
    forest, X = random_forest(7, trees=30, depth=9, features=40, outputs=1), random_rows(8, 300, 40)
    values, _ = oracle.path_dependent(forest, X)

    alone = np.concatenate([oracle.path_dependent(forest, X[[row]])[0] for row in (0, 151, 299)])
    assert np.abs(values[[0, 151, 299]] - alone).max() <= 1e-13
