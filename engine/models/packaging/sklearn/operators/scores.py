"""Models whose numbers are sums and products: linear ones, kernel machines, constants."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from skl2onnx.common.data_types import Int64TensorType, StringTensorType

from penstock.engine.models.packaging.sklearn.committees.stand_ins import Pairs, Rest
from penstock.engine.models.packaging.sklearn.kernels.mixtures import Mixture
from penstock.engine.models.packaging.sklearn.operators.graph_nodes import GraphNodes, kind_of
from penstock.engine.models.packaging.sklearn.operators.trees import forest_of
from penstock.engine.models.packaging.sklearn.stand_ins import (
    Chained,
    Constant,
    KernelDecision,
    LinearDecision,
    LinearScores,
    TreeMargin,
)
from penstock.engine.models.packaging.sklearn.step_stand_ins import Projection

_sigmoid_from: Final = -745.13
"""Below it a sigmoid is 0."""


def _width_of(model: Any) -> int:
    if isinstance(model, (LinearScores, Projection)):
        return len(model.coef)
    if isinstance(model, Chained):
        return len(model.order)
    if isinstance(model, TreeMargin):
        return forest_of(model.trees)[0].outputs
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
    if isinstance(model, (KernelDecision, Pairs)) and width == 2:
        width = 1
    if isinstance(model, Rest) and not model.shares:
        width = len(model.members)
    if isinstance(model, KernelDecision) and model.machine.decision_function_shape == "ovo":
        width = len(model.classes_) * (len(model.classes_) - 1) // 2
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
    if model.shares:
        _add_shares(graph, model.shares, scores, len(model.scores.coef), kind, output)
    _add_spoken_for(graph, scores, len(model.scores.coef), model.classes_, kind, operator)


def _add_shares(graph: GraphNodes, how: str, scores: str, count: int, kind: type[Any], output: str) -> None:
    """Probabilities from a linear model's scores (N, count)."""

    def number(value: float) -> str:
        return graph.tensor(np.array([value], dtype=kind))

    if how == "softmax" and count > 1:
        graph.node("Softmax", [scores], axis=1, output=output)
        return
    if how in ("each", "rest") and count > 1:
        # By their logarithms: a sigmoid that is small beside 1 has no digits here, and may be the largest.
        fallen = graph.node("Exp", [graph.node("Neg", [graph.node("Abs", [scores])])])
        less = graph.node("Log", [graph.node("Add", [fallen, number(1.0)])])
        logarithms = graph.node("Sub", [graph.node("Min", [scores, number(0.0)]), less])
        shared = graph.node("Softmax", [logarithms], axis=1)
        most = graph.node("ReduceMax", [scores], axes=[1], keepdims=1)
        none = graph.node("Less", [most, number(_sigmoid_from)])
        graph.node("Where", [none, number(np.nan if how == "each" else 0.0), shared], output=output)
        return
    if how == "clipped":
        within = graph.node("Max", [graph.node("Min", [scores, number(1.0)]), number(-1.0)])
        share = graph.node("Mul", [graph.node("Add", [within, number(1.0)]), number(0.5)])
    else:
        share = graph.node("Sigmoid", [scores])
    if count == 1:
        graph.node("Concat", [graph.node("Sub", [number(1.0), share]), share], axis=1, output=output)
        return
    total = graph.node("ReduceSum", [share, graph.tensor(np.array([1]))], keepdims=1)
    none = graph.node("Equal", [total, number(0.0)])
    shared = graph.node("Div", [share, graph.node("Where", [none, number(1.0), total])])
    graph.node("Where", [none, number(1.0 / count), shared], output=output)


def _add_spoken_for(
    graph: GraphNodes, scores: str, count: int, classes: Any, kind: type[Any], operator: Any
) -> None:
    """The class that decision values (N, count) speak for, the first output."""
    if count == 1:
        above = graph.node("Greater", [scores, graph.tensor(np.zeros(1, dtype=kind))])
        flat = graph.node("Reshape", [above, graph.tensor(np.array([-1]))])
        place = graph.node("Cast", [flat], to=TensorProto.INT64)
    else:
        place = graph.node("ArgMax", [scores], axis=1, keepdims=0)
    add_label(graph, place, classes, operator.outputs[0].full_name)


def add_mixture(scope: Any, operator: Any, container: Any) -> None:
    graph, kind = GraphNodes(scope, container), kind_of(operator)
    model: Mixture = operator.raw_operator
    given, output = operator.inputs[0].full_name, operator.outputs[1].full_name
    half, axis = graph.tensor(np.array([-0.5], dtype=kind)), graph.tensor(np.array([1]))
    parts = []
    for mean, factors in zip(model.means, model.factors, strict=True):
        apart = graph.node("Sub", [given, graph.tensor(mean[None].astype(kind))])
        turned = graph.node("MatMul", [apart, graph.tensor(np.ascontiguousarray(factors).astype(kind))])
        square = graph.node("ReduceSum", [graph.node("Mul", [turned, turned]), axis], keepdims=1)
        parts.append(graph.node("Mul", [square, half]))
    joined = graph.node("Concat", parts, axis=1)
    scores = graph.node("Add", [joined, graph.tensor(model.offsets[None].astype(kind))])
    graph.node("Softmax", [scores], axis=1, output=output)
    place = graph.node("ArgMax", [scores], axis=1, keepdims=0)
    add_label(graph, place, model.classes_, operator.outputs[0].full_name)


