"""A small HTTP server for /metrics, /live, /ready and /status, and one port that speaks for several workers."""

import http.client
import socket
import socketserver
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson

from penstock.engine.clock import SystemClock
from penstock.engine.telemetry.metrics import Metrics, SupervisorMetrics, content_type, render
from penstock.engine.telemetry.status import StatusBoard, Verdict
from penstock.schemas.errors import ConfigError

request_bytes_max = 8192
request_time_max_s = 5.0
connections_max = 16
ask_timeout_s = 1.0
answer_bytes_max = 16 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a path answers."""

    body: bytes
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK


Routes = Mapping[str, Callable[[], Answer]]


class HttpServer:
    """Serves GET and HEAD on fixed paths, each request on a short-lived thread of its own.

    Promises: a request is at most `request_bytes_max` long and is read within `request_time_max_s`; more than
    `connections_max` at once are refused; a route never sees anything the client sent.
    """

    def __init__(self, routes: Routes, *, host: str, port: int) -> None:
        """Binds at once; port 0 takes a free one. Raises ConfigError when the address cannot be had."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._server = _Server((host, port), routes, family)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigError(f"http: cannot listen on {host}:{port}: {reason}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="http", daemon=True
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def __enter__(self) -> "HttpServer":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop answering and free the port."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], routes: Routes, family: socket.AddressFamily) -> None:
        self.address_family = family
        self.routes = routes
        self._free = threading.BoundedSemaphore(connections_max)
        super().__init__(address, _Connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


class _Connection(socketserver.BaseRequestHandler):
    request: socket.socket
    server: _Server

    def handle(self) -> None:
        try:
            head = _read_head(self.request)
            if head is not None:
                self._answer(head)
        except OSError:
            return

    def _answer(self, head: bytes) -> None:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            self._send(_plain(HTTPStatus.BAD_REQUEST))
            return
        if words[0] not in (b"GET", b"HEAD"):
            self._send(_plain(HTTPStatus.METHOD_NOT_ALLOWED))
            return
        route = self.server.routes.get(words[1].split(b"?", 1)[0].decode("ascii", "replace"))
        if route is None:
            self._send(_plain(HTTPStatus.NOT_FOUND, " ".join(sorted(self.server.routes))))
            return
        answer = _plain(HTTPStatus.INTERNAL_SERVER_ERROR)  # unless the route comes to an end
        try:
            answer = route()
        finally:
            self._send(answer, with_body=words[0] == b"GET")

    def _send(self, answer: Answer, *, with_body: bool = True) -> None:
        head = (
            f"HTTP/1.1 {answer.status.value} {answer.status.phrase}\r\n"
            f"Content-Type: {answer.content_type}\r\nContent-Length: {len(answer.body)}\r\n"
            "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        )
        self.request.settimeout(request_time_max_s)
        self.request.sendall(head.encode("ascii") + (answer.body if with_body else b""))


def _read_head(connection: socket.socket) -> bytes | None:
    """The request up to its blank line; None when it is too long, too slow or cut off."""
    clock = SystemClock()  # a socket waits in the machine's time, whatever clock the engine is given
    deadline_s = clock.monotonic_s() + request_time_max_s
    head = b""
    while b"\r\n\r\n" not in head:
        left_s = deadline_s - clock.monotonic_s()
        if left_s <= 0:
            return None
        connection.settimeout(left_s)
        piece = connection.recv(request_bytes_max - len(head))
        if not piece:  # the client's end, or ours: no room is left
            return None
        head += piece
    return head


def _plain(status: HTTPStatus, text: str = "") -> Answer:
    return Answer(
        body=f"{text or status.phrase}\n".encode(), content_type="text/plain; charset=utf-8", status=status
    )


def json_answer(value: Any, *, ok: bool = True) -> Answer:
    """A value as JSON; 503 when it is not well."""
    status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(body=orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS) + b"\n", status=status)


def verdict_answer(verdict: Verdict) -> Answer:
    """200 or 503, with the reason."""
    return json_answer({"ok": verdict.ok, "reason": verdict.reason}, ok=verdict.ok)


def worker_routes(*, metrics: Metrics, board: StatusBoard) -> Routes:
    """What one worker answers."""

    def exposition() -> Answer:
        metrics.ready.set(
            board.ready().ok
        )  # the loop that keeps the gauges may not have begun, or have ended
        return Answer(body=render(metrics.registry), content_type=content_type)

    return {
        "/metrics": exposition,
        "/live": lambda: verdict_answer(board.live()),
        "/ready": lambda: verdict_answer(board.ready()),
        "/status": lambda: json_answer(board.status().as_dict()),
    }


def serve_worker(*, metrics: Metrics, board: StatusBoard, host: str, port: int) -> HttpServer:
    """A worker's server, to be entered with `with`. Raises ConfigError when the port cannot be had."""
    return HttpServer(worker_routes(metrics=metrics, board=board), host=host, port=port)


class SupervisorView:
    """One port for N workers: asks each on its loopback port and puts the answers together."""

    def __init__(self, *, metrics: SupervisorMetrics, ports: Callable[[], Mapping[str, int]]) -> None:
        """`ports`: worker to the loopback port it serves, of the workers that run now."""
        self._metrics = metrics
        self._ports = ports

    def routes(self) -> Routes:
        """What the supervisor answers."""
        return {
            "/metrics": self._exposition,
            "/live": lambda: self._combined("/live"),
            "/ready": lambda: self._combined("/ready"),
            "/status": self._status,
        }

    def _exposition(self) -> Answer:
        replies = self._ask_all("/metrics")
        self._metrics.workers_running.set(len(replies))
        bodies = {worker: reply.body.decode() for worker, reply in replies.items() if reply.body}
        own = render(self._metrics.registry)
        return Answer(body=merge_expositions(bodies) + own, content_type=content_type)

    def _combined(self, path: str) -> Answer:
        """Well when every worker is. One that does not listen yet is starting: live, since we look after it, but not ready."""
        replies = self._ask_all(path)
        faults = {}
        for worker, reply in replies.items():
            if reply.status is None and path == "/live" and not reply.timed_out:
                continue
            if reply.status != HTTPStatus.OK:
                faults[worker] = _reason(reply)
        ok = not faults and (bool(replies) or path == "/live")
        return json_answer({"ok": ok, "workers": len(replies), "faults": faults}, ok=ok)

    def _status(self) -> Answer:
        replies = self._ask_all("/status")
        reports = {
            worker: orjson.loads(reply.body) if reply.body else {"state": _reason(reply)}
            for worker, reply in replies.items()
        }
        return json_answer({"workers": reports})

    def _ask_all(self, path: str) -> dict[str, "_Reply"]:
        ports = self._ports()
        if not ports:
            return {}
        with ThreadPoolExecutor(max_workers=min(len(ports), connections_max)) as pool:
            replies = pool.map(lambda port: _ask(port, path), ports.values())
            return dict(zip(ports, replies, strict=True))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Reply:
    status: int | None = None  # None: nobody answered
    body: bytes = b""
    timed_out: bool = False


def _ask(port: int, path: str) -> _Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ask_timeout_s)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return _Reply(status=response.status, body=response.read(answer_bytes_max))
    except TimeoutError:
        return _Reply(timed_out=True)
    except (OSError, http.client.HTTPException):
        return _Reply()
    finally:
        connection.close()


