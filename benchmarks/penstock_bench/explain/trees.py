"""Tree SHAP measured: every peer on the same trees and rows, its values judged by the float64 oracle."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.console.terminal import Terminal
from penstock.engine.explain.tree import reference as oracle
from penstock.engine.explain.tree.tree_shap import TreeShap, table_bytes_max
from penstock.schemas.errors import ConfigError
from penstock_bench.explain import outside as explain_outside
from penstock_bench.explain.peers import Explain, Peer, peers, predictor
from penstock_bench.explain.workload import Rows, Workload, complete, deep_workload

deep_depths = (16, 32, 48, 64)
_sample_rows = 48
_outside_rows = 8  # some of them take half a second a row
_calls_max = 200
# What another version of a peer's package says where it is used as this one was.
_peer_errors = (ImportError, TypeError, ValueError, AttributeError, RuntimeError)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How to measure: the batch sizes, the time for each, and where the packages outside have their environments."""

    batches: Sequence[int]
    seconds: float
    clock: Clock
    pythons: Mapping[str, Path | str] = field(default_factory=dict)
    """By environment: its interpreter, or in words why there is none."""


def measured(work: Workload, chosen: Sequence[Peer], plan: Plan, terminal: Terminal) -> dict[str, Any]:
    """Rates and errors of every chosen peer, ONNX Runtime's prediction beside them, and what Penstock's tables take."""
    sample = work.rows[:_sample_rows]
    results = _compared(work, sample, chosen, plan, terminal)
    predict = {"peer": "onnxruntime predict", "batches": rates(predictor(work), work.rows, plan)}
    return {
        "model": work.name,
        "leaves": len(work.forest.leaf_values),
        "features": work.forest.features,
        "background_rows": len(work.background),
        "explain": results,
        "predict": predict,
        "ratios": _ratios(results, predict, plan.batches),
        "tables": _tables(work, plan.clock),
    }


def deep(chosen: Sequence[Peer], plan: Plan, terminal: Terminal) -> list[dict[str, Any]]:
    """Errors only, on chains of ever more tests; half of the rows are outliers."""
    found = []
    for depth in deep_depths:
        work = deep_workload(depth, rows=2 * _sample_rows, background=4)
        longest = max((paths.feature.shape[1] for paths in oracle.leaf_paths(work.forest)), default=0)
        asked = [peer for peer in chosen if peer.deep]
        without_rates = Plan(batches=(), seconds=plan.seconds, clock=plan.clock, pythons=plan.pythons)
        results = _compared(work, work.rows, asked, without_rates, terminal)
        found.append({"depth": depth, "features_on_a_path": longest, "explain": results})
    return found


def rates(
    explain: Explain, rows: Rows, plan: Plan, *, row_by_row: bool = False
) -> dict[str, dict[str, float]]:
    """Median time of a call, and what it makes of the batch; every call gets other rows, and is the only thread.

    `row_by_row`: fewer rows may stand for a batch that would take long.
    """
    found: dict[str, dict[str, float]] = {}
    for batch in plan.batches:
        count = batch
        if row_by_row:
            row_s = _timed(explain, rows[:1], plan.clock)
            count = max(1, min(batch, int(explain_outside.call_s_max / row_s)))
        slices = _slices(rows, count)
        explain(next(slices))
        times: list[float] = []
        while not times or (sum(times) < plan.seconds and len(times) < _calls_max):
            times.append(_timed(explain, next(slices), plan.clock))
        call_s = median(times) * batch / count
        found[str(batch)] = {"rows_per_s": batch / call_s, "call_ms": call_s * 1e3, "calls": len(times)}
    return found


