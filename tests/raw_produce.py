"""A produce request written by hand: what no client library lets one say, but any producer may send."""

import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

_produce, _produce_version = 0, 7
_not_leader = 6
_castagnoli = 0x82F63B78


@dataclass(frozen=True, kw_only=True)
class RawRecord:
    """One record; header names are bytes, whatever they say."""

    value: bytes | None
    key: bytes | None = None
    headers: Sequence[tuple[bytes, bytes | None]] = ()


def produce_raw(servers: str, topic: str, records: Sequence[RawRecord], *, partition: int = 0) -> int:
    """Append one batch to a partition that the broker at this address leads; the first record's offset.

    Asks again while the broker does not know yet that it leads the partition. Raises ValueError with Kafka's error code
    when it refuses the batch.
    """
    deadline_s = time.monotonic() + 20
    while True:
        error, offset = _produce_once(servers, topic, records, partition)
        if error == 0:
            return offset
        if error != _not_leader or time.monotonic() > deadline_s:
            raise ValueError(f"Kafka's error {error}")
        time.sleep(0.05)


def _produce_once(servers: str, topic: str, records: Sequence[RawRecord], partition: int) -> tuple[int, int]:
    name = topic.encode()
    batch = record_batch(records)
    body = (
        struct.pack(">hhii", -1, -1, 30_000, 1)  # no transaction, acks of all, time-out, one topic
        + struct.pack(">h", len(name))
        + name
        + struct.pack(">iii", 1, partition, len(batch))
        + batch
    )
    header = struct.pack(">hhih", _produce, _produce_version, 1, 4) + b"test"
    host, _, port = servers.partition(",")[0].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(struct.pack(">i", len(header + body)) + header + body)
        (length,) = struct.unpack(">i", _exactly(connection, 4))
        answer = _exactly(connection, length)
    start = 4 + 4 + 2 + len(name) + 4 + 4  # correlation, topics, the topic's name, partitions, the partition
    error, offset = struct.unpack_from(">hq", answer, start)
    return int(error), int(offset)


def record_batch(records: Sequence[RawRecord]) -> bytes:
    """A record batch of version 2, neither compressed nor idempotent, of now: one of 1970 is old enough for retention to delete."""
    now_ms = time.time_ns() // 1_000_000
    said = b"".join(_record(place, record) for place, record in enumerate(records))
    checked = (
        struct.pack(">hiqqqhii", 0, len(records) - 1, now_ms, now_ms, -1, -1, -1, len(records)) + said
    )  # attributes, last delta, two times, producer id, epoch, sequence, count
    return struct.pack(">qiibI", 0, len(checked) + 9, -1, 2, crc32c(checked)) + checked


def crc32c(data: bytes) -> int:
    """CRC-32C, bit by bit."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (_castagnoli if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _record(place: int, record: RawRecord) -> bytes:
    said = b"\0" + _varint(0) + _varint(place) + _bytes(record.key) + _bytes(record.value)
    said += _varint(len(record.headers))
    for name, value in record.headers:
        said += _bytes(name) + _bytes(value)
    return _varint(len(said)) + said


def _bytes(data: bytes | None) -> bytes:
    return _varint(-1) if data is None else _varint(len(data)) + data


def _varint(number: int) -> bytes:
    bits, out = (number << 1) ^ (number >> 63), bytearray()
    while bits >= 0x80:
        out.append(bits & 0x7F | 0x80)
        bits >>= 7
    return bytes([*out, bits])


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            raise ConnectionError("the broker hung up")
        data += part
    return data
