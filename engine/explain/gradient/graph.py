"""From a model's ONNX file a second one: the gradient of its scores, or DeepLIFT's multipliers, as a plain ONNX graph."""

from collections.abc import Iterable
from dataclasses import dataclass

import onnx
from google.protobuf.message import EncodeError
from onnx import TensorProto, helper, shape_inference

from penstock.engine.explain.gradient.rules import rule_of
from penstock.engine.explain.gradient.tape import NotDifferentiableError, Shape, Tape, prefix
from penstock.engine.models.bundle.graph_checks import parse_model
from penstock.engine.trees.onnx.attributes import array_of

opset_min = 13
_floats = (TensorProto.FLOAT, TensorProto.DOUBLE)
_shape_operators = ("Shape", "Size")


@dataclass(frozen=True, kw_only=True, slots=True)
class GradientGraph:
    """An ONNX model: from rows (and with `rescale` a baseline for each) and weights of the scores to gradients.

    Beside the inputs of the first model stand, in this order, those of `baselines` (the same inputs once more), and `seed`
    (rows, scores), whose weighted sum of the scores it is the gradient of. The one output, `gradient`, is (rows, F) in the
    order of the inputs, each flattened.
    """

    model: bytes
    baselines: tuple[str, ...]
    seed: str
    gradient: str


def derive(data: bytes, output: str, scores: int, *, rescale: bool) -> GradientGraph:
    """The gradient of the output's `scores` columns by all inputs, or with `rescale` the multipliers of DeepLIFT.

    Raises NotDifferentiableError, naming the operator, where a rule is missing, and ConfigError when the file cannot be read.
    """
    model = parse_model(data)
    opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)
    if opset < opset_min:
        raise NotDifferentiableError(f"the model is of opset {opset}; gradients need {opset_min} or later")
    graph = model.graph
    fixed = {tensor.name: array_of(tensor) for tensor in graph.initializer}
    inputs = [each for each in graph.input if each.name not in fixed]
    for each in inputs:
        if each.type.tensor_type.elem_type not in _floats:
            raise NotDifferentiableError(f"input {each.name} does not take floating-point numbers")
    for node in graph.node:
        if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].name == "value":
            fixed[node.output[0]] = array_of(node.attribute[0].t)
    if any(name.startswith(prefix) for node in graph.node for name in (*node.input, *node.output)):
        raise NotDifferentiableError(f"the model has names that begin with {prefix}")

    active = _active(graph.node, [each.name for each in inputs])
    if output not in active:
        raise NotDifferentiableError(f"output {output} does not depend smoothly on the inputs")
    needed = _needed(graph.node, output)
    types, shapes = _inferred(model)
    tape = Tape(
        types=types,
        shapes=shapes,
        constants=fixed,
        active=frozenset(active),
        rescale=rescale,
        opset=opset,
    )
    forward = [
        *needed,
        *(_of_baseline(node, tape) for node in needed if rescale and _is_active(node, active)),
    ]
    gradients = _reverse(needed, output, active, tape)
    return _written(model, inputs, forward, gradients, tape, scores)


def _active(nodes: Iterable[onnx.NodeProto], inputs: Iterable[str]) -> set[str]:
    """The tensors that depend on the inputs, other than by their shape."""
    active = set(inputs)
    for node in nodes:
        if node.op_type not in _shape_operators and active.intersection(node.input):
            active.update(name for name in node.output if name)
    return active


def _needed(nodes: Iterable[onnx.NodeProto], output: str) -> list[onnx.NodeProto]:
    wanted, kept = {output}, []
    for node in reversed(list(nodes)):
        if wanted.intersection(node.output):
            wanted.update(name for name in node.input if name)
            kept.append(node)
    return kept[::-1]


def _is_active(node: onnx.NodeProto, active: set[str]) -> bool:
    return not active.isdisjoint(node.output)


