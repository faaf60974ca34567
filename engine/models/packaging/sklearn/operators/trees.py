"""Tree ensembles inside a graph, without loss."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, Int64TensorType
from sklearn.base import is_classifier

from penstock.engine.models.packaging.converted import input_name, refused_mark
from penstock.engine.models.packaging.sklearn.boosters import forest_of_booster, is_booster
from penstock.engine.models.packaging.sklearn.operators.graph_nodes import GraphNodes, kind_of
from penstock.engine.models.packaging.sklearn.operators.ranks import ranked_thresholds, ranks_of_columns
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.engine.trees.onnx.write import write_forest
from penstock.engine.trees.readers.sklearn import read_isolation, read_sklearn_trees
from penstock.schemas.errors import ConfigError

Cuts = tuple[tuple[float, ...], ...]


def booster_shapes(operator: Any) -> None:
    rows = operator.inputs[0].get_first_dimension()
    model = operator.raw_operator
    if is_classifier(model):
        operator.outputs[0].type = Int64TensorType([rows])
        operator.outputs[1].type = FloatTensorType([rows, int(model.n_classes_)])
    else:
        operator.outputs[0].type = FloatTensorType([rows, 1])


def forest_of(model: Any) -> tuple[Forest, Cuts, bool, float | None]:
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


def add_trees(scope: Any, operator: Any, container: Any) -> None:
    """Called by skl2onnx for each tree estimator of a model."""
    model = operator.raw_operator
    forest, cuts, exponential, marker = forest_of(model)
    outputs = [variable.full_name for variable in operator.outputs]
    if forest.labels and isinstance(operator.outputs[0].type, Int64TensorType):
        known = [str(label) for label in forest.labels]
        whole = all(label.removeprefix("-").isdecimal() for label in known)
        forest = replace(forest, labels=tuple(known if whole else map(str, range(len(known)))))
    add_forest(
        scope,
        container,
        forest,
        operator.inputs[0].full_name,
        outputs,
        exponential=exponential,
        marker=marker,
        cuts=cuts,
        widens=_is_asked_for_doubles(operator),
        refused=_refused(model, operator),
    )


Refused = frozenset[str]
"""Operators that find what an estimator refuses to answer: IsInf, IsNaN."""


def _refused(model: Any, operator: Any) -> Refused:
    """What it refuses of numbers that steps made, by asking it. Of the features themselves their policies see to that."""
    if operator.inputs[0].raw_name == input_name:
        return frozenset()
    usual = np.zeros((1, int(model.n_features_in_)))
    kinds = {"IsInf": 2.0 * float(np.finfo(np.float32).max), "IsNaN": np.nan}
    return frozenset(
        kind
        for kind, number in kinds.items()
        if _is_answered(model, usual) and not _is_answered(model, np.where(usual == 0, number, usual))
    )


def _is_answered(model: Any, rows: NDArray[np.float64]) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (model.decision_function if hasattr(model, "score_samples") else model.predict)(rows)
    except (ValueError, TypeError, RuntimeError, AttributeError, ArithmeticError):
        return False
    return True


def _is_asked_for_doubles(operator: Any) -> bool:
    """Whether what follows takes the scores in double precision alone, as skl2onnx's vote does."""
    output = operator.outputs[-1]
    voted = str(output.raw_name).startswith("voting_proba")
    return isinstance(output.type, DoubleTensorType) or (
        voted and isinstance(operator.inputs[0].type, DoubleTensorType)
    )


def add_forest(
    scope: Any,
    container: Any,
    forest: Forest,
    given: str,
    outputs: list[str],
    *,
    exponential: bool = False,
    marker: float | None = None,
    cuts: Cuts = (),
    widens: bool = False,
    refused: Refused = frozenset(),
) -> None:
    """The trees as operators. `refused`: rows with such numbers are marked, so that their records are set aside."""
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
    last = []
    if widens:
        raw = "wide" if exponential else outputs[-1]
        last.append(helper.make_node("Cast", [scores], [raw], to=TensorProto.DOUBLE))
    if exponential:
        last.append(helper.make_node("Exp", ["wide" if widens else scores], outputs[-1:]))
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
    if refused:
        _add_refusals(narrow, sorted(refused), scope, container)


def _add_refusals(given: str, refused: Sequence[str], scope: Any, container: Any) -> None:
    """Of numbers (N, F), which rows hold one that the estimator refuses, (N, 1), by a name that is looked for in the end."""
    graph = GraphNodes(scope, container)
    zero = graph.tensor(np.zeros(1, dtype=np.float32))
    found = []
    for kind in refused:
        marks = graph.node("Cast", [graph.node(kind, [given])], to=TensorProto.FLOAT)
        found.append(graph.node("Greater", [graph.node("ReduceMax", [marks], axes=[1], keepdims=1), zero]))
    graph.node("Or", [found[0], found[-1]], output=str(scope.get_unique_variable_name(refused_mark)))


def _marked(given: str, narrow: str, marker: float, container: Any, name_of: Any) -> list[onnx.NodeProto]:
    """From given to narrow, with NaN for the number that stands for a missing value."""
    container.add_initializer(name_of("marker"), TensorProto.FLOAT, [1], [float(np.float32(marker))])
    container.add_initializer(name_of("nothing"), TensorProto.FLOAT, [1], [float("nan")])
    return [
        helper.make_node("Cast", [given], ["rounded"], to=TensorProto.FLOAT),
        helper.make_node("Equal", ["rounded", "marker"], ["is_marker"]),
        helper.make_node("Where", ["is_marker", "nothing", "rounded"], [narrow]),
    ]


def add_tree_margin(scope: Any, operator: Any, container: Any) -> None:
    forest, cuts, _, marker = forest_of(operator.raw_operator.trees)
    plain = replace(forest, post_transform=PostTransform.NONE, labels=())
    margin = str(scope.get_unique_variable_name("margin"))
    refused = _refused(operator.raw_operator.trees, operator)
    add_forest(
        scope,
        container,
        plain,
        operator.inputs[0].full_name,
        [margin],
        marker=marker,
        cuts=cuts,
        refused=refused,
    )
    kind = TensorProto.DOUBLE if kind_of(operator) is np.float64 else TensorProto.FLOAT
    GraphNodes(scope, container).node("Cast", [margin], to=kind, output=operator.outputs[0].full_name)


def add_isolation(scope: Any, operator: Any, container: Any) -> None:
    """2 to the power of the mean path's length, turned, less the offset."""
    graph, model, kind = GraphNodes(scope, container), operator.raw_operator.forest, kind_of(operator)
    forest, unit = read_isolation(model)
    lengths = str(scope.get_unique_variable_name("lengths"))
    add_forest(
        scope, container, forest, operator.inputs[0].full_name, [lengths], refused=_refused(model, operator)
    )
    wide = graph.node("Cast", [lengths], to=TensorProto.DOUBLE if kind is np.float64 else TensorProto.FLOAT)

    def number(value: float) -> str:
        return graph.tensor(np.array([value], dtype=kind))

    share = graph.node("Pow", [number(2.0), graph.node("Mul", [wide, number(-1.0 / unit)])])
    graph.node(
        "Sub",
        [graph.node("Neg", [share]), number(float(model.offset_))],
        output=operator.outputs[0].full_name,
    )
