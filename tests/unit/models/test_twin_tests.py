"""Category tests in a row that ONNX Runtime takes for one another: what is written still scores as the forest does."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.engine.trees.forest import ordered
from penstock.engine.trees.onnx.read import read_forest
from penstock.engine.trees.onnx.write import write_forest
from penstock.engine.trees.readers.assemble import Tree
from tests.bundles import one_value
from tests.forests import run_onnx

Branch = tuple[Any, ...]
"""(value,) is a leaf, (feature, test, yes, no, missing goes to yes) a test: of a set, or of a threshold."""

codes = [*range(-1, 36), np.nan]
rows = np.array([(a, b) for a in codes for b in codes], dtype=np.float32)


def _tree(branch: Branch) -> Tree:
    nodes: list[list[Any]] = []
    sets: dict[int, NDArray[np.float32]] = {}

    def add(branch: Branch) -> int:
        place = len(nodes)
        if len(branch) == 1:
            nodes.append([-1, 0.0, -1, -1, False, branch[0]])
            return place
        feature, test, yes, no, missing = branch
        nodes.append([feature, 0.0, 0, 0, missing, 0.0])
        if isinstance(test, tuple):
            sets[place] = np.array(sorted(set(test)), dtype=np.float32)
        else:
            nodes[place][1] = test
        nodes[place][2:4] = add(yes), add(no)
        return place

    add(branch)
    feature, threshold, yes, no, missing, values = map(list, zip(*nodes, strict=True))
    return Tree(
        feature=np.array(feature),
        threshold=np.array(threshold, dtype=np.float32),
        yes=np.array(yes),
        no=np.array(no),
        missing_yes=np.array(missing, dtype=np.bool_),
        cover=None,
        values=np.array(values, dtype=np.float64),
        sets=sets,
    )


def _check(*branches: Branch) -> None:
    forest = one_value([_tree(branch) for branch in branches], features=2)
    model = write_forest(forest)
    np.testing.assert_array_equal(run_onnx(model, rows)[0], forest.raw_scores(rows))
    back = read_forest(model.SerializeToString())
    for name in ("feature", "threshold", "yes", "no", "missing_yes", "set_offsets", "set_values"):
        np.testing.assert_array_equal(getattr(back, name), getattr(ordered(forest), name))


def _side(missing: bool) -> Branch:
    return (1, 0.5, (1.0,), (2.0,), missing)


@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("inner", [False, True])
def test_the_same_yes_side_twice_keeps_its_missing_values(outer: bool, inner: bool) -> None:
    after = (0, (2, 5), _side(inner), (3.0,), outer)
    _check((0, (1, 4), _side(False), after, False))


def test_yes_sides_that_only_look_alike_are_kept_apart() -> None:
    one = (1, (3,), (1.0,), (1, (4,), (1.0,), (2.0,), True), False)
    other = (1, (3, 4), (1.0,), (2.0,), False)
    _check((0, (1,), one, (0, (2,), other, (0, (6,), one, (3.0,), False), True), False))


def test_leaves_of_zero_are_not_read_past() -> None:
    """ONNX Runtime ended the process on such models, now and then."""
    zero = (0, (1,), (0.0,), (0, (2,), (0.0,), (0.0,), True), False)
    for _ in range(5):
        _check((0, (7,), (1.0,), (2.0,), False), zero, (0, (3,), zero, (0, (5,), zero, (0.0,), False), True))


@st.composite
def _branches(draw: st.DrawFn, depth: int = 3) -> Branch:
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        return (float(draw(st.integers(0, 2))),)
    sets = st.lists(st.integers(0, 34), min_size=0, max_size=3).map(tuple)
    flags = st.booleans()
    below = _branches(depth - 1)
    if draw(st.integers(0, 3)) == 0:
        return (
            draw(st.integers(0, 1)),
            float(draw(st.integers(0, 5))),
            draw(below),
            draw(below),
            draw(flags),
        )
    feature, yes = draw(st.integers(0, 1)), draw(below)
    twin = yes if len(yes) == 1 else (*yes[:4], draw(flags))
    after = (feature, draw(sets), twin, draw(below), draw(flags)) if draw(flags) else draw(below)
    return (feature, draw(sets), yes, after, draw(flags))


@settings(max_examples=60, deadline=None)
@given(st.lists(_branches(), min_size=1, max_size=3))
def test_any_trees_with_twins_score_as_they_should(branches: list[Branch]) -> None:
    _check(*branches)
