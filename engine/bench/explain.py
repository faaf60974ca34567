"""`penstock bench explain`: SHAP values per second and how right they are, all peers on the same trees and rows."""

import argparse
import importlib.metadata
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from engine.bench.explain_peers import Explain, Peer, Workload, peers, predictor, workload
from engine.bench.explain_picture import draw, table
from engine.bench.picture import require_folder, write_figures
from engine.clock import Clock, SystemClock
from engine.explain import oracle
from engine.models.cuda_driver import Driver, Gpu
from engine.terminal import Terminal
from schemas.errors import ConfigError

summary = (
    "SHAP values: rows per second and accuracy, beside shap, XGBoost, LightGBM and others that are installed"
)
_accuracy_rows = 48
_calls_max = 200
# What another version of a peer's package says where it is used as this one was.
_peer_errors = (ImportError, TypeError, ValueError, AttributeError, RuntimeError, ConfigError)
_packages = ("xgboost", "lightgbm", "shap", "shapiq", "woodelf-explainer", "onnxruntime-gpu", "onnxruntime")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this bench."""
    parser.add_argument(
        "--models", default="100x6", help="TREESxDEPTH, several parted by commas (default: %(default)s)"
    )
    parser.add_argument(
        "--batches", default="1,16,256,2048", help="rows a call, 1 to 8192 (default: %(default)s)"
    )
    parser.add_argument(
        "--peers",
        default="",
        help=f"only these, parted by commas, of: {', '.join(peer.name for peer in peers)}",
    )
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="spent on each peer and batch size (default: %(default)s)"
    )
    parser.add_argument(
        "--background", type=int, default=100, help="rows, for interventional (default: %(default)s)"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw the figures into this file")
    parser.add_argument("--table", type=Path, metavar="FILE.md", help="write them as a page of tables")


def run(arguments: argparse.Namespace, terminal: Terminal, clock: Clock | None = None) -> dict[str, Any]:
    """Measure, show a table per model, and return all of it."""
    clock = clock or SystemClock()
    batches = _numbers(arguments.batches, "--batches", 8192)
    chosen = _chosen(arguments.peers)
    if not 1 <= arguments.background <= 10_000 or not 0 < arguments.seconds <= 60:
        raise ConfigError("--background is 1 to 10000 rows, --seconds more than 0 and at most 60")
    require_folder(arguments.picture, "--picture")
    require_folder(arguments.table, "--table")
    models = []
    for name in arguments.models.split(","):
        match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d?)", name.strip())
        if match is None or int(match[2]) > 12:
            raise ConfigError(f"--models {name} is not TREESxDEPTH, as 100x6, with a depth of at most 12")
        terminal.say(f"training {name.strip()} ...")
        work = workload(int(match[1]), int(match[2]), rows=16_384, background=arguments.background)
        models.append(_measured(work, chosen, batches, arguments.seconds, terminal, clock))
        terminal.say(_table(models[-1], batches))
        for peer in models[-1]["explain"]:
            if not peer["installed"]:
                terminal.say(f"{peer['peer']}: {' '.join(peer['why'].split())[:120]}")
    found = {"machine": _machine(), "models": models}
    write_figures(arguments.picture, draw, found, terminal)
    write_figures(arguments.table, table, found, terminal)
    return found


def _measured(
    work: Workload, chosen: list[Peer], batches: list[int], seconds: float, terminal: Terminal, clock: Clock
) -> dict[str, Any]:
    sample = work.rows[:_accuracy_rows]
    exact = {False: oracle.path_dependent(work.forest, sample)[0][:, :, 0]}
    if any(peer.interventional for peer in chosen):
        exact[True] = oracle.interventional(work.forest, sample, work.background)[0][:, :, 0]
    score = work.forest.raw_scores(sample)[:, 0]
    results: list[dict[str, Any]] = []
    for peer in terminal.track(chosen, label=f"{work.name}: peers", total=len(chosen)):
        started = clock.monotonic_s()
        try:
            explain = peer.make(work)
            values = np.empty(0) if explain is None else explain(sample)
        except _peer_errors as error:
            results.append({"peer": peer.name, "installed": False, "why": f"{type(error).__name__}: {error}"})
            continue
        if explain is None:
            results.append({"peer": peer.name, "installed": False, "why": "not installed"})
            continue
        ready_s = clock.monotonic_s() - started
        result: dict[str, Any] = {"peer": peer.name, "installed": True, "ready_s": ready_s}
        if peer.same_trees:
            result |= _accuracy(values, exact[peer.interventional], score)
        result["batches"] = _batches(explain, work, batches, seconds, clock)
        results.append(result)
    predict = {
        "peer": "onnxruntime predict",
        "batches": _batches(predictor(work), work, batches, seconds, clock),
    }
    return {
        "model": work.name,
        "leaves": len(work.forest.leaf_values),
        "features": work.forest.features,
        "background_rows": len(work.background),
        "explain": results,
        "predict": predict,
        "ratios": _ratios(results, predict, batches),
    }


def _accuracy(
    values: NDArray[np.float64], exact: NDArray[np.float64], score: NDArray[np.float64]
) -> dict[str, float]:
    """Largest error over the largest value; and how far the sums miss, beside the exact ones."""
    base = score - exact.sum(axis=1)
    return {
        "error_relative": float(np.abs(values - exact).max() / np.abs(exact).max()),
        "additivity_error": float(np.abs(base + values.sum(axis=1) - score).max()),
    }


def _batches(
    explain: Explain, work: Workload, batches: list[int], seconds: float, clock: Clock
) -> dict[str, dict[str, float]]:
    """Median time of a call; every call gets other rows, and is the only thread."""
    measured: dict[str, dict[str, float]] = {}
    for batch in batches:
        slices = _slices(work, batch)
        explain(next(slices))
        times: list[float] = []
        while not times or (sum(times) < seconds and len(times) < _calls_max):
            rows = next(slices)
            started = clock.monotonic_s()
            explain(rows)
            times.append(clock.monotonic_s() - started)
        call_s = median(times)
        measured[str(batch)] = {"rows_per_s": batch / call_s, "call_ms": call_s * 1e3, "calls": len(times)}
    return measured


def _slices(work: Workload, batch: int) -> Iterator[NDArray[np.float32]]:
    start = 0
    while True:
        if start + batch > len(work.rows):
            start = 0
        yield work.rows[start : start + batch]
        start += batch


def _ratios(
    results: list[dict[str, Any]], predict: dict[str, Any], batches: list[int]
) -> dict[str, dict[str, float]]:
    """Penstock's rate over that of each peer (interventional over interventional) and over prediction."""
    rates = {result["peer"]: result["batches"] for result in results if result.get("installed")}
    ratios: dict[str, dict[str, float]] = {}
    for peer in peers:
        ours = "penstock interventional" if peer.interventional else "penstock"
        if peer.name in rates and ours in rates and not peer.name.startswith("penstock"):
            ratios[peer.name] = _over(rates[ours], rates[peer.name], batches)
    if "penstock" in rates:
        ratios[predict["peer"]] = _over(rates["penstock"], predict["batches"], batches)
    return ratios


