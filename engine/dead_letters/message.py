"""Records that were set aside, as messages: the original bytes, where they stood, and why they are here."""

import base64
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import fastavro
import orjson

from penstock.engine.codec.contracts import contract, older_contracts
from penstock.engine.codec.framing import (
    confluent_header_bytes,
    confluent_schema_id,
    is_single_object,
    single_object_header_bytes,
    single_object_prefix,
)
from penstock.engine.codec.json_encode import latest_ms, moment
from penstock.schemas.errors import InvariantError, RecordError
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Headers, Records, Rejection

detail_characters_max: Final = 2000
envelope_bytes: Final = 512
"""What Kafka adds to a message and the batch around it, with room to spare."""

message_bytes_min: Final = 32_768
"""What a dead-letter topic must take at least: half of it holds any letter without payload, headers and key."""

_elsewhere = re.compile(
    r"(?:\[payload left at the source: (?P<payload>[0-9]{1,10}) bytes, sha256 (?P<payload_sha256>[0-9a-f]{64})\] )?"
    r"(?:\[key left at the source: (?P<key>[0-9]{1,10}) bytes, sha256 (?P<key_sha256>[0-9a-f]{64})\] )?"
)


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
    """Of a payload or key that would not fit into the dead letter: how to know it again at its source."""

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
        return None if self.payload is not None else self._left("payload")

    @property
    def key_elsewhere(self) -> Elsewhere | None:
        """Set when the key was left at the source likewise; the letter itself then has none."""
        return self._left("key")

    def _left(self, what: str) -> Elsewhere | None:
        found = _elsewhere.match(self.detail)
        if found is None or found[what] is None:
            return None
        return Elsewhere(length=int(found[what]), sha256=found[f"{what}_sha256"])


