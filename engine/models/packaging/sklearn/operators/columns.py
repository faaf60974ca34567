"""Steps of columns: choices, weights, quantiles, norms, products."""

from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

from penstock.engine.models.packaging.sklearn.operators.graph_nodes import GraphNodes, kind_of
from penstock.engine.models.packaging.sklearn.step_stand_ins import (
    Chosen,
    Normalized,
    Powers,
    Products,
    Quantiles,
)

_bounds_near = 1e-7
"""How near the least and the greatest quantile a number counts as beyond it, where the answer is a normal deviate."""
# Wichura's algorithm AS 241 (1988): the normal deviate of a share, to 16 digits.
_middle = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3, 2.1213794301586595867e4,
     3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_near = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1, 1.48103976427480074590e-1,
     1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_far = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2, 7.86869131145613259100e-4,
     1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip


def _number(kind: type[Any]) -> int:
    return TensorProto.DOUBLE if kind is np.float64 else TensorProto.FLOAT


def chosen_shapes(operator: Any) -> None:
    """Of the output, as skl2onnx asks for it."""
    model: Chosen = operator.raw_operator
    given = operator.inputs[0].type
    model.is_given_doubles = isinstance(given, DoubleTensorType)
    kind = FloatTensorType if model.narrow else type(given)
    operator.outputs[0].type = kind([operator.inputs[0].get_first_dimension(), len(model.columns)])


def add_chosen(scope: Any, operator: Any, container: Any) -> None:
    graph, model = GraphNodes(scope, container), operator.raw_operator
    given, output = operator.inputs[0].full_name, operator.outputs[0].full_name
    places = graph.tensor(np.asarray(model.columns, dtype=np.int64))
    if not model.narrow:
        graph.node("Gather", [given, places], axis=1, output=output)
        return
    graph.node("Cast", [graph.node("Gather", [given, places], axis=1)], to=TensorProto.FLOAT, output=output)


def scaled_shapes(operator: Any) -> None:
    """Of the output, as skl2onnx asks for it."""
    kind = DoubleTensorType if operator.raw_operator.begin.is_given_doubles else FloatTensorType
    operator.outputs[0].type = kind(list(operator.inputs[0].type.shape))


def add_scaled(scope: Any, operator: Any, container: Any) -> None:
    graph, model = GraphNodes(scope, container), operator.raw_operator
    given, output = operator.inputs[0].full_name, operator.outputs[0].full_name
    kind = np.float64 if isinstance(operator.outputs[0].type, DoubleTensorType) else np.float32
    wide = graph.node("Cast", [given], to=_number(kind))
    graph.node("Mul", [wide, graph.tensor(np.array([model.factor], dtype=kind))], output=output)


def add_normalized(scope: Any, operator: Any, container: Any) -> None:
    graph, kind = GraphNodes(scope, container), kind_of(operator)
    model: Normalized = operator.raw_operator
    given, output = operator.inputs[0].full_name, operator.outputs[0].full_name
    axis = graph.tensor(np.array([1]))
    if model.norm == "l2":
        total = graph.node("ReduceSum", [graph.node("Mul", [given, given]), axis], keepdims=1)
        norm = graph.node("Sqrt", [total])
    elif model.norm == "l1":
        norm = graph.node("ReduceSum", [graph.node("Abs", [given]), axis], keepdims=1)
    else:
        norm = graph.node("ReduceMax", [graph.node("Abs", [given])], axes=[1], keepdims=1)
    # scikit-learn takes a row so short for one of zeros.
    least = graph.tensor(np.array([10 * np.finfo(kind).eps], dtype=kind))
    none = graph.node("Less", [norm, least])
    graph.node(
        "Div", [given, graph.node("Where", [none, graph.tensor(np.ones(1, dtype=kind)), norm])], output=output
    )


def products_shapes(operator: Any) -> None:
    """Of the output, as skl2onnx asks for it."""
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = type(operator.inputs[0].type)([rows, len(operator.raw_operator.factors)])