def _compared(
    work: Workload, sample: Rows, chosen: Sequence[Peer], plan: Plan, terminal: Terminal
) -> list[dict[str, Any]]:
    both, few = (np.concatenate((rows, complete(rows))) for rows in (sample, sample[:_outside_rows]))
    some = np.r_[: len(few) // 2, len(sample) : len(sample) + len(few) // 2]
    exact = {False: oracle.path_dependent(work.forest, both)[0][:, :, 0]}
    if any(peer.interventional for peer in chosen):
        exact[True] = oracle.interventional(work.forest, both, work.background)[0][:, :, 0]
    score = work.forest.raw_scores(both)[:, 0]
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if any(peer.outside for peer in chosen):
            explain_outside.write_task(
                folder, work, few, batches=plan.batches, seconds=plan.seconds, calls_max=_calls_max
            )
        for peer in terminal.track(chosen, label=f"{work.name}: peers", total=len(chosen)):
            try:
                values, result = _asked(peer, work, both, folder, plan)
                if peer.same_trees:
                    asked = some if peer.outside else np.arange(len(both))
                    result |= _accuracy(values, exact[peer.interventional][asked], score[asked])
            except (*_peer_errors, ConfigError) as error:
                why = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
                results.append({"peer": peer.name, "installed": False, "why": why})
                continue
            results.append({"peer": peer.name, "installed": True} | result)
    return results


def _asked(
    peer: Peer, work: Workload, sample: Rows, folder: Path, plan: Plan
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """The sample's values, and what was measured. Raises ConfigError where the peer is not to be had."""
    if peer.outside is not None:
        python = plan.pythons.get(peer.outside.environment, "not asked for")
        if isinstance(python, str):
            raise ConfigError(python)
        said = explain_outside.measure(python, peer.outside, folder)
        return said.values, {"version": said.version, "ready_s": said.ready_s, "batches": said.batches}
    started = plan.clock.monotonic_s()
    explain = None if peer.make is None else peer.make(work)
    if explain is None:
        raise ConfigError("not installed")
    values = explain(sample)
    ready_s = plan.clock.monotonic_s() - started
    return values, {
        "ready_s": ready_s,
        "batches": rates(explain, work.rows, plan, row_by_row=peer.row_by_row),
    }


def _accuracy(
    values: NDArray[np.float64], exact: NDArray[np.float64], score: NDArray[np.float64]
) -> dict[str, float]:
    """The largest error and the largest miss of a sum, over the largest value; the second half of the rows is complete."""
    if values.shape != exact.shape:
        raise ConfigError(f"its values have the shape {values.shape}, not {exact.shape}")
    scale, half = float(np.abs(exact).max()), len(exact) // 2
    error = np.abs(values - exact).max(axis=1)
    base = score - exact.sum(axis=1)
    return {
        "error_relative": float(error[:half].max() / scale),
        "error_complete_rows": float(error[half:].max() / scale),
        "additivity_error": float(np.abs(base + values.sum(axis=1) - score).max() / scale),
    }


def _timed(explain: Explain, rows: Rows, clock: Clock) -> float:
    started = clock.monotonic_s()
    explain(rows)
    return clock.monotonic_s() - started


def _slices(rows: Rows, batch: int) -> Iterator[Rows]:
    start = 0
    while True:
        if start + batch > len(rows):
            start = 0
        yield rows[start : start + batch]
        start += batch


def _tables(work: Workload, clock: Clock) -> dict[str, Any]:
    """What making an explainer of the ONNX file takes, in seconds and bytes."""
    found: dict[str, Any] = {"bytes_max": table_bytes_max}
    for name, background in (("path_dependent", None), ("interventional", work.background)):
        started = clock.monotonic_s()
        explainer = TreeShap.from_onnx(work.onnx, background=background)
        found[name] = {
            "seconds": clock.monotonic_s() - started,
            "bytes": explainer.table_bytes,
            "tabled_trees": explainer.tabled_trees,
        }
    return found


def _ratios(
    results: Sequence[Mapping[str, Any]], predict: Mapping[str, Any], batches: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Penstock's rate over that of each peer (interventional over interventional) and over prediction."""
    found = {result["peer"]: result["batches"] for result in results if result["installed"]}
    ratios: dict[str, dict[str, float]] = {}
    for peer in peers:
        ours = "penstock interventional" if peer.interventional else "penstock"
        if peer.name in found and ours in found and not peer.name.startswith("penstock"):
            ratios[peer.name] = _over(found[ours], found[peer.name], batches)
    if "penstock" in found:
        ratios[predict["peer"]] = _over(found["penstock"], predict["batches"], batches)
    return ratios


def _over(ours: Mapping[str, Any], theirs: Mapping[str, Any], batches: Sequence[int]) -> dict[str, float]:
    return {
        str(batch): ours[str(batch)]["rows_per_s"] / theirs[str(batch)]["rows_per_s"] for batch in batches
    }
