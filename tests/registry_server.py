"""A schema registry on a free port of this machine: real HTTP, a small store, and faults on demand."""

import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import unquote

Fault = Literal[
    "hang", "trickle", "500", "429", "401", "403", "404", "garbage", "redirect", "huge", "empty", "hang_up"
]


class RegistryServer:
    """What a test sees of it: publish schemas, set a fault, count the calls.

    `fault` is in force for every call until it is set to None; `faults_left` bounds how many calls it hits. `released` lets the
    calls that hang go.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.faults_left: int | None = None
        self.refuses_changes = False
        self.calls: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.compatibility: dict[str, str] = {}
        self.released = threading.Event()
        self.deleted: set[tuple[str, int]] = set()
        """Versions of subjects that were deleted softly: only those who ask for deleted ones are told."""
        self.late: Counter[int] = Counter()
        """How often an id is still answered as unknown, as by a node that has not heard of it."""
        self._subjects: dict[str, list[int]] = {}
        self._schemas: dict[int, dict[str, Any]] = {}
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def publish(
        self,
        subject: str,
        schema: Any,
        *,
        references: Any = None,
        kind: str = "AVRO",
        text: str | None = None,
    ) -> int:
        """The id of a schema under a subject, as another producer would have registered it."""
        return self._publish(subject, {
            "schema": json.dumps(schema) if text is None else text, "schemaType": kind, "references": references or [],
        })  # fmt: skip

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _publish(self, subject: str, entry: dict[str, Any]) -> int:
        with self._lock:
            versions = self._subjects.setdefault(subject, [])
            for schema_id, known in self._schemas.items():
                if known == entry:
                    if schema_id not in versions:
                        versions.append(schema_id)
                    return schema_id
            schema_id = next(self._ids)
            self._schemas[schema_id] = entry
            versions.append(schema_id)
            return schema_id

    def _takes_fault(self) -> Fault | None:
        with self._lock:
            if self.fault is None or self.faults_left == 0:
                return None
            if self.faults_left is not None:
                self.faults_left -= 1
            return self.fault

    def _answer(self, method: str, path: list[str], body: Any, query: str = "") -> tuple[int, Any]:
        match method, path:
            case "GET", ["schemas", "ids", text]:
                entry = self._schemas.get(int(text))
                if self.late[int(text)] > 0:
                    self.late[int(text)] -= 1
                    entry = None
                return (200, entry) if entry else (404, {"error_code": 40403, "message": "Schema not found"})
            case "GET", ["subjects", subject, "versions", version]:
                versions = self._subjects.get(subject, [])
                if not versions:
                    return 404, {"error_code": 40401, "message": "Subject not found"}
                number = len(versions) if version == "latest" else int(version)
                if number > len(versions) or ((subject, number) in self.deleted and query != "deleted=true"):
                    return 404, {"error_code": 40402, "message": "Version not found"}
                schema_id = versions[number - 1]
                return 200, {
                    "subject": subject,
                    "version": number,
                    "id": schema_id,
                    **self._schemas[schema_id],
                }
            case "POST", ["subjects", subject]:
                entry = {"schema": body["schema"], "schemaType": body["schemaType"], "references": []}
                for schema_id in self._subjects.get(subject, []):
                    if self._schemas[schema_id] == entry:
                        return 200, {"id": schema_id}
                return 404, {"error_code": 40403 if subject in self._subjects else 40401}
            case "POST", ["subjects", subject, "versions"]:
                if self.refuses_changes:
                    return 409, {"error_code": 409, "message": "incompatible"}
                entry = {"schema": body["schema"], "schemaType": body["schemaType"], "references": []}
                return 200, {"id": self._publish(subject, entry)}
            case "POST", ["compatibility", "subjects", subject, "versions", "latest"]:
                if subject not in self._subjects:
                    return 404, {"error_code": 40401}
                return 200, {"is_compatible": not self.refuses_changes}
            case "GET", ["config", subject]:
                level = self.compatibility.get(subject)
                return (200, {"compatibilityLevel": level}) if level else (404, {"error_code": 40408})
            case "PUT", ["config", subject]:
                self.compatibility[subject] = body["compatibility"]
                return 200, body
        return 404, {"error_code": 404}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._respond()

            do_POST = do_PUT = do_GET  # noqa: N815

            def _respond(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                server.calls[f"{self.command} {self.path}"] += 1
                server.headers.append(dict(self.headers))
                fault = server._takes_fault()
                if fault is None:
                    place, _, query = self.path.partition("?")
                    path = [unquote(part) for part in place.strip("/").split("/")]
                    status, answer = server._answer(self.command, path, body, query)
                    self._send(status, json.dumps(answer).encode())
                else:
                    self._fail(fault)

            def _fail(self, fault: Fault) -> None:
                self.close_connection = True
                if fault == "hang":
                    server.released.wait(60)
                elif fault == "trickle":
                    self._head(200, {"Content-Length": "1000"})
                    while not server.released.wait(0.02):
                        self.wfile.write(b" ")
                elif fault == "redirect":
                    self._send(302, b"", {"Location": f"{server.url}/schemas/ids/1"})
                elif fault == "huge":
                    self._head(200, {"Content-Length": str(100 << 20)})
                    for _ in range(100):
                        self.wfile.write(b" " * (1 << 20))
                elif fault == "garbage":
                    self._send(200, b"<html>not what you asked for</html>")
                elif fault == "empty":
                    self._send(200, b"{}")
                elif fault != "hang_up":
                    self._send(int(fault), b'{"error_code": %s, "message": "as asked"}' % fault.encode())

            def _head(self, status: int, headers: dict[str, str]) -> None:
                self.send_response(status)
                if self.close_connection:
                    self.send_header("Connection", "close")
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self._head(status, {"Content-Length": str(len(body)), **(headers or {})})
                self.wfile.write(body)

            def handle(self) -> None:
                with suppress(
                    ConnectionError, TimeoutError
                ):  # a client that gives up is what some tests want
                    super().handle()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


@contextmanager
def registry_server() -> Iterator[RegistryServer]:
    """A registry that lives as long as the block."""
    server = RegistryServer()
    try:
        yield server
    finally:
        server.close()
