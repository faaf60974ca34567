"""Texts of Avro records: the native reader says where they stand, their words are counted here."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.engine.codec.avro.program import native_width
from penstock.engine.features.signature import Feature, Signature
from penstock.engine.features.texts import TextColumns
from penstock.engine.features.values import fill_texts
from penstock.schemas.errors import RecordError

_length_bits: Final = 26
"""As in reader.cpp: first byte and length of a text, in one double."""


class TextSpans:
    """Puts the columns of texts in place of the one that says where each text stands."""

    def __init__(self, signature: Signature) -> None:
        self._width, self._dtype = signature.width, signature.record_dtype
        self._texts: list[tuple[Feature, TextColumns, int, int]] = []
        self._others: list[tuple[slice, slice]] = []
        native = column = 0
        for feature in signature.features:
            if feature.kind == "text":
                self._texts.append((feature, TextColumns(feature.parts), native, column))
            else:
                self._others.append(
                    (slice(native, native + feature.width), slice(column, column + feature.width))
                )
            native += native_width(feature)
            column += feature.width

    def spread(
        self, matrix: NDArray[np.generic], values: Sequence[bytes], faults: dict[int, RecordError]
    ) -> NDArray[np.generic]:
        """The matrix (N, F) of Signature.record_dtype, of the native reader's (N, F') of these values; a text that is too long
        is a fault of its record."""
        wide = np.full((len(matrix), self._width), np.nan, dtype=self._dtype)
        with np.errstate(
            over="ignore"
        ):  # a double past float32 becomes an infinity, which has its own policy
            for native, column in self._others:
                wide[:, column] = matrix[:, native]
        places = np.arange(len(matrix), dtype=np.int64)
        for feature, columns, native_column, first in self._texts:
            spans = matrix[:, native_column]
            texts: list[str | None] = [None] * len(matrix)
            for place in np.flatnonzero(~np.isnan(spans)).tolist():
                span = int(spans[place])
                at, length = span >> _length_bits, span & ((1 << _length_bits) - 1)
                texts[place] = values[place][at : at + length].decode()
            fill_texts(feature, columns, texts, places, wide, first, faults)
        return wide
