"""Our own operators for skl2onnx: trees and boosters without loss, tables of categories, functions of NumPy by name."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from skl2onnx._supported_operators import _get_sklearn_operator_name
from skl2onnx.common._registration import get_shape_calculator
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType
from sklearn.base import is_classifier

from penstock.engine.models.packaging.boosters import booster_types, forest_of_booster, is_booster
from penstock.engine.models.packaging.sklearn_surrogate import FeatureTable, NamedFunction
from penstock.engine.trees.forest import Forest
from penstock.engine.trees.onnx.write import write_forest
from penstock.engine.trees.readers.sklearn import read_sklearn_trees, tree_kinds
from penstock.schemas.errors import ConfigError

opset_newest = 21
"""Of skl2onnx's converters; ONNX Runtime takes newer ones."""

_operators = {
    "absolute": "Abs", "arccos": "Acos", "arccosh": "Acosh", "arcsin": "Asin", "arcsinh": "Asinh", "arctan": "Atan",
    "arctanh": "Atanh", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh", "exp": "Exp", "fabs": "Abs", "floor": "Floor",
    "identity": "Identity", "log": "Log", "negative": "Neg", "positive": "Identity", "reciprocal": "Reciprocal",
    "rint": "Round", "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip
_only_float32 = frozenset({"Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan"})
"""Functions that ONNX Runtime computes in float32."""


def converters() -> tuple[dict[type, Any], dict[type, Any]]:
    """Conversion functions and shape calculators, by type of estimator."""
    shapes = {kind: get_shape_calculator(_get_sklearn_operator_name(kind)) for kind in tree_kinds}
    shapes |= dict.fromkeys(booster_types(), _booster_shapes)
    functions: dict[type, Any] = dict.fromkeys((*tree_kinds, *booster_types()), _add_trees)
    functions |= {FeatureTable: _add_table, NamedFunction: _add_function}
    shapes |= {FeatureTable: _table_shapes, NamedFunction: _same_shape}
    return functions, shapes


def _booster_shapes(operator: Any) -> None:
    rows = operator.inputs[0].get_first_dimension()
    model = operator.raw_operator
    if is_classifier(model):
        operator.outputs[0].type = Int64TensorType([rows])
        operator.outputs[1].type = FloatTensorType([rows, int(model.n_classes_)])
    else:
        operator.outputs[0].type = FloatTensorType([rows, 1])


def _table_shapes(operator: Any) -> None:
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = type(operator.inputs[0].type)([rows, len(operator.raw_operator.order)])


def _same_shape(operator: Any) -> None:
    operator.outputs[0].type = type(operator.inputs[0].type)(list(operator.inputs[0].type.shape))


def _forest(model: Any) -> tuple[Forest, bool, float | None]:
    """The trees, whether the answer is exp(raw score), and the number that stands for a missing value."""
    if is_booster(model):
        forest, cuts, exponential, marker = forest_of_booster(model)
        del cuts  # behind steps that mix features the doubles are rounded: the proof tells where that matters
        return forest, exponential, marker
    read = read_sklearn_trees(model)
    if read.categories and not _are_codes(read.categories):
        raise ConfigError(
            "its trees take categories that are no codes 0, 1, 2, ...: encode them with an OrdinalEncoder"
        )
    return read.forest, read.exponential, None


def _are_codes(categories: Any) -> bool:
    return all(list(values) == list(range(len(values))) for values in categories.values())


def _add_trees(scope: Any, operator: Any, container: Any) -> None:
    """Called by skl2onnx for each tree estimator of a model."""
    model = operator.raw_operator
    forest, exponential, marker = _forest(model)
    outputs = [variable.full_name for variable in operator.outputs]
    if forest.labels and isinstance(operator.outputs[0].type, Int64TensorType):
        known = [str(label) for label in forest.labels]
        whole = all(label.removeprefix("-").isdecimal() for label in known)
        forest = replace(forest, labels=tuple(known if whole else map(str, range(len(known)))))
    scores = scope.get_unique_variable_name("log") if exponential else outputs[-1]
    narrow = scope.get_unique_variable_name("narrow")
    proto = write_forest(
        replace(forest, output_name=scores),
        input_name=narrow,
        label_name=outputs[0] if forest.labels else "label",
    )
    kept = {*outputs, narrow, scores}
    names: dict[str, str] = {}

    def name_of(name: str) -> str:
        if name in kept or not name:
            return name
        if name not in names:
            names[name] = scope.get_unique_variable_name(name)
        return names[name]

    for tensor in proto.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).reshape(-1).tolist()
        container.add_initializer(name_of(tensor.name), tensor.data_type, list(tensor.dims), values)
    given = operator.inputs[0].full_name
    nodes = [helper.make_node("Cast", [given], [narrow], to=TensorProto.FLOAT)]
    if marker is not None:
        nodes = _marked(given, narrow, marker, container, name_of)
    last = [helper.make_node("Exp", [scores], outputs)] if exponential else []
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    for node in [*nodes, *proto.graph.node, *last]:
        attributes = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        container.add_node(
            node.op_type,
            [name_of(name) if name != given else name for name in node.input],
            [name_of(name) for name in node.output],
            op_domain=node.domain,
            op_version=versions.get(node.domain, 13),
            name=scope.get_unique_operator_name(node.op_type),
            **attributes,
        )


