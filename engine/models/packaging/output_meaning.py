"""What the numbers of a graph's output are, from the operators that make them and from what they say."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from penstock.engine.models.bundle.manifest import Labels, Meaning, ModelOutput
from penstock.engine.ports import Predictions

_passes_on = frozenset(
    {"ArrayFeatureExtractor", "Cast", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Transpose",
     "Unsqueeze", "ZipMap"}
)  # fmt: skip
_shares = frozenset({"Sigmoid", "Softmax"})
_steps_max = 64
_sum_slack = 1e-4


def meaning_of(graph: onnx.GraphProto, output: str, *, is_classifier: bool) -> Meaning:
    """Of an output of floats: probabilities where its last operator makes such, else a classifier's decision or a value."""
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    found = _walk(output, makers, constants, _steps_max)
    return found or ("decision" if is_classifier else "value")


def _walk(name: str, makers: Mapping[str, onnx.NodeProto], constants: set[str], steps: int) -> Meaning | None:
    node = makers.get(name)
    if node is None or not steps:
        return None
    facts: dict[str, Any] = {
        item.name: onnx.helper.get_attribute_value(item)
        for item in node.attribute
        if item.name in ("post_transform", "norm", "prob_a")
    }
    if node.op_type in _passes_on:
        return _walk(node.input[0], makers, constants, steps - 1)
    if node.op_type in _shares or (node.op_type == "Normalizer" and facts.get("norm") == b"L1"):
        return "probability"
    if node.op_type == "LogSoftmax":
        return "log"
    if node.op_type.endswith("Classifier"):
        transformed = facts.get("post_transform", b"NONE") in (b"LOGISTIC", b"SOFTMAX", b"SOFTMAX_ZERO")
        return "probability" if transformed or facts.get("prob_a") else None
    if node.op_type in ("Concat", "Sub"):  # [1 - p, p]
        parts = [each for each in node.input if each not in constants]
        found = {_walk(each, makers, constants, steps // 2) for each in parts}
        return "probability" if found == {"probability"} else None
    return None


def measured(
    outputs: Sequence[ModelOutput], labels: Labels | None, found: Predictions
) -> tuple[ModelOutput, ...]:
    """The outputs; what was taken for a decision is a probability where every row's numbers are shares of one."""
    return tuple(
        replace(output, meaning="probability")
        if output.meaning == "decision"
        and labels is not None
        and output.width == len(labels.classes) > 1
        and _are_shares(found.outputs[output.name])
        else output
        for output in outputs
    )


def _are_shares(scores: Any) -> bool:
    known = scores[np.isfinite(scores).all(axis=1)]
    within = (known >= -_sum_slack).all() and (known <= 1 + _sum_slack).all()
    return bool(len(known) and within and (np.abs(known.sum(axis=1) - 1) <= _sum_slack).all())
