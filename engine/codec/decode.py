"""Bytes to columns: whose schema a record was written with, then rows, then the features' policies."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.engine.codec.avro.columns import NativeRows
from penstock.engine.codec.avro.reference import ReferenceRows
from penstock.engine.codec.avro.resolution import branches, is_of_type
from penstock.engine.codec.avro.types import UnsupportedSchemaError, parse
from penstock.engine.codec.contracts import load_schema
from penstock.engine.codec.framing import (
    Schema,
    confluent_schema_id,
    foreign_avro,
    header_bytes,
    header_with_id,
    id_in_header,
    is_single_object,
    single_object_prefix,
)
from penstock.engine.codec.json_rows import JsonRows
from penstock.engine.codec.schema_check import check_fields
from penstock.engine.features.policies import FeaturePolicies
from penstock.engine.features.signature import Signature
from penstock.engine.features.value_counts import ValueCounts
from penstock.engine.native._avro import alike
from penstock.engine.ports import Decoded
from penstock.engine.settings.model import Settings
from penstock.schemas.errors import ConfigError, RecordError
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Records, Rejection

programs_max: Final = 64
"""Writer schemas whose compiled readers are kept; more than that at once on one topic are compiled again and again."""

Faults = Sequence[tuple[int, RecordError]]
"""Places in the values given, ascending, and what is wrong there."""


_no_such_id: Final = (
    "schema id 0, which registries do not give out: the id before the value may be one of 8 bytes, as Apicurio's serializers "
    "write by default (set apicurio.registry.use-id to contentId and its 4-byte id handler), or there is none"
)


class SchemaStore(Protocol):
    """Where writer schemas come from. Called on the compute thread, once for each id that is not cached."""

    def schema(self, schema_id: int) -> Any:
        """The schema as parsed JSON. Returns within seconds.

        Raises RecordError (UNKNOWN_SCHEMA, INCOMPATIBLE_SCHEMA) when the record is at fault, UnavailableError when nobody knows.
        """


class Rows(Protocol):
    """Reads records of one kind."""

    def read(self, values: Sequence[bytes]) -> tuple[NDArray[np.generic], NDArray[np.int64], Faults]:
        """`(matrix (R, F), rows (R,) ascending places in values, faults)`; a value in neither is passed over, as the settings
        declare.

        In the matrix NaN is missing and features.unseen_code an unseen category.
        """


class RowDecoder:
    """The Decoder port over any kind of rows: sorts records by header, reads each group, applies the policies.

    `reference_records` counts the records that took the slow path, `counts` what features lacked, since the start.
    """

    def __init__(
        self,
        *,
        signature: Signature,
        header_bytes: int,
        compile_rows: Callable[[bytes], Rows],
        skips_null: bool,
        record_bytes_max: int,
        skips_empty: bool = False,
    ) -> None:
        """`skips_null`, `skips_empty`: records without a value, or without any feature's field, are passed over."""
        self.reference_records = 0
        self.counts = ValueCounts(signature)
        self._header_bytes = header_bytes
        self._compile_rows = compile_rows
        self._skips_null = skips_null
        self._record_bytes_max = record_bytes_max
        self._skips_empty = skips_empty
        self._policies = FeaturePolicies(signature, self.counts)
        self._empty = np.empty((0, signature.width), dtype=signature.record_dtype)
        self._compiled: OrderedDict[bytes, Rows | RecordError] = OrderedDict()

    def decode(self, records: Records) -> Decoded:
        """See penstock.engine.ports.Decoder."""
        rejections: list[Rejection] = []
        values: list[Any] = records.values
        header = self._common_header(values)
        if header is not None:
            matrix, rows = self._read(self._reader(header), values, None, rejections)
        else:
            matrix, rows = self._read_groups(values, rejections)
        matrix, rows, rejected = self._policies.apply(matrix, rows)
        if rejections:
            rejections = [_with_header_named(rejection, records) for rejection in rejections]
        if rejected:
            rejections += rejected
        if len(rejections) > 1:
            rejections.sort(key=lambda rejection: rejection.index)
        return Decoded(matrix=matrix, rows=rows, rejections=rejections)

    def require(self, records: Records) -> None:
        """Find the schemas that these records need, and read none of them. Raises UnavailableError as `decode` would."""
        size = self._header_bytes
        values = (value for value in records.values if value is not None)
        for header in {value[:size] for value in values if len(value) <= self._record_bytes_max}:
            self._reader(header)

    def prepare(self, header: bytes) -> None:
        """Compile the reader of records that begin so before the first one comes. Raises RecordError as reading them would."""
        self._rows(header)

    def _common_header(self, values: list[Any]) -> bytes | None:
        """What all records begin with, where all are there, none is too long, and they begin alike; else None."""
        if not values or not alike(values, self._header_bytes, self._record_bytes_max):
            return None
        header: bytes = values[0][: self._header_bytes]
        return header

    def _read_groups(
        self, values: Sequence[bytes | None], rejections: list[Rejection]
    ) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        groups: dict[bytes, list[int]] = {}
        for index, value in enumerate(values):
            if value is None:
                if not self._skips_null:
                    detail = "the record has no value"
                    rejections.append(_rejection(index, _fault(Reason.NULL_VALUE, detail)))
            elif len(value) > self._record_bytes_max:
                detail = f"{len(value)} bytes are more than input.record_bytes_max, {self._record_bytes_max}"
                rejections.append(_rejection(index, _fault(Reason.RECORD_TOO_LONG, detail)))
            else:
                groups.setdefault(value[: self._header_bytes], []).append(index)
        # First all of them: where one is away, nothing of the batch was read, or counted, for nothing.
        readers = {header: self._reader(header) for header in groups}
        parts = [
            self._read(
                readers[header],
                [values[index] for index in places],
                np.array(places, dtype=np.int64),
                rejections,
            )
            for header, places in groups.items()
        ]
        parts = [part for part in parts if len(part[1])]
        if not parts:
            return self._empty, np.empty(0, dtype=np.int64)
        if len(parts) == 1:
            return parts[0]
        rows = np.concatenate([rows for _, rows in parts])
        order = np.argsort(rows)
        return np.concatenate([matrix for matrix, _ in parts])[order], rows[order]

    def _read(
        self,
        reader: Rows | RecordError,
        values: Sequence[Any],
        places: NDArray[np.int64] | None,
        rejections: list[Rejection],
    ) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
        """Rows of the values, which all begin alike; value i stands at places[i] of the batch (None: at i)."""
        if isinstance(reader, RecordError):
            indices = range(len(values)) if places is None else places.tolist()
            rejections += [_rejection(index, reader) for index in indices]
            return self._empty, np.empty(0, dtype=np.int64)
        if isinstance(reader, ReferenceRows):
            self.reference_records += len(values)
        matrix, rows, faults = reader.read(values)
        if self._skips_empty and faults:
            faults = [fault for fault in faults if fault[1].reason is not Reason.NO_FEATURES]
        rejections += [
            _rejection(place if places is None else int(places[place]), fault) for place, fault in faults
        ]
        return matrix, rows if places is None else places[rows]

    def _reader(self, header: bytes) -> Rows | RecordError:
        """What reads records that begin so, or why nothing does. Raises UnavailableError."""
        try:
            return self._rows(header)
        except RecordError as error:
            return error

    def _rows(self, header: bytes) -> Rows:
        compiled = self._compiled.get(header)
        if compiled is None:
            try:
                compiled = self._compile_rows(header)
            except RecordError as error:
                if error.reason is not Reason.INCOMPATIBLE_SCHEMA:
                    raise  # an unknown id may be known later
                compiled = error
            self._compiled[header] = compiled
            if len(self._compiled) > programs_max:
                self._compiled.popitem(last=False)
        elif len(self._compiled) > 1:
            self._compiled.move_to_end(header)
        if isinstance(compiled, RecordError):
            raise RecordError(stage=compiled.stage, reason=compiled.reason, detail=compiled.detail)
        return compiled


