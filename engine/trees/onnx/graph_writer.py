"""An ONNX graph written node by node, for runtimes that know the standard's main domain only."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

opset = 17


class GraphWriter:
    """Nodes and constants, named as they come."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def emit(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """A node with one output; the output's name."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def name(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        """A node whose output has this name."""
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))

    def constant(self, values: NDArray[Any]) -> str:
        """A tensor; its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def integers(self, values: Sequence[int] | NDArray[np.int64]) -> str:
        """A tensor (n,) of int64; its name."""
        return self.constant(np.array(values, dtype=np.int64))

    def model(
        self, name: str, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto]
    ) -> bytes:
        """All of it as an ONNX model."""
        graph = helper.make_graph(self.nodes, name, inputs, outputs, initializer=self.constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        return bytes(made.SerializeToString())
