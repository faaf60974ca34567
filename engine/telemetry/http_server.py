"""A small HTTP server: fixed paths, a bound on everything, and probes that wait for nobody."""

import logging
import selectors
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import orjson

from penstock.engine.clock import SystemClock
from penstock.engine.telemetry.http_request import Request, body_length, read_request
from penstock.schemas.errors import ConfigError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.http")

request_bytes_max = 8192
body_bytes_max = 16 << 10
"""Of a POST, where they are taken at all."""
request_time_max_s = 5.0
send_time_max_s = 2.0
connections_max = 256
"""Of those whose request is still being read."""
probe_paths = frozenset({"/live", "/ready"})
probe_threads, answer_threads, answers_queued_max = 4, 4, 64
listen_backlog = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a path answers."""

    body: bytes
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    """Besides those that every answer has, or in place of them."""
    take_over: Callable[[socket.socket], None] | None = None
    """Gets the connection, with the head and the body sent and its end left open; owns it from then on."""


Routes = Mapping[str, Callable[[], Answer]]
Reader = Callable[[Request], Answer | None]
"""Answers what no route does; None: neither does it."""


class HttpServer:
    """Serves GET and HEAD on fixed paths, and POST where `reader` is said to take it.

    One thread takes connections and reads their heads, as many as come; answers are given by a few threads, and those of the
    probes by threads of their own, so that neither slow clients nor slow answers keep a probe waiting.

    Promises: a request is at most `request_bytes_max` long and is read within `request_time_max_s`; of more than
    `connections_max` that are still being read the oldest is cut off; a route never sees anything the client sent, `reader` does.
    """

    def __init__(
        self, routes: Routes, *, host: str, port: int, reader: Reader = lambda _: None, posts: bool = False
    ) -> None:
        """Binds at once; port 0 takes a free one. Raises ConfigError when the address cannot be had.

        `posts`: `reader` is asked for POSTs too, with the whole body, and refuses those it does not want.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._routes = routes
        self._reader = reader
        self._methods = (b"GET", b"HEAD", b"POST") if posts else (b"GET", b"HEAD")
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((host, port))
            self._listener.listen(listen_backlog)
        except (OSError, OverflowError) as error:
            self._listener.close()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigError(f"http: cannot listen on {host}:{port}: {reason}") from error
        self._listener.setblocking(False)
        self.dropped = 0
        """Connections closed unanswered, because too many were open or waited."""
        self._ended = threading.Event()
        self._reading: OrderedDict[socket.socket, _Reading] = OrderedDict()  # the oldest first
        self._pools = {
            True: ThreadPoolExecutor(probe_threads, thread_name_prefix="http-probe"),
            False: ThreadPoolExecutor(answer_threads, thread_name_prefix="http"),
        }
        self._queued = threading.BoundedSemaphore(answers_queued_max)
        self._thread = threading.Thread(target=self._serve, name="http-accept", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listener.getsockname()[1])

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
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._listener.close()
        for pool in self._pools.values():
            pool.shutdown(wait=False, cancel_futures=True)

    def _serve(self) -> None:
        clock = SystemClock()  # a socket waits in the machine's time, whatever clock the engine is given
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._ended.is_set():
                for key, _ in selector.select(0.1):
                    if key.fileobj is self._listener:
                        self._accept(selector, clock.monotonic_s())
                    elif isinstance(key.fileobj, socket.socket):
                        self._read(selector, key.fileobj)
                now_s = clock.monotonic_s()
                while self._reading and next(iter(self._reading.values())).until_s <= now_s:
                    self._drop(selector, next(iter(self._reading)))
            for connection in list(self._reading):
                self._drop(selector, connection)

    def _accept(self, selector: selectors.BaseSelector, now_s: float) -> None:
        for _ in range(listen_backlog):
            try:
                connection, _address = self._listener.accept()
            except OSError:  # nobody else is there, or no descriptor is left: the next turn tries again
                return
            connection.setblocking(False)
            while len(self._reading) >= connections_max:
                self.dropped += 1
                self._drop(selector, next(iter(self._reading)))
            self._reading[connection] = _Reading(until_s=now_s + request_time_max_s)
            selector.register(connection, selectors.EVENT_READ)

    def _drop(self, selector: selectors.BaseSelector, connection: socket.socket) -> None:
        self._forget(selector, connection)
        connection.close()

    def _forget(self, selector: selectors.BaseSelector, connection: socket.socket) -> None:
        del self._reading[connection]
        selector.unregister(connection)

    def _read(self, selector: selectors.BaseSelector, connection: socket.socket) -> None:
        reading = self._reading[connection]
        head = reading.head
        try:
            piece = connection.recv(reading.bytes_max - len(head))
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        head += piece
        end = head.find(b"\r\n\r\n")
        if end >= 0 and head.startswith(b"POST ") and b"POST" in self._methods:
            length = body_length(bytes(head[:end])) or 0
            if length <= body_bytes_max:  # of a longer one only the head is read, and refused
                reading.bytes_max = end + 4 + length
                end = end if len(head) >= reading.bytes_max else -1
        if end >= 0:
            self._forget(selector, connection)
            self._hand_over(connection, bytes(head))
        elif not piece:  # the client's end, or ours: no room is left
            self._drop(selector, connection)

    def _hand_over(self, connection: socket.socket, head: bytes) -> None:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        path = words[1].split(b"?", 1)[0].decode("ascii", "replace") if len(words) > 1 else ""
        if path == "/metrics" and asks_for_openmetrics(head) and openmetrics_path in self._routes:
            path = openmetrics_path
        probe = path in probe_paths
        if not probe and not self._queued.acquire(blocking=False):
            self.dropped += 1
            connection.close()
            return

        def answer() -> None:
            try:
                with suppress(OSError):
                    self._answer(connection, words, path, head)
            finally:
                if not probe:
                    self._queued.release()

        try:
            self._pools[probe].submit(answer).add_done_callback(log_fault)
        except RuntimeError:  # it is being closed
            connection.close()

    def _answer(self, connection: socket.socket, words: Sequence[bytes], path: str, head: bytes) -> None:
        answer = _plain(HTTPStatus.INTERNAL_SERVER_ERROR)  # unless the route comes to an end
        taken_over = False
        try:
            answer = self._find(connection, words, path, head)
        finally:
            try:
                taken_over = _send(connection, answer, with_body=words[0] != b"HEAD")
            finally:
                if not taken_over:
                    connection.close()

    def _find(self, connection: socket.socket, words: Sequence[bytes], path: str, head: bytes) -> Answer:
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _plain(HTTPStatus.BAD_REQUEST)
        if words[0] not in self._methods:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED)
        posted = words[0] == b"POST"
        route = self._routes.get(path)
        if route is not None:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED) if posted else route()
        if posted:
            length = body_length(head.split(b"\r\n\r\n", 1)[0])
            if length is None:
                return _plain(HTTPStatus.LENGTH_REQUIRED)
            if length > body_bytes_max:
                return _plain(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        request = read_request(head, str(connection.getpeername()[0]))
        if request is None or (posted and len(request.body) != length):
            return _plain(HTTPStatus.BAD_REQUEST)
        return self._reader(request) or _plain(HTTPStatus.NOT_FOUND, " ".join(sorted(self._routes)))


@dataclass(slots=True)
class _Reading:
    until_s: float
    head: bytearray = field(default_factory=bytearray)
    bytes_max: int = request_bytes_max


def _send(connection: socket.socket, answer: Answer, *, with_body: bool = True) -> bool:
    """Whether the connection is another's now."""
    headers = {
        "Content-Type": answer.content_type,
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
        "Connection": "close",
        **({} if answer.take_over else {"Content-Length": str(len(answer.body))}),
        **answer.headers,
    }
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    connection.settimeout(send_time_max_s)
    connection.sendall("\r\n".join([*lines, "", ""]).encode("ascii") + (answer.body if with_body else b""))
    if answer.take_over is not None and with_body:
        answer.take_over(connection)
        return True
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
    return False


def log_fault(answered: "Future[None]") -> None:
    """What nobody expected of an answer is a line: the pool that gave it would keep it to itself."""
    fault = None if answered.cancelled() else answered.exception()
    if fault is not None:
        logger.error("a request could not be answered", exc_info=fault, extra=LogCode.ANSWER_FAILED.extra)


def _plain(status: HTTPStatus, text: str = "") -> Answer:
    return Answer(
        body=f"{text or status.phrase}\n".encode(), content_type="text/plain; charset=utf-8", status=status
    )


def json_answer(value: Any, *, ok: bool = True) -> Answer:
    """A value as JSON; 503 when it is not well."""
    status = HTTPStatus.OK if ok else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(body=orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS) + b"\n", status=status)


openmetrics_path = "/metrics/openmetrics"
"""Where /metrics leads for who asks for that form."""


def asks_for_openmetrics(head: bytes) -> bool:
    """Whether a request's head has an Accept header that names the OpenMetrics form, and does not refuse it by a weight of 0."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"accept":
            for choice in value.lower().split(b","):
                kind, *parameters = [part.strip() for part in choice.split(b";")]
                if kind == b"application/openmetrics-text":
                    return not any(part in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000") for part in parameters)
    return False
