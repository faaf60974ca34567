"""Answers in gzip: the same bytes for who takes it, and a stream that can be read event by event."""

import gzip
import socket
import zlib

import hypothesis.strategies as st
import pytest
from hypothesis import given

from penstock.engine.clock import SystemClock
from penstock.engine.pages.serving.live import Live
from penstock.engine.pages.serving.packing import (
    event_packed,
    packed,
    stream_begin,
    takes_gzip,
    worth_bytes_min,
)
from penstock.engine.pages.serving.streams import Streams
from penstock.engine.telemetry.http_request import Request
from penstock.engine.telemetry.http_server import Answer


def request(accepts: str | None) -> Request:
    headers = {} if accepts is None else {"accept-encoding": accepts}
    return Request(path="/", query={}, headers=headers, peer="127.0.0.1")


@pytest.mark.parametrize(
    ("accepts", "taken"),
    [("gzip", True), ("gzip, deflate, br", True), ("br;q=1, GZIP;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.000", False),
     ("deflate, br", False), ("xgzip", False), ("", False), (None, False)],
)  # fmt: skip
def test_gzip_is_for_who_takes_it(accepts: str | None, taken: bool) -> None:
    assert takes_gzip(request(accepts)) is taken
    answer = Answer(body=b'{"a": 1}' * worth_bytes_min)
    found = packed(answer, request(accepts))
    assert (found.headers.get("Content-Encoding") == "gzip") is taken
    assert (gzip.decompress(found.body) if taken else found.body) == answer.body


def test_what_is_short_or_packed_already_stays_as_it_is() -> None:
    for answer in (Answer(body=b"{}"), Answer(body=b"x" * 9999, headers={"Content-Encoding": "gzip"})):
        assert packed(answer, request("gzip")) is answer


@given(st.lists(st.binary(max_size=2000), max_size=20), st.integers(0, 20))
def test_each_event_can_be_read_when_it_is_there_and_from_any_first_one(
    events: list[bytes], first: int
) -> None:
    """The same packed event goes to all that follow, whatever each got before it."""
    reader = zlib.decompressobj(zlib.MAX_WBITS | 16)
    assert reader.decompress(stream_begin) == b""
    for event in events[first:]:
        assert reader.decompress(event_packed(event)) == event


def test_both_kinds_of_clients_get_the_same_events() -> None:
    number = 0

    def build(_: str) -> dict[str, object]:
        nonlocal number
        number += 1
        return {"number": number, "text": "x" * 50_000}

    streams = Streams(Live(build, boot="b"), clock=SystemClock())
    plain = Taken(streams, packed_=False)
    small = Taken(streams, packed_=True)
    streams.start()
    try:
        plain.read_until(5)
        small.read_until(4)
    finally:
        streams.close()
    assert plain.text.startswith(b"retry: 2000\n\nid: b-0\nevent: snapshot\n")
    assert small.text.startswith(b"retry: 2000\n\nid: b-1\nevent: snapshot\n")
    common = plain.changes() & small.changes()
    assert {b"id: b-2", b"id: b-3"} <= {each.split(b"\n")[0] for each in common}
    assert small.came < plain.came / 10


class Taken:
    """A client that follows."""

    def __init__(self, streams: Streams, *, packed_: bool) -> None:
        answer = streams.open("flow", "", {}, packed=packed_)
        assert answer.take_over is not None
        assert (answer.headers.get("Content-Encoding") == "gzip") is packed_
        ours, self._theirs = socket.socketpair()
        self._theirs.settimeout(30)
        self._reader = zlib.decompressobj(zlib.MAX_WBITS | 16) if packed_ else None
        self.text, self.came = b"", 0
        self._take(answer.body)
        answer.take_over(ours)

    def _take(self, piece: bytes) -> None:
        self.came += len(piece)
        self.text += piece if self._reader is None else self._reader.decompress(piece)

    def changes(self) -> set[bytes]:
        return {each for each in self.text.split(b"\n\n") if b"event: change" in each}

    def read_until(self, events: int) -> None:
        while self.text.count(b"\n\n") < events + 1:
            self._take(self._theirs.recv(1 << 16))
        self._theirs.close()
