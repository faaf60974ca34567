"""For a Faust app that lives beside Penstock: the app itself, how it writes Avro, and where its keys go.

Faust is a good place to compute features over time windows on the way to the topic that Penstock scores. It stays out of the
way from poll to commit: its transactions are not to be relied on, and it reads other people's aborted ones unless it
is in one. So let it write what Penstock reads, not read what Penstock writes.
"""

import io
import itertools
import ssl
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import avro.errors
import avro.io
import avro.schema
import fastavro
import faust
import orjson
from fastavro.schema import SchemaParseException, UnknownType, fingerprint, to_parsing_canonical_form
from faust.auth import SASLCredentials, SSLCredentials
from faust.serializers.codecs import Codec
from faust.types.auth import CredentialsT

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.partitioner import partition_of
from penstock.schemas.errors import ConfigError, RecordError
from penstock.schemas.reasons import Reason, Stage

_no_schema: Final = (
    SchemaParseException, UnknownType, avro.errors.AvroException, KeyError, TypeError, ValueError, AttributeError, RecursionError,
)  # fmt: skip
_no_record: Final = (
    avro.errors.AvroException, ValueError, IndexError, TypeError, OverflowError, RecursionError, struct.error,
)  # fmt: skip
_no_fit: Final = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError, struct.error)
"""What the two libraries raise: for an invalid schema, for bytes that are not a record, for a record that does not fit the schema."""


def make_app(name: str, config: ClientConfig, **settings: Any) -> faust.App:
    """A Faust app on the brokers of `config`, with what Faust's defaults leave open; `settings` are Faust's own, over these.

    An agent that raises ends the app: by default Faust counts the event as done and goes on, which loses it. So an agent
    that reads `stream.noack()` and calls `event.ack()` once its own messages are delivered loses none.

    Source events are held back until the tables are restored. Faust 0.15 lets them through while it still seeks to the
    committed offsets (its issue 596): after a restart some are then handled twice, and some never.

    `config.properties` are librdkafka's and mean nothing to Faust. Raises ConfigError for OAUTHBEARER, for which Faust wants
    a token provider of the app's own, and for a file of the security settings that cannot be used.
    """
    hosts = [host.strip().rpartition("//")[2] for host in config.bootstrap_servers.split(",")]
    ours: dict[str, Any] = {
        "broker": [f"kafka://{host}" for host in hosts],
        "broker_credentials": _credentials(config),
        "producer_partitioner": Partitioner(),
        "agent_supervisor": "mode.CrashingSupervisor",
    }
    app = faust.App(name, **(ours | settings))
    app.on_rebalance_complete.connect(_hold_back, weak=False)
    return app


async def _hold_back(app: faust.App, /, *_: Any, **__: Any) -> None:
    """Comes before the source partitions are resumed; Faust lets the flow go on itself, after it has sought."""
    app.consumer.stop_flow()
    app.flow_control.suspend()


class Partitioner:
    """Puts a key where Penstock, Java's clients and librdkafka's murmur2_random put it; what has no key goes round."""

    def __init__(self) -> None:
        self._turn = itertools.count()

    def __call__(self, key: bytes | None, all_partitions: Sequence[int], available: Sequence[int]) -> int:
        """The partition of a record; `all_partitions` ascending, `available` those that have a leader."""
        if key is not None:
            return all_partitions[partition_of(key, len(all_partitions))]
        open_ones = available or all_partitions
        return open_ones[next(self._turn) % len(open_ones)]


class AvroCodec(Codec):
    """Records of one Avro schema, as dictionaries, in the framings that Penstock reads.

    A `value_serializer` for topics, or used by itself (`loads`, `dumps`). Without `schema_id` it is Avro's single-object
    encoding, with it the Confluent wire format under that id of the registry.
    """

    def __init__(
        self, children: tuple[Any, ...] = (), *, schema: Mapping[str, Any], schema_id: int | None = None
    ) -> None:
        """Raises ConfigError when `schema` is no Avro schema or `schema_id` cannot be one."""
        super().__init__(children, schema=schema, schema_id=schema_id)
        try:
            canonical = to_parsing_canonical_form(dict(schema))
            self._written = fastavro.parse_schema(dict(schema))
            # Apache's reader refuses hostile bytes on which fastavro takes all memory or ends the process.
            self._reader = avro.io.DatumReader(avro.schema.parse(orjson.dumps(schema).decode()))
        except _no_schema as error:
            raise ConfigError(f"this is not an Avro schema: {error}") from error
        if schema_id is None:
            self._prefix = b"\xc3\x01" + bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))
        elif 0 <= schema_id < 1 << 31:
            self._prefix = b"\x00" + schema_id.to_bytes(4, "big")
        else:
            raise ConfigError(f"{schema_id} is no schema id")

    def _loads(self, s: bytes) -> Any:
        if not s.startswith(self._prefix):
            raise _fault(Reason.BAD_FRAMING, "the header is not the one of this schema")
        stream = io.BytesIO(s)
        stream.seek(len(self._prefix))
        try:
            record = self._reader.read(avro.io.BinaryDecoder(stream))
        except _no_record as error:
            raise _fault(Reason.CORRUPT, "the bytes are not a record of this schema") from error
        if stream.tell() != len(s):
            raise _fault(Reason.TRAILING_BYTES, f"{len(s) - stream.tell()} bytes follow the record")
        return record

    def _dumps(self, s: Any) -> bytes:
        stream = io.BytesIO(self._prefix)
        stream.seek(len(self._prefix))
        try:
            fastavro.schemaless_writer(stream, self._written, s)
        except _no_fit as error:
            detail = "the record does not fit the schema"
            raise RecordError(stage=Stage.ENCODE, reason=Reason.WRONG_TYPE, detail=detail) from error
        return stream.getvalue()


def _fault(reason: Reason, detail: str) -> RecordError:
    return RecordError(stage=Stage.DECODE, reason=reason, detail=detail)


def _credentials(config: ClientConfig) -> CredentialsT | None:
    if config.protocol == "PLAINTEXT":
        return None
    if config.mechanism == "OAUTHBEARER":
        raise ConfigError("for OAUTHBEARER give the Faust app its own faust.OAuthCredentials")
    context = _tls(config) if config.protocol.endswith("SSL") else None
    if config.protocol == "SSL":
        return SSLCredentials(context)
    return SASLCredentials(
        username=config.username,
        password=config.password,
        ssl_context=context,
        mechanism=config.mechanism,
    )


def _tls(config: ClientConfig) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.certificate_file is not None:
            context.load_cert_chain(config.certificate_file, config.key_file, config.key_password)
    except OSError as error:  # an ssl.SSLError is one
        raise ConfigError(f"the certificate files of the Kafka settings cannot be used: {error}") from error
    return context
