"""A tree ensemble on our own kernel, and what tells whether it says what ONNX Runtime says."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from engine.explain.covers import structure_digest
from engine.explain.forest import Forest, PostTransform
from engine.explain.onnx_trees import NotATreeError, read_forest
from engine.models.manifest import Labels, ModelOutput
from engine.models.rows import rows_made_up
from engine.models.runtime import NativeProof
from engine.models.signature import Signature
from engine.models.threshold_rows import threshold_rows
from engine.native import _trees
from engine.ports import Model, Predictions
from schemas.errors import ConfigError, ModelError

difference_max = 1e-6
"""Largest difference from ONNX Runtime, relative to the span of the output."""
proof_rows_max = 8192
"""Of the rows given at packaging; rows made up for the thresholds come on top."""
proof_tests_max = 8192
"""Tests that get rows of their own."""

_Transform = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Graph(Protocol):
    """A graph with what a bundle says of it."""

    @property
    def model(self) -> bytes: ...
    @property
    def signature(self) -> Signature: ...
    @property
    def outputs(self) -> tuple[ModelOutput, ...]: ...
    @property
    def labels(self) -> Labels | None: ...


class NativeModel:
    """The Model port on our tree kernel, on the CPU. A row's scores are the same bits whatever else is in its batch.

    Leaves are added up in float64 and the scores rounded to float32, as the graph's outputs are.
    """

    def __init__(self, graph: Graph, *, threads: int = 1) -> None:
        """Raises ConfigError when the graph is anything but one ensemble of float32 trees."""
        self.forest, self._outputs = _read(graph)
        self._kernel = _trees.ForestKernel(
            _trees.Arrays(
                self.forest.features,
                self.forest.outputs,
                self.forest.roots,
                self.forest.feature,
                self.forest.threshold,
                self.forest.set_index,
                self.forest.yes,
                self.forest.no,
                self.forest.missing_yes,
                self.forest.leaf,
                self.forest.leaf_values,
                self.forest.base_values,
                self.forest.set_offsets,
                self.forest.set_values,
            )
        )
        self._threads = threads
        self._width = graph.signature.width
        self._classes = graph.labels.classes if graph.labels else ()
        self._labels_from = _scores_of_classes(graph, graph.labels) if graph.labels else None

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        """Predictions of every row of a matrix (R, F) of float32. Raises ModelError for any other matrix."""
        if matrix.ndim != 2 or matrix.shape[1] != self._width or matrix.dtype != np.float32:
            raise ModelError(
                f"the model takes rows of {self._width} columns of float32, not {matrix.dtype} of shape {matrix.shape}"
            )
        raw = self._kernel.predict(np.ascontiguousarray(matrix), threads=self._threads)
        with np.errstate(over="ignore"):
            outputs = {
                name: transform(raw).astype(np.float32).astype(np.float64)
                for name, transform in self._outputs.items()
            }
        labels = None if self._labels_from is None else outputs[self._labels_from].argmax(axis=1)
        return Predictions(outputs=outputs, labels=labels, classes=self._classes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How far two models are apart on the same rows."""

    of_span: float
    """Largest difference of a score, relative to the span of its output from zero; infinity where one alone is NaN."""
    labels: int
    """Rows that get another class."""

    @property
    def reason(self) -> str:
        """One sentence where they are further apart than is allowed, else empty."""
        if not self.of_span <= difference_max:
            return f"a score differs from ONNX Runtime's by {self.of_span:.3g} of its span (allowed: {difference_max:g})"
        return f"{self.labels} rows get another class than in ONNX Runtime" if self.labels else ""


def difference(reference: Model, other: Model, rows: NDArray[np.generic]) -> Difference:
    """Compare on matrix rows (R, F), at least one. Raises ModelError as the models do."""
    expected, found = reference.predict(rows), other.predict(rows)
    worst = 0.0
    for name, scores in expected.outputs.items():
        known = scores[np.isfinite(scores)]
        span = max(0.0, known.max(initial=0.0)) - min(0.0, known.min(initial=0.0))
        with np.errstate(invalid="ignore"):
            apart = np.abs(found.outputs[name] - scores)
        same = (found.outputs[name] == scores) | (np.isnan(found.outputs[name]) & np.isnan(scores))
        apart = np.where(same, 0.0, np.where(np.isnan(apart), np.inf, apart))
        worst = max(worst, float(apart.max()) / span if span else float(np.inf if apart.any() else 0.0))
    labels = 0
    if expected.labels is not None and found.labels is not None:
        labels = int((expected.labels != found.labels).sum())
    return Difference(of_span=worst, labels=labels)


