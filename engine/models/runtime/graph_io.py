"""Between matrix rows and a graph: what its inputs are fed, and what its outputs say."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.signature import Signature
from penstock.engine.models.bundle.manifest import Labels, ModelOutput
from penstock.engine.models.runtime.feeds import feed_of
from penstock.engine.ports import Predictions
from penstock.schemas.errors import ModelError

LabelReader = Callable[[Mapping[str, NDArray[np.float64]], NDArray[np.generic]], NDArray[np.int64]]


class Wiring:
    """A graph's inputs and outputs by name, as a bundle describes them."""

    def __init__(
        self,
        *,
        signature: Signature,
        outputs: Sequence[ModelOutput],
        labels: Labels | None,
        shapes: Mapping[str, Sequence[Any]],
    ) -> None:
        """`shapes`: what the graph declares of each of its inputs, the rows first; None or a name is an open extent."""
        self._feeds = {
            each.name: feed_of(signature, each, row_shape(shapes[each.name], each.width))
            for each in signature.inputs
        }
        self._outputs = tuple(outputs)
        self.names = [output.name for output in outputs]
        """The graph's outputs to ask for, in the order in which `predictions` takes them."""
        if labels is not None and labels.values is not None:
            self.names.append(labels.output)
        self._classes = labels.classes if labels else ()
        self._read_labels = _label_reader(labels) if labels else None
        self._width, self._dtype = signature.width, signature.dtype
        self.fixed_rows = fixed_rows(shapes.values())
        """The one number of rows that the graph takes, where it takes one only."""

    def in_pieces(
        self, run: Callable[[NDArray[np.generic]], Predictions], matrix: NDArray[np.generic], rows_max: int
    ) -> Predictions:
        """What `run` says of a matrix (R, F), asked about at most `rows_max` rows at a time.

        Raises ModelError for a matrix of another width or dtype than the signature's, and as `run` does.
        """
        if matrix.ndim != 2 or matrix.shape[1] != self._width or matrix.dtype != self._dtype:
            raise ModelError(
                f"the model takes rows of {self._width} columns of {self._dtype}, "
                f"not {matrix.dtype} of shape {matrix.shape}"
            )
        step = self.fixed_rows or rows_max
        if 0 < len(matrix) <= step:
            return run(matrix)
        parts = [run(matrix[start : start + step]) for start in range(0, len(matrix), step)]
        outputs = {
            output.name: np.concatenate(
                [np.empty((0, output.width)), *(part.outputs[output.name] for part in parts)]
            )
            for output in self._outputs
        }
        labels = None
        if self._read_labels:
            found = [part.labels for part in parts if part.labels is not None]
            labels = np.concatenate([np.empty(0, dtype=np.int64), *found])
        return Predictions(outputs=outputs, labels=labels, classes=self._classes)

    def feeds(self, matrix: NDArray[np.generic]) -> dict[str, NDArray[np.generic]]:
        """The arrays of the graph's inputs, by name. Raises ModelError for a value that an input cannot hold."""
        return {name: feed(matrix) for name, feed in self._feeds.items()}

    def predictions(self, found: Sequence[NDArray[Any]], *, ran: int, rows: int) -> Predictions:
        """What the outputs of a run on `ran` rows say of the first `rows` of them; nothing of `found` is kept.

        Raises ModelError when they are not what the bundle says.
        """
        outputs = {}
        for output, array in zip(self._outputs, found, strict=False):
            if array.size != ran * output.width:
                raise ModelError(f"output {output.name} is not {output.width} numbers a row")
            outputs[output.name] = array.reshape(ran, output.width)[:rows].astype(np.float64)
        labels = self._read_labels(outputs, found[-1].reshape(-1)[:rows]) if self._read_labels else None
        return Predictions(outputs=outputs, labels=labels, classes=self._classes)


def row_shape(graph_shape: Sequence[Any], width: int) -> tuple[int, ...]:
    """Extents of one row of an input of this declared shape that takes `width` numbers a row."""
    if len(graph_shape) <= 1:
        return ()
    tail = graph_shape[1:]
    if all(isinstance(extent, int) for extent in tail):
        return tuple(tail)
    return (width,) if len(tail) == 1 else (1,) * (len(tail) - 1) + (width,)


def fixed_rows(shapes: Any) -> int | None:
    """The one number of rows that a graph with inputs of these shapes takes; None where it takes any."""
    numbers = [shape[0] for shape in shapes if shape and isinstance(shape[0], int)]
    return min(numbers) if numbers else None


def _label_reader(labels: Labels) -> LabelReader:
    if labels.values is None:
        return lambda outputs, _: outputs[labels.output].argmax(axis=1)
    if labels.values == tuple(range(len(labels.values))):
        return lambda _, found: _places_in_range(found, len(labels.classes))
    places = {value: place for place, value in enumerate(labels.values)}

    def look_up(_: Mapping[str, NDArray[np.float64]], found: NDArray[np.generic]) -> NDArray[np.int64]:
        try:
            return np.array([places[value] for value in found.tolist()], dtype=np.int64)
        except KeyError as error:
            raise ModelError("the model answers a class that the bundle does not know") from error

    return look_up


def _places_in_range(found: NDArray[np.generic], classes: int) -> NDArray[np.int64]:
    if found.dtype.kind not in "iufb":
        raise ModelError("the model answers texts where it says that it answers numbers of classes")
    places = found.astype(np.int64)
    if ((places < 0) | (places >= classes)).any():
        raise ModelError("the model answers a class that the bundle does not know")
    return places