def _marked(given: str, narrow: str, marker: float, container: Any, name_of: Any) -> list[onnx.NodeProto]:
    """From given to narrow, with NaN for the number that stands for a missing value."""
    container.add_initializer(name_of("marker"), TensorProto.FLOAT, [1], [float(np.float32(marker))])
    container.add_initializer(name_of("nothing"), TensorProto.FLOAT, [1], [float("nan")])
    return [
        helper.make_node("Cast", [given], ["rounded"], to=TensorProto.FLOAT),
        helper.make_node("Equal", ["rounded", "marker"], ["is_marker"]),
        helper.make_node("Where", ["is_marker", "nothing", "rounded"], [narrow]),
    ]


class _Graph:
    """Nodes added to skl2onnx's graph, names of its own choosing."""

    def __init__(self, scope: Any, container: Any) -> None:
        self._scope, self._container = scope, container

    def tensor(self, values: NDArray[Any]) -> str:
        """An initializer."""
        name = str(self._scope.get_unique_variable_name("table"))
        kinds = {"f4": TensorProto.FLOAT, "f8": TensorProto.DOUBLE, "i8": TensorProto.INT64}
        self._container.add_initializer(
            name, kinds[values.dtype.str[1:]], list(values.shape), values.reshape(-1).tolist()
        )
        return name

    def node(self, kind: str, inputs: list[str], *, output: str = "", **attributes: Any) -> str:
        """A node of one output."""
        name = output or str(self._scope.get_unique_variable_name(kind.lower()))
        self._container.add_node(
            kind, inputs, [name], op_version=13, name=self._scope.get_unique_operator_name(kind), **attributes
        )
        return name


def _add_table(scope: Any, operator: Any, container: Any) -> None:
    model: FeatureTable = operator.raw_operator
    kind = np.float64 if isinstance(operator.inputs[0].type, DoubleTensorType) else np.float32
    graph = _Graph(scope, container)
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


def _add_function(scope: Any, operator: Any, container: Any) -> None:
    function: str = operator.raw_operator.function
    kind = np.float64 if isinstance(operator.inputs[0].type, DoubleTensorType) else np.float32
    graph = _Graph(scope, container)
    given, output = operator.inputs[0].full_name, operator.outputs[0].full_name

    def number(value: float) -> str:
        return graph.tensor(np.array([value], dtype=kind))

    if function == "log1p":
        graph.node("Log", [graph.node("Add", [given, number(1.0)])], output=output)
    elif function == "expm1":
        graph.node("Sub", [graph.node("Exp", [given]), number(1.0)], output=output)
    elif function in ("log2", "log10"):
        base = 2.0 if function == "log2" else 10.0
        graph.node("Div", [graph.node("Log", [given]), number(float(np.log(base)))], output=output)
    elif function in ("square", "exp2"):
        operands = [given, number(2.0)] if function == "square" else [number(2.0), given]
        graph.node("Pow", operands, output=output)
    elif function == "cbrt":
        root = graph.node("Pow", [graph.node("Abs", [given]), number(1.0 / 3.0)])
        graph.node("Mul", [graph.node("Sign", [given]), root], output=output)
    elif function in ("trunc", "fix"):
        whole = graph.node("Floor", [graph.node("Abs", [given])])
        graph.node("Mul", [graph.node("Sign", [given]), whole], output=output)
    elif function in _operators:
        operator_type = _operators[function]
        if operator_type in _only_float32 and kind is np.float64:
            low = graph.node("Cast", [given], to=TensorProto.FLOAT)
            graph.node("Cast", [graph.node(operator_type, [low])], to=TensorProto.DOUBLE, output=output)
        else:
            graph.node(operator_type, [given], output=output)
    else:
        raise ConfigError(f"NumPy's {function} has no ONNX operator: compute the column before the stream")
