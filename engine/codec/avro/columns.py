"""Avro records to matrix rows, natively: the fast path of the decoder."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from penstock.engine.codec.avro.program import UnsupportedSchemaError, make_program, native_width
from penstock.engine.codec.avro.texts import TextSpans
from penstock.engine.codec.framing import Schema
from penstock.engine.codec.object_rows import no_features
from penstock.engine.codec.schema_check import Codes, read_as_numbers
from penstock.engine.features.policies import unseen_code
from penstock.engine.features.signature import ModelInput, Signature
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage

_statuses: Final = {
    1: (Stage.DECODE, Reason.TRUNCATED, "the bytes end before the record does, {where}at byte {at}"),
    2: (Stage.DECODE, Reason.TRAILING_BYTES, "{rest} bytes follow the record"),
    3: (Stage.DECODE, Reason.CORRUPT, "a length, index, number or text cannot be, {where}before byte {at}"),
    4: (Stage.DECODE, Reason.LIMIT_EXCEEDED, "there are more items than are read, {where}before byte {at}"),
    5: (Stage.DECODE, Reason.INCOMPATIBLE_SCHEMA, "{reason}, {where}before byte {at}"),
    6: (
        Stage.VALIDATE,
        Reason.WRONG_TYPE,
        "a vector has another length than its feature, {where}before byte {at}",
    ),
}
"""What the native statuses (program.h) mean here."""

_skipped: Final = 7
_empty: Final = 8


class NativeRows:
    """Reads records of one writer schema as a reader's schema sees them. The interpreter lock is let go meanwhile."""

    def __init__(
        self,
        writer: Schema,
        reader: Schema,
        signature: Signature,
        *,
        skip: int,
        record_type: str | None = None,
        refuses_empty: bool = True,
    ) -> None:
        """`skip` bytes of framing come first; with `record_type`, records of every other type are passed over;
        `refuses_empty`: a record that writes no feature's field, not even as null, is a fault (NO_FEATURES).

        Raises UnsupportedSchemaError, and RecordError (INCOMPATIBLE_SCHEMA) where no record at all can be read.
        """
        numbered = read_as_numbers(signature, reader, record_type)
        self._program = make_program(
            writer, reader, _as_numbers(signature, numbered), record_type=record_type
        )
        self._tables = _tables(signature, numbered)
        self._skip = skip
        self._dtype = signature.record_dtype
        is_text = any(feature.kind == "text" for feature in signature.features)
        self._texts = TextSpans(signature) if is_text else None
        self._as_double = signature.record_dtype == np.float64 or bool(self._tables) or is_text
        self._refuses_empty = refuses_empty

    def read(
        self, values: Sequence[bytes]
    ) -> tuple[NDArray[np.generic], NDArray[np.int64], list[tuple[int, RecordError]]]:
        """`(matrix (R, F), rows (R,) ascending places in values, faults by ascending place)`; what is in neither is of
        another type than record_type.

        In the matrix NaN is missing and features.unseen_code an unseen category.
        """
        matrix, found = self._program.native.read(
            values if isinstance(values, list) else [*values],
            self._skip,
            self._as_double,
            self._refuses_empty,
        )
        for column, numbers, codes in self._tables:
            _look_up(matrix[:, column], numbers, codes)
        wrong: dict[int, RecordError] = {}
        if self._texts is not None:
            matrix = self._texts.spread(matrix, values, wrong)
        if matrix.dtype != self._dtype:
            with np.errstate(
                over="ignore"
            ):  # a double past float32 becomes an infinity, which has its own policy
                matrix = matrix.astype(self._dtype)
        if not found and not wrong:
            return matrix, np.arange(len(values), dtype=np.int64), []
        good = np.ones(len(values), dtype=np.bool_)
        good[[*wrong]] = False
        faults = [*wrong.items()]
        for place, status, at, node in found:
            good[place] = False
            if status != _skipped:
                faults.append((place, self._fault(status, at, node, len(values[place]))))
        return matrix[good], np.flatnonzero(good), sorted(faults, key=lambda fault: fault[0])

    def _fault(self, status: int, at: int, node: int, length: int) -> RecordError:
        if status == _empty:
            return no_features()
        stage, reason, detail = _statuses[status]
        field = self._program.places[node]
        where = f"in {field} " if field else ""
        why = self._program.reasons[node]
        return RecordError(
            stage=stage, reason=reason, detail=detail.format(where=where, at=at, rest=length - at, reason=why)
        )


def _as_numbers(signature: Signature, names: Collection[str]) -> Signature:
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
    signature: Signature, names: Mapping[str, Codes]
) -> list[tuple[int, NDArray[np.float64], NDArray[np.float64]]]:
    """For each of these categories its column, its numbers ascending, and their codes.

    Raises UnsupportedSchemaError where a double could take one number for another.
    """
    tables = []
    column = -1
    for feature in signature.features:
        column += 1
        if feature.name in names:
            numbers = names[feature.name]
            if any(isinstance(number, int) and abs(number) >= 1 << 53 for number in numbers):
                raise UnsupportedSchemaError(f"feature {feature.name} has categories past 2^53")
            keys = np.array([*numbers], dtype=np.float64)
            order = np.argsort(keys)
            tables.append((column, keys[order], np.array([*numbers.values()], dtype=np.float64)[order]))
        column += native_width(feature) - 1
    return tables


def _look_up(values: NDArray[np.generic], numbers: NDArray[np.float64], codes: NDArray[np.float64]) -> None:
    """Codes in place of numbers; NaN, which is missing, stays."""
    known = ~np.isnan(values)
    place = np.minimum(np.searchsorted(numbers, values[known]), len(numbers) - 1)
    values[known] = np.where(numbers[place] == values[known], codes[place], unseen_code)
