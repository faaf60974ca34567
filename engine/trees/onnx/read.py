"""Reads an ONNX model as a tree ensemble."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from penstock.engine.trees.covers import from_property, property_key
from penstock.engine.trees.forest import Forest, PostTransform, features_max, ordered
from penstock.engine.trees.onnx.attributes import array_of
from penstock.engine.trees.onnx.nodes import NotATreeError, forest_of_node, operators
from penstock.engine.trees.onnx.rules import (
    Columns,
    Constant,
    Labels,
    Numbers,
    Refused,
    Rest,
    Scores,
    Value,
    applied,
)
from penstock.schemas.errors import ConfigError

__all__ = ["NotATreeError", "read_forest"]

_model_bytes_max = 1 << 30
_bytes_of_any = 1 << 28
_bytes_each = 8
_bytes_least = 1 << 14
"""What operators around the trees may make of them, in bytes: so much of any file, and so many for each byte of it; each of
them counts as a few pages, for it takes time."""
_input_numbers = {
    onnx.TensorProto.FLOAT: Numbers.FLOAT32,
    onnx.TensorProto.BOOL: Numbers.FLOAT32,
    onnx.TensorProto.INT64: Numbers.INTEGER,
    onnx.TensorProto.INT32: Numbers.INTEGER,
    onnx.TensorProto.DOUBLE: Numbers.FLOAT64,
}


def read_forest(
    model: bytes | onnx.ModelProto,
    output: str | None = None,
    *,
    inputs: Sequence[tuple[str, int]] | None = None,
) -> Forest:
    """The tree ensemble behind a model's scores, in canonical order, with the covers that the file carries.

    `output` names the graph output to explain; by default the first that carries scores, before any exp() of them.
    `inputs` are the names and widths of the graph's inputs in the order in which the row's columns feed them; by
    default as the graph declares them.

    Raises NotATreeError, naming the operator or form, when the model cannot be explained exactly as trees;
    ConfigError when it is broken.
    """
    proto = _parsed(model) if isinstance(model, bytes) else model
    named = (*proto.graph.input, *proto.graph.output, *proto.graph.initializer)
    # Where a text is not UTF-8, protobuf hands out bytes.
    if not all(isinstance(item.name, str) for item in named):
        raise ConfigError("the ONNX model has a name that is not UTF-8")
    columns = _columns(proto.graph, inputs)
    values: dict[str, Value] = dict(columns.items())
    values |= {tensor.name: _constant(tensor) for tensor in proto.graph.initializer}
    properties = {item.key: item.value for item in proto.metadata_props}
    ours = property_key in properties
    room, known = _bytes_of_any + _bytes_each * proto.ByteSize(), set[int]()
    for node in proto.graph.node:
        unknown = Refused(why=f"operator {node.op_type[:40]} reads a tensor that is not there")
        given = [values.get(name, unknown) for name in node.input if name]
        made = _evaluated(node, given, copies=not ours)
        room -= sum(_new_bytes(value, known) for value in made)
        if room < 0:
            raise ConfigError("the operators of the ONNX model blow its tree ensemble up beyond all measure")
        values.update(zip(node.output, made, strict=False))
    forest = ordered(_chosen(proto.graph, values, output))
    if all(value.place is not None for value in columns.values()):
        width = sum(len(value.place) for value in columns.values() if value.place is not None)
        forest = replace(forest, features=width)
    return replace(forest, cover=from_property(properties[property_key], forest)) if ours else forest


def _parsed(data: bytes) -> onnx.ModelProto:
    if len(data) > _model_bytes_max:
        raise ConfigError(f"the ONNX model has {len(data)} bytes, more than {_model_bytes_max}")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ConfigError("the model is not an ONNX file, or is cut off") from error
    return model


def _columns(graph: onnx.GraphProto, inputs: Sequence[tuple[str, int]] | None) -> dict[str, Columns]:
    """The row's columns, dealt out to the graph's inputs."""
    constant = {tensor.name for tensor in graph.initializer}
    declared = {item.name: item.type.tensor_type for item in graph.input if item.name not in constant}
    widths: Sequence[tuple[str, int | None]] = inputs or [
        (name, _width(kind, alone=len(declared) == 1)) for name, kind in declared.items()
    ]
    if not widths or sorted(name for name, _ in widths) != sorted(declared):
        raise ConfigError(f"the model's inputs are {', '.join(declared) or 'missing'}, not those given")
    columns: dict[str, Columns] = {}
    start = 0
    for name, width in widths:
        numbers = _input_numbers.get(declared[name].elem_type)
        if numbers is None:
            raise NotATreeError(f"input {name} of the model does not take numbers that trees compare")
        if width is not None and not 1 <= width <= features_max - start:
            raise ConfigError(f"the inputs of the model take more than {features_max} columns, or none")
        place = None if width is None else np.arange(start, start + width)
        columns[name] = Columns(place=place, numbers=numbers)
        start += width or 0
    return columns


def _width(kind: onnx.TypeProto.Tensor, *, alone: bool) -> int | None:
    """Declared columns of an input; None when they are not declared and all belong to it."""
    dimensions = kind.shape.dim
    if len(dimensions) == 1:
        return 1
    if len(dimensions) == 2 and dimensions[1].dim_value > 0:
        return int(dimensions[1].dim_value)
    if alone and len(dimensions) in (0, 2):
        return None
    raise NotATreeError("an input of the model does not say how many columns it takes")


def _new_bytes(value: Value, known: set[int]) -> int:
    """Of a value's arrays that are not shared with an earlier one; `known` are their ids, and all of them are kept."""
    if isinstance(value, Columns):
        arrays: list[object] = [value.place]
    elif isinstance(value, (Scores, Rest)):
        arrays = [getattr(value.forest, field.name) for field in fields(value.forest)]
    else:
        return 0
    new = {id(array): array.nbytes for array in arrays if isinstance(array, np.ndarray)}
    total = sum(nbytes for key, nbytes in new.items() if key not in known)
    known.update(new)
    return max(total, _bytes_least)


