"""Calibration of a classifier's scores, by sigmoids and by lines from point to point, as nodes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from penstock.engine.models.packaging.sklearn.operators.nodes import Nodes


def add_calibrator(graph: Nodes, calibrator: Any, column: str, kind: type[Any]) -> str:
    """What a fitted calibrator of scikit-learn makes of a column (R, 1) of scores: a sigmoid, or a line from point to point."""

    def numbers(values: Any) -> str:
        return graph.tensor(np.asarray(values, dtype=kind).reshape(-1))

    if hasattr(calibrator, "a_"):
        raised = graph.node(
            "Add", [graph.node("Mul", [column, numbers(-calibrator.a_)]), numbers(-calibrator.b_)]
        )
        return graph.node("Sigmoid", [raised])
    x = np.asarray(calibrator.X_thresholds_, dtype=np.float64)
    y = np.asarray(calibrator.y_thresholds_, dtype=np.float64)
    if len(x) == 1:
        return graph.node("Add", [graph.node("Mul", [column, numbers(0.0)]), numbers(y[0])])
    within = graph.node("Max", [graph.node("Min", [column, numbers(x[-1])]), numbers(x[0])])
    passed = graph.node("Cast", [graph.node("GreaterOrEqual", [within, graph.tensor(x[None].astype(kind))])], to=TensorProto.INT64)  # fmt: skip
    met = graph.node("ReduceSum", [passed, graph.tensor(np.array([1]))], keepdims=1)
    place = graph.node("Sub", [graph.node("Min", [met, graph.tensor(np.array([len(x) - 1]))]), graph.tensor(np.array([1]))])  # fmt: skip
    start = graph.node("Gather", [numbers(x[:-1]), place], axis=0)
    level = graph.node("Gather", [numbers(y[:-1]), place], axis=0)
    slope = graph.node("Gather", [numbers(np.diff(y) / np.diff(x)), place], axis=0)
    return graph.node("Add", [level, graph.node("Mul", [graph.node("Sub", [within, start]), slope])])


def mean_of_shares(
    graph: Nodes, members: Sequence[Sequence[str]], classes: int, kind: type[Any], *, output: str = ""
) -> str:
    """The mean (R, classes) of what members say; of each a column (R, 1) a class, of two classes the second's alone."""
    parts = [
        columns[0] if classes == 2 else _shared_out(graph, columns, classes, kind) for columns in members
    ]
    total = graph.node("Sum", parts)
    count: NDArray[Any] = np.array([len(parts)], dtype=kind)
    if classes > 2:
        return graph.node("Div", [total, graph.tensor(count)], output=output)
    mean = graph.node("Div", [total, graph.tensor(count)])
    rest = graph.node("Sub", [graph.tensor(np.ones(1, dtype=kind)), mean])
    return graph.node("Concat", [rest, mean], axis=1, output=output)


def _shared_out(graph: Nodes, columns: Sequence[str], classes: int, kind: type[Any]) -> str:
    """Columns over their sum, and even shares where that is 0."""
    joined = graph.node("Concat", [*columns], axis=1)
    total = graph.node("ReduceSum", [joined, graph.tensor(np.array([1]))], keepdims=1)
    none = graph.node("Equal", [total, graph.tensor(np.zeros(1, dtype=kind))])
    even = graph.tensor(np.full((1, classes), 1.0 / classes, dtype=kind))
    whole = graph.node("Where", [none, graph.tensor(np.ones(1, dtype=kind)), total])
    return graph.node("Where", [none, even, graph.node("Div", [joined, whole])])
