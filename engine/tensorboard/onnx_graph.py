"""An ONNX graph as the GraphDef that TensorBoard draws: the same nodes and edges, numbers by their count."""

import re
from collections.abc import Iterator
from itertools import count
from typing import Any, Final

import onnx

numbers_shown_max: Final = 8
text_characters_max: Final = 200
_not_allowed: Final = re.compile(r"[^A-Za-z0-9_.\-/]+")
_producer: Final = 22


def graph_def(model: onnx.ModelProto) -> Any:
    """A GraphDef with a node for each input, constant, node and output of the graph.

    Edges are the tensors. A subgraph (of If, Loop, Scan) is told by the number of its nodes. Names are changed where
    TensorBoard takes no such character, and stay apart.
    """
    from tensorboardX.proto.graph_pb2 import GraphDef
    from tensorboardX.proto.versions_pb2 import VersionDef

    return GraphDef(node=_Nodes(model.graph).made, versions=VersionDef(producer=_producer))


class _Nodes:
    """The nodes so far, and which node makes which tensor."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.made: list[Any] = []
        self._names: set[str] = set()
        self._maker: dict[str, str] = {}
        self._shapes = {each.name: each for each in (*graph.input, *graph.value_info, *graph.output)}
        constants = {each.name for each in graph.initializer} | {
            each.values.name for each in graph.sparse_initializer
        }
        for each in graph.input:
            if each.name not in constants:
                self._add(each.name, "Placeholder", [each.name], [])
        for tensor in graph.initializer:
            kind = onnx.TensorProto.DataType.Name(tensor.data_type)
            self._add(
                tensor.name, "Const", [tensor.name], [], {"value": f"{kind} of shape {list(tensor.dims)}"}
            )
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            self._add(name, "Const", [name], [], {"value": f"sparse, of shape {list(sparse.dims)}"})
        planned = [
            (node, self._name(node.name or next((each for each in node.output if each), node.op_type)))
            for node in graph.node
        ]
        for node, name in planned:  # before any of their inputs is looked up
            for place, output in enumerate(node.output):
                if output:
                    self._maker[output] = f"{name}:{place}" if place else name
        for node, name in planned:
            kind = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
            attributes = {each.name: _shown(each) for each in node.attribute}
            self._put(name, kind, [each for each in node.output if each], list(node.input), attributes)
        for each in graph.output:
            self._put(self._name(f"output/{each.name}"), "Output", [each.name], [each.name], {})

    def _add(
        self,
        name: str,
        kind: str,
        outputs: list[str],
        inputs: list[str],
        attributes: dict[str, str] | None = None,
    ) -> None:
        own = self._name(name)
        for output in outputs:
            self._maker[output] = own
        self._put(own, kind, outputs, inputs, attributes or {})

    def _put(
        self, name: str, kind: str, outputs: list[str], inputs: list[str], attributes: dict[str, str]
    ) -> None:
        from tensorboardX.proto.attr_value_pb2 import AttrValue
        from tensorboardX.proto.node_def_pb2 import NodeDef

        attr = {key: AttrValue(s=text.encode()) for key, text in attributes.items()}
        shapes = [_shape(self._shapes[each]) for each in outputs if each in self._shapes]
        if shapes and len(shapes) == len(outputs):
            attr["_output_shapes"] = AttrValue(list=AttrValue.ListValue(shape=shapes))
        self.made.append(
            NodeDef(
                name=name,
                op=kind,
                # what a graph around this one would make is not there; an input left out has an empty name
                input=[self._maker[each] for each in inputs if each in self._maker],
                attr=attr,
            )
        )

    def _name(self, wanted: str) -> str:
        """A name that TensorBoard takes, and that no other node has."""
        parts = _not_allowed.sub("_", wanted)[:text_characters_max].split("/")
        plain = "/".join(part for part in parts if part).lstrip("_-") or "node"
        name = next(each for each in _numbered(plain) if each not in self._names)
        self._names.add(name)
        return name


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in count(2):
        yield f"{name}_{number}"


def _shape(value: onnx.ValueInfoProto) -> Any:
    from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto

    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return TensorShapeProto(unknown_rank=True)
    sizes = [each.dim_value if each.HasField("dim_value") else -1 for each in tensor.shape.dim]
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in sizes])


def _shown(attribute: onnx.AttributeProto) -> str:
    """What an attribute says; of many numbers and of long texts how many they are."""
    if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
        graphs = [attribute.g] if attribute.type == onnx.AttributeProto.GRAPH else list(attribute.graphs)
        return ", ".join(f"a graph of {len(each.node)} nodes" for each in graphs)
    if attribute.type == onnx.AttributeProto.TENSOR:
        kind = onnx.TensorProto.DataType.Name(attribute.t.data_type)
        return f"{kind} of shape {list(attribute.t.dims)}"
    try:
        value = onnx.helper.get_attribute_value(attribute)
    except ValueError:  # of a kind that onnx does not know, or a reference
        return str(onnx.AttributeProto.AttributeType.Name(attribute.type))
    if isinstance(value, bytes):
        return _cut(value)
    if isinstance(value, (int, float)):
        return f"{value:g}" if isinstance(value, float) else str(value)
    items = list(value) if hasattr(value, "__iter__") else [value]
    if len(items) > numbers_shown_max:
        return f"{len(items):,} values"
    return ", ".join(_cut(each) if isinstance(each, bytes) else _cut(str(each).encode()) for each in items)


def _cut(text: bytes) -> str:
    shown = text[:text_characters_max].decode(errors="backslashreplace")
    return shown if len(text) <= text_characters_max else f"{shown}... ({len(text):,} bytes)"
