"""Where trees are explained: by the kernel on the CPU, or on the model's device by what is fastest there."""

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from penstock.engine.clock import Clock
from penstock.engine.explain.tree.fused_shap import CudaLibraries, FusedShap
from penstock.engine.explain.tree.leaf_tables import LeafTables
from penstock.engine.explain.tree.tensor_graph import GraphShap
from penstock.engine.explain.tree.tree_shap import TreeShap, TreeValues
from penstock.engine.gpu.device import Device
from penstock.engine.models.probes.probe_rows import rows_mixed
from penstock.schemas.errors import ConfigError, InvariantError, ModelError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger(__name__)

tolerance = (
    1e-5  # of the largest value; the others add in float32, the graph in the order that the device likes
)
compared_rows = 1024
compared_runs = 5


def faster_shap(
    shap: TreeShap,
    device: Device,
    *,
    rows: NDArray[np.generic],
    background: NDArray[np.generic] | None,
    clock: Clock,
    libraries: CudaLibraries | None = None,
) -> TreeValues:
    """`shap`, or the same values from a graph or a fused kernel on `device`: what comes soonest of those that agree.

    `rows` (R, F) are what to compare on, in a mix. `background`: what interventional values are relative to, unused for
    others. The choice is logged with its reason.
    """
    if shap.method == "tree_path_dependent" or background is None:
        against = None
    else:
        against = background.astype(np.float32)
    mixed = rows_mixed(rows, compared_rows).astype(np.float32)
    try:
        tables = LeafTables.of(shap.forest, against)
    except ConfigError as error:
        logger.info("trees are explained on the CPU: %s", error, extra=LogCode.EXPLAINER_CHOSEN.extra)
        return shap
    makers: dict[str, Callable[[], GraphShap | FusedShap]] = {
        f"a tensor graph on {device.name}": lambda: GraphShap(tables, device=device),
        f"the fused kernel on {device.name}": lambda: FusedShap(tables, device=device, libraries=libraries),
    }
    fastest: TreeValues = shap
    took_s = {"the CPU": _fastest_s(shap, mixed, clock)}
    for name, make in makers.items():
        other = _agreeing(shap, make, mixed, name)
        if other is None:
            continue
        took_s[name] = _fastest_s(other, mixed, clock)
        slower = other
        if took_s[name] < min(time_s for rival, time_s in took_s.items() if rival != name):
            fastest, slower = other, fastest
        _release(slower)
    by_time = sorted(took_s, key=took_s.__getitem__)
    logger.info(
        "trees are explained by %s: %d rows take %s",
        by_time[0], len(mixed), ", ".join(f"{took_s[name] * 1000:.2f} ms by {name}" for name in by_time),
        extra=LogCode.EXPLAINER_CHOSEN.extra,
    )  # fmt: skip
    return fastest


def _agreeing(
    shap: TreeShap, make: Callable[[], GraphShap | FusedShap], rows: NDArray[np.float32], name: str
) -> GraphShap | FusedShap | None:
    """What is made, or None where it cannot be, or says something else than `shap`."""
    other = None
    try:
        other = make()
        fault = _fault(shap, other, rows)
    except ConfigError as error:
        logger.info(
            "trees are not explained by %s: %s", name, error, extra=LogCode.EXPLAINER_PASSED_OVER.extra
        )
        return None
    except (ModelError, InvariantError) as error:
        fault = f"it says nothing, because {error}"
    if fault:
        logger.warning(
            "trees are not explained by %s: %s", name, fault, extra=LogCode.EXPLAINER_PASSED_OVER.extra
        )
        _release(other)
        return None
    return other


def _release(unused: TreeValues | None) -> None:
    if isinstance(unused, FusedShap):
        unused.close()


def _fault(shap: TreeShap, other: TreeValues, rows: NDArray[np.float32]) -> str:
    expected, raw = shap.contributions(rows)
    found, scores = other.contributions(rows)
    for what, ours, theirs in (("a value", expected, found), ("a score", raw, scores)):
        off = float(np.abs(ours - theirs).max(initial=0.0))
        if not off <= tolerance * max(1.0, float(np.abs(ours).max(initial=0.0))):
            return f"{what} differs by {off:.3g}"
    return ""


def _fastest_s(shap: TreeValues, rows: NDArray[np.float32], clock: Clock) -> float:
    fastest_s = float("inf")
    for _ in range(compared_runs):
        before_s = clock.monotonic_s()
        shap.contributions(rows)
        fastest_s = min(fastest_s, clock.monotonic_s() - before_s)
    return fastest_s
