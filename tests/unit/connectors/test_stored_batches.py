"""What a look by hand says of a stored batch, for batches that are written here from Kafka's description of them."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.connectors.kafka.client import ClientConfig
from penstock.connectors.kafka.reading.batch_looks import BatchLooks, Look
from penstock.connectors.kafka.wire.batches import crc32c, parse_batch, read_batch
from penstock.engine.clock import SystemClock
from penstock.schemas.errors import UnavailableError

far = 1 << 40


def checksum(data: bytes) -> int:
    """CRC-32C bit by bit, as RFC 3720 has it: the remainder of a division of polynomials."""
    remainder = 0xFFFFFFFF
    for byte in data:
        for place in range(8):
            top = (remainder ^ byte >> place) & 1
            remainder = (remainder >> 1) ^ (0x82F63B78 * top)
    return remainder ^ 0xFFFFFFFF


def batch(base: int, records: int, body: bytes, *, delta: int | None = None, attributes: int = 0) -> bytes:
    """A record batch of format 2, around a body that nobody looks into."""
    covered = (
        attributes.to_bytes(2, "big")
        + (records - 1 if delta is None else delta).to_bytes(4, "big")
        + (1_700_000_000_000).to_bytes(8, "big") * 2
        + b"\xff" * 14
        + records.to_bytes(4, "big")
        + body
    )
    behind = (7).to_bytes(4, "big") + b"\2" + checksum(covered).to_bytes(4, "big") + covered
    return base.to_bytes(8, "big") + len(behind).to_bytes(4, "big") + behind


batches = st.builds(batch, st.integers(0, 1 << 50), st.integers(1, 5000), st.binary(max_size=200))


@given(st.binary(max_size=300))
def test_the_checksum_is_that_of_the_standard(data: bytes) -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the catalogue
    assert crc32c(data) == checksum(data)


@given(batches, st.binary(max_size=80))
def test_a_sound_batch_is_read_as_it_was_written(stored: bytes, behind: bytes) -> None:
    found = parse_batch(stored + behind, end=1 << 60)
    assert found is not None
    base, records = int.from_bytes(stored[:8], "big"), int.from_bytes(stored[57:61], "big")
    assert (found.base, found.delta, found.count, found.size) == (base, records - 1, records, len(stored))
    assert found.whole
    assert found.sound
    assert not found.broken


@given(
    st.integers(0, far), st.integers(1, 5000), st.binary(min_size=1, max_size=200), st.data(), st.booleans()
)
def test_one_changed_byte_is_seen_and_never_costs_a_good_record(
    base: int, records: int, body: bytes, data: st.DataObject, seen: bool
) -> None:
    """Wherever under the checksum it stands, the byte of the batch's own extent included."""
    stored = bytearray(batch(base, records, body))
    place = data.draw(st.integers(17, len(stored) - 1))
    stored[place] ^= data.draw(st.integers(1, 255))
    behind = batch(base + records, 3, b"good") if seen else b""
    found = parse_batch(bytes(stored) + behind, end=base + records + (3 if seen else 0))
    assert found is not None
    assert found.broken
    if found.next is not None:
        assert found.next == base + records
    witness_changed = 23 <= place < 27 or 57 <= place < 61
    assert (found.next is not None) == (seen or not witness_changed)


@given(batches, st.data())
def test_a_part_of_a_batch_is_not_judged(stored: bytes, data: st.DataObject) -> None:
    found = parse_batch(stored[: data.draw(st.integers(0, len(stored) - 1))], end=1 << 60)
    assert found is None or not (found.broken or found.sound)


@given(st.integers(0, far), st.integers(1, 50), st.integers(1, 50))
def test_how_far_a_compacted_batch_goes_is_told_by_what_follows(base: int, records: int, gone: int) -> None:
    stored = bytearray(batch(base, records, b"body", delta=records + gone - 1))
    stored[-1] ^= 1
    next_ = base + records + gone
    alone = parse_batch(bytes(stored), end=far * 2)
    assert alone is not None
    assert alone.next is None
    followed = parse_batch(bytes(stored) + batch(next_, 1, b""), end=far * 2)
    assert followed is not None
    assert followed.next == next_
    last = parse_batch(bytes(stored), end=next_, asked_bytes=len(stored) + 61)
    assert last is not None
    assert last.next == next_


@given(st.binary(max_size=400))
def test_any_bytes_are_answered(data: bytes) -> None:
    parse_batch(data, end=10)


