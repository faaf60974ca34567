"""Trees and what a model makes of their sums, as a graph whose sums are an output that tree SHAP reads."""

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from penstock.engine.features.signature import Feature, ModelInput, Signature
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.models.packaging.converted import Converted, input_name
from penstock.engine.models.packaging.crowded import crowded
from penstock.engine.models.packaging.sklearn.operators.nodes import PlainNodes
from penstock.engine.models.packaging.sklearn.tails.sums import Tail
from penstock.engine.trees.covers import property_key, to_property
from penstock.engine.trees.forest import Forest, ordered
from penstock.engine.trees.onnx.read import read_forest
from penstock.engine.trees.onnx.rules import mapped
from penstock.engine.trees.onnx.write import write_forest
from penstock.schemas.errors import ConfigError, InvariantError

_raw = "trees/sums"
_whole_bits = 22
"""Bits of the largest sum in units: two fewer than float32 has, for what rounding each leaf to units may add."""
_foreign_errors = (ValueError, TypeError, RuntimeError, AttributeError, LookupError, ArithmeticError)


def of_sums(
    forest: Forest,
    tail: Tail,
    *,
    source: str,
    features: tuple[Feature, ...],
    labels: tuple[str, ...],
    cuts: tuple[tuple[float, ...], ...],
    notes: tuple[str, ...],
    predict: Callable[[NDArray[np.float64]], Any],
    predict_table: Callable[[Any], Any],
    ask: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    compared_with: str,
    predict_classes: Callable[[NDArray[np.float64]], NDArray[np.int64]],
) -> Converted:
    """The forest's K sums and the tail. `predict`: the original's own answers to matrix rows; `predict_table`: to a data frame;
    `ask`: Tail.ask of matrix rows; `predict_classes`: the class numbers (R,) that it says itself. Raises ConfigError where the operators cannot say it."""
    model, explained = _graph(forest, tail, [feature for feature, of_column in enumerate(cuts) if of_column])

    def score(rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        try:
            return {**answers(predict(rows)), tail.sums: _both(ask(rows), tail)}
        except _foreign_errors as error:
            raise ConfigError(f"the original model cannot predict the rows: {error}") from error

    def answers(found: Any) -> dict[str, NDArray[np.float64]]:
        return {tail.name: np.asarray(found, dtype=np.float64).reshape(len(found), -1)}

    return Converted(
        source=source,
        model=model,
        forest=explained,
        signature=Signature(
            features=features,
            inputs=(ModelInput(name=input_name, dtype="float32", start=0, width=forest.features),),
            cuts=cuts if any(cuts) else (),
        ),
        outputs=(
            ModelOutput(name=tail.name, width=tail.width, meaning=tail.meaning),
            ModelOutput(name=tail.sums, width=explained.classes, meaning=tail.sums_meaning),
        ),
        labels=Labels(classes=labels, output=tail.name, values=None) if labels else None,
        score=score,
        score_table=lambda table: answers(predict_table(table)),
        score_labels=predict_classes if labels else None,
        compared_with=compared_with,
        compared_by={tail.sums: tail.asks},
        decided_by_rounding=tail.decided_by_rounding,
        notes=(*notes, tail.note, *crowded(features, cuts)),
    )


def _both(sums: NDArray[np.float64], tail: Tail) -> NDArray[np.float64]:
    return sums if tail.whole is None else np.concatenate((tail.whole - sums, sums), axis=1)


def _graph(forest: Forest, tail: Tail, numbers: Collection[int]) -> tuple[bytes, Forest]:
    """The graph, and the trees that its sums are read as."""
    both = np.tile(np.eye(forest.outputs), (2, 1))
    weights = np.tile(tail.weights, (2, 1))
    proto = write_forest(replace(_in_two(forest), output_name=_raw), input_name=input_name, numbers=numbers)
    raw_forest = read_forest(proto)
    nodes = PlainNodes(proto.graph, "tail")
    parts = nodes.node("Cast", [_raw], to=TensorProto.DOUBLE)
    raw = nodes.node("MatMul", [parts, nodes.tensor(both)])
    answer = nodes.node("Cast", [tail.add(nodes, raw)], to=TensorProto.FLOAT)
    nodes.node("Identity", [answer], output=tail.name)
    sums = nodes.node("MatMul", [parts, nodes.tensor(weights)])
    if tail.whole is not None:
        first = (
            nodes.node("Sub", [nodes.tensor(np.ones(1)), sums]) if tail.whole else nodes.node("Neg", [sums])
        )
        sums = nodes.node("Concat", [first, sums], axis=1)
    nodes.node("Cast", [sums], output=tail.sums, to=TensorProto.FLOAT)
    width = tail.weights.shape[1] if tail.whole is None else 2
    proto.graph.ClearField("output")
    for name, count in ((tail.name, tail.width), (tail.sums, width)):
        proto.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, count]))
    # The covers in the file belong to the raw sums; those published are of other leaf values.
    published = mapped(raw_forest, weights)
    (entry,) = [item for item in proto.metadata_props if item.key == property_key]
    entry.value = to_property(ordered(published))
    data = proto.SerializeToString(deterministic=True)
    back = read_forest(data, inputs=[(input_name, forest.features)])
    if back.output_name != tail.sums or (back.cover is None) != (forest.cover is None):
        raise InvariantError("trees were written whose sums read back as something else")
    return data, back


def _in_two(forest: Forest) -> Forest:
    """The forest with each sum as two, (2K): whole multiples of a unit, which float32 adds up exactly, and what is left.

    An isotonic calibration may be so steep that the last digits of float32 are seen in the probability.
    """
    at_leaf = forest.leaf >= 0
    most = np.zeros((forest.trees, forest.outputs))
    values = np.abs(forest.leaf_values[forest.leaf[at_leaf]])
    np.maximum.at(most, forest.tree_of_node()[at_leaf], values)
    total = most.sum(axis=0) + np.abs(forest.base_values)
    unit = np.exp2(np.ceil(np.log2(np.where(total > 0, total, 1.0))) - _whole_bits)
    whole, whole_base = (np.rint(each / unit) * unit for each in (forest.leaf_values, forest.base_values))
    return replace(
        forest,
        outputs=2 * forest.outputs,
        leaf_values=np.concatenate((whole, forest.leaf_values - whole), axis=1),
        base_values=np.concatenate((whole_base, forest.base_values - whole_base)),
    )
