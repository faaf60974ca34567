"""Imputers by neighbours and by regressions, and splines, as operators."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from sklearn.base import RegressorMixin

from penstock.engine.models.packaging.sklearn.estimated.stand_ins import (
    Neighbourly,
    Pieces,
    Regressed,
    Splines,
    Turn,
)
from penstock.engine.models.packaging.sklearn.operators.combined import add_inside
from penstock.engine.models.packaging.sklearn.operators.graph_nodes import GraphNodes, kind_of


def estimated_shapes(operator: Any) -> None:
    """Of the output, as skl2onnx asks for it."""
    model = operator.raw_operator
    width = model.width if isinstance(model, Splines) else len(model.columns)
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = type(operator.inputs[0].type)([rows, width])


def _type(kind: type[Any]) -> int:
    return TensorProto.DOUBLE if kind is np.float64 else TensorProto.FLOAT


def add_neighbourly(scope: Any, operator: Any, container: Any) -> None:
    """Distances as scikit-learn's nan_euclidean_distances computes them, step by step, so that rounding is alike."""
    graph, model, kind = GraphNodes(scope, container), operator.raw_operator, kind_of(operator)
    given, zero = operator.inputs[0].full_name, graph.tensor(np.zeros(1, dtype=kind))
    apart = _distances(graph, model, given, kind)
    infinite = graph.tensor(np.array([np.inf], dtype=kind))
    parts = []
    for column in model.columns.tolist():
        values = model.rows[:, column]
        donors = np.flatnonzero(~np.isnan(values))
        count = min(model.count, len(donors))
        near, places = (str(scope.get_unique_variable_name(name)) for name in ("near", "places"))
        container.add_node(
            "TopK", [graph.node("Gather", [apart, graph.tensor(donors)], axis=1), graph.tensor(np.array([count]))],
            [near, places], op_version=11, axis=1, largest=0, name=scope.get_unique_operator_name("TopK"),
        )  # fmt: skip
        theirs = graph.node("Gather", [graph.tensor(values[donors].astype(kind)), places], axis=0)
        weights = graph.node("Cast", [graph.node("Less", [near, infinite])], to=_type(kind))
        if model.weighted:
            weights = _inverse(graph, near, kind)
        axis = graph.tensor(np.array([1]))
        total = graph.node("ReduceSum", [weights, axis], keepdims=1)
        nobody = graph.node("Equal", [total, zero])
        whole = graph.node("Where", [nobody, graph.tensor(np.ones(1, dtype=kind)), total])
        mean = graph.node("ReduceSum", [graph.node("Mul", [weights, theirs]), axis], keepdims=1)
        usual = graph.tensor(np.array([values[donors].mean()], dtype=kind))
        estimate = graph.node("Where", [nobody, usual, graph.node("Div", [mean, whole])])
        own = graph.node("Gather", [given, graph.tensor(np.array([column]))], axis=1)
        parts.append(graph.node("Where", [graph.node("IsNaN", [own]), estimate, own]))
    graph.node("Concat", parts, axis=1, output=operator.outputs[0].full_name)


def _distances(graph: GraphNodes, model: Neighbourly, given: str, kind: type[Any]) -> str:
    """Of each row from each row of training, (N, M): infinite where they have no column in common."""
    zero = graph.tensor(np.zeros(1, dtype=kind))
    gap = graph.node("IsNaN", [given])
    x = graph.node("Where", [gap, zero, given])
    lacks = graph.node("Cast", [gap], to=_type(kind))
    theirs = np.nan_to_num(model.rows).astype(kind)
    they_lack = np.isnan(model.rows).astype(kind)
    squares = graph.node("Mul", [x, x])

    def across(values: NDArray[Any]) -> str:
        return graph.tensor(np.ascontiguousarray(values.T))

    product = graph.node("Mul", [graph.node("MatMul", [x, across(theirs)]), graph.tensor(np.array([-2.0], dtype=kind))])  # fmt: skip
    own = graph.node("ReduceSum", [squares, graph.tensor(np.array([1]))], keepdims=1)
    apart = graph.node(
        "Add", [graph.node("Add", [product, own]), graph.tensor((theirs**2).sum(axis=1)[None])]
    )
    apart = graph.node("Max", [apart, zero])
    apart = graph.node("Sub", [apart, graph.node("MatMul", [squares, across(they_lack)])])
    apart = graph.node("Sub", [apart, graph.node("MatMul", [lacks, across(theirs**2)])])
    apart = graph.node("Max", [apart, zero])
    has = graph.node("Sub", [graph.tensor(np.ones(1, dtype=kind)), lacks])
    common = graph.node("MatMul", [has, across((1 - they_lack).astype(kind))])
    none = graph.node("Equal", [common, zero])
    shared = graph.node("Max", [common, graph.tensor(np.ones(1, dtype=kind))])
    width = graph.tensor(np.array([model.rows.shape[1]], dtype=kind))
    apart = graph.node("Sqrt", [graph.node("Mul", [graph.node("Div", [apart, shared]), width])])
    return graph.node("Where", [none, graph.tensor(np.array([np.inf], dtype=kind)), apart])


def _inverse(graph: GraphNodes, near: str, kind: type[Any]) -> str:
    """1 over each distance; where some are 0, those alone count."""
    zero = graph.tensor(np.zeros(1, dtype=kind))
    same = graph.node("Equal", [near, zero])
    is_same = graph.node("Cast", [same], to=_type(kind))
    met = graph.node("Greater", [graph.node("ReduceMax", [is_same], axes=[1], keepdims=1), zero])
    far = graph.node("Where", [same, graph.tensor(np.ones(1, dtype=kind)), near])
    return graph.node("Where", [met, is_same, graph.node("Reciprocal", [far])])