def _over(ours: dict[str, Any], theirs: dict[str, Any], batches: list[int]) -> dict[str, float]:
    return {
        str(batch): ours[str(batch)]["rows_per_s"] / theirs[str(batch)]["rows_per_s"] for batch in batches
    }


def _table(result: dict[str, Any], batches: list[int]) -> Table:
    table = Table(
        title=f"{result['model']}: {result['leaves']} leaves, {result['features']} features, one thread"
    )
    table.add_column("rows/s at a batch of")
    for batch in batches:
        table.add_column(str(batch), justify="right")
    table.add_column("error", justify="right")
    table.add_column("additivity", justify="right")
    for row in (*result["explain"], result["predict"]):
        if not row.get("installed", True):
            table.add_row(row["peer"], "not run")
            continue
        rates = [f"{row['batches'][str(batch)]['rows_per_s']:,.0f}" for batch in batches]
        accuracy = [f"{row[key]:.0e}" if key in row else "" for key in ("error_relative", "additivity_error")]
        table.add_row(row["peer"], *rates, *accuracy)
    for peer, ratio in result["ratios"].items():
        table.add_row(f"penstock / {peer}", *(f"{ratio[str(batch)]:.2f}x" for batch in batches))
    return table


def _machine() -> dict[str, Any]:
    versions = {}
    for package in _packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        found = re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8", errors="replace"))
        cpu = found[1] if found else cpu
    return {
        "cpu": cpu,
        "gpu": _gpu(),
        "python": platform.python_version(),
        "threads": 1,
        "versions": versions,
    }


def _gpu() -> str | None:
    try:
        gpu = Gpu(0, driver=Driver())
    except ConfigError:
        return None
    gpu.close()
    return gpu.model


def _chosen(names: str) -> list[Peer]:
    known = {peer.name: peer for peer in peers}
    wanted = [name.strip() for name in names.split(",") if name.strip()] or list(known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError(f"--peers {unknown[0]} is not one of {', '.join(known)}")
    return [known[name] for name in wanted]


def _numbers(text: str, option: str, most: int) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{option} {text} is not numbers parted by commas") from error
    if not all(1 <= number <= most for number in numbers):
        raise ConfigError(f"{option} are 1 to {most}")
    return numbers
