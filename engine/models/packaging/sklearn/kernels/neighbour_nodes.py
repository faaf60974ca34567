"""Neighbours as operators: distances to the last digit, column by column."""

from typing import Any

import numpy as np

from penstock.engine.models.packaging.sklearn.kernels.neighbours import Neighbours
from penstock.engine.models.packaging.sklearn.kernels.numbers import Numbers
from penstock.engine.models.packaging.sklearn.operators.scores import add_label


def neighbour_shapes(operator: Any) -> None:
    """Of NeighbourValues, as skl2onnx asks for it."""
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = type(operator.inputs[0].type)([rows, operator.raw_operator.answers.shape[1]])


def add_neighbour_values(scope: Any, operator: Any, container: Any) -> None:
    """Of NeighbourValues."""
    nodes = Numbers(scope, operator, container)
    _add_mean(nodes, operator.raw_operator, operator.outputs[0].full_name)


def add_neighbour_shares(scope: Any, operator: Any, container: Any) -> None:
    """Of NeighbourShares."""
    nodes, model = Numbers(scope, operator, container), operator.raw_operator
    shares = _add_mean(nodes, model, operator.outputs[1].full_name)
    place = nodes.node("ArgMax", shares, axis=1, keepdims=0)
    add_label(nodes.graph, place, model.classes_, operator.outputs[0].full_name)


def _add_mean(nodes: Numbers, model: Neighbours, output: str) -> str:
    apart = nodes.powers(nodes.given, model.rows, model.power)  # (N, M)
    zero = nodes.number(0.0)
    if model.count is not None:
        near, places = nodes.nearest(apart, model.count)  # (N, k)
        weights = _weights(nodes, near, model)
        theirs = nodes.node("Gather", nodes.known(model.answers), places, axis=0)  # (N, k, K)
        weighed = nodes.node("Mul", theirs, nodes.node("Unsqueeze", weights, nodes.last_axis))
        sums = nodes.node("ReduceSum", weighed, nodes.axis, keepdims=0)
    else:
        bound = model.radius if model.power in (1.0, np.inf) else model.radius**model.power
        within = nodes.node("LessOrEqual", apart, nodes.number(bound))
        weights = _weights(nodes, nodes.node("Where", within, apart, nodes.number(np.inf)), model)
        sums = nodes.node("MatMul", weights, nodes.known(model.answers))
    total = nodes.total(weights)
    if model.outlier is None:
        return nodes.node("Div", sums, total, output=output)
    nobody = nodes.node("Equal", total, zero)
    mean = nodes.node("Div", sums, nodes.node("Where", nobody, nodes.number(1.0), total))
    return nodes.node("Where", nobody, nodes.row(model.outlier), mean, output=output)


def _weights(nodes: Numbers, apart: str, model: Neighbours) -> str:
    if model.weighted:
        return _inverse(nodes, _root(nodes, apart, model.power))
    return nodes.cast(nodes.node("Less", apart, nodes.number(np.inf)))


def _root(nodes: Numbers, powers: str, power: float) -> str:
    if power in (1.0, np.inf):
        return powers
    return (
        nodes.node("Sqrt", powers) if power == 2.0 else nodes.node("Pow", powers, nodes.number(1.0 / power))
    )


def _inverse(nodes: Numbers, apart: str) -> str:
    """1 over each distance; where that is infinite for some, those alone count."""
    weights = nodes.node("Reciprocal", apart)
    same = nodes.cast(nodes.node("IsInf", weights))
    met = nodes.node("Greater", nodes.node("ReduceMax", same, axes=[1], keepdims=1), nodes.number(0.0))
    return nodes.node("Where", met, same, weights)
