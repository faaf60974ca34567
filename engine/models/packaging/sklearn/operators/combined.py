"""Models around others: calibrated ones, and regressors of a transformed target."""

from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx import get_model_alias
from skl2onnx.common.data_types import Int64TensorType, StringTensorType
from sklearn.base import is_classifier

from penstock.engine.models.packaging.sklearn.operators.calibrators import add_calibrator, mean_of_shares
from penstock.engine.models.packaging.sklearn.operators.graph_nodes import GraphNodes, kind_of
from penstock.engine.models.packaging.sklearn.operators.scores import add_label
from penstock.engine.models.packaging.sklearn.operators.steps import apply_function


def add_inside(
    scope: Any, operator: Any, model: Any, kind: type[Any], graph: GraphNodes, given: Any = None
) -> str:
    """The numbers that an estimator inside this one answers, in `kind`; `given`: variables in place of this one's inputs."""
    inner = scope.declare_local_operator(get_model_alias(type(model)), model)
    inner.inputs = operator.inputs if given is None else given
    tensor = type(operator.inputs[0].type)
    if is_classifier(model):
        texts = np.asarray(model.classes_).dtype.kind in "OUS"
        inner.outputs.append(
            scope.declare_local_variable("label", StringTensorType() if texts else Int64TensorType())
        )
    inner.outputs.append(scope.declare_local_variable("scores", tensor()))
    return graph.node(
        "Cast",
        [inner.outputs[-1].full_name],
        to=TensorProto.DOUBLE if kind is np.float64 else TensorProto.FLOAT,
    )


def add_calibrated(scope: Any, operator: Any, container: Any) -> None:
    graph, model, kind = GraphNodes(scope, container), operator.raw_operator, kind_of(operator)
    count = len(model.classes_)
    parts = []
    for member, calibrators in zip(model.scores, model.calibrators, strict=True):
        scores = add_inside(scope, operator, member, kind, graph)
        shares_only = is_classifier(member)
        columns = []
        for number, calibrator in enumerate(calibrators):
            place = 1 if count == 2 and shares_only else number
            column = graph.node("Gather", [scores, graph.tensor(np.array([place]))], axis=1)
            columns.append(add_calibrator(graph, calibrator, column, kind))
        parts.append(columns)
    shares = operator.outputs[1].full_name
    mean_of_shares(graph, parts, count, kind, output=shares)
    add_label(
        graph,
        graph.node("ArgMax", [shares], axis=1, keepdims=0),
        model.classes_,
        operator.outputs[0].full_name,
    )


def add_retargeted(scope: Any, operator: Any, container: Any) -> None:
    graph, model, kind = GraphNodes(scope, container), operator.raw_operator, kind_of(operator)
    answers = add_inside(scope, operator, model.regressor, kind, graph)
    flat = graph.node("Reshape", [answers, graph.tensor(np.array([-1, 1]))])
    scaled = graph.node("Mul", [flat, graph.tensor(np.array([model.slope], dtype=kind))])
    moved = graph.node("Add", [scaled, graph.tensor(np.array([model.offset], dtype=kind))])
    apply_function(graph, model.function, moved, operator.outputs[0].full_name, kind)


def add_stacked(scope: Any, operator: Any, container: Any) -> None:
    graph, model, kind = GraphNodes(scope, container), operator.raw_operator, kind_of(operator)
    parts = []
    for each, loses_first in model.below:
        scores = add_inside(scope, operator, each, kind, graph)
        second = graph.tensor(np.array([1]))
        parts.append(graph.node("Gather", [scores, second], axis=1) if loses_first else scores)
    if model.passes_on:
        parts.append(operator.inputs[0].full_name)
    joined = scope.declare_local_variable("stacked", type(operator.inputs[0].type)([None, None]))
    graph.node("Concat", parts, axis=1, output=joined.full_name)
    shares = operator.outputs[1].full_name
    graph.node("Identity", [add_inside(scope, operator, model.final, kind, graph, [joined])], output=shares)
    add_label(
        graph,
        graph.node("ArgMax", [shares], axis=1, keepdims=0),
        model.classes_,
        operator.outputs[0].full_name,
    )


