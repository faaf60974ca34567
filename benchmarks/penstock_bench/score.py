"""`penstock bench score`: a file scored by `penstock score`'s own code, beside the bare kernels on the same rows, one thread."""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from penstock.engine.batch.files import find_files
from penstock.engine.batch.part import Options, no_progress, part_files, score_part
from penstock.engine.batch.plan import make_parts
from penstock.engine.clock import Clock, SystemClock
from penstock.engine.console.terminal import Terminal
from penstock.engine.explain.tree.tree_shap import TreeShap
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.native_trees import NativeModel
from penstock.engine.pipeline.collector import calm_collector
from penstock.engine.python.model import load
from penstock.schemas.errors import ConfigError
from penstock_bench.explain import parse_shape

summary = (
    "Files scored as `penstock score` does it, Parquet in and out, beside the bare kernels on the same rows in memory: rows a "
    "second, one thread, and the memory that a longer file takes."
)
features: Final = 30
_bars: Final = {"predict": 0.6, "explain": 0.4}
"""Of the kernel's own rate, what is meant to be left."""
_kernel_rows: Final = 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this bench."""
    parser.add_argument("--model", default="100x6", help="TREESxDEPTH (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the file (default: %(default)s)")
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="times that each is measured, in turn; the best counts (default: %(default)s)",
    )


def run(arguments: argparse.Namespace, terminal: Terminal, clock: Clock | None = None) -> dict[str, Any]:
    """Measure, show a table, and return all of it."""
    clock = clock or SystemClock()
    trees, depth = parse_shape(arguments.model)
    if arguments.rows < 1 or arguments.rounds < 1:
        raise ConfigError("--rows and --rounds are at least 1")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as made:
        folder = Path(made)
        terminal.say(f"training and packaging {trees}x{depth}, writing {arguments.rows:,} rows ...")
        _make_bundle(folder / "bundle", trees, depth)
        _write_rows(folder / "rows.parquet", arguments.rows)
        found = _measured(folder, arguments, terminal, clock)
    terminal.say(_table(found))
    return {"model": arguments.model, "rows": arguments.rows, "rates": found, "memory_mb": _memory_mb()}


def _make_bundle(path: Path, trees: int, depth: int) -> None:
    import xgboost

    rng = np.random.default_rng(depth)
    x = _rows(rng, 20_000)
    known = np.nan_to_num(x)
    score = (
        known[:, 0] * known[:, 1] + np.sin(3 * known[:, 2:10]).sum(axis=1) + np.abs(known[:, 10:]).sum(axis=1)
    )
    target = (score + rng.normal(size=len(x)) > np.median(score)).astype(int)
    settings = {
        "max_depth": depth,
        "eta": 0.05,
        "tree_method": "hist",
        "objective": "binary:logistic",
        "nthread": 1,
    }
    booster = xgboost.train(settings, xgboost.DMatrix(x, target), num_boost_round=trees)
    package(booster, path, feature_names=[f"f{place}" for place in range(features)], rows=x[:500])


def _rows(rng: np.random.Generator, count: int) -> NDArray[np.float32]:
    x = rng.normal(size=(count, features)).astype(np.float32)
    x[rng.random(x.shape) < 0.08] = np.nan
    return x


def _write_rows(path: Path, count: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(1)
    names = [f"f{place}" for place in range(features)]
    with pq.ParquetWriter(path, pa.schema([(name, pa.float32()) for name in names])) as writer:
        for start in range(0, count, 1 << 17):
            x = _rows(rng, min(1 << 17, count - start))
            writer.write_table(pa.table({name: x[:, place] for place, name in enumerate(names)}))


def _measured(
    folder: Path, arguments: argparse.Namespace, terminal: Terminal, clock: Clock
) -> dict[str, dict[str, float]]:
    rows = _rows(np.random.default_rng(2), 1 << 16)
    with load(folder / "bundle", device="cpu", runtime="native") as model, calm_collector():
        native, shap = NativeModel(model.bundle), TreeShap.from_bundle(model.bundle)
        kernels: dict[str, Callable[[Any], Any]] = {"predict": native.predict, "explain": shap.contributions}
        files = find_files(str(folder / "rows.parquet"))
        parts = make_parts(files, "parquet", model.bundle.signature, keep=(), delimiter=",")
        best: dict[str, dict[str, float]] = {kind: {"kernel": 0.0, "score": 0.0} for kind in kernels}
        for _ in terminal.track(range(arguments.rounds), label="measuring", total=arguments.rounds):
            for kind, kernel in kernels.items():
                began_s = clock.monotonic_s()
                for start in range(0, len(rows), _kernel_rows):
                    kernel(np.ascontiguousarray(rows[start : start + _kernel_rows]))
                took_s = clock.monotonic_s() - began_s
                best[kind]["kernel"] = max(best[kind]["kernel"], len(rows) / took_s)
                options = Options(input_format="parquet", output_format="parquet", explain=kind == "explain")
                began_s = clock.monotonic_s()
                for number, part in enumerate(parts):
                    score_part(
                        part, part_files(folder, number, "parquet"), model, options, clock, no_progress
                    )
                took_s = clock.monotonic_s() - began_s
                best[kind]["score"] = max(best[kind]["score"], arguments.rows / took_s)
    return best


def _table(found: dict[str, dict[str, float]]) -> Table:
    table = Table("", "kernel alone, rows/s", "file to file, rows/s", "share", "bar", box=None)
    for kind, rates in found.items():
        share = rates["score"] / rates["kernel"]
        met = "met" if share >= _bars[kind] else "missed"
        table.add_row(
            kind,
            f"{rates['kernel']:,.0f}",
            f"{rates['score']:,.0f}",
            f"{share:.0%}",
            f"{_bars[kind]:.0%} {met}",
        )
    return table


def _memory_mb() -> float:
    """The most that this process has had resident."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0
