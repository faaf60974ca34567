"""JSON records to matrix rows."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.engine.codec.framing import confluent_header_bytes, confluent_schema_id, foreign_bytes
from penstock.engine.codec.json_text import Nan, parse_with_care
from penstock.engine.codec.object_rows import ObjectRows, without_faults
from penstock.engine.features.signature import Signature
from penstock.engine.features.values import wrong_type
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage

chunk_bytes_max: Final = 4 << 20
"""Parsed at a time: a parsed record can take some 30 times its bytes."""


class JsonRows:
    """Reads the fields of a signature from JSON objects, as ObjectRows finds them.

    Of a name that stands twice in an object the last counts. Depth is bounded by the parser (1,024), numbers are IEEE
    doubles. A byte order mark is passed over. What is no JSON in a value that no feature is read from harms nobody.
    """

    def __init__(
        self,
        signature: Signature,
        *,
        nan: Nan = "reject",
        confluent_header: bool = False,
        refuses_empty: bool = True,
    ) -> None:
        """`nan`: what the literals NaN and Infinity become in a feature's field, a fault or (missing) the number meant;
        `confluent_header`: values begin with a zero byte and a schema id, which is not looked up."""
        self._width = signature.width
        self._dtype = signature.record_dtype
        self._objects = ObjectRows(signature, refuses_empty=refuses_empty)
        self._nan: Nan = nan
        self._confluent_header = confluent_header

    def read(
        self, values: Sequence[bytes]
    ) -> tuple[NDArray[np.generic], NDArray[np.int64], list[tuple[int, RecordError]]]:
        """`(matrix (R, F), rows (R,) ascending places in values, faults by ascending place)`; R + faults = all."""
        matrix = np.full((len(values), self._width), np.nan, dtype=self._dtype)
        faults: dict[int, RecordError] = {}
        for start, stop in _chunks(values):
            documents, places = self._parse(values[start:stop], start, faults)
            self._objects.fill(documents, places, matrix, faults)
        return without_faults(matrix, faults)

    def _parse(
        self, values: Sequence[bytes], start: int, faults: dict[int, RecordError]
    ) -> tuple[list[dict[str, Any]], NDArray[np.int64]]:
        """The objects, and the place of each."""
        documents, places = [], []
        loads = orjson.loads
        for place, value in enumerate(values, start):
            try:
                if self._confluent_header:
                    value = _behind_header(value)
                try:
                    document = loads(value)
                except (
                    orjson.JSONDecodeError
                ):  # its text quotes nothing we could pass on without quoting the payload
                    document = parse_with_care(value, self._nan)
            except RecordError as error:
                faults[place] = error
                continue
            if type(document) is not dict:
                faults[place] = wrong_type("the value", "an object")
                continue
            documents.append(document)
            places.append(place)
        return documents, np.array(places, dtype=np.int64)


def _behind_header(value: bytes) -> bytes:
    if confluent_schema_id(value[:confluent_header_bytes]) is not None:
        return value[confluent_header_bytes:]
    if value[:1] in (b"{", b"["):
        detail = "the value is JSON without a schema id before it: leave out input.framing, or set it to none"
    else:
        detail = foreign_bytes(value) or "the value does not begin with a zero byte and a schema id"
    raise RecordError(stage=Stage.DECODE, reason=Reason.BAD_FRAMING, detail=detail)


def _chunks(values: Sequence[bytes]) -> list[tuple[int, int]]:
    """Ranges of values of together at most chunk_bytes_max, or of one value."""
    ends = np.cumsum([*map(len, values)])
    chunks, start = [], 0
    while start < len(values):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + chunk_bytes_max, side="right")))
        chunks.append((start, stop))
        start = stop
    return chunks
