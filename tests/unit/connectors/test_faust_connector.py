"""What a Faust app is given: Avro as Penstock reads it, keys where other producers put them, and its settings."""

import io
import shutil
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.partitioner import partition_of
from penstock.engine.codec.framing import confluent_prefix, single_object_prefix
from penstock.schemas.errors import ConfigError, RecordError
from penstock.schemas.reasons import Reason

pytest.importorskip("faust")
from faust.serializers.registry import Registry

from penstock.connectors.faust import AvroCodec, Partitioner, make_app

schema = {
    "type": "record",
    "name": "Reading",
    "fields": [
        {"name": "sensor", "type": "string"},
        {"name": "count", "type": "long"},
        {"name": "level", "type": ["null", "double"], "default": None},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["a", "b"]}},
        {"name": "history", "type": {"type": "array", "items": "double"}},
    ],
}
records = st.fixed_dictionaries(
    {
        "sensor": st.text(max_size=8),
        "count": st.integers(-(2**63), 2**63 - 1),
        "level": st.none() | st.floats(allow_nan=False),
        "kind": st.sampled_from(["a", "b"]),
        "history": st.lists(st.floats(allow_nan=False), max_size=3),
    }
)
one = {"sensor": "s", "count": 1, "level": None, "kind": "a", "history": [1.0, 2.0]}
framings = pytest.mark.parametrize("schema_id", [None, 7])


def prefix(schema_id: int | None) -> bytes:
    return single_object_prefix(schema) if schema_id is None else confluent_prefix(schema_id)


@framings
@given(record=records)
def test_what_is_written_is_framed_as_penstock_reads_it_and_reads_back(
    schema_id: int | None, record: dict[str, Any]
) -> None:
    codec = AvroCodec(schema=schema, schema_id=schema_id)
    value = codec.dumps(record)
    header = prefix(schema_id)
    assert value.startswith(header)
    body = io.BytesIO(value[len(header) :])
    assert fastavro.schemaless_reader(body, fastavro.parse_schema(schema), None) == record
    assert codec.loads(value) == record


def test_as_a_serializer_of_a_topic_it_takes_records_and_passes_bytes_on() -> None:
    codec, faust_serializers = AvroCodec(schema=schema), Registry()
    value = faust_serializers.dumps_value(None, one, serializer=codec)
    assert faust_serializers.loads_value(None, value, serializer=codec) == one
    assert faust_serializers.dumps_value(None, b"as it came", serializer=codec) == b"as it came"


@framings
def test_bytes_that_are_no_record_of_the_schema_are_refused(schema_id: int | None) -> None:
    codec = AvroCodec(schema=schema, schema_id=schema_id)
    value = codec.dumps(one)
    header = prefix(schema_id)
    for end in range(len(header), len(value)):
        with pytest.raises(RecordError) as refused:
            codec.loads(value[:end])
        assert refused.value.reason is Reason.CORRUPT
    with pytest.raises(RecordError) as refused:
        codec.loads(value + b"\0")
    assert refused.value.reason is Reason.TRAILING_BYTES
    for other in (b"", header[:-1], b"\0\0\0\0\x08" + value[5:], b"\xc3\x01" + bytes(8) + value[10:]):
        with pytest.raises(RecordError) as refused:
            codec.loads(other)
        assert refused.value.reason is Reason.BAD_FRAMING


@given(body=st.binary(max_size=60))
def test_no_bytes_do_harm(body: bytes) -> None:
    codec = AvroCodec(schema=schema)
    try:
        record = codec.loads(single_object_prefix(schema) + body)
    except RecordError:
        return
    assert set(record) == set(one)


def test_neither_depth_nor_promised_items_end_the_process() -> None:
    link: dict[str, Any] = {
        "type": "record",
        "name": "Link",
        "fields": [{"name": "next", "type": ["null", "Link"]}],
    }
    deep = AvroCodec(schema=link)
    with pytest.raises(RecordError, match="corrupt"):
        deep.loads(single_object_prefix(link) + b"\x02" * 100_000 + b"\x00")
    nothings: dict[str, Any] = {
        "type": "record",
        "name": "Nothings",
        "fields": [{"name": "items", "type": {"type": "array", "items": "null"}}],
    }
    two_to_the_40 = b"\x80\x80\x80\x80\x80\x40"
    with pytest.raises(RecordError, match="corrupt"):
        AvroCodec(schema=nothings).loads(single_object_prefix(nothings) + two_to_the_40 + b"\x00")