def check_rows(graph: Graph, native: NativeModel, golden: NDArray[np.generic]) -> NDArray[np.generic]:
    """The golden rows, and rows made up on thresholds and with values missing: what is compared at every start."""
    made_up = rows_made_up(graph.signature, native.forest, golden.astype(np.float64)).astype(golden.dtype)
    return np.concatenate((golden, made_up))


def prove(graph: Graph, reference: Model, given: NDArray[np.float64]) -> NativeProof:
    """Compare our kernel with ONNX Runtime on given rows, rows made up, and rows that meet every test head-on."""
    try:
        native = NativeModel(graph)
    except ConfigError as error:
        return NativeProof(reason=str(error))
    forest = native.forest
    given = given[:proof_rows_max]
    made_up = np.concatenate([rows_made_up(graph.signature, forest, given, seed=seed) for seed in range(4)])
    base = np.concatenate((given, made_up))
    if not len(base):
        return NativeProof(reason="no row could be made up that the model takes")
    head_on = threshold_rows(forest, graph.signature, base, tests_max=proof_tests_max)
    rows = np.concatenate((base, head_on.rows)).astype(np.float32)
    try:
        found = difference(reference, native, rows)
    except ModelError as error:
        return NativeProof(reason=f"ONNX Runtime cannot run the rows to compare on: {error}")
    return NativeProof(
        equal=not found.reason,
        reason=found.reason,
        rows=len(rows),
        tests=int((forest.leaf < 0).sum()),
        tests_hit=head_on.tests_hit,
        difference_max=order_of(min(found.of_span, 1e30)),
        labels_different=found.labels,
    )


def order_of(number: float) -> float:
    """The power of ten at or above: the last digits of a difference are the processor's, its order is not."""
    return 0.0 if number == 0 else float(f"1e{int(np.ceil(np.log10(number)))}")


def _read(graph: Graph) -> tuple[Forest, Mapping[str, _Transform]]:
    """The ensemble, and how each output comes from its raw scores."""
    if any(model_input.dtype != "float32" for model_input in graph.signature.inputs):
        raise ConfigError("our tree kernel takes models whose inputs are float32")
    inputs = [(each.name, each.width) for each in graph.signature.inputs]
    forests: list[Forest] = []
    for output in graph.outputs:
        try:
            forests.append(read_forest(graph.model, output.name, inputs=inputs))
        except NotATreeError as error:
            raise ConfigError(f"our tree kernel takes tree ensembles only: {error}") from error
    first = forests[0]
    for forest in forests:
        if (
            structure_digest(forest) != structure_digest(first)
            or forest.outputs != first.outputs
            or not np.array_equal(forest.base_values, first.base_values)
        ):
            raise ConfigError("our tree kernel takes models whose outputs all come from the same trees")
    return first, {
        output.name: _transform(forest) for output, forest in zip(graph.outputs, forests, strict=True)
    }


def _transform(forest: Forest) -> _Transform:
    if forest.post_transform not in _transforms:
        raise ConfigError(f"our tree kernel does not know the post transform {forest.post_transform}")
    transform = _transforms[forest.post_transform]
    if len(forest.labels) != 2 or forest.outputs != 1:
        return transform
    whole = 1.0 if forest.post_transform is PostTransform.LOGISTIC else forest.mirror

    def of_both(raw: NDArray[np.float64]) -> NDArray[np.float64]:
        scores = np.empty((len(raw), 2))
        scores[:, 1:] = transform(raw)
        np.subtract(whole, scores[:, 1], out=scores[:, 0])
        return scores

    return of_both


def _scores_of_classes(graph: Graph, labels: Labels) -> str:
    """The output whose highest column is the class."""
    if labels.values is None:
        return labels.output
    named = [output.name for output in graph.outputs if output.width == len(labels.classes)]
    if not named:
        raise ConfigError("our tree kernel takes classifiers that answer with a score for each class")
    return named[0]


def _logistic(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(
        1.0 / (1.0 + np.exp(-scores))
    )  # past the end of float64 the exponential is infinite: a score of 0


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


_transforms: Mapping[PostTransform, _Transform] = {
    PostTransform.NONE: lambda scores: scores,
    PostTransform.LOGISTIC: _logistic,
    PostTransform.SOFTMAX: _softmax,
    PostTransform.EXP: np.exp,
}