def add_kernel_scores(scope: Any, operator: Any, container: Any) -> None:
    graph, kind = GraphNodes(scope, container), kind_of(operator)
    machine = operator.raw_operator.machine
    coef = _dense(machine.dual_coef_)
    intercept = np.asarray(machine.intercept_, dtype=kind).reshape(-1)
    _add_kernel(
        graph, machine, operator.inputs[0].full_name, coef, intercept, kind, operator.outputs[0].full_name
    )


def add_kernel_decision(scope: Any, operator: Any, container: Any) -> None:
    """Of several classes: votes of all pairs, and how sure they are to break ties."""
    graph, kind = GraphNodes(scope, container), kind_of(operator)
    model: KernelDecision = operator.raw_operator
    machine, count = model.machine, len(model.classes_)
    given, output = operator.inputs[0].full_name, operator.outputs[1].full_name
    if count == 2:
        intercept = np.asarray(machine.intercept_, dtype=kind).reshape(-1)
        _add_kernel(graph, machine, given, _dense(machine.dual_coef_), intercept, kind, output)
        _add_spoken_for(graph, output, 1, model.classes_, kind, operator)
        return
    each_pair = machine.decision_function_shape == "ovo"
    pairs, (winners, losers) = add_machine_pairs(graph, machine, given, kind, output if each_pair else "")
    first = graph.node("Less", [pairs, graph.tensor(np.zeros(1, dtype=kind))])
    to = TensorProto.DOUBLE if kind is np.float64 else TensorProto.FLOAT
    lost = graph.node("Cast", [first], to=to)
    won = graph.node("Sub", [graph.tensor(np.ones(1, dtype=kind)), lost])
    votes, share = add_pair_votes(graph, pairs, won, lost, winners, losers, kind)
    both = graph.node("Add", [votes, share], output="" if each_pair else output)
    chosen = votes if not machine.break_ties else both
    _add_spoken_for(graph, chosen, count, model.classes_, kind, operator)


def add_machine_pairs(
    graph: GraphNodes, machine: Any, given: str, kind: type[Any], output: str = ""
) -> tuple[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The decision value of each pair of classes (N, P), above 0 for the first; and which class a pair speaks for, and against (P, K)."""
    count, intercept = len(machine.classes_), np.asarray(machine.intercept_, dtype=kind).reshape(-1)
    coef, speaks = _of_pairs(machine, count)
    if count == 2:  # scikit-learn turns their sign
        coef, intercept = -_dense(machine.dual_coef_), -intercept
    return _add_kernel(graph, machine, given, coef, intercept, kind, output), speaks


def add_pair_votes(
    graph: GraphNodes,
    scores: str,
    won: str,
    lost: str,
    winners: NDArray[np.float64],
    losers: NDArray[np.float64],
    kind: type[Any],
) -> tuple[str, str]:
    """What pairs of classes say of each class: their votes, and how sure they are, as less than a third of a vote; (N, K) each.

    `scores`, `won`, `lost` (N, P): of each pair its score, and 1 or 0 by it; `winners`, `losers` (P, K): for which class a pair
    that won speaks, and for which one that lost.
    """
    votes = graph.node(
        "Add",
        [
            graph.node("MatMul", [won, graph.tensor(winners.astype(kind))]),
            graph.node("MatMul", [lost, graph.tensor(losers.astype(kind))]),
        ],
    )
    sure = graph.node("MatMul", [scores, graph.tensor((winners - losers).astype(kind))])
    most = graph.node("Add", [graph.node("Abs", [sure]), graph.tensor(np.ones(1, dtype=kind))])
    share = graph.node("Div", [sure, graph.node("Mul", [most, graph.tensor(np.array([3.0], dtype=kind))])])
    return votes, share


def _of_pairs(
    machine: Any, count: int
) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Weights of the support vectors for each pair of classes (P, V), and which class a pair speaks for, and against (P, K)."""
    dual, owner = _dense(machine.dual_coef_), np.repeat(np.arange(count), machine.n_support_)
    pairs = [(one, other) for one in range(count) for other in range(one + 1, count)]
    coef = np.zeros((len(pairs), dual.shape[1]))
    winners, losers = np.zeros((len(pairs), count)), np.zeros((len(pairs), count))
    for place, (one, other) in enumerate(pairs):
        coef[place, owner == one] = dual[other - 1, owner == one]
        coef[place, owner == other] = dual[one, owner == other]
        winners[place, one] = losers[place, other] = 1.0
    return coef, (winners, losers)


def _dense(values: Any) -> NDArray[np.float64]:
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)


def _add_kernel(
    graph: GraphNodes,
    machine: Any,
    given: str,
    coef: NDArray[np.float64],
    intercept: NDArray[Any],
    kind: type[Any],
    output: str,
) -> str:
    """Sums over the support vectors, weighted (K, V): (N, K)."""
    vectors = _dense(machine.support_vectors_)
    if (
        machine.kernel == "rbf"
    ):  # distances between numbers near each other, far from 0, would lose their digits
        middle = vectors.mean(axis=0)
        vectors = vectors - middle
        given = graph.node("Sub", [given, graph.tensor(middle[None].astype(kind))])
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
    return graph.node("Add", [total, graph.tensor(intercept)], output=output)


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
