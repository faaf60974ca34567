"""What a graph that is one tree ensemble says, once the raw scores of its trees are known."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from penstock.engine.models.bundle.manifest import Labels
from penstock.engine.models.runtime.session_spec import Graph, forest_behind
from penstock.engine.ports import Predictions
from penstock.engine.trees.covers import structure_digest
from penstock.engine.trees.forest import Forest, PostTransform
from penstock.engine.trees.onnx.read import NotATreeError
from penstock.schemas.errors import ConfigError

_Transform = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class TreeAnswers:
    """The ensemble behind all outputs of a graph, and how each comes from its raw scores."""

    def __init__(self, graph: Graph) -> None:
        """Raises ConfigError when the graph is anything but one ensemble of float32 trees."""
        self.forest, self._outputs = _read(graph)
        self._classes = graph.labels.classes if graph.labels else ()
        self._labels_from = _scores_of_classes(graph, graph.labels) if graph.labels else None

    def predictions(self, raw: NDArray[np.float64]) -> Predictions:
        """From raw scores (R, K), base values included. Scores are rounded to float32, as the graph's outputs are."""
        with np.errstate(over="ignore"):
            outputs = {
                name: transform(raw).astype(np.float32).astype(np.float64)
                for name, transform in self._outputs.items()
            }
        labels = None if self._labels_from is None else outputs[self._labels_from].argmax(axis=1)
        return Predictions(outputs=outputs, labels=labels, classes=self._classes)


def _read(graph: Graph) -> tuple[Forest, Mapping[str, _Transform]]:
    """The ensemble, and how each output comes from its raw scores."""
    if any(model_input.dtype != "float32" for model_input in graph.signature.inputs):
        raise ConfigError("our tree kernel takes models whose inputs are float32")
    forests: list[Forest] = []
    for output in graph.outputs:
        try:
            forests.append(forest_behind(graph, output.name))
        except NotATreeError as error:
            raise ConfigError(f"our tree kernel takes tree ensembles only: {error}") from error
    first = forests[0]
    for forest in forests if graph.table is None else ():
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