def _chosen(graph: onnx.GraphProto, values: Mapping[str, Value], output: str | None) -> Forest:
    names = [item.name for item in graph.output if output in (None, item.name)]
    if not names:
        raise ConfigError(f"the model has no output {output}")
    values_of = [values.get(name, Refused(why="the model has no tree ensemble")) for name in names]
    scored = [
        (name, value.forest)
        for name, value in zip(names, values_of, strict=True)
        if isinstance(value, Scores)
    ]
    # Beside exp(score) a model may give the score itself: that is where attributions add up.
    scored.sort(key=lambda pair: pair[1].post_transform is PostTransform.EXP)
    if scored:
        return _named(replace(scored[0][1], output_name=scored[0][0]), values.values())
    reasons = [value.why for value in values_of if isinstance(value, Refused)]
    raise NotATreeError(reasons[-1] if reasons else "the model has no tree ensemble")


def _named(forest: Forest, values: Iterable[Value]) -> Forest:
    """The forest with the class names that the graph looks labels up in, where the trees did not bring them."""
    tables = [value.names for value in values if isinstance(value, Labels) and value.names]
    if tables and len(tables[0]) == forest.classes:
        return replace(forest, labels=tables[0])
    return forest


def _constant(tensor: onnx.TensorProto) -> Value:
    try:
        return Constant(array=array_of(tensor))
    except ConfigError as error:
        return Refused(why=str(error))


def _evaluated(node: onnx.NodeProto, values: Sequence[Value], *, copies: bool) -> list[Value]:
    """What the outputs of a node are."""
    if node.op_type == "Constant":
        tensors = [_constant(attribute.t) for attribute in node.attribute if attribute.name == "value"]
        return tensors or [Refused(why="a constant that is no tensor")]
    if node.op_type in operators and node.domain == "ai.onnx.ml" and values:
        return _ensemble(node, values[0], copies=copies)
    return [applied(node, values)] * len(node.output)


def _ensemble(node: onnx.NodeProto, rows: Value, *, copies: bool) -> list[Value]:
    if isinstance(rows, Refused):
        return [rows] * len(node.output)
    if not isinstance(rows, Columns):
        return [Refused(why="the tree ensemble reads something else than the model's inputs")] * len(
            node.output
        )
    if rows.numbers is Numbers.FLOAT64:
        return [Refused(why="the tree ensemble compares in float64")] * len(node.output)
    forest = forest_of_node(node, copies=copies)
    if rows.place is not None:
        if forest.features > len(rows.place):
            raise ConfigError(
                f"the tree ensemble tests feature {forest.features - 1} of a row of {len(rows.place)}"
            )
        feature = np.where(forest.leaf < 0, rows.place[forest.feature], -1).astype(np.int32)
        forest = replace(forest, feature=feature, features=int(rows.place.max()) + 1)
    scores = Scores(forest=forest)
    return [Labels(), scores] if node.op_type == "TreeEnsembleClassifier" else [scores]
