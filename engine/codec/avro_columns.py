"""Avro records to matrix rows, natively: the fast path of the decoder."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from engine.codec.avro_program import make_program
from engine.codec.framing import Schema
from engine.models.signature import Signature
from schemas.errors import RecordError
from schemas.reasons import Reason, Stage

_statuses: Final = {
    1: (Reason.TRUNCATED, "the bytes end before the record does, at byte {at}"),
    2: (Reason.TRAILING_BYTES, "{rest} bytes follow the record"),
    3: (Reason.CORRUPT, "a length, index, number or text cannot be, before byte {at}"),
    4: (Reason.LIMIT_EXCEEDED, "the record has more items than are read, before byte {at}"),
    5: (Reason.INCOMPATIBLE_SCHEMA, "a value does not resolve to the reader's schema, before byte {at}"),
    6: (Reason.WRONG_TYPE, "a vector has another length than the feature, before byte {at}"),
}
"""What the native statuses (program.h) mean here."""


class NativeRows:
    """Reads records of one writer schema as a reader's schema sees them. The interpreter lock is let go meanwhile."""

    def __init__(self, writer: Schema, reader: Schema, signature: Signature, *, skip: int) -> None:
        """The schemas are known to resolve; `skip` bytes of framing come first. Raises UnsupportedSchemaError."""
        self._program = make_program(writer, reader, signature)
        self._skip = skip
        self._as_double = signature.dtype == np.float64

    def read(
        self, values: Sequence[bytes]
    ) -> tuple[NDArray[np.generic], NDArray[np.int64], list[tuple[int, RecordError]]]:
        """`(matrix (R, F), rows (R,) ascending places in values, faults by ascending place)`; R + faults = all.

        In the matrix NaN is missing and features.unseen_code an unseen category.
        """
        matrix: NDArray[Any]
        matrix, status, places, clean = self._program.read(values, self._skip, self._as_double)
        if clean:
            return matrix, np.arange(len(values), dtype=np.int64), []
        faults = [
            (place, _fault(int(status[place]), int(places[place]), len(values[place])))
            for place in np.flatnonzero(status).tolist()
        ]
        rows = np.flatnonzero(status == 0)
        return matrix[rows], rows, faults


def _fault(status: int, at: int, length: int) -> RecordError:
    reason, detail = _statuses[status]
    return RecordError(stage=Stage.DECODE, reason=reason, detail=detail.format(at=at, rest=length - at))
