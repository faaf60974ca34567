"""An Avro record that cannot be read, read as far as it can be, by its writer's schema alone."""

import io
import struct
from typing import Any

import avro.errors
import avro.io
import avro.schema

from penstock.engine.codec.avro.reference import StrictDecoder, parsed
from penstock.engine.codec.framing import Schema
from penstock.engine.codec.part_read import PartRead


class AvroPart:
    """Reads records of one writer's schema, which ReferenceReader takes. Holds nothing between calls."""

    def __init__(self, writer: Schema, *, skip: int) -> None:
        """`skip`: bytes of the header before the record."""
        self._schema = parsed(writer)
        self._skip = skip

    def read(self, value: bytes) -> PartRead | None:
        """None where nothing is wrong with the bytes."""
        stream = io.BytesIO(value)
        stream.seek(self._skip)
        reader = _Tracing(self._schema, stream)
        try:
            reader.read(StrictDecoder(stream))
        except (
            avro.errors.AvroException, ValueError, IndexError, OverflowError, TypeError, struct.error, RecursionError, MemoryError,
        ):  # fmt: skip
            return PartRead(fields=tuple(reader.found), field=".".join(reader.path), byte=reader.begin)
        if stream.tell() == len(value):
            return None
        return PartRead(fields=tuple(reader.found), field="", byte=stream.tell())


class _Tracing(avro.io.DatumReader):
    """Keeps what it read, and where it was."""

    def __init__(self, schema: avro.schema.Schema, stream: io.BytesIO) -> None:
        super().__init__(schema)
        self._stream = stream
        self._inside = 0  # arrays and maps, which are told whole
        self.found: list[tuple[str, Any]] = []
        self.path: list[str] = []
        self.begin = stream.tell()

    def read_data(self, writers_schema: Any, readers_schema: Any, decoder: Any) -> Any:
        self.begin = self._stream.tell()
        return super().read_data(writers_schema, readers_schema, decoder)

    def read_record(self, writers_schema: Any, readers_schema: Any, decoder: Any) -> Any:
        record = {}
        for field in writers_schema.fields:
            self.path.append(field.name)
            value = record[field.name] = self.read_data(field.type, field.type, decoder)
            if not self._inside and not (isinstance(value, dict) and _holds_record(field.type)):
                self.found.append((".".join(self.path), value))
            self.path.pop()
        return record

    def read_array(self, writers_schema: Any, readers_schema: Any, decoder: Any) -> Any:
        self._inside += 1
        items = super().read_array(writers_schema, readers_schema, decoder)
        self._inside -= 1
        return items

    def read_map(self, writers_schema: Any, readers_schema: Any, decoder: Any) -> Any:
        self._inside += 1
        items = super().read_map(writers_schema, readers_schema, decoder)
        self._inside -= 1
        return items


def _holds_record(schema: Any) -> bool:
    """Whether a value that is a dictionary was a record, whose fields are told each, and not a map."""
    if schema.type == "union":
        return not any(branch.type == "map" for branch in schema.schemas)
    return bool(schema.type != "map")
