"""One value of a model's row as somebody would have it: by the rules that hold for a record's."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.policies import FeaturePolicies
from penstock.engine.features.signature import Feature, Signature
from penstock.engine.features.values import CategoryCodes, floats, numbers, of_type
from penstock.schemas.errors import RecordError


class ChangedValues:
    """Puts one value into a row, as if the record had held it. Holds nothing between calls."""

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        self._policies = FeaturePolicies(signature)
        self._neutral = np.array(
            [[_neutral(feature) for feature in signature.column_features]],
            dtype=signature.record_dtype,
        )
        """A row in which nothing is missing, unseen or infinite."""

    def changed(self, row: NDArray[np.generic], column: int, value: Any) -> NDArray[np.generic]:
        """A copy of the row (1, F), as the model takes it, with another value in a column.

        `value`: what a record may hold there; None is missing. Raises RecordError, as the record with it would be rejected.
        """
        alone = self._neutral.copy()
        alone[0, column] = _cell(self._signature.column_features[column], value)
        matrix, _, rejected = self._policies.apply(alone, np.zeros(1, dtype=np.int64))
        if rejected:
            first = rejected[0]
            raise RecordError(stage=first.stage, reason=first.reason, detail=first.detail)
        found = row.copy()
        found[0, column] = matrix[0, column]
        return found


def _neutral(feature: Feature) -> float:
    """A number that no policy minds."""
    ends = [end for each in feature.within for end in each if math.isfinite(end)]
    return next((value for value in (*ends, 0.0, 1.0) if value != feature.sentinel), 0.0)


def _cell(feature: Feature, value: Any) -> float:
    """The value as the column holds it before any policy."""
    faults: dict[int, RecordError] = {}
    place = np.zeros(1, dtype=np.int64)
    if feature.kind == "category":
        codes = CategoryCodes(feature)
        cell = codes.codes(of_type([value], codes.allowed, feature.field, codes.wanted, place, faults))[0]
    else:
        cell = float(floats(of_type([value], numbers, feature.field, "a number", place, faults))[0])
    if faults:
        raise faults[0]
    return cell
