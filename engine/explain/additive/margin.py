"""Where the scores of a model's ONNX file may add up: before a last sigmoid, softmax or exponential."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from penstock.engine.models.bundle.graph_checks import parse_model

Link = Literal["identity", "exp", "expm1", "sigmoid", "sigmoid_of_first", "softmax", "shares"]
"""What makes the output of the margin: `shares` are sigmoids over their sum; `sigmoid_of_first`: of two classes the first's."""
_passed_over = frozenset({"Identity", "Cast", "Reshape", "Flatten", "Normalizer", "ZipMap"})
_transforms: Mapping[bytes, Link] = {b"SOFTMAX": "softmax", b"LOGISTIC": "shares", b"NONE": "identity"}
_steps_max = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Margin:
    """A graph whose one output, of any width, is what the model's output is made of by the link alone."""

    model: bytes
    tensor: str
    link: Link

    def answers(self, margins: NDArray[np.float64], width: int) -> NDArray[np.float64]:
        """What the link makes of margins (N, K): (N, width)."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            if self.link == "exp":
                return np.exp(margins)
            if self.link == "expm1":
                return np.expm1(margins)
            if self.link == "softmax":
                return _softmax(margins)
            if self.link == "sigmoid_of_first":
                return np.concatenate((1.0 / (1.0 + np.exp(-margins)), 1.0 / (1.0 + np.exp(margins))), axis=1)
            if self.link in ("sigmoid", "shares"):
                shares = 1.0 / (1.0 + np.exp(-margins))
                if shares.shape[1] == 1 and width == 2:
                    return np.concatenate((1.0 - shares, shares), axis=1)
                if self.link == "sigmoid":
                    return shares
                return _softmax(np.minimum(margins, 0.0) - np.log1p(np.exp(-np.abs(margins))))
        return margins

    def added_up(self, margins: NDArray[np.float64]) -> NDArray[np.float64]:
        """What is explained, of margins (N, K): the log odds of the second of two classes, (N, 1); of several that are put
        through a softmax, what each has above their mean, which the probabilities determine; else the margins."""
        if self.link == "softmax" and margins.shape[1] == 2:
            return margins[:, 1:] - margins[:, :1]
        if self.link == "sigmoid_of_first":
            return -margins
        if self.link == "softmax":
            return np.asarray(margins - margins.mean(axis=1, keepdims=True))
        return margins


def _softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def margins_of(data: bytes, output: str) -> Sequence[Margin]:
    """Where an output of the model may add up, the most telling place first: behind its link, and the output itself.

    Raises ConfigError when the file cannot be read.
    """
    model = parse_model(data)
    makers = {name: node for node in model.graph.node for name in node.output if name}
    link, tensor, node = _walk(output, makers)
    itself = _written(model, output, "identity", None)
    return [itself] if link == "identity" else [_written(model, tensor, link, node), itself]


def _walk(output: str, makers: Mapping[str, onnx.NodeProto]) -> tuple[Link, str, onnx.NodeProto | None]:
    node = _maker(output, makers)
    if node is None:
        return "identity", output, None
    if node.op_type == "Softmax":
        return "softmax", node.input[0], None
    if node.op_type == "Sigmoid":
        return "sigmoid", node.input[0], None
    if node.op_type == "Concat" and len(node.input) == 2:  # [1 - p, p]
        first, second = (_maker(name, makers) for name in node.input)
        if second is not None and second.op_type == "Sigmoid":
            return "sigmoid", second.input[0], None
        if first is not None and first.op_type == "Sigmoid":
            return "sigmoid_of_first", first.input[0], None
    if node.op_type in ("Where", "Div"):  # sigmoids over their sum, and something else where that is 0
        inner = _maker(node.input[2], makers) if node.op_type == "Where" else node
        if inner is not None and inner.op_type == "Softmax":  # of their logarithms
            logarithm = _maker(inner.input[0], makers)
            least = (
                _maker(logarithm.input[0], makers)
                if logarithm is not None and logarithm.op_type == "Sub"
                else None
            )
            if least is not None and least.op_type == "Min":
                return "shares", least.input[0], None
        share = _maker(inner.input[0], makers) if inner is not None and inner.op_type == "Div" else None
        if share is not None and share.op_type == "Sigmoid":
            return "shares", share.input[0], None
    if node.op_type == "Exp":
        less = _maker(node.input[0], makers)
        if less is not None and less.op_type == "Sub":
            total = _maker(less.input[1], makers)
            if total is not None and total.op_type == "ReduceLogSumExp" and total.input[0] == less.input[0]:
                return "softmax", less.input[0], None
        return "exp", node.input[0], None
    if node.op_type == "Sub" and len(node.input) == 2:  # of 1, as the numbers tell
        raised = _maker(node.input[0], makers)
        if raised is not None and raised.op_type == "Exp":
            return "expm1", raised.input[0], None
    if node.op_type == "LinearClassifier" and len(node.output) == 2:
        transform = next((item.s for item in node.attribute if item.name == "post_transform"), b"NONE")
        link = _transforms.get(transform, "identity")
        if link != "identity":
            return link, node.output[1], node
    return "identity", output, None


def _maker(name: str, makers: Mapping[str, onnx.NodeProto]) -> onnx.NodeProto | None:
    """The node behind a tensor, but for those that leave its numbers as they are."""
    for _ in range(_steps_max):
        node = makers.get(name)
        if node is None or node.op_type not in _passed_over:
            return node
        name = node.input[0]
    return None


def _written(model: onnx.ModelProto, tensor: str, link: Link, changed: onnx.NodeProto | None) -> Margin:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    if changed is not None:
        node = next(each for each in made.graph.node if each.output[:] == changed.output[:])
        kept = [item for item in node.attribute if item.name != "post_transform"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("post_transform", "NONE")])
    known = [item for item in model.graph.output if item.name == tensor]
    del made.graph.output[:]
    made.graph.output.extend(known or [onnx.ValueInfoProto(name=tensor)])
    return Margin(model=made.SerializeToString(), tensor=tensor, link=link)
