"""Answers in gzip for who takes it: whole ones, and streams whose events are compressed once for everybody who follows."""

import gzip
import zlib
from dataclasses import replace
from typing import Final

from penstock.engine.telemetry.http_request import Request
from penstock.engine.telemetry.http_server import Answer

worth_bytes_min: Final = 1024
_level: Final = 6
stream_begin: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""The head of a gzip stream; events follow, each by `event_packed`."""


def takes_gzip(request: Request) -> bool:
    """Whether it says so, and not with a weight of 0."""
    for each in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, weight = each.partition(";")
        if name.strip() == "gzip":
            return not weight or weight.replace(" ", "").removeprefix("q=").strip("0.") != ""
    return False


def packed(answer: Answer, request: Request) -> Answer:
    """The answer in gzip, where that is taken and saves anything."""
    if answer.take_over is not None or len(answer.body) < worth_bytes_min:
        return answer
    if "Content-Encoding" in answer.headers or not takes_gzip(request):
        return answer
    body = gzip.compress(answer.body, _level, mtime=0)
    return replace(answer, body=body, headers={**answer.headers, "Content-Encoding": "gzip"})


def event_packed(event: bytes) -> bytes:
    """A part of a gzip stream that needs nothing of what came before it, and can be read as soon as it is there."""
    compress = zlib.compressobj(_level, zlib.DEFLATED, -zlib.MAX_WBITS)
    return compress.compress(event) + compress.flush(zlib.Z_FULL_FLUSH)