class DeadLetterEncoder:
    """Rejections to the payloads of the dead-letter topic.

    Promises the original payload and headers, byte for byte. Where the message would be longer than the topic takes,
    they stay at the source: payload is null, headers are empty, and `detail` begins with the payload's length and sha256
    (`DeadLetter.elsewhere`), by which `penstock dlq replay` finds it again. A key of more than half of a message
    stays there in the same way (`letter_key`, `DeadLetter.key_elsewhere`).
    """

    def __init__(
        self, *, prefix: bytes | None, cluster: str, model: ModelIdentity, worker: str, message_bytes_max: int
    ) -> None:
        """`prefix` is what stands before the Avro of a message; None: messages are JSON."""
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
        detail = rejection.detail
        if letter_key(key, self._message_bytes_max) is None and key is not None:
            detail = f"[key left at the source: {_known_by(key)}] {detail}"
            key = None
        room = self._message_bytes_max - envelope_bytes - len(key or b"")
        if len(payload or b"") <= room:  # else the copy is not worth making
            whole = self._written(records, rejection, at_ms, detail, payload, records.headers(index))
            if len(whole) <= room:
                return whole
        detail = f"[payload left at the source: {_known_by(payload or b'')}] {detail}"
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
        timestamp_ms = int(records.timestamps_ms[index])
        letter = {
            "source": {
                "cluster": self._cluster,
                "topic": records.topic,
                "partition": int(records.partitions[index]),
                "offset": int(records.offsets[index]),
                "timestamp_ms": timestamp_ms,
                "timestamp": as_timestamp(timestamp_ms),
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
            "at": as_timestamp(at_ms),
        }
        if self._prefix is None:
            return _as_json(letter)
        out = io.BytesIO()
        out.write(self._prefix)
        try:
            fastavro.schemaless_writer(out, self._schema, letter)
        except (ValueError, TypeError, OverflowError) as error:
            raise InvariantError(f"a dead letter does not fit its own schema: {error}") from error
        return out.getvalue()


def letter_key(key: bytes | None, message_bytes_max: int) -> bytes | None:
    """The key of a record's letter: the record's own, None where it takes more than half of what a message may hold."""
    return key if len(key or b"") <= message_bytes_max // 2 else None


def _known_by(left: bytes) -> str:
    return f"{len(left)} bytes, sha256 {hashlib.sha256(left).hexdigest()}"


class DeadLetterReader:
    """Messages of the dead-letter topic back to what they say."""

    def __init__(self) -> None:
        writers = [contract("dead_letter"), *older_contracts("dead_letter")]
        self._reader = fastavro.parse_schema(writers[0])
        self._writers = {single_object_prefix(writer): fastavro.parse_schema(writer) for writer in writers}

    def read(self, value: bytes) -> DeadLetter:
        """The dead letter in a message, whichever framing it was sent with, by this version or an older one.

        Raises RecordError for a message that is not a dead letter. A registered id is taken for one of the contract's own versions, of
        which the newest that reads the message to its end is right: the topic holds nothing else.
        """
        if value.startswith(b"{"):
            return _from_json(value)
        writer = self._writers.get(value[:single_object_header_bytes])
        if writer is not None:
            return self._read(value, single_object_header_bytes, writer)
        if is_single_object(value):
            raise _not_a_letter(Reason.BAD_FRAMING, "the message is of another contract")
        # A letter without framing begins with the length of its cluster's id, which is neither 0 nor negative: no `{`.
        framed = confluent_schema_id(value[:confluent_header_bytes]) is not None
        faults = []
        for writer in self._writers.values():
            try:
                return self._read(value, confluent_header_bytes if framed else 0, writer)
            except RecordError as error:
                faults.append(error)
        raise faults[0]

    def _read(self, value: bytes, start: int, writer: Any) -> DeadLetter:
        stream = io.BytesIO(value)
        stream.seek(start)
        try:
            letter: Any = fastavro.schemaless_reader(stream, writer, self._reader)
        except (EOFError, ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
            raise _not_a_letter(
                Reason.CORRUPT, "the message is no dead letter of a version known here"
            ) from error
        if stream.tell() != len(value):
            raise _not_a_letter(Reason.TRAILING_BYTES, "the message goes on behind the dead letter")
        return _letter(letter)


def _letter(letter: Mapping[str, Any]) -> DeadLetter:
    source = letter["source"]
    return DeadLetter(
        source=Source(
            cluster=source["cluster"],
            topic=source["topic"],
            partition=source["partition"],
            offset=source["offset"],
            timestamp_ms=source["timestamp_ms"],
            topic_id=source["topic_id"],
        ),
        stage=letter["stage"],
        reason=letter["reason"],
        detail=letter["detail"],
        payload=letter["payload"],
        headers=tuple((header["key"], header["value"]) for header in letter["headers"]),
        model=ModelIdentity(**letter["model"]),
        worker=letter["worker"],
        at_ms=letter["at_ms"],
    )


def _as_json(letter: dict[str, Any]) -> bytes:
    """The letter in JSON: bytes as base64, times that are timestamps as text."""
    source = letter["source"]
    return orjson.dumps(
        letter
        | {
            "source": source | {"timestamp": moment(source["timestamp_ms"])},
            "payload": _base64(letter["payload"]),
            "headers": [{"key": each["key"], "value": _base64(each["value"])} for each in letter["headers"]],
            "at": moment(letter["at_ms"]),
        }
    )


def _from_json(value: bytes) -> DeadLetter:
    try:
        letter: Any = orjson.loads(value)
        letter["payload"] = _bytes(letter["payload"])
        for header in letter["headers"]:
            header["value"] = _bytes(header["value"])
        # Written and read back as Avro, which checks every member's type and bounds, whichever program wrote the JSON.
        out = io.BytesIO()
        plain = {**letter, "at": None, "source": {**letter["source"], "timestamp": None}}
        schema = fastavro.parse_schema(contract("dead_letter"))
        fastavro.schemaless_writer(out, schema, plain)
        out.seek(0)
        read: Any = fastavro.schemaless_reader(out, schema, None)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise _not_a_letter(Reason.CORRUPT, "the message is JSON, and no dead letter") from error
    return _letter(read)


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text, validate=True)


def as_timestamp(at_ms: int) -> int | None:
    """A value for a timestamp field; None before 1970 (no timestamp) and past the year 9999."""
    return at_ms if 0 <= at_ms <= latest_ms else None


def _not_a_letter(reason: Reason, detail: str) -> RecordError:
    return RecordError(stage=Stage.DECODE, reason=reason, detail=detail)
