"""Our own operators for skl2onnx: trees and boosters without loss, tables of categories, functions of NumPy by name."""

import functools
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from skl2onnx import get_model_alias, update_registered_converter
from skl2onnx._supported_operators import _get_sklearn_operator_name
from skl2onnx.common._registration import get_shape_calculator
from skl2onnx.common.data_types import (
    DoubleTensorType,
    FloatTensorType,
    Int64TensorType,
    StringTensorType,
)
from sklearn.base import ClassifierMixin, is_classifier

from penstock.engine.models.packaging.sklearn.boosters import booster_types, forest_of_booster, is_booster
from penstock.engine.models.packaging.sklearn.ranks import ranked_thresholds, ranks_of_columns
from penstock.engine.models.packaging.sklearn.stand_ins import (
    Calibrated,
    Constant,
    ConstantShares,
    Filled,
    Isolation,
    KernelScores,
    LinearDecision,
    LinearScores,
    Narrow,
    Retargeted,
    TreeMargin,
)
from penstock.engine.models.packaging.sklearn.surrogate import FeatureTable, NamedFunction
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.engine.trees.onnx.write import write_forest
from penstock.engine.trees.readers.sklearn import read_isolation, read_sklearn_trees, tree_kinds
from penstock.schemas.errors import ConfigError

opset_newest = 21
"""Of skl2onnx's converters; ONNX Runtime takes newer ones."""