def add_products(scope: Any, operator: Any, container: Any) -> None:
    graph, kind = GraphNodes(scope, container), kind_of(operator)
    model: Products = operator.raw_operator
    given, output = operator.inputs[0].full_name, operator.outputs[0].full_name
    first = graph.node("Gather", [given, graph.tensor(np.array([0]))], axis=1)
    one = graph.node(
        "Where", [graph.node("IsNaN", [first]), *[graph.tensor(np.ones((1, 1), dtype=kind))] * 2]
    )
    row = graph.node("Concat", [given, one], axis=1)
    product = ""
    for places in model.factors.T[
        ::-1
    ]:  # from the last, as the original multiplies: what overflows on the way does so here too
        factor = graph.node("Gather", [row, graph.tensor(np.ascontiguousarray(places))], axis=1)
        product = graph.node("Mul", [product, factor]) if product else factor
    graph.node("Identity", [product], output=output)


def add_quantiles(scope: Any, operator: Any, container: Any) -> None:
    """Between two quantiles a straight line; on one that was met several times, the middle of its shares."""
    graph, kind = GraphNodes(scope, container), kind_of(operator)
    model: Quantiles = operator.raw_operator
    given = operator.inputs[0].full_name
    wide = graph.node("Cast", [given], to=TensorProto.DOUBLE)
    parts = [_column(graph, model, wide, column) for column in range(model.quantiles.shape[1])]
    joined = graph.node("Concat", parts, axis=1)
    graph.node("Cast", [joined], to=_number(kind), output=operator.outputs[0].full_name)


def _column(graph: GraphNodes, model: Quantiles, given: str, column: int) -> str:
    quantiles, shares = model.quantiles[:, column], model.shares
    last = len(quantiles) - 1

    def number(value: Any) -> str:
        return graph.tensor(np.asarray(value, dtype=np.float64).reshape(1, 1))

    def count(comparison: str) -> str:
        met = graph.node(comparison, [x, graph.tensor(quantiles[None])])
        whole = graph.node("Cast", [met], to=TensorProto.INT64)
        return graph.node("ReduceSum", [whole, graph.tensor(np.array([1]))], keepdims=1)

    x = graph.node("Gather", [given, graph.tensor(np.array([column]))], axis=1)
    if last == 0:
        line = graph.node("Where", [graph.node("IsNaN", [x]), x, number(shares[0])])
    else:
        upto, below = count("GreaterOrEqual"), count("Greater")
        zero, one = graph.tensor(np.array([0])), graph.tensor(np.array([1]))
        start = graph.node("Max", [graph.node("Sub", [upto, one]), zero])
        segment = graph.node("Min", [start, graph.tensor(np.array([last - 1]))])
        steps = np.diff(quantiles)
        slopes = np.divide(np.diff(shares), steps, out=np.zeros(last), where=steps > 0)
        away = graph.node("Sub", [x, graph.node("Gather", [graph.tensor(quantiles[:-1]), segment], axis=0)])
        rise = graph.node("Mul", [away, graph.node("Gather", [graph.tensor(slopes), segment], axis=0)])
        between = graph.node(
            "Add", [rise, graph.node("Gather", [graph.tensor(shares[:-1]), segment], axis=0)]
        )
        table = graph.tensor(shares)
        lowest = graph.node(
            "Gather", [table, graph.node("Min", [below, graph.tensor(np.array([last]))])], axis=0
        )
        middle = graph.node("Add", [graph.node("Gather", [table, start], axis=0), lowest])
        middle = graph.node("Mul", [middle, number(0.5)])
        on_one = graph.node("Greater", [upto, below])
        line = graph.node("Where", [on_one, middle, between])
    # What lies beyond the ends is at them.
    near = _bounds_near if model.normal else 0.0
    over = graph.node(
        "Greater" if model.normal else "GreaterOrEqual",
        [graph.node("Add", [x, number(near)]), number(quantiles[-1])],
    )
    under = graph.node(
        "Less" if model.normal else "LessOrEqual",
        [graph.node("Sub", [x, number(near)]), number(quantiles[0])],
    )
    line = graph.node("Where", [over, number(1.0), line])
    line = graph.node("Where", [under, number(0.0), line])
    if model.normal:
        line = _deviate(graph, line)
    return graph.node("Where", [graph.node("IsNaN", [x]), x, line])