def add_regressed(scope: Any, operator: Any, container: Any) -> None:
    """Turn by turn, as scikit-learn's IterativeImputer."""
    graph, kind = GraphNodes(scope, container), kind_of(operator)
    model: Regressed = operator.raw_operator
    given = operator.inputs[0].full_name
    filling = graph.tensor(np.asarray(model.filled.values, dtype=kind)[None])
    kept = graph.node("Gather", [given, graph.tensor(model.columns)], axis=1)
    gaps = graph.node("IsNaN", [kept])
    first = graph.node("Where", [gaps, filling, kept])
    width = len(model.columns)
    columns = [_column(graph, first, place) for place in range(width)]
    flags = graph.node("Cast", [gaps], to=TensorProto.INT64)
    missing = [
        graph.node("Cast", [_column(graph, flags, place)], to=TensorProto.BOOL) for place in range(width)
    ]
    for turn in model.turns:
        estimate = _estimate(scope, operator, graph, turn, [columns[place] for place in turn.given], kind)
        low, high = (graph.tensor(np.array([bound], dtype=kind)) for bound in (turn.low, turn.high))
        within = graph.node("Max", [graph.node("Min", [estimate, high]), low])
        columns[turn.column] = graph.node("Where", [missing[turn.column], within, columns[turn.column]])
    graph.node("Concat", columns, axis=1, output=operator.outputs[0].full_name)


def _column(graph: GraphNodes, matrix: str, place: int) -> str:
    return graph.node("Gather", [matrix, graph.tensor(np.array([place]))], axis=1)


def _estimate(
    scope: Any, operator: Any, graph: GraphNodes, turn: Turn, given: list[str], kind: type[Any]
) -> str:
    """What the regressor says, (N, 1)."""
    regressor = turn.regressor
    coef = getattr(regressor, "coef_", None)
    is_line = type(regressor).__module__.startswith("sklearn.linear_model._") and isinstance(
        regressor, RegressorMixin
    )
    joined = scope.declare_local_variable("others", type(operator.inputs[0].type)([None, None]))
    graph.node("Concat", given, axis=1, output=joined.full_name)
    if is_line and isinstance(coef, np.ndarray) and not hasattr(regressor, "_base_loss"):
        product = graph.node("MatMul", [joined.full_name, graph.tensor(coef.reshape(-1, 1).astype(kind))])
        start = np.asarray(regressor.intercept_, dtype=kind).reshape(1)
        return graph.node("Add", [product, graph.tensor(start)])
    said = add_inside(scope, operator, regressor, kind, graph, [joined])
    return graph.node("Reshape", [said, graph.tensor(np.array([-1, 1]))])


def add_splines(scope: Any, operator: Any, container: Any) -> None:
    graph, kind = GraphNodes(scope, container), kind_of(operator)
    model: Splines = operator.raw_operator
    parts = []
    for place, pieces in enumerate(model.pieces):
        x = _column(graph, operator.inputs[0].full_name, place)
        made = _of_pieces(graph, pieces, x, model.beyond, kind)
        if model.zeros:
            made = graph.node(
                "Where", [graph.node("IsNaN", [x]), graph.tensor(np.zeros((1, 1), dtype=kind)), made]
            )
        if not model.last:
            kept = np.arange(pieces.coefficients.shape[2] - 1)
            made = graph.node("Gather", [made, graph.tensor(kept)], axis=1)
        parts.append(made)
    graph.node("Concat", parts, axis=1, output=operator.outputs[0].full_name)


def _of_pieces(graph: GraphNodes, pieces: Pieces, x: str, beyond: str, kind: type[Any]) -> str:
    """The splines (N, J) of numbers (N, 1)."""

    def number(value: Any) -> str:
        return graph.tensor(np.asarray(value, dtype=kind).reshape(1, -1))

    knots, count = pieces.knots, pieces.coefficients.shape[2]
    low, high = number(knots[0]), number(knots[-1])
    at = x
    if beyond == "periodic":
        length = float(knots[-1] - knots[0])
        if length > 0:
            above = graph.node("Sub", [x, low])
            turns = graph.node("Floor", [graph.node("Div", [above, number(length)])])
            at = graph.node(
                "Add", [low, graph.node("Sub", [above, graph.node("Mul", [turns, number(length)])])]
            )
        else:
            at = graph.node("Mul", [x, number(0.0)])
    elif beyond in ("constant", "linear"):
        at = graph.node("Max", [graph.node("Min", [x, high]), low])
    inner = knots[1:-1] if len(knots) > 2 else np.array([np.inf])
    passed = graph.node("Cast", [graph.node("GreaterOrEqual", [at, number(inner)])], to=TensorProto.INT64)
    piece = graph.node("ReduceSum", [passed, graph.tensor(np.array([1]))], keepdims=1)
    start = graph.node("Gather", [graph.tensor(knots[:-1].astype(kind)), piece], axis=0)
    above = graph.node("Sub", [at, start])
    shape = graph.tensor(np.array([-1, count]))
    found = ""
    for power in pieces.coefficients:  # (P, J)
        rows = graph.node("Gather", [graph.tensor(power.astype(kind)), piece], axis=0)
        flat = graph.node("Reshape", [rows, shape])
        found = graph.node("Add", [graph.node("Mul", [found, above]), flat]) if found else flat
    if beyond != "linear":
        return found
    rest = graph.node("Sub", [x, at])
    is_below = graph.node("Less", [rest, number(0.0)])
    slope = graph.node("Where", [is_below, number(pieces.slopes[0]), number(pieces.slopes[1])])
    return graph.node("Add", [found, graph.node("Mul", [rest, slope])])