@dataclass
class OneBroker:
    """Answers as a broker that leads partition 1 of topic t, whose log is `log`."""

    log: list[bytes]
    error: int = 0
    version_asked: int = -1

    def answer(self, key: int, version: int, body: bytes, port: int) -> bytes:
        i32, i64, name = struct.Struct(">i"), struct.Struct(">q"), b"\0\1t"
        if key == 3:
            host = b"127.0.0.1"
            here = i32.pack(5) + len(host).to_bytes(2, "big") + host + i32.pack(port) + b"\xff\xff"
            other = b"\0\0" + i32.pack(0) + i32.pack(-1) + i32.pack(0) * 2
            ours = b"\0\0" + i32.pack(1) + i32.pack(5) + (i32.pack(1) + i32.pack(5)) * 2
            topic = b"\0\0" + name + b"\0" + i32.pack(2) + other + ours
            return i32.pack(0) + i32.pack(1) + here + b"\0\2cl" + i32.pack(5) + i32.pack(1) + topic
        self.version_asked = version
        place = body.index(name) + len(name) + 4
        (offset,) = i64.unpack_from(body, place + 8)
        (size,) = i32.unpack_from(body, place + 24)
        found = b""
        for each in self.log:
            last = int.from_bytes(each[:8], "big") + int.from_bytes(each[23:27], "big")
            if found or last >= offset:
                found += each
                if len(found) >= size:
                    break
        first = next((len(each) for each in self.log if found.startswith(each)), 0)
        found = found[: max(size, first)]
        partition = i32.pack(1) + self.error.to_bytes(2, "big") + i64.pack(99) + i64.pack(30) + i64.pack(0)
        partition += i32.pack(1) + i64.pack(8) * 2 + i32.pack(len(found)) + found
        return i32.pack(0) + b"\0\0" + i32.pack(0) + i32.pack(1) + name + i32.pack(1) + partition


@contextmanager
def served(broker: OneBroker) -> Iterator[ClientConfig]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            while True:
                try:
                    wire, _ = server.accept()
                except OSError:
                    return
                with wire, wire.makefile("rwb") as lines:
                    while size := lines.read(4):
                        asked = lines.read(int.from_bytes(size, "big"))
                        key, version, number = struct.unpack_from(">hhi", asked)
                        body = asked[10 + int.from_bytes(asked[8:10], "big") :]
                        answer = struct.pack(">i", number) + broker.answer(key, version, body, port)
                        lines.write(struct.pack(">i", len(answer)) + answer)
                        lines.flush()

        threading.Thread(target=serve, daemon=True).start()
        yield ClientConfig(bootstrap_servers=f"127.0.0.1:{port}")
        server.shutdown(socket.SHUT_RDWR)


def test_a_broker_is_asked_for_the_batch_of_an_offset() -> None:
    """Behind a marker; and once more with what follows, where the batch contradicts itself."""
    broken = bytearray(batch(11, 9, b"x" * 100))
    broken[26] ^= 64  # how far it goes
    log = [
        batch(0, 10, b"y" * 50),
        batch(10, 1, b"marker", attributes=0x30),
        bytes(broken),
        batch(20, 10, b""),
    ]
    broker = OneBroker(log)
    with served(broker) as config:
        first = read_batch(config, topic="t", partition=1, offset=4)
        behind_marker = read_batch(config, topic="t", partition=1, offset=10)
        with pytest.raises(UnavailableError, match="no leader"):
            read_batch(config, topic="t", partition=0, offset=4)
        broker.error = 29  # no permission
        with pytest.raises(UnavailableError, match="cannot look at partition 1 of t"):
            read_batch(config, topic="t", partition=1, offset=4)
    assert first is not None
    assert (first.base, first.sound, first.end, broker.version_asked) == (0, True, 30, 10)
    assert behind_marker is not None
    assert (behind_marker.base, behind_marker.broken, behind_marker.next) == (11, True, 20)


def test_a_look_tells_of_exactly_the_offset_it_was_asked_for() -> None:
    stored = bytearray(batch(5, 10, b"body"))
    stored[-1] ^= 1
    found = parse_batch(bytes(stored), end=15)
    asked = threading.Event()

    def read(*_: object, **__: object) -> object:
        asked.set()
        return found

    looks = BatchLooks(ClientConfig(bootstrap_servers="nowhere:1"), "t", clock=SystemClock(), read=read)  # type: ignore[arg-type]
    look = None
    for _ in range(1000):
        if (look := looks.of(0, 7)) is not None:
            break
        asked.wait(0.01)
    assert look is not None
    assert look.broken is not None
    assert (look.broken.first, look.broken.next) == (7, 15)
    assert looks.of(0, 8) is None
    looks.forget()
    assert looks.of(0, 7) is None
    looks.close()
    assert Look(offset=15, asked_at_s=0.0, batch=found).broken is None
    assert Look(offset=5, asked_at_s=0.0, fault="away").broken is None