def _of_baseline(node: onnx.NodeProto, tape: Tape) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = ""
    for names in (copy.input, copy.output):
        names[:] = [tape.baseline(name) if name else "" for name in names]
    return copy


def _reverse(needed: list[onnx.NodeProto], output: str, active: set[str], tape: Tape) -> dict[str, str]:
    """Write the backward pass; the name of the gradient of each tensor."""
    parts: dict[str, list[str]] = {output: [_seed_name(tape, output)]}
    gradients: dict[str, str] = {}

    def total(name: str) -> str:
        if name not in gradients:
            found = parts[name]
            gradients[name] = found[0] if len(found) == 1 else tape.emit("Sum", *found)
        return gradients[name]

    for node in reversed(needed):
        if not _is_active(node, active):
            continue
        reached = [name for name in node.output if name in parts]
        if reached != [node.output[0]]:
            raise NotDifferentiableError(f"operator {node.op_type} has more than one output in use")
        for place, gradient in rule_of(node)(tape, node, total(node.output[0])).items():
            parts.setdefault(node.input[place], []).append(gradient)
    for name in parts:
        total(name)
    return gradients


def _seed_name(tape: Tape, output: str) -> str:
    return tape.reshaped(tape.emit("Cast", f"{prefix}seed", to=tape.type(output)), output)


def _written(
    model: onnx.ModelProto,
    inputs: list[onnx.ValueInfoProto],
    forward: list[onnx.NodeProto],
    gradients: dict[str, str],
    tape: Tape,
    scores: int,
) -> GradientGraph:
    flat = []
    for each in inputs:
        if each.name not in gradients:
            raise NotDifferentiableError(f"the scores do not depend on input {each.name}")
        single = tape.emit("Cast", gradients[each.name], to=TensorProto.DOUBLE)
        flat.append(tape.emit("Flatten", single, axis=1))
    result = tape.emit("Concat", *flat, axis=1)
    seed = helper.make_tensor_value_info(f"{prefix}seed", TensorProto.FLOAT, [None, scores])
    copies = []
    for each in inputs if tape.rescale else ():
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(each)
        copy.name = tape.baseline(each.name)
        copies.append(copy)
    used = {name for node in forward for name in node.input} | {
        name for node in tape.nodes for name in node.input
    }
    graph = helper.make_graph(
        [*forward, *tape.nodes],
        "gradient",
        [*inputs, *copies, seed],
        [helper.make_tensor_value_info(result, TensorProto.DOUBLE, None)],
        initializer=[each for each in (*model.graph.initializer, *tape.initializers) if each.name in used],
    )
    made = helper.make_model(graph, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    return GradientGraph(
        model=bytes(made.SerializeToString()),
        baselines=tuple(copy.name for copy in copies),
        seed=f"{prefix}seed",
        gradient=result,
    )


def _inferred(model: onnx.ModelProto) -> tuple[dict[str, int], dict[str, Shape]]:
    """Element type and extents of every tensor, as far as the file decides them."""
    known = onnx.ModelProto()
    known.CopyFrom(model)
    for node in known.graph.node:
        if (node.domain, node.op_type) == ("ai.onnx.ml", "Scaler"):  # no shape inference knows it
            node.CopyFrom(helper.make_node("Cast", list(node.input), list(node.output), to=TensorProto.FLOAT))
    try:
        graph = shape_inference.infer_shapes(known, data_prop=True).graph
    except (shape_inference.InferenceError, EncodeError) as error:
        raise NotDifferentiableError("the shapes inside the model cannot be derived") from error
    types = {each.name: each.data_type for each in graph.initializer}
    shapes: dict[str, Shape] = {each.name: tuple(each.dims) for each in graph.initializer}
    for each in (*graph.input, *graph.value_info, *graph.output):
        kind = each.type.tensor_type
        types[each.name] = kind.elem_type
        if kind.HasField("shape"):
            shapes[each.name] = tuple(
                extent.dim_value if extent.HasField("dim_value") else None for extent in kind.shape.dim
            )
    return types, shapes