def make_decoder(
    settings: Settings,
    signature: Signature,
    reader_schema: Schema | None,
    schemas: SchemaStore | None,
    record_bytes_max: int,
) -> RowDecoder:
    """The decoder that the settings ask for. Called at start; raises ConfigError for whatever could not be read at all.

    `reader_schema` is what the model's features are looked up in; records are resolved from their writer's schema to it
    by Avro's rules. None, with a registry, means each writer's schema as it is. JSON needs none.
    """
    size = header_bytes[settings.framing]
    wanted = settings.input
    refuses_empty = wanted.no_features != "score"

    def decoder(compile_rows: Callable[[bytes], Rows], size: int) -> RowDecoder:
        return RowDecoder(
            signature=signature,
            header_bytes=size,
            compile_rows=compile_rows,
            skips_null=wanted.null_value == "skip",
            skips_empty=wanted.no_features == "skip",
            record_bytes_max=record_bytes_max,
        )

    if wanted.format == "json":
        json_rows = JsonRows(
            signature,
            nan=wanted.json_values.nan,
            confluent_header=wanted.framing == "confluent",
            refuses_empty=refuses_empty,
        )
        return decoder(lambda _: json_rows, 0)
    avro = _AvroReaders(
        signature=signature, skip=size, record_type=wanted.record_type, refuses_empty=refuses_empty
    )
    if reader_schema is not None:
        check_fields(signature, reader_schema, origin="the input schema", record_type=wanted.record_type)
    elif settings.framing != "confluent":
        raise ConfigError(
            "input.schema is missing: the bundle brings none, and without a registry there is no other"
        )
    find = writer_finder(settings, reader_schema, schemas)
    made = decoder(lambda header: avro.rows(find(header), reader_schema), size)
    if reader_schema is not None:
        try:  # what cannot be read at all is known now
            if settings.framing == "confluent":  # which ids will come is not
                avro.rows(reader_schema, reader_schema)
            else:
                made.prepare(single_object_prefix(reader_schema)[:size])
        except RecordError as error:
            raise ConfigError(f"the input schema cannot be read: {error.detail}") from error
    return made


