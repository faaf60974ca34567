"""A forest written as ONNX: ONNX Runtime scores as the forest does, and reading brings the same forest and covers back."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.engine.trees.forest import PostTransform, ordered
from penstock.engine.trees.onnx.read import read_forest
from penstock.engine.trees.onnx.write import write_forest
from penstock.schemas.errors import ConfigError
from tests.forests import class_scores, random_forest, random_rows, run_onnx

_kinds: list[dict[str, Any]] = [
    {"outputs": 1},
    {"outputs": 3},
    {"outputs": 1, "post": PostTransform.LOGISTIC},
    {"outputs": 3, "post": PostTransform.SOFTMAX},
    {"outputs": 2, "post": PostTransform.EXP},
    {"outputs": 1, "labels": ("no", "yes"), "post": PostTransform.LOGISTIC},
    {"outputs": 1, "labels": ("0", "1"), "post": PostTransform.LOGISTIC, "positive": True},
    {"outputs": 1, "labels": ("0", "1"), "positive": True},
    {"outputs": 1, "labels": ("0", "1"), "positive": True, "mirror": 1.0},
    {"outputs": 1, "labels": ("0", "1")},
    {"outputs": 3, "labels": ("0", "1", "7"), "post": PostTransform.SOFTMAX},
    {"outputs": 3, "labels": ("0", "1", "7"), "positive": True},
    {"outputs": 3, "labels": ("a", "b", "c"), "post": PostTransform.LOGISTIC},
    {"outputs": 2, "labels": ("a", "b"), "post": PostTransform.SOFTMAX},
    {"outputs": 2, "labels": ("3", "4"), "positive": True},
]


@pytest.mark.parametrize("kind", _kinds, ids=lambda kind: "-".join(str(value) for value in kind.values()))
@pytest.mark.parametrize("sets", [7, 60], ids=["chains", "members"])
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_model_scores_as_the_forest_and_reads_back(kind: dict[str, Any], sets: int, seed: int) -> None:
    forest, X = random_forest(seed, sets=sets, **kind), random_rows(seed, 150)
    # ONNX Runtime takes a number between two codes for the lower one in a MEMBER test.
    X[:, ::3] = np.where(np.isfinite(X[:, ::3]), np.floor(X[:, ::3]), X[:, ::3])
    model = write_forest(forest)
    back = read_forest(model.SerializeToString())
    answers = run_onnx(model, X)

    scores = class_scores(forest, X)
    assert np.abs(answers[-1] - scores).max() <= 3e-6 * max(1.0, np.abs(scores).max())
    assert np.abs(back.raw_scores(X) - forest.raw_scores(X)).max() <= 3e-6
    assert (back.labels, back.outputs, back.mirror, back.post_transform) == (
        forest.labels, forest.outputs, forest.mirror, forest.post_transform,
    )  # fmt: skip
    if forest.labels:
        ranked = np.sort(scores, axis=1)
        clear = ranked[:, -1] - ranked[:, -2] > 1e-5
        assert np.array_equal(
            answers[0][clear].astype(str), np.array(forest.labels)[scores.argmax(axis=1)][clear]
        )
    assert back.cover is not None
    canonical = ordered(forest)
    assert canonical.cover is not None
    assert np.array_equal(back.cover[: canonical.nodes], canonical.cover), "to the bit, leaves too"


@pytest.mark.parametrize("kind", _kinds, ids=lambda kind: "-".join(str(value) for value in kind.values()))
@pytest.mark.parametrize("sets", [7, 60], ids=["chains", "members"])
@pytest.mark.parametrize("pattern", [[[0, 0, 0]], [[0, 0, 0], [1, 1, 1]], np.eye(3).tolist()])
def test_weights_that_are_zero(kind: dict[str, Any], sets: int, pattern: list[list[float]]) -> None:
    """Leaves without a word for some output, or for any."""
    forest = random_forest(9, sets=sets, **kind)
    mask = np.resize(np.array(pattern), (len(forest.leaf_values), 3))[:, : forest.outputs]
    forest = replace(forest, leaf_values=forest.leaf_values * mask)
    X = np.floor(random_rows(10, 150, infinite=False))
    model = write_forest(forest)

    scores = class_scores(forest, X)
    assert np.abs(run_onnx(model, X)[-1] - scores).max() <= 3e-6 * max(1.0, np.abs(scores).max())
    assert np.abs(read_forest(model).raw_scores(X) - forest.raw_scores(X)).max() <= 3e-6


def test_many_members_a_test_make_it_the_newer_operator() -> None:
    few, many = random_forest(1, sets=7), random_forest(1, sets=60)
    assert write_forest(few).graph.node[0].op_type == "TreeEnsembleRegressor"
    assert write_forest(many).graph.node[0].op_type == "TreeEnsemble"
    # Leaves that speak for several outputs at once cannot be said there.
    assert write_forest(random_forest(1, sets=60, outputs=2)).graph.node[0].op_type == "TreeEnsembleRegressor"


def test_names_may_be_those_that_the_writer_would_think_of() -> None:
    forest = random_forest(1, sets=60, labels=("a", "b"), post=PostTransform.LOGISTIC)
    model = write_forest(replace(forest, output_name="raw"), input_name="one", label_name="place")

    assert run_onnx(model, random_rows(1, 5))[1].shape == (5, 2)


def test_the_same_forest_gives_the_same_bytes() -> None:
    assert write_forest(random_forest(3)).SerializeToString(deterministic=True) == write_forest(
        random_forest(3)
    ).SerializeToString(deterministic=True)


def test_a_forest_without_covers_reads_back_without() -> None:
    assert read_forest(write_forest(random_forest(3, covers=False))).cover is None


def test_covers_of_other_trees_are_refused() -> None:
    model, other = write_forest(random_forest(3)), write_forest(random_forest(4))
    model.metadata_props[0].value = other.metadata_props[0].value
    with pytest.raises(ConfigError, match=r"other trees|broken"):
        read_forest(model)


def test_covers_survive_where_hitrates_are_dropped() -> None:
    model = write_forest(random_forest(3))
    for attribute in list(model.graph.node[0].attribute):
        if attribute.name == "nodes_hitrates":
            model.graph.node[0].attribute.remove(attribute)
    assert read_forest(model).cover is not None


def test_the_input_is_named_and_as_wide_as_the_forest() -> None:
    model = write_forest(
        random_forest(3, features=9, labels=("a", "b")), input_name="rows", label_name="class"
    )
    X = random_rows(1, 5, 9)

    assert [item.name for item in model.graph.output] == ["class", "scores"]
    assert run_onnx(model, X)[1].shape == (5, 2)
    assert read_forest(model).features == 9


@pytest.mark.parametrize(
    "changes",
    [
        {"post_transform": PostTransform.PROBIT},
        {"labels": ("a", "b"), "mirror": 1.0},
        {"labels": ("a", "b"), "mirror": 0.5},
        {"labels": ("a", "b"), "post_transform": PostTransform.SOFTMAX},
    ],
)
def test_what_the_operators_cannot_say_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        write_forest(replace(random_forest(3), **changes))
