"""From the doubles of a record to the float32 that a model compares, without changing on which side of a test a value lies."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.signature import Signature
from penstock.engine.native import _trees

_largest = float(np.finfo(np.float32).max)
rounds_to_infinity: Final = _largest + 2.0**103
"""The least double that float32 has no finite number for."""


class Narrowing:
    """Turns matrix rows as records hold them (Signature.record_dtype) into rows as the model takes them (Signature.dtype).

    A column with cuts keeps its side of each: x <= cut exactly when the narrowed x <= the level that stands for the cut
    (see levels_of). Every other column is rounded to the nearest float32.
    """

    def __init__(self, signature: Signature) -> None:
        self._dtype, self._record_dtype = signature.dtype, signature.record_dtype
        self._sentinels = [
            (column, np.float32(feature.sentinel))
            for column, feature in enumerate(signature.column_features)
            if feature.sentinel is not None
        ]
        self._native = None
        if signature.cuts:
            cuts = [np.array(column, dtype=np.float64) for column in signature.cuts]
            offsets = np.cumsum([0, *map(len, cuts)]).astype(np.int32)
            levels = np.concatenate([levels_of(column) for column in cuts])
            self._native = _trees.Narrower(offsets, np.concatenate(cuts), levels)

    @property
    def marks_missing(self) -> bool:
        """Whether some number of some feature means a missing value."""
        return bool(self._sentinels)

    def mark(self, matrix: NDArray[np.generic], largest: float) -> None:
        """Put NaN for the numbers that mean a missing value, in place, as the model's library compares them: in float32.

        A finite value past float32's range becomes the infinity that it would be rounded to. `largest` is the largest
        magnitude in the matrix (_trees.scan).
        """
        for column, sentinel in self._sentinels:
            values = matrix[:, column]
            with np.errstate(over="ignore"):
                values[values.astype(np.float32) == sentinel] = np.nan
        if self._native is not None and largest >= rounds_to_infinity:
            far = np.abs(matrix) >= rounds_to_infinity
            with np.errstate(over="ignore"):
                matrix[far] = matrix[far].astype(np.float32)

    def narrow(self, matrix: NDArray[np.generic]) -> NDArray[np.generic]:
        """The rows (R, F) in the model's dtype."""
        if self._native is not None:
            return self._native.narrow(np.ascontiguousarray(matrix, dtype=np.float64))[0]
        with np.errstate(over="ignore"):
            return matrix.astype(self._dtype, copy=False)

    def narrow_and_scan(
        self, matrix: NDArray[np.generic]
    ) -> tuple[NDArray[np.generic], NDArray[np.int64], float]:
        """`narrow` of a matrix as it was read, how often each column (F,) of it is NaN, and the largest magnitude of its other
        numbers, which may be infinite for one that float32 has no finite number for. One pass over the batch."""
        if self._native is not None:
            narrowed, (missing, largest) = self._native.narrow(np.ascontiguousarray(matrix, dtype=np.float64))
            return narrowed, missing, largest
        return self.narrow(matrix), *_trees.scan(matrix)


def as_fed(rows: NDArray[np.generic], signature: Signature) -> NDArray[np.generic]:
    """Rows (R, F) of doubles, missing values as NaN or a sentinel and policies applied, as the model takes them."""
    narrowing = Narrowing(signature)
    matrix = rows.astype(signature.record_dtype)
    narrowing.mark(matrix, np.inf)
    return narrowing.narrow(matrix)


def widened(rows: NDArray[np.float32], signature: Signature) -> NDArray[np.float64]:
    """Doubles that as_fed turns into these rows, as close to the cuts as can be: a row on a level lands on its cut, a row
    just above one on the next double."""
    wide = rows.astype(np.float64)
    for column, cuts in enumerate(np.array(each, dtype=np.float64) for each in signature.cuts):
        known = np.isfinite(rows[:, column])
        if not len(cuts) or not known.any():
            continue
        values, levels = rows[known, column], levels_of(cuts)
        place = np.searchsorted(levels, values)  # levels below
        low = np.concatenate(([-np.inf], cuts))[place]
        high = np.concatenate((cuts, [np.inf]))[place]
        with np.errstate(over="ignore"):
            just_above = np.nextafter(
                np.concatenate(([np.nan], levels)).astype(np.float32), np.float32(np.inf)
            )
            beyond = np.nextafter(low, np.inf)
        inside = values.astype(np.float64)
        inside = np.where((inside > low) & (inside <= high), inside, np.where(np.isinf(high), beyond, high))
        on = np.concatenate((levels, [np.nan])).astype(np.float32)[place] == values
        wide[known, column] = np.where(on, high, np.where(just_above[place] == values, beyond, inside))
    return wide


def cuts_of(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """The thresholds of a column, each once, ascending, without infinities; those that lie past float32 are one."""
    return np.unique(_within(thresholds[np.isfinite(thresholds)]))


def levels_of(cuts: NDArray[np.float64]) -> NDArray[np.float32]:
    """The float32 that stands for each of the cuts (cuts_of) of a column, ascending, no two alike.

    The nearest one; where several cuts share it, the later ones take the next that are free.
    """
    with np.errstate(over="ignore"):  # the lowest cut may stand for minus infinity
        nearest = cuts.astype(np.float32)
    places = np.arange(len(cuts), dtype=np.int64)
    return _floats(np.maximum.accumulate(_ordinals(nearest) - places) + places)


def narrowed_thresholds(thresholds: NDArray[np.float64], cuts: NDArray[np.float64]) -> NDArray[np.float32]:
    """The level in place of each threshold of a column whose cuts these are; an infinity stays."""
    finite = np.isfinite(thresholds)
    with np.errstate(over="ignore"):
        narrow = thresholds.astype(np.float32)
    narrow[finite] = levels_of(cuts)[np.searchsorted(cuts, _within(thresholds[finite]))]
    return narrow


def _within(thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moved into the range of float32, for no row is told from them that lies beyond; one zero."""
    return np.clip(thresholds, -rounds_to_infinity, np.nextafter(rounds_to_infinity, 0.0)) + 0.0


def _ordinals(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Numbers in the order of the floats, neighbours one apart, both zeros 0."""
    bits = (values + np.float32(0)).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _floats(ordinals: NDArray[np.int64]) -> NDArray[np.float32]:
    bits = np.where(ordinals < 0, -ordinals | 0x80000000, ordinals)
    return bits.astype(np.uint32).view(np.float32)
