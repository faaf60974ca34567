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

from engine.explain import oracle
from engine.explain.covers import shares
from engine.explain.forest import Forest
from engine.explain.tree_shap import native_arrays
from engine.native._trees import Arrays, ForestKernel, ShapKernel, instruction_set
from tests.forests import random_forest, random_rows

nothing = np.empty((0, 6), dtype=np.float32)
shapes = st.tuples(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 3))
budgets = st.sampled_from([0, 20_000, 1 << 28])


def kernel_of(
    forest: Forest, *, budget: int = 1 << 28, background: NDArray[np.float32] | None = None
) -> ShapKernel:
    share = shares(forest) if background is None else np.empty(0)
    return ShapKernel(native_arrays(forest), share, nothing if background is None else background, budget, 2)


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
    close(ForestKernel(native_arrays(forest)).predict(rows), forest.raw_scores(rows), 1e-12)


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
    close(ForestKernel(native_arrays(forest)).predict(rows), forest.raw_scores(rows), 1e-12)


@pytest.mark.parametrize("budget", [0, 1 << 28])
def test_a_rows_bits_depend_on_neither_batch_nor_threads(budget: int) -> None:
    forest, rows = random_forest(11, trees=30, depth=7, outputs=2), random_rows(11, 300)
    kernel, predictor = kernel_of(forest, budget=budget), ForestKernel(native_arrays(forest))
    whole = kernel.shap_values(rows, False, 1)
    threaded = kernel.shap_values(rows, False, 3)
    scores = predictor.predict(rows)
    for a, b in zip(whole, threaded, strict=True):
        assert a.tobytes() == b.tobytes()
    for start, stop in ((0, 1), (1, 64), (64, 129), (129, 300)):
        part = kernel.shap_values(rows[start:stop], False, 1)
        assert part[0].tobytes() == whole[0][start:stop].tobytes()
        assert part[1].tobytes() == whole[1][start:stop].tobytes()
        assert predictor.predict(rows[start:stop]).tobytes() == scores[start:stop].tobytes()


_digest = """
import hashlib, numpy as np
from tests.unit.test_tree_kernel import kernel_of, ForestKernel, native_arrays, random_forest, random_rows, instruction_set
forest, rows = random_forest(11, trees=30, depth=7, outputs=2), random_rows(11, 300)
parts = [kernel_of(forest, budget=b).shap_values(rows, False, 1)[0].tobytes() for b in (0, 1 << 28)]
parts.append(ForestKernel(native_arrays(forest)).predict(rows).tobytes())
print(instruction_set(), hashlib.sha256(b"".join(parts)).hexdigest())
"""


def test_every_instruction_set_gives_the_same_bits() -> None:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    found = {}
    for most in ("avx512", "avx2", "plain"):
        environ = {**os.environ, "PENSTOCK_ISA_MAX": most, "PYTHONPATH": root}
        said = subprocess.run(
            [sys.executable, "-c", _digest], env=environ, capture_output=True, text=True, check=True
        )
        name, digest = said.stdout.split()
        found[name] = digest
    assert "plain" in found
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
    }


@pytest.mark.parametrize("fault", sorted(broken()))
def test_arrays_that_are_no_forest_are_refused(fault: str) -> None:
    with pytest.raises(ValueError, match=r"forest|leaves"):
        ForestKernel(arrays(**broken()[fault]))


@given(st.integers(0, 10_000))
def test_garbage_is_refused_or_computed_but_never_crashes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    forest = forest_of(1, 4, 1)
    name = str(rng.choice(["roots", "feature", "set_index", "yes", "no", "leaf", "set_offsets"]))
    array = getattr(forest, name).copy()
    array[rng.integers(len(array), size=2)] = rng.integers(-3, 40, size=2)
    try:
        kernel = ShapKernel(arrays(**{name: array}), np.full(len(forest.leaf), 0.5), nothing, 1 << 20, 1)
    except ValueError:
        return
    kernel.shap_values(random_rows(seed, 5), False, 1)


def test_rows_of_another_width_are_refused() -> None:
    kernel = kernel_of(forest_of(1, 4, 1))
    with pytest.raises(ValueError, match="features"):
        kernel.shap_values(np.zeros((2, 5), np.float32), False, 1)


def test_the_budget_for_tables_holds() -> None:
    forest = random_forest(5, trees=20, depth=7, outputs=1)
    for budget in (0, 50_000, 1 << 20, 1 << 28):
        assert kernel_of(forest, budget=budget).table_bytes <= budget
    assert instruction_set() in ("avx512", "avx2", "plain")
