"""`penstock bench explain`: SHAP values per second and how right they are, all peers on the same models and rows."""

import argparse
import importlib.metadata
import platform
import re
from pathlib import Path
from typing import Any

from penstock.engine.clock import Clock, SystemClock
from penstock.engine.console.terminal import Terminal
from penstock.engine.gpu.driver import Driver, Gpu
from penstock.schemas.errors import ConfigError
from penstock_bench.environments import python_of
from penstock_bench.explain import lime as explain_lime
from penstock_bench.explain import network as explain_network
from penstock_bench.explain import trees as explain_trees
from penstock_bench.explain.bars import bars
from penstock_bench.explain.page import figures, page
from penstock_bench.explain.peers import Peer, peers
from penstock_bench.explain.picture import draw
from penstock_bench.explain.trees import Plan
from penstock_bench.explain.workload import workload
from penstock_bench.picture import require_folder, write_figures

summary = (
    "SHAP values: rows per second and accuracy, beside shap, XGBoost, LightGBM, and FastTreeSHAP, shapiq, treeshap and "
    "WOODELF in environments of their own, made once; then deep trees, a network, and LIME"
)
_packages = ("xgboost", "lightgbm", "shap", "onnxruntime-gpu", "onnxruntime")
_sections = ("trees", "deep", "network", "lime")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this bench."""
    parser.add_argument(
        "--models", default="100x6", help="TREESxDEPTH, comma-separated (default: %(default)s)"
    )
    parser.add_argument(
        "--batches", default="1,16,256,2048", help="rows a call, 1 to 8192 (default: %(default)s)"
    )
    parser.add_argument(
        "--peers",
        default="",
        help=f"only these, comma-separated, of: {', '.join(peer.name for peer in peers)}",
    )
    parser.add_argument(
        "--sections",
        default=",".join(_sections),
        help="what to measure: trees of --models, deep trees, a network, LIME (default: %(default)s)",
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
    """Measure, show tables, and return all of it."""
    batches = parse_numbers(arguments.batches, "--batches", 8192)
    models = [parse_shape(name) for name in arguments.models.split(",")]
    chosen = _chosen(arguments.peers)
    sections = _named(arguments.sections, "--sections", _sections)
    if not 1 <= arguments.background <= 10_000 or not 0 < arguments.seconds <= 60:
        raise ConfigError("--background is 1 to 10000 rows, --seconds more than 0 and at most 60")
    require_folder(arguments.picture, "--picture")
    require_folder(arguments.table, "--table")
    plan = Plan(
        batches=batches,
        seconds=arguments.seconds,
        clock=clock or SystemClock(),
        pythons=_pythons(chosen, sections, terminal),
    )
    found: dict[str, Any] = {"machine": _machine(), "models": [], "deep": [], "network": None, "lime": None}
    for trees, depth in models if "trees" in sections else ():
        terminal.say(f"training {trees}x{depth} ...")
        work = workload(trees, depth, rows=16_384, background=arguments.background)
        found["models"].append(explain_trees.measured(work, chosen, plan, terminal))
    if "deep" in sections:
        found["deep"] = explain_trees.deep(chosen, plan, terminal)
    if "network" in sections:
        terminal.say("a network: exact values and estimates ...")
        found["network"] = explain_network.measured(plan)
    if "lime" in sections:
        terminal.say("LIME: in closed form and sampled ...")
        found["lime"] = explain_lime.measured(*models[0], plan)
    found["bars"] = bars(found)
    for each in figures(found):
        terminal.say(each.for_terminal())
    _say_who_is_missing(found, terminal)
    if found["models"]:
        write_figures(arguments.picture, draw, found, terminal)
    write_figures(arguments.table, page, found, terminal)
    return found


def _pythons(chosen: list[Peer], sections: tuple[str, ...], terminal: Terminal) -> dict[str, Path | str]:
    """The interpreter of every environment that is needed, or why it is not to be had."""
    wanted = [peer.outside for peer in chosen if peer.outside and ("trees" in sections or peer.deep)]
    wanted = wanted if "trees" in sections or "deep" in sections else []
    if "lime" in sections:
        wanted.append(explain_lime.rival)
    found: dict[str, Path | str] = {}
    for environment in dict.fromkeys(rival.environment for rival in wanted):
        try:
            found[environment] = python_of(environment, terminal.say)
        except ConfigError as error:
            found[environment] = str(error)
    return found


def _say_who_is_missing(found: dict[str, Any], terminal: Terminal) -> None:
    said = {
        peer["peer"]: peer["why"]
        for run in (*found["models"], *found["deep"])
        for peer in run["explain"]
        if not peer["installed"]
    }
    if found["lime"] and not found["lime"]["lime"]["installed"]:
        said["lime"] = found["lime"]["lime"]["why"]
    for peer, why in said.items():
        terminal.say(f"{peer}: {' '.join(why.split())[:200]}")


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


def parse_shape(name: str) -> tuple[int, int]:
    """Trees and depth of what --models says, as 100x6. Raises ConfigError."""
    match = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d?)", name.strip())
    if match is None or int(match[2]) > 12:
        raise ConfigError(f"--models {name} is not TREESxDEPTH, as 100x6, with a depth of at most 12")
    return int(match[1]), int(match[2])


def _chosen(names: str) -> list[Peer]:
    known = {peer.name: peer for peer in peers}
    return [known[name] for name in _named(names or ",".join(known), "--peers", tuple(known))]


def _named(names: str, option: str, known: tuple[str, ...]) -> tuple[str, ...]:
    wanted = tuple(name.strip() for name in names.split(",") if name.strip())
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise ConfigError(f"{option} {(unknown or ['nothing'])[0]} is not one of {', '.join(known)}")
    return wanted


def parse_numbers(text: str, option: str, most: int) -> list[int]:
    """Comma-separated numbers, each 1 to `most`. Raises ConfigError."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"{option} {text} is not a comma-separated list of numbers") from error
    if not all(1 <= number <= most for number in numbers):
        raise ConfigError(f"{option} are 1 to {most}")
    return numbers
