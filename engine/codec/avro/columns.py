"""Avro records to matrix rows, natively: the fast path of the decoder."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from penstock.engine.codec.avro.program import UnsupportedSchemaError, make_program
from penstock.engine.codec.framing import Schema
from penstock.engine.codec.schema_check import numbered_categories
from penstock.engine.features.policies import unseen_code
from penstock.engine.features.signature import ModelInput, Signature
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage

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
        numbered = numbered_categories(signature, reader)
        self._program = make_program(writer, reader, _as_numbers(signature, numbered))
        self._tables = _tables(signature, numbered)
        self._skip = skip
        self._as_double = signature.record_dtype == np.float64

    def read(
        self, values: Sequence[bytes]
    ) -> tuple[NDArray[np.generic], NDArray[np.int64], list[tuple[int, RecordError]]]:
        """`(matrix (R, F), rows (R,) ascending places in values, faults by ascending place)`; R + faults = all.

        In the matrix NaN is missing and features.unseen_code an unseen category.
        """
        matrix, found = self._program.native.read(
            values if isinstance(values, list) else [*values], self._skip, self._as_double
        )
        for column, numbers, codes in self._tables:
            _look_up(matrix[:, column], numbers, codes)
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


def _as_numbers(signature: Signature, names: frozenset[str]) -> Signature:
    """The signature with these categories read as the numbers they are."""
    if not names:
        return signature
    dtype: Literal["float32", "float64"] = "float32" if signature.record_dtype == np.float32 else "float64"
    return Signature(
        features=tuple(
            replace(feature, kind="number", categories=(), missing="nan", unseen="nan")
            if feature.name in names
            else feature
            for feature in signature.features
        ),
        inputs=(ModelInput(name="rows", dtype=dtype, start=0, width=signature.width),),
    )


def _tables(
    signature: Signature, names: frozenset[str]
) -> list[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
    """For each of these categories its column, its numbers ascending, and their codes.

    Raises UnsupportedSchemaError where the matrix could take one number for another.
    """
    exact = 1 << (24 if signature.record_dtype == np.float32 else 53)
    tables = []
    for column, feature in enumerate(signature.column_features):
        if feature.name not in names:
            continue
        numbers = [int(category) for category in feature.categories]
        if max(map(abs, numbers)) >= exact:
            raise UnsupportedSchemaError(f"feature {feature.name} has categories past {exact}")
        order = np.argsort(numbers)
        tables.append((column, np.array(numbers, dtype=np.float64)[order], order.astype(np.float64)))
    return tables


def _look_up(values: NDArray[np.generic], numbers: NDArray[np.float64], codes: NDArray[np.float64]) -> None:
    """Codes in place of numbers; NaN, which is missing, stays."""
    known = ~np.isnan(values)
    place = np.minimum(np.searchsorted(numbers, values[known]), len(numbers) - 1)
    values[known] = np.where(numbers[place] == values[known], codes[place], unseen_code)
