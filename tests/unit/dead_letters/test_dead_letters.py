"""Dead letters carry the record as it was, or say how to find it again."""

import hashlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import avro.io
import avro.schema
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.engine.codec.contracts import contract, load_schema, output_prefixes
from penstock.engine.codec.framing import confluent_prefix, confluent_schema_id, single_object_prefix
from penstock.engine.dead_letters.message import (
    DeadLetterEncoder,
    DeadLetterReader,
    ModelIdentity,
    letter_key,
    message_bytes_min,
)
from penstock.schemas.errors import ConfigError, RecordError
from penstock.schemas.reasons import Reason, Stage
from penstock.schemas.records import Records, Rejection

model = ModelIdentity(name="delays", version="7", digest="ab" * 32)
prefixes = [single_object_prefix(contract("dead_letter")), confluent_prefix(41)]
Header = tuple[str, bytes | None]


def record(value: bytes | None, headers: Sequence[Header] = (), key: bytes | None = None) -> Records:
    return Records(
        topic="departures",
        partitions=np.array([3], dtype=np.int32),
        offsets=np.array([1 << 40], dtype=np.int64),
        timestamps_ms=np.array([-1], dtype=np.int64),
        keys=[key],
        values=[value],
        headers=lambda _: headers,
    )


def rejection(detail: str = "the bytes end before the record does") -> Rejection:
    return Rejection(index=0, stage=Stage.DECODE, reason=Reason.TRUNCATED, detail=detail)


def encoder(prefix: bytes, message_bytes_max: int = 10_000) -> DeadLetterEncoder:
    return DeadLetterEncoder(
        prefix=prefix, cluster="c1", model=model, worker="scorer-0", message_bytes_max=message_bytes_max
    )


@pytest.mark.parametrize("prefix", prefixes)
@given(
    value=st.none() | st.binary(max_size=200),
    headers=st.lists(st.tuples(st.text(max_size=8), st.none() | st.binary(max_size=8)), max_size=4),
    detail=st.text(max_size=50),
)
def test_a_dead_letter_gives_back_the_record_as_it_was(
    prefix: bytes, value: bytes | None, headers: list[Header], detail: str
) -> None:
    [message] = encoder(prefix)(record(value, headers), [rejection(detail)], at_ms=1_700_000_000_000)
    letter = DeadLetterReader().read(message)
    assert letter.payload == value
    assert list(letter.headers) == headers
    assert letter.detail == detail
    assert letter.elsewhere is None
    assert (letter.stage, letter.reason) == ("decode", "truncated")
    assert (letter.source.cluster, letter.source.topic) == ("c1", "departures")
    assert (letter.source.partition, letter.source.offset, letter.source.timestamp_ms) == (3, 1 << 40, -1)
    assert (letter.model, letter.worker, letter.at_ms) == (model, "scorer-0", 1_700_000_000_000)


def test_others_read_it_by_the_published_schema() -> None:
    [message] = encoder(prefixes[1])(record(b"\x00abc", [("trace", b"1")]), [rejection()], at_ms=5)
    schema = avro.schema.parse(orjson.dumps(contract("dead_letter")).decode())
    datum = avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(io.BytesIO(message[5:])))
    assert isinstance(datum, dict)
    assert datum["payload"] == b"\x00abc"
    assert datum["headers"] == [{"key": "trace", "value": b"1"}]


@given(value_bytes=st.integers(0, 3000), header_bytes=st.integers(0, 3000), key_bytes=st.integers(0, 500))
def test_no_message_is_longer_than_the_producer_may_send(
    value_bytes: int, header_bytes: int, key_bytes: int
) -> None:
    value, headers = b"v" * value_bytes, [("h", b"x" * header_bytes)]
    [message] = encoder(prefixes[0], 2048)(record(value, headers, b"k" * key_bytes), [rejection()], at_ms=5)
    assert len(message) + key_bytes <= 2048
    letter = DeadLetterReader().read(message)
    if letter.elsewhere is None:
        assert (letter.payload, list(letter.headers)) == (value, headers)
    else:
        assert (letter.payload, letter.headers) == (None, ())
        assert letter.elsewhere.length == value_bytes
        assert letter.elsewhere.sha256 == hashlib.sha256(value).hexdigest()
        assert "the bytes end before" in letter.detail
        assert value_bytes + header_bytes + key_bytes > 1000  # what fits is never left out


