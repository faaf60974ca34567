"""Explanations of a class that was chosen before, whichever is predicted now: two of different classes cannot be compared."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from penstock.engine.ports import Attributions, Explainer, Predictions


class OfOneClass:
    """An explainer that can be told which class to explain where it would explain the predicted one. For one thread."""

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer
        self.label: int | None = None
        """A place in the classes; None: the predicted one."""

    def explain(self, matrix: NDArray[np.generic], predictions: Predictions) -> Attributions:
        """See penstock.engine.ports.Explainer."""
        return self._explainer.explain(matrix, self.chosen(predictions))

    def chosen(self, predictions: Predictions) -> Predictions:
        """As if the chosen class had been predicted of every row."""
        if self.label is None or predictions.labels is None:
            return predictions
        return replace(predictions, labels=np.full_like(predictions.labels, self.label))
