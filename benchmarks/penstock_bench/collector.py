"""Where traces go during a bench: takes whatever is sent, in a process of its own, and counts it when all is over."""

import http.server
import json
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Final

body_bytes_max: Final = 64 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Collected:
    """What came."""

    requests: int
    bytes: int
    batches: int
    """Traces: each is of one batch."""
    spans: int


class Collector(http.server.ThreadingHTTPServer):
    """Answers at once; what it is sent is read by `collected`, when nobody's time is measured any more."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Taker)
        self.bodies: list[bytes] = []

    def collected(self) -> Collected:
        """Of all that came. Needs the extra `traces`."""
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        spans = [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return Collected(
            requests=len(self.bodies),
            bytes=sum(map(len, self.bodies)),
            batches=len({span.trace_id for span in spans}),
            spans=len(spans),
        )


class _Taker(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Collector

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        if length > body_bytes_max:
            self.send_error(413)
            return
        self.server.bodies.append(self.rfile.read(length))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing for each request."""


def main() -> None:
    """The arguments are a port and a file for what came; ends with SIGTERM."""

    def ended(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit

    signal.signal(signal.SIGTERM, ended)
    report = Path(sys.argv[2])
    fresh = report.with_suffix(".part")
    with Collector(int(sys.argv[1])) as collector:
        try:
            collector.serve_forever()
        except SystemExit:
            fresh.write_text(json.dumps(asdict(collector.collected())), encoding="utf-8")
            fresh.replace(report)


if __name__ == "__main__":
    main()