@given(
    value_bytes=st.integers(0, 80_000),
    key_bytes=st.integers(0, 80_000),
    detail=st.text(alphabet="é\u4e2d\U0001f600", max_size=3000),
)
def test_a_key_that_leaves_no_room_stays_at_the_source(value_bytes: int, key_bytes: int, detail: str) -> None:
    value, key, bytes_max = b"v" * value_bytes, b"k" * key_bytes, message_bytes_min
    [message] = encoder(prefixes[0], bytes_max)(record(value, (), key), [rejection(detail)], at_ms=5)
    sent = letter_key(key, bytes_max)
    assert len(message) + len(sent or b"") <= bytes_max
    letter = DeadLetterReader().read(message)
    assert (letter.key_elsewhere is None) == (sent == key)
    if letter.key_elsewhere is not None:
        assert letter.key_elsewhere.length == key_bytes
        assert letter.key_elsewhere.sha256 == hashlib.sha256(key).hexdigest()
    assert (letter.elsewhere is None) == (letter.payload == value)


def test_digits_without_end_are_no_length() -> None:
    forged = f"[payload left at the source: {'9' * 5000} bytes, sha256 {'0' * 64}] x"
    letter = replace(
        DeadLetterReader().read(encoder(prefixes[0])(record(None), [rejection()], at_ms=5)[0]), detail=forged
    )
    assert letter.elsewhere is None


def test_what_is_no_dead_letter_is_said_to_be_none() -> None:
    [message] = encoder(prefixes[0])(record(b"abc"), [rejection()], at_ms=5)
    reader = DeadLetterReader()
    for broken in (
        b"",
        b"abc",
        message[:-1],
        message + b"\0",
        single_object_prefix(contract("prediction")) + message[10:],
    ):
        with pytest.raises(RecordError):
            reader.read(broken)


@given(message=st.binary(max_size=60))
def test_no_bytes_make_the_reader_fail_otherwise(message: bytes) -> None:
    for prefix in prefixes:
        try:
            DeadLetterReader().read(prefix + message)
        except RecordError:
            continue


def test_contracts_are_registered_by_topic_name() -> None:
    class Registrar:
        def __init__(self) -> None:
            self.subjects: dict[str, str] = {}

        def ensure(self, subject: str, schema: dict[str, object]) -> int:
            self.subjects[subject] = str(schema["name"])
            return 100 + len(self.subjects)

    registrar = Registrar()
    found = output_prefixes(
        predictions="p", explanations="e", dead_letters="d", framing="confluent", registrar=registrar
    )
    assert registrar.subjects == {"p-value": "Prediction", "e-value": "Explanation", "d-value": "DeadLetter"}
    ids = [
        confluent_schema_id(prefix) for prefix in (found.predictions, found.explanations, found.dead_letters)
    ]
    assert ids == [101, 102, 103]


def test_without_a_registry_messages_name_their_schema_by_fingerprint() -> None:
    found = output_prefixes(
        predictions="p", explanations=None, dead_letters="d", framing="single_object", registrar=None
    )
    assert found.predictions == single_object_prefix(contract("prediction"))
    assert len({found.predictions, found.explanations, found.dead_letters}) == 3


@pytest.mark.parametrize(
    ("schema", "fingerprint"),
    [  # from the Avro project's own table of CRC-64-AVRO fingerprints
        ("null", 7195948357588979594),
        ({"type": "fixed", "name": "foo", "size": 15}, 1756455273707447556),
        ({"fields": [{"type": "boolean", "name": "f1"}], "type": "record", "name": "foo"}, 7843277075252814651),
    ],
)  # fmt: skip
def test_fingerprints_are_avros(schema: object, fingerprint: int) -> None:
    assert single_object_prefix(schema) == b"\xc3\x01" + fingerprint.to_bytes(8, "little")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["{", '"double"', "[]", '{"type": "enum", "name": "E", "symbols": []}'])
def test_a_file_that_describes_no_record_stops_the_start(text: str, tmp_path: Path) -> None:
    path = tmp_path / "in.avsc"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"in\.avsc"):
        load_schema(path)
