"""Where trees are explained: by the kernel on the CPU, or by a tensor graph on the model's device where that is faster."""

import logging

import numpy as np
from numpy.typing import NDArray

from engine.clock import Clock
from engine.explain.tensor_graph import GraphShap
from engine.explain.tree_shap import TreeShap
from engine.models.device import Device
from engine.models.rows import rows_mixed
from schemas.errors import ConfigError, InvariantError, ModelError

logger = logging.getLogger(__name__)

tolerance = 1e-5  # of the largest value; the graph adds in float32, in the order that the device likes
compared_rows = 1024
compared_runs = 5


def faster_shap(
    shap: TreeShap,
    device: Device,
    *,
    rows: NDArray[np.generic],
    background: NDArray[np.generic] | None,
    clock: Clock,
) -> TreeShap | GraphShap:
    """`shap`, or the same values from a graph on `device`, where these agree and come sooner.

    `rows` (R, F) are what to compare on, in a mix. `background`: what interventional values are relative to, unused for
    others. The choice is logged with its reason.
    """
    if shap.method == "tree_path_dependent":
        background = None
    mixed = rows_mixed(rows, compared_rows).astype(np.float32)
    try:
        against = None if background is None else background.astype(np.float32)
        graph = GraphShap(shap.forest, background=against, device=device)
        fault = _fault(shap, graph, mixed)
    except (ConfigError, ModelError, InvariantError) as error:
        logger.info("trees are explained on the CPU: %s", error)
        return shap
    if fault:
        logger.warning("trees are explained on the CPU: on %s %s", device.name, fault)
        return shap
    kernel_s, graph_s = _fastest_s(shap, mixed, clock), _fastest_s(graph, mixed, clock)
    chosen, where = (graph, device.name) if graph_s < kernel_s else (shap, "the CPU")
    logger.info(
        "trees are explained on %s: %d rows take %.2f ms on %s and %.2f ms on the CPU",
        where, len(mixed), graph_s * 1000, device.name, kernel_s * 1000,
    )  # fmt: skip
    return chosen


def _fault(shap: TreeShap, graph: GraphShap, rows: NDArray[np.float32]) -> str:
    expected, raw = shap.contributions(rows)
    found, scores = graph.contributions(rows)
    for what, ours, theirs in (("a value", expected, found), ("a score", raw, scores)):
        off = float(np.abs(ours - theirs).max(initial=0.0))
        if not off <= tolerance * max(1.0, float(np.abs(ours).max(initial=0.0))):
            return f"{what} differs by {off:.3g}"
    return ""


def _fastest_s(shap: TreeShap | GraphShap, rows: NDArray[np.float32], clock: Clock) -> float:
    fastest_s = float("inf")
    for _ in range(compared_runs):
        before_s = clock.monotonic_s()
        shap.contributions(rows)
        fastest_s = min(fastest_s, clock.monotonic_s() - before_s)
    return fastest_s
