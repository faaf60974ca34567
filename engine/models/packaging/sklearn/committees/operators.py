"""Votes of pairs and of majorities as operators."""

from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx import get_model_alias
from skl2onnx.common.data_types import Int64TensorType

from penstock.engine.models.packaging.sklearn.committees.stand_ins import Majority, Pairs, Rest
from penstock.engine.models.packaging.sklearn.operators.combined import add_inside
from penstock.engine.models.packaging.sklearn.operators.graph_nodes import GraphNodes, kind_of
from penstock.engine.models.packaging.sklearn.operators.scores import add_label, add_pair_votes


def add_pairs(scope: Any, operator: Any, container: Any) -> None:
    """Of two classes the second one's alone, as the original answers."""
    graph, kind = GraphNodes(scope, container), kind_of(operator)
    model: Pairs = operator.raw_operator
    count = len(model.classes_)
    pairs = [(one, other) for one in range(count) for other in range(one + 1, count)]
    winners, losers = np.zeros((len(pairs), count)), np.zeros((len(pairs), count))
    sure, middles = [], []
    for place, ((one, other), member, shares) in enumerate(
        zip(pairs, model.members, model.shares, strict=True)
    ):
        winners[place, other] = losers[place, one] = 1.0
        found = add_inside(scope, operator, member, kind, graph)
        second = graph.tensor(np.array([1]))
        flat = graph.node("Gather", [found, second], axis=1) if shares else found
        sure.append(graph.node("Reshape", [flat, graph.tensor(np.array([-1, 1]))]))
        middles.append(0.5 if shares else 0.0)
    scores = graph.node("Concat", sure, axis=1)
    above = graph.node("Greater", [scores, graph.tensor(np.array([middles], dtype=kind))])
    won = graph.node("Cast", [above], to=TensorProto.DOUBLE if kind is np.float64 else TensorProto.FLOAT)
    lost = graph.node("Sub", [graph.tensor(np.ones(1, dtype=kind)), won])
    votes, share = add_pair_votes(graph, scores, won, lost, winners, losers, kind)
    output, label = operator.outputs[1].full_name, operator.outputs[0].full_name
    if count > 2:
        decision = graph.node("Add", [votes, share], output=output)
        add_label(graph, graph.node("ArgMax", [decision], axis=1, keepdims=0), model.classes_, label)
        return
    both = graph.node("Add", [votes, share])
    decision = graph.node("Gather", [both, graph.tensor(np.array([1]))], axis=1, output=output)
    above = graph.node("Greater", [decision, graph.tensor(np.array([middles], dtype=kind))])
    flat = graph.node("Reshape", [above, graph.tensor(np.array([-1]))])
    add_label(graph, graph.node("Cast", [flat], to=TensorProto.INT64), model.classes_, label)


def add_rest(scope: Any, operator: Any, container: Any) -> None:
    """Where all probabilities are 0 they stay so, as in the original."""
    graph, kind = GraphNodes(scope, container), kind_of(operator)
    model: Rest = operator.raw_operator
    output, label = operator.outputs[1].full_name, operator.outputs[0].full_name
    parts = []
    for member in model.members:
        found = add_inside(scope, operator, member, kind, graph)
        flat = graph.node("Gather", [found, graph.tensor(np.array([1]))], axis=1) if model.shares else found
        parts.append(graph.node("Reshape", [flat, graph.tensor(np.array([-1, 1]))]))
    scores = graph.node("Concat", parts, axis=1, output="" if model.shares else output)
    if model.shares:
        total = graph.node("ReduceSum", [scores, graph.tensor(np.array([1]))], keepdims=1)
        zero, one = (graph.tensor(np.array([each], dtype=kind)) for each in (0.0, 1.0))
        none = graph.node("Equal", [total, zero])
        graph.node("Div", [scores, graph.node("Where", [none, one, total])], output=output)
    if len(model.members) > 1:
        place = graph.node("ArgMax", [scores], axis=1, keepdims=0)
    else:
        above = graph.node("Greater", [scores, graph.tensor(np.zeros(1, dtype=kind))])
        flat = graph.node("Reshape", [above, graph.tensor(np.array([-1]))])
        place = graph.node("Cast", [flat], to=TensorProto.INT64)
    add_label(graph, place, model.classes_, label)


def add_majority(scope: Any, operator: Any, container: Any) -> None:
    """Of equally many votes the first class has it, as in the original."""
    graph, kind = GraphNodes(scope, container), kind_of(operator)
    model: Majority = operator.raw_operator
    places = graph.tensor(np.arange(len(model.classes_))[None])
    parts = []
    for member, weight in zip(model.members, model.weights.tolist(), strict=True):
        said = _label_inside(scope, operator, member)
        column = graph.node("Reshape", [said, graph.tensor(np.array([-1, 1]))])
        zero, votes = (graph.tensor(np.array([[each]], dtype=kind)) for each in (0.0, weight))
        parts.append(graph.node("Where", [graph.node("Equal", [column, places]), votes, zero]))
    total = graph.node("Sum", parts)
    whole = graph.tensor(np.array([model.weights.sum()], dtype=kind))
    graph.node("Div", [total, whole], output=operator.outputs[1].full_name)
    place = graph.node("ArgMax", [total], axis=1, keepdims=0)
    add_label(graph, place, model.classes_, operator.outputs[0].full_name)


def _label_inside(scope: Any, operator: Any, model: Any) -> str:
    """The class that an estimator inside this one says, (N,) whole numbers."""
    inner = scope.declare_local_operator(get_model_alias(type(model)), model)
    inner.inputs = operator.inputs
    inner.outputs.append(scope.declare_local_variable("label", Int64TensorType()))
    inner.outputs.append(scope.declare_local_variable("scores", type(operator.inputs[0].type)()))
    return str(inner.outputs[0].full_name)
