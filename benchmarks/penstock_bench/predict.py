"""`penstock bench predict`: trees predicted by Penstock's kernel, beside ONNX Runtime and XGBoost's own predictor, one thread."""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from penstock.engine.clock import Clock, SystemClock
from penstock.engine.console.terminal import Terminal
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.packaging.package import package
from penstock.engine.models.runtime.native_trees import NativeModel
from penstock.engine.models.runtime.timing import batch_of
from penstock.schemas.errors import ConfigError
from penstock_bench.explain import parse_numbers, parse_shape
from penstock_bench.explain.peers import predictor
from penstock_bench.explain.workload import Workload, workload

summary = (
    "Trees predicted by Penstock's kernel, beside ONNX Runtime's session and XGBoost's own predictor on the same model and rows, one "
    "thread: rows a second by batch size. The kernel is asked as a worker asks it, the other two as bare as they can be."
)
_bars: Final = {"1": 1.0, "256": 2.5, "1024": 3.0}
"""How many times ONNX Runtime's rate the kernel is meant to reach, by batch size."""
_runs_max: Final = 400
Predict = Callable[[NDArray[np.float32]], object]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this bench."""
    parser.add_argument(
        "--models", default="100x6,500x6", help="TREESxDEPTH, comma-separated (default: %(default)s)"
    )
    parser.add_argument(
        "--batches", default="1,16,256,1024", help="rows a call, 1 to 8192 (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="spent on each batch size (default: %(default)s)"
    )


def run(arguments: argparse.Namespace, terminal: Terminal, clock: Clock | None = None) -> dict[str, Any]:
    """Measure, show a table per model, and return all of it."""
    clock = clock or SystemClock()
    batches = parse_numbers(arguments.batches, "--batches", 8192)
    if not 0 < arguments.seconds <= 60:
        raise ConfigError("--seconds is more than 0 and at most 60")
    shapes = [parse_shape(name) for name in arguments.models.split(",")]
    models = []
    for trees, depth in shapes:
        terminal.say(f"training and packaging {trees}x{depth} ...")
        work = workload(trees, depth, rows=16_384, background=1)
        with _contestants(work) as contestants:
            rates = {
                str(batch): _rates(contestants, work.rows, batch, arguments.seconds, clock)
                for batch in batches
            }
        models.append({"model": work.name, "leaves": len(work.forest.leaf_values), "rows_per_s": rates})
        terminal.say(_table(models[-1]))
    return {"models": models}


@contextmanager
def _contestants(work: Workload) -> Iterator[dict[str, Predict]]:
    """By name; the kernel is what a bundle of the model gives, proved equal to ONNX Runtime when it was packaged."""
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        names = [f"f{i}" for i in range(work.forest.features)]
        path = Path(folder, "bundle")
        package(work.booster, path, feature_names=names, rows=work.rows[:500])
        native = NativeModel(Bundle.load(path))
    yield {
        "penstock": native.predict,
        "onnxruntime": predictor(work),
        "xgboost": work.booster.inplace_predict,
    }


def _rates(
    contestants: dict[str, Predict], rows: NDArray[np.float32], batch: int, seconds: float, clock: Clock
) -> dict[str, float]:
    """Rows a second, from the median time of a call. They take turns, so that a slow moment meets all of them."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    until_s = clock.monotonic_s() + seconds
    run = 0
    while run < 3 or (clock.monotonic_s() < until_s and run < _runs_max):
        some = np.ascontiguousarray(batch_of(rows, batch, run=run))
        for name, predict in contestants.items():
            began_s = clock.monotonic_s()
            predict(some)
            if run:  # the first one warms up
                times[name].append(clock.monotonic_s() - began_s)
        run += 1
    return {name: batch / median(each) for name, each in times.items()}


def _table(found: dict[str, Any]) -> Table:
    table = Table(title=f"{found['model']}: {found['leaves']:,} leaves, rows/s, one thread")
    names: Sequence[str] = ("penstock", "onnxruntime", "xgboost")
    for name in ("batch", *names, "over onnxruntime", "bar"):
        table.add_column(name, justify="right")
    for batch, rates in found["rows_per_s"].items():
        ratio = rates["penstock"] / rates["onnxruntime"]
        bar = _bars.get(batch)
        met = "" if bar is None else f"{bar:g}x {'met' if ratio >= bar else 'missed'}"
        table.add_row(f"{int(batch):,}", *(f"{rates[name]:,.0f}" for name in names), f"{ratio:.2f}x", met)
    return table
