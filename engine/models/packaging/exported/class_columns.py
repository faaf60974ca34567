"""Classifiers whose graph answers an output for each class, as skl2onnx writes them with zipmap="columns"."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_passed_over = frozenset({"Reshape", "Squeeze", "Flatten", "Identity", "Cast"})
_steps_max = 8
_called = "probabilities"


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """Outputs that became one."""

    called: str
    columns: tuple[str, ...]
    """How the outputs were called, in column order."""
    classes: tuple[int, ...] | tuple[str, ...]
    """What their names say of the classes, for where no operator says it."""


def with_columns_joined(graph: onnx.GraphProto) -> Joined | None:
    """Where outputs of floats are the columns of one tensor, one for each class, that tensor takes their place.

    None, and nothing changed, for any other graph.
    """
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    floats = [
        item
        for item in graph.output
        if item.type.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.DOUBLE)
    ]
    if len(floats) < 2:
        return None
    found = [_column_of(item.name, makers, constants) for item in floats]
    sources = {each[0] for each in found if each is not None}
    places = [each[1] for each in found if each is not None]
    if len(sources) != 1 or sorted(places) != list(range(len(floats))) or not _has_labels(graph, len(floats)):
        return None
    (source,) = sources
    names = [item.name for item in floats]
    called = _called
    if called in {*constants, *(item.name for item in graph.input), *(item.name for item in graph.output)}:
        called = f"{called}_of_all"
    for node in graph.node:  # it may be what a tensor inside is called
        node.input[:] = [f"inner_{each}" if each == called else each for each in node.input]
        node.output[:] = [f"inner_{each}" if each == called else each for each in node.output]
    source = f"inner_{source}" if source == called else source
    kind = floats[0].type.tensor_type.elem_type
    graph.node.append(onnx.helper.make_node("Cast", [source], [called], to=kind))
    kept = [item for item in graph.output if item.name not in names]
    del graph.output[:]
    graph.output.extend([*kept, onnx.helper.make_tensor_value_info(called, kind, [None, len(names)])])
    _prune(graph)
    in_order = [name for _, name in sorted(zip(places, names, strict=True))]
    if any(
        item.type.tensor_type.elem_type == TensorProto.INT64 for item in kept
    ):  # skl2onnx calls class 3 i3
        numbers = [re.fullmatch(r"i?(-?[0-9]{1,18})", name) for name in in_order]
        whole = tuple(int(found[1]) if found else place for place, found in enumerate(numbers))
        return Joined(called=called, columns=tuple(in_order), classes=whole)
    begun = all(name.startswith("s") for name in in_order)  # and class good sgood
    texts = tuple(name[1:] if begun else name for name in in_order)
    return Joined(called=called, columns=tuple(in_order), classes=texts)


def _prune(graph: onnx.GraphProto) -> None:
    """Takes out the nodes that nobody reads any more."""
    while True:
        read = {name for node in graph.node for name in node.input} | {item.name for item in graph.output}
        idle = [node for node in graph.node if not read.intersection(node.output)]
        for node in idle:
            graph.node.remove(node)
        if not idle:
            return


def _has_labels(graph: onnx.GraphProto, classes: int) -> bool:
    """Whether the graph says which class it is, or has a classifier of so many."""
    kinds = [item.type.tensor_type.elem_type for item in graph.output]
    return any(kind in (TensorProto.INT64, TensorProto.STRING) for kind in kinds) or any(
        len(attribute.strings) == classes or len(attribute.ints) == classes
        for node in graph.node
        for attribute in node.attribute
        if attribute.name.startswith("classlabels_")
    )


def _column_of(
    name: str, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> tuple[str, int] | None:
    """The tensor that an output is one column of, and which."""
    for _ in range(_steps_max):
        node = makers.get(name)
        if node is None:
            return None
        if node.op_type in _passed_over:
            name = node.input[0]
            continue
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}

        def given(place: int, key: str, node: Any = node, attributes: Any = attributes) -> list[int] | None:
            if key in attributes:
                return [int(each) for each in np.asarray(attributes[key]).reshape(-1)]
            if place < len(node.input):
                return _numbers(node.input[place], makers, constants)
            return None

        if node.op_type == "Slice":
            starts, ends, axes = given(1, "starts"), given(2, "ends"), given(3, "axes")
            if starts and ends and axes in ([1], [-1]) and ends[0] == starts[0] + 1 and len(node.input) < 5:
                return node.input[0], starts[0]
        elif node.op_type in ("Gather", "ArrayFeatureExtractor"):
            places = _numbers(node.input[1], makers, constants)
            axis = attributes.get("axis", 0) if node.op_type == "Gather" else 1
            if places is not None and len(places) == 1 and axis in (1, -1):
                return node.input[0], places[0]
        elif node.op_type == "Split" and attributes.get("axis", 0) in (1, -1):
            sizes = given(1, "split")
            if sizes and set(sizes) == {1}:
                return node.input[0], list(node.output).index(name)
        return None
    return None


def _numbers(
    name: str, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> list[int] | None:
    """Whole numbers that the graph holds."""
    tensor = constants.get(name)
    node = makers.get(name)
    if tensor is None and node is not None and node.op_type == "Constant":
        tensor = next((item.t for item in node.attribute if item.name == "value"), None)
    if tensor is None or tensor.data_type not in (TensorProto.INT64, TensorProto.INT32):
        return None
    return [int(each) for each in numpy_helper.to_array(tensor).reshape(-1)]
