"""How many values each feature lacked, and how many its table did not hold: counted by the batch, told once when all are."""

import logging
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.features.signature import Signature
from penstock.schemas.log_codes import LogCode

first_rows: Final = 1000
"""A feature that was missing in every one of the first so many records is worth a warning."""

_named_max: Final = 5

logger = logging.getLogger("penstock.decoder")


class ValueCounts:
    """Values as they were read, before the policies, of all features since the start.

    `rows` counts records whose fields could be read; `missing[i]` and `unseen[i]` the values of features[i] that were null,
    absent or NaN, and those of a category that are not in its table; each number of a vector counts.
    Written on the compute thread; another one may read at any time.
    """

    def __init__(self, signature: Signature) -> None:
        self.features = tuple(feature.name for feature in signature.features)
        self.rows = 0
        self.missing = np.zeros(len(self.features), dtype=np.int64)
        self.unseen = np.zeros(len(self.features), dtype=np.int64)
        self._fields = {feature.name: feature.field for feature in signature.features}
        self._widths = np.array([feature.width for feature in signature.features])
        self._starts = np.cumsum(self._widths) - self._widths
        self._owner = np.repeat(np.arange(len(self.features)), self._widths)
        self._told = False

    def count_missing(self, rows: int, missing: NDArray[np.int64]) -> None:
        """Take in a batch of so many rows as it was read, in which each matrix column (F,) was missing so often; at the first
        batches' end, warn of what never came."""
        if not rows:
            return
        self.rows += rows
        self.missing += np.add.reduceat(missing, self._starts)
        if not self._told and self.rows >= first_rows:
            self._told = True
            self._warn()

    def count_unseen(self, columns: NDArray[np.intp], unseen: NDArray[np.bool_]) -> None:
        """Take in the unseen categories of a batch, (R, len(columns)), in these columns of the matrix."""
        np.add.at(self.unseen, self._owner[columns], np.count_nonzero(unseen, axis=0))

    def _warn(self) -> None:
        never = [self.features[place] for place in np.flatnonzero(self.missing == self.rows * self._widths)]
        if not never:
            return
        named = ", ".join(
            name if self._fields[name] == name else f"{name} (field {self._fields[name]})"
            for name in never[:_named_max]
        )
        more = f" and {len(never) - _named_max} more" if len(never) > _named_max else ""
        logger.warning(
            "missing in every one of the first %d records: %s%s. Absent or null each time; if the producer calls a field by "
            "another name, say so in the feature's field (penstock package --features)",
            self.rows,
            named,
            more,
            extra=LogCode.FEATURES_ALWAYS_MISSING.extra,
        )