@pytest.mark.parametrize(
    "record", [{}, {**one, "count": "canary"}, {**one, "kind": "canary"}, {**one, "count": 2**70}, None]
)
def test_a_record_that_does_not_fit_is_refused_without_quoting_it(record: Any) -> None:
    with pytest.raises(RecordError) as refused:
        AvroCodec(schema=schema).dumps(record)
    assert refused.value.reason is Reason.WRONG_TYPE
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "schema_id"),
    [
        ({}, None),
        ({"type": "record", "name": "R", "fields": [{"name": "x", "type": "nothing"}]}, None),
        (schema, -1),
        (schema, 1 << 31),
    ],
)
def test_what_is_no_schema_is_a_config_error(wrong: Any, schema_id: int | None) -> None:
    with pytest.raises(ConfigError):
        AvroCodec(schema=wrong, schema_id=schema_id)


@given(key=st.binary(min_size=1, max_size=20), partitions=st.integers(1, 50))
def test_a_key_lands_where_other_producers_put_it(key: bytes, partitions: int) -> None:
    everywhere = list(range(partitions))
    assert Partitioner()(key, everywhere, everywhere[:1]) == partition_of(key, partitions)


def test_what_has_no_key_goes_round_where_there_is_a_leader() -> None:
    place = Partitioner()
    assert [place(None, [0, 1, 2], [0, 2]) for _ in range(4)] == [0, 2, 0, 2]
    assert place(None, [0, 1, 2], []) in (0, 1, 2)


def test_the_brokers_are_those_of_penstock_and_faust_settings_may_be_given() -> None:
    conf = make_app("a", ClientConfig(bootstrap_servers="b:9092, SASL_SSL://c:9093"), topic_partitions=3).conf
    assert [str(url) for url in conf.broker] == ["kafka://b:9092", "kafka://c:9093"]
    assert conf.broker_credentials is None
    assert conf.topic_partitions == 3


def test_a_password_goes_to_faust_and_into_no_text() -> None:
    config = ClientConfig(
        bootstrap_servers="a:9092",
        protocol="SASL_PLAINTEXT",
        mechanism="SCRAM-SHA-512",
        username="ann",
        password="canary",
    )
    app = make_app("a", config)
    credentials: Any = app.conf.broker_credentials
    assert (credentials.username, credentials.password) == ("ann", "canary")
    assert credentials.mechanism.value == "SCRAM-SHA-512"
    assert credentials.protocol.value == "SASL_PLAINTEXT"
    assert "canary" not in f"{credentials!r} {app!r} {app.conf!r}"


def test_oauthbearer_is_refused() -> None:
    config = ClientConfig(bootstrap_servers="a:9092", protocol="SASL_SSL", mechanism="OAUTHBEARER")
    with pytest.raises(ConfigError, match=r"faust\.OAuthCredentials"):
        make_app("a", config)


def test_certificate_files_that_cannot_be_used_are_a_config_error(tmp_path: Path) -> None:
    for ca_file in (tmp_path / "absent.pem", tmp_path):
        config = ClientConfig(bootstrap_servers="a:9092", protocol="SSL", ca_file=ca_file)
        with pytest.raises(ConfigError, match="certificate files"):
            make_app("a", config)


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return certificate, key


@pytest.mark.parametrize("trusted", [True, False])
def test_tls_trusts_the_authority_given_and_shows_the_certificate(trusted: bool, tmp_path: Path) -> None:
    server_certificate, server_key = make_certificate(tmp_path, "server")
    own_certificate, own_key = make_certificate(tmp_path, "app")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(server_certificate, server_key)
    server.load_verify_locations(own_certificate)
    server.verify_mode = ssl.CERT_REQUIRED
    config = ClientConfig(
        bootstrap_servers="127.0.0.1:9093",
        protocol="SSL",
        ca_file=server_certificate if trusted else own_certificate,
        certificate_file=own_certificate,
        key_file=own_key,
    )
    credentials: Any = make_app("a", config).conf.broker_credentials
    context = credentials.context
    shown: list[Any] = []

    def accept(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                with server.wrap_socket(connection, server_side=True) as secured:
                    shown.append(secured.getpeercert())
                    secured.sendall(b"!")
            except ssl.SSLError:
                shown.append(None)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,))
        thread.start()
        with socket.create_connection(listener.getsockname()) as plain:
            if trusted:
                with context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
                    assert secured.recv(1) == b"!"
            else:
                with pytest.raises(ssl.SSLCertVerificationError):
                    context.wrap_socket(plain, server_hostname="127.0.0.1")
        thread.join(10)
    assert bool(shown[0]) == trusted
