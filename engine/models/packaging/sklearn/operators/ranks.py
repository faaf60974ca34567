"""Trees that compare doubles, inside a graph: each column becomes the number of its cuts that a value lies above."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from penstock.engine.features.narrowing import levels_of
from penstock.engine.trees.forest import Forest

Cuts = Sequence[Sequence[float]]
"""Of each column, ascending: Signature.cuts of the forest."""


def ranked_thresholds(forest: Forest, cuts: Cuts) -> NDArray[np.float32]:
    """The thresholds (M,) as places among the cuts of their column: x <= cut k exactly when x lies above k of them or fewer."""
    threshold = forest.threshold.copy()
    for column, of_column in enumerate(cuts):
        at = (forest.feature == column) & (forest.set_index < 0) & np.isfinite(forest.threshold)
        if of_column and at.any():
            levels = levels_of(np.array(of_column, dtype=np.float64))
            threshold[at] = np.searchsorted(levels, forest.threshold[at]).astype(np.float32)
    return threshold


def ranks_of_columns(
    given: str, ranked: str, cuts: Cuts, container: Any, name_of: Callable[[str], str]
) -> list[onnx.NodeProto]:
    """Nodes from `given` (R, F) to `ranked` (R, F), float32: NaN stays, and a column without cuts is rounded."""

    def constant(name: str, kind: int, shape: list[int], values: list[Any]) -> None:
        container.add_initializer(name_of(name), kind, shape, values)

    constant("ranks_nothing", TensorProto.FLOAT, [1], [float("nan")])
    constant("ranks_axis", TensorProto.INT64, [1], [1])
    nodes = [helper.make_node("Cast", [given], ["ranks_wide"], to=TensorProto.DOUBLE)]
    parts = []
    for number, of_column in enumerate(cuts):
        of = f"ranks_{number}_"
        constant(f"{of}place", TensorProto.INT64, [1], [number])
        nodes.append(helper.make_node("Gather", ["ranks_wide", f"{of}place"], [f"{of}column"], axis=1))
        parts.append(f"{of}made")
        if not of_column:
            nodes.append(helper.make_node("Cast", [f"{of}column"], [parts[-1]], to=TensorProto.FLOAT))
            continue
        constant(f"{of}cuts", TensorProto.DOUBLE, [1, len(of_column)], [*of_column])
        nodes += [
            helper.make_node("Greater", [f"{of}column", f"{of}cuts"], [f"{of}above"]),
            helper.make_node("Cast", [f"{of}above"], [f"{of}ones"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", [f"{of}ones", "ranks_axis"], [f"{of}count"], keepdims=1),
            helper.make_node("IsNaN", [f"{of}column"], [f"{of}missing"]),
            helper.make_node("Where", [f"{of}missing", "ranks_nothing", f"{of}count"], [parts[-1]]),
        ]
    return [*nodes, helper.make_node("Concat", parts, [ranked], axis=1)]
