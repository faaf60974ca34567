"""Nodes for a graph that is written, whoever writes it."""

from typing import Any, Protocol

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


class Nodes(Protocol):
    """Adds constants and nodes to a graph, and says how their outputs are called."""

    def tensor(self, values: NDArray[Any]) -> str:
        """A constant of float32, float64 or int64."""

    def node(self, kind: str, inputs: list[str], *, output: str = "", **attributes: Any) -> str:
        """A node of one output, of a name of its own unless one is given."""


class PlainNodes:
    """Nodes added to a graph without any converter; names begin alike."""

    def __init__(self, graph: onnx.GraphProto, prefix: str) -> None:
        self._graph, self._prefix, self._count = graph, prefix, 0

    def tensor(self, values: NDArray[Any]) -> str:
        """See Nodes."""
        name = self._name("constant")
        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], *, output: str = "", **attributes: Any) -> str:
        """See Nodes."""
        name = output or self._name(kind.lower())
        self._graph.node.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{self._prefix}/{kind}_{self._count}"
