"""What a PMML file makes of sums at the end: link functions, and the middle one of several numbers."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray

from penstock.engine.models.packaging.pmml.expressions import Expression
from penstock.engine.models.packaging.pmml.graph import FormulaGraph

_of_erfc: Final = (
    -0.6513268598908546, 0.6419697923564903, 0.01947647320418599, -0.00956151478680877, -0.0009465953444818436,
    0.000366839497852929, 4.252332480722756e-05, -2.0278578112589495e-05, -1.6242900045665848e-06, 1.3036558350951403e-06,
    1.5626441525366904e-08, -8.523809684575394e-08, 6.529054237429495e-09, 5.059342765247375e-09, -9.913642898049182e-10,
    -2.273651523464738e-10, 9.646800452473442e-11, 2.3937347830400753e-12, -6.886004587049509e-12, 8.955400523711013e-13,
    3.1274555594835036e-13, -1.1215387592992207e-13,
)  # fmt: skip
"""Of t exp(-z^2 + P(4 t - 2)) = erfc(z), with t = 2 / (2 + z), z not negative: P by Chebyshev polynomials on [-2, 2]."""


def linked(graph: FormulaGraph, terms: Sequence[Expression], link: str, whose: int | None) -> str:
    """The answer (N, 1) or (N, K) as a tensor; of two classes with one term, `whose` is the place of its class."""
    names = [graph.take(term) for term in terms]
    stacked = names[0] if len(names) == 1 else graph.call("Concat", *names, axis=1)
    made = _linked(graph, stacked, link, len(names))
    if whose is None:
        return made
    other = graph.call("Sub", graph.constant([[1.0]]), made)
    pair = [made, other] if whose == 0 else [other, made]
    return graph.call("Concat", *pair, axis=1)


def _linked(graph: FormulaGraph, value: str, link: str, width: int) -> str:
    def exp(of: str) -> str:
        return graph.call("Exp", of)

    def negative(of: str) -> str:
        return graph.call("Neg", of)

    if link == "exp":
        return exp(value)
    if link == "logit":
        return graph.call("Sigmoid", value)
    if link == "softmax":
        return graph.call("Softmax", value, axis=1)
    if link == "simplemax":
        return graph.call(
            "Div", value, graph.call("ReduceSum", value, graph.constant([1], np.int64), keepdims=1)
        )
    if link == "cloglog":
        return graph.call("Sub", graph.constant([[1.0]]), exp(negative(exp(value))))
    if link == "loglog":
        return exp(negative(exp(negative(value))))
    if link == "probit":
        return _normal(graph, value)
    if link == "cauchit":
        return _cauchy(graph, value)
    if link == "median":
        return _middle(graph, value, width)
    return value


def _normal(graph: FormulaGraph, value: str) -> str:
    """The normal distribution up to a value, to the last digits on both sides: no operator has it in doubles."""

    def number(held: float) -> str:
        return graph.constant([[held]])

    far = graph.call("Mul", graph.call("Abs", value), number(math.sqrt(0.5)))
    share = graph.call("Div", number(2.0), graph.call("Add", number(2.0), far))
    place = graph.call("Sub", graph.call("Mul", number(4.0), share), number(2.0))
    later = last = number(0.0)
    for coefficient in reversed(_of_erfc[1:]):
        step = graph.call("Sub", graph.call("Mul", place, later), last)
        later, last = graph.call("Add", step, number(coefficient)), later
    polynomial = graph.call("Mul", number(0.5), graph.call("Mul", place, later))
    polynomial = graph.call("Add", graph.call("Sub", polynomial, last), number(_of_erfc[0]))
    raised = graph.call("Exp", graph.call("Sub", polynomial, graph.call("Mul", far, far)))
    tail = graph.call("Mul", number(0.5), graph.call("Mul", share, raised))
    below = graph.call("Less", value, number(0.0))
    found = graph.call("Where", below, tail, graph.call("Sub", number(1.0), tail))
    return graph.call("Where", graph.call("IsNaN", value), value, found)


def _cauchy(graph: FormulaGraph, value: str) -> str:
    """The Cauchy distribution up to a value; the operator has single precision, far from a half it is asked for the small rest."""

    def angle(of: str) -> str:
        narrow = graph.call("Atan", graph.call("Cast", of, to=onnx.TensorProto.FLOAT))
        wide = graph.call("Cast", narrow, to=onnx.TensorProto.DOUBLE)
        return graph.call("Mul", wide, graph.constant([[1.0 / math.pi]]))

    def number(held: float) -> str:
        return graph.constant([[held]])

    near = graph.call("Add", number(0.5), angle(value))
    rest = graph.call("Neg", angle(graph.call("Div", number(1.0), value)))
    far = graph.call(
        "Where", graph.call("Less", value, number(0.0)), rest, graph.call("Add", number(1.0), rest)
    )
    is_far = graph.call("Greater", graph.call("Abs", value), number(1.0))
    return graph.call("Where", is_far, far, near)


def _middle(graph: FormulaGraph, value: str, width: int) -> str:
    """Of (N, width) the middle one (N, 1): of an even number the mean of two."""
    wanted = {width // 2, (width - 1) // 2}
    count = graph.constant([max(wanted) + 1], np.int64)
    ordered = graph.call("TopK", value, count, axis=1, largest=1, sorted=1, outputs=2)
    kept = graph.call("Gather", ordered, graph.constant(sorted(wanted), np.int64), axis=1)
    middle = graph.call("ReduceMean", kept, axes=[1], keepdims=1)
    return _where_all_are(graph, value, middle)


def _where_all_are(graph: FormulaGraph, value: str, made: str) -> str:
    """Nothing is in order beside a NaN: it makes the sum one, and is passed on."""
    total = graph.call("ReduceSum", value, graph.constant([1], np.int64), keepdims=1)
    gone = graph.call(
        "ReduceMax",
        graph.call("Cast", graph.call("IsNaN", value), to=onnx.TensorProto.INT32),
        axes=[1],
        keepdims=1,
    )
    return graph.call("Where", graph.call("Cast", gone, to=onnx.TensorProto.BOOL), total, made)


def with_median(model: bytes, *, name: str, width: int) -> bytes:
    """A model whose one output (N, width) of floats becomes its median; the output keeps its name, (N, 1)."""
    found = onnx.load_model_from_string(model)
    graph = FormulaGraph((), {}, prefix="of_all_")
    several = "of_all"
    for node in found.graph.node:
        node.output[:] = [several if each == name else each for each in node.output]
    made = _middle(graph, several, width)
    graph.append_to(found.graph, made, name)
    found.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    return bytes(found.SerializeToString(deterministic=True))


def reference(terms: NDArray[np.float64], link: str) -> NDArray[np.float64]:
    """The link of sums (R, K), in doubles."""
    with np.errstate(over="ignore"):
        if link == "exp":
            return np.exp(terms)
        if link == "logit":
            return np.asarray(1.0 / (1.0 + np.exp(-terms)))
        if link == "softmax":
            raised = np.exp(terms - terms.max(axis=1, keepdims=True))
            return np.asarray(raised / raised.sum(axis=1, keepdims=True))
        if link == "median":
            return np.median(terms, axis=1, keepdims=True)
    return terms