_operators = {
    "absolute": "Abs", "arccos": "Acos", "arccosh": "Acosh", "arcsin": "Asin", "arcsinh": "Asinh", "arctan": "Atan",
    "arctanh": "Atanh", "ceil": "Ceil", "cos": "Cos", "cosh": "Cosh", "exp": "Exp", "fabs": "Abs", "floor": "Floor",
    "identity": "Identity", "log": "Log", "negative": "Neg", "positive": "Identity", "reciprocal": "Reciprocal",
    "rint": "Round", "sign": "Sign", "sin": "Sin", "sinh": "Sinh", "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip
_class_options = {
    "zipmap": [True, False, "columns"],
    "nocl": [True, False],
    "output_class_labels": [False, True],
    "raw_scores": [True, False],
}
"""What skl2onnx asks of every classifier; ours answer in one way."""
_only_float32 = frozenset({"Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan"})
"""Functions that ONNX Runtime computes in float32."""


@functools.cache
def register() -> None:
    """Tell skl2onnx of our operators, for estimators inside others too. Once in a process."""
    for kind in tree_kinds:
        _register(kind, get_shape_calculator(_get_sklearn_operator_name(kind)), _add_trees)
    for kind in booster_types():
        _register(kind, _booster_shapes, _add_trees)
    for kind, shapes, add in (
        (FeatureTable, _table_shapes, _add_table),
        (NamedFunction, _same_shape, _add_function),
        (LinearScores, _score_shapes, _add_linear_scores),
        (LinearDecision, _class_shapes, _add_linear_decision),
        (KernelScores, _score_shapes, _add_kernel_scores),
        (TreeMargin, _score_shapes, _add_tree_margin),
        (Constant, _score_shapes, _add_constant),
        (ConstantShares, _class_shapes, _add_constant_shares),
        (Calibrated, _class_shapes, _add_calibrated),
        (Retargeted, _score_shapes, _add_retargeted),
        (Isolation, _score_shapes, _add_isolation),
        (Filled, _filled_shapes, _add_filled),
        (Narrow, _narrow_shapes, _add_narrow),
    ):
        _register(kind, shapes, add)


def _register(kind: type, shapes: Any, add: Any) -> None:
    options = _class_options if issubclass(kind, ClassifierMixin) else None
    update_registered_converter(kind, f"Penstock{kind.__name__}", shapes, add, options=options)


def is_known(model: Any) -> bool:
    """Whether there is a way into ONNX for this kind of estimator."""
    try:
        return bool(_get_sklearn_operator_name(type(model)))
    except (RuntimeError, KeyError, ValueError):
        return False


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


_Cuts = tuple[tuple[float, ...], ...]


def _forest(model: Any) -> tuple[Forest, _Cuts, bool, float | None]:
    """The trees, the cuts of its columns, whether the answer is exp(raw score), and the number that stands for a missing
    value."""
    if is_booster(model):
        return forest_of_booster(model)
    read = read_sklearn_trees(model)
    if read.categories and not _are_codes(read.categories):
        raise ConfigError(
            "its trees take categories that are no codes 0, 1, 2, ...: encode them with an OrdinalEncoder"
        )
    return read.forest, read.cuts, read.exponential, None


def _are_codes(categories: Any) -> bool:
    return all(list(values) == list(range(len(values))) for values in categories.values())


def _add_trees(scope: Any, operator: Any, container: Any) -> None:
    """Called by skl2onnx for each tree estimator of a model."""
    model = operator.raw_operator
    forest, cuts, exponential, marker = _forest(model)
    outputs = [variable.full_name for variable in operator.outputs]
    if forest.labels and isinstance(operator.outputs[0].type, Int64TensorType):
        known = [str(label) for label in forest.labels]
        whole = all(label.removeprefix("-").isdecimal() for label in known)
        forest = replace(forest, labels=tuple(known if whole else map(str, range(len(known)))))
    _add_forest(
        scope,
        container,
        forest,
        operator.inputs[0].full_name,
        outputs,
        exponential=exponential,
        marker=marker,
        cuts=cuts,
        widens=_is_voted_in_doubles(operator),
    )


def _is_voted_in_doubles(operator: Any) -> bool:
    """Whether skl2onnx's vote weighs these scores in double precision, and takes no others."""
    voted = str(operator.outputs[-1].raw_name).startswith("voting_proba")
    return voted and isinstance(operator.inputs[0].type, DoubleTensorType)


def _add_forest(
    scope: Any,
    container: Any,
    forest: Forest,
    given: str,
    outputs: list[str],
    *,
    exponential: bool = False,
    marker: float | None = None,
    cuts: _Cuts = (),
    widens: bool = False,
) -> None:
    scores = scope.get_unique_variable_name("scores") if exponential or widens else outputs[-1]
    narrow = scope.get_unique_variable_name("narrow")
    if any(cuts):
        forest = replace(forest, threshold=ranked_thresholds(forest, cuts))
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
    nodes = [helper.make_node("Cast", [given], [narrow], to=TensorProto.FLOAT)]
    if marker is not None:
        nodes = _marked(given, narrow, marker, container, name_of)
    if any(cuts):
        nodes = ranks_of_columns(given, narrow, cuts, container, name_of)
    last = [helper.make_node("Exp", [scores], outputs)] if exponential else []
    if widens:
        last = [helper.make_node("Cast", [scores], outputs[-1:], to=TensorProto.DOUBLE)]
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

    def texts(self, values: list[str]) -> str:
        """An initializer of texts."""
        name = str(self._scope.get_unique_variable_name("texts"))
        self._container.add_initializer(
            name, TensorProto.STRING, [len(values)], [text.encode() for text in values]
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
    _apply_function(graph, function, given, output, kind)


def _apply_function(graph: _Graph, function: str, given: str, output: str, kind: type[Any]) -> None:
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


def _filled_shapes(operator: Any) -> None:
    rows = operator.inputs[0].get_first_dimension()
    width = len(operator.raw_operator.columns) + len(operator.raw_operator.marks)
    operator.outputs[0].type = type(operator.inputs[0].type)([rows, width])


def _add_filled(scope: Any, operator: Any, container: Any) -> None:
    graph, model, kind = _Graph(scope, container), operator.raw_operator, _kind_of(operator)

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


def _narrow_shapes(operator: Any) -> None:
    operator.outputs[0].type = FloatTensorType(list(operator.inputs[0].type.shape))


def _add_narrow(scope: Any, operator: Any, container: Any) -> None:
    graph = _Graph(scope, container)
    graph.node(
        "Cast", [operator.inputs[0].full_name], to=TensorProto.FLOAT, output=operator.outputs[0].full_name
    )


def _kind_of(operator: Any) -> type[Any]:
    return np.float64 if isinstance(operator.inputs[0].type, DoubleTensorType) else np.float32


def _width_of(model: Any) -> int:
    if isinstance(model, LinearScores):
        return len(model.coef)
    if isinstance(model, TreeMargin):
        return read_sklearn_trees(model.trees).forest.outputs
    return len(model.values) if isinstance(model, Constant) else 1


def _score_shapes(operator: Any) -> None:
    rows = operator.inputs[0].get_first_dimension()
    operator.outputs[0].type = type(operator.inputs[0].type)([rows, _width_of(operator.raw_operator)])


def _class_shapes(operator: Any) -> None:
    rows = operator.inputs[0].get_first_dimension()
    model = operator.raw_operator
    width = len(model.classes_)
    if isinstance(model, LinearDecision) and not model.shares:
        width = len(model.scores.coef)
    texts = np.asarray(model.classes_).dtype.kind in "OUS"
    operator.outputs[0].type = StringTensorType([rows]) if texts else Int64TensorType([rows])
    operator.outputs[1].type = type(operator.inputs[0].type)([rows, width])


def _add_scores(graph: _Graph, model: LinearScores, given: str, kind: type[Any], output: str = "") -> str:
    product = graph.node("MatMul", [given, graph.tensor(np.ascontiguousarray(model.coef.T).astype(kind))])
    return graph.node("Add", [product, graph.tensor(np.array(model.intercept, dtype=kind))], output=output)


def _add_linear_scores(scope: Any, operator: Any, container: Any) -> None:
    graph = _Graph(scope, container)
    given, output = operator.inputs[0].full_name, operator.outputs[0].full_name
    _add_scores(graph, operator.raw_operator, given, _kind_of(operator), output)


def _add_label(graph: _Graph, place: str, classes: Any, output: str) -> None:
    """From the place of a class (N,) to the class."""
    known = np.asarray(classes)
    table = (
        graph.texts([str(each) for each in known])
        if known.dtype.kind in "OUS"
        else graph.tensor(known.astype(np.int64))
    )
    graph.node("Gather", [table, place], axis=0, output=output)


def _add_linear_decision(scope: Any, operator: Any, container: Any) -> None:
    graph, model, kind = _Graph(scope, container), operator.raw_operator, _kind_of(operator)
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
    _add_label(graph, place, model.classes_, operator.outputs[0].full_name)


def _add_kernel_scores(scope: Any, operator: Any, container: Any) -> None:
    graph, kind = _Graph(scope, container), _kind_of(operator)
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


def _add_tree_margin(scope: Any, operator: Any, container: Any) -> None:
    read = read_sklearn_trees(operator.raw_operator.trees)
    plain = replace(read.forest, post_transform=PostTransform.NONE, labels=())
    margin = str(scope.get_unique_variable_name("margin"))
    _add_forest(scope, container, plain, operator.inputs[0].full_name, [margin], cuts=read.cuts)
    kind = TensorProto.DOUBLE if _kind_of(operator) is np.float64 else TensorProto.FLOAT
    _Graph(scope, container).node("Cast", [margin], to=kind, output=operator.outputs[0].full_name)


def _add_rows_of(graph: _Graph, given: str, values: NDArray[Any], output: str) -> None:
    """The same row of values for each row given."""
    first = graph.node("Gather", [given, graph.tensor(np.array([0]))], axis=1)
    missing = graph.node("IsNaN", [first])
    zero = graph.node(
        "Mul", [graph.node("Cast", [missing], to=TensorProto.INT64), graph.tensor(np.array([[0]]))]
    )
    flat = graph.node("Reshape", [zero, graph.tensor(np.array([-1]))])
    graph.node("Gather", [graph.tensor(values[None]), flat], axis=0, output=output)


def _add_constant(scope: Any, operator: Any, container: Any) -> None:
    values = np.asarray(operator.raw_operator.values, dtype=_kind_of(operator))
    _add_rows_of(
        _Graph(scope, container), operator.inputs[0].full_name, values, operator.outputs[0].full_name
    )


def _add_constant_shares(scope: Any, operator: Any, container: Any) -> None:
    graph, model = _Graph(scope, container), operator.raw_operator
    shares = operator.outputs[1].full_name
    values = np.asarray(model.values, dtype=_kind_of(operator))
    _add_rows_of(graph, operator.inputs[0].full_name, values, shares)
    _add_label(
        graph,
        graph.node("ArgMax", [shares], axis=1, keepdims=0),
        model.classes_,
        operator.outputs[0].full_name,
    )


def _add_inside(scope: Any, operator: Any, model: Any, kind: type[Any], graph: _Graph) -> str:
    """The numbers that an estimator inside this one answers, in `kind`."""
    inner = scope.declare_local_operator(get_model_alias(type(model)), model)
    inner.inputs = operator.inputs
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


def _add_calibrated(scope: Any, operator: Any, container: Any) -> None:
    graph, model, kind = _Graph(scope, container), operator.raw_operator, _kind_of(operator)
    count = len(model.classes_)
    parts = []
    for member, calibrators in zip(model.scores, model.calibrators, strict=True):
        scores = _add_inside(scope, operator, member, kind, graph)
        shares_only = is_classifier(member)
        columns = []
        for number, calibrator in enumerate(calibrators):
            place = 1 if count == 2 and shares_only else number
            column = graph.node("Gather", [scores, graph.tensor(np.array([place]))], axis=1)
            columns.append(_add_calibrator(graph, calibrator, column, kind))
        if count == 2:
            parts.append(columns[0])
            continue
        joined = graph.node("Concat", columns, axis=1)
        total = graph.node("ReduceSum", [joined, graph.tensor(np.array([1]))], keepdims=1)
        none = graph.node("Equal", [total, graph.tensor(np.zeros(1, dtype=kind))])
        even = graph.tensor(np.full((1, count), 1.0 / count, dtype=kind))
        whole = graph.node("Where", [none, graph.tensor(np.ones(1, dtype=kind)), total])
        parts.append(graph.node("Where", [none, even, graph.node("Div", [joined, whole])]))
    total = graph.node("Sum", parts)
    mean = graph.node("Div", [total, graph.tensor(np.array([len(parts)], dtype=kind))])
    shares = operator.outputs[1].full_name
    if count == 2:
        graph.node(
            "Concat",
            [graph.node("Sub", [graph.tensor(np.ones(1, dtype=kind)), mean]), mean],
            axis=1,
            output=shares,
        )
    else:
        graph.node("Identity", [mean], output=shares)
    _add_label(
        graph,
        graph.node("ArgMax", [shares], axis=1, keepdims=0),
        model.classes_,
        operator.outputs[0].full_name,
    )


def _add_calibrator(graph: _Graph, calibrator: Any, column: str, kind: type[Any]) -> str:
    """A sigmoid, or a line from point to point."""

    def numbers(values: Any) -> str:
        return graph.tensor(np.asarray(values, dtype=kind).reshape(-1))

    if hasattr(calibrator, "a_"):
        raised = graph.node(
            "Add", [graph.node("Mul", [column, numbers(-calibrator.a_)]), numbers(-calibrator.b_)]
        )
        return graph.node("Sigmoid", [raised])
    x = np.asarray(calibrator.X_thresholds_, dtype=np.float64)
    y = np.asarray(calibrator.y_thresholds_, dtype=np.float64)
    if len(x) == 1:
        return graph.node("Add", [graph.node("Mul", [column, numbers(0.0)]), numbers(y[0])])
    within = graph.node("Max", [graph.node("Min", [column, numbers(x[-1])]), numbers(x[0])])
    passed = graph.node("Cast", [graph.node("GreaterOrEqual", [within, graph.tensor(x[None].astype(kind))])], to=TensorProto.INT64)  # fmt: skip
    met = graph.node("ReduceSum", [passed, graph.tensor(np.array([1]))], keepdims=1)
    place = graph.node("Sub", [graph.node("Min", [met, graph.tensor(np.array([len(x) - 1]))]), graph.tensor(np.array([1]))])  # fmt: skip
    start = graph.node("Gather", [numbers(x[:-1]), place], axis=0)
    level = graph.node("Gather", [numbers(y[:-1]), place], axis=0)
    slope = graph.node("Gather", [numbers(np.diff(y) / np.diff(x)), place], axis=0)
    return graph.node("Add", [level, graph.node("Mul", [graph.node("Sub", [within, start]), slope])])


def _add_retargeted(scope: Any, operator: Any, container: Any) -> None:
    graph, model, kind = _Graph(scope, container), operator.raw_operator, _kind_of(operator)
    answers = _add_inside(scope, operator, model.regressor, kind, graph)
    flat = graph.node("Reshape", [answers, graph.tensor(np.array([-1, 1]))])
    scaled = graph.node("Mul", [flat, graph.tensor(np.array([model.slope], dtype=kind))])
    moved = graph.node("Add", [scaled, graph.tensor(np.array([model.offset], dtype=kind))])
    _apply_function(graph, model.function, moved, operator.outputs[0].full_name, kind)


def _add_isolation(scope: Any, operator: Any, container: Any) -> None:
    """2 to the power of the mean path's length, turned, less the offset."""
    graph, model, kind = _Graph(scope, container), operator.raw_operator.forest, _kind_of(operator)
    forest, unit = read_isolation(model)
    lengths = str(scope.get_unique_variable_name("lengths"))
    _add_forest(scope, container, forest, operator.inputs[0].full_name, [lengths])
    wide = graph.node("Cast", [lengths], to=TensorProto.DOUBLE if kind is np.float64 else TensorProto.FLOAT)

    def number(value: float) -> str:
        return graph.tensor(np.array([value], dtype=kind))

    share = graph.node("Pow", [number(2.0), graph.node("Mul", [wide, number(-1.0 / unit)])])
    graph.node(
        "Sub",
        [graph.node("Neg", [share]), number(float(model.offset_))],
        output=operator.outputs[0].full_name,
    )
