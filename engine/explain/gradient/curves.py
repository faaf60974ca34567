"""Operators of one tensor, element by element: y = f(u), and how to write f'(u)."""

import math
from collections.abc import Callable

import numpy as np
import onnx

from penstock.engine.explain.gradient.tape import NotDifferentiableError, Tape, attribute, fixed_array

Slope = Callable[[Tape, onnx.NodeProto, str, str], str]
"""Tape, node, u and y to the name of f'(u)."""


def _above(tape: Tape, u: str, bound: float, yes: str, no: str) -> str:
    return tape.emit("Where", tape.emit("Greater", u, tape.scalar(bound, u)), yes, no)


def _relu(tape: Tape, node: onnx.NodeProto, u: str, y: str) -> str:
    return _above(tape, u, 0.0, tape.scalar(1.0, u), tape.scalar(0.0, u))


def _leaky_relu(tape: Tape, node: onnx.NodeProto, u: str, y: str) -> str:
    return _above(tape, u, 0.0, tape.scalar(1.0, u), tape.scalar(attribute(node, "alpha", 0.01), u))


def _elu(tape: Tape, node: onnx.NodeProto, u: str, y: str) -> str:
    alpha = tape.scalar(attribute(node, "alpha", 1.0), u)
    return _above(tape, u, 0.0, tape.scalar(1.0, u), tape.emit("Add", y, alpha))


def _selu(tape: Tape, node: onnx.NodeProto, u: str, y: str) -> str:
    alpha = attribute(node, "alpha", 1.67326319217681884765625)
    gamma = attribute(node, "gamma", 1.05070102214813232421875)
    below = tape.emit("Add", y, tape.scalar(alpha * gamma, u))
    return _above(tape, u, 0.0, tape.scalar(gamma, u), below)


def _sigmoid(tape: Tape, node: onnx.NodeProto, u: str, y: str) -> str:
    return tape.emit("Mul", y, tape.emit("Sub", tape.scalar(1.0, u), y))


def _tanh(tape: Tape, node: onnx.NodeProto, u: str, y: str) -> str:
    return tape.emit("Sub", tape.scalar(1.0, u), tape.emit("Mul", y, y))


def _erf(tape: Tape, node: onnx.NodeProto, u: str, y: str) -> str:
    bell = tape.emit("Exp", tape.emit("Neg", tape.emit("Mul", u, u)))
    return tape.emit("Mul", tape.scalar(2 / math.sqrt(math.pi), u), bell)


def _softsign(tape: Tape, node: onnx.NodeProto, u: str, y: str) -> str:
    root = tape.emit("Add", tape.scalar(1.0, u), tape.emit("Abs", u))
    return tape.emit("Reciprocal", tape.emit("Mul", root, root))


def _sqrt(tape: Tape, node: onnx.NodeProto, u: str, y: str) -> str:
    return tape.emit("Div", tape.scalar(0.5, u), y)


def _reciprocal(tape: Tape, node: onnx.NodeProto, u: str, y: str) -> str:
    return tape.emit("Neg", tape.emit("Mul", y, y))


def _clip(tape: Tape, node: onnx.NodeProto, u: str, y: str) -> str:
    slope = tape.scalar(1.0, u)
    for place, operator in ((1, "Greater"), (2, "Less")):
        if len(node.input) > place and node.input[place]:
            inside = tape.emit(operator, u, _fixed(tape, node, place))
            slope = tape.emit("Where", inside, slope, tape.scalar(0.0, u))
    return slope


def _hard_sigmoid(tape: Tape, node: onnx.NodeProto, u: str, y: str) -> str:
    zero, one = tape.scalar(0.0, u), tape.scalar(1.0, u)
    alpha = tape.scalar(attribute(node, "alpha", 0.2), u)
    inside = tape.emit("And", tape.emit("Greater", y, zero), tape.emit("Less", y, one))
    return tape.emit("Where", inside, alpha, zero)


def _power(tape: Tape, node: onnx.NodeProto, u: str, y: str) -> str:
    exponent = np.asarray(fixed_array(tape, node, 1), dtype=np.float64)
    if exponent.size != 1 or exponent.item() < 1:
        raise NotDifferentiableError("operator Pow has a gradient here for one fixed exponent of at least 1")
    less = tape.emit("Pow", u, tape.scalar(exponent.item() - 1, u))
    return tape.emit("Mul", tape.scalar(exponent.item(), u), less)


def _fixed(tape: Tape, node: onnx.NodeProto, place: int) -> str:
    if tape.is_active(node.input[place]):
        raise NotDifferentiableError(
            f"operator {node.op_type} has an input {place} that depends on the record"
        )
    return str(node.input[place])


slopes: dict[str, Slope] = {
    "Relu": _relu,
    "LeakyRelu": _leaky_relu,
    "Elu": _elu,
    "Selu": _selu,
    "Sigmoid": _sigmoid,
    "HardSigmoid": _hard_sigmoid,
    "Tanh": _tanh,
    "Erf": _erf,
    "Softplus": lambda tape, node, u, y: tape.emit("Sigmoid", u),
    "Softsign": _softsign,
    "Exp": lambda tape, node, u, y: y,
    "Log": lambda tape, node, u, y: tape.emit("Reciprocal", u),
    "Sqrt": _sqrt,
    "Abs": lambda tape, node, u, y: tape.emit("Sign", u),
    "Reciprocal": _reciprocal,
    "Clip": _clip,
    "Pow": _power,
}
