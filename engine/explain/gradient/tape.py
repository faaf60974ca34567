"""The tape that a gradient graph is written on: forward tensors with their types and shapes, and nodes that are added."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from penstock.schemas.errors import ConfigError

prefix = "penstock_"

Shape = tuple[int | None, ...]
"""Static extents; None where only the run knows, which is allowed for the rows alone."""


class NotDifferentiableError(ConfigError):
    """The graph has no gradient that these rules know; the sentence names the operator."""


class Tape:
    """Forward tensors by name, and the nodes written so far, in an order that can be run.

    With `rescale` the forward pass was written twice, for the row and for a baseline: `baseline(name)` is a tensor's name in
    the second pass, and the name itself where it depends on no input.
    """

    def __init__(
        self,
        *,
        types: dict[str, int],
        shapes: dict[str, Shape],
        constants: dict[str, NDArray[Any]],
        active: frozenset[str],
        rescale: bool,
        opset: int,
    ) -> None:
        self.rescale = rescale
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._types = types
        self._shapes = shapes
        self._constants = constants
        self._active = active
        self._count = 0
        self._scalars: dict[tuple[int, float], str] = {}

    def baseline(self, name: str) -> str:
        """The tensor's name in the pass of the baseline."""
        return f"{prefix}baseline_{name}" if self.rescale and name in self._active else name

    def is_active(self, name: str) -> bool:
        """Whether it depends on the row by way of numbers that can be moved a little."""
        return name in self._active

    def shape(self, name: str) -> Shape:
        """The extents of a forward tensor, the rows first. Raises NotDifferentiableError when the file leaves them open."""
        shape = self._shapes.get(name)
        if shape is None or any(extent is None for extent in shape[1:]):
            raise NotDifferentiableError(f"the shape of {name} is not known before the model runs")
        return shape

    def type(self, name: str) -> int:
        """The element type of a forward tensor. Raises NotDifferentiableError when the file does not tell it."""
        if name not in self._types:
            raise NotDifferentiableError(f"the type of {name} is not known before the model runs")
        return self._types[name]

    def constant_of(self, name: str) -> NDArray[Any] | None:
        """The value of a tensor that the file holds, else None."""
        return self._constants.get(name)

    def emit(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Write one node; the name of its output."""
        self._count += 1
        name = f"{prefix}{self._count}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def scalar(self, value: float, like: str) -> str:
        """A constant of the element type of the forward tensor `like`."""
        return self._scalar(value, self.type(like))

    def double(self, value: float) -> str:
        """A constant of float64."""
        return self._scalar(value, TensorProto.DOUBLE)

    def array(self, values: NDArray[Any], like: str) -> str:
        """A constant array of the element type of the forward tensor `like`."""
        return self._keep(np.asarray(values, dtype=helper.tensor_dtype_to_np_dtype(self.type(like))))

    def integers(self, values: Sequence[int]) -> str:
        """A constant list of int64: axes, shapes."""
        return self._keep(np.array(values, dtype=np.int64))

    def unbroadcast(self, gradient: str, result: str, operand: str) -> str:
        """The gradient of an operand that was stretched to the shape of the result: summed over where it was."""
        wide, narrow = self.shape(result), self.shape(operand)
        if len(narrow) < len(wide):
            # The rows come first in both, so an operand of the row has the rank of the result.
            raise NotDifferentiableError(f"{operand} is stretched over a dimension that it does not have")
        axes = [
            axis
            for axis, (out, own) in enumerate(zip(wide, narrow, strict=True))
            if axis > 0 and own == 1 and out != 1
        ]
        if not axes:
            return gradient
        return self.emit("ReduceSum", gradient, self.integers(axes), keepdims=1)

    def reshaped(self, tensor: str, like: str) -> str:
        """Given the shape of the forward tensor `like`, whose rows are as many as they come."""
        return self.emit("Reshape", tensor, self.integers([-1, *(int(e or 0) for e in self.shape(like)[1:])]))

    def _scalar(self, value: float, kind: int) -> str:
        if (kind, value) not in self._scalars:
            self._scalars[kind, value] = self._keep(
                np.array(value, dtype=helper.tensor_dtype_to_np_dtype(kind))
            )
        return self._scalars[kind, value]

    def _keep(self, array: NDArray[Any]) -> str:
        self._count += 1
        name = f"{prefix}constant_{self._count}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """An attribute of a node, or what it is when left out."""
    for each in node.attribute:
        if each.name == name:
            value = helper.get_attribute_value(each)
            return value.decode() if isinstance(value, bytes) else value
    return default


def fixed_array(tape: Tape, node: onnx.NodeProto, place: int) -> NDArray[Any]:
    """An input that the file holds. Raises NotDifferentiableError when it does not."""
    found = tape.constant_of(node.input[place]) if len(node.input) > place else None
    if found is None:
        raise NotDifferentiableError(f"operator {node.op_type} has an input {place} that is not in the file")
    return found
