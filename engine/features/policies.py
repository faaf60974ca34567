"""What becomes of missing values, infinities and unseen categories: each feature's policy, over whole columns; then the
numbers are narrowed to what the model takes."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.narrowing import Narrowing, rounds_to_infinity
from penstock.engine.features.signature import Feature, Signature
from penstock.engine.features.value_counts import ValueCounts
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Rejection

unseen_code: Final = -1.0
"""In a category column as it was read: a value that the table does not hold."""

_faults: Final = (
    (Reason.MISSING_VALUE, "is missing"),
    (Reason.NOT_FINITE, "is infinite"),
    (Reason.UNSEEN_CATEGORY, "has a category that the model was not trained on"),
    (Reason.OUT_OF_RANGE, "is outside the ranges that the model takes"),
)


class FeaturePolicies:
    """Applies the policies of a signature to a matrix as it was read."""

    def __init__(self, signature: Signature, counts: ValueCounts | None = None) -> None:
        """`counts` is told of every batch, as it was read."""
        self._counts = counts
        owners = signature.column_features
        self._narrowing = Narrowing(signature)
        self._columns = [
            feature.name if feature.kind == "text" else column
            for feature, column in zip(owners, signature.columns, strict=True)
        ]
        self._strict = _columns(feature.missing != "nan" for feature in owners)
        self._bounded = _columns(feature.infinite == "reject" for feature in owners)
        self._ranged = [(column, *ends_of(each)) for column, each in enumerate(owners) if each.within]
        self._categories = _columns(feature.kind == "category" for feature in owners)
        missing, unseen = [f.missing for f in owners], [f.unseen for f in owners]
        self._missing_rejects = np.array([policy == "reject" for policy in missing])
        self._missing_fill = _fills(missing)
        self._unseen_rejects = np.array([policy == "reject" for policy in unseen])
        self._unseen_fill = _fills(unseen)

    def apply(
        self, matrix: NDArray[np.generic], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.generic], NDArray[np.int64], list[Rejection]]:
        """The rows that pass, as the model takes them (Signature.dtype), where they stand, and a rejection for each that
        does not.

        `matrix` (R, F), of Signature.record_dtype, is changed in place: NaN is missing, and `unseen_code` in a category's
        column is an unseen category; afterwards replacements stand there. `rows` (R,) are the records' places. A record
        with several faults is rejected for the one in its first column.
        """
        # One pass over a batch that mostly needs no other: as long as nothing in the matrix is changed, this is what goes on.
        narrowed, missing_values, largest = self._narrowing.narrow_and_scan(matrix)
        changed = self._narrowing.marks_missing or largest >= rounds_to_infinity
        if self._counts is not None:
            self._counts.count_missing(len(matrix), missing_values)
        faults: NDArray[np.uint8] | None = None  # (R, F) once there is one: 1 + place in _faults

        def mark(where: NDArray[np.bool_], columns: NDArray[np.intp], fault: int) -> None:
            nonlocal faults
            if where.any():
                if faults is None:
                    faults = np.zeros(matrix.shape, dtype=np.uint8)
                at_rows, at_columns = np.nonzero(where)
                faults[at_rows, columns[at_columns]] = fault + 1

        self._narrowing.mark(matrix, largest)
        for column, lows, highs in self._ranged:  # before what is put in place of a missing value
            mark(outside(matrix[:, [column]], lows, highs), np.array([column]), 3)
        if self._narrowing.marks_missing or missing_values[self._strict].any():
            missing = np.isnan(_part(matrix, self._strict))
            mark(missing & self._missing_rejects[self._strict], self._strict, 0)
            _replace(matrix, missing, self._strict, self._missing_fill)
            changed = True
        if len(self._bounded) and largest >= rounds_to_infinity:
            mark(np.isinf(_part(matrix, self._bounded)), self._bounded, 1)
        if len(
            self._categories
        ):  # after the missing ones: an unseen category that is to be NaN is not missing
            unseen = _part(matrix, self._categories) == unseen_code
            if unseen.any():
                if self._counts is not None:
                    self._counts.count_unseen(self._categories, unseen)
                mark(unseen & self._unseen_rejects[self._categories], self._categories, 2)
                _replace(matrix, unseen, self._categories, self._unseen_fill)
                changed = True
        if changed:
            narrowed = self._narrowing.narrow(matrix)
        if faults is None:
            return narrowed, rows, []
        return self._without(narrowed, rows, faults)

    def _without(
        self, narrowed: NDArray[np.generic], rows: NDArray[np.int64], faults: NDArray[np.uint8]
    ) -> tuple[NDArray[np.generic], NDArray[np.int64], list[Rejection]]:
        bad = faults.any(axis=1)
        rejections = []
        for row in np.flatnonzero(bad).tolist():
            column = int(np.argmax(faults[row] != 0))
            reason, what = _faults[int(faults[row, column]) - 1]
            detail = f"feature {self._columns[column]} {what}"
            rejections.append(
                Rejection(index=int(rows[row]), stage=Stage.VALIDATE, reason=reason, detail=detail)
            )
        return narrowed[~bad], rows[~bad], rejections


def ends_of(feature: Feature) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lower and the upper ends of the ranges that a feature takes, each (n,)."""
    ends = np.array(feature.within, dtype=np.float64).reshape(-1, 2)
    return ends[:, 0], ends[:, 1]


def outside(
    values: NDArray[np.generic], lows: NDArray[np.float64], highs: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which values lie in none of the ranges (ends_of); a missing one lies nowhere, and is not outside."""
    numbers = values.astype(np.float64, copy=False)
    place = np.searchsorted(lows, numbers, side="right") - 1
    inside = (place >= 0) & (numbers <= highs[np.maximum(place, 0)])
    return np.asarray(~inside & ~np.isnan(numbers))


def _columns(chosen: Iterable[bool]) -> NDArray[np.intp]:
    return np.flatnonzero(np.array([*chosen], dtype=np.bool_))


def _fills(policies: Sequence[str | float]) -> NDArray[np.float64]:
    """What is put in place, per column; NaN where nothing is."""
    return np.array([np.nan if isinstance(policy, str) else policy for policy in policies], dtype=np.float64)


def _part(matrix: NDArray[np.generic], columns: NDArray[np.intp]) -> NDArray[Any]:
    """These columns, without a copy when they are all."""
    return matrix if len(columns) == matrix.shape[1] else matrix[:, columns]


def _replace(
    matrix: NDArray[np.generic],
    where: NDArray[np.bool_],
    columns: NDArray[np.intp],
    fills: NDArray[np.float64],
) -> None:
    rows, places = np.nonzero(where)
    matrix[rows, columns[places]] = fills[columns[places]]