def _reason(reply: _Reply) -> str:
    if reply.timed_out:
        return f"no answer within {ask_timeout_s:.0f} s"
    if reply.status is None:
        return "starting"
    try:
        return str(orjson.loads(reply.body)["reason"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"HTTP status {reply.status}"


def merge_expositions(expositions: Mapping[str, str]) -> bytes:
    """The workers' expositions as one: each sample gains worker="..."; a family's HELP and TYPE stand once, before its samples."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for worker, text in expositions.items():
        family = ""
        for line in text.splitlines():
            if line.startswith("# "):
                family = line.split(" ", 3)[2]
                known = heads.setdefault(family, [])
                if line not in known and len(known) < 2:
                    known.append(line)
            elif line:
                samples.setdefault(family, []).append(_with_worker(line, worker))
    lines = [line for family, head in heads.items() for line in (*head, *samples.get(family, ()))]
    return "".join(f"{line}\n" for line in lines).encode()


def _with_worker(sample: str, worker: str) -> str:
    escaped = worker.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    name, brace, rest = sample.partition("{")
    if brace:
        return f'{name}{{worker="{escaped}"{"" if rest.startswith("}") else ","}{rest}'
    name, _, value = sample.partition(" ")
    return f'{name}{{worker="{escaped}"}} {value}'
