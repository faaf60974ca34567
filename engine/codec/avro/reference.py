"""The slow path for Avro schemas that the native codec does not take: one record at a time, by two libraries.

Apache's reader goes first, by the writer's schema alone: it refuses hostile bytes, on which fastavro crashes the process or
makes a few bytes into hundreds of megabytes. Then fastavro resolves to the reader's schema, which Apache's reader does not do
by the rules (it promotes no numbers inside arrays).
"""

import io
import struct
from collections.abc import Sequence
from typing import Any, Final

import avro.errors
import avro.io
import avro.schema
import fastavro
import fastavro.read
import fastavro.schema
import numpy as np
import orjson
from numpy.typing import NDArray

from penstock.engine.codec.avro.resolution import (
    Branch,
    Writes,
    branches,
    is_of_type,
    other_units,
    root_mismatch,
    unresolved,
    writes_any,
)
from penstock.engine.codec.avro.types import UnsupportedSchemaError, parse
from penstock.engine.codec.framing import Schema
from penstock.engine.codec.object_rows import ObjectRows, no_features, without_faults
from penstock.engine.features.signature import Signature
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage

chunk_rows_max: Final = 256
"""Decoded at a time, so that a batch of large records is never in memory as objects all at once."""

reasons_told_max: Final = 3
"""Of what may not resolve between two schemas, in the detail of a record that did not."""

_fastavro_refuses: Final = (
    fastavro.schema.SchemaParseException, fastavro.schema.UnknownType, ValueError, TypeError, KeyError, IndexError, EOFError,
    AttributeError, RecursionError,
)  # fmt: skip


class ReferenceRows:
    """Reads records of one writer schema as a reader's schema sees them, as NativeRows does."""

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
        """See NativeRows. Raises RecordError (INCOMPATIBLE_SCHEMA) where no record can be read."""
        writes = _writes_any(writer, reader, signature) if refuses_empty else None
        self._records = ReferenceReader(writer, reader, skip=skip, record_type=record_type, writes=writes)
        self._objects = ObjectRows(signature, refuses_empty=refuses_empty and writes is None)
        self._width, self._dtype = signature.width, signature.record_dtype
        _check_units(writer, reader, signature)

    def read(
        self, values: Sequence[bytes]
    ) -> tuple[NDArray[np.generic], NDArray[np.int64], list[tuple[int, RecordError]]]:
        """`(matrix (R, F), rows (R,) ascending places in values, faults by ascending place)`; what is in neither is of
        another type than record_type."""
        matrix = np.full((len(values), self._width), np.nan, dtype=self._dtype)
        faults: dict[int, RecordError] = {}
        skipped: list[int] = []
        for start in range(0, len(values), chunk_rows_max):
            objects, places = [], []
            for place, value in enumerate(values[start : start + chunk_rows_max], start):
                try:
                    record = self._records.read(value)
                except RecordError as error:
                    faults[place] = error
                    continue
                if record is None:
                    skipped.append(place)
                else:
                    objects.append(record)
                    places.append(place)
            self._objects.fill(objects, np.array(places, dtype=np.int64), matrix, faults)
        matrix, rows, found = without_faults(matrix, faults)
        if skipped:
            kept = ~np.isin(rows, skipped)
            matrix, rows = matrix[kept], rows[kept]
        return matrix, rows, found


def _check_units(writer: Schema, reader: Schema, signature: Signature) -> None:
    """Raises RecordError where a feature's time would be read a thousand times too large or small."""
    try:
        found = unresolved(parse(writer), parse(reader))
    except UnsupportedSchemaError:
        return
    fields = {".".join(feature.path) for feature in signature.features}
    for why, place in found:
        if why.startswith(other_units) and place in fields:
            raise _incompatible(f"{why}, in {place}")


def _writes_any(writer: Schema, reader: Schema, signature: Signature) -> Writes | None:
    """What tells of a record whether it holds a field of the model's; None where what is read of it has to."""
    try:
        return writes_any(parse(writer), parse(reader), [feature.path for feature in signature.features])
    except UnsupportedSchemaError:
        return None