def add_chained(scope: Any, operator: Any, container: Any) -> None:
    graph, model, kind = GraphNodes(scope, container), operator.raw_operator, kind_of(operator)
    parts = [operator.inputs[0].full_name]
    for each in model.regressors:
        given = operator.inputs
        if len(parts) > 1:
            joined = scope.declare_local_variable("chained", type(operator.inputs[0].type)([None, None]))
            graph.node("Concat", parts, axis=1, output=joined.full_name)
            given = [joined]
        answer = add_inside(scope, operator, each, kind, graph, given)
        parts.append(graph.node("Reshape", [answer, graph.tensor(np.array([-1, 1]))]))
    answers = graph.node("Concat", parts[1:], axis=1)
    places = graph.tensor(np.argsort(model.order).astype(np.int64))
    graph.node("Gather", [answers, places], axis=1, output=operator.outputs[0].full_name)


def add_median(scope: Any, operator: Any, container: Any) -> None:
    graph, model, kind = GraphNodes(scope, container), operator.raw_operator, kind_of(operator)
    count = len(model.weights)
    answers = [
        graph.node(
            "Reshape",
            [add_inside(scope, operator, each, kind, graph), graph.tensor(np.array([-1, 1]))],
        )
        for each in model.regressors
    ]
    joined = graph.node("Concat", answers, axis=1)
    values, places = (str(scope.get_unique_variable_name(name)) for name in ("sorted", "places"))
    container.add_node(
        "TopK", [joined, graph.tensor(np.array([count]))], [values, places], op_version=11, axis=1, largest=0,
        name=scope.get_unique_operator_name("TopK"),
    )  # fmt: skip
    # In double precision whatever the rest is in: where half of the weights is reached is compared.
    weights = graph.node(
        "Gather", [graph.tensor(np.asarray(model.weights, dtype=np.float64)), places], axis=0
    )
    upto = graph.node("CumSum", [weights, graph.tensor(np.array([1]))])
    total = graph.node("Gather", [upto, graph.tensor(np.array([count - 1]))], axis=1)
    half = graph.node("Mul", [total, graph.tensor(np.array([0.5]))])
    reached = graph.node("Cast", [graph.node("GreaterOrEqual", [upto, half])], to=TensorProto.INT64)
    place = graph.node("ArgMax", [reached], axis=1, keepdims=1)
    graph.node("GatherElements", [values, place], axis=1, output=operator.outputs[0].full_name)


def add_votes(scope: Any, operator: Any, container: Any) -> None:
    graph, model, kind = GraphNodes(scope, container), operator.raw_operator, kind_of(operator)
    count = len(model.classes_)
    places = graph.tensor(np.arange(count)[None])
    parts = []
    for tree, weight in zip(model.trees, model.weights.tolist(), strict=True):
        shares = add_inside(scope, operator, tree, kind, graph)
        chosen = graph.node("Equal", [graph.node("ArgMax", [shares], axis=1, keepdims=1), places])
        for_it, against = (np.array([[vote * weight]], dtype=kind) for vote in (1.0, -1.0 / (count - 1)))
        parts.append(graph.node("Where", [chosen, graph.tensor(for_it), graph.tensor(against)]))
    scores = graph.node("Sum", parts)
    if count > 2:
        scores = graph.node("Div", [scores, graph.tensor(np.array([count - 1], dtype=kind))])
    graph.node("Softmax", [scores], axis=1, output=operator.outputs[1].full_name)
    add_label(
        graph,
        graph.node("ArgMax", [scores], axis=1, keepdims=0),
        model.classes_,
        operator.outputs[0].full_name,
    )
