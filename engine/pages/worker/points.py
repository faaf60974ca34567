"""What the newest explained records held, each number beside its attribution: what a feature's dependence is drawn from."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.pipeline.sampling import Pairs

rows_max: Final = 2048
cells_max: Final = 1 << 18
"""Numbers that are kept, of all columns together: of a wide model fewer records."""


class Points:
    """The newest R records, in no order; R is bounded by `rows_max` and by the width. Not thread-safe."""

    def __init__(self) -> None:
        self._values: NDArray[np.float64] = np.empty((0, 0))
        self._attributions: NDArray[np.float64] = np.empty((0, 0))
        self._outputs: NDArray[np.int64] = np.empty(0, np.int64)
        self._added = 0

    def add(self, pairs: Pairs) -> None:
        """These too; the oldest go."""
        width = pairs.values.shape[1]
        if width != self._values.shape[1]:
            rows = int(np.clip(cells_max // max(width, 1), 1, rows_max))
            self._values, self._attributions = np.empty((rows, width)), np.empty((rows, width))
            self._outputs = np.empty(rows, np.int64)
            self._added = 0
        room = len(self._values)
        values, attributions = pairs.values[-room:], pairs.attributions[-room:]
        places = np.arange(self._added, self._added + len(values)) % room
        self._values[places], self._attributions[places] = values, attributions
        self._outputs[places] = pairs.outputs[-room:]
        self._added += len(values)

    def of_column(self, column: int, *, two_classes: bool) -> dict[str, Any]:
        """Values and attributions of a column, finite attributions alone; a missing value is NaN.

        `two_classes`: what speaks for the first of them speaks as much against the second, which then all attributions are
        of. `outputs`: the outputs that the attributions are of.
        """
        rows = min(self._added, len(self._values))
        if not 0 <= column < self._values.shape[1]:
            return {"values": [], "attributions": [], "outputs": []}
        values, attributions = self._values[:rows, column], self._attributions[:rows, column]
        outputs = self._outputs[:rows]
        if two_classes:
            attributions, outputs = (
                np.where(outputs == 1, attributions, 0.0 - attributions),
                np.ones_like(outputs),
            )
        finite = np.isfinite(attributions)
        return {
            "values": values[finite].tolist(),
            "attributions": attributions[finite].tolist(),
            "outputs": np.unique(outputs).tolist(),
        }
