"""A cache of results by feature values, for inputs that repeat exactly."""

from collections.abc import Callable
from itertools import repeat
from typing import cast

import numpy as np
from numpy.typing import NDArray

from penstock.engine.ports import Model, Predictions
from penstock.schemas.errors import ConfigError

_together = (1, 3, 64, 512)
"""Batch sizes at which a row must get the same bits."""
_compared_rows = 48
"""That many rows at least are compared at each size."""


class CachedModel:
    """The Model port on another one, with the results of the newest `rows_max` different rows kept. One thread at a time.

    A row is the same when all its bytes are, so that -0.0 and 0.0 are two, and each NaN is one of its own. What it
    answers is what the model answered when the row came first, to the bit; check_alone says whether the model answers so
    in any batch. It keeps nothing before `begin()`.
    """

    def __init__(self, model: Model, *, rows_max: int, count: Callable[[int, int], None]) -> None:
        """`count` is called once a batch with the number of cache hits and of rows that the model computed."""
        self._model = model
        self._rows_max = rows_max
        self._count = count
        self._open = False
        self._places: dict[bytes, int] = {}
        self._keys: list[bytes | None] = [None] * rows_max  # by place, in a ring: the oldest goes first
        self._next = 0
        self._outputs: dict[str, NDArray[np.float64]] = {}  # (rows_max, K) by place
        self._labels: NDArray[np.int64] | None = None  # (rows_max,)
        self._classes: tuple[str, ...] = ()

    def begin(self) -> None:
        """From now on, keep results."""
        self._open = True

    @property
    def rows(self) -> int:
        """How many results are kept."""
        return len(self._places)

    def predict(self, matrix: NDArray[np.generic]) -> Predictions:
        """See penstock.engine.ports.Model. Where the model raises, nothing is kept of the batch."""
        if not self._open or len(matrix) == 0:
            return self._model.predict(matrix)
        keys = _keys(matrix)
        places = np.fromiter(map(self._places.get, keys, repeat(-1)), dtype=np.int64, count=len(keys))
        unknown = np.flatnonzero(places < 0)
        fresh = {keys[row]: row for row in reversed(unknown.tolist())}  # of equal rows, the first
        found: Predictions | None = None
        if fresh:
            asked = np.sort(np.fromiter(fresh.values(), dtype=np.int64, count=len(fresh)))
            found = self._model.predict(matrix[asked] if len(asked) < len(keys) else matrix)
            fresh = {keys[row]: place for place, row in enumerate(asked.tolist())}
            self._make_room(found)
        self._count(len(keys) - len(fresh), len(fresh))
        if found is not None and len(fresh) == len(keys):
            self._keep(fresh, found)
            return found
        answers = self._joined(places, unknown, [fresh[keys[row]] for row in unknown.tolist()], found)
        if found is not None:
            self._keep(fresh, found)
        return answers

    def _joined(
        self,
        places: NDArray[np.int64],
        unknown: NDArray[np.int64],
        answered: list[int],
        found: Predictions | None,
    ) -> Predictions:
        """Kept results by place, and those just found (rows `answered` of them) where there were none."""
        outputs = {name: kept[places] for name, kept in self._outputs.items()}
        labels = None if self._labels is None else self._labels[places]
        if found is not None:
            for name in outputs:
                outputs[name][unknown] = found.outputs[name][answered]
            if labels is not None and found.labels is not None:
                labels[unknown] = found.labels[answered]
        return Predictions(outputs=outputs, labels=labels, classes=self._classes)

    def _make_room(self, found: Predictions) -> None:
        if self._outputs:
            return
        self._classes = found.classes
        self._outputs = {
            name: np.zeros((self._rows_max, scores.shape[1])) for name, scores in found.outputs.items()
        }
        if found.labels is not None:
            self._labels = np.zeros(self._rows_max, dtype=np.int64)

    def _keep(self, fresh: dict[bytes, int], found: Predictions) -> None:
        """`fresh`: the rows of `found` by what they are, in order."""
        keys = list(fresh)[-self._rows_max :]
        rows = np.array([fresh[key] for key in keys], dtype=np.int64)
        places = (self._next + np.arange(len(keys))) % self._rows_max
        for place, key in zip(places.tolist(), keys, strict=True):
            if (old := self._keys[place]) is not None:
                del self._places[old]
            self._keys[place] = key
            self._places[key] = place
        self._next = (self._next + len(keys)) % self._rows_max
        for name, kept in self._outputs.items():
            kept[places] = found.outputs[name][rows]
        if self._labels is not None and found.labels is not None:
            self._labels[places] = found.labels[rows]


def check_alone(model: Model, rows: NDArray[np.generic]) -> None:
    """Raises ConfigError when a row's scores depend on the batch it comes in: then no result may be kept."""
    whole = model.predict(rows)
    for size in _together:
        for start in range(0, min(len(rows), max(size, _compared_rows)), size):
            part = np.arange(start, min(start + size, len(rows)))
            expected, found = whole.take(part), model.predict(rows[part])
            for name, scores in expected.outputs.items():
                if scores.tobytes() != found.outputs[name].tobytes():
                    raise ConfigError(
                        f"model.cache_rows: in a batch of {len(part)} rows a row gets other scores than in one of "
                        f"{len(rows)}, so that what is kept would not be what the model answers; set it to 0"
                    )


def _keys(matrix: NDArray[np.generic]) -> list[bytes]:
    rows = np.ascontiguousarray(matrix)
    whole = np.dtype((np.void, rows.itemsize * rows.shape[1]))
    return cast("list[bytes]", rows.view(whole).reshape(-1).tolist())