class ReferenceReader:
    """Records as dictionaries. Raises RecordError (INCOMPATIBLE_SCHEMA) for schemas that may not be read, or of which no record can."""

    def __init__(
        self,
        writer: Schema,
        reader: Schema,
        *,
        skip: int,
        record_type: str | None = None,
        writes: Writes | None = None,
    ) -> None:
        """`writes`: of what it does not hold for the record is a fault (NO_FEATURES)."""
        try:
            written = parsed(writer)
            self._writer, self._reader = (
                fastavro.parse_schema(_plain(writer)),
                fastavro.parse_schema(_plain(reader)),
            )
        except (avro.errors.AvroException, *_fastavro_refuses) as error:
            raise _incompatible("the writer's schema is not one that can be read") from error
        if _has_empty_items(written, set()):
            raise _incompatible("the writer's schema has an array of items that take no bytes")
        self._checker = _WithBranches(written)
        self._writes = writes
        self._skip = skip
        self._is_union, self._passed_over, self._why = _roots(writer, reader, record_type)

    def read(self, value: bytes) -> dict[str, Any] | None:
        """The record behind the header of `skip` bytes; None where it is of another type than record_type. Raises RecordError."""
        stream = io.BytesIO(value)
        stream.seek(self._skip)
        if self._passed_over and self._is_of_another_type(value):
            return None
        try:
            written = self._checker.read(StrictDecoder(stream))
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
            raise _incompatible(
                f"a value of the record does not resolve to the reader's schema{self._why}"
            ) from error
        if not isinstance(datum, dict):
            raise _incompatible("the schema does not describe a record")
        if self._writes is not None and not self._writes(written):
            raise no_features(datum)
        return datum

    def _is_of_another_type(self, value: bytes) -> bool:
        if not self._is_union:
            return True
        stream = io.BytesIO(value)
        stream.seek(self._skip)
        try:
            return avro.io.BinaryDecoder(stream).read_long() in self._passed_over
        except (avro.errors.AvroException, IndexError):  # cut short: the reading tells so
            return False


class _WithBranches(avro.io.DatumReader):
    """Apache's reader by the writer's schema alone, which of a union's value says of which branch it is."""

    def read_union(self, writers_schema: Any, readers_schema: Any, decoder: Any) -> Any:
        place = int(decoder.read_long())
        if not 0 <= place < len(writers_schema.schemas):
            raise IndexError(place)  # told as any other index that cannot be
        return Branch(place, self.read_data(writers_schema.schemas[place], readers_schema, decoder))


class StrictDecoder(avro.io.BinaryDecoder):
    """Apache's decoder, but a boolean is one of the two bytes that Avro knows."""

    def read_boolean(self) -> bool:
        byte: bytes = self.read(1)
        if byte not in (b"\0", b"\1"):
            raise ValueError("a boolean is neither 0 nor 1")
        return byte == b"\1"


def _roots(writer: Schema, reader: Schema, record_type: str | None) -> tuple[bool, frozenset[int], str]:
    """Whether the writer's schema is a union, which of its branches are passed over, and why values may not resolve.

    Raises RecordError where no record can be read.
    """
    try:
        written, wanted = parse(writer), parse(reader)
        found = unresolved(written, wanted)
    except UnsupportedSchemaError:
        return isinstance(writer, list), frozenset(), ""
    there = branches(written)
    passed_over = frozenset(
        place
        for place, branch in enumerate(there)
        if record_type is not None and not is_of_type(branch, wanted, record_type)
    )
    refused = {place: why for place, branch in enumerate(there) if (why := root_mismatch(branch, wanted))}
    if len(refused) == len(there) and not passed_over:
        raise _incompatible(
            f"the writer's schema does not resolve to the reader's: {'; '.join(dict.fromkeys(refused.values()))}"
        )
    told = [f"{why}{f', in {place}' if place else ''}" for why, place in found[:reasons_told_max]]
    return written.kind == "union", passed_over, f": {'; or '.join(told)}" if told else ""


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


def parsed(schema: Schema) -> avro.schema.Schema:
    """By Apache's library, without logical types. Raises AvroException."""
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
