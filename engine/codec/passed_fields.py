"""Fields of input records that results carry on as they came: read beside the columns, and put at the end of a message."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import fastavro
import orjson

from penstock.engine.codec.avro.scalars import avro_long, avro_text
from penstock.engine.codec.framing import Schema
from penstock.engine.codec.json_text import parse_with_care
from penstock.engine.codec.plain_values import plain
from penstock.schemas.errors import RecordError
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Records

Fields = dict[str, str | None]
_nothing = object()


class PassedFields:
    """Reads the chosen fields of records and adds them to payloads whose last field, `passed`, is empty.

    A field is a member of the record, or a path of names separated by dots where there is no member of the whole name. Text stays
    as it is, numbers are written as JSON writes them, bytes as base64, what is nested as JSON; null stays null, and what a
    record does not have is left out. Costs Python work for each record, which nothing else on the way does.
    """

    def __init__(
        self, names: Sequence[str], *, objects: Callable[[bytes], Any], add: Callable[[bytes, Fields], bytes]
    ) -> None:
        """`objects` makes a record of its value, or raises RecordError or ValueError; `add` is `to_avro` or `to_json`."""
        self._names = tuple(names)
        self._objects = objects
        self.add = add

    def read(self, records: Records) -> tuple[list[Fields], dict[int, RecordError]]:
        """The fields of each record, and by place the records that could not be read a second time."""
        found: list[Fields] = []
        faults: dict[int, RecordError] = {}
        for place, value in enumerate(records.values):
            try:
                found.append({} if value is None else self._fields(self._objects(value)))
            except (
                RecordError,
                ValueError,
                EOFError,
                IndexError,
                KeyError,
                OverflowError,
                TypeError,
            ) as error:
                found.append({})
                why = error.detail if isinstance(error, RecordError) else type(error).__name__
                detail = f"the fields to pass on cannot be read: {why}"
                faults[place] = RecordError(stage=Stage.ENCODE, reason=Reason.CORRUPT, detail=detail)
        return found, faults

    def _fields(self, record: Any) -> Fields:
        values = ((name, _at(record, name)) for name in self._names)
        return {name: _text(value) for name, value in values if value is not _nothing}


def to_avro(payload: bytes, fields: Fields) -> bytes:
    """The payload with these fields as its last one, a map of nullable strings."""
    if not fields:
        return payload
    members = (
        avro_text(name) + (b"\x00" if text is None else b"\x02" + avro_text(text))
        for name, text in fields.items()
    )
    return payload[:-1] + avro_long(len(fields)) + b"".join(members) + b"\x00"


def to_json(payload: bytes, fields: Fields) -> bytes:
    """Likewise in JSON."""
    return payload[: -len(b"{}}")] + orjson.dumps(fields) + b"}"


def json_objects(*, skip: int) -> Callable[[bytes], Any]:
    """Records in JSON behind `skip` bytes, as the decoder takes them."""

    def read(value: bytes) -> Any:
        text = value[skip:] if skip else value
        try:
            return orjson.loads(text)
        except orjson.JSONDecodeError:
            return parse_with_care(text, "missing")

    return read


def avro_objects(find: Callable[[bytes], Schema], *, skip: int) -> Callable[[bytes], Any]:
    """Records in Avro as dictionaries; `find` gives the writer's schema for the first `skip` bytes."""
    parsed: dict[bytes, Any] = {}

    def read(value: bytes) -> Any:
        header = value[:skip]
        if header not in parsed:
            parsed[header] = fastavro.parse_schema(_without_logical_types(find(header)))
        stream = io.BytesIO(value)
        stream.seek(skip)
        return fastavro.schemaless_reader(stream, parsed[header], None)

    return read


def _at(record: Any, name: str) -> Any:
    if isinstance(record, dict) and name in record:
        return record[name]
    for part in name.split("."):
        if not isinstance(record, dict) or part not in record:
            return _nothing
        record = record[part]
    return record


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    shown = plain(value)
    return shown if isinstance(shown, str) else orjson.dumps(shown).decode()


def _without_logical_types(schema: Any) -> Any:
    """A date is its days and a timestamp its number, as in the columns; decimals stay decimals."""
    if isinstance(schema, list):
        return [_without_logical_types(branch) for branch in schema]
    if not isinstance(schema, dict):
        return schema
    kept = schema.get("logicalType") == "decimal"
    return {
        key: value if key in ("default", "symbols", "aliases", "doc") else _without_logical_types(value)
        for key, value in schema.items()
        if kept or key not in ("logicalType", "precision", "scale")
    }
