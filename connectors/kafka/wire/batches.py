"""A record batch as it is stored: asked for by hand, with its checksum, which the client library tells nothing of.

librdkafka 2.16 goes astray behind a batch whose checksum is wrong: it parses what it takes for the next one from the middle of
the response, and an assertion may end the process. So where that batch ends has to be learned in another way.
"""

import struct
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.errors import translate
from penstock.connectors.kafka.wire.connection import Connection, connected, host_and_port, text
from penstock.connectors.kafka.wire.reader import Reader
from penstock.schemas.errors import UnavailableError

batch_bytes_max: Final = 128 << 20  # more than brokers store in one
header_bytes: Final = 61
_fetch, _metadata = 1, 3
_fetch_version: Final = 10  # the oldest that may carry zstd; brokers of 2.1 to 4.x speak it
_metadata_version: Final = 4
_wait_ms: Final = 500  # for bytes that the broker has to fetch itself; for none at all it does not wait
_read_committed: Final = 1
_length_from: Final = 12  # the length counts what stands behind itself
_checksum_from: Final = 21  # as the checksum does
_format: Final = 2
_control: Final = 1 << 5
_markers_max: Final = 100  # passed over in one look
_polynomial: Final = 0x82F63B78  # Castagnoli's, its bits turned round
_header: Final = struct.Struct(">qiibIhiqqqhii")


def _table() -> tuple[int, ...]:
    entries = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_polynomial if value & 1 else 0)
        entries.append(value)
    return tuple(entries)