def _deviate(graph: GraphNodes, share: str) -> str:
    """The normal deviate of a share (N, 1) in double precision, kept within what scikit-learn keeps it in."""

    def number(value: float) -> str:
        return graph.tensor(np.array([[value]], dtype=np.float64))

    def ratio(tables: tuple[tuple[float, ...], ...], at: str) -> str:
        ends = []
        for table in tables:
            total = number(table[-1])
            for term in table[-2::-1]:
                total = graph.node("Add", [graph.node("Mul", [total, at]), number(term)])
            ends.append(total)
        return graph.node("Div", ends)

    off = graph.node("Sub", [share, number(0.5)])
    inner = graph.node("Mul", [off, ratio(_middle, graph.node("Sub", [number(0.180625), graph.node("Mul", [off, off])]))])  # fmt: skip
    tail = graph.node("Min", [share, graph.node("Sub", [number(1.0), share])])
    tail = graph.node("Max", [tail, number(1e-300)])
    root = graph.node("Sqrt", [graph.node("Neg", [graph.node("Log", [tail])])])
    near = ratio(_near, graph.node("Sub", [root, number(1.6)]))
    far = ratio(_far, graph.node("Sub", [root, number(5.0)]))
    outer = graph.node("Where", [graph.node("LessOrEqual", [root, number(5.0)]), near, far])
    outer = graph.node("Mul", [graph.node("Sign", [off]), outer])
    is_inner = graph.node("LessOrEqual", [graph.node("Abs", [off]), number(0.425)])
    found = graph.node("Where", [is_inner, inner, outer])
    deviates = NormalDist()
    least = deviates.inv_cdf(_bounds_near - np.spacing(1))
    most = deviates.inv_cdf(1 - (_bounds_near - np.spacing(1)))
    return graph.node("Min", [graph.node("Max", [found, number(least)]), number(most)])


def add_powers(scope: Any, operator: Any, container: Any) -> None:
    graph, kind = GraphNodes(scope, container), kind_of(operator)
    model: Powers = operator.raw_operator
    given = graph.node("Cast", [operator.inputs[0].full_name], to=TensorProto.DOUBLE)

    def row(values: Any) -> str:
        return graph.tensor(
            np.broadcast_to(np.asarray(values, dtype=np.float64), (1, len(model.exponents))).copy()
        )

    def power(bases: str, exponents: NDArray[np.float64]) -> str:
        """(b ** e - 1) / e, of e = 0 the logarithm."""
        none = np.abs(exponents) < np.spacing(1.0)
        divisors = np.where(none, 1.0, exponents)
        less_one = graph.node("Sub", [graph.node("Pow", [bases, row(divisors)]), row(1.0)])
        found = graph.node("Div", [less_one, row(divisors)])
        if not none.any():
            return found
        is_none = graph.node("Greater", [row(none), row(0.5)])
        return graph.node("Where", [is_none, graph.node("Log", [bases]), found])

    if model.positive:
        found = power(given, model.exponents)
    else:
        above = graph.node("GreaterOrEqual", [given, row(0.0)])
        size = graph.node("Add", [graph.node("Abs", [given]), row(1.0)])
        right = power(size, model.exponents)
        left = graph.node("Neg", [power(size, 2.0 - model.exponents)])
        found = graph.node("Where", [above, right, left])
    line = graph.node("Div", [graph.node("Sub", [found, row(model.mean)]), row(model.scale)])
    line = graph.node("Where", [graph.node("IsNaN", [given]), given, line])
    graph.node("Cast", [line], to=_number(kind), output=operator.outputs[0].full_name)
