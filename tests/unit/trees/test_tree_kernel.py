"""The native tree kernels against the plain float64 oracle, on forests of every shape; and against hostile arrays."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.engine.explain.tree import reference as oracle
from penstock.engine.native._trees import Arrays, ForestKernel, ShapKernel, instruction_set
from penstock.engine.trees.covers import shares
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.engine.trees.native_arrays import native_forest
from tests.forests import random_forest, random_rows

nothing = np.empty((0, 6), dtype=np.float32)
shapes = st.tuples(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 3))
budgets = st.sampled_from([0, 20_000, 1 << 28])


def kernel_of(
    forest: Forest, *, budget: int = 1 << 28, background: NDArray[np.float32] | None = None
) -> ShapKernel:
    share = shares(forest) if background is None else np.empty(0)
    return ShapKernel(
        native_forest(forest).arrays, share, nothing if background is None else background, budget, 2
    )


def forest_of(seed: int, depth: int, outputs: int) -> Forest:
    return random_forest(seed, trees=4, depth=depth, outputs=outputs)


def close(found: NDArray[np.float64], expected: NDArray[np.float64], relative: float) -> None:
    scale = max(float(np.abs(expected).max(initial=0)), 1e-3)
    assert np.abs(found - expected).max(initial=0) <= relative * scale


@given(shapes, budgets)
def test_path_dependent_values_are_the_oracles(shape: tuple[int, int, int], budget: int) -> None:
    forest, rows = forest_of(*shape), random_rows(shape[0], 70)
    expected, base = oracle.path_dependent(forest, rows)
    kernel = kernel_of(forest, budget=budget)
    close(kernel.expected, base, 1e-12)
    values, scores = kernel.shap_values(rows, False, 1)
    close(values, expected, 2e-6)
    close(scores, forest.raw_scores(rows), 1e-12)
    exact, _ = kernel.shap_values(rows, True, 1)
    close(exact, expected, 1e-12)
    close(kernel.expected + exact.sum(axis=1), scores, 1e-12)


@given(shapes, budgets)
def test_interventional_values_are_the_oracles(shape: tuple[int, int, int], budget: int) -> None:
    forest, rows, background = forest_of(*shape), random_rows(shape[0], 20), random_rows(shape[0] + 1, 9)
    expected, base = oracle.interventional(forest, rows, background)
    kernel = kernel_of(forest, budget=budget, background=background)
    close(kernel.expected, base, 1e-12)
    close(kernel.shap_values(rows, False, 1)[0], expected, 2e-6)
    close(kernel.shap_values(rows, True, 1)[0], expected, 1e-12)


@given(shapes, st.integers(0, 200))
def test_raw_scores_walk_the_same_way_as_the_forest(shape: tuple[int, int, int], count: int) -> None:
    forest, rows = forest_of(*shape), random_rows(shape[0], count)
    close(ForestKernel(native_forest(forest).arrays).predict(rows), forest.raw_scores(rows), 1e-12)


def chain(depth: int, *, features: int, seed: int = 0) -> Forest:
    """One path of `depth` tests, a leaf beside each: what one-hot features make of a tree."""
    rng = np.random.default_rng(seed)
    inner, nodes = np.arange(depth), 2 * depth + 1
    yes, no, leaf = (np.full(nodes, -1, dtype=np.int32) for _ in range(3))
    yes[inner], no[inner] = inner + 1, depth + 1 + inner
    leaf[depth:] = np.arange(depth + 1)
    share = np.where(rng.random(depth) < 0.1, 0.0, rng.uniform(0.7, 1.0, depth))
    cover = np.empty(nodes)
    cover[: depth + 1] = np.cumprod([1e6, *share])
    cover[depth + 1 :] = cover[:depth] * (1 - share)
    return Forest(
        features=features,
        outputs=1,
        roots=np.zeros(1, dtype=np.int32),
        feature=np.where(np.arange(nodes) < depth, np.arange(nodes) % features, -1).astype(np.int32),
        threshold=rng.normal(size=nodes).astype(np.float32),
        set_index=np.full(nodes, -1, dtype=np.int32),
        yes=yes,
        no=no,
        missing_yes=rng.integers(0, 2, nodes).astype(np.uint8),
        leaf=leaf,
        cover=cover,
        leaf_values=rng.normal(size=(depth + 1, 1)),
        base_values=np.zeros(1),
        set_offsets=np.zeros(1, dtype=np.int32),
        set_values=np.empty(0, dtype=np.float32),
        post_transform=PostTransform.NONE,
        labels=(),
        output_name="score",
        mirror=0.0,
    )


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(("depth", "features"), [(16, 16), (24, 5), (40, 13), (64, 64)])
def test_deep_paths_keep_their_precision(depth: int, features: int, background: bool) -> None:
    forest = chain(depth, features=features, seed=depth)
    rows = random_rows(depth, 40, features)
    rows[:8] = -10  # outliers: they pass every test that so little of the data passes
    rows[8:16] = 10
    rows_below = random_rows(depth + 1, 7, features) if background else None
    if rows_below is None:
        expected, base = oracle.path_dependent(forest, rows)
        kernel = ShapKernel(
            native_forest(forest).arrays, shares(forest), np.empty((0, features), np.float32), 1 << 28, 1
        )
    else:
        expected, base = oracle.interventional(forest, rows, rows_below)
        kernel = ShapKernel(native_forest(forest).arrays, np.empty(0), rows_below, 1 << 28, 1)
    close(kernel.expected, base, 1e-12)
    close(kernel.shap_values(rows, False, 1)[0], expected, 2e-6)
    exact, scores = kernel.shap_values(rows, True, 1)
    close(exact, expected, 1e-12)
    close(kernel.expected + exact.sum(axis=1), scores, 1e-12)


@pytest.mark.parametrize("budget", [0, 1 << 28])
def test_float32_sums_over_thousands_of_leaves_do_not_drift(budget: int) -> None:
    forest, rows = random_forest(1, trees=1, depth=16), random_rows(1, 200)
    assert len(forest.leaf_values) > 4_000
    kernel = kernel_of(forest, budget=budget)
    exact, _ = kernel.shap_values(rows, True, 1)
    close(kernel.shap_values(rows, False, 1)[0], exact, 1e-6)


def test_rows_exactly_on_a_threshold_go_to_yes() -> None:
    forest = forest_of(3, 8, 1)
    tested = np.flatnonzero((forest.leaf < 0) & (forest.set_index < 0))
    rows = random_rows(5, 3 * len(tested))
    for place, node in enumerate(tested):
        threshold = forest.threshold[node]
        beside = (
            threshold,
            np.nextafter(threshold, np.float32(-np.inf)),
            np.nextafter(threshold, np.float32(np.inf)),
        )
        rows[3 * place : 3 * place + 3, forest.feature[node]] = beside
    close(ForestKernel(native_forest(forest).arrays).predict(rows), forest.raw_scores(rows), 1e-12)


@pytest.mark.parametrize("budget", [0, 1 << 28])
def test_a_rows_bits_depend_on_neither_batch_nor_threads(budget: int) -> None:
    forest, rows = random_forest(11, trees=30, depth=7, outputs=2), random_rows(11, 300)
    kernel, predictor = kernel_of(forest, budget=budget), ForestKernel(native_forest(forest).arrays)
    whole = kernel.shap_values(rows, False, 1)
    threaded = kernel.shap_values(rows, False, 3)
    scores = predictor.predict(rows)
    assert predictor.predict(rows, threads=3).tobytes() == scores.tobytes()
    for a, b in zip(whole, threaded, strict=True):
        assert a.tobytes() == b.tobytes()
    for start, stop in ((0, 1), (1, 64), (64, 129), (129, 300)):
        part = kernel.shap_values(rows[start:stop], False, 1)
        assert part[0].tobytes() == whole[0][start:stop].tobytes()
        assert part[1].tobytes() == whole[1][start:stop].tobytes()
        assert predictor.predict(rows[start:stop]).tobytes() == scores[start:stop].tobytes()


_digest = """
import hashlib, numpy as np
from tests.unit.trees.test_tree_kernel import kernel_of, ForestKernel, native_forest, random_forest, random_rows, instruction_set
forest, rows = random_forest(11, trees=30, depth=7, outputs=2), random_rows(11, 300)
parts = [ForestKernel(native_forest(forest).arrays).predict(rows)]
for background in (None, random_rows(12, 20)):
    for budget in (0, 1 << 28):
        kernel = kernel_of(forest, budget=budget, background=background)
        parts += [kernel.shap_values(rows[:count], exact, 1)[0] for exact in (False, True) for count in (1, 17, 40, 300)]
