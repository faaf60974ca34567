"""What is inside the payload of a dead letter, as far as it can be read."""

from contextlib import ExitStack
from typing import Any

import orjson

from penstock.engine.clock import SystemClock
from penstock.engine.codec.avro.reference import ReferenceReader
from penstock.engine.codec.contracts import load_schema
from penstock.engine.codec.decode import writer_finder
from penstock.engine.codec.framing import confluent_header_bytes, header_bytes
from penstock.engine.codec.json_text import parse_with_care
from penstock.engine.codec.plain_values import plain
from penstock.engine.dead_letters.message import DeadLetter
from penstock.engine.settings.model import Settings
from penstock.schemas.errors import PenstockError, RecordError


def decoded_payload(letter: DeadLetter, settings: Settings) -> tuple[Any, str]:
    """The payload of a dead letter as objects, bytes as hex, read as the worker would have; or None and why not."""
    if letter.payload is None:
        return None, "there is none"
    try:
        if settings.input.format == "json":
            return plain(_json(letter.payload, settings)), ""
        size = header_bytes[settings.framing]
        with ExitStack() as stack:
            find = writer_finder(settings, _reader_schema(settings), _schemas(settings, stack))
            writer = find(letter.payload[:size])
        return plain(ReferenceReader(writer, writer, skip=size).read(letter.payload)), ""
    except PenstockError as error:
        return None, error.detail if isinstance(error, RecordError) else str(error)


def _json(payload: bytes, settings: Settings) -> Any:
    if settings.input.framing == "confluent":
        payload = payload[confluent_header_bytes:]
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        return parse_with_care(payload, "missing")


def _reader_schema(settings: Settings) -> Any:
    from penstock.engine.worker.startup.stages import open_bundle  # late: only a payload to decode needs it

    if settings.input.record_schema is not None:
        return load_schema(settings.input.record_schema)
    return open_bundle(settings).input_schema


def _schemas(settings: Settings, stack: ExitStack) -> Any:
    from penstock.connectors.registry.client import Registry
    from penstock.engine.worker.kafka import registry_config

    if settings.registry is None:
        return None
    clock = SystemClock()
    registry = Registry(registry_config(settings.registry), monotonic_s=clock.monotonic_s, sleep=clock.sleep)
    stack.callback(registry.close)
    return registry
