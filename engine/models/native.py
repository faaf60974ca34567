"""A tree ensemble on our own kernel, served only after it has said what ONNX Runtime says."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from engine.explain.forest import Forest, PostTransform
from engine.explain.onnx_trees import NotATreeError, read_forest
from engine.models.bundle import Bundle
from engine.models.manifest import ModelOutput
from engine.models.rows import rows_made_up
from engine.models.session import Kernel
from engine.native import _trees
from engine.ports import Model
from schemas.errors import ConfigError

difference_max = 1e-6
"""Largest difference from ONNX Runtime, relative to the range of the output."""


def open_kernel(bundle: Bundle, reference: Model) -> Kernel:
    """The bundle's trees on the native kernel, proved on its golden rows and on rows that sit on every threshold.

    Raises ConfigError when the bundle is not a tree ensemble and nothing else, or when the two disagree.
    """
    forest = _forest(bundle)
    kernel = _kernel(forest, bundle.outputs)
    golden = bundle.golden.rows
    made_up = rows_made_up(bundle.signature, forest, golden.astype(np.float64)).astype(golden.dtype)
    rows = np.ascontiguousarray(np.concatenate((golden, made_up)))
    expected, found = reference.predict(rows), kernel(rows)
    for name, values in expected.outputs.items():
        allowed = difference_max * max(1.0, float(np.ptp(values)))
        difference = float(np.abs(found[name] - values).max())
        if not difference <= allowed:
            raise ConfigError(
                f"model.runtime native: output {name} differs from ONNX Runtime's by {difference:.3g} "
                f"(allowed: {allowed:.3g})"
            )
    return kernel


def _forest(bundle: Bundle) -> Forest:
    inputs = [(each.name, each.width) for each in bundle.signature.inputs]
    try:
        forest = read_forest(bundle.model, inputs=inputs)
    except NotATreeError as error:
        raise ConfigError(f"model.runtime native takes tree ensembles only: {error}") from error
    reads_labels = bundle.labels is not None and bundle.labels.values is not None
    names = [output.name for output in bundle.outputs]
    if names != [forest.output_name] or reads_labels or bundle.signature.dtype != np.float32:
        raise ConfigError("model.runtime native takes models whose only output is the score of float32 trees")
    if forest.post_transform not in _transforms:
        raise ConfigError(f"model.runtime native does not know the post transform {forest.post_transform}")
    return forest


def _kernel(forest: Forest, outputs: Sequence[ModelOutput]) -> Kernel:
    trees = _trees.ForestKernel(
        _trees.Arrays(
            forest.features,
            forest.outputs,
            forest.roots,
            forest.feature,
            forest.threshold,
            forest.set_index,
            forest.yes,
            forest.no,
            forest.missing_yes,
            forest.leaf,
            forest.leaf_values,
            forest.base_values,
            forest.set_offsets,
            forest.set_values,
        )
    )
    transform = _transforms[forest.post_transform]
    one_score = len(forest.labels) == 2 and forest.outputs == 1
    rest = 1.0 if forest.post_transform is PostTransform.LOGISTIC else forest.mirror
    name = outputs[0].name

    def predict(matrix: NDArray[np.generic]) -> dict[str, NDArray[np.float64]]:
        scores = transform(trees.predict(np.ascontiguousarray(matrix, dtype=np.float32)))
        if one_score:
            scores = np.concatenate((rest - scores, scores), axis=1)
        return {name: scores}

    return predict


def _logistic(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    small = np.exp(-np.abs(scores))  # never overflows
    return np.where(scores >= 0, 1.0, small) / (1.0 + small)


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


_transforms: Mapping[PostTransform, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    PostTransform.NONE: lambda scores: scores,
    PostTransform.LOGISTIC: _logistic,
    PostTransform.SOFTMAX: _softmax,
}
