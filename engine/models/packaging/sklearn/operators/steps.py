"""Steps before a model: tables of known values, functions of NumPy by name, imputation."""

from typing import Any

import numpy as np
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

from penstock.engine.models.packaging.sklearn.operators.graph_nodes import GraphNodes, kind_of
from penstock.engine.models.packaging.sklearn.step_stand_ins import FeatureTable
from penstock.schemas.errors import ConfigError

_operators = {
    "absolute": "Abs", "arccos": "Acos", "arccosh": "Acosh", "arcsin": "Asin", "arcsinh": "Asinh", "arctan": "Atan",
    "arctanh": "Atanh", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh", "exp": "Exp", "fabs": "Abs", "floor": "Floor",
    "identity": "Identity", "log": "Log", "negative": "Neg", "positive": "Identity", "reciprocal": "Reciprocal",
    "rint": "Round", "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip
_only_float32 = frozenset({"Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan"})
"""Functions that ONNX Runtime computes in float32."""


def table_shapes(operator: Any) -> None:
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = type(operator.inputs[0].type)([rows, len(operator.raw_operator.order)])


def same_shape(operator: Any) -> None:
    operator.outputs[0].type = type(operator.inputs[0].type)(list(operator.inputs[0].type.shape))


def add_table(scope: Any, operator: Any, container: Any) -> None:
    model: FeatureTable = operator.raw_operator
    kind = np.float64 if isinstance(operator.inputs[0].type, DoubleTensorType) else np.float32
    graph = GraphNodes(scope, container)
    given = operator.inputs[0].full_name
    parts = []
    for column, (keys, table) in enumerate(zip(model.keys, model.tables, strict=True)):
        values = graph.node("Gather", [given, graph.tensor(np.array([column]))], axis=1)  # (N, 1)
        known = len(table) - 2
        if keys is None:
            missing = graph.node("IsNaN", [values])
            code = graph.node("Where", [missing, graph.tensor(np.array([[known + 1]], dtype=kind)), values])
            place = graph.node("Cast", [code], to=TensorProto.INT64)
        else:
            met = []
            if known:
                met.append(
                    graph.node(
                        "Cast",
                        [graph.node("Equal", [values, graph.tensor(keys[None].astype(kind))])],
                        to=TensorProto.FLOAT,
                    )
                )
            absent = graph.node("Cast", [graph.node("IsNaN", [values])], to=TensorProto.FLOAT)
            other = graph.node("Add", [graph.node("Mul", [absent, graph.tensor(np.zeros((1, 1), dtype=np.float32))]), graph.tensor(np.full((1, 1), 0.5, dtype=np.float32))])  # fmt: skip
            place = graph.node(
                "ArgMax", [graph.node("Concat", [*met, other, absent], axis=1)], axis=1, keepdims=1
            )
        rows = graph.node("Gather", [graph.tensor(table.astype(kind)), place], axis=0)  # (N, 1, w)
        parts.append(graph.node("Reshape", [rows, graph.tensor(np.array([-1, table.shape[1]]))]))
    joined = graph.node("Concat", parts, axis=1) if len(parts) > 1 else parts[0]
    graph.node(
        "Gather",
        [joined, graph.tensor(model.order.astype(np.int64))],
        axis=1,
        output=operator.outputs[0].full_name,
    )


def add_function(scope: Any, operator: Any, container: Any) -> None:
    function: str = operator.raw_operator.function
    kind = np.float64 if isinstance(operator.inputs[0].type, DoubleTensorType) else np.float32
    graph = GraphNodes(scope, container)
    given, output = operator.inputs[0].full_name, operator.outputs[0].full_name
    apply_function(graph, function, given, output, kind)


def apply_function(graph: GraphNodes, function: str, given: str, output: str, kind: type[Any]) -> None:
    def constant(value: float) -> str:
        return graph.tensor(np.array([value], dtype=kind))

    if function == "log1p":
        graph.node("Log", [graph.node("Add", [given, constant(1.0)])], output=output)
    elif function == "expm1":
        graph.node("Sub", [graph.node("Exp", [given]), constant(1.0)], output=output)
    elif function in ("log2", "log10"):
        base = 2.0 if function == "log2" else 10.0
        graph.node("Div", [graph.node("Log", [given]), constant(float(np.log(base)))], output=output)
    elif function in ("square", "exp2"):
        operands = [given, constant(2.0)] if function == "square" else [constant(2.0), given]
        graph.node("Pow", operands, output=output)
    elif function == "cbrt":
        root = graph.node("Pow", [graph.node("Abs", [given]), constant(1.0 / 3.0)])
        graph.node("Mul", [graph.node("Sign", [given]), root], output=output)
    elif function in ("trunc", "fix"):
        whole = graph.node("Floor", [graph.node("Abs", [given])])
        graph.node("Mul", [graph.node("Sign", [given]), whole], output=output)
    elif function in ("deg2rad", "radians", "rad2deg", "degrees"):
        factor = np.pi / 180 if function in ("deg2rad", "radians") else 180 / np.pi
        graph.node("Mul", [given, constant(factor)], output=output)
    elif function == "isnan":
        number = TensorProto.DOUBLE if kind is np.float64 else TensorProto.FLOAT
        graph.node("Cast", [graph.node("IsNaN", [given])], to=number, output=output)
    elif function in _operators:
        operator_type = _operators[function]
        if operator_type in _only_float32 and kind is np.float64:
            low = graph.node("Cast", [given], to=TensorProto.FLOAT)
            graph.node("Cast", [graph.node(operator_type, [low])], to=TensorProto.DOUBLE, output=output)
        else:
            graph.node(operator_type, [given], output=output)
    else:
        raise ConfigError(f"NumPy's {function} has no ONNX operator: compute the column before the stream")


def filled_shapes(operator: Any) -> None:
    rows = operator.inputs[0].get_first_dimension()
    width = len(operator.raw_operator.columns) + len(operator.raw_operator.marks)
    operator.outputs[0].type = type(operator.inputs[0].type)([rows, width])


def add_filled(scope: Any, operator: Any, container: Any) -> None:
    graph, model, kind = GraphNodes(scope, container), operator.raw_operator, kind_of(operator)

    def gaps(columns: str) -> str:
        if np.isnan(model.marker):
            return graph.node("IsNaN", [columns])
        return graph.node("Equal", [columns, graph.tensor(np.array([model.marker], dtype=kind))])

    given, output = operator.inputs[0].full_name, operator.outputs[0].full_name
    kept = graph.node("Gather", [given, graph.tensor(np.asarray(model.columns, dtype=np.int64))], axis=1)
    last = "" if len(model.marks) else output
    filled = graph.node(
        "Where", [gaps(kept), graph.tensor(model.values[None].astype(kind)), kept], output=last
    )
    if len(model.marks):
        marked = graph.node("Gather", [given, graph.tensor(model.marks)], axis=1)
        number = TensorProto.DOUBLE if kind is np.float64 else TensorProto.FLOAT
        graph.node("Concat", [filled, graph.node("Cast", [gaps(marked)], to=number)], axis=1, output=output)


def marks_shapes(operator: Any) -> None:
    """Of the output, as skl2onnx asks for it."""
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = type(operator.inputs[0].type)([rows, len(operator.raw_operator.columns)])


def add_marks(scope: Any, operator: Any, container: Any) -> None:
    """Where numbers of the chosen columns are missing."""
    graph, model, kind = GraphNodes(scope, container), operator.raw_operator, kind_of(operator)
    chosen = graph.node("Gather", [operator.inputs[0].full_name, graph.tensor(model.columns)], axis=1)
    if np.isnan(model.marker):
        gaps = graph.node("IsNaN", [chosen])
    else:
        gaps = graph.node("Equal", [chosen, graph.tensor(np.array([model.marker], dtype=kind))])
    number = TensorProto.DOUBLE if kind is np.float64 else TensorProto.FLOAT
    graph.node("Cast", [gaps], to=number, output=operator.outputs[0].full_name)


def bins_shapes(operator: Any) -> None:
    """Of the outputs, as skl2onnx asks for them."""
    rows = operator.inputs[0].get_first_dimension()
    model = operator.raw_operator
    width = sum(len(edges) + 1 for edges in model.edges) if model.one_hot else len(model.edges)
    operator.outputs[0].type = type(operator.inputs[0].type)([rows, width])


def add_bins(scope: Any, operator: Any, container: Any) -> None:
    """How many edges a value has reached, compared as the original does: in the numbers' own precision."""
    graph, model, kind = GraphNodes(scope, container), operator.raw_operator, kind_of(operator)
    given, parts = operator.inputs[0].full_name, []
    for column, edges in enumerate(model.edges):
        values = graph.node("Gather", [given, graph.tensor(np.array([column]))], axis=1)  # (N, 1)
        limits = np.asarray(edges, dtype=kind) if len(edges) else np.array([np.inf], dtype=kind)
        reached = graph.node("GreaterOrEqual", [values, graph.tensor(limits[None])])
        ones = graph.node("Cast", [reached], to=TensorProto.FLOAT)
        bin_number = graph.node("ReduceSum", [ones, graph.tensor(np.array([1]))], keepdims=1)
        if model.one_hot:
            numbers = graph.tensor(np.arange(len(edges) + 1, dtype=np.float32)[None])
            is_it = graph.node("Equal", [bin_number, numbers])
            bin_number = graph.node("Cast", [is_it], to=TensorProto.FLOAT)
        parts.append(bin_number)
    joined = graph.node("Concat", parts, axis=1)
    number = TensorProto.DOUBLE if kind is np.float64 else TensorProto.FLOAT
    graph.node("Cast", [joined], to=number, output=operator.outputs[0].full_name)


def add_above(scope: Any, operator: Any, container: Any) -> None:
    """Whether each number lies above the threshold."""
    graph, kind = GraphNodes(scope, container), kind_of(operator)
    threshold = graph.tensor(np.array([operator.raw_operator.threshold], dtype=kind))
    above = graph.node("Greater", [operator.inputs[0].full_name, threshold])
    number = TensorProto.DOUBLE if kind is np.float64 else TensorProto.FLOAT
    graph.node("Cast", [above], to=number, output=operator.outputs[0].full_name)


def narrow_shapes(operator: Any) -> None:
    operator.outputs[0].type = FloatTensorType(list(operator.inputs[0].type.shape))


def add_narrow(scope: Any, operator: Any, container: Any) -> None:
    graph = GraphNodes(scope, container)
    graph.node(
        "Cast", [operator.inputs[0].full_name], to=TensorProto.FLOAT, output=operator.outputs[0].full_name
    )
