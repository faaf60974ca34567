"""The slow path for Avro schemas that the native codec does not take: one record at a time, by two libraries.

Apache's reader goes first, by the writer's schema alone: it refuses hostile bytes, on which fastavro crashes the process or
makes a few bytes into hundreds of megabytes. Then fastavro resolves to the reader's schema, which Apache's reader does not do
by the rules (it promotes no numbers inside arrays).
"""

import io
import struct
from collections.abc import Sequence
from typing import Any, Final

import avro.compatibility
import avro.errors
import avro.io
import avro.schema
import fastavro
import fastavro.read
import fastavro.schema
import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.engine.codec.framing import Schema
from penstock.engine.codec.object_rows import ObjectRows, without_faults
from penstock.engine.features.signature import Signature
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage

chunk_rows_max: Final = 256
"""Decoded at a time, so that a batch of large records is never in memory as objects all at once."""

_fastavro_refuses: Final = (
    fastavro.schema.SchemaParseException, fastavro.schema.UnknownType, ValueError, TypeError, KeyError, IndexError, EOFError,
    AttributeError, RecursionError,
)  # fmt: skip


def check_resolves(writer: Schema, reader: Schema) -> None:
    """Raises RecordError (INCOMPATIBLE_SCHEMA) unless what is written with one can be read as the other, by Avro's rules."""
    if writer == reader:
        return
    try:
        checker = avro.compatibility.ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]
        verdict = checker.get_compatibility(_parsed(reader), _parsed(writer))
    except (avro.errors.AvroException, avro.errors.AvroRuntimeException, RecursionError, TypeError) as error:
        raise _incompatible("the writer's schema is not one that can be read") from error
    if verdict.compatibility is not avro.compatibility.SchemaCompatibilityType.compatible:
        places = ", ".join(sorted(verdict.locations))
        raise _incompatible(f"the writer's schema does not resolve to the reader's at {places}")


class ReferenceRows:
    """Reads records of one writer schema as a reader schema sees them. The schemas are known to resolve."""

    def __init__(self, writer: Schema, reader: Schema, signature: Signature, *, skip: int) -> None:
        self._records = ReferenceReader(writer, reader, skip=skip)
        self._objects = ObjectRows(signature)
        self._width, self._dtype = signature.width, signature.record_dtype

    def read(
        self, values: Sequence[bytes]
    ) -> tuple[NDArray[np.generic], NDArray[np.int64], list[tuple[int, RecordError]]]:
        """`(matrix (R, F), rows (R,) ascending places in values, faults by ascending place)`; R + faults = all."""
        matrix = np.full((len(values), self._width), np.nan, dtype=self._dtype)
        faults: dict[int, RecordError] = {}
        for start in range(0, len(values), chunk_rows_max):
            objects, places = [], []
            for place, value in enumerate(values[start : start + chunk_rows_max], start):
                try:
                    objects.append(self._records.read(value))
                    places.append(place)
                except RecordError as error:
                    faults[place] = error
            self._objects.fill(objects, np.array(places, dtype=np.int64), matrix, faults)
        return without_faults(matrix, faults)


class ReferenceReader:
    """Records as dictionaries, for schemas that resolve. Raises RecordError (INCOMPATIBLE_SCHEMA) for some that may not be read."""

    def __init__(self, writer: Schema, reader: Schema, *, skip: int) -> None:
        try:
            written = _parsed(writer)
            self._writer, self._reader = (
                fastavro.parse_schema(_plain(writer)),
                fastavro.parse_schema(_plain(reader)),
            )
        except (avro.errors.AvroException, *_fastavro_refuses) as error:
            raise _incompatible("the writer's schema is not one that can be read") from error
        if _has_empty_items(written, set()):
            raise _incompatible("the writer's schema has an array of items that take no bytes")
        self._checker = avro.io.DatumReader(written)
        self._skip = skip

    def read(self, value: bytes) -> dict[str, Any]:
        """The record behind the header of `skip` bytes. Raises RecordError."""
        stream = io.BytesIO(value)
        stream.seek(self._skip)
        try:
            self._checker.read(avro.io.BinaryDecoder(stream))
        except (RecursionError, MemoryError, avro.errors.AvroCollectionSizeException) as error:
            raise _fault(
                Reason.LIMIT_EXCEEDED, "the record is nested deeper, or has more items, than is read"
            ) from error
        except avro.errors.InvalidAvroBinaryEncoding as error:
            if stream.tell() >= len(value):
                raise _fault(Reason.TRUNCATED, "the bytes end before the record does") from error
            raise _fault(Reason.CORRUPT, "a length or number in the record cannot be") from error
        except (
            avro.errors.AvroException,
            ValueError,
            IndexError,
            OverflowError,
            TypeError,
            struct.error,
        ) as error:
            raise _fault(Reason.CORRUPT, "an index, number or text in the record cannot be") from error
        if stream.tell() != len(value):
            raise _fault(Reason.TRAILING_BYTES, f"{len(value) - stream.tell()} bytes follow the record")
        stream.seek(self._skip)
        try:
            datum: Any = fastavro.schemaless_reader(stream, self._writer, self._reader)
        except (fastavro.read.SchemaResolutionError, *_fastavro_refuses) as error:
            raise _incompatible("a value of the record does not resolve to the reader's schema") from error
        if not isinstance(datum, dict):
            raise _incompatible("the schema does not describe a record")
        return datum


def _has_empty_items(schema: Any, visited: set[int]) -> bool:
    """Whether some array or map has items of no bytes: there a few bytes can stand for any number of them."""
    if id(schema) in visited:
        return False
    visited.add(id(schema))
    if schema.type in ("array", "map"):
        inner = schema.items if schema.type == "array" else schema.values
        return (schema.type == "array" and _is_empty(inner, set())) or _has_empty_items(inner, visited)
    if schema.type == "union":
        return any(_has_empty_items(branch, visited) for branch in schema.schemas)
    if schema.type == "record":
        return any(_has_empty_items(field.type, visited) for field in schema.fields)
    return False


def _is_empty(schema: Any, visited: set[int]) -> bool:
    if id(schema) in visited or schema.type == "null" or (schema.type == "fixed" and schema.size == 0):
        return True
    visited.add(id(schema))
    return schema.type == "record" and all(_is_empty(field.type, visited) for field in schema.fields)


def _parsed(schema: Schema) -> avro.schema.Schema:
    return avro.schema.parse(orjson.dumps(_plain(schema)).decode())


def _plain(schema: Any) -> Any:
    """The schema without logical types: a date is its days, a timestamp its milliseconds or microseconds."""
    if isinstance(schema, list):
        return [_plain(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    decimal = schema.get("logicalType") == "decimal"
    return {
        name: value if name in ("default", "symbols", "aliases") else _plain(value)
        for name, value in schema.items()
        if decimal or name not in ("logicalType", "precision", "scale")
    }


def _fault(reason: Reason, detail: str) -> RecordError:
    return RecordError(stage=Stage.DECODE, reason=reason, detail=detail)


def _incompatible(detail: str) -> RecordError:
    return _fault(Reason.INCOMPATIBLE_SCHEMA, detail)
