"""Avro records to matrix rows, natively: the fast path of the decoder."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from engine.codec.avro_program import make_program
from engine.codec.framing import Schema
from engine.models.signature import Signature
from schemas.errors import RecordError
from schemas.reasons import Reason, Stage

_statuses: Final = {
    1: (Stage.DECODE, Reason.TRUNCATED, "the bytes end before the record does, {where}at byte {at}"),
    2: (Stage.DECODE, Reason.TRAILING_BYTES, "{rest} bytes follow the record"),
    3: (Stage.DECODE, Reason.CORRUPT, "a length, index, number or text cannot be, {where}before byte {at}"),
    4: (Stage.DECODE, Reason.LIMIT_EXCEEDED, "there are more items than are read, {where}before byte {at}"),
    5: (
        Stage.DECODE,
        Reason.INCOMPATIBLE_SCHEMA,
        "a value does not resolve to the reader's schema, {where}before byte {at}",
    ),
    6: (
        Stage.VALIDATE,
        Reason.WRONG_TYPE,
        "a vector has another length than its feature, {where}before byte {at}",
    ),
}
"""What the native statuses (program.h) mean here."""


class NativeRows:
    """Reads records of one writer schema as a reader's schema sees them. The interpreter lock is let go meanwhile."""

    def __init__(self, writer: Schema, reader: Schema, signature: Signature, *, skip: int) -> None:
        """The schemas are known to resolve; `skip` bytes of framing come first.

        Raises UnsupportedSchemaError, and RecordError (INCOMPATIBLE_SCHEMA) where they count a time in different units.
        """
        self._program = make_program(writer, reader, signature)
        self._skip = skip
        self._as_double = signature.dtype == np.float64

    def read(
        self, values: Sequence[bytes]
    ) -> tuple[NDArray[np.generic], NDArray[np.int64], list[tuple[int, RecordError]]]:
        """`(matrix (R, F), rows (R,) ascending places in values, faults by ascending place)`; R + faults = all.

        In the matrix NaN is missing and features.unseen_code an unseen category.
        """
        matrix, found = self._program.native.read(
            values if isinstance(values, list) else [*values], self._skip, self._as_double
        )
        if not found:
            return matrix, np.arange(len(values), dtype=np.int64), []
        good = np.ones(len(values), dtype=np.bool_)
        faults = []
        for place, status, at, node in found:
            good[place] = False
            faults.append((place, self._fault(status, at, node, len(values[place]))))
        return matrix[good], np.flatnonzero(good), faults

    def _fault(self, status: int, at: int, node: int, length: int) -> RecordError:
        stage, reason, detail = _statuses[status]
        field = self._program.places[node]
        where = f"in {field} " if field else ""
        return RecordError(
            stage=stage, reason=reason, detail=detail.format(where=where, at=at, rest=length - at)
        )
