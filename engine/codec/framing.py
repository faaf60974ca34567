"""What stands before the Avro bytes of a message: which schema they were written with."""

from collections.abc import Mapping
from typing import Any, Final

from fastavro.schema import SchemaParseException, fingerprint, to_parsing_canonical_form

from penstock.schemas.errors import ConfigError

Schema = dict[str, Any] | list[Any] | str
"""A parsed .avsc: what `json.loads` makes of it."""

confluent_magic: Final = 0
confluent_header_bytes: Final = 5
single_object_magic: Final = b"\xc3\x01"
single_object_header_bytes: Final = 10
schema_id_max: Final = (1 << 31) - 1

header_bytes: Final[Mapping[str, int]] = {
    "confluent": confluent_header_bytes,
    "single_object": single_object_header_bytes,
    "none": 0,
}
"""How long the header of each framing is."""


def confluent_prefix(schema_id: int) -> bytes:
    """The Confluent wire format's header: a zero byte and the registry's id, big-endian."""
    return bytes([confluent_magic]) + schema_id.to_bytes(4, "big")


def single_object_prefix(schema: Schema) -> bytes:
    """Avro's single-object header: the marker and the CRC-64-AVRO of the parsing canonical form, little-endian.

    Raises ConfigError when `schema` is no Avro schema.
    """
    try:
        digest = fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO")
    except (SchemaParseException, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"this is not an Avro schema: {error}") from error
    return single_object_magic + bytes.fromhex(digest)


def confluent_schema_id(header: bytes) -> int | None:
    """The schema id in the first five bytes of a message; None when they are no Confluent header."""
    if len(header) < confluent_header_bytes or header[0] != confluent_magic:
        return None
    schema_id = int.from_bytes(header[1:confluent_header_bytes], "big")
    return schema_id if schema_id <= schema_id_max else None


def is_single_object(header: bytes) -> bool:
    """Whether the first ten bytes of a message are a single-object header, of whatever schema."""
    return len(header) >= single_object_header_bytes and header.startswith(single_object_magic)


def foreign_bytes(value: bytes) -> str | None:
    """What a value is whose first bytes are another format's, and what to do; None for any other."""
    if value.startswith(single_object_magic):
        return "the value begins with Avro's single-object header: set input.format: avro and input.framing: single_object"
    if value.startswith(b"Obj\x01"):
        return "the value is an Avro file with its own header: let the producer send one record a message"
    if value.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        return "the value is compressed (gzip or zstd) by the producer's own code: let it set compression.type instead"
    if value[:2] in (b"\x03\0", b"\x03\x05"):
        return "the value looks like AWS Glue's framing (3, compression, a 16-byte id), which is not read: use a Confluent serializer"
    return None


def foreign_avro(header: bytes) -> str:
    """Why the first bytes of a message are not the header that was asked for, and what to do."""
    if header[:1] in (b"{", b"["):
        return "the value looks like JSON: set input.format: json"
    if header[:1] == b"\0" and len(header) >= single_object_header_bytes:
        return (
            "the value begins with a zero byte and a schema id, as Confluent's serializers write: "
            "set registry.url and input.framing: confluent"
        )
    return foreign_bytes(header) or "the value begins with no header that is known"


header_with_id: Final = "__value_schema_id"
"""The record header in which Confluent's serializers, told so, write the schema id in place of the value's first bytes."""

id_in_header: Final = (
    f"the schema id stands in the record header {header_with_id}, which is not read: "
    "let the producer write it before the value (value.schema.id.serializer: PrefixSchemaIdSerializer)"
)
