"""Models whose numbers are sums and products: linear ones, kernel machines, constants."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from skl2onnx.common.data_types import Int64TensorType, StringTensorType

from penstock.engine.models.packaging.sklearn.operators.graph_nodes import GraphNodes, kind_of
from penstock.engine.models.packaging.sklearn.stand_ins import (
    Constant,
    LinearDecision,
    LinearScores,
    Projection,
    TreeMargin,
)
from penstock.engine.trees.readers.sklearn import read_sklearn_trees


def _width_of(model: Any) -> int:
    if isinstance(model, (LinearScores, Projection)):
        return len(model.coef)
    if isinstance(model, TreeMargin):
        return read_sklearn_trees(model.trees).forest.outputs
    return len(model.values) if isinstance(model, Constant) else 1


def score_shapes(operator: Any) -> None:
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = type(operator.inputs[0].type)([rows, _width_of(operator.raw_operator)])


def class_shapes(operator: Any) -> None:
    rows = operator.inputs[0].get_first_dimension()
    model = operator.raw_operator
    width = len(model.classes_)
    if isinstance(model, LinearDecision) and not model.shares:
        width = len(model.scores.coef)
    texts = np.asarray(model.classes_).dtype.kind in "OUS"
    operator.outputs[0].type = StringTensorType([rows]) if texts else Int64TensorType([rows])
    operator.outputs[1].type = type(operator.inputs[0].type)([rows, width])


def _add_scores(
    graph: GraphNodes, model: LinearScores | Projection, given: str, kind: type[Any], output: str = ""
) -> str:
    product = graph.node("MatMul", [given, graph.tensor(np.ascontiguousarray(model.coef.T).astype(kind))])
    return graph.node("Add", [product, graph.tensor(np.array(model.intercept, dtype=kind))], output=output)


def add_linear_scores(scope: Any, operator: Any, container: Any) -> None:
    graph = GraphNodes(scope, container)
    given, output = operator.inputs[0].full_name, operator.outputs[0].full_name
    _add_scores(graph, operator.raw_operator, given, kind_of(operator), output)


def add_label(graph: GraphNodes, place: str, classes: Any, output: str) -> None:
    """From the place of a class (N,) to the class."""
    known = np.asarray(classes)
    table = (
        graph.texts([str(each) for each in known])
        if known.dtype.kind in "OUS"
        else graph.tensor(known.astype(np.int64))
    )
    graph.node("Gather", [table, place], axis=0, output=output)


def add_linear_decision(scope: Any, operator: Any, container: Any) -> None:
    graph, model, kind = GraphNodes(scope, container), operator.raw_operator, kind_of(operator)
    output = operator.outputs[1].full_name
    scores = _add_scores(
        graph, model.scores, operator.inputs[0].full_name, kind, "" if model.shares else output
    )
    if model.shares and len(model.scores.coef) == 1:
        share = graph.node("Sigmoid", [scores])
        other = graph.node("Sub", [graph.tensor(np.ones(1, dtype=kind)), share])
        graph.node("Concat", [other, share], axis=1, output=output)
    elif model.shares:
        graph.node("Softmax", [scores], axis=1, output=output)
    if len(model.scores.coef) == 1:
        above = graph.node("Greater", [scores, graph.tensor(np.zeros(1, dtype=kind))])
        flat = graph.node("Reshape", [above, graph.tensor(np.array([-1]))])
        place = graph.node("Cast", [flat], to=TensorProto.INT64)
    else:
        place = graph.node("ArgMax", [scores], axis=1, keepdims=0)
    add_label(graph, place, model.classes_, operator.outputs[0].full_name)


def add_kernel_scores(scope: Any, operator: Any, container: Any) -> None:
    graph, kind = GraphNodes(scope, container), kind_of(operator)
    machine = operator.raw_operator.machine
    given = operator.inputs[0].full_name
    vectors = machine.support_vectors_
    vectors = np.asarray(vectors.toarray() if hasattr(vectors, "toarray") else vectors, dtype=np.float64)
    coef = machine.dual_coef_
    coef = np.asarray(coef.toarray() if hasattr(coef, "toarray") else coef, dtype=np.float64)
    product = graph.node("MatMul", [given, graph.tensor(np.ascontiguousarray(vectors.T).astype(kind))])

    def number(value: float) -> str:
        return graph.tensor(np.array([value], dtype=kind))

    gamma = float(machine._gamma)
    if machine.kernel == "rbf":
        squares = graph.node("Mul", [given, given])
        own = graph.node("ReduceSum", [squares, graph.tensor(np.array([1]))], keepdims=1)
        twice = graph.node("Mul", [product, number(2.0)])
        apart = graph.node("Sub", [graph.node("Add", [own, graph.tensor((vectors**2).sum(axis=1)[None].astype(kind))]), twice])  # fmt: skip
        product = graph.node("Exp", [graph.node("Mul", [apart, number(-gamma)])])
    elif machine.kernel != "linear":
        scaled = graph.node("Mul", [product, number(gamma)])
        product = graph.node("Add", [scaled, number(float(machine.coef0))])
        if machine.kernel == "poly":
            product = graph.node("Pow", [product, number(float(machine.degree))])
        else:
            product = graph.node("Tanh", [product])
    total = graph.node("MatMul", [product, graph.tensor(np.ascontiguousarray(coef.T).astype(kind))])
    intercept = np.asarray(machine.intercept_, dtype=kind).reshape(-1)
    graph.node("Add", [total, graph.tensor(intercept)], output=operator.outputs[0].full_name)


def _add_rows_of(graph: GraphNodes, given: str, values: NDArray[Any], output: str) -> None:
    """The same row of values for each row given."""
    first = graph.node("Gather", [given, graph.tensor(np.array([0]))], axis=1)
    missing = graph.node("IsNaN", [first])
    zero = graph.node(
        "Mul", [graph.node("Cast", [missing], to=TensorProto.INT64), graph.tensor(np.array([[0]]))]
    )
    flat = graph.node("Reshape", [zero, graph.tensor(np.array([-1]))])
    graph.node("Gather", [graph.tensor(values[None]), flat], axis=0, output=output)


def add_constant(scope: Any, operator: Any, container: Any) -> None:
    values = np.asarray(operator.raw_operator.values, dtype=kind_of(operator))
    _add_rows_of(
        GraphNodes(scope, container), operator.inputs[0].full_name, values, operator.outputs[0].full_name
    )


def add_constant_shares(scope: Any, operator: Any, container: Any) -> None:
    graph, model = GraphNodes(scope, container), operator.raw_operator
    shares = operator.outputs[1].full_name
    values = np.asarray(model.values, dtype=kind_of(operator))
    _add_rows_of(graph, operator.inputs[0].full_name, values, shares)
    add_label(
        graph,
        graph.node("ArgMax", [shares], axis=1, keepdims=0),
        model.classes_,
        operator.outputs[0].full_name,
    )
