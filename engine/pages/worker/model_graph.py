"""A model's ONNX file as a graph of layers: each node with what it gets, what it makes and how many numbers it learned."""

from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from penstock.engine.pages.shown import cut

nodes_told_max: Final = 300
graph_bytes_max: Final = 64 << 20
"""A larger model is not read a second time for a page."""
_name_characters: Final = 60
_attributes_told: Final = 4


def graph_of(model: bytes) -> dict[str, Any] | None:
    """The schema's `graph`, without its page; None where the file is too large or is none.

    A node's layer is the longest way to it from the inputs. Constants are no nodes: they are counted as parameters of
    those that use them. The first `nodes_told_max` nodes are told, in the order in which they are computed.
    """
    if len(model) > graph_bytes_max:
        return None
    try:
        found = onnx.load_model_from_string(model)
    except DecodeError:
        return None
    graph = _shapes_inferred(found).graph
    numbers = {each.name: int(np.prod(each.dims, dtype=np.int64)) for each in graph.initializer}
    shapes = {each.name: _shape(each.type) for each in (*graph.input, *graph.value_info, *graph.output)}
    parameters = sum(numbers.values())
    makers: dict[str, int] = {}
    layers: list[int] = []
    nodes: list[dict[str, Any]] = []
    for node in graph.node:
        if node.op_type == "Constant":
            continue
        place = len(layers)
        comes_from = sorted({makers[each] for each in node.input if each in makers})
        layers.append(1 + max((layers[each] for each in comes_from), default=0))
        makers |= {each: place for each in node.output if each}
        if place < nodes_told_max:
            nodes.append(
                {
                    "node": place,
                    "name": cut(node.name, _name_characters),
                    "operator": cut(node.op_type, _name_characters),
                    "layer": layers[-1],
                    "comes_from": comes_from,
                    "inputs": [
                        cut(each.name, _name_characters)
                        for each in graph.input
                        if each.name in node.input and each.name not in numbers
                    ],
                    "shape": next((shapes[each] for each in node.output if shapes.get(each)), None),
                    "parameters": sum(numbers.get(each, 0) for each in set(node.input)),
                    "attributes": ", ".join(_attribute(each) for each in node.attribute[:_attributes_told]),
                }
            )
    return {
        "nodes_total": len(layers),
        "layers": max(layers, default=0),
        "parameters": parameters,
        "outputs": [
            {"output": cut(each.name, _name_characters), "comes_from": makers.get(each.name)}
            for each in graph.output
        ],
        "nodes": nodes,
    }


def _shapes_inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(model)
    except (onnx.shape_inference.InferenceError, ValueError):  # shown without its shapes, then
        return model


def _shape(kind: onnx.TypeProto) -> str | None:
    if not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim[:8]
    return " × ".join(str(each.dim_value) if each.HasField("dim_value") else "N" for each in dims) or "1"


def _attribute(attribute: onnx.AttributeProto) -> str:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, int | float | str):
        return f"{attribute.name}={cut(f'{value:.4g}' if isinstance(value, float) else str(value), 30)}"
    if isinstance(value, list) and len(value) <= 6 and all(isinstance(each, int) for each in value):
        return f"{attribute.name}={'×'.join(map(str, value))}"
    return f"{attribute.name}=…"
