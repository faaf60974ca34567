"""The canonical form: what it accepts, where it sends a row, and that order does not matter."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.trees.forest import Forest, PostTransform, joined, ordered
from penstock.schemas.errors import ConfigError
from tests.forests import random_forest, random_rows


def _stump(**changes: Any) -> Forest:
    """x0 <= 1: 10, else 20; NaN goes to yes."""
    parts: dict[str, Any] = {
        "features": 2,
        "outputs": 1,
        "roots": np.array([0], dtype=np.int32),
        "feature": np.array([0, -1, -1], dtype=np.int32),
        "threshold": np.array([1, 0, 0], dtype=np.float32),
        "set_index": np.full(3, -1, dtype=np.int32),
        "yes": np.array([1, -1, -1], dtype=np.int32),
        "no": np.array([2, -1, -1], dtype=np.int32),
        "missing_yes": np.array([1, 0, 0], dtype=np.uint8),
        "cover": None,
        "leaf": np.array([-1, 0, 1], dtype=np.int32),
        "leaf_values": np.array([[10.0], [20.0]]),
        "base_values": np.array([0.5]),
        "set_offsets": np.zeros(1, dtype=np.int32),
        "set_values": np.empty(0, dtype=np.float32),
        "post_transform": PostTransform.NONE,
        "labels": (),
        "output_name": "y",
    }
    return Forest(**parts | changes)


def test_a_row_takes_the_way_that_the_test_says() -> None:
    X = np.array(
        [[1, 0], [np.nextafter(np.float32(1), np.float32(2)), 0], [np.nan, 0], [-np.inf, 0]], dtype=np.float32
    )

    assert _stump().raw_scores(X).ravel().tolist() == [10.5, 20.5, 10.5, 10.5]


def test_a_category_goes_to_yes_only_when_it_is_a_member() -> None:
    forest = _stump(
        set_index=np.array([0, -1, -1], dtype=np.int32),
        set_offsets=np.array([0, 2], dtype=np.int32),
        set_values=np.array([2, 5], dtype=np.float32),
        missing_yes=np.zeros(3, dtype=np.uint8),
    )
    X = np.array([[v, 0] for v in (2, 5, 3, 6, 1, 2.5, np.nan, np.inf)], dtype=np.float32)

    assert forest.raw_scores(X).ravel().tolist() == [10.5, 10.5, *[20.5] * 6]


def test_an_empty_category_set_takes_nobody() -> None:
    forest = _stump(set_index=np.array([0, -1, -1], dtype=np.int32), set_offsets=np.zeros(2, dtype=np.int32))

    assert forest.raw_scores(np.array([[0, 0], [np.nan, 0]], dtype=np.float32)).ravel().tolist() == [
        20.5,
        10.5,
    ]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"feature": np.array([2, -1, -1], dtype=np.int32)}, "outside the row"),
        ({"feature": np.array([0, -1, -1], dtype=np.int64)}, "must be int32"),
        ({"threshold": np.array([np.nan, 0, 0], dtype=np.float32)}, "NaN"),
        ({"yes": np.array([2, -1, -1], dtype=np.int32)}, "several parents"),
        ({"yes": np.array([0, -1, -1], dtype=np.int32)}, "several parents"),
        ({"no": np.array([3, -1, -1], dtype=np.int32)}, "not there"),
        ({"no": np.array([-2, -1, -1], dtype=np.int32)}, "not there"),
        ({"roots": np.array([3], dtype=np.int32)}, "not there"),
        ({"roots": np.array([0, 0], dtype=np.int32)}, "several parents"),
        ({"leaf": np.array([-1, 0, 2], dtype=np.int32)}, "not there"),
        ({"leaf_values": np.array([[10.0], [np.inf]])}, "not finite"),
        ({"base_values": np.array([0.5, 1])}, "must be float64 of shape"),
        ({"cover": np.array([2.0, 1.0])}, "must be float64 of shape"),
        ({"cover": np.array([2.0, 3.0, -1.0])}, "negative"),
        ({"set_index": np.array([0, -1, -1], dtype=np.int32)}, "category set"),
        ({"set_offsets": np.array([0, 1], dtype=np.int32)}, "out of order"),
        ({"features": 0}, "cannot be explained"),
        (
            {"leaf_values": np.asfortranarray(np.zeros((2, 2))), "outputs": 2, "base_values": np.zeros(2)},
            "C order",
        ),
    ],
)
def test_broken_arrays_are_refused_in_one_sentence(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        _stump(**changes)


def test_a_cycle_away_from_the_roots_is_refused() -> None:
    with pytest.raises(ConfigError, match="cycle"):
        _stump(
            feature=np.array([0, -1, -1, 0, 0, -1, -1], dtype=np.int32),
            threshold=np.zeros(7, dtype=np.float32),
            set_index=np.full(7, -1, dtype=np.int32),
            yes=np.array([1, -1, -1, 4, 3, -1, -1], dtype=np.int32),
            no=np.array([2, -1, -1, 5, 6, -1, -1], dtype=np.int32),
            missing_yes=np.zeros(7, dtype=np.uint8),
            leaf=np.array([-1, 0, 1, -1, -1, 0, 1], dtype=np.int32),
        )


def test_a_path_longer_than_any_trained_one_is_refused() -> None:
    depth = 2000
    inner, nodes = np.arange(depth), 2 * depth + 1
    yes, no = np.full(nodes, -1, dtype=np.int32), np.full(nodes, -1, dtype=np.int32)
    yes[inner], no[inner] = depth + inner, inner + 1
    no[depth - 1] = nodes - 1
    leaf = np.where(np.arange(nodes) < depth, -1, 0).astype(np.int32)
    with pytest.raises(ConfigError, match="path of more than"):
        _stump(
            feature=np.where(leaf < 0, 0, -1).astype(np.int32),
            threshold=np.zeros(nodes, dtype=np.float32),
            set_index=np.full(nodes, -1, dtype=np.int32),
            yes=yes,
            no=no,
            missing_yes=np.zeros(nodes, dtype=np.uint8),
            leaf=leaf,
        )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_canonical_order_changes_nothing_but_the_order(seed: int) -> None:
    forest = random_forest(seed, outputs=2)
    canonical, X = ordered(forest), random_rows(seed, 60)

    assert np.array_equal(canonical.raw_scores(X), forest.raw_scores(X))
    again = ordered(canonical)
    for name in (
        "roots",
        "feature",
        "threshold",
        "set_index",
        "yes",
        "no",
        "missing_yes",
        "cover",
        "leaf",
        "set_values",
    ):
        assert np.array_equal(getattr(again, name), getattr(canonical, name)), name
    for tree, root in enumerate(canonical.roots.tolist()):
        end = canonical.roots[tree + 1] if tree + 1 < canonical.trees else canonical.nodes
        assert (canonical.tree_of_node()[root:end] == tree).all()


def test_joined_forests_add_their_scores_and_keep_their_covers() -> None:
    parts = [random_forest(seed, outputs=2) for seed in (1, 2, 3)]
    X = random_rows(4, 100)
    both = joined(parts)

    assert np.allclose(both.raw_scores(X), sum(part.raw_scores(X) for part in parts), atol=1e-12)
    assert both.cover is not None
    assert both.cover[both.roots].tolist() == [100.0] * 9


def test_the_scale_is_named_for_what_the_scores_are() -> None:
    forest = random_forest(1, labels=("a", "b"), post=PostTransform.LOGISTIC)
    assert forest.space == "log_odds"
    assert replace(forest, post_transform=PostTransform.NONE).space == "value"
    share = _stump(labels=("a", "b"), mirror=1.0, leaf_values=np.array([[0.2], [0.4]]))
    assert share.space == "probability"
    assert _stump(leaf_values=np.array([[0.2], [0.4]])).space == "value", (
        "a regressor predicts no probability"
    )
