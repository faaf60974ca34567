"""A model whose runs all come from one thread."""

from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.engine.ports import Predictions


class LimitedModel(Protocol):
    """The Model port with a limit that the warm-up may lower."""

    batch_rows_max: int

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        """See penstock.engine.ports.Model."""


class OneThread:
    """The Model port, from any thread, on a model that runs on a thread of its own, the same for good.

    The CUDA provider keeps its handles and its captured graphs by thread: what one thread has warmed up is cold on another.
    """

    def __init__(self, model: LimitedModel) -> None:
        self._model = model
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    @property
    def batch_rows_max(self) -> int:
        """Larger batches are run in pieces."""
        return self._model.batch_rows_max

    @batch_rows_max.setter
    def batch_rows_max(self, rows_max: int) -> None:
        self._model.batch_rows_max = rows_max

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        """See penstock.engine.ports.Model."""
        return self._thread.submit(self._model.predict, matrix).result()
