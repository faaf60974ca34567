"""How each ONNX operator passes a gradient back, and how it shares out a difference: one rule per operator.

A rule gets the gradient of its node's output and writes those of its inputs. On a tape that rescales, the gradients are
DeepLIFT's multipliers instead (Shrikumar, Greenside, Kundaje 2017): an operator of one tensor has its slope replaced by the
difference of its outputs over that of its inputs, and a product shares its difference out evenly. Each of them accounts
for the whole difference between the row and the baseline, so their chain does, too.
"""

import math
from collections.abc import Callable

import numpy as np
import onnx

from penstock.engine.explain.gradient.curves import Slope, slopes
from penstock.engine.explain.gradient.tape import NotDifferentiableError, Tape, attribute, fixed_array

Gradients = dict[int, str]
"""Place of an input to the name of its gradient."""
Rule = Callable[[Tape, onnx.NodeProto, str], Gradients]

_near = 1e-6
"""Below this the inputs count as equal and the slope stands for the quotient of differences."""


def rule_of(node: onnx.NodeProto) -> Rule:
    """The rule of a node's operator. Raises NotDifferentiableError, naming it, when there is none."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    rule = _rules.get((domain, node.op_type))
    if rule is None:
        raise NotDifferentiableError(f"operator {node.op_type} has no gradient here")
    return rule


def _curve(slope: Slope) -> Rule:
    """The rule of y = f(u), element by element, from what writes f'(u) given u and y."""

    def rule(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
        u, y = node.input[0], node.output[0]
        steep = slope(tape, node, u, y)
        if tape.rescale:
            steep = _secant(tape, u, y, steep)
        return {0: tape.emit("Mul", gradient, steep)}

    return rule


def _secant(tape: Tape, u: str, y: str, slope: str) -> str:
    run = tape.emit("Sub", u, tape.baseline(u))
    rise = tape.emit("Sub", y, tape.baseline(y))
    near = tape.emit("Less", tape.emit("Abs", run), tape.scalar(_near, u))
    divisor = tape.emit("Where", near, tape.scalar(1.0, u), run)
    return tape.emit("Where", near, slope, tape.emit("Div", rise, divisor))


def _pass(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    return {0: gradient}


def _cast(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    if tape.type(node.output[0]) not in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        raise NotDifferentiableError("operator Cast rounds to whole numbers, which has no gradient")
    return {0: tape.emit("Cast", gradient, to=tape.type(node.input[0]))}


def _negative(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    return {0: tape.emit("Neg", gradient)}


def _sum(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    return {
        place: tape.unbroadcast(gradient, node.output[0], name)
        for place, name in enumerate(node.input)
        if tape.is_active(name)
    }


def _subtract(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    found = _sum(tape, node, gradient)
    if 1 in found:
        found[1] = tape.emit("Neg", found[1])
    return found


def _middle(tape: Tape, name: str) -> str:
    """The tensor itself, or where differences are shared out its mean over row and baseline."""
    if not tape.rescale or not tape.is_active(name):
        return name
    return tape.emit("Mul", tape.emit("Add", name, tape.baseline(name)), tape.scalar(0.5, name))


def _multiply(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    found = {}
    for place, name in enumerate(node.input):
        if tape.is_active(name):
            other = _middle(tape, node.input[1 - place])
            found[place] = tape.unbroadcast(tape.emit("Mul", gradient, other), node.output[0], name)
    return found


def _divide(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    """a / s as a times 1 / s, whose difference over that of s is -1 / (s s0)."""
    a, s = node.input
    found = {}
    if tape.is_active(a):
        inverse = tape.emit("Reciprocal", s)
        if tape.rescale and tape.is_active(s):
            other = tape.emit("Reciprocal", tape.baseline(s))
            inverse = tape.emit("Mul", tape.emit("Add", inverse, other), tape.scalar(0.5, s))
        found[0] = tape.unbroadcast(tape.emit("Mul", gradient, inverse), node.output[0], a)
    if tape.is_active(s):
        fall = tape.emit("Div", _middle(tape, a), tape.emit("Mul", s, tape.baseline(s)))
        found[1] = tape.unbroadcast(tape.emit("Neg", tape.emit("Mul", gradient, fall)), node.output[0], s)
    return found


def _gemm(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    a, b = node.input[:2]
    if attribute(node, "transA", 0) or tape.is_active(b):
        raise NotDifferentiableError("operator Gemm has a gradient here for records times a fixed matrix")
    found = {}
    if tape.is_active(a):
        found[0] = tape.emit(
            "Gemm", gradient, b, alpha=attribute(node, "alpha", 1.0), transB=1 - attribute(node, "transB", 0)
        )
    if len(node.input) > 2 and tape.is_active(node.input[2]):
        scaled = tape.emit("Mul", gradient, tape.scalar(attribute(node, "beta", 1.0), node.output[0]))
        found[2] = tape.unbroadcast(scaled, node.output[0], node.input[2])
    return found


def _matmul(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    a, b = node.input
    if tape.is_active(b) or len(tape.shape(a)) < 2:
        raise NotDifferentiableError("operator MatMul has a gradient here for records times a fixed matrix")
    if len(tape.shape(b)) != 2:
        raise NotDifferentiableError("operator MatMul has a gradient here for a plain matrix")
    return {0: tape.emit("MatMul", gradient, tape.emit("Transpose", b, perm=[1, 0]))}


def _batch_normalization(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    scale, _, _, variance = (fixed_array(tape, node, place) for place in (1, 2, 3, 4))
    slope = scale / np.sqrt(variance.astype(np.float64) + attribute(node, "epsilon", 1e-5))
    rank = len(tape.shape(node.input[0]))
    return {0: tape.emit("Mul", gradient, tape.array(slope.reshape(-1, *[1] * (rank - 2)), node.input[0]))}


def _concat(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    rank = len(tape.shape(node.output[0]))
    axis = attribute(node, "axis", 1) % rank
    if axis == 0:
        raise NotDifferentiableError("operator Concat mixes records")
    found, place = {}, 0
    for index, name in enumerate(node.input):
        width = int(tape.shape(name)[axis] or 0)
        if tape.is_active(name):
            found[index] = tape.emit(
                "Slice",
                gradient,
                tape.integers([place]),
                tape.integers([place + width]),
                tape.integers([axis]),
            )
        place += width
    return found


def _gather(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    """Columns in another order, some left out, some several times: each one's gradients, where it went, added up."""
    shape = tape.shape(node.input[0])
    if len(shape) != 2 or attribute(node, "axis", 0) % 2 != 1 or tape.is_active(node.input[1]):
        raise NotDifferentiableError("operator Gather has a gradient here where it picks columns of records")
    width, indices = int(shape[1] or 0), fixed_array(tape, node, 1).astype(np.int64).reshape(-1)
    count, indices = len(indices), np.where(indices < 0, indices + width, indices)
    first = tape.emit("Slice", gradient, tape.integers([0]), tape.integers([1]), tape.integers([1]))
    nothing = tape.emit("Mul", first, tape.scalar(0.0, node.output[0]))
    padded = tape.emit("Concat", gradient, nothing, axis=1)
    order = np.argsort(indices, kind="stable")
    starts = np.searchsorted(indices[order], np.arange(width))
    times = np.bincount(indices, minlength=width)
    found = ""
    for time in range(max(int(times.max(initial=0)), 1)):
        places = np.where(times > time, order[np.minimum(starts + time, count - 1)], count)
        part = tape.emit("Gather", padded, tape.integers(places.tolist()), axis=1)
        found = tape.emit("Add", found, part) if found else part
    return {0: found}


def _reshape(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    before, after = tape.shape(node.input[0]), tape.shape(node.output[0])
    if math.prod(map(int, before[1:])) != math.prod(map(int, after[1:])):  # type: ignore[arg-type]
        raise NotDifferentiableError(f"operator {node.op_type} mixes records")
    return {0: tape.reshaped(gradient, node.input[0])}


def _transpose(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    order = attribute(node, "perm", None) or list(reversed(range(len(tape.shape(node.input[0])))))
    if order[0] != 0:
        raise NotDifferentiableError("operator Transpose mixes records")
    return {0: tape.emit("Transpose", gradient, perm=np.argsort(order).tolist())}


def _reduce(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    shape = tape.shape(node.input[0])
    axes = attribute(node, "axes", None)
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = fixed_array(tape, node, 1).tolist()
    places = {axis % len(shape) for axis in axes or ()}
    if not places or 0 in places:
        raise NotDifferentiableError(f"operator {node.op_type} mixes records")
    kept = [-1, *(1 if place in places else int(shape[place] or 0) for place in range(1, len(shape)))]
    shared = tape.emit("Reshape", gradient, tape.integers(kept))
    if node.op_type == "ReduceMean":
        count = math.prod(int(shape[place] or 0) for place in places)
        shared = tape.emit("Mul", shared, tape.scalar(1 / count, node.input[0]))
    return {0: tape.emit("Expand", shared, tape.emit("Shape", node.input[0]))}


def _reduce_log_sum_exp(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    """As _reduce, with the share of each in the sum."""
    u = node.input[0]
    if tape.rescale or len(tape.shape(u)) != 2:
        raise NotDifferentiableError(
            "operator ReduceLogSumExp has a gradient here over the scores of records"
        )
    shared = _reduce(tape, node, gradient)[0]
    total = tape.emit("Reshape", node.output[0], tape.integers([-1, 1]))
    return {0: tape.emit("Mul", shared, tape.emit("Exp", tape.emit("Sub", u, total)))}


def _last_axis(tape: Tape, node: onnx.NodeProto) -> str:
    rank = len(tape.shape(node.input[0]))
    if attribute(node, "axis", -1) % rank != rank - 1 or rank < 2:
        raise NotDifferentiableError(f"operator {node.op_type} has a gradient here over the last axis")
    return tape.integers([-1])


def _softmax(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    axis, y = _last_axis(tape, node), node.output[0]
    if tape.rescale:
        return _softmax_shared(tape, node, gradient)
    mean = tape.emit("ReduceSum", tape.emit("Mul", gradient, y), axis, keepdims=1)
    return {0: tape.emit("Mul", y, tape.emit("Sub", gradient, mean))}


def _log_softmax(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    axis, y = _last_axis(tape, node), node.output[0]
    if tape.rescale:
        return _softmax_shared(tape, node, gradient)
    total = tape.emit("ReduceSum", gradient, axis, keepdims=1)
    return {0: tape.emit("Sub", gradient, tape.emit("Mul", tape.emit("Exp", y), total))}


def _softmax_shared(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    """v = u - log(sum exp u), which is LogSoftmax, and exp(v): the logarithm, the sum and the exponentials by their own rules.

    In float64, with one shift for the exponentials of row and baseline: their scores may lie far apart.
    """
    double = onnx.TensorProto.DOUBLE
    u, u0, g = (
        tape.emit("Cast", name, to=double) for name in (node.input[0], tape.baseline(node.input[0]), gradient)
    )
    top, top0 = _highest(tape, u), _highest(tape, u0)
    log_sum, log_sum0 = _log_sum(tape, u, top), _log_sum(tape, u0, top0)
    if node.op_type == "Softmax":
        v, v0 = tape.emit("Sub", u, log_sum), tape.emit("Sub", u0, log_sum0)
        y = tape.emit("Exp", v)
        rise = tape.emit("Sub", y, tape.emit("Exp", v0))
        g = tape.emit("Mul", g, _quotient(tape, rise, tape.emit("Sub", v, v0), y))
    shift = tape.emit("Max", top, top0)
    e, e0 = (tape.emit("Exp", tape.emit("Sub", each, shift)) for each in (u, u0))
    chord = _quotient(tape, tape.emit("Sub", e, e0), tape.emit("Sub", u, u0), e)
    s, s0 = (tape.emit("ReduceSum", each, tape.integers([-1]), keepdims=1) for each in (e, e0))
    slope = _quotient(
        tape, tape.emit("Sub", log_sum, log_sum0), tape.emit("Sub", s, s0), tape.emit("Reciprocal", s)
    )
    total = tape.emit("ReduceSum", g, tape.integers([-1]), keepdims=1)
    back = tape.emit("Sub", g, tape.emit("Mul", tape.emit("Mul", total, slope), chord))
    return {0: tape.emit("Cast", back, to=tape.type(node.input[0]))}


def _highest(tape: Tape, u: str) -> str:
    if tape.opset < 18:
        return tape.emit("ReduceMax", u, axes=[-1], keepdims=1)
    return tape.emit("ReduceMax", u, tape.integers([-1]), keepdims=1)


def _log_sum(tape: Tape, u: str, top: str) -> str:
    e = tape.emit("Exp", tape.emit("Sub", u, top))
    return tape.emit("Add", top, tape.emit("Log", tape.emit("ReduceSum", e, tape.integers([-1]), keepdims=1)))


def _quotient(tape: Tape, rise: str, run: str, slope: str) -> str:
    """rise / run in float64, and the slope where the run is next to nothing."""
    near = tape.emit("Less", tape.emit("Abs", run), tape.double(_near))
    return tape.emit(
        "Where", near, slope, tape.emit("Div", rise, tape.emit("Where", near, tape.double(1.0), run))
    )


def _scaler(tape: Tape, node: onnx.NodeProto, gradient: str) -> Gradients:
    scale = tape.array(np.array(attribute(node, "scale", [1.0])), node.output[0])
    scaled = tape.emit("Mul", gradient, scale)
    return {0: tape.emit("Cast", scaled, to=tape.type(node.input[0]))}


_rules: dict[tuple[str, str], Rule] = {
    **{("", operator): _curve(slope) for operator, slope in slopes.items()},
    ("", "Identity"): _pass,
    ("", "Dropout"): _pass,
    ("", "Cast"): _cast,
    ("", "Neg"): _negative,
    ("", "Add"): _sum,
    ("", "Sum"): _sum,
    ("", "Sub"): _subtract,
    ("", "Mul"): _multiply,
    ("", "Div"): _divide,
    ("", "Gemm"): _gemm,
    ("", "MatMul"): _matmul,
    ("", "BatchNormalization"): _batch_normalization,
    ("", "Concat"): _concat,
    ("", "Gather"): _gather,
    ("", "ReduceLogSumExp"): _reduce_log_sum_exp,
    ("", "Reshape"): _reshape,
    ("", "Flatten"): _reshape,
    ("", "Squeeze"): _reshape,
    ("", "Unsqueeze"): _reshape,
    ("", "Transpose"): _transpose,
    ("", "ReduceSum"): _reduce,
    ("", "ReduceMean"): _reduce,
    ("", "Softmax"): _softmax,
    ("", "LogSoftmax"): _log_softmax,
    ("ai.onnx.ml", "Scaler"): _scaler,
}
