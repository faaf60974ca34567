"""The port that acts: requests in, answers out, over TLS where a certificate is configured. It decides nothing."""

import ipaddress
import logging
import selectors
import socket
import ssl
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import h11
import orjson

from penstock.engine.clock import SystemClock
from penstock.engine.settings.tls_files import TlsFiles
from penstock.engine.telemetry.http_server import log_fault
from penstock.schemas.errors import ConfigError
from penstock.schemas.log_codes import LogCode

logger = logging.getLogger("penstock.admin")

head_bytes_max: Final = 16 << 10
body_bytes_max: Final = 64 << 10
request_time_max_s: Final = 5.0
"""From the connection to the last byte of the request, the TLS handshake included."""
answer_time_max_s: Final = 5.0
threads: Final = 16
waiting_max: Final = 32
"""Connections beyond the threads' that wait for one; others are closed at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a client sent: read whole, and not looked at."""

    method: str
    path: str
    headers: Mapping[str, tuple[str, ...]] = field(repr=False)
    body: bytes = field(repr=False)
    origin: str
    """Address that it came from."""
    certificate_name: str | None = None
    """Common name of the client's certificate, which our authority has signed; None without one."""

    def header(self, name: str) -> str | None:
        """The only header of that name; None for none, and for several, of which none is to be believed."""
        found = self.headers.get(name, ())
        return found[0] if len(found) == 1 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer as JSON."""

    status: HTTPStatus
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def error_reply(status: HTTPStatus, code: str, detail: str = "") -> Reply:
    """A stable code, and a sentence for those who were let in."""
    return Reply(status=status, body={"error": code, **({"detail": detail} if detail else {})})


class AdminServer:
    """One thread takes connections; each is answered by one of a few threads, once, and closed.

    When every thread reads a request and another client comes, the one that has been read for longest is cut off: clients that
    send nothing keep nobody out.
    """

    def __init__(
        self,
        answer: Callable[[Request], Reply],
        *,
        refused: Callable[[str, HTTPStatus], Reply],
        host: str,
        port: int,
        tls: TlsFiles | None,
    ) -> None:
        """Binds at once; port 0 takes a free one. Raises ConfigError for the address or a file that cannot be used.

        `refused`: told of what is no request, with the address that it came from; what to answer.
        """
        self._answer = answer
        self._refused = refused
        self._tls = Certificates(tls) if tls else None
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind((host, port))
            self._listener.listen(waiting_max)
        except (OSError, OverflowError) as error:
            self._listener.close()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ConfigError(f"admin: cannot listen on {host}:{port}: {reason}") from error
        self._listener.setblocking(False)
        self._places = threading.BoundedSemaphore(threads + waiting_max)
        self._reading: OrderedDict[socket.socket, None] = OrderedDict()  # the oldest first
        self._reading_lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="admin")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="admin-accept", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._listener.getsockname()[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Take no more; what is being answered ends by itself."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self._listener.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._ended.is_set():
                for _ in selector.select(0.1):
                    with suppress(
                        OSError
                    ):  # nobody else is there, or no descriptor is left: the next turn tries again
                        self._hand_over(*self._listener.accept())

    def _hand_over(self, connection: socket.socket, address: Any) -> None:
        if not self._places.acquire(blocking=False):
            connection.close()
            return

        with self._reading_lock:
            if len(self._reading) >= threads:
                oldest, _ = self._reading.popitem(last=False)
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)
            self._reading[connection] = None

        def serve() -> None:
            try:
                with suppress(OSError, ssl.SSLError):
                    self._converse(connection, str(ipaddress.ip_address(address[0].split("%")[0])))
            finally:
                self._is_read(connection)
                connection.close()
                self._places.release()

        try:
            self._pool.submit(serve).add_done_callback(log_fault)
        except RuntimeError:  # it is being closed
            connection.close()
            self._places.release()

    def _is_read(self, connection: socket.socket) -> None:
        with self._reading_lock:
            self._reading.pop(connection, None)

    def _converse(self, plain: socket.socket, origin: str) -> None:
        connection = plain
        until_s = SystemClock().monotonic_s() + request_time_max_s
        connection.settimeout(request_time_max_s)
        name = None
        if self._tls is not None:
            try:
                connection = self._tls.context().wrap_socket(connection, server_side=True)
            except ssl.SSLError as error:
                if "CERTIFICATE" in (
                    error.reason or ""
                ):  # a client's; anything else is nobody's attempt to act
                    self._refused(origin, HTTPStatus.UNAUTHORIZED)
                raise
            name = common_name(connection.getpeercert())
        with connection:
            protocol = h11.Connection(h11.SERVER, max_incomplete_event_size=head_bytes_max)
            try:
                request = self._read(connection, protocol, until_s, origin=origin, name=name)
            except (h11.RemoteProtocolError, UnicodeDecodeError) as error:
                _send(
                    connection,
                    protocol,
                    self._refused(origin, HTTPStatus(getattr(error, "error_status_hint", 400))),
                )
                with suppress(
                    OSError
                ):  # what is still coming would end the connection before the answer is read
                    for _ in range(16):
                        connection.settimeout(0.5)
                        if not connection.recv(64 << 10):
                            break
                return
            if request is None:
                return
            self._is_read(plain)
            reply = error_reply(HTTPStatus.INTERNAL_SERVER_ERROR, "internal")
            try:
                reply = self._answer(request)
            finally:
                _send(connection, protocol, reply)

    def _read(
        self,
        connection: socket.socket,
        protocol: h11.Connection,
        until_s: float,
        *,
        origin: str,
        name: str | None,
    ) -> Request | None:
        """The request; None when the client went, or took too long. Raises h11.RemoteProtocolError."""
        head: h11.Request | None = None
        body = b""
        while True:
            event = protocol.next_event()
            if event is h11.NEED_DATA:
                left_s = until_s - SystemClock().monotonic_s()
                if left_s <= 0:
                    return None
                connection.settimeout(left_s)
                protocol.receive_data(connection.recv(16 << 10))
            elif isinstance(event, h11.Request):
                head = event
                if {b"content-length", b"transfer-encoding"} <= {name for name, _ in head.headers}:
                    # A proxy may have ended the request by the one, and we would by the other.
                    raise h11.RemoteProtocolError("two lengths", error_status_hint=400)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > body_bytes_max:
                    raise h11.RemoteProtocolError("body too long", error_status_hint=413)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                headers: dict[str, tuple[str, ...]] = {}
                for key, value in head.headers:
                    word = key.decode("ascii")
                    headers[word] = (*headers.get(word, ()), value.decode("latin-1"))
                return Request(
                    method=head.method.decode("ascii"),
                    path=head.target.split(b"?", 1)[0].decode("ascii", "replace"),
                    headers=headers,
                    body=body,
                    origin=origin,
                    certificate_name=name,
                )
            else:
                return None


class Certificates:
    """The TLS side, made anew when a file changes: certificates are exchanged while we run."""

    def __init__(self, files: TlsFiles) -> None:
        """Raises ConfigError for a file that cannot be used."""
        self._files = files
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._context = self._made()

    def context(self) -> ssl.SSLContext:
        """What the next connection is met with; while the files do not go together, as before."""
        with self._lock:
            stamp = self._stamp()
            if stamp != self._seen:
                self._seen = stamp
                try:
                    self._context = self._made()
                except ConfigError as error:
                    logger.warning(
                        "%s; the certificate before it stays", error, extra=LogCode.CERTIFICATE_KEPT.extra
                    )
            return self._context

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        found = []
        for path in (self._files.certificate, self._files.key, self._files.client_ca):
            try:
                state = path.stat() if path else None
            except OSError:
                state = None
            found.append((state.st_mtime_ns, state.st_ino) if state else (0, 0))
        return tuple(found)

    def _made(self) -> ssl.SSLContext:
        files = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(files.certificate, files.key, password=lambda: b"")
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"admin.certificate_file and key_file cannot be used: {_reason(error)}"
            ) from error
        if files.client_ca is not None:
            try:
                context.load_verify_locations(files.client_ca)
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"admin.client_ca_file cannot be used: {_reason(error)}") from error
            context.verify_mode = ssl.CERT_REQUIRED if files.client_required else ssl.CERT_OPTIONAL
        return context


def _reason(error: OSError) -> str:
    return (
        (getattr(error, "reason", None) or error.strerror or type(error).__name__).lower().replace("_", " ")
    )


def common_name(certificate: Mapping[str, Any] | None) -> str | None:
    """The only common name of a certificate that was verified; None when there is none, or more than one."""
    names = [
        value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"
    ]
    return names[0] if len(names) == 1 else None


def _send(connection: socket.socket, protocol: h11.Connection, reply: Reply) -> None:
    body = orjson.dumps(reply.body) + b"\n"
    headers = [
        ("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
        ("Connection", "close"), *reply.headers.items(),
    ]  # fmt: skip
    connection.settimeout(answer_time_max_s)
    head = protocol.send(
        h11.Response(status_code=reply.status, headers=headers, reason=reply.status.phrase.encode())
    )
    connection.sendall((head or b"") + (protocol.send(h11.Data(data=body)) or b""))
    with suppress(OSError):
        connection.shutdown(socket.SHUT_WR)
