"""A tree ensemble on our own kernel, and what tells whether it says what ONNX Runtime says."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.engine.models.bundle.run_options import NativeProof
from penstock.engine.models.probes.boundary_rows import threshold_rows
from penstock.engine.models.probes.probe_rows import rows_made_up
from penstock.engine.models.runtime.session_spec import Graph
from penstock.engine.models.runtime.tree_outputs import TreeAnswers
from penstock.engine.native import _trees
from penstock.engine.ports import Model, Predictions
from penstock.engine.trees.forest import Forest
from penstock.engine.trees.native_arrays import native_forest
from penstock.schemas.errors import ConfigError, ModelError

difference_max = 1e-6
"""Largest difference from ONNX Runtime, relative to the span of the output."""
proof_rows_max = 8192
"""Of the rows given at packaging; rows made up for the thresholds come on top."""
proof_tests_max = 8192
"""Tests that get rows of their own."""


class NativeModel:
    """The Model port on our tree kernel, on the CPU. A row's scores are the same bits whatever else is in its batch.

    Leaves are added up in float64 and the scores rounded to float32, as the graph's outputs are.
    """

    def __init__(self, graph: Graph, *, threads: int = 1) -> None:
        """Raises ConfigError when the graph is anything but one ensemble of float32 trees."""
        self._answers = TreeAnswers(graph)
        self.forest = self._answers.forest
        self._native = native_forest(self.forest)
        self._kernel = _trees.ForestKernel(self._native.arrays)
        self._threads = threads
        self._width = graph.signature.width

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        """Predictions of every row of a matrix (R, F) of float32. Raises ModelError for any other matrix."""
        if matrix.ndim != 2 or matrix.shape[1] != self._width or matrix.dtype != np.float32:
            raise ModelError(
                f"the model takes rows of {self._width} columns of float32, not {matrix.dtype} of shape {matrix.shape}"
            )
        return self._answers.predictions(
            self._kernel.predict(np.ascontiguousarray(matrix), threads=self._threads)
        )


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
    return apart(reference.predict(rows), other.predict(rows))


def apart(expected: Predictions, found: Predictions) -> Difference:
    """Compare what two models said of the same rows, at least one."""
    worst = 0.0
    for name, scores in expected.outputs.items():
        known = scores[np.isfinite(scores)]
        span = max(0.0, known.max(initial=0.0)) - min(0.0, known.min(initial=0.0))
        with np.errstate(invalid="ignore"):
            off = np.abs(found.outputs[name] - scores)
        same = (found.outputs[name] == scores) | (np.isnan(found.outputs[name]) & np.isnan(scores))
        off = np.where(same, 0.0, np.where(np.isnan(off), np.inf, off))
        worst = max(worst, float(off.max()) / span if span else float(np.inf if off.any() else 0.0))
    labels = 0
    if expected.labels is not None and found.labels is not None:
        labels = int((expected.labels != found.labels).sum())
    return Difference(of_span=worst, labels=labels)


def check_rows(graph: Graph, forest: Forest, golden: NDArray[np.generic]) -> NDArray[np.generic]:
    """The golden rows, and rows made up on thresholds and with values missing: what is compared at every start."""
    made_up = rows_made_up(graph.signature, forest, golden.astype(np.float64)).astype(golden.dtype)
    return np.concatenate((golden, made_up))


def prove(
    graph: Graph, reference: Model, given: NDArray[np.float64]
) -> tuple[NativeProof, NativeModel | None]:
    """Compare our kernel with ONNX Runtime on given rows, rows made up, and rows that meet every test head-on.

    The proof, and the kernel where the graph is one for it.
    """
    try:
        native = NativeModel(graph)
    except ConfigError as error:
        return NativeProof(reason=str(error)), None
    return _proof(native, graph, reference, given), native


def _proof(native: NativeModel, graph: Graph, reference: Model, given: NDArray[np.float64]) -> NativeProof:
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