wide, many = random_forest(13, trees=3, depth=11, features=14), random_rows(14, 70, 14)
for background in (None, random_rows(15, 20, 14)):  # tables of up to 12 bits; quadrature of up to 6 points
    parts += [kernel_of(wide, background=background).shap_values(many, exact, 1)[0] for exact in (False, True)]
print(instruction_set(), hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""
_needs: dict[str, set[str]] = {
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "avx2": {"avx2"},
    "plain": set(),
}


def test_every_instruction_set_is_chosen_where_it_is_there_and_gives_the_same_bits() -> None:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    found = {}
    for most in _needs:
        environ = {**os.environ, "PENSTOCK_ISA_MAX": most, "PYTHONPATH": root}
        said = subprocess.run(
            [sys.executable, "-c", _digest], env=environ, capture_output=True, text=True, check=True
        )
        name, digest = said.stdout.split()
        found[name] = digest
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        flags = set(info.read().split())
    assert set(found) == {name for name, needed in _needs.items() if needed <= flags}
    assert len(set(found.values())) == 1, found


def arrays(**changes: Any) -> Arrays:
    forest = forest_of(1, 4, 1)
    given_arrays: dict[str, Any] = {
        name: getattr(forest, name)
        for name in (
            "features", "outputs", "roots", "feature", "threshold", "set_index", "yes", "no", "missing_yes", "leaf",
            "leaf_values", "base_values", "set_offsets", "set_values",
        )
    }  # fmt: skip
    return Arrays(**(given_arrays | changes))


def broken() -> dict[str, dict[str, Any]]:
    forest = forest_of(1, 4, 1)
    inner = int(np.flatnonzero(forest.leaf < 0)[0])

    def changed(array: NDArray[Any], place: int, value: float) -> NDArray[Any]:
        copy = array.copy()
        copy[place] = value
        return copy

    return {
        "a circle": {"yes": changed(forest.yes, inner, int(forest.roots[0]))},
        "a child out of range": {"no": changed(forest.no, inner, 10**6)},
        "a negative child": {"no": changed(forest.no, inner, -7)},
        "a shared child": {"no": changed(forest.no, inner, int(forest.yes[inner]))},
        "a root out of range": {"roots": changed(forest.roots, 0, 10**6)},
        "a feature out of range": {"feature": changed(forest.feature, inner, 99)},
        "a leaf without a value": {
            "leaf": changed(forest.leaf, int(np.flatnonzero(forest.leaf >= 0)[0]), 10**6)
        },
        "a NaN threshold": {
            "threshold": changed(forest.threshold, inner, np.nan),
            "set_index": changed(forest.set_index, inner, -1),
        },
        "a set out of range": {"set_index": changed(forest.set_index, inner, 10**6)},
        "arrays of different length": {"threshold": forest.threshold[:-1]},
        "no outputs": {"outputs": 0},
        "unsorted set offsets": {"set_offsets": forest.set_offsets[::-1].copy()},
        "no features": {"features": 0},
        "absurdly many features": {"features": 2**31 - 1},
        "a root twice": {"roots": np.repeat(forest.roots, 2)},
        "an infinite leaf": {"leaf_values": changed(forest.leaf_values, 0, np.inf)},
        "a NaN leaf": {"leaf_values": changed(forest.leaf_values, 0, np.nan)},
        "a NaN base value": {"base_values": np.full(1, np.nan)},
        "too few base values": {"base_values": np.empty(0)},
        "a missing_yes that is neither": {"missing_yes": changed(forest.missing_yes, inner, 2)},
        "a NaN in a set": {"set_values": changed(forest.set_values, 0, np.nan)},
        "set values beyond the offsets": {"set_values": np.append(forest.set_values, np.float32(1))},
        "no set offsets": {"set_offsets": np.empty(0, dtype=np.int32)},
        "a path that is too long": one_test_more(chain(1024, features=6)),
    }


def one_test_more(forest: Forest) -> dict[str, Any]:
    """A root above the one there is; the Python side would refuse to make such a forest."""
    new, last = len(forest.leaf), int(forest.leaf[-1])
    node = {
        "feature": 0,
        "threshold": 0,
        "set_index": -1,
        "yes": 0,
        "no": new + 1,
        "missing_yes": 0,
        "leaf": -1,
    }
    made: dict[str, Any] = {
        name: np.concatenate([(old := getattr(forest, name)), np.array([value, 0], old.dtype)])
        for name, value in node.items()
    }
    made["leaf"][-1] = last
    return made | {"roots": np.array([new], np.int32), "leaf_values": forest.leaf_values}


@pytest.mark.parametrize("fault", sorted(broken()))
def test_arrays_that_are_no_forest_are_refused(fault: str) -> None:
    with pytest.raises(ValueError, match=r"forest|leaves"):
        ForestKernel(arrays(**broken()[fault]))


numbers = st.sampled_from([-(2**31), -2, -1, 0, 1, 2, 3, 6, 7, 15, 30, 40, 1000, 2**20, 2**31 - 1])
floats = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, 3.0, 40.0, 65536.0, 3e38])
mutable = ("roots", "feature", "threshold", "set_index", "yes", "no", "missing_yes", "leaf", "leaf_values",
           "base_values", "set_offsets", "set_values")  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """Up to three arrays of a good forest with cells overwritten, swapped, dropped or doubled."""
    forest, found = forest_of(1, draw(st.integers(0, 6)), 1), {}
    for name in draw(st.lists(st.sampled_from(mutable), max_size=3, unique=True)):
        array = getattr(forest, name).copy()
        size = len(array)
        if size and draw(st.booleans()):
            for place in draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=3)):
                if draw(st.booleans()):
                    array[[place, 0]] = array[[0, place]]
                elif array.dtype.kind == "f":
                    array[place] = draw(floats)
                else:
                    array[place] = np.array(draw(numbers)).astype(array.dtype)
        elif draw(st.booleans()):
            array = array[: draw(st.integers(0, size))]
        else:
            array = np.concatenate([array, array])
        found[name] = array
    return {name: getattr(forest, name) for name in mutable} | found


