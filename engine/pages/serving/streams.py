"""Server-sent events to browsers: one thread, sockets that never block it, and an end for who does not read."""

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from penstock.engine.clock import Clock
from penstock.engine.pages.serving.live import Live
from penstock.engine.pages.serving.packing import event_packed, stream_begin
from penstock.engine.telemetry.http_server import Answer

clients_max: Final = 64
unread_bytes_max: Final = 1 << 20
unread_s_max: Final = 10.0
"""Who has read nothing of what waits for them for so long is cut off."""
comment_every_s: Final = 15.0
turn_s: Final = 0.25
"""At most four changes a second."""


@dataclass(slots=True, eq=False)
class _Client:
    topic: str
    packed: bool = False
    unread: bytearray = field(default_factory=bytearray)
    moved_s: float = 0.0


class Streams:
    """Everybody who follows a topic. `open` is called by the threads that answer, everything else happens on one thread."""

    def __init__(self, live: Live, *, clock: Clock, refused: Callable[[str], None] = lambda _: None) -> None:
        """`refused` is told of each client that was cut off or turned away."""
        self._live = live
        self._clock = clock
        self._refused = refused
        self._lock = threading.Lock()
        self._clients: dict[socket.socket, _Client] = {}
        self._ended = threading.Event()
        self._woken = threading.Event()
        self._waits_s = turn_s
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="page-streams", daemon=True)
        self._commented_s = clock.monotonic_s()

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def close(self) -> None:
        """Let everybody go."""
        self._ended.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            for connection in list(self._clients):
                self._drop(connection)
        self._selector.close()

    def wake(self) -> None:
        """There is something new: who follows need not wait for the next look. For who says so each time; a look by itself is rarer then."""
        self._waits_s = 2 * turn_s
        self._woken.set()

    @property
    def watched(self) -> frozenset[str]:
        """Topics that somebody follows."""
        with self._lock:
            return frozenset(client.topic for client in self._clients.values())

    def open(self, topic: str, last_id: str, headers: dict[str, str], *, packed: bool = False) -> Answer:
        """The answer that follows a topic, `packed`: in gzip; 503 where as many follow already as may."""
        with self._lock:
            full = len(self._clients) >= clients_max
        if full:
            self._refused("too many pages are open")
            return Answer(
                body=b"too many pages are open\n",
                content_type="text/plain; charset=utf-8",
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                headers={**headers, "Retry-After": "10"},
            )
        first = b"retry: 2000\n\n"
        return Answer(
            body=stream_begin + event_packed(first) if packed else first,
            content_type="text/event-stream; charset=utf-8",
            headers={**headers, "Content-Encoding": "gzip"} if packed else headers,
            take_over=lambda connection: self._begin(connection, topic, last_id, packed),
        )

    def _begin(self, connection: socket.socket, topic: str, last_id: str, packed: bool) -> None:
        connection.setblocking(False)
        with self._lock:
            if self._ended.is_set() or len(self._clients) >= clients_max:
                connection.close()
                return
            first, for_others = self._live.begin(topic, last_id)
            if for_others is not None:
                self._send_all(topic, for_others)
            client = _Client(topic=topic, packed=packed, moved_s=self._clock.monotonic_s())
            self._clients[connection] = client
            self._selector.register(connection, selectors.EVENT_READ)
            self._put(connection, client, event_packed(first) if packed and first else first)

    def _run(self) -> None:
        turned_s = self._clock.monotonic_s()
        while not self._ended.is_set():
            self._woken.wait(self._waits_s)
            self._woken.clear()
            early_s = turned_s + turn_s - self._clock.monotonic_s()
            if self._ended.wait(max(early_s, 0.0)):
                return
            turned_s = self._clock.monotonic_s()
            with self._lock:
                self._forget_gone()
                for topic in {client.topic for client in self._clients.values()}:
                    if (frame := self._live.change(topic)) is not None:
                        self._send_all(topic, frame)
                now_s = self._clock.monotonic_s()
                if now_s - self._commented_s > comment_every_s:
                    self._commented_s = now_s
                    for topic in {client.topic for client in self._clients.values()}:
                        self._send_all(topic, b": still here\n\n")
                for connection, client in list(self._clients.items()):
                    self._put(connection, client, b"")

    def _forget_gone(self) -> None:
        """A client says nothing more: what can be read is its end."""
        for key, _ in self._selector.select(0):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            try:
                over = not connection.recv(4096)
            except BlockingIOError:
                continue
            except OSError:
                over = True
            if over:
                self._drop(connection)

    def _send_all(self, topic: str, frame: bytes) -> None:
        following = [each for each in self._clients.items() if each[1].topic == topic]
        packed = event_packed(frame) if any(client.packed for _, client in following) else b""
        for connection, client in following:
            self._put(connection, client, packed if client.packed else frame)

    def _put(self, connection: socket.socket, client: _Client, frame: bytes) -> None:
        """Send what waits and this; keep what the client does not take, up to a bound."""
        now_s = self._clock.monotonic_s()
        if not client.unread:
            client.moved_s = now_s
        client.unread += frame
        try:
            while client.unread:
                sent = connection.send(client.unread)
                del client.unread[:sent]
                client.moved_s = now_s
        except BlockingIOError:
            if len(client.unread) > unread_bytes_max or now_s - client.moved_s > unread_s_max:
                self._refused("a page did not read what it asked for")
                self._drop(connection)
        except OSError:
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        if self._clients.pop(connection, None) is not None:
            with suppress(KeyError, ValueError):
                self._selector.unregister(connection)
            connection.close()