@dataclass(frozen=True, kw_only=True, slots=True)
class _AvroReaders:
    """Makes the reader for each writer's schema."""

    signature: Signature
    skip: int
    record_type: str | None
    refuses_empty: bool

    def rows(self, writer: Schema, reader: Schema | None) -> Rows:
        """The native reader, or the slow one where the native one does not take the schema. Raises RecordError."""
        record_type = self.record_type
        if record_type is not None and not _may_be(writer, reader or writer, record_type):
            return _PassedOver(self.signature)
        if reader is None:
            try:
                check_fields(self.signature, writer, origin="the writer's schema", record_type=record_type)
            except ConfigError as error:
                hint = (
                    "" if record_type else "; records of other types are passed over with input.record_type"
                )
                raise _fault(Reason.INCOMPATIBLE_SCHEMA, f"{error}{hint}") from error
            reader = writer
        for make in (NativeRows, ReferenceRows):
            try:
                return make(
                    writer,
                    reader,
                    self.signature,
                    skip=self.skip,
                    record_type=record_type,
                    refuses_empty=self.refuses_empty,
                )
            except UnsupportedSchemaError:
                continue
        raise _fault(Reason.INCOMPATIBLE_SCHEMA, "the writer's schema is not one that can be read")


class _PassedOver:
    """Reads nothing of records of another type."""

    def __init__(self, signature: Signature) -> None:
        self._empty = np.empty((0, signature.width), dtype=signature.record_dtype)

    def read(self, values: Sequence[bytes]) -> tuple[NDArray[np.generic], NDArray[np.int64], Faults]:
        """No row and no fault."""
        return self._empty, np.empty(0, dtype=np.int64), []


def _may_be(writer: Schema, reader: Schema, record_type: str) -> bool:
    try:
        written, wanted = parse(writer), parse(reader)
    except UnsupportedSchemaError:
        return True
    return any(is_of_type(branch, wanted, record_type) for branch in branches(written))


def writer_finder(
    settings: Settings, reader_schema: Schema | None, schemas: SchemaStore | None
) -> Callable[[bytes], Schema]:
    """From the first bytes of a record (header_bytes of the framing) to its writer's schema.

    The function raises RecordError or UnavailableError; finding it raises ConfigError.
    """
    if settings.framing == "confluent":
        if schemas is None:
            raise ConfigError("input.framing confluent needs a registry")
        return lambda header: _registered(header, schemas)
    assert reader_schema is not None
    if settings.framing == "none":
        return lambda _: reader_schema
    known = {single_object_prefix(schema): schema for schema in [reader_schema, *_further_schemas(settings)]}

    def single_object(header: bytes) -> Schema:
        if header in known:
            return known[header]
        if is_single_object(header):
            raise _fault(Reason.UNKNOWN_SCHEMA, f"no schema has the fingerprint {header[2:][::-1].hex()}")
        detail = f"the record does not begin with Avro's single-object header: {foreign_avro(header)}"
        raise _fault(Reason.BAD_FRAMING, detail)

    return single_object


def _registered(header: bytes, schemas: SchemaStore) -> Schema:
    schema_id = confluent_schema_id(header)
    if schema_id is None:
        detail = f"the record does not begin with a zero byte and a schema id: {foreign_avro(header)}"
        raise _fault(Reason.BAD_FRAMING, detail)
    if schema_id == 0:
        raise _fault(Reason.BAD_FRAMING, _no_such_id)
    schema: Schema = schemas.schema(schema_id)
    return schema


def _further_schemas(settings: Settings) -> list[Schema]:
    folder: Path | None = settings.input.writer_schemas
    if folder is None:
        return []
    if not folder.is_dir():
        raise ConfigError(f"input.writer_schemas: {folder} is no folder")
    return [load_schema(path) for path in sorted(folder.glob("*.avsc"))]


def _with_header_named(rejection: Rejection, records: Records) -> Rejection:
    """Of a record without a readable header, what its record headers tell of the schema."""
    if rejection.reason not in (Reason.BAD_FRAMING, Reason.UNKNOWN_SCHEMA):
        return rejection
    if not any(name == header_with_id for name, _ in records.headers(rejection.index)):
        return rejection
    return replace(rejection, reason=Reason.BAD_FRAMING, detail=id_in_header)


def _fault(reason: Reason, detail: str) -> RecordError:
    return RecordError(stage=Stage.DECODE, reason=reason, detail=detail)


def _rejection(index: int, error: RecordError) -> Rejection:
    return Rejection(index=index, stage=error.stage, reason=error.reason, detail=error.detail)
