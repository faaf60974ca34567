"""An ONNX file looked at with suspicion, before any runtime sees it."""

from collections.abc import Iterator

import onnx
from google.protobuf.message import DecodeError

from penstock.engine.models.bundle.tree_cycles import check_trees_end
from penstock.engine.trees.table_file import is_table
from penstock.schemas.errors import ConfigError

domains_allowed = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""com.microsoft: operators that ONNX Runtime carries itself. Anything else is code from a library of its author."""
operators_refused = frozenset({"EPContext"})
"""Carries, or points at, a compiled program of some device."""
model_bytes_max = 1 << 30
graph_depth_max = 32


def parse_model(data: bytes) -> onnx.ModelProto:
    """The model in these bytes. Raises ConfigError when it is no ONNX model or reaches outside itself."""
    if len(data) > model_bytes_max:
        raise ConfigError(f"the ONNX model has {len(data)} bytes, more than {model_bytes_max}")
    if is_table(data):
        raise ConfigError("the model is a table of trees, which is no ONNX graph")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ConfigError("the model is not an ONNX file, or is cut off") from error
    if not model.HasField("graph") or not model.graph.node:
        raise ConfigError("the ONNX model has no graph")
    _check(model)
    return model


def _check(model: onnx.ModelProto) -> None:
    local = {(function.domain, function.name) for function in model.functions}
    for graph in _graphs(model):
        tensors = list(getattr(graph, "initializer", ()))
        for sparse in getattr(graph, "sparse_initializer", ()):
            tensors += [sparse.values, sparse.indices]
        for node in graph.node:
            # Where a text is not UTF-8, protobuf hands out bytes.
            texts = (
                node.op_type,
                node.domain,
                *node.input,
                *node.output,
                *(item.name for item in node.attribute),
            )
            if not all(isinstance(text, str) for text in texts):
                raise ConfigError("the ONNX model has a name that is not UTF-8")
            if (node.domain, node.op_type) not in local:
                if node.domain not in domains_allowed:
                    raise ConfigError(
                        f"the ONNX model uses operator {node.op_type} of domain {node.domain}, "
                        "which is not built into ONNX Runtime"
                    )
                if node.op_type in operators_refused:
                    raise ConfigError(f"the ONNX model uses operator {node.op_type}, which is refused")
            check_trees_end(node)
            for attribute in node.attribute:
                tensors += [attribute.t, *attribute.tensors]
        for tensor in tensors:
            if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
                raise ConfigError(
                    f"tensor {tensor.name or '(unnamed)'} of the ONNX model lies in another file; "
                    "save the model with its weights inside"
                )


def _graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    waiting: list[tuple[onnx.GraphProto | onnx.FunctionProto, int]] = [(model.graph, 0)]
    waiting += [(function, 0) for function in model.functions]
    while waiting:
        graph, depth = waiting.pop()
        if depth > graph_depth_max:
            raise ConfigError(f"the ONNX model nests graphs more than {graph_depth_max} deep")
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                waiting += [
                    (inner, depth + 1)
                    for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs)
                ]
