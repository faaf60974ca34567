"""Records that were set aside, as messages: the original bytes, where they stood, and why they are here."""

import copy
import hashlib
import io
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import fastavro

from penstock.engine.codec.contracts import contract
from penstock.engine.codec.framing import (
    confluent_header_bytes,
    confluent_schema_id,
    single_object_header_bytes,
    single_object_prefix,
)
from penstock.schemas.errors import InvariantError, RecordError
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Headers, Records, Rejection

detail_characters_max: Final = 2000
envelope_bytes: Final = 512
"""What Kafka adds to a message and the batch around it, with room to spare."""

_elsewhere = re.compile(r"^\[payload left at the source: (\d+) bytes, sha256 ([0-9a-f]{64})\] ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where a record stood."""

    cluster: str
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    topic_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelIdentity:
    """Which model was asked."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Elsewhere:
    """Of a payload that would not fit into the dead letter: how to know it again at its source."""

    length: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetter:
    """A record that was set aside. Exactly one of these holds: payload is its bytes; it had none; `elsewhere` tells."""

    source: Source
    stage: str
    reason: str
    detail: str
    payload: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    model: ModelIdentity
    worker: str
    at_ms: int

    @property
    def elsewhere(self) -> Elsewhere | None:
        """Set when payload and headers were left at the source, because the whole would not fit into a message."""
        if self.payload is not None or not (match := _elsewhere.match(self.detail)):
            return None
        return Elsewhere(length=int(match[1]), sha256=match[2])


class DeadLetterEncoder:
    """Rejections to the payloads of the dead-letter topic.

    Promises the original payload and headers, byte for byte. Where the message would be longer than the producer may send,
    they stay at the source: payload is null, headers are empty, and `detail` begins with the payload's length and sha256
    (`DeadLetter.elsewhere`), by which `penstock dlq replay` finds it again.
    """

    def __init__(
        self, *, prefix: bytes, cluster: str, model: ModelIdentity, worker: str, message_bytes_max: int
    ) -> None:
        self._prefix = prefix
        self._cluster = cluster
        self._model = {"name": model.name, "version": model.version, "digest": model.digest}
        self._worker = worker
        self._message_bytes_max = message_bytes_max
        self._schema = fastavro.parse_schema(contract("dead_letter"))

    def __call__(self, records: Records, rejections: Sequence[Rejection], at_ms: int) -> list[bytes]:
        """One payload for each rejection, in order."""
        return [self._encode(records, rejection, at_ms) for rejection in rejections]

    def _encode(self, records: Records, rejection: Rejection, at_ms: int) -> bytes:
        index = rejection.index
        payload, key = records.values[index], records.keys[index]
        room = self._message_bytes_max - envelope_bytes - len(key or b"")
        if len(payload or b"") <= room:  # else the copy is not worth making
            whole = self._written(
                records, rejection, at_ms, rejection.detail, payload, records.headers(index)
            )
            if len(whole) <= room:
                return whole
        length, sha256 = len(payload or b""), hashlib.sha256(payload or b"").hexdigest()
        detail = f"[payload left at the source: {length} bytes, sha256 {sha256}] {rejection.detail}"
        return self._written(records, rejection, at_ms, detail, None, ())

    def _written(
        self,
        records: Records,
        rejection: Rejection,
        at_ms: int,
        detail: str,
        payload: bytes | None,
        headers: Headers,
    ) -> bytes:
        index = rejection.index
        letter = {
            "source": {
                "cluster": self._cluster,
                "topic": records.topic,
                "partition": int(records.partitions[index]),
                "offset": int(records.offsets[index]),
                "timestamp_ms": int(records.timestamps_ms[index]),
                "topic_id": records.topic_id,
            },
            "stage": str(rejection.stage),
            "reason": str(rejection.reason),
            "detail": detail[:detail_characters_max],
            "payload": payload,
            "headers": [{"key": name, "value": value} for name, value in headers],
            "model": self._model,
            "worker": self._worker,
            "at_ms": at_ms,
        }
        out = io.BytesIO()
        out.write(self._prefix)
        try:
            fastavro.schemaless_writer(out, self._schema, letter)
        except (ValueError, TypeError, OverflowError) as error:
            raise InvariantError(f"a dead letter does not fit its own schema: {error}") from error
        return out.getvalue()


class DeadLetterReader:
    """Messages of the dead-letter topic back to what they say."""

    def __init__(self) -> None:
        schema = contract("dead_letter")
        earlier = _before_topic_ids(schema)
        self._schemas = [fastavro.parse_schema(schema), fastavro.parse_schema(earlier)]
        self._single_object = {single_object_prefix(schema): 0, single_object_prefix(earlier): 1}

    def read(self, value: bytes) -> DeadLetter:
        """The dead letter in a message, whichever framing it was sent with.

        Raises RecordError for a message that is none. A registered id is taken for the contract's own, of this release or
        from before letters named the topic's id: no letter of one can be read whole as the other, because the number that
        stands where the other has its stage is the length of a reason.
        """
        prefix = self._single_object.get(value[:single_object_header_bytes])
        schemas = self._schemas if prefix is None else [self._schemas[prefix]]
        if prefix is not None:
            start = single_object_header_bytes
        elif confluent_schema_id(value[:confluent_header_bytes]) is not None:
            start = confluent_header_bytes
        else:
            raise _not_a_letter(Reason.BAD_FRAMING, "the message does not begin like a dead letter")
        for schema in schemas[:-1]:
            with suppress(RecordError):
                return _letter(value, start, schema)
        return _letter(value, start, schemas[-1])


def _before_topic_ids(schema: Any) -> Any:
    """The contract of dead letters as it was before their source named the topic's id."""
    earlier = copy.deepcopy(schema)
    source = earlier["fields"][0]["type"]
    source["fields"] = [field for field in source["fields"] if field["name"] != "topic_id"]
    return earlier


def _letter(value: bytes, start: int, schema: Any) -> DeadLetter:
    stream = io.BytesIO(value)
    stream.seek(start)
    try:
        letter: Any = fastavro.schemaless_reader(stream, schema, None)
    except (EOFError, ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise _not_a_letter(Reason.CORRUPT, "the message is no dead letter of version 1") from error
    if stream.tell() != len(value):
        raise _not_a_letter(Reason.TRAILING_BYTES, "the message goes on behind the dead letter")
    return DeadLetter(
        source=Source(**letter["source"]),
        stage=letter["stage"],
        reason=letter["reason"],
        detail=letter["detail"],
        payload=letter["payload"],
        headers=tuple((header["key"], header["value"]) for header in letter["headers"]),
        model=ModelIdentity(**letter["model"]),
        worker=letter["worker"],
        at_ms=letter["at_ms"],
    )


def _not_a_letter(reason: Reason, detail: str) -> RecordError:
    return RecordError(stage=Stage.DECODE, reason=reason, detail=detail)
