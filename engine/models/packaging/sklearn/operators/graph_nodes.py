"""Nodes written into the graph that skl2onnx makes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from skl2onnx.common.data_types import DoubleTensorType


class GraphNodes:
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


def kind_of(operator: Any) -> type[Any]:
    return np.float64 if isinstance(operator.inputs[0].type, DoubleTensorType) else np.float32