@given(mutated(), st.integers(0, 99), budgets)
def test_mutated_arrays_are_refused_or_explained_rightly(
    given_arrays: dict[str, Any], seed: int, budget: int
) -> None:
    rows, background = random_rows(seed, 5), random_rows(seed + 1, 3)
    try:
        made = Arrays(features=6, outputs=1, **given_arrays)
        predictor = ForestKernel(made)
    except ValueError:
        with pytest.raises(ValueError, match=r"forest|leaves"):
            ShapKernel(Arrays(features=6, outputs=1, **given_arrays), np.empty(0), background, budget, 1)
        return
    kernel = ShapKernel(made, np.empty(0), background, budget, 1)
    values, scores = kernel.shap_values(rows, True, 1)
    assert predictor.predict(rows).tobytes() == scores.tobytes()
    parts = np.append(given_arrays["leaf_values"], given_arrays["base_values"])
    largest = float(np.abs(parts).max(initial=1))
    assert np.abs(kernel.expected + values.sum(axis=1) - scores).max() <= 1e-12 * largest


@pytest.mark.parametrize(
    "share",
    [
        np.full(3, 0.5),
        np.append(np.full(200, 0.5), np.nan),
        np.full(201, -1.0),
        np.full(201, np.inf),
        np.empty(0),
    ],
)
def test_shares_that_do_not_fit_are_refused(share: NDArray[np.float64]) -> None:
    forest = chain(100, features=6)
    assert len(forest.leaf) == 201
    with pytest.raises(ValueError, match="share"):
        ShapKernel(native_forest(forest).arrays, share, nothing, 1 << 20, 1)


