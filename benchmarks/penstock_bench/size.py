"""`penstock bench size`: a deep forest, packaged and served in processes of their own, with the memory and the time that each takes."""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.table import Table

from penstock.engine.clock import Clock, SystemClock
from penstock.engine.console.terminal import Terminal
from penstock.engine.models.bundle.bundle import Bundle
from penstock.engine.models.bundle.memory import worker_bytes
from penstock.schemas.errors import ConfigError
from penstock_bench import module_command

summary = (
    "A deep forest of scikit-learn, packaged, then loaded, run and explained as a worker does it, each in a process of its own: "
    "seconds, and the most memory that each had, the trained forest and its rows included."
)
features: Final = 10
explained_rows: Final = 64
process_s_max: Final = 1800.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this bench."""
    parser.add_argument("--trees", type=int, default=100, help="(default: %(default)s)")
    parser.add_argument(
        "--leaves",
        type=int,
        default=60_000,
        help="of each tree; it has twice as many nodes (default: %(default)s)",
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> dict[str, Any]:
    """Measure, show a table, and return all of it."""
    if arguments.trees < 1 or arguments.leaves < 2:
        raise ConfigError("--trees is at least 1, --leaves at least 2")
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as made:
        folder = Path(made)
        terminal.say(f"training {arguments.trees} trees of {arguments.leaves:,} leaves, packaging them ...")
        packaged = _alone("package", folder, str(arguments.trees), str(arguments.leaves))
        terminal.say("loading, running and explaining them as a worker does ...")
        served = _alone("serve", folder)
        needed_mb = worker_bytes(Bundle.load(folder / "bundle")) / 2**20
    terminal.say(_table(packaged, served, needed_mb))
    return {"package": packaged, "worker": served, "worker_said_mb": needed_mb}


def _alone(step: str, folder: Path, *more: str) -> dict[str, float]:
    ran = subprocess.run(
        module_command("penstock_bench.size", step, str(folder), *more),
        capture_output=True,
        text=True,
        check=False,
        timeout=process_s_max,
    )
    if ran.returncode:
        raise ConfigError(
            f"the process that was to {step} the forest ended with {ran.returncode}: {ran.stderr[-300:]}"
        )
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _peak_mb() -> float:
    """Of this process. Not getrusage: its maximum is inherited from the process that started this one."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def _package(folder: Path, trees: int, leaves: int, clock: Clock) -> dict[str, float]:
    from sklearn.ensemble import ExtraTreesRegressor

    from penstock.engine.models.packaging.package import package

    random = np.random.default_rng(0)
    rows = random.normal(size=(leaves, features)).astype(np.float32)
    target = rows[:, 0] * rows[:, 1] + random.normal(size=leaves)
    forest = ExtraTreesRegressor(trees, max_features=1, random_state=0).fit(rows, target)
    before_mb, before_s = _peak_mb(), clock.monotonic_s()
    package(forest, folder / "bundle", background=rows[:200])
    took_s = clock.monotonic_s() - before_s
    np.savez(folder / "asked.npz", rows=rows[:explained_rows], answers=forest.predict(rows[:explained_rows]))
    nodes = sum(tree.tree_.node_count for tree in forest.estimators_)
    size = sum(path.stat().st_size for path in (folder / "bundle").iterdir())
    return {
        "nodes": nodes,
        "seconds": took_s,
        "peak_mb": _peak_mb(),
        "before_mb": before_mb,
        "bundle_mb": size / 2**20,
    }


def _serve(folder: Path, clock: Clock) -> dict[str, float]:
    from penstock.engine.explain.factory import make_explainer
    from penstock.engine.models.runtime.loader import open_model
    from penstock.engine.settings.model import ExplainSettings

    begun_s = clock.monotonic_s()
    bundle = Bundle.load(folder / "bundle")
    model = open_model(bundle, batch_rows_max=256, clock=clock)
    explainer = make_explainer(bundle, model, ExplainSettings())
    ready_s = clock.monotonic_s() - begun_s
    asked = np.load(folder / "asked.npz")
    predictions = model.predict(asked["rows"])
    begun_s = clock.monotonic_s()
    found = explainer.explain(asked["rows"], predictions)
    off = np.abs(next(iter(predictions.outputs.values()))[:, 0] - asked["answers"])
    return {
        "ready_s": ready_s,
        "explain_ms_per_row": (clock.monotonic_s() - begun_s) * 1000 / len(asked["rows"]),
        "peak_mb": _peak_mb(),
        "difference_max": float(off.max()),
        "additivity_error_max": float(np.abs(found.additivity_error).max()),
    }


def _table(packaged: dict[str, float], served: dict[str, float], needed_mb: float) -> Table:
    table = Table("", "measured")
    for name, value in (
        ("nodes", f"{packaged['nodes']:,.0f}"),
        ("to package", f"{packaged['seconds']:.1f} s"),
        (
            "memory to package",
            f"{packaged['peak_mb']:,.0f} MiB, of that the trained forest {packaged['before_mb']:,.0f}",
        ),
        ("bundle", f"{packaged['bundle_mb']:,.0f} MiB"),
        ("worker ready after", f"{served['ready_s']:.1f} s"),
        ("memory of a worker", f"{served['peak_mb']:,.0f} MiB (said: {needed_mb:,.0f})"),
        ("to explain a row", f"{served['explain_ms_per_row']:.1f} ms"),
        ("largest difference from the original", f"{served['difference_max']:.1g}"),
        ("largest error of a sum of attributions", f"{served['additivity_error_max']:.1g}"),
    ):
        table.add_row(name, value)
    return table


if __name__ == "__main__":
    step, where, *rest = sys.argv[1:]
    ticks = SystemClock()
    made = (
        _package(Path(where), int(rest[0]), int(rest[1]), ticks)
        if step == "package"
        else _serve(Path(where), ticks)
    )
    print(json.dumps(made))
