"""Which output of a tree ensemble is explained: of each row the predicted class, one for all rows, or all of them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.engine.ports import Predictions
from penstock.engine.trees.forest import Forest
from penstock.schemas.errors import ConfigError, InvariantError


class TreeOutputs:
    """Picks what is explained from the values of all raw outputs."""

    def __init__(self, forest: Forest, output: str) -> None:
        """`output` is `predicted`, `all`, or the name of a class, of the score output, or the number of a target.

        Raises ConfigError when there is no such output, or `predicted` has no meaning: several targets and no classes.
        """
        self._forest = forest
        self._fixed = _fixed_outputs(forest, output)

    def picked(
        self,
        values: NDArray[np.float64],
        base: NDArray[np.float64],
        raw: NDArray[np.float64],
        predictions: Predictions,
    ) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """From values (n, F, K), base (n or 1, K) and raw scores (n, K) of the rows, for each explanation: the index of
        its output, (E,), its values, (E, F), its base, (E,), and the raw score, (E,)."""
        if self._fixed is None:
            index = self._predicted(predictions)
            place = np.arange(len(values))
        else:
            index = np.tile(self._fixed, len(values))
            place = np.repeat(np.arange(len(values)), len(self._fixed))
        base = np.broadcast_to(base, raw.shape)
        if self._forest.outputs == 1 and self._forest.labels:
            # One score for two classes: the first class's is `mirror` less the second's.
            sign = np.where(index == 1, 1.0, -1.0)
            start = np.where(index == 1, 0.0, self._forest.mirror)
            return (
                index,
                values[place, :, 0] * sign[:, None],
                start + sign * base[place, 0],
                start + sign * raw[place, 0],
            )
        return index, values[place, :, index], base[place, index], raw[place, index]

    def _predicted(self, predictions: Predictions) -> NDArray[np.int64]:
        labels = predictions.labels
        if labels is None:
            raise InvariantError("a classifier predicted no class")
        if predictions.classes == self._forest.labels:
            return labels
        place = {name: index for index, name in enumerate(self._forest.labels)}
        if not set(predictions.classes) <= place.keys():
            raise InvariantError("the classes of the predictions are not those of the trees")
        return np.array([place[name] for name in predictions.classes], dtype=np.int64)[labels]


def _fixed_outputs(forest: Forest, output: str) -> NDArray[np.int64] | None:
    """The outputs to explain of every row, or None where the predicted class decides."""
    if output == "all":
        return np.arange(forest.classes)
    if output == "predicted":
        if forest.labels:
            return None
        if forest.outputs == 1:
            return np.zeros(1, dtype=np.int64)
        raise ConfigError(
            f"explain.output predicted: the model has {forest.outputs} targets and predicts no class; "
            "choose all, or the number of one"
        )
    names: Sequence[str] = forest.labels or [str(number) for number in range(forest.outputs)]
    if output in names:
        return np.array([names.index(output)])
    places = [f"{forest.output_name}[{number}]" for number in range(forest.outputs)]
    if not forest.labels and output in places:
        return np.array([places.index(output)])
    if output == forest.output_name and forest.classes == 1:
        return np.zeros(1, dtype=np.int64)
    raise ConfigError(
        f"explain.output {output}: the model has {', '.join(names[:20])}; or choose all, predicted"
    )