@pytest.mark.parametrize("budget", [-1, 1 << 62])
def test_a_budget_beyond_sense_is_refused(budget: int) -> None:
    with pytest.raises(ValueError, match="table_bytes_max"):
        kernel_of(forest_of(1, 4, 1), budget=budget)


@pytest.mark.parametrize("threads", [-1, 0, 257, 2**31 - 1])
def test_a_number_of_threads_beyond_sense_is_refused(threads: int) -> None:
    forest, rows = forest_of(1, 4, 1), random_rows(1, 5)
    with pytest.raises(ValueError, match="threads"):
        kernel_of(forest).shap_values(rows, False, threads)
    with pytest.raises(ValueError, match="threads"):
        ForestKernel(native_forest(forest).arrays).predict(rows, threads)


def test_rows_of_another_width_are_refused() -> None:
    kernel = kernel_of(forest_of(1, 4, 1))
    with pytest.raises(ValueError, match="features"):
        kernel.shap_values(np.zeros((2, 5), np.float32), False, 1)


@pytest.mark.parametrize("background", [None, random_rows(3, 20)])
def test_the_budget_for_tables_holds(background: NDArray[np.float32] | None) -> None:
    forest = random_forest(5, trees=20, depth=7, outputs=1)
    tabled = []
    for budget in (0, 50_000, 1 << 20, 1 << 28):
        kernel = kernel_of(forest, budget=budget, background=background)
        assert kernel.table_bytes <= budget
        tabled.append(kernel.tabled_trees)
    assert tabled[0] == 0
    assert tabled == sorted(tabled)
    assert tabled[-1] == 20


def test_long_paths_over_few_features_cost_no_more_than_their_tables() -> None:
    """A path's tests of one feature are one bit, however many they are."""
    kernel = kernel_of(chain(1024, features=1), budget=1 << 17)
    assert kernel.tabled_trees == 1
    assert kernel.table_bytes <= 1024 * 128


def test_the_digest_tells_tables_apart() -> None:
    first, again, other = (kernel_of(forest_of(seed, 5, 1)) for seed in (1, 1, 2))
    assert first.digest == again.digest != other.digest


def test_the_instruction_set_has_a_name() -> None:
    assert instruction_set() in ("avx512", "avx2", "plain")
