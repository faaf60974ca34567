"""The fused kernel alone, on a machine with a GPU, NVRTC and numpy, and little else: no other package, nothing built.

    PYTHONPATH=. python3 benchmarks/gpu/fused_shap.py
    PYTHONPATH=. ncu --metrics gpu__time_duration.sum python3 benchmarks/gpu/fused_shap.py --batches 4096 --calls 3   # without copies

Times whole calls, with the copies to the GPU and back, on full trees of made-up tests, and compares with the float64 reference.
"""

import argparse
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.engine.explain.tree import reference as oracle
from penstock.engine.explain.tree.fused_shap import CudaLibraries, FusedShap
from penstock.engine.explain.tree.leaf_tables import LeafTables
from penstock.engine.gpu.device import Device
from penstock.engine.gpu.driver import Driver, Gpu
from penstock.engine.trees.forest import Forest, PostTransform

_checked_rows = 48


def main(words: Sequence[str] | None = None, libraries: CudaLibraries | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="100x6,500x6,100x8", help="TREESxDEPTH (default: %(default)s)")
    parser.add_argument(
        "--batches", default="1,16,256,1024,4096,16384", help="rows a call (default: %(default)s)"
    )
    parser.add_argument("--features", type=int, default=28)
    parser.add_argument("--calls", type=int, default=200, help="of each batch size (default: %(default)s)")
    arguments = parser.parse_args(words)
    libraries = libraries or CudaLibraries()
    print(Gpu(0, driver=Driver(libraries.driver)).model)
    for model in arguments.models.split(","):
        trees, depth = map(int, model.split("x"))
        began_s = time.monotonic()
        tables = LeafTables.of(full_trees(trees, depth, arguments.features))
        tabled_s = time.monotonic()
        shap = FusedShap(tables, device=Device(cuda=0), libraries=libraries)
        print(
            f"{model}: tables {tabled_s - began_s:.2f} s, on the GPU after {time.monotonic() - tabled_s:.2f} s more"
        )
        rng = np.random.default_rng(1)
        batches = [int(batch) for batch in arguments.batches.split(",")]
        rows = made_up_rows(rng, max(4 * max(batches), _checked_rows), arguments.features)
        print(f"  largest error over the largest value {error_of(shap, rows[:_checked_rows]):.1e}")
        for batch in batches:
            call_s = median_s(shap, rows, batch, arguments.calls)
            print(f"  batches of {batch:6}: {call_s * 1e6:9.1f} us a call, {batch / call_s:13,.0f} rows/s")
        shap.close()


def full_trees(trees: int, depth: int, features: int) -> Forest:
    """Perfect trees, level by level."""
    rng = np.random.default_rng(trees * 100 + depth)
    inner, nodes = 2**depth - 1, 2 ** (depth + 1) - 1
    place = np.arange(nodes)
    first = np.repeat(np.arange(trees) * nodes, nodes)
    within, is_leaf = np.tile(place, trees), np.tile(place >= inner, trees)
    cover = np.empty((trees, nodes))
    cover[:, 0] = 20_000
    for node in range(inner):
        share = rng.uniform(0.2, 0.8, trees)
        cover[:, 2 * node + 1], cover[:, 2 * node + 2] = cover[:, node] * share, cover[:, node] * (1 - share)
    leaves = trees * 2**depth
    return Forest(
        features=features,
        outputs=1,
        roots=(np.arange(trees) * nodes).astype(np.int32),
        feature=np.where(is_leaf, -1, rng.integers(0, features, len(within))).astype(np.int32),
        threshold=np.where(is_leaf, 0, rng.normal(size=len(within))).astype(np.float32),
        set_index=np.full(len(within), -1, dtype=np.int32),
        yes=np.where(is_leaf, -1, first + 2 * within + 1).astype(np.int32),
        no=np.where(is_leaf, -1, first + 2 * within + 2).astype(np.int32),
        missing_yes=np.where(is_leaf, 0, rng.integers(0, 2, len(within))).astype(np.uint8),
        cover=cover.reshape(-1),
        leaf=np.where(is_leaf, np.cumsum(is_leaf) - 1, -1).astype(np.int32),
        leaf_values=rng.normal(size=(leaves, 1)),
        base_values=np.zeros(1),
        set_offsets=np.zeros(1, dtype=np.int32),
        set_values=np.zeros(0, dtype=np.float32),
        post_transform=PostTransform.NONE,
        labels=(),
        output_name="scores",
    )


def made_up_rows(rng: np.random.Generator, count: int, features: int) -> NDArray[np.float32]:
    """Normal, 8 % missing."""
    rows = rng.normal(size=(count, features)).astype(np.float32)
    rows[rng.random(rows.shape) < 0.08] = np.nan
    return rows


def error_of(shap: FusedShap, rows: NDArray[np.float32]) -> float:
    """Of the values on these rows."""
    exact = oracle.path_dependent(shap.forest, rows)[0]
    return float(np.abs(shap.contributions(rows)[0] - exact).max() / np.abs(exact).max())


def median_s(shap: FusedShap, rows: NDArray[np.float32], batch: int, calls: int) -> float:
    """Of as many calls, each with other rows, after one that does not count."""
    took_s = []
    for call in range(calls + 1):
        start = call * batch % (len(rows) - batch + 1)
        began_s = time.monotonic()
        shap.contributions(rows[start : start + batch])
        took_s.append(time.monotonic() - began_s)
    return float(np.median(took_s[1:]))


if __name__ == "__main__":
    main()