_crc_table: Final = _table()


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredBatch:
    """What the first batch of an answer says of itself, and what its bytes say."""

    base: int
    """Its first offset."""
    control: bool
    """It holds the marker of a transaction, and no record."""
    delta: int
    """Its last offset, less the first."""
    count: int
    """How many records it says it holds."""
    size: int
    """In bytes, its header included."""
    magic: int
    stored_crc: int
    computed_crc: int
    """Of what there is of it."""
    whole: bool
    """All of it was in the answer."""
    follows: int | None
    """The base of the batch behind it, or the end of the log where there is none; None: not seen."""
    end: int
    """Where the log ended for a reader of committed records."""

    @property
    def broken(self) -> bool:
        """Its checksum is wrong: nothing in it can be believed, its own extent included."""
        return self.whole and self.magic == _format and self.stored_crc != self.computed_crc

    @property
    def sound(self) -> bool:
        """Its checksum is right."""
        return self.whole and self.magic == _format and self.stored_crc == self.computed_crc

    @property
    def next(self) -> int | None:
        """The offset behind its last one, where two of three witnesses agree; None where they do not.

        The changed byte may be one of those that say how far the batch goes. Taken at its word, it would be passed over together
        with good ones behind it. The witnesses are its last offset, the number of its records, and what follows it. In a log
        that was compacted all three may differ.
        """
        by_delta, by_count = self.base + self.delta + 1, self.base + self.count
        told = [by_delta, by_count] if self.follows is None else [by_delta, by_count, self.follows]
        agreed = [place for place in told if told.count(place) > 1 and self.base < place <= self.end]
        return agreed[0] if agreed else None


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C (RFC 3720). In Python, some 10 MB a second: it is only computed of what could not be read."""
    crc, table = 0xFFFFFFFF, _crc_table
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def parse_batch(data: bytes, *, end: int, asked_bytes: int = 0) -> StoredBatch | None:
    """The first batch of `data`, the records of a fetch; None where there is not even a header.

    `end`: where the log ends. `asked_bytes`: so much was asked for; fewer came only because the log ends behind them.
    """
    if len(data) < header_bytes:
        return None
    base, length, _, magic, stored, attributes, delta, *_, count = _header.unpack_from(data)
    size = _length_from + length
    whole = header_bytes <= size <= len(data)
    follows = None
    if whole and len(data) >= size + 8:
        (follows,) = struct.unpack_from(">q", data, size)
    elif whole and len(data) == size < asked_bytes:
        follows = end
    return StoredBatch(
        base=base,
        control=bool(attributes & _control),
        delta=delta,
        count=count,
        size=size,
        magic=magic,
        stored_crc=stored,
        computed_crc=crc32c(memoryview(data)[_checksum_from : size if whole else len(data)]),
        whole=whole,
        follows=follows,
        end=end,
    )


def read_batch(config: ClientConfig, *, topic: str, partition: int, offset: int) -> StoredBatch | None:
    """The batch that holds `offset`, or the first behind it, from the leader of its partition; None where there is none yet.

    Sound batches that only hold markers of transactions are passed over: no client is given an offset of theirs. Takes a few
    seconds at most where nobody answers. Raises UnavailableError: no answer, no leader, or a refusal.
    """
    host, port = _leader(config, topic, partition)
    with connected(config, host, port, f"look at partition {partition} of {topic}") as connection:
        for _ in range(_markers_max):
            # A broker gives the first batch whole, whatever its size.
            found = _fetched(connection, topic, partition, offset, 1)
            if found is None or not (found.sound and found.control):
                break
            offset = found.base + found.delta + 1
        if found is not None and found.broken and found.next is None:
            found = _fetched(connection, topic, partition, offset, found.size + header_bytes)
    return found


def _fetched(
    connection: Connection, topic: str, partition: int, offset: int, asked_bytes: int
) -> StoredBatch | None:
    asked = struct.pack(">iiiibii", -1, _wait_ms, 0, asked_bytes, _read_committed, 0, -1)
    asked += struct.pack(">i", 1) + text(topic)
    asked += struct.pack(">iiiqqi", 1, partition, -1, offset, -1, asked_bytes)
    asked += struct.pack(">i", 0)  # nothing is forgotten: there is no session
    reader = Reader(connection.ask(_fetch, _fetch_version, asked, bytes_max=batch_bytes_max))
    reader.skip(4)  # how long the broker held the answer back
    _require(reader.number(">h"), topic, partition)
    reader.skip(4)
    if reader.number(">i") != 1:
        raise ValueError("an answer about other topics")
    reader.text()
    if (reader.number(">i"), reader.number(">i")) != (1, partition):
        raise ValueError("an answer about other partitions")
    _require(reader.number(">h"), topic, partition)
    reader.skip(8)
    end = reader.number(">q")
    reader.skip(8)
    reader.skip(16 * max(reader.number(">i"), 0))  # aborted transactions
    return parse_batch(reader.bytes(), end=end, asked_bytes=asked_bytes)


def _leader(config: ClientConfig, topic: str, partition: int) -> tuple[str, int]:
    fault: UnavailableError | None = None
    for server in config.bootstrap_servers.split(","):
        host, port = host_and_port(server)
        try:
            with connected(config, host, port, f"find the leader of {topic}") as connection:
                asked = struct.pack(">i", 1) + text(topic) + b"\0"  # and no topic is made
                return _leader_in(connection.ask(_metadata, _metadata_version, asked), topic, partition)
        except UnavailableError as error:
            fault = error
    raise fault or UnavailableError("no bootstrap server is named")


def _leader_in(answer: bytes, topic: str, partition: int) -> tuple[str, int]:
    reader = Reader(answer)
    reader.skip(4)
    brokers = {}
    for _ in range(reader.number(">i")):
        node = reader.number(">i")
        brokers[node] = reader.text(), reader.number(">i")
        reader.text()  # rack
    reader.text()  # cluster
    reader.skip(4)
    for _ in range(reader.number(">i")):
        _require(reader.number(">h"), topic, partition)
        reader.text()
        reader.skip(1)
        for _ in range(reader.number(">i")):
            code, number, leader = reader.number(">h"), reader.number(">i"), reader.number(">i")
            for _ in range(2):  # replicas, and those in sync
                reader.skip(4 * max(reader.number(">i"), 0))
            if number == partition and leader in brokers:
                return brokers[leader]
            if number == partition:
                _require(code, topic, partition)
    raise UnavailableError(f"topic {topic}, partition {partition} has no leader")


def _require(code: int, topic: str, partition: int) -> None:
    """Raises UnavailableError for what the broker refuses, whatever it is: reading itself says what has to be mended."""
    if code:
        refusal = translate(KafkaError(code), f"look at partition {partition} of {topic}")
        raise UnavailableError(str(refusal))
